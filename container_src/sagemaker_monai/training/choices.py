"""What `auto` means for a task and a kind of images: after `resolve` no hyperparameter is left to choose."""

from typing import TYPE_CHECKING

from sagemaker_monai.errors import ConfigError
from sagemaker_monai.hyperparameters import TrainConfig
from sagemaker_monai.tasks.metric_names import SCORES

if TYPE_CHECKING:
    from sagemaker_monai.tasks.task import Floats, Task

# task -> (what auto means, what else the task knows)
IMBALANCE: dict[str, tuple[str, tuple[str, ...]]] = {
    "classification": ("logit_adjusted", ("none", "balanced_sampler", "class_weighted", "focal")),
    "multilabel": ("class_weighted", ("none", "focal")),
    "ordinal": ("none", ("balanced_sampler", "class_weighted")),
    "regression": ("none", ()),
}
BEST_METRIC = {"classification": "balanced_accuracy", "multilabel": "auc", "ordinal": "kappa", "regression": "mae"}

ALWAYS_THERE = frozenset({"loss", "accuracy", "balanced_accuracy", "mae", "rmse"})  # scores of whatever images


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
    usual, others = IMBALANCE[task]
    imbalance = usual if config.imbalance == "auto" else config.imbalance
    if imbalance not in (usual, *others):
        raise ConfigError(f"imbalance {imbalance} is not for {task}: set one of auto, {', '.join((usual, *others))}")
    best_metric = BEST_METRIC[task] if config.best_metric == "auto" else config.best_metric
    if best_metric not in SCORES[task]:
        raise ConfigError(f"best_metric {best_metric} is not for {task}: set one of auto, {', '.join(SCORES[task])}")
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
    if config.best_metric not in ALWAYS_THERE and task.score(targets, targets)[config.best_metric] is None:
        raise ConfigError(
            f"best_metric {config.best_metric} does not exist on the validation split, whose {len(targets)} images "
            f"have {'one value' if task.name == 'regression' else 'one class'} only: set another, or give the split "
            "images with other labels"
        )
