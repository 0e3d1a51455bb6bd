"""A data set's layout with its labels and groups interpreted, once for `train`, `evaluate` and `doctor`.

Layouts say what is written where; this module gives it meaning.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from sagemaker_monai.data.entries import Entry, Layout
from sagemaker_monai.data.groups import read_groups
from sagemaker_monai.data.label_names import alike_key
from sagemaker_monai.data.label_rules import LabelRules, codes_of, grades_of
from sagemaker_monai.data.label_values import read_label_values
from sagemaker_monai.data.layouts import read_channels
from sagemaker_monai.errors import ConfigError
from sagemaker_monai.hyperparameters import TrainConfig
from sagemaker_monai.messages.remarks import remark
from sagemaker_monai.messages.shortened import some_of
from sagemaker_monai.storage.columns import SPELLINGS, Columns, group_rank, is_missing, plain
from sagemaker_monai.tasks.tasks import DEFAULT_TASK, TASKS

FOLDS = frozenset({"fold", "folds", "kfold", "cvfold", "foldid"})  # as `columns.plain` writes them
AUTO, NONE = "auto", "none"


@dataclass(frozen=True)
class Reading:
    """How to read a data set.

    Attributes:
        columns: of its tables, if named.
        rules: what its labels mean.
        fold: the one for validation, "" for none; see `_with_folds`.
    """

    columns: Columns = field(default_factory=Columns)
    rules: LabelRules = field(default_factory=LabelRules)
    fold: str = ""

    @property
    def wants_masks(self) -> bool:
        """Whether the task that was asked for learns from masks."""
        return self.rules.task in TASKS and TASKS[self.rules.task].has_masks


def reading_of(config: TrainConfig) -> Reading:
    """How to read a data set, from the hyperparameters.

    Raises:
        ConfigError: invalid grades or codes.
    """

    def told(name: str, default: str) -> str:
        value: str = getattr(config, name)
        return "" if value.strip().lower() == default else value.strip()

    label = told("label_column", AUTO)
    return Reading(
        Columns(
            image=told("image_column", AUTO),
            label=tuple(filter(None, map(str.strip, label.split(",")))),
            group=told("group_column", AUTO),
            split=told("split_column", AUTO),
        ),
        LabelRules(
            task=config.task,
            grades=grades_of(told("grades", NONE), "grades"),
            missing_labels=config.missing_labels,
            missing_codes=codes_of(told("missing_codes", NONE), "missing_codes"),
            uncertain_labels=config.uncertain_labels,
            similar_labels=config.similar_labels,
        ),
        fold=told("fold", NONE),
    )


def read_labelled(channels: Mapping[str, Path], reading: Reading, *, known: tuple[str, ...] = ()) -> Layout:
    """Read channels, their labels and their groups.

    Args:
        channels: as for `layouts.read_channels`.
        reading: how.
        known: classes of a model to be scored.

    Returns:
        A layout with its task, the classes in the order of the model's outputs, and labels of that task only, without
        images that have no label.

    Raises:
        DatasetError, ConfigError: as `layouts.read_channels`, `read_label_values` and `read_groups`.
    """
    return interpreted(read_channels(channels, reading.columns, has_masks=reading.wants_masks), reading, known=known)


def interpreted(layout: Layout, reading: Reading, *, known: tuple[str, ...] = ()) -> Layout:
    """Read the labels and groups of a layout; see `read_labelled`."""
    if not layout.entries:
        return layout
    return _with_folds(_with_groups(_with_labels(layout, reading.rules, known), reading), reading)


def _with_labels(layout: Layout, rules: LabelRules, known: tuple[str, ...]) -> Layout:
    if layout.legend is not None:
        if rules.task not in (AUTO, layout.task):
            raise ConfigError(f"the labels are masks, which task {rules.task} does not take: set task to {layout.task}")
        return layout
    is_json, is_folders = layout.source == "dataset.json", layout.source == "class folders"
    form = TASKS[(layout.task if rules.task == AUTO else rules.task) or DEFAULT_TASK].form
    has_classes = form != "number" and (is_json or (is_folders and form != "findings"))
    read = read_label_values(
        [entry.label if entry.cells is None else entry.cells for entry in layout.entries],
        rules,
        declared=layout.labels if has_classes else (),
        is_ordered=is_json,
        known=known,
        task=layout.task,
        names=layout.labels if layout.task and not TASKS[layout.task].has_classes else (),
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
               if group_rank(key) is not None or plain(key) in {*SPELLINGS["group"][0], plain(wanted)}}  # fmt: skip
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
    is_drawn = not any(entry.split == "validation" for entry in entries)
    is_bare = is_drawn and all(group is None for group in groups.values)
    said = (remark("no_groups", len(entries)),) if is_bare else ()
    return replace(layout, entries=named, remarks=(*layout.remarks, *groups.remarks, *said))


def _with_folds(layout: Layout, reading: Reading) -> Layout:
    """If items have folds, those of the requested fold are for validation, the others for training.

    Raises:
        ConfigError: there are no folds, no such fold, or a validation split as well.
    """
    keys = [key for entry in layout.entries for key in entry.metadata if plain(key) in FOLDS]
    folds = {entry.name: _text(entry, keys[0]) for entry in layout.entries} if keys else {}
    found = sorted({fold for fold in folds.values() if not is_missing(fold)})
    if not reading.fold:
        is_unused = len(found) > 1 and not any(entry.split == "validation" for entry in layout.entries)
        said = (remark("folds_unused", len(found), folds=some_of(found)),) if is_unused else ()
        return replace(layout, remarks=(*layout.remarks, *said))
    if not any(alike_key(fold) == alike_key(reading.fold) for fold in found):
        raise ConfigError(f"no image is of fold {reading.fold[:40]}; the data set has {some_of(found) or 'no folds'}")
    if any(entry.split == "validation" for entry in layout.entries):
        raise ConfigError(
            "fold chooses images for validation, and the data set has a validation split: remove one of them"
        )
    entries = [
        replace(entry, split="validation" if alike_key(folds[entry.name]) == alike_key(reading.fold) else "training")
        if entry.split != "test" and not is_missing(folds[entry.name]) else entry
        for entry in layout.entries
    ]  # fmt: skip
    return replace(layout, entries=entries)


def _text(entry: Entry, key: str) -> str:
    """An item's value of a key, written as in a table."""
    value = entry.metadata.get(key)
    return "" if value is None else value if isinstance(value, str) else f"{value:.17g}"
