"""A small artifact with known weights for the tests: photographs, or any preset and task."""

from pathlib import Path
from typing import Any

import torch

from sagemaker_monai.artifact.bundle import write_bundle
from sagemaker_monai.images.scope import Scope
from sagemaker_monai.networks.networks import build_network, network_def
from sagemaker_monai.networks.segmenters import plan_levels, segmenter_def
from sagemaker_monai.preprocessing.presets import PRESETS, preprocessing_for
from sagemaker_monai.tasks.classification import Classification
from sagemaker_monai.tasks.regions import Regions
from sagemaker_monai.tasks.segmentation import Segmentation
from sagemaker_monai.tasks.task import Task
from sagemaker_monai.tasks.tasks import TASKS as ROWS

LABELS = ("akiec", "bcc", "bkl", "df", "mel", "nv", "vasc")
IMAGE_SIZE = 32
VOLUME_SIZE = 16  # width, height and depth

TASKS: dict[str, Task] = {name: row.example().task for name, row in ROWS.items() if not row.has_masks}


def bundle_parts(
    labels: tuple[str, ...] = LABELS,
    channels: int = 3,
    fit: str = "stretch",
    *,
    preset: str = "photo",
    window: str = "",
    image_size: int = 0,
    network: str = "resnet10",
    task: Task | None = None,
    scope: Scope | None = None,
) -> dict[str, Any]:
    """The arguments of `write_bundle`: a residual network with seeded random weights.

    Args:
        labels: classes, if `task` is None.
        channels: of the input.
        fit: as the hyperparameter.
        preset: a key of `presets.PRESETS`.
        window: as the hyperparameter.
        network: a key of `NETWORKS`.
        image_size: sides of the input; 0 is IMAGE_SIZE, or VOLUME_SIZE for volumes.
        task: None is classification; see `TASKS`.
        scope: what it was trained on.
    """
    torch.manual_seed(7)
    spatial_dims = PRESETS[preset].spatial_dims
    side = image_size or (IMAGE_SIZE if spatial_dims == 2 else VOLUME_SIZE)
    task = task or Classification(labels)
    definition = network_def(
        network, spatial_dims=spatial_dims, in_channels=channels, num_classes=task.outputs, image_size=side
    )
    return {
        "network_def": definition,
        "preprocessing": preprocessing_for(preset, channels=channels, image_size=side, fit=fit, window=window),
        "task": task,
        "weights": build_network(definition).state_dict(),
        "train_config": {"hyperparameters": {"network": network}},
        "provenance": {"dataset_fingerprint": "0" * 64},
        "scope": scope,
    }


def write_small_bundle(folder: Path, **parts: Any) -> str:
    """Write the artifact; returns its model_version."""
    return write_bundle(folder, **bundle_parts(**parts))


def write_small_segmenter(
    folder: Path,
    *,
    preset: str = "mr_volume",
    labels: tuple[str, ...] = ("liver", "spleen"),
    patch: tuple[int, ...] = (16, 16, 8),
    channels: int = 1,
    regions: Regions | None = None,
    largest: tuple[int, ...] = (),
    seed: int = 3,
    mirrored_axes: tuple[int, ...] = (),
    **arguments: Any,
) -> str:
    """Write the artifact of a U-Net with seeded random weights; returns its model_version.

    Args:
        folder: of the artifact.
        preset: a key of `presets.PRESETS`.
        labels: of the structures.
        patch: of volumes, or the size of pictures.
        channels: of the input.
        regions, largest: of the task.
        seed: of the weights.
        mirrored_axes: of `write_bundle`.
        arguments: of `preprocessing_for`.
    """
    torch.manual_seed(seed)
    task = Segmentation(labels, regions, largest)
    spec = preprocessing_for(preset, channels=channels, image_size=patch[0], **({"fit": "stretch"} | arguments),
                             **({"patch": patch} if len(patch) == 3 else {}))  # fmt: skip
    spacing = (1.0,) * len(patch)
    definition = segmenter_def("unet", plan_levels(patch, spacing, 4), in_channels=channels, out_channels=task.outputs)
    return write_bundle(
        folder,
        network_def=definition,
        preprocessing=spec,
        task=task,
        weights=build_network(definition).state_dict(),
        train_config={"hyperparameters": {}},
        provenance={"dataset_fingerprint": "0" * 64},
        mirrored_axes=mirrored_axes,
    )
