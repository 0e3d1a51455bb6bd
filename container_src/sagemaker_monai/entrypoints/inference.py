"""The four functions in sagemaker-inference's form: what a server calls to load the model and to answer one request.

The artifact's own code/inference.py may replace any of them where the deployer allows it (`handler_service`).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from sagemaker_monai.errors import NotAcceptable
from sagemaker_monai.images import read_request
from sagemaker_monai.predictor import Predictor
from sagemaker_monai.samples import Sample
from sagemaker_monai.tasks.classification import ENCODERS, Prediction

DEFAULT_TYPE = "application/json"


@dataclass(frozen=True)
class Answer:
    """The predictions for the pictures of one request, in order, and the digest of the artifact they came from."""

    predictions: list[Prediction]
    model_version: str


def model_fn(model_dir: str) -> Predictor:
    """Load the artifact, onto the GPU when there is one.

    Args:
        model_dir: folder of the artifact.

    Raises:
        BundleError: it is not sound.
    """
    return Predictor.read(Path(model_dir), "cuda" if torch.cuda.is_available() else "cpu")


def input_fn(body: bytes, content_type: str) -> list[Sample]:
    """Take a request's body apart.

    Args:
        body: as it arrived.
        content_type: the header, parameters included.

    Returns:
        One Sample for each picture, at least one.

    Raises:
        UnsupportedMediaType, MalformedRequest, PayloadTooLarge: as their names say.
    """
    return read_request(body, content_type)


def predict_fn(samples: Sequence[Sample], model: Predictor) -> Answer:
    """Decode and classify pictures.

    Args:
        samples: one or more, also those of several requests.
        model: from `model_fn`.

    Raises:
        UndecodableImage, UnsuitableImage, PayloadTooLarge: a picture cannot be used.
    """
    return Answer(model.predict(samples), model.model_version)


def output_fn(answer: Answer, accept: str) -> tuple[bytes, str]:
    """Write an answer in the form that the client prefers.

    Args:
        answer: from `predict_fn`.
        accept: the header; empty for none.

    Returns:
        The body and its content type.

    Raises:
        NotAcceptable: none of ENCODERS fits.
    """
    content_type = negotiate(accept)
    return ENCODERS[content_type](answer.predictions, answer.model_version), content_type


def negotiate(accept: str) -> str:
    """Choose among ENCODERS what an Accept header asks for.

    The highest q wins, then the range that the client named first, then the table's order; the q of a type is that of
    the most specific range that fits it. Parameters other than q are ignored, and so is a range that cannot be read.

    Args:
        accept: the header; empty or without a media range: JSON.

    Raises:
        NotAcceptable: names what can be had.

    Source: RFC 9110, section 12.5.1.
    """
    ranges = [parsed for part in accept.split(",") if (parsed := _media_range(part)) is not None]
    if not ranges:
        return DEFAULT_TYPE
    ranked = []
    for order, content_type in enumerate(ENCODERS):
        # Most specific first: application/json, then application/*, then */*.
        for wanted in (content_type, content_type.partition("/")[0] + "/*", "*/*"):
            position = next((place for place, (name, _) in enumerate(ranges) if name == wanted), None)
            if position is not None:
                if ranges[position][1] > 0:
                    ranked.append((-ranges[position][1], position, order, content_type))
                break
    if not ranked:
        raise NotAcceptable(f"Accept names none of {', '.join(ENCODERS)}")
    return min(ranked)[-1]


def _media_range(part: str) -> tuple[str, float] | None:
    """Name and q, from 0 to 1, of one range of an Accept header; None for what is not one."""
    name, *parameters = (piece.strip().lower() for piece in part.split(";"))
    quality = 1.0
    for parameter in parameters:
        key, _, value = parameter.partition("=")
        if key.strip() == "q":
            try:
                quality = float(value)
            except ValueError:
                return None
    return (name, quality) if "/" in name and 0 <= quality <= 1 else None
