"""What predictions of the four tasks look like in an answer: by which fields they are known, and what a table has."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

Prediction = Mapping[str, Any]


@dataclass(frozen=True)
class Columns:
    """How predictions of a task are known and told: a row of TASKS.

    Attributes:
        heads: fields that are columns of a table, before those of the labels; the first is what is predicted.
        numbers: the field with a number for each label.
    """

    heads: tuple[str, ...]
    numbers: str

    def cells(self, prediction: Prediction) -> dict[str, Any]:
        """What stands in the columns; names of several classes have | between them, as in the container's tables."""
        values = {head: prediction[head] for head in self.heads}
        return {head: "|".join(map(str, value)) if isinstance(value, list) else value for head, value in values.items()}


# What tells more comes first: an ordinal prediction has all that a classifier's has.
TASKS = {
    "ordinal": Columns(("predicted_class", "probability", "grade", "expected_grade"), "probabilities"),
    "classification": Columns(("predicted_class", "probability"), "probabilities"),
    "multilabel": Columns(("predicted_classes",), "probabilities"),
    "regression": Columns((), "values"),
}


def task_of(prediction: Any) -> str | None:
    """The key of TASKS that a prediction is of, None where it is of no task of ours."""
    fields = set(prediction) if isinstance(prediction, dict) else set()
    return next(
        (
            task
            for task, row in TASKS.items()
            if {*row.heads, row.numbers} <= fields and isinstance(prediction[row.numbers], dict)
        ),
        None,
    )
