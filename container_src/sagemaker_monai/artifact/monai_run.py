"""What `python -m monai.bundle run` calls, with the parts that MONAI built from an artifact's configs/inference.json.

One image goes through the parts in order. MONAI's engine is not used, because it needs pytorch-ignite.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from monai.inferers import SlidingWindowInferer
from torch import nn

from sagemaker_monai.artifact.bundle import WEIGHTS, load_weights
from sagemaker_monai.artifact.sliding_window import mirrored, padded_to
from sagemaker_monai.errors import ConfigError
from sagemaker_monai.images.sample import Sample
from sagemaker_monai.tasks.postprocessing import RegionMap
from sagemaker_monai.tasks.regions import Regions, numbers_of_structures


class MirroredInferer(SlidingWindowInferer):  # type: ignore[misc]
    """MONAI's, with `sliding_window.mirrored` of its network; what an artifact with test-time mirroring names."""

    def __init__(self, mirrored_axes: Sequence[int], **arguments: Any) -> None:
        super().__init__(**arguments)
        self.mirrored_axes = tuple(mirrored_axes)

    def __call__(self, inputs: torch.Tensor, network: Callable[..., torch.Tensor]) -> torch.Tensor:
        """The network's outputs (N, K, ...) of inputs (N, C, ...)."""
        outputs: torch.Tensor = super().__call__(inputs, mirrored(network, self.mirrored_axes))
        return outputs


def run_image(
    image: str | Path | Sequence[str | Path],
    bundle_root: str | Path,
    network: nn.Module,
    preprocessing: Callable[[Sample], torch.Tensor],
    inferer: Callable[[torch.Tensor, nn.Module], torch.Tensor],
    postprocessing: Callable[[torch.Tensor], Any],
    labels: Mapping[str, str],
) -> dict[str, Any]:
    """Answer one image, and print the answer as a line of JSON.

    Args:
        image: path of a file, or of a folder with one DICOM series; or one path per channel.
        bundle_root: the artifact's folder, for its weights.
        network: gets the weights.
        preprocessing: to the network's input (C, W, H[, D]).
        inferer: of MONAI.
        postprocessing: of the outputs of one image, (K,), or (K, ...) of a segmentation.
        labels: number of an answer, or of a structure without the background, from "0" -> name.

    Returns:
        label -> probability or value, the same numbers as from `serve`; for findings `probabilities` and
        `is_predicted`, each by label; for structures their voxels on the prepared grid.

    Raises:
        ConfigError: no image is given.
        CallerError: the image cannot be used.
        BundleError: the weights do not fit, or give values that are not finite.
    """
    if not image:
        raise ConfigError("image must be the path of an image, such as --image scan.png")
    load_weights(network, Path(bundle_root) / WEIGHTS)
    network.eval()
    with torch.inference_mode():
        outputs = _outputs(preprocessing(Sample.of(image)), inferer, network)
    answers = postprocessing(outputs)
    names = [labels[str(index)] for index in range(len(labels))]

    def named(values: list[Any]) -> dict[str, Any]:
        return dict(zip(names, values, strict=True))

    if isinstance(answers, dict):
        answer = {key: named(values) for key, values in answers.items()}
    elif answers.ndim > 1:  # a label map
        numbers = numbers_of_structures(len(names), _regions_of(postprocessing))
        counts = answers.flatten().bincount(minlength=max(map(max, numbers)) + 1)
        answer = {"voxels": named([int(counts[list(each)].sum()) for each in numbers])}
    else:
        answer = named(answers.tolist())
    print(json.dumps(answer))
    return answer


def _regions_of(postprocessing: Any) -> Regions | None:
    """The regions by which a label map was painted, if one of the steps painted it."""
    steps = getattr(postprocessing, "transforms", ())
    return next((step.regions for step in steps if isinstance(step, RegionMap)), None)


def _outputs(
    image: torch.Tensor, inferer: Callable[[torch.Tensor, nn.Module], torch.Tensor], network: nn.Module
) -> torch.Tensor:
    """Of one image, (K, ...); one that is smaller than the inferer's windows has its lowest value around it."""
    window = getattr(inferer, "roi_size", None)
    if window is None:
        return inferer(image[None], network)[0]
    padded, before = padded_to(image, window)
    inside = tuple(slice(first, first + extent) for first, extent in zip(before, image.shape[1:], strict=True))
    return inferer(padded[None], network)[0][(slice(None), *inside)]
