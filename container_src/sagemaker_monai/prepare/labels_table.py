"""Labels as people keep them: a CSV file with a line for an image, a series, a study or a patient, or folders by class.

A line says what it is about in one column (a file, a UID, a patient, a case) and the label in another, or in several of
0 and 1. What a line means for files is decided in `matching`; nothing here opens an image.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from sagemaker_monai.entries import Metadata
from sagemaker_monai.errors import ConfigError, DatasetError
from sagemaker_monai.layouts import SPLIT_NAMES
from sagemaker_monai.prepare.label_values import classes_in_order, label_of
from sagemaker_monai.tables import read_table, some_of
from sagemaker_monai.tasks.labels import FEWEST_LABELS, Label

MAX_TABLE_BYTES = 1 << 28
LABEL_COLUMN = "label"
TASKS = ("auto", *FEWEST_LABELS)
# What a column is called, without regard to case, blanks, - and _; the first that is there is taken, the finest first.
MATCHES = {
    "file": ("file", "image", "filename", "imagename", "path", "filepath"),
    "case": ("case", "caseid", "casename"),
    "SOPInstanceUID": ("sopinstanceuid", "instanceuid", "sopuid"),
    "SeriesInstanceUID": ("seriesinstanceuid", "seriesuid"),
    "StudyInstanceUID": ("studyinstanceuid", "studyuid"),
    "PatientID": ("patientid", "patient", "subjectid", "subject"),
}
GROUP_COLUMN, SPLIT_COLUMN = "group", "split"
_SPOILT = re.compile(r"-?\d*\.\d+([eE]-?\d+)?|-?\d+(\.\d+)?[eE][+-]?\d+")  # a number that is no class number


@dataclass(frozen=True)
class LabelOptions:
    """How a table is to be read.

    Attributes:
        columns: with the label, or several with 0 and 1; empty takes "label".
        task: one of TASKS.
        grades: of an ordinal label, the lowest first; empty where they are numbers.
        match: the column that says what a line is about, or a key of MATCHES; "" takes the finest that is there.
        split_column: "" takes the column `split` where there is one.
        group_column: "" takes `group` where there is one.
        keep_columns: that become metadata of the images.
    """

    columns: tuple[str, ...] = ()
    task: str = "auto"
    grades: tuple[str, ...] = ()
    match: str = ""
    split_column: str = ""
    group_column: str = ""
    keep_columns: tuple[str, ...] = ()


@dataclass(frozen=True)
class Line:
    """One line: what it is about, its label, what else it says, and its number in the table (0: none)."""

    key: str
    label: Label
    group: str | None = None
    split: str | None = None
    kept: Metadata = field(default_factory=dict)
    row: int = field(default=0, compare=False)


@dataclass(frozen=True)
class LabelTable:
    """What a table, or folders, say.

    Attributes:
        kind: a key of MATCHES, what `Line.key` is.
        task: a key of `tasks.labels.FEWEST_LABELS`.
        classes: in the order of the model's outputs; grades in theirs; names of numbers.
        lines: each key once.
        unlabelled: keys without a label.
        has_split: whether the lines say so.
    """

    kind: str
    task: str
    classes: tuple[str, ...]
    lines: tuple[Line, ...]
    unlabelled: tuple[str, ...] = ()
    has_split: bool = False


def plain(name: str) -> str:
    """A column's name as it is compared."""
    return re.sub(r"[\s_-]", "", name.lower())


def read_labels(table: Path, options: LabelOptions, *, kinds: Sequence[str] = tuple(MATCHES)) -> LabelTable:
    """Read a CSV file of labels.

    Args:
        table: with a header line; comma, semicolon or tab.
        options: how to read it.
        kinds: keys of MATCHES that are looked for.

    Raises:
        DatasetError: no such file or column, a key with two labels, or labels that do not fit the task.
        ConfigError: options that contradict each other.
    """
    if not table.is_file():
        raise ConfigError(f'there is no file {table.name}; name a CSV with the labels, or "folders"')
    if table.stat().st_size > MAX_TABLE_BYTES:
        raise DatasetError(f"{table.name} is larger than {MAX_TABLE_BYTES >> 20} MiB; it must only list labels")
    rows = read_table(table.read_bytes(), what=table.name, required=())
    if not rows:
        raise DatasetError(f"{table.name} has no lines; it must name images and their labels")
    names = list(rows[0])
    kind, key = _key_column(names, options.match, kinds, table.name)
    columns = [_column(names, name, table.name) for name in options.columns or (LABEL_COLUMN,)]
    split = _optional(names, options.split_column, SPLIT_COLUMN, table.name)
    group = _optional(names, options.group_column, GROUP_COLUMN, table.name)
    kept = [_column(names, name, table.name) for name in options.keep_columns]
    task = _task(rows, columns, options)
    lines, unlabelled = _lines(rows, key, columns, task, split, group, kept, table.name)
    if not lines:
        raise DatasetError(f"no line of {table.name} has a label in {some_of(columns)}; name another --label-column")
    classes = classes_in_order([line.label for line in lines], columns, task, options.grades)
    return LabelTable(kind, task, classes, lines, unlabelled, has_split=bool(split))


def _column(names: Sequence[str], wanted: str, what: str) -> str:
    found = [name for name in names if plain(name) == plain(wanted)]
    exact = [name for name in found if name == wanted.strip().lower()]
    if not found:
        raise DatasetError(f"{what} has no column {some_of([wanted])}; it has {some_of(names)}")
    return (exact or found)[0]


def _optional(names: Sequence[str], wanted: str, usual: str, what: str) -> str:
    return _column(names, wanted, what) if wanted else usual if usual in names else ""


def _key_column(names: Sequence[str], match: str, kinds: Sequence[str], what: str) -> tuple[str, str]:
    """The kind of key, and the column with it."""
    if match:
        asked = next((kind for kind in kinds if plain(kind) == plain(match)), None)
        if asked is None or any(plain(name) == plain(match) for name in names):
            column = _column(names, match, what)
            known = next((kind for kind in kinds if plain(column) in MATCHES[kind]), "file")
            return asked or known, column
        kinds = [asked]
    for kind in kinds:
        for usual in MATCHES[kind]:
            for name in names:
                if plain(name) == usual:
                    return kind, name
    raise DatasetError(
        f"{what} has no column that says what a line is about ({', '.join(kinds)}); name it with --match, it has "
        f"{some_of(names)}"
    )


def _task(rows: Sequence[Mapping[str, str]], columns: Sequence[str], options: LabelOptions) -> str:
    if options.task not in TASKS:
        raise ConfigError(f"task must be one of {', '.join(TASKS)}, got {options.task!r}")
    guess = "multilabel" if len(columns) > 1 else "ordinal" if options.grades else "classification"
    task = guess if options.task == "auto" else options.task
    if len(columns) > 1 and task != "multilabel":
        raise ConfigError(f"several label columns are for --task multilabel, not {task}; name one")
    if options.grades and task != "ordinal":
        raise ConfigError(f"--grades are for --task ordinal, not {task}")
    if options.task == "auto" and task == "classification" and any(_SPOILT.fullmatch(row[columns[0]]) for row in rows):
        raise DatasetError(f"the labels in {columns[0]} are numbers with decimals; choose --task regression")
    return task


def _lines(
    rows: Sequence[Mapping[str, str]],
    key: str,
    columns: Sequence[str],
    task: str,
    split: str,
    group: str,
    kept: Sequence[str],
    what: str,
) -> tuple[tuple[Line, ...], tuple[str, ...]]:
    lines: dict[str, Line] = {}
    unlabelled: dict[str, None] = {}
    for number, row in enumerate(rows, start=2):
        place = f"{what}: row {number}"
        name = row[key]
        if not name:
            raise DatasetError(f"{place} has nothing in {key}; fill it in or remove the row")
        if not any(row[column] for column in columns) and not (task == "multilabel" and len(columns) == 1):
            unlabelled[name] = None
            continue
        if split and row[split].lower() not in SPLIT_NAMES:
            raise DatasetError(f"{place} has {split} {row[split][:60]!r}; use training, validation or test")
        line = Line(
            key=name,
            label=label_of(row, columns, task, place),
            group=(row[group] or None) if group else None,
            split=SPLIT_NAMES[row[split].lower()] if split else None,
            kept={column: row[column] or None for column in kept},
            row=number,
        )
        if lines.setdefault(name, line) != line:
            raise DatasetError(
                f"{place} says something else of what row {lines[name].row} is about; keep one of them, or match by "
                "another column with --match"
            )
    return tuple(lines.values()), tuple(name for name in unlabelled if name not in lines)


def labels_of_folders(names: Sequence[str], options: LabelOptions, *, below: str = "") -> LabelTable:
    """The class of each file by the folder that it lies in, right below the source: `CLASS/any/depth`.

    Args:
        names: relative to the source, with slashes.
        options: task and grades; classes and grades can be folders.
        below: what names begin with that is no folder of a class: an archive.

    Returns:
        A table of kind "file". Where every first folder is named as a split (train, val, test), it is one, and the
        second is the class.

    Raises:
        DatasetError: files in no such folder, or fewer than two classes.
        ConfigError: a task that folders cannot tell.
    """
    task = _task((), (LABEL_COLUMN,), options)
    if task not in ("classification", "ordinal"):
        raise ConfigError(f"folders tell one class or grade an image, which is not {task}; give --labels a CSV")
    parts = {name: name.removeprefix(below).split("/") for name in names}
    has_split = bool(parts) and all(len(each) > 2 and each[0].lower() in SPLIT_NAMES for each in parts.values())
    depth = 1 if has_split else 0
    if loose := sorted(name for name, each in parts.items() if len(each) < depth + 2):
        raise DatasetError(
            f"files that are in no folder of a class: {len(loose)} ({some_of(loose)}); put each into the folder of its "
            "class, or give --labels a CSV"
        )
    lines = tuple(
        Line(name, each[depth], split=SPLIT_NAMES[each[0].lower()] if has_split else None)
        for name, each in parts.items()
    )
    classes = classes_in_order([line.label for line in lines], (), task, options.grades)
    return LabelTable("file", task, classes, lines, has_split=has_split)
