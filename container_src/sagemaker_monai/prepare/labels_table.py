"""Tables of labels, with a line for an image, a series, a study or a patient; and folders by class.

A line has its subject in one column (a file, a UID, a patient, a case) and its label in another, or in several of 0 and
1. `matching` finds the files of a line; nothing here opens an image.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path

from sagemaker_monai.data.entries import Layout, Metadata
from sagemaker_monai.data.groups import read_groups
from sagemaker_monai.data.label_rules import Cells, LabelRules, ReadLabels
from sagemaker_monai.data.label_values import read_label_values
from sagemaker_monai.errors import ConfigError, DatasetError
from sagemaker_monai.messages.option_fields import borrowed, option, parts_of
from sagemaker_monai.messages.remarks import Remark
from sagemaker_monai.messages.shortened import some_of
from sagemaker_monai.storage.columns import (
    SPELLINGS,
    find_column,
    is_person,
    plain,
    split_column,
    split_of,
    usual_column,
    usual_columns,
)
from sagemaker_monai.storage.tables import read_table, table_content
from sagemaker_monai.tasks.labels import Label
from sagemaker_monai.tasks.tasks import TASKS

LABEL_COLUMN = "label"
# Usual names of columns, as `columns.plain` writes them, the finest level first; the first that is there is taken.
MATCHES = {
    "file": tuple(name for rank in SPELLINGS["image"] for name in rank),
    "case": ("case", "caseid", "casename"),
    "SOPInstanceUID": ("sopinstanceuid", "instanceuid", "sopuid"),
    "SeriesInstanceUID": ("seriesinstanceuid", "seriesuid"),
    "StudyInstanceUID": ("studyinstanceuid", "studyuid"),
    "PatientID": ("patientid", "patient", "subjectid", "subject"),
}


@dataclass(frozen=True)
class LabelOptions:
    """How to read a table.

    Attributes:
        columns: with the label, or several with 0 and 1; empty takes "label".
        task, grades: see `label_rules.LabelRules`.
        image_column: with names of files; another form of `match`.
        sheet: of a workbook that has several.
        match: the column with the subject of a line, or a key of MATCHES; "" takes the finest that is there.
        split_column: "" takes the column `split` if there is one.
        group_column: "" takes `group`, or one that names a patient; see `groups`.
        keep_columns: that become metadata of the images.
        missing_labels, missing_codes, uncertain_labels, similar_labels: see `label_rules.LabelRules`.
    """

    sheet: str = option("", "of a workbook that has several with labels", metavar="NAME")
    image_column: str = option(
        "", "column with the names of files (default: image, file, image_id and the like)", metavar="NAME"
    )
    columns: tuple[str, ...] = option(
        (),
        "column with the label (default: label, diagnosis, dx and the like); several, repeated or with commas, "
        "are findings with 0 and 1",
        flag="--label-column",
        read=parts_of,
        action="append",
        metavar="NAME",
    )
    match: str = option("", "column that says what a line is about", metavar="COLUMN")
    split_column: str = option("", "column with a given split (default: split, if there is one)", metavar="NAME")
    group_column: str = option(
        "",
        "column of what must stay on one side, or none (default: group, or one that names the patient)",
        metavar="NAME",
    )
    task: str = borrowed(LabelRules, "task")
    grades: tuple[str, ...] = borrowed(LabelRules, "grades")
    missing_labels: str = borrowed(LabelRules, "missing_labels")
    missing_codes: tuple[float, ...] = borrowed(LabelRules, "missing_codes")
    uncertain_labels: str = borrowed(LabelRules, "uncertain_labels")
    similar_labels: str = borrowed(LabelRules, "similar_labels")
    keep_columns: tuple[str, ...] = option(
        (), "columns that are written to dataset.json (default: none)", read=parts_of, metavar="A,B"
    )

    @property
    def rules(self) -> LabelRules:
        """How to read labels."""
        own = {each.name: getattr(self, each.name) for each in fields(LabelRules) if each.name != "is_command"}
        return LabelRules(**own, is_command=True)


@dataclass(frozen=True)
class Line:
    """One line: its subject, its label, its other columns, and its number in the table (0: none)."""

    key: str
    label: Label
    group: str | None = None
    split: str | None = None
    kept: Metadata = field(default_factory=dict)
    row: int = field(default=0, compare=False)


@dataclass(frozen=True)
class LabelTable:
    """The labels of a table or of folders.

    Attributes:
        kind: of the keys of lines, itself a key of MATCHES.
        task: a key of `tasks.TASKS`.
        classes: in the order of the model's outputs; grades in their order; names of numbers.
        lines: each key once.
        unlabelled: keys without a label.
        has_split: whether lines have a split.
        remarks: what was odd but could be read.
    """

    kind: str
    task: str
    classes: tuple[str, ...]
    lines: tuple[Line, ...]
    unlabelled: tuple[str, ...] = ()
    has_split: bool = False
    remarks: tuple[Remark, ...] = ()


def read_labels(table: Path, options: LabelOptions, *, kinds: Sequence[str] = tuple(MATCHES)) -> LabelTable:
    """Read a table of labels.

    Args:
        table: a CSV file or a workbook, see `tables`.
        options: how to read it.
        kinds: the keys of MATCHES to look for.

    Raises:
        DatasetError: no such file or column, a key with two labels, or labels that do not fit the task.
        ConfigError: options that contradict each other.
    """
    if not table.is_file():
        raise ConfigError(f'there is no file {table.name}; name a table (CSV, .xlsx) with the labels, or "folders"')
    if options.match and options.image_column:
        raise ConfigError("give --match or --image-column, not both: each names the column that a line is about")
    is_told = bool(options.match or options.image_column)
    rows = read_table(
        table_content(table),
        what=table.name,
        sheet=options.sheet,
        fits=lambda names: bool(
            (is_told or _keys_of(names, kinds)) and (options.columns or usual_columns(names, "label"))
        ),
    )
    if not rows:
        raise DatasetError(f"{table.name} has no lines; it must name images and their labels")
    names = list(rows[0])
    kind, key = _key_column(names, options, kinds, table.name)
    usual = usual_column([name for name in names if name != key], "label", table.name) or LABEL_COLUMN
    columns = tuple(find_column(names, name, table.name) for name in options.columns or (usual,))
    rest = [name for name in names if name not in columns]
    split = find_column(names, options.split_column, table.name) if options.split_column else split_column(rows, rest)
    kept = [find_column(names, name, table.name) for name in options.keep_columns]
    for row in rows:
        if not row[key]:
            raise DatasetError(f"{table.name}: row {row.number} has nothing in {key}; fill it in or remove the row")
        if split and not split_of(row[split]):
            raise DatasetError(
                f"{table.name}: row {row.number} has {split} {row[split][:60]!r}; use training, validation or test"
            )
    read = read_label_values(
        [Cells({name: row[name] for name in columns}) if len(columns) > 1 else row[columns[0]] for row in rows],
        options.rules,
        names=columns,
        places=[f"{table.name}: row {row.number}" for row in rows],
    )
    # The name of a case is not a group, unless the column is one of patients.
    own = {split} if is_person(key) or options.group_column else {split, key}
    groups = read_groups(
        {name: [row[name] for row in rows] for name in rest if name not in own},
        read.labels,
        wanted=options.group_column,
        what=table.name,
        option=options.rules.option("group_column"),
    )
    lines: dict[str, Line] = {}
    unlabelled: dict[str, None] = {}
    for row, label, group in zip(rows, read.labels, groups.values, strict=True):
        if label is None:
            unlabelled[row[key]] = None
            continue
        line = Line(
            key=row[key],
            label=label,
            group=group,
            split=split_of(row[split]) if split else None,
            kept={column: row[column] or None for column in kept},
            row=row.number,
        )
        if lines.setdefault(line.key, line) != line:
            raise DatasetError(
                f"{table.name}: row {row.number} contradicts row {lines[line.key].row}, which has the same "
                f"{key[:60]}; keep one of them, or name the column that tells images apart with --image-column (names "
                "of files) or --match"
            )
    return LabelTable(
        kind,
        read.task,
        _enough(read),
        tuple(lines.values()),
        tuple(name for name in unlabelled if name not in lines),
        has_split=bool(split),
        remarks=(*read.remarks, *groups.remarks),
    )


def _enough(read: ReadLabels) -> tuple[str, ...]:
    if len(read.classes) < TASKS[read.task].fewest_labels:
        raise DatasetError(
            f"{read.task} needs at least {TASKS[read.task].fewest_labels} classes, the labels have {len(read.classes)} "
            f"({some_of(read.classes)})"
        )
    return read.classes


def _keys_of(names: Sequence[str], kinds: Sequence[str]) -> list[tuple[str, list[str]]]:
    """The kinds of keys that a table has columns for, the finest first; `id` only if there is nothing else."""
    found = {kind: [name for name in names if plain(name) in MATCHES[kind]] for kind in kinds}
    if "file" in found:
        found["file"] = usual_columns(names, "image")
        if set(map(plain, found["file"])) <= set(SPELLINGS["image"][-1]) and any(
            columns for kind, columns in found.items() if kind != "file"
        ):
            del found["file"]
    return [(kind, columns) for kind, columns in found.items() if columns]


def _key_column(names: Sequence[str], options: LabelOptions, kinds: Sequence[str], what: str) -> tuple[str, str]:
    """The kind of key, and the column with it."""
    match = options.match
    if options.image_column:
        return "file", find_column(names, options.image_column, what)
    if match:
        asked = next((kind for kind in kinds if plain(kind) == plain(match)), None)
        if asked is None or any(plain(name) == plain(match) for name in names):
            column = find_column(names, match, what)
            known = next((kind for kind in kinds if plain(column) in MATCHES[kind]), "file")
            return asked or known, column
        kinds = [asked]
    if keys := _keys_of(names, kinds):
        kind, columns = keys[0]
        return kind, usual_column(names, "image", what) if kind == "file" else columns[0]
    raise DatasetError(
        f"{what} has no column that identifies the images ({', '.join(kinds)}); name one with --match: it has "
        f"{some_of(names)}"
    )


def labels_of_layout(layout: Layout, options: LabelOptions) -> LabelTable:
    """The labels of folders by class, with their splits and patients, as a table of kind "file".

    Raises:
        DatasetError: fewer than two classes, or only some images have a split.
        ConfigError: the task needs other labels than folders.
    """
    return _of_folders(
        [(entry.name, str(entry.label), entry.split, entry.group) for entry in layout.entries], options, layout.remarks
    )


def labels_of_folders(names: Sequence[str], options: LabelOptions, *, below: str = "") -> LabelTable:
    """The class of each file by its first folder: `CLASS/any/depth`, or if all first folders are splits, the second.

    Unlike in `class_folders`, files lie at any depth, in archives too, and the importer finds images and patients.

    Args:
        names: relative to the source, with slashes.
        options: task and grades; classes and grades can be folders.
        below: first part of all names that is not a class, such as an archive.

    Returns:
        A table of kind "file".

    Raises:
        DatasetError: files outside such folders, or fewer than two classes.
        ConfigError: the task needs other labels than folders.
    """
    parts = {name: name.removeprefix(below).split("/") for name in names}
    has_split = bool(parts) and all(len(each) > 2 and split_of(each[0]) for each in parts.values())
    depth = 1 if has_split else 0
    if loose := sorted(name for name, each in parts.items() if len(each) < depth + 2):
        raise DatasetError(
            f"files that are in no folder of a class: {len(loose)} ({some_of(loose)}); put each into the folder of its "
            "class, or give --labels a table"
        )
    return _of_folders(
        [(name, each[depth], split_of(each[0]) if has_split else None, name) for name, each in parts.items()], options
    )


def _of_folders(
    rows: Sequence[tuple[str, str, str | None, str]], options: LabelOptions, remarks: tuple[Remark, ...] = ()
) -> LabelTable:
    """By rows of name, class, split and group; an unknown group is the name."""
    if options.rules.task != "auto" and TASKS[options.rules.task].form != "class":
        raise ConfigError(
            f"folders give one class or grade an image, which is not {options.rules.task}; give --labels a table"
        )
    labels = [label for _, label, _, _ in rows]
    read = read_label_values(
        labels,
        options.rules,
        declared=sorted(set(labels)),
        is_ordered=False,
        places=[f"file {name}" for name, _, _, _ in rows],
    )
    lines = tuple(
        Line(name, label, group=None if group == name else group, split=split)
        for (name, _, split, group), label in zip(rows, read.labels, strict=True)
        if label is not None
    )
    has_split = bool(lines) and all(line.split for line in lines)
    return LabelTable("file", read.task, _enough(read), lines, has_split=has_split, remarks=(*remarks, *read.remarks))
