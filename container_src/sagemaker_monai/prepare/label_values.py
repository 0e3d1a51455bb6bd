"""What cells with labels mean: classes, findings, numbers, grades; and the order of classes."""

import math
import re
from collections.abc import Mapping, Sequence

from sagemaker_monai.errors import ConfigError, DatasetError
from sagemaker_monai.tables import some_of
from sagemaker_monai.tasks.labels import FEWEST_LABELS, Label

_YES_NO = {"1": True, "1.0": True, "true": True, "yes": True, "0": False, "0.0": False, "false": False, "no": False}
_BETWEEN_CLASSES = re.compile(r"[|;]")
_NUMBER = re.compile(r"-?\d+")


def label_of(row: Mapping[str, str], columns: Sequence[str], task: str, place: str) -> Label:
    """The label of a line.

    Args:
        row: its cells by column.
        columns: with the label, or several with 0 and 1.
        task: a key of `tasks.labels.FEWEST_LABELS`.
        place: what the line is called in messages.

    Raises:
        DatasetError: a cell that is none for the task.
    """
    if len(columns) > 1:
        cells = {column: row[column].lower() for column in columns}
        if odd := [column for column, cell in cells.items() if cell not in _YES_NO]:
            raise DatasetError(
                f"{place} has {row[odd[0]][:40]!r} in {odd[0]}; columns of findings hold 0 or 1 (decide what an empty "
                "or uncertain one means)"
            )
        return tuple(column for column, cell in cells.items() if _YES_NO[cell])
    text = row[columns[0]]
    if task == "multilabel":
        return tuple(dict.fromkeys(filter(None, map(str.strip, _BETWEEN_CLASSES.split(text)))))
    if task != "regression":
        return text
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise DatasetError(f"{place} has {text[:40]!r} in {columns[0]}; regression needs a finite number with a point")
    return value


def in_order(names: set[str]) -> tuple[str, ...]:
    """Class names in alphabetical order, numbers by their size."""
    if all(_NUMBER.fullmatch(name) for name in names):
        return tuple(sorted(names, key=lambda name: (int(name), name)))
    return tuple(sorted(names))


def classes_in_order(
    labels: Sequence[Label], columns: Sequence[str], task: str, grades: Sequence[str]
) -> tuple[str, ...]:
    """The classes, grades or names of numbers, in the order of the model's outputs.

    Raises:
        DatasetError: too few classes, or labels that are no grades.
        ConfigError: grades whose order is not known, or named twice.
    """
    if task == "regression":
        return tuple(columns)
    if task == "multilabel":
        told = {name for label in labels if isinstance(label, tuple) for name in label}
        return tuple(columns) if len(columns) > 1 else _enough(in_order(told), task)
    found = {label for label in labels if isinstance(label, str)}
    if task != "ordinal":
        return _enough(in_order(found), task)
    if not grades and not all(_NUMBER.fullmatch(name) for name in found):
        raise ConfigError(
            f"the order of {some_of(sorted(found))} is not known; give --grades, the lowest first, with commas"
        )
    if odd := sorted(found - set(grades)) if grades else []:
        raise DatasetError(f"labels that are none of --grades: {len(odd)} ({some_of(odd)}); correct one of them")
    if len(set(grades)) < len(grades):
        raise ConfigError("--grades names a grade twice")
    return _enough(tuple(grades) or in_order(found), task)


def _enough(classes: tuple[str, ...], task: str) -> tuple[str, ...]:
    if len(classes) < FEWEST_LABELS[task]:
        raise DatasetError(
            f"{task} needs at least {FEWEST_LABELS[task]} classes, the labels have {len(classes)} ({some_of(classes)})"
        )
    return classes
