"""The plan of a job: what configuration and data decide together, made once and before any image is decoded.

After `make_plan` no hyperparameter is `auto`, and nothing that it checked fails later: the job, the loop and the
artifact take from the plan and choose nothing again. What training *learns* from the data (statistics of
labels, thresholds, the range of deep pictures) is not here but in the task and in the preprocessing.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from sagemaker_monai.data.datasets import Dataset, targets_of
from sagemaker_monai.errors import ConfigError
from sagemaker_monai.hyperparameters import TrainConfig
from sagemaker_monai.networks.networks import network_def
from sagemaker_monai.preprocessing.preprocessing import Preprocessing, build_preprocessing
from sagemaker_monai.tasks.task import Task
from sagemaker_monai.tasks.tasks import TASKS
from sagemaker_monai.training.preset_choice import choose_preprocessing

if TYPE_CHECKING:
    from sagemaker_monai.tasks.task import Floats


@dataclass(frozen=True)
class Plan:
    """What a job does, with nothing left to choose.

    Attributes:
        config: hyperparameters, without an `auto`.
        task: as the labels make it, not yet fitted to the targets of training.
        preprocessing: of training, validation and serving; `preprocessing.spec` is what the artifact carries.
        network_def: plain data of the network.
        precision: of the arithmetic: fp32, bf16 or fp16.
    """

    config: TrainConfig
    task: Task
    preprocessing: Preprocessing
    network_def: dict[str, Any]
    precision: str


def make_plan(
    config: TrainConfig, dataset: Dataset, device: torch.device, *, spec: list[dict[str, Any]] | None = None
) -> Plan:
    """Decide everything that configuration and data decide together.

    Args:
        config: as given.
        dataset: labels and files; some images are looked at where `spec` is None, and none is decoded otherwise.
        device: where to train.
        spec: the preprocessing, where it is known already.

    Raises:
        ConfigError, DatasetError: a hyperparameter does not suit the task, the images, the network or the device, or
            the images do not go together.
    """
    preprocessing = build_preprocessing(choose_preprocessing(config, dataset) if spec is None else spec)
    config = resolve(
        config,
        task=dataset.task,
        spatial_dims=preprocessing.spatial_dims,
        is_photograph=preprocessing.dtype == "uint8",
    )
    task = TASKS[dataset.task].build(dataset.labels)
    fitted = task.fitted(targets_of(dataset.training, dataset.labels))
    check_best_metric(config, fitted, targets_of(dataset.validation, dataset.labels))
    definition = network_def(
        config.network,
        spatial_dims=preprocessing.spatial_dims,
        in_channels=preprocessing.channels,
        num_classes=task.outputs,
        image_size=preprocessing.size,
        dropout=config.dropout,
    )
    return Plan(config, task, preprocessing, definition, choose_precision(config, device))


def resolve(config: TrainConfig, *, task: str, spatial_dims: int, is_photograph: bool) -> TrainConfig:
    """Give every `auto` its value.

    Args:
        config: as given; one that is resolved already stays as it is.
        task: a key of `tasks.tasks.TASKS`.
        spatial_dims: 2 or 3, of the network's input.
        is_photograph: whether the values are 8-bit pictures.

    Raises:
        ConfigError: a hyperparameter does not suit the task or the images.
    """
    row = TASKS[task]
    imbalance = row.imbalance[0] if config.imbalance == "auto" else config.imbalance
    if imbalance not in row.imbalance:
        raise ConfigError(f"imbalance {imbalance} is not for {task}: set one of auto, {', '.join(row.imbalance)}")
    best_metric = row.best_metric if config.best_metric == "auto" else config.best_metric
    if best_metric not in row.goals:
        raise ConfigError(f"best_metric {best_metric} is not for {task}: set one of auto, {', '.join(row.goals)}")
    usual = "volume" if spatial_dims == 3 else "photo" if is_photograph else "grey"
    augmentation = usual if config.augmentation == "auto" else config.augmentation
    if augmentation != "none" and (augmentation == "volume") != (spatial_dims == 3):
        raise ConfigError(f"augmentation {augmentation} is not for {spatial_dims}-D images: set auto, none or {usual}")
    return config.model_copy(
        update={"task": task, "imbalance": imbalance, "best_metric": best_metric, "augmentation": augmentation}
    )


def check_best_metric(config: TrainConfig, task: "Task", targets: "Floats") -> None:
    """Refuse a score that would not exist after an epoch.

    Args:
        config: with nothing left to choose.
        task: fitted or not.
        targets: (N, T) of the validation split.

    Raises:
        ConfigError: it does not exist whatever is answered, or not if all is answered right.
    """
    row = TASKS[task.name]
    is_always_there = row.metric(config.best_metric).is_always_there
    if not is_always_there and task.score(targets, targets)[config.best_metric] is None:
        raise ConfigError(
            f"best_metric {config.best_metric} does not exist on the validation split, whose {len(targets)} images "
            f"have one {'class' if row.has_classes else 'value'} only: set another, or give the split "
            "images with other labels"
        )


def choose_precision(config: TrainConfig, device: torch.device) -> str:
    """The arithmetic of training on a device.

    On a CPU `auto` stays with fp32: bf16 is 3.7 times as fast where the CPU has AMX, and a third as fast where not.

    Raises:
        ConfigError: fp16 without a GPU.
    """
    if config.precision == "fp16" and device.type != "cuda":
        raise ConfigError("precision fp16 needs a GPU: set auto or fp32")
    if config.precision != "auto":
        return config.precision
    return "bf16" if device.type == "cuda" and torch.cuda.is_bf16_supported() else "fp32"
