"""A data set to train on: labels, and pictures with class and group in three splits, checked before the first epoch.

`read_dataset` accepts the layouts of `layouts`, draws the splits that are missing, and refuses what cannot give an
honest result: a group on two sides, a class that training never sees. `write_dataset_json` writes the layout that all
importers use. Pictures are not opened here; those that cannot be decoded show when the cache is built.
"""

import hashlib
import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from sagemaker_monai.errors import ConfigError, DatasetError
from sagemaker_monai.files import write_text
from sagemaker_monai.layouts import DATASET_JSON, Entry, Layout, Metadata, read_channels
from sagemaker_monai.splitting import SPLITS, split_by_group
from sagemaker_monai.tables import some_of

__all__ = ["SPLITS", "Dataset", "Record", "read_dataset", "split_by_group", "write_dataset_json"]

MAX_LABEL_LENGTH = 100
MAX_TITLE_LENGTH = 200


@dataclass(frozen=True)
class Record:
    """One picture to learn from.

    Attributes:
        image: absolute path of the file.
        name: the same relative to the channel, with slashes; stable across machines.
        label: class index, from 0.
        group: pictures of one group (lesion, patient) are in one split.
        metadata: what else the data set says, such as age in years, sex, localization; None where unknown.
    """

    image: Path
    name: str
    label: int
    group: str
    metadata: Metadata


@dataclass(frozen=True)
class Dataset:
    """Three splits and their classes.

    Attributes:
        labels: class names; their order is the order of the model's outputs.
        training, validation, test: records in the order of the data set; test may be empty if no fraction was asked.
        fingerprint: SHA-256 in hex over labels, names, classes, groups, splits and file sizes; it does not depend on
            where the folder is or in which order records come. Contents are not hashed: reading a large data set
            twice costs minutes, and a changed picture of the same size to the byte is no accident.
        title: what the data set calls itself in dataset.json, for people; may be empty.
    """

    labels: tuple[str, ...]
    training: tuple[Record, ...]
    validation: tuple[Record, ...]
    test: tuple[Record, ...]
    fingerprint: str
    title: str = ""

    def split(self, name: str) -> tuple[Record, ...]:
        """The records of one of SPLITS."""
        return {"training": self.training, "validation": self.validation, "test": self.test}[name]


def _check_labels(layout: Layout) -> None:
    """Refuse labels that cannot name a model's outputs."""
    labels = layout.labels
    if unknown := sorted({entry.label for entry in layout.entries} - set(labels)):
        raise DatasetError(
            f"classes that are not in labels: {len(unknown)} ({some_of(unknown)}); labels has {some_of(labels)}: "
            "add or correct them"
        )
    if not layout.entries:
        raise DatasetError("the data set has no images; add some to its training split")
    if odd := [label for label in labels if len(label) > MAX_LABEL_LENGTH or not label.isprintable()]:
        raise DatasetError(
            f"class names longer than {MAX_LABEL_LENGTH} characters or not printable: {len(odd)} "
            f"({some_of([ascii(label) for label in odd])}); rename them"
        )
    if len(labels) < 2:
        raise DatasetError(f"the data set has one class only ({some_of(labels)}); give at least two to tell apart")


def _check_groups(entries: Sequence[Entry]) -> None:
    """Refuse a group that is on two sides."""
    sides: dict[str, set[str | None]] = defaultdict(set)
    for entry in entries:
        sides[entry.group].add(entry.split)
    if torn := sorted(group for group, splits in sides.items() if len(splits) > 1):
        raise DatasetError(
            f"groups with images in more than one split: {len(torn)} ({some_of(torn)}); put all images of a group into "
            "one split, or leave the split out to have it drawn"
        )


def _draw_missing(layout: Layout, wanted: Mapping[str, float], seed: int) -> list[Entry]:
    """Give every entry a split: those without one count as training, from which the missing splits are drawn."""
    given = {entry.split or "training" for entry in layout.entries}
    shares = {split: 0.0 if split in given else share for split, share in wanted.items()}
    pool = [entry for entry in layout.entries if entry.split in (None, "training")]
    index = {label: position for position, label in enumerate(layout.labels)}
    drawn = split_by_group(
        [index[entry.label] for entry in pool],
        [entry.group for entry in pool],
        fractions=(1 - shares["validation"] - shares["test"], shares["validation"], shares["test"]),
        seed=seed,
    )
    split_of = {entry.name: split for entry, split in zip(pool, drawn, strict=True)}
    return [replace(entry, split=split_of.get(entry.name, entry.split)) for entry in layout.entries]


def _check_splits(labels: Sequence[str], entries: Sequence[Entry], wanted: Mapping[str, float]) -> None:
    """Refuse splits that cannot be trained, chosen or scored with."""
    if unseen := sorted(set(labels) - {entry.label for entry in entries if entry.split == "training"}):
        raise DatasetError(
            f"classes without a training image: {len(unseen)} of {len(labels)} ({some_of(unseen)}); "
            "add some or remove the classes"
        )
    for split, share in wanted.items():
        if (share > 0 or split == "validation") and not any(entry.split == split for entry in entries):
            raise DatasetError(
                f"no image is left for {split} (groups in all: {len({entry.group for entry in entries})}); "
                f"give a {split} split, more groups, or another {split}_fraction"
            )


def _fingerprint(labels: Sequence[str], entries: Sequence[Entry]) -> str:
    rows = sorted([entry.split, entry.name, entry.label, entry.group, entry.image.stat().st_size] for entry in entries)
    return hashlib.sha256(json.dumps([labels, rows]).encode()).hexdigest()


def read_dataset(
    channels: Mapping[str, Path], *, validation_fraction: float, test_fraction: float, seed: int
) -> Dataset:
    """Read and check a data set in any of the layouts.

    Args:
        channels: name and folder of each SageMaker channel; see `layouts.read_channels` for which are read.
        validation_fraction, test_fraction: shares of the training images, 0 to below 1 together, that become a split
            the data set does not have; whole groups, stratified by class. 0 leaves test empty.
        seed: of that draw.

    Raises:
        DatasetError: with cause and remedy in one line of at most 1,024 characters.
        ConfigError: the fractions are no shares of a whole.
    """
    wanted = {"validation": validation_fraction, "test": test_fraction}
    layout, entries = _read_and_draw(channels, wanted, seed)
    _check_splits(layout.labels, entries, wanted)
    return _dataset(layout, entries, layout.labels)


def read_dataset_to_score(
    channels: Mapping[str, Path],
    *,
    labels: Sequence[str],
    validation_fraction: float,
    test_fraction: float,
    seed: int,
) -> Dataset:
    """Read and check a data set to score a model with: splits may be empty, and the classes must be the model's.

    Args:
        channels: as for `read_dataset`.
        labels: the model's classes; the records' labels are positions in these.
        validation_fraction, test_fraction, seed: of the model's training, so that the same splits are drawn.

    Raises:
        DatasetError: as for `read_dataset`, or the classes are others.
        ConfigError: the fractions are no shares of a whole.
    """
    layout, entries = _read_and_draw(channels, {"validation": validation_fraction, "test": test_fraction}, seed)
    unknown, missing = sorted(set(layout.labels) - set(labels)), sorted(set(labels) - set(layout.labels))
    if unknown or missing:
        raise DatasetError(
            f"the data set's classes are not the model's: {len(unknown)} that the model does not know "
            f"({some_of(unknown)}), {len(missing)} that the data set lacks ({some_of(missing)}); rename or remove the "
            "first and declare the others, in the labels of dataset.json or by empty class folders"
        )
    return _dataset(layout, entries, labels)


def _read_and_draw(channels: Mapping[str, Path], wanted: Mapping[str, float], seed: int) -> tuple[Layout, list[Entry]]:
    """Read the channels, and give every picture a split."""
    if not all(0 <= share < 1 for share in wanted.values()) or sum(wanted.values()) >= 1:
        raise ConfigError(
            "validation_fraction and test_fraction must be from 0 to below 1 together, "
            f"got {wanted['validation']:g} and {wanted['test']:g}"
        )
    layout = read_channels({name: folder.absolute() for name, folder in channels.items()})
    _check_labels(layout)
    _check_groups(layout.entries)
    return layout, _draw_missing(layout, wanted, seed)


def _dataset(layout: Layout, entries: Sequence[Entry], labels: Sequence[str]) -> Dataset:
    index = {label: position for position, label in enumerate(labels)}
    records: dict[str, list[Record]] = {split: [] for split in SPLITS}
    for entry in entries:
        record = Record(entry.image, entry.name, index[entry.label], entry.group, entry.metadata)
        records[entry.split or "training"].append(record)
    return Dataset(
        labels=tuple(labels),
        training=tuple(records["training"]),
        validation=tuple(records["validation"]),
        test=tuple(records["test"]),
        fingerprint=_fingerprint(layout.labels, entries),
        title=layout.title[:MAX_TITLE_LENGTH],
    )


def write_dataset_json(
    folder: Path,
    *,
    name: str,
    description: str,
    labels: Sequence[str],
    records: Mapping[str, Sequence[Mapping[str, Any]]],
    reference: str = "",
    licence: str = "",
) -> None:
    """Write `dataset.json` in the Medical Segmentation Decathlon layout, whole or not at all.

    Args:
        folder: root of the data set.
        name, description, reference, licence: for people.
        labels: class names in the order of the model's outputs.
        records: split -> one mapping an image: `image` ("./images/1.jpg"), `label` (class name), `group`, and metadata.
    """
    content = {
        "name": name,
        "description": description,
        "reference": reference,
        "licence": licence,
        "tensorImageSize": "2D",
        "modality": {"0": "RGB"},
        "labels": {str(index): label for index, label in enumerate(labels)},
        "numTraining": len(records.get("training", ())),
        "numValidation": len(records.get("validation", ())),
        "numTest": len(records.get("test", ())),
    }
    head = json.dumps(content, indent=1, ensure_ascii=False).removesuffix("\n}")
    lists = [  # one line an image, so that people and diff can read it
        f' "{split}": [\n'
        + ",\n".join(
            f"  {json.dumps(dict(item), ensure_ascii=False, allow_nan=False)}" for item in records.get(split, ())
        )
        + "\n ]"
        for split in SPLITS
    ]
    write_text(folder / DATASET_JSON, ",\n".join([head, *lists]) + "\n}\n")
