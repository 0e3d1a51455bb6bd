"""The tasks by name, and how to find one by its labels or by an artifact's postprocessing."""

from collections.abc import Sequence
from itertools import product
from typing import TYPE_CHECKING, Any

from sagemaker_monai.errors import BundleError, DatasetError
from sagemaker_monai.tasks import classification, multilabel, ordinal, regression, segmentation
from sagemaker_monai.tasks.labels import Label
from sagemaker_monai.tasks.regions import Regions
from sagemaker_monai.tasks.row import Form, TaskRow

if TYPE_CHECKING:
    from sagemaker_monai.tasks.task import Task

TASKS: dict[str, TaskRow] = {
    task.ROW.name: task.ROW for task in (classification, multilabel, ordinal, regression, segmentation)
}
# Postprocessing steps as artifacts from earlier versions name them, and as they are written now.
EARLIER_STEPS = [
    ({"_target_": "monai.transforms.Activations", "softmax": True}, {"_target_": "sagemaker_monai.tasks.Softmax"}),
    ({"_target_": "monai.transforms.Activations", "sigmoid": True}, {"_target_": "sagemaker_monai.tasks.Sigmoid"}),
]
DEFAULT_TASK = classification.ROW.name  # of a data set that says nothing


def metric_goals() -> dict[str, str]:
    """The name and goal of every task's scores, the default one first."""
    default = TASKS[DEFAULT_TASK]
    goals = {default.best_metric: default.goals[default.best_metric]}
    return goals | {name: goal for row in TASKS.values() for name, goal in row.goals.items()}


def task_for(form: Form, *, has_order: bool = False) -> str:
    """The task for labels of a form, if none is given."""
    return next(row.name for row in TASKS.values() if (row.form, row.has_order) == (form, has_order))


def build_task(name: str, labels: tuple[str, ...], regions: Regions | None = None) -> "Task":
    """The task of some labels, before it is fitted; of structures that overlap with their regions."""
    build = TASKS[name].build
    return build(labels) if regions is None else build(labels, regions)


def task_of_labels(labels: Sequence[Label]) -> str:
    """The task for labels, if none is given: lists are findings, numbers are numbers, the rest classes.

    Raises:
        DatasetError: the labels are of several kinds.
    """
    of_type = {row.label_type: row.name for row in TASKS.values() if row.label_type}
    kinds = {of_type.get(type(label), DEFAULT_TASK) for label in labels}
    if len(kinds) > 1:
        raise DatasetError(
            f"the labels are of several kinds ({', '.join(sorted(kinds))}); write class names, lists or numbers only, "
            "or set task"
        )
    return kinds.pop() if kinds else DEFAULT_TASK


def read_task(postprocessing: Any, labels: tuple[str, ...]) -> "Task":
    """Build the task that an artifact describes.

    Args:
        postprocessing: as `Task.postprocessing` returns it; plain data, possibly from an untrusted file.
        labels: of the artifact.

    Raises:
        BundleError: no task would have written this.
    """
    today = [next((new for old, new in EARLIER_STEPS if step == old), step) for step in postprocessing]
    for steps, row in product((postprocessing, today), TASKS.values()):
        try:
            task = row.read(steps, labels)
        except (KeyError, IndexError, TypeError, ValueError, AttributeError):
            continue
        if task.postprocessing() == steps and len(labels) >= row.fewest_labels:
            return task
    raise BundleError("the artifact has a postprocessing that this program does not write; train again")
