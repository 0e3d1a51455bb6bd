"""Options for reading labels, and the result; see `label_values`."""

import json
from collections.abc import Mapping
from dataclasses import dataclass

from sagemaker_monai.errors import ConfigError
from sagemaker_monai.messages.option_fields import choices_of, option, parts_of
from sagemaker_monai.messages.remarks import Remark
from sagemaker_monai.tasks.labels import Label
from sagemaker_monai.tasks.row import Form
from sagemaker_monai.tasks.tasks import TASKS, task_for

UNNAMED = ("value",)  # the name of a number without one
MISSING_LABELS = ("drop", "refuse")
UNCERTAIN = ("refuse", "missing", "positive", "negative", "class")
SIMILAR = ("refuse", "merge", "keep")


@dataclass(frozen=True)
class LabelRules:
    """Options for reading labels.

    Attributes:
        task: "auto" or a key of `tasks.TASKS`.
        grades: the lowest first; empty if no order is given.
        missing_labels: images without a label are dropped with a count, or refused; one of MISSING_LABELS.
        missing_codes: numbers that stand for a missing value, such as -999.
        uncertain_labels: what -1, u or uncertain mean beside 0 and 1; one of UNCERTAIN.
        similar_labels: how to treat labels that look alike; one of SIMILAR.
        is_command: write options with dashes in messages.
    """

    task: str = option("auto", "(default: %(default)s)", choices=lambda: ("auto", *TASKS))
    grades: tuple[str, ...] = option(
        (), "of an ordinal label, the lowest first", read=lambda text: grades_of(text, "--grades"), metavar="A,B,C"
    )
    missing_labels: str = option(
        "drop",
        "lines without a label (empty, nan, NA, #N/A, None, -, ?): left out with a count, or refused (default: "
        "%(default)s)",
        choices=MISSING_LABELS,
    )
    missing_codes: tuple[float, ...] = option(
        (),
        "numbers that stand for a missing label, like -999,9999",
        read=lambda text: codes_of(text, "--missing-codes"),
        metavar="A,B",
    )
    uncertain_labels: str = option(
        "refuse", "what -1, u or uncertain mean beside 0 and 1 (default: %(default)s)", choices=UNCERTAIN
    )
    similar_labels: str = option(
        "refuse",
        "labels that differ in case, blanks or as 1 and 1.0 only: refused, taken as one, or kept apart (default: "
        "%(default)s)",
        choices=SIMILAR,
    )
    is_command: bool = False

    def option(self, name: str, value: str = "") -> str:
        """How an option is written in a message."""
        if not self.is_command:
            return f"{name}={value}" if value else name
        between = "=" if value.startswith("-") else " "  # or argparse would take it for an option
        return f"--{name.replace('_', '-')}{between}{value}".strip()

    def task_option(self, form: Form, *, has_order: bool = False) -> str:
        """How the task for labels of a form is written in a message."""
        return self.option("task", task_for(form, has_order=has_order))


@dataclass(frozen=True)
class Cells:
    """The cells of several columns of findings, by column."""

    texts: Mapping[str, str]


@dataclass(frozen=True)
class ReadLabels:
    """Labels as read.

    Attributes:
        task: a key of `tasks.TASKS`.
        classes: in the order of the model's outputs.
        labels: in the order of the input, None if missing.
        remarks: on oddities that do not prevent reading.
    """

    task: str
    classes: tuple[str, ...]
    labels: tuple[Label | None, ...]
    remarks: tuple[Remark, ...] = ()


def codes_of(text: str, option: str) -> tuple[float, ...]:
    """Numbers separated by commas; raises a ConfigError if one is not a number."""
    try:
        return tuple(float(part) for part in parts_of(text))
    except ValueError:
        raise ConfigError(f"{option} must be numbers like -999,9999, got {text[:40]!r}") from None


def grades_of(text: str, option: str) -> tuple[str, ...]:
    """Names separated by commas, or a JSON list of names; raises a ConfigError if the list is not valid."""
    if not text.lstrip().startswith("["):
        return parts_of(text)
    try:
        names = json.loads(text)
    except (ValueError, RecursionError):
        names = None
    if not isinstance(names, list) or not all(isinstance(name, str) and name.strip() for name in names):
        raise ConfigError(f'{option} must be names like Mild,Severe or a list like ["a, b", "c"], got {text[:40]!r}')
    return tuple(name.strip() for name in names)


def check_rules(rules: LabelRules) -> None:
    """Raise a ConfigError if a rule has an invalid value."""
    for name, allowed in choices_of(LabelRules).items():
        if (value := getattr(rules, name)) not in allowed:
            raise ConfigError(f"{name} must be one of {', '.join(allowed)}, got {value[:40]!r}")
    if len(set(rules.grades)) < len(rules.grades):
        raise ConfigError(f"{rules.option('grades')} names a grade twice")


def names_of(label: Label | None) -> tuple[str, ...]:
    """All names in a label: the class, the findings, or those with a share; none for a number."""
    return (label,) if isinstance(label, str) else tuple(label) if isinstance(label, tuple | dict) else ()
