"""What differs by task, as one row of `tasks.TASKS`, in which all other modules look it up.

Rows are read where neither torch nor numpy is installed (by the commands that start jobs, by hyperparameters and by
doctor), so this module and the tasks' files import both inside the functions that compute.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Self

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from sagemaker_monai.tasks.labels import Label
    from sagemaker_monai.tasks.task import Floats, Prediction, Task

# What one label is: the name of a class, any number of names, numbers, or a file with a label for each voxel.
Form = Literal["class", "findings", "number", "mask"]


@dataclass(frozen=True)
class Metric:
    """A score.

    Attributes:
        name: in the log, in metrics.json and as best_metric.
        goal: what a tuner should do with it, in SageMaker's words.
        heading: of a column; "" for its name.
        is_in_unit: it is in the unit of the labels.
        is_always_there: it is defined for any images; others need two classes, say.
    """

    name: str
    goal: Literal["Minimize", "Maximize"]
    heading: str = ""
    is_in_unit: bool = False
    is_always_there: bool = False

    @property
    def digits(self) -> str:
        """Format of its values for people."""
        return ".4g" if self.is_in_unit else ".3f"


METRICS = {
    metric.name: metric
    for metric in (
        Metric("loss", "Minimize", is_always_there=True),
        Metric("accuracy", "Maximize", is_always_there=True),
        Metric("balanced_accuracy", "Maximize", is_always_there=True),
        Metric("auc", "Maximize", "AUC"),
        Metric("average_precision", "Maximize"),
        Metric("f1", "Maximize", "F1"),
        Metric("kappa", "Maximize"),
        Metric("mae", "Minimize", "MAE", is_in_unit=True, is_always_there=True),
        Metric("rmse", "Minimize", "RMSE", is_in_unit=True, is_always_there=True),
        Metric("r2", "Maximize", "R2"),
        *(Metric(name, "Maximize") for name in ("sensitivity", "specificity", "precision")),  # of each class only
    )
}


def named(*names: str) -> tuple[Metric, ...]:
    """Scores by their names."""
    return tuple(METRICS[name] for name in names)


@dataclass(frozen=True)
class Example:
    """An example of a task, for documents and tests.

    Attributes:
        task: fitted to data.
        labels: as in dataset.json.
        answer: for one image, from `Task.answers`.
        prediction: of that answer, where `Task.predictions` does not make it.
    """

    task: Task
    labels: tuple[Label, ...]
    answer: tuple[float, ...]
    prediction: Prediction | None = None


@dataclass(frozen=True, kw_only=True)
class TaskRow:
    """A task.

    Attributes:
        name: the hyperparameter `task`.
        build: makes the task of some labels, and of regions where labels are masks.
        read: makes the task from an artifact's postprocessing and labels; raises any error if they are not its own.
        form: of a label.
        labels_are: the same for people.
        label_type: of labels from whose type the task is known.
        has_order: the labels' order means something.
        fewest_labels: smallest number of labels of a model.
        strata: from targets (N, T) to the stratum of each image (N,), by which splits are drawn.
        presence: from targets (N, T) to which labels each image has, bool (N, K); None if labels are numbers.
        imbalance: allowed values of that hyperparameter; auto means the first.
        metrics: in the order of the log.
        best_metric: what auto means.
        by_label: the score that is logged for each label, a key of `Task.score`; "" for none.
        good_enough: default value of best_metric from which a pipeline registers a model; None if it has to be given.
        inferer: makes what the artifact says of how the network is run, from the size of its input and the axes along
            which it is mirrored.
        schema: in the words of MONAI's metadata: the task, and the properties of its output except the labels.
        heads: fields of a prediction that are columns before those of the labels; the first is what is predicted.
        numbers: field of a prediction with a number for each label.
        quality_group: of scores in SageMaker's model quality.
        model: what it is, in one word.
        sentence: what it is, with a placeholder for the counted labels.
        noun: of one label.
        amounts: heading of the data's table in the model card.
        caution: a warning about its answers.
        loss: its loss in words.
        example: see `Example`.
    """

    name: str
    build: Callable[..., Task]
    read: Callable[[Any, tuple[str, ...]], Task]
    form: Form
    labels_are: str
    label_type: type | None = None
    has_order: bool = False
    fewest_labels: int
    strata: Callable[[Floats], NDArray[np.int64]]
    presence: Callable[[Floats], NDArray[np.bool_]] | None
    imbalance: tuple[str, ...]
    metrics: tuple[Metric, ...]
    best_metric: str
    by_label: str = "sensitivity"
    good_enough: float | None = None
    inferer: Callable[[Sequence[int], Sequence[int]], Mapping[str, Any]] = lambda _size, _axes: {
        "_target_": "monai.inferers.SimpleInferer"
    }
    schema: tuple[str, Mapping[str, Any]]
    heads: tuple[str, ...]
    numbers: str = "probabilities"
    quality_group: str
    model: str = "classifier"
    sentence: str
    noun: str
    amounts: str
    caution: str
    loss: str
    example: Callable[[], Example]

    @property
    def has_classes(self) -> bool:
        """Whether labels are names that an image does or does not have."""
        return self.presence is not None

    @property
    def has_masks(self) -> bool:
        """Whether a label is a file, and an answer a label map."""
        return self.form == "mask"

    @property
    def goals(self) -> dict[str, str]:
        """Each score's name and goal, in the order of the log."""
        return {metric.name: metric.goal for metric in self.metrics}

    def metric(self, name: str) -> Metric:
        """A score by its name, which may be one that only single classes have."""
        return next((metric for metric in self.metrics if metric.name == name), None) or METRICS[name]


# In the words of MONAI's metadata, for an output without spatial dimensions.
OF_IMAGE = {"spatial_shape": [], "dtype": "float32", "is_patch_data": False}
PROBABILITIES = {"type": "probabilities", "format": "classes", "value_range": [0, 1], **OF_IMAGE}


def largest(targets: Floats) -> NDArray[np.int64]:
    """The class with the largest share, (N,), from shares (N, K)."""
    classes: NDArray[np.int64] = targets.argmax(axis=1)
    return classes


def only_largest(targets: Floats) -> NDArray[np.bool_]:
    """The same as bool (N, K)."""
    import numpy as np

    is_there: NDArray[np.bool_] = np.eye(targets.shape[1], dtype=bool)[targets.argmax(axis=1)]
    return is_there


class TakesNothing:
    """For tasks that learn nothing from the training split's targets, or nothing from the validation split."""

    def fitted(self, targets: Floats) -> Self:  # noqa: ARG002 - the name is part of the protocol
        """The task as it is."""
        return self

    def tuned(self, answers: Floats, targets: Floats, groups: Sequence[str]) -> Self:  # noqa: ARG002
        """The task as it is."""
        return self


def numbers(values: Any, count: int) -> tuple[float, ...]:
    """Check the numbers of a postprocessing step.

    Raises:
        ValueError: they are not `count` finite ones.
    """
    if len(values) != count or not all(type(value) is float and math.isfinite(value) for value in values):
        raise ValueError("not as many finite numbers as labels")
    return tuple(values)
