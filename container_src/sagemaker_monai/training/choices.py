"""What `auto` means for a task and a kind of images: after `resolve` no hyperparameter is left to choose."""

from typing import TYPE_CHECKING

from sagemaker_monai.errors import ConfigError
from sagemaker_monai.hyperparameters import TrainConfig
from sagemaker_monai.tasks.tasks import TASKS

if TYPE_CHECKING:
    from sagemaker_monai.tasks.task import Floats, Task


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
