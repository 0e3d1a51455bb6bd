"""The tasks by name, and a task out of the data that an artifact carries."""

import math
from collections.abc import Callable
from typing import Any

from sagemaker_monai.errors import BundleError
from sagemaker_monai.tasks.classification import Classification
from sagemaker_monai.tasks.labels import FEWEST_LABELS
from sagemaker_monai.tasks.multilabel import MultiLabel
from sagemaker_monai.tasks.ordinal import Ordinal
from sagemaker_monai.tasks.regression import Regression
from sagemaker_monai.tasks.task import Task

TASKS: dict[str, Callable[[tuple[str, ...]], Task]] = {
    "classification": Classification,
    "multilabel": MultiLabel,
    "ordinal": Ordinal,
    "regression": Regression,
}


def read_task(postprocessing: Any, labels: tuple[str, ...]) -> Task:
    """Build the task that an artifact describes.

    Args:
        postprocessing: as `Task.postprocessing` returns it; plain data, possibly from a file that is not trusted.
        labels: of the artifact.

    Raises:
        BundleError: no task would have written this.
    """
    for read in _READERS.values():
        try:
            task = read(postprocessing, labels)
        except (KeyError, IndexError, TypeError, ValueError, AttributeError):
            continue
        if task.postprocessing() == postprocessing and len(labels) >= FEWEST_LABELS[task.name]:
            return task
    raise BundleError("the artifact has a postprocessing that this program does not write; train again")


def _numbers(values: Any, count: int) -> tuple[float, ...]:
    if len(values) != count or not all(type(value) is float and math.isfinite(value) for value in values):
        raise ValueError("not as many finite numbers as labels")
    return tuple(values)


def _regression(steps: Any, labels: tuple[str, ...]) -> Task:
    mean, std = (_numbers(steps[0][name], len(labels)) for name in ("mean", "std"))
    if min(std) <= 0:
        raise ValueError("std must be above 0")
    return Regression(labels, mean=mean, std=std)


# Each reads what its task would have written, or raises; `read_task` compares.
_READERS: dict[str, Callable[[Any, tuple[str, ...]], Task]] = {
    "classification": lambda _steps, labels: Classification(labels),
    "multilabel": lambda steps, labels: MultiLabel(labels, thresholds=_numbers(steps[1]["thresholds"], len(labels))),
    "ordinal": lambda _steps, labels: Ordinal(labels),
    "regression": _regression,
}
