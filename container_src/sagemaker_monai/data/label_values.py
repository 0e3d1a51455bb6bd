"""Interpret cells with labels as classes, findings, numbers, grades, or no label, and order the classes.

One reader for tables, items of dataset.json and folders, for `train`, `prepare`, `evaluate` and `doctor`. It sees all
labels of a data set at once, because the meaning of one depends on the others:

- A cell in `columns.MISSING` is no label, unless a class of that name is declared (labels of dataset.json, a folder, a
  grade). An empty cell of findings is "no finding".
- `A|B` and `A;B` are findings if a part occurs in another label too; otherwise they are one name.
- Numbers with decimals are measurements, never silently classes.
- Grades need an order: numbers (alone, or after the same word) have one, words only if it is given.
- Labels that look alike (see `label_names.alike_key`) are refused, merged, or kept apart, as the rules say.
"""

from collections.abc import Callable, Sequence

from sagemaker_monai.data.label_names import lists_among
from sagemaker_monai.data.label_readers import Reader
from sagemaker_monai.data.label_rules import UNNAMED, Cells, LabelRules, ReadLabels, check_rules
from sagemaker_monai.data.measurements import numbers_of
from sagemaker_monai.errors import ConfigError, DatasetError
from sagemaker_monai.messages.shortened import some_of
from sagemaker_monai.storage.columns import is_missing
from sagemaker_monai.tasks.labels import Label
from sagemaker_monai.tasks.row import Form
from sagemaker_monai.tasks.tasks import DEFAULT_TASK, TASKS, task_for, task_of_labels

FEW_NUMBERS = 10  # so many different whole numbers are classes; more may be a measurement, if each has few images
IMAGES_A_NUMBER = 5


def read_label_values(
    values: Sequence[Label | Cells],
    rules: LabelRules,
    *,
    declared: Sequence[str] = (),
    known: Sequence[str] = (),
    task: str | None = None,
    is_ordered: bool = True,
    names: Sequence[str] = (),
    places: Sequence[str],
) -> ReadLabels:
    """Read all labels of a data set.

    Args:
        values: as written.
        rules: see `LabelRules`.
        declared: classes in the model's order, from dataset.json or folders; others are refused. Empty for a table.
        known: classes of a model to be scored; there may be others.
        task: from dataset.json.
        is_ordered: the order of the declared classes means something, unlike that of folders.
        names: of numbers, for regression.
        places: names of the values for messages.

    Raises:
        DatasetError: the labels do not fit together, or not the task; with the remedy.
        ConfigError: the rules contradict each other.
    """
    check_rules(rules)
    columns = tuple(next((value.texts for value in values if isinstance(value, Cells)), ()))
    chosen = _task(values, rules, task, columns, classes={*declared, *known, *rules.grades})
    reader = Reader(rules, chosen, tuple(declared), tuple(known), tuple(places), is_ordered)
    if columns:
        return reader.read_columns(values, columns)
    return _READERS[reader.form](reader, values, tuple(names))


_READERS: dict[Form, Callable[[Reader, Sequence[Label | Cells], tuple[str, ...]], ReadLabels]] = {
    "class": lambda reader, values, _names: reader.read_names(values),
    "findings": lambda reader, values, _names: reader.read_names(values),
    "number": lambda reader, values, names: reader.read_numbers(values, names or UNNAMED),
}


def _task(
    values: Sequence[Label | Cells], rules: LabelRules, told: str | None, columns: Sequence[str], classes: set[str]
) -> str:
    task = rules.task if rules.task != "auto" else told or (task_for("class", has_order=True) if rules.grades else "")
    if task and TASKS[task].has_masks:
        raise ConfigError(
            f"task {task} needs a mask for each image: name them as label in dataset.json (docs/segmentation.md)"
        )
    if columns:
        task = task or task_for("findings")
        if not TASKS[task].has_classes or TASKS[task].has_order:
            raise ConfigError(f"several label columns are for {rules.task_option('findings')}, not {task}; name one")
    if rules.grades and not TASKS[task].has_order:
        ordered = rules.task_option("class", has_order=True)
        raise ConfigError(f"{rules.option('grades')} are for {ordered}, not {task}")
    if task:
        return task
    labels = [value for value in values if not isinstance(value, Cells)]
    by_form = task_of_labels(labels)
    if by_form != DEFAULT_TASK:
        return by_form
    texts = [label for label in labels if isinstance(label, str) and label not in classes and not is_missing(label)]
    if lists_among(texts):
        return task_for("findings")
    _refuse_measurements(texts, rules)
    return DEFAULT_TASK


def _refuse_measurements(texts: Sequence[str], rules: LabelRules) -> None:
    """Refuse numbers that cannot be classes, because they have decimals or too many different values."""
    numbers = numbers_of(texts).values
    values = [number for number in numbers if number is not None]
    remedy = f"choose {rules.task_option('number')}, or {rules.task_option('class')} if they are classes"
    spoilt = [
        text for text, number in zip(texts, numbers, strict=True) if number is not None and _is_spoilt(text, number)
    ]
    if spoilt:
        raise DatasetError(f"the labels are numbers with decimals ({some_of(list(dict.fromkeys(spoilt)))}); {remedy}")
    if (
        len(values) == len(texts)
        and len(set(values)) > FEW_NUMBERS
        and len(values) < IMAGES_A_NUMBER * len(set(values))
    ):
        raise DatasetError(
            f"the labels are {len(set(values))} different whole numbers from {min(values):g} to {max(values):g} on "
            f"{len(values)} images, which looks like a measurement; {remedy}"
        )


def _is_spoilt(text: str, number: float) -> bool:
    return number != int(number) or "e" in text.lower()
