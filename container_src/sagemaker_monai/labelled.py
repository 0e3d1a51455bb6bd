"""A data set's layout with its labels and groups read: what `train`, `evaluate` and `doctor` take an image for.

Layouts say what is written where; here it gets its meaning, once and for all readers.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from sagemaker_monai.columns import SPELLINGS, Columns, plain
from sagemaker_monai.entries import Entry, Layout
from sagemaker_monai.groups import group_rank, read_groups
from sagemaker_monai.label_rules import LabelRules
from sagemaker_monai.label_values import read_label_values
from sagemaker_monai.layouts import read_channels


@dataclass(frozen=True)
class Reading:
    """How a data set is to be read: the columns of its tables, and what its labels mean."""

    columns: Columns = field(default_factory=Columns)
    rules: LabelRules = field(default_factory=LabelRules)


def read_labelled(channels: Mapping[str, Path], reading: Reading, *, known: tuple[str, ...] = ()) -> Layout:
    """Read channels, their labels and their groups.

    Args:
        channels: as for `layouts.read_channels`.
        reading: how.
        known: classes of a model that is to be scored.

    Returns:
        A layout with its task, the classes in the order of the model's outputs, labels that are none but of that task,
        and without images that have no label.

    Raises:
        DatasetError, ConfigError: as `layouts.read_channels`, `read_label_values` and `read_groups`.
    """
    layout = read_channels(channels, reading.columns)
    if not layout.entries:
        return layout
    return _with_groups(_with_labels(layout, reading.rules, known), reading)


def _with_labels(layout: Layout, rules: LabelRules, known: tuple[str, ...]) -> Layout:
    is_json, is_folders = layout.source == "dataset.json", layout.source == "class folders"
    task = rules.task if rules.task != "auto" else layout.task
    has_classes = task != "regression" and (is_json or (is_folders and task != "multilabel"))
    read = read_label_values(
        [entry.label if entry.cells is None else entry.cells for entry in layout.entries],
        rules,
        declared=layout.labels if has_classes else (),
        is_ordered=is_json,
        known=known,
        task=layout.task,
        names=layout.labels if layout.task == "regression" else (),
        places=[entry.name for entry in layout.entries],
    )
    entries = [
        replace(entry, label=label, cells=None)
        for entry, label in zip(layout.entries, read.labels, strict=True)
        if label is not None
    ]
    return replace(
        layout, entries=entries, labels=read.classes, task=read.task, remarks=(*layout.remarks, *read.remarks)
    )


def _with_groups(layout: Layout, reading: Reading) -> Layout:
    entries = layout.entries
    told = [entry.group if entry.group != entry.name else "" for entry in entries]
    keys = dict.fromkeys(key for entry in entries for key in entry.metadata)
    wanted = reading.columns.group
    columns = {key: [_text(entry, key) for entry in entries] for key in keys
               if group_rank(key) is not None or plain(key) in {*SPELLINGS["group"], plain(wanted)}}  # fmt: skip
    if any(told) or not wanted:
        columns = {"group": told, **columns}
    groups = read_groups(
        columns,
        [entry.label for entry in entries],
        wanted=wanted,
        what="the data set",
        option=reading.rules.option("group_column"),
    )
    named = [replace(entry, group=group or entry.name) for entry, group in zip(entries, groups.values, strict=True)]
    return replace(layout, entries=named, remarks=(*layout.remarks, *groups.remarks))


def _text(entry: Entry, key: str) -> str:
    """What an item says under a key, as a table would."""
    value = entry.metadata.get(key)
    return "" if value is None else value if isinstance(value, str) else f"{value:.17g}"
