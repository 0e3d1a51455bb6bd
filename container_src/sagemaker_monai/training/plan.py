"""The plan of a job: what configuration and data decide together, made once and before any image is decoded.

After `make_plan` no hyperparameter is `auto`, and nothing that it checked fails later: the job, the loop and the
artifact read the plan and decide nothing again, except the number of epochs that fit into `hours` (`job_time`). What
training *learns* from the data (label statistics, thresholds, the range of deep pictures) is in the task and the
preprocessing instead.
"""

import logging
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, partial
from typing import Any

import numpy as np
import torch

from sagemaker_monai.data.datasets import Dataset, targets_of
from sagemaker_monai.errors import ConfigError
from sagemaker_monai.hyperparameters import MOST_EPOCHS, TrainConfig
from sagemaker_monai.messages.shortened import some_of
from sagemaker_monai.networks.networks import network_def
from sagemaker_monai.networks.segmenters import Levels, segmenter_def
from sagemaker_monai.preprocessing.preprocessing import Preprocessing, build_preprocessing
from sagemaker_monai.preprocessing.presets import spacing_of_text
from sagemaker_monai.tasks.task import Floats, Task
from sagemaker_monai.tasks.tasks import TASKS, build_task
from sagemaker_monai.training.augmentation import (
    AUGMENTATIONS,
    VOLUME_PRESETS,
    in_world_units,
    mirrored_axes,
    without_swaps,
)
from sagemaker_monai.training.named_sides import axes_with_sides
from sagemaker_monai.training.patch_plan import (
    WIDTH,
    common_spacing,
    most_voxels,
    plan_patch,
    possible_sizes,
    sides_of,
)
from sagemaker_monai.training.preset_choice import Grids, choose_preprocessing, volume_grids

logger = logging.getLogger(__name__)

LEVELS_OF_DYNUNET = 3
MOST_PATCHES = 8  # of an image in an epoch, unless more are asked for


@dataclass(frozen=True)
class Plan:
    """What a job does, with nothing left to choose.

    Attributes:
        config: hyperparameters, none of them `auto`; with `hours`, `epochs` is the most that are trained, and `fit`
            decides how many.
        task: built from the labels, not yet fitted to the training targets.
        preprocessing: of training, validation and serving; the artifact carries its `spec`.
        network_def: the network as plain data.
        precision: fp32, bf16 or fp16.
        augmentation: steps of `augmentation`.
        mirrored_axes: along which the network may see an image mirrored when it answers, unless that is `no`.
    """

    config: TrainConfig
    task: Task
    preprocessing: Preprocessing
    network_def: dict[str, Any]
    precision: str
    augmentation: list[dict[str, Any]]
    mirrored_axes: tuple[int, ...] = ()


def make_plan(
    config: TrainConfig, dataset: Dataset, device: torch.device, *, spec: list[dict[str, Any]] | None = None
) -> Plan:
    """Decide everything that configuration and data decide together.

    Args:
        config: as given.
        dataset: labels and files; if `spec` is None, some images are read.
        device: where to train.
        spec: the preprocessing, if it is known already.

    Raises:
        ConfigError, DatasetError: a hyperparameter does not suit the task, the images, the network or the device, or
            the images do not go together.
    """
    spec = choose_preprocessing(config, dataset) if spec is None else spec
    preprocessing = build_preprocessing(spec)
    config = resolve(
        config,
        task=dataset.task,
        spatial_dims=preprocessing.spatial_dims,
        is_photograph=preprocessing.dtype == "uint8",
    )
    task = build_task(dataset.task, dataset.labels, None if dataset.legend is None else dataset.legend.regions)
    fitted = task.fitted(targets_of(dataset.training, dataset.labels))
    check_best_metric(config, fitted, targets_of(dataset.validation, dataset.labels))
    precision = choose_precision(config, device)
    grids = cache(partial(volume_grids, config, dataset))  # reads volumes: once, and only if they are asked for
    steps = _augmentation(config, dataset.labels, grids)
    if TASKS[dataset.task].has_masks:
        return _plan_of_masks(config, task, spec, device, precision, steps, grids)
    definition = network_def(
        config.network,
        spatial_dims=preprocessing.spatial_dims,
        in_channels=preprocessing.channels,
        num_classes=task.outputs,
        image_size=preprocessing.size,
        dropout=config.dropout,
    )
    return Plan(config, task, preprocessing, definition, precision, steps)


def _augmentation(config: TrainConfig, labels: Sequence[str], grids: Callable[[], Grids]) -> list[dict[str, Any]]:
    """The steps of a resolved configuration, without those that would make a left side of a right one."""
    steps = AUGMENTATIONS[config.augmentation]
    axes = axes_with_sides(labels)
    is_volume = config.augmentation in VOLUME_PRESETS
    if axes and is_volume and any(spacing is None for _, spacing in grids()):
        axes = frozenset(range(3))  # where a volume without geometry has its left is not known
    kept = without_swaps(steps, axes)
    if kept != steps:
        logger.info("labels name sides (%s): images are not mirrored across them", some_of(list(labels)))
    return kept


def _plan_of_masks(
    config: TrainConfig,
    task: Task,
    spec: list[dict[str, Any]],
    device: torch.device,
    precision: str,
    augmentation: list[dict[str, Any]],
    grids: Callable[[], Grids],
) -> Plan:
    """The plan of segmentation: the grid, the patch and the levels of the network, from shapes and spacings."""
    preprocessing = build_preprocessing(spec)
    is_volume = preprocessing.spatial_dims == 3
    is_chosen = config.network != "auto"
    network = config.network if is_chosen else "unet"
    width, batch_size = config.network_width or WIDTH[device.type], config.batch_size or (2 if is_volume else 16)
    if is_volume:
        known = [own for _, own in grids() if own is not None]
        spacing = _spacing(config.spacing_mm, known)
        shapes = [
            shape
            if spacing is None or own is None
            else [max(1, round(n * mm / new)) for n, mm, new in zip(shape, own, spacing, strict=True)]
            for shape, own in grids()
        ]
        usual = spacing or tuple(np.median(known or [(1.0, 1.0, 1.0)], axis=0))
        augmentation = in_world_units(augmentation, usual) if known else augmentation
        patch, levels = plan_patch(
            shapes, usual, network, width=width, most_voxels=most_voxels(width, batch_size, device),
            asked=sides_of(config.patch_size, 3),
        )  # fmt: skip
        spec[0] |= {"size": list(patch), "spacing_mm": None if spacing is None else list(spacing)}
    else:
        if config.patch_size != "auto":
            raise ConfigError("patch_size is for volumes; the network sees pictures whole: set image_size")
        size = preprocessing.size
        patch, levels = plan_patch([size], (1.0, 1.0), network, width=width, most_voxels=math.prod(size), asked=size)
        if patch != size:
            nearest = possible_sizes(size[0], network, width)
            raise ConfigError(f"image_size {size[0]} cannot be halved as often as {network} does: set {nearest}")
        shapes = [size]
    sizes = [math.prod(shape) / math.prod(patch) for shape in shapes]
    if not is_chosen:
        network = _usual_segmenter(device, levels, is_whole=is_volume and float(np.median(sizes)) <= 1)
    patches = config.patches_per_image or min(MOST_PATCHES, max(1, round(float(np.median(sizes)))))
    preprocessing = build_preprocessing(spec)
    definition = segmenter_def(network, levels, in_channels=preprocessing.channels, out_channels=task.outputs)
    axes = () if config.test_time_mirroring == "no" else mirrored_axes(augmentation)
    if config.test_time_mirroring == "yes" and not axes:
        raise ConfigError("test_time_mirroring=yes is for images that augmentation mirrors: leave it out")
    config = config.model_copy(
        update={
            "network": network,
            "network_width": width,
            "batch_size": batch_size,
            "patches_per_image": patches,
            "patch_size": ",".join(map(str, patch)) if is_volume else "auto",
        }
    )
    return Plan(config, task, preprocessing, definition, precision, augmentation, axes)


def _usual_segmenter(device: torch.device, levels: Levels, *, is_whole: bool) -> str:
    """The network for a patch, whose divisors are the same for both.

    `dynunet` learns more from each voxel, at 3.6 times the work of `unet`, which starts by halving the image. On a CPU
    it is for volumes that are no larger than a patch: on small MR crops it reached in 7 epochs what `unet` reached in
    49, but a CT would take minutes to segment.
    """
    is_affordable = device.type == "cuda" or is_whole
    return "dynunet" if is_affordable and len(levels.strides) >= LEVELS_OF_DYNUNET else "unet"


def _spacing(asked: str, known: Sequence[Sequence[float]]) -> tuple[float, ...] | None:
    """What volumes are brought to, by spacing_mm and their own spacings; arrays without any are taken as they are."""
    if asked == "none" or (asked == "preset" and not known):
        return None
    return common_spacing(known) if asked == "preset" else tuple(spacing_of_text(asked))


def resolve(config: TrainConfig, *, task: str, spatial_dims: int, is_photograph: bool) -> TrainConfig:
    """Replace every `auto` by its value for a key of `TASKS` and 2-D or 3-D input; a resolved one stays as it is.

    Raises:
        ConfigError: a hyperparameter does not suit the task or the images.
    """
    row = TASKS[task]
    if not row.has_masks:
        of_masks = {"network_width": 0, "patch_size": "auto", "patches_per_image": 0, "test_time_mirroring": "no"}
        if idle := [name for name, default in of_masks.items() if getattr(config, name) != default]:
            raise ConfigError(f"{', '.join(idle)} is for segmentation, and the task is {task}: leave it out")
        network = "resnet18" if config.network == "auto" else config.network
        config = config.model_copy(update={"network": network, "batch_size": config.batch_size or 32})
    imbalance = row.imbalance[0] if config.imbalance == "auto" else config.imbalance
    if imbalance not in row.imbalance:
        raise ConfigError(
            f"imbalance {imbalance} does not suit {task}: set it to one of auto, {', '.join(row.imbalance)}"
        )
    best_metric = row.best_metric if config.best_metric == "auto" else config.best_metric
    if best_metric not in row.goals:
        raise ConfigError(
            f"best_metric {best_metric} does not suit {task}: set it to one of auto, {', '.join(row.goals)}"
        )
    usual = "volume" if spatial_dims == 3 else "photo" if is_photograph else "grey"
    augmentation = usual if config.augmentation == "auto" else config.augmentation
    if augmentation != "none" and (augmentation in VOLUME_PRESETS) != (spatial_dims == 3):
        raise ConfigError(
            f"augmentation {augmentation} does not suit {spatial_dims}-D images: set auto, none or {usual}"
        )
    is_only_hours = config.hours and "epochs" not in config.model_fields_set
    return config.model_copy(
        update={
            "task": task,
            "imbalance": imbalance,
            "best_metric": best_metric,
            "augmentation": augmentation,
            "epochs": MOST_EPOCHS if is_only_hours else config.epochs,
        }
    )


def check_best_metric(config: TrainConfig, task: Task, targets: Floats) -> None:
    """Refuse a best_metric that is undefined on the validation split's targets (N, T).

    Raises:
        ConfigError: even perfect answers would have no such score.
    """
    row = TASKS[task.name]
    is_always_there = row.metric(config.best_metric).is_always_there
    if not is_always_there and task.score(targets, targets)[config.best_metric] is None:
        raise ConfigError(
            f"best_metric {config.best_metric} is undefined on the validation split, whose {len(targets)} images "
            f"all have the same {'class' if row.has_classes else 'value'}: set another, or add images with other "
            "labels to the split"
        )


def choose_precision(config: TrainConfig, device: torch.device) -> str:
    """The precision of training on a device.

    On a CPU `auto` means fp32: bf16 is 3.7 times as fast on CPUs with AMX, but a third as fast without.

    Raises:
        ConfigError: fp16 without a GPU.
    """
    if config.precision == "fp16" and device.type != "cuda":
        raise ConfigError("precision fp16 needs a GPU: set auto or fp32")
    if config.precision != "auto":
        return config.precision
    return "bf16" if device.type == "cuda" and torch.cuda.is_bf16_supported() else "fp32"
