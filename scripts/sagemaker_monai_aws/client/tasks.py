"""Predictions in an answer: their task, and their cells in a table."""

from collections.abc import Mapping
from typing import Any

from sagemaker_monai.tasks.row import TaskRow
from sagemaker_monai.tasks.tasks import TASKS

Prediction = Mapping[str, Any]


def cells(prediction: Prediction, task: TaskRow) -> dict[str, Any]:
    """The cells by column; several class names are joined with |, as in the container's tables."""
    values = {head: prediction[head] for head in task.heads}
    return {head: "|".join(map(str, value)) if isinstance(value, list) else value for head, value in values.items()}


def task_of(prediction: Any) -> TaskRow | None:
    """The task of a prediction; None if it is not one of ours."""
    fields = set(prediction) if isinstance(prediction, dict) else set()
    fitting = [
        row
        for row in TASKS.values()
        if {*row.heads, row.numbers} <= fields and isinstance(prediction[row.numbers], dict)
    ]
    # An ordinal prediction has all that a classifier's has, and more.
    return max(fitting, key=lambda row: len(row.heads), default=None)
