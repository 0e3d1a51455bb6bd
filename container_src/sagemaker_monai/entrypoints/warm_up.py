"""What a server asks its model before it says that it is ready, and what a sound answer is.

The question suits the artifact: a drawn picture for photographs, raw values of the input's size for medical images.
"""

import io
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from sagemaker_monai.serving.back_end import Request, Response, StartError, WarmUp
from sagemaker_monai.serving.config import ServeConfig

INFERENCE = "configs/inference.json"
MAX_CONFIG_BYTES = 16 * 1024 * 1024
MAX_VALUES = 1 << 28  # of the question; no network that an artifact may name takes more


def warm_up(config: ServeConfig, model_dir: Path) -> WarmUp:
    """A question, and what a sound answer to it is.

    Code of the artifact's own may want other input: there, any answer shows that the model is loaded.
    """
    has_code = config.allow_bundle_code and (model_dir / "code" / "inference.py").exists()
    return WarmUp(question(model_dir), check=(lambda _: None) if has_code else check_answer)


def question(model_dir: Path) -> Request:
    """A request that the model of a sound artifact answers; what is wrong with another is said when it is loaded."""
    try:
        file = model_dir / INFERENCE
        text = file.read_bytes() if file.stat().st_size <= MAX_CONFIG_BYTES else b""
        load = json.loads(text)["preprocessing"]["transforms"][0]
        if load["_target_"].endswith(".LoadPhotograph"):
            return Request(draw_picture(), "image/png", "application/json")
        shape = (load["channels"], *load["size"])
        if all(type(side) is int and side > 0 for side in shape) and math.prod(shape) <= MAX_VALUES:
            return Request(draw_values(shape), "application/x-npy", "application/json")
    except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError):
        pass
    return Request(draw_picture(), "image/png", "application/json")


def draw_picture() -> bytes:
    """A grey gradient as PNG, 256 x 256; grey and RGB models take it alike."""
    stream = io.BytesIO()
    Image.linear_gradient("L").save(stream, "PNG")
    return stream.getvalue()


def draw_values(shape: tuple[int, ...]) -> bytes:
    """A gradient of whole numbers from 0 to 255 along the last axis as npy, (C, *size)."""
    stream = io.BytesIO()
    np.save(stream, np.ascontiguousarray(np.broadcast_to(np.linspace(0, 255, shape[-1]).astype(np.uint8), shape)))
    return stream.getvalue()


def check_answer(response: Response) -> None:
    """Require one sound prediction.

    Raises:
        StartError: the answer to the warm-up is anything else.
    """
    if response.status != 200:
        text = response.body.decode(errors="replace")
        raise StartError(f"BundleError: the model answers {response.status} to a drawn picture: {text[:500]}")
    [prediction] = json.loads(response.body)["predictions"]
    if (fault := _fault(prediction)) is not None:
        raise StartError(f"BundleError: {fault} for a drawn picture")


def _fault(prediction: Mapping[str, Any]) -> str | None:
    if "values" in prediction:
        return None if all(map(math.isfinite, prediction["values"].values())) else "a number is not finite"
    probabilities = prediction["probabilities"]
    if "predicted_classes" in prediction:
        are_sound = all(0 <= probability <= 1 for probability in probabilities.values())
        return None if are_sound else "a probability is not from 0 to 1"
    total = sum(probabilities.values())
    if prediction["predicted_class"] in probabilities and math.isclose(total, 1.0, abs_tol=1e-3):
        return None
    return f"the probabilities sum to {total}, not to 1,"
