"""A data set to train on: labels, and images with target and group in three splits, checked before the first epoch.

`read_dataset` accepts the layouts of `layouts`, draws missing splits, and refuses what cannot give an honest result: a
group in two splits, a class without training images. Images are not opened here; the cache finds undecodable ones.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from sagemaker_monai.data.entries import Aside, Entry, Image, Layout, Metadata, image_files
from sagemaker_monai.data.label_rules import UNNAMED, names_of
from sagemaker_monai.data.labelled import Reading, read_labelled
from sagemaker_monai.data.legends import Legend
from sagemaker_monai.data.splitting import SPLITS, split_by_group
from sagemaker_monai.data.trainable import FEWEST_TRAINING, check_groups, check_names
from sagemaker_monai.errors import ConfigError, DatasetError
from sagemaker_monai.masks.mask import Parts
from sagemaker_monai.messages.item_names import current
from sagemaker_monai.messages.remarks import Remark
from sagemaker_monai.messages.shortened import some_of
from sagemaker_monai.storage.digests import Digests
from sagemaker_monai.tasks.label_codes import LabelCodes
from sagemaker_monai.tasks.task import Floats, Task
from sagemaker_monai.tasks.tasks import DEFAULT_TASK, TASKS

__all__ = ["SPLITS", "Dataset", "Record", "read_dataset", "split_by_group"]

CONTENTS = "c1-"  # prefix (and version) of a fingerprint of contents; older ones are of names and sizes
MAX_TITLE_LENGTH = 200


@dataclass(frozen=True)
class Record:
    """One image to learn from.

    Attributes:
        image: absolute path of the file or series folder, or one of these per channel.
        name: the same relative to the channel, with slashes; stable across machines.
        label: the class with the largest share, from 0, by which splits are stratified.
        group: images of one group (lesion, patient) are in one split.
        metadata: other values in the data set, such as age in years, sex, localization; None where unknown.
        target: from the task (`Task.target`); empty stands for the class alone.
        mask: absolute paths of the file or files with a label for each voxel, where labels are masks.
    """

    image: Image
    name: str
    label: int
    group: str
    metadata: Metadata
    target: tuple[float, ...] = ()
    mask: Path | Parts | None = None


@dataclass(frozen=True)
class Dataset:
    """Three splits and their labels.

    Attributes:
        labels: names; their order is the order of the model's answers.
        training, validation, test: records in the order of the data set; test may be empty if its fraction is 0.
        fingerprint: CONTENTS and SHA-256 in hex of labels, names, labels of the images, groups, splits and the bytes
            of the files (see `digests`), independent of where the folder is and of the order of records.
        title: from dataset.json, for people; may be empty.
        task: a key of `tasks.tasks.TASKS`.
        modality: DICOM's Modality from dataset.json, or "".
        spatial_dims: 2 or 3 from dataset.json, or None.
        remarks: on oddities that do not prevent reading.
        aside: masks beside the images (`mask_files.images_with_masks`).
        legend: what the values of the masks mean, where labels are masks.
        codes: as of `Layout`.
    """

    labels: tuple[str, ...]
    training: tuple[Record, ...]
    validation: tuple[Record, ...]
    test: tuple[Record, ...]
    fingerprint: str
    title: str = ""
    task: str = DEFAULT_TASK
    modality: str = ""
    spatial_dims: int | None = None
    remarks: tuple[Remark, ...] = ()
    aside: Aside = field(default_factory=Aside)
    legend: Legend | None = None
    codes: Mapping[str, LabelCodes] = field(default_factory=dict)

    def split(self, name: str) -> tuple[Record, ...]:
        """The records of one of SPLITS."""
        return {"training": self.training, "validation": self.validation, "test": self.test}[name]


def targets_of(records: Sequence[Record], labels: Sequence[str]) -> Floats:
    """The targets of records, float64 (N, T); a class without target becomes one share of K."""
    rows = [record.target or tuple(float(i == record.label) for i in range(len(labels))) for record in records]
    return np.array(rows, dtype=np.float64).reshape(len(rows), -1 if rows else len(labels))


@dataclass(frozen=True)
class _Labelled:
    """Entries with their targets and strata by name."""

    layout: Layout
    task: Task
    targets: dict[str, tuple[float, ...]]
    strata: dict[str, int]


def _label_entries(layout: Layout, labels: tuple[str, ...] | None) -> _Labelled:
    """Make targets of the labels, which are those of a model, or the data set's own if None."""
    if not layout.entries:
        raise DatasetError("the data set has no images; add some to its training split")
    name = layout.task or DEFAULT_TASK
    task = TASKS[name].build(labels or layout.labels)
    faults, targets = [], {}
    for entry in layout.entries:
        try:
            targets[entry.name] = task.target(entry.label)
        except ValueError as error:
            faults.append(f"{entry.name}: {error}")
    if faults:
        raise DatasetError(f"labels that do not suit {name}: {len(faults)} ({some_of(faults)}); correct them")
    values = np.array(list(targets.values()))
    strata = TASKS[name].strata(values)
    return _Labelled(layout, task, targets, dict(zip(targets, strata.tolist(), strict=True)))


def _draw_missing(labelled: _Labelled, wanted: Mapping[str, float], seed: int) -> list[Entry]:
    """Give every entry a split: entries without one count as training, from which missing splits are drawn."""
    entries = labelled.layout.entries
    given = {entry.split or "training" for entry in entries}
    shares = {split: 0.0 if split in given else share for split, share in wanted.items()}
    pool = [entry for entry in entries if entry.split in (None, "training")]
    drawn = split_by_group(
        [labelled.strata[entry.name] for entry in pool],
        [entry.group for entry in pool],
        fractions=(1 - shares["validation"] - shares["test"], shares["validation"], shares["test"]),
        seed=seed,
    )
    split_of = {entry.name: split for entry, split in zip(pool, drawn, strict=True)}
    return [replace(entry, split=split_of.get(entry.name, entry.split)) for entry in entries]


def _check_splits(labelled: _Labelled, entries: Sequence[Entry], wanted: Mapping[str, float]) -> None:
    """Refuse splits that cannot be used for training, choosing the epoch or scoring."""
    labels = labelled.task.labels
    training = [labelled.targets[entry.name] for entry in entries if entry.split == "training"]
    seen = np.array(training).reshape(len(training), -1)
    has_classes = TASKS[labelled.task.name].has_classes
    if unseen := sorted(label for i, label in enumerate(labels) if has_classes and not (seen[:, i] > 0).any()):
        raise DatasetError(
            f"classes without a training image: {len(unseen)} of {len(labels)} ({some_of(unseen)}); "
            "add some or remove the classes"
        )
    if len(training) < FEWEST_TRAINING:
        raise DatasetError(
            f"the training split has {len(training)} image; training needs at least {FEWEST_TRAINING}, and hundreds to "
            "learn something"
        )
    for split, share in wanted.items():
        if (share > 0 or split == "validation") and not any(entry.split == split for entry in entries):
            raise DatasetError(
                f"no image is left for {split} (groups in all: {len({entry.group for entry in entries})}); "
                f"add a {split} split or more groups, set group_column (if another column names the groups, or none), "
                f"or set another {split}_fraction"
            )


def _meaning_of_labels(layout: Layout) -> Sequence[Any]:
    """The names of labels, with the values of those that have several."""
    legend = layout.legend
    return layout.labels if legend is None or not legend.parts else [layout.labels, asdict(legend)]


def _fingerprint(labels: Sequence[Any], entries: Sequence[Entry], digests: Digests) -> str:
    files = [[*image_files(entry.image), *(() if entry.mask is None else image_files(entry.mask))] for entry in entries]
    found = digests.of(file for inside in files for file in inside)
    rows = sorted(
        (
            [entry.split, entry.name, entry.label, entry.group, [[file.name, found[file]] for file in inside]]
            for entry, inside in zip(entries, files, strict=True)
        ),
        key=lambda row: row[:2],
    )
    return CONTENTS + hashlib.sha256(json.dumps([labels, rows], sort_keys=True).encode()).hexdigest()


def is_same_data(fingerprint: str, other: str) -> bool | None:
    """Whether two fingerprints are of the same data set; None if an older version made one, without contents."""
    if not (fingerprint.startswith(CONTENTS) and other.startswith(CONTENTS)):
        return None
    return fingerprint == other


def read_dataset(
    channels: Mapping[str, Path],
    *,
    task: str = "auto",
    reading: Reading | None = None,
    validation_fraction: float,
    test_fraction: float,
    seed: int,
    digests: Digests | None = None,
) -> Dataset:
    """Read and check a data set in any of the layouts.

    Args:
        channels: name and folder of each SageMaker channel; see `layouts.read_channels` for which are read.
        task: a key of `tasks.tasks.TASKS`, or "auto" to follow dataset.json or the form of the labels.
        reading: other options for columns and labels.
        validation_fraction, test_fraction: shares of the training images, below 1 together, that become a split if the
            data set does not have it; whole groups, stratified by class. 0 leaves test empty.
        seed: of that draw.
        digests: of the run; None reads the files for this data set alone.

    Raises:
        DatasetError: with cause and remedy in one line of at most 1,024 characters.
        ConfigError: the fractions are not valid.
    """
    wanted = {"validation": validation_fraction, "test": test_fraction}
    labelled, entries = _read_and_draw(channels, wanted, seed, _reading(reading, task))
    _check_splits(labelled, entries, wanted)
    return _dataset(labelled, entries, digests or Digests())


def read_dataset_to_score(
    channels: Mapping[str, Path],
    *,
    labels: Sequence[str],
    task: str = DEFAULT_TASK,
    reading: Reading | None = None,
    validation_fraction: float,
    test_fraction: float,
    seed: int,
    digests: Digests | None = None,
) -> Dataset:
    """Read and check a data set to score a model with: splits may be empty, and the classes must be the model's.

    Args:
        channels, digests: as for `read_dataset`.
        labels, task: the model's; the records' labels are positions in these.
        reading, validation_fraction, test_fraction, seed: of the model's training, so that the same splits are drawn.

    Raises:
        DatasetError, ConfigError: as for `read_dataset`, or the classes differ.
    """
    wanted = {"validation": validation_fraction, "test": test_fraction}
    labelled, entries = _read_and_draw(channels, wanted, seed, _reading(reading, task), known=tuple(labels))
    own = labelled.layout.labels
    unknown = sorted(set(own) - set(labels))
    if unknown and (TASKS[task].has_classes or own != UNNAMED):
        used = {name for entry in entries for name in names_of(entry.label)}
        missing = sorted(set(labels) - used)
        raise DatasetError(
            f"the data set's classes are not the model's: {len(unknown)} that the model does not know "
            f"({some_of(unknown)}), {len(missing)} that the data set lacks ({some_of(missing)}); rename or remove the "
            "unknown ones"
        )
    return _dataset(_label_entries(labelled.layout, tuple(labels)), entries, digests or Digests())


def _reading(reading: Reading | None, task: str) -> Reading:
    reading = reading or Reading()
    return replace(reading, rules=replace(reading.rules, task=task))


def _read_and_draw(
    channels: Mapping[str, Path],
    wanted: Mapping[str, float],
    seed: int,
    reading: Reading,
    known: tuple[str, ...] = (),
) -> tuple[_Labelled, list[Entry]]:
    """Read the channels, and give every image a target and a split."""
    if not all(0 <= share < 1 for share in wanted.values()) or sum(wanted.values()) >= 1:
        raise ConfigError(
            "validation_fraction and test_fraction must be at least 0 and together below 1, "
            f"got {wanted['validation']:g} and {wanted['test']:g}"
        )
    current().keep(known)
    layout = read_labelled({name: folder.absolute() for name, folder in channels.items()}, reading, known=known)
    current().keep(layout.labels)
    labelled = _label_entries(layout, None)
    if not known:
        check_names(labelled.task.labels, labelled.task.name)
    check_groups(layout.entries)
    return labelled, _draw_missing(labelled, wanted, seed)


def _dataset(labelled: _Labelled, entries: Sequence[Entry], digests: Digests) -> Dataset:
    records: dict[str, list[Record]] = {split: [] for split in SPLITS}
    for entry in entries:
        target, label = labelled.targets[entry.name], labelled.strata[entry.name]
        records[entry.split or "training"].append(
            Record(entry.image, entry.name, label, entry.group, entry.metadata, target, entry.mask)
        )
    layout = labelled.layout
    return Dataset(
        labels=labelled.task.labels,
        training=tuple(records["training"]),
        validation=tuple(records["validation"]),
        test=tuple(records["test"]),
        fingerprint=_fingerprint(_meaning_of_labels(layout), entries, digests),
        title=layout.title[:MAX_TITLE_LENGTH],
        task=labelled.task.name,
        modality=layout.modality,
        spatial_dims=layout.spatial_dims,
        remarks=layout.remarks,
        aside=layout.aside,
        legend=layout.legend,
        codes=layout.codes,
    )
