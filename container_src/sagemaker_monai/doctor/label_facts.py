"""Labels, groups and splits of images, read as train reads them, and less strictly if train refuses them.

Train refuses a data set at the first fault. Here the reason is one finding among others, and the rest is still read: a
table that names missing files still has the labels of the others.
"""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from sagemaker_monai.data.dataset_json import DATASET_JSON, MAX_DATASET_JSON_BYTES
from sagemaker_monai.data.entries import (
    SUFFIXES,
    Aside,
    Entry,
    Layout,
    Metadata,
    image_files,
    name_parts,
    names_below,
    visible,
)
from sagemaker_monai.data.label_rules import LabelRules
from sagemaker_monai.data.labelled import Reading, interpreted
from sagemaker_monai.data.layouts import read_channels
from sagemaker_monai.data.legends import Legend
from sagemaker_monai.data.mask_files import join_asides, mask_remarks, masks_below
from sagemaker_monai.data.mask_reading import MaskOf
from sagemaker_monai.data.name_matching import match_names
from sagemaker_monai.data.trainable import lacks_test_images, refusal_of
from sagemaker_monai.errors import ConfigError, DatasetError
from sagemaker_monai.messages.remarks import Remark
from sagemaker_monai.messages.shortened import some_of
from sagemaker_monai.storage.columns import Columns, find_column, split_of, usual_column, usual_columns
from sagemaker_monai.storage.tables import Row, is_table, read_table, table_content
from sagemaker_monai.tasks.labels import Label
from sagemaker_monai.tasks.tasks import task_for

_OUTSIDE = ".outside"  # a hidden file, so it is never found
COLUMNS = ("image", "label", "group", "split")


@dataclass(frozen=True)
class Case:
    """One labelled image.

    Attributes:
        paths: its files, which may be missing.
        label: as the table has it, None for a mask.
        group: as the table has it, or "".
        split: one of SPLITS, or None.
        mask: with its image, where labels are masks.
    """

    paths: tuple[Path, ...] = field(repr=False)
    label: Label | None
    group: str = field(default="", repr=False)
    split: str | None = None
    mask: MaskOf | None = None


@dataclass(frozen=True)
class Labels:
    """The labels of a data set.

    Attributes:
        source: "dataset.json", "table", "class folders", or "" without labels.
        cases: the labelled images.
        classes: declared class names, in the model's order.
        task: by the data set or the form of the labels.
        masks: files that are labels.
        legend: what their values mean.
        aside: masks beside the images.
        fault: why train cannot read it, or "". May quote names of files.
        is_faulty: the fault is in a data set, not in a mere folder of files.
        spatial_dims: 2 or 3, or None if unknown.
        remarks: what was odd but could be read.
        refusal: why train would refuse what it can read, or "". May quote names of groups.
        lacks_test: train needs test_fraction 0, because no image would be left for a test split.
    """

    source: str = ""
    cases: tuple[Case, ...] = ()
    classes: tuple[str, ...] = ()
    task: str = ""
    masks: frozenset[Path] = frozenset()
    legend: Legend | None = None
    aside: Aside = field(default_factory=Aside)
    fault: str = ""
    is_faulty: bool = False
    spatial_dims: int | None = None
    remarks: tuple[Remark, ...] = ()
    refusal: str = ""
    lacks_test: bool = False

    @property
    def is_table(self) -> bool:
        """Whether a table lists the images, so that others have no label."""
        return self.source in (DATASET_JSON, "table")


def read_labels(
    channels: Mapping[str, Path], table: Path | None, columns: Mapping[str, str], rules: LabelRules | None = None
) -> Labels:
    """Read the labels of a data set.

    Args:
        channels: name and folder of each channel.
        table: a CSV file of labels with names relative to the only channel, or None for the layouts of train.
        columns: key of COLUMNS -> the table's name for it, if that is another one.
        rules: how to read labels.

    Raises:
        ConfigError: the table cannot be read.
    """
    if unknown := sorted(set(columns) - set(COLUMNS)):
        raise ConfigError(f"--columns knows {', '.join(COLUMNS)}, got {', '.join(unknown)[:100]}")
    told = Columns(
        image=columns.get("image", ""),
        label=(columns["label"],) if "label" in columns else (),
        group=columns.get("group", ""),
        split=columns.get("split", ""),
    )
    reading = Reading(told, rules or LabelRules())
    if table is not None:
        return _read_named_table(next(iter(channels.values())), table, columns, reading)
    try:
        absolute = {name: folder.absolute() for name, folder in channels.items()}
        layout = read_channels(absolute, reading.columns, has_masks=reading.wants_masks)
    except (DatasetError, OSError) as error:
        fault = str(error) if isinstance(error, DatasetError) else type(error).__name__
        labels = _read_leniently(channels, fault)
        there = [folder.absolute() for folder in channels.values() if folder.is_dir()]
        aside = join_asides([_masks_below(folder, labels.cases) for folder in there])
        return replace(labels, aside=aside, remarks=labels.remarks + mask_remarks(aside))
    if layout.source == "class folders" and len(layout.labels) == 1:  # a folder of files, as a PACS exports it
        return Labels(fault="all images lie in one folder", aside=layout.aside, remarks=layout.remarks)
    source = layout.source or _source_of(channels)
    paths = {entry.name: tuple(image_files(entry.image)) for entry in layout.entries}
    labels = replace(_read_meaning(layout, reading, paths), source=source, aside=layout.aside)
    if layout.legend is None:
        return labels
    of_images = {
        paths[entry.name]: MaskOf(entry.image, entry.mask, layout.legend, layout.spatial_dims, entry.annotator_masks)
        for entry in layout.entries
        if entry.mask is not None
    }
    cases = [replace(case, label=None, mask=of_images[case.paths]) for case in labels.cases]
    masks = frozenset(
        file
        for each in of_images.values()
        for mask in (each.mask, *each.annotators.values())
        for file in image_files(mask)
    )
    return replace(
        labels, cases=tuple(cases), classes=layout.legend.names, task=task_for("mask"), masks=masks,
        legend=layout.legend,
    )  # fmt: skip


def _cases_of(layout: Layout, paths: Mapping[str, tuple[Path, ...]]) -> list[Case]:
    return [
        Case(paths[entry.name], entry.label, "" if entry.group == entry.name else entry.group, entry.split)
        for entry in layout.entries
    ]


def _read_meaning(layout: Layout, reading: Reading, paths: Mapping[str, tuple[Path, ...]]) -> Labels:
    """Labels and groups as train reads them; if it refuses them, as they are written, with the reason."""
    try:
        read = interpreted(layout, reading)
    except (DatasetError, ConfigError) as error:
        cases = [case for case in _cases_of(layout, paths) if not isinstance(case.label, str) or case.label]
        return Labels(
            layout.source, tuple(cases), _classes_of(cases), fault=str(error), is_faulty=True,
            spatial_dims=layout.spatial_dims, remarks=layout.remarks,
        )  # fmt: skip
    return Labels(
        layout.source, tuple(_cases_of(read, paths)), read.labels, read.task or "", spatial_dims=read.spatial_dims,
        remarks=read.remarks, refusal=refusal_of(read), lacks_test=lacks_test_images(read),
    )  # fmt: skip


def _source_of(channels: Mapping[str, Path]) -> str:
    folders = list(channels.values())
    if any((folder / DATASET_JSON).is_file() for folder in folders):
        return DATASET_JSON
    return "table" if any(_tables(folder) for folder in folders) else "class folders"


def _tables(folder: Path) -> list[Path]:
    return [path for path in visible(folder) if is_table(path) and path.is_file()]


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except (OSError, ValueError):  # the name is too long, or has a zero byte
        return False


# --- tables that train does not read ---------------------------------------------------------------------------------


def _read_named_table(folder: Path, table: Path, columns: Mapping[str, str], reading: Reading) -> Labels:
    try:
        rows = read_table(table_content(table), what=table.name, fits=lambda names: not _missing(names, columns))
        names = _named(list(rows[0]) if rows else [], columns, table.name)
    except OSError as error:
        raise ConfigError(f"the table of labels cannot be read ({error.strerror})") from error
    except DatasetError as error:
        raise ConfigError(f"{error}; name other columns with --columns image=NAME,label=NAME") from error
    taken = {names["image"], names["label"], names["split"], names["group"]}
    rows = [row for row in rows if row[names["image"]]]
    cases, found = _found_otherwise(
        folder, [row[names["image"]] for row in rows], list(_cases_of_rows(folder, rows, names))
    )
    entries = []
    for row, case in zip(rows, cases, strict=True):
        name = f"row {row.number}"
        rest: Metadata = {key: value or None for key, value in row.items() if key not in taken}
        entries.append(Entry(folder, name, row[names["label"]], row.get(names["group"]) or name, case.split, rest))
    paths = {entry.name: case.paths for entry, case in zip(entries, cases, strict=True)}
    # The entries have the named group column already.
    own = replace(reading, columns=replace(reading.columns, group="" if "group" not in columns else "group"))
    labels = _read_meaning(Layout((), entries, source="table"), own, paths)
    aside = _masks_below(folder.absolute(), labels.cases)
    return replace(
        labels, aside=aside, remarks=(*found, *labels.remarks, *mask_remarks(aside)), refusal="", lacks_test=False
    )


def _masks_below(folder: Path, cases: Sequence[Case]) -> Aside:
    return masks_below(folder, [path for case in cases for path in case.paths if path.is_relative_to(folder)])


def _missing(names: Sequence[str], wanted: Mapping[str, str]) -> list[str]:
    """The roles without a column, neither named nor with a usual name."""
    return [role for role in ("image", "label") if role not in wanted and not usual_columns(names, role)]


def _named(names: Sequence[str], wanted: Mapping[str, str], what: str) -> dict[str, str]:
    """The column for each of COLUMNS, named or with a usual name as for train; "" for none."""
    found = {
        role: find_column(names, wanted[role], what) if role in wanted else usual_column(names, role, what)
        for role in COLUMNS
    }
    if missing := [role for role in ("image", "label") if not found[role]]:
        raise DatasetError(f"{what} has no column {some_of(missing)}")
    return found


def _found_otherwise(
    folder: Path, names: Sequence[str], cases: Sequence[Case]
) -> tuple[list[Case], tuple[Remark, ...]]:
    """Cases with the files that train would find for names that are not written as the files are; and remarks."""
    missing = {
        name: place
        for place, (name, case) in enumerate(zip(names, cases, strict=True))
        if len(case.paths) == 1 and not _is_file(case.paths[0])
    }
    if not missing:
        return list(cases), ()
    below = names_below(folder)
    there = {
        case.paths[0].relative_to(folder.absolute()).as_posix()
        for place, case in enumerate(cases)
        if place not in missing.values() and len(case.paths) == 1 and case.paths[0].is_relative_to(folder.absolute())
    }
    matches = match_names(list(missing), [name for name in below if name not in there], suffixes=SUFFIXES)
    found = list(cases)
    for name, meant in matches.found.items():
        paths = tuple(image_files(folder.absolute() / meant))
        found[missing[name]] = replace(cases[missing[name]], paths=paths)
    return found, matches.remarks("the table")


def _cases_of_rows(folder: Path, rows: Sequence[Mapping[str, str]], names: Mapping[str, str]) -> Iterator[Case]:
    for row in rows:
        if not row[names["image"]]:
            continue
        split = split_of(row.get(names["split"], ""))
        paths = _paths(folder, row[names["image"]].split(";"))
        yield Case(paths, row[names["label"]], row.get(names["group"], ""), split)


def _paths(folder: Path, names: Sequence[str]) -> tuple[Path, ...]:
    """The files that names mean, of a folder its files; a name that leads out of the data set means a missing one."""
    paths: list[Path] = []
    for name in names:
        is_inside = bool(name_parts(name.strip()))
        path = folder.absolute() / (name.strip() if is_inside else _OUTSIDE)
        try:
            paths += image_files(path) or [path]
        except OSError:
            paths.append(path)
    return tuple(paths)


def _classes_of(cases: Sequence[Case]) -> tuple[str, ...]:
    return tuple(sorted({name for case in cases for name in names_of(case.label)}))


def names_of(label: Label | None) -> tuple[str, ...]:
    """The classes of a label: one, the one with the largest share, or all findings; none for a number."""
    if isinstance(label, str):
        return (label,)
    if isinstance(label, dict):
        return (max(label, key=lambda name: label[name]),) if label else ()
    return label if isinstance(label, tuple) else ()


# --- what train refuses ----------------------------------------------------------------------------------------------


def _read_leniently(channels: Mapping[str, Path], fault: str) -> Labels:
    cases: list[Case] = []
    source, is_faulty = "", len(channels) > 1
    for name, folder in channels.items():
        if not folder.is_dir():
            continue
        split = split_of(name) if len(channels) > 1 else None
        if (folder / DATASET_JSON).is_file():
            source, is_faulty = DATASET_JSON, True
            cases += _cases_of_json(folder, split)
        elif len(tables := _tables(folder)) == 1:
            rows = _rows_of(tables[0])
            if rows:
                source, is_faulty = "table", True
                cases += _cases_of_rows(folder, rows, dict(zip(COLUMNS, COLUMNS, strict=True)))
    return Labels(source, tuple(cases), _classes_of(cases), fault=fault, is_faulty=is_faulty)


def _rows_of(table: Path) -> list[Row]:
    try:
        return read_table(table_content(table), what="", required=("image", "label"))
    except (OSError, DatasetError):
        return []


def _cases_of_json(folder: Path, split: str | None) -> Iterator[Case]:
    try:
        if (folder / DATASET_JSON).stat().st_size > MAX_DATASET_JSON_BYTES:
            return
        content = json.loads((folder / DATASET_JSON).read_bytes())
    except (OSError, ValueError, RecursionError):
        return
    lists = [(split_of(key), listed) for key, listed in content.items()] if isinstance(content, dict) else []
    for own, listed in lists:
        if own is None:
            continue
        for item in listed if isinstance(listed, list) else ():
            if isinstance(item, dict) and (names := _texts(item.get("image"))):
                label = item.get("label")
                group = item.get("group")
                yield Case(
                    _paths(folder, names),
                    label if isinstance(label, str | float) else tuple(_texts(label)) or None,
                    group if isinstance(group, str) else "",
                    split or own,
                )


def _texts(value: Any) -> list[str]:
    values = value if isinstance(value, list) else [value]
    return [each for each in values if isinstance(each, str) and each.strip()]


def without_names(fault: str) -> str:
    """A reason of train without its quotes: names of files and groups are in parentheses."""
    return re.sub(r"\s*\([^()]*(?:\([^()]*\)[^()]*)*\)", "", fault)
