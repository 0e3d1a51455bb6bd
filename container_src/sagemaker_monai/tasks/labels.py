"""What labels look like in a data set, and which task they are for; imported where torch is not."""

from collections.abc import Sequence

from sagemaker_monai.errors import DatasetError

# Of one image: a class name, a number, findings, or classes (findings) with their shares of the annotators.
Label = str | float | tuple[str, ...] | dict[str, float]

FEWEST_LABELS = {"classification": 2, "multilabel": 1, "ordinal": 2, "regression": 1}


def task_of_labels(labels: Sequence[Label]) -> str:
    """The task that labels are for, where nobody named one: lists are findings, numbers are numbers, the rest classes.

    Raises:
        DatasetError: labels of several kinds.
    """
    kinds = {TASK_OF_TYPE.get(type(label), "classification") for label in labels}
    if len(kinds) > 1:
        raise DatasetError(
            f"the labels are of several kinds ({', '.join(sorted(kinds))}); write class names, lists or numbers only, "
            "or set task"
        )
    return kinds.pop() if kinds else "classification"


TASK_OF_TYPE: dict[type, str] = {tuple: "multilabel", float: "regression"}
