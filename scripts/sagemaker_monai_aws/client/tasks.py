"""Predictions in an answer: which task they are of, and what a table has of them."""

from collections.abc import Mapping
from typing import Any

from sagemaker_monai.tasks.row import TaskRow
from sagemaker_monai.tasks.tasks import TASKS

Prediction = Mapping[str, Any]


def cells(prediction: Prediction, task: TaskRow) -> dict[str, Any]:
    """What stands in the columns; names of several classes have | between them, as in the container's tables."""
    values = {head: prediction[head] for head in task.heads}
    return {head: "|".join(map(str, value)) if isinstance(value, list) else value for head, value in values.items()}


def task_of(prediction: Any) -> TaskRow | None:
    """The task that a prediction is of, None where it is of no task of ours."""
    fields = set(prediction) if isinstance(prediction, dict) else set()
    fitting = [
        row
        for row in TASKS.values()
        if {*row.heads, row.numbers} <= fields and isinstance(prediction[row.numbers], dict)
    ]
    # An ordinal prediction has all that a classifier's has, and more.
    return max(fitting, key=lambda row: len(row.heads), default=None)
