"""Decode the images of a data set, with the checks and counts before the first training step."""

import hashlib
import logging
import os
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from sagemaker_monai.data.cache import load_images
from sagemaker_monai.data.datasets import SPLITS, Dataset, Record, targets_of
from sagemaker_monai.data.trainable import FEWEST_TRAINING
from sagemaker_monai.errors import CallerError, DatasetError
from sagemaker_monai.hyperparameters import TrainConfig
from sagemaker_monai.images.sample import Sample
from sagemaker_monai.images.scope import Scope, said_modality, scope_of
from sagemaker_monai.images.volumes import Identity, Traits
from sagemaker_monai.messages.shortened import some_of
from sagemaker_monai.preprocessing.preprocessing import Preprocessing
from sagemaker_monai.preprocessing.visibility import shows_nothing
from sagemaker_monai.storage.digests import Digests
from sagemaker_monai.tasks.tasks import TASKS

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class LoadedDataset:
    """A data set with its images decoded.

    Attributes:
        dataset: without the images that could not be read.
        pixels: (N, C, *size) of all splits, in the preprocessing's type, with a place for unreadable images too.
        rows: by split, the positions of its records in `pixels`.
        unreadable: by split, the names of the images that are left out.
        scope: the kind of the training images.
    """

    dataset: Dataset
    pixels: np.ndarray
    rows: dict[str, np.ndarray]
    unreadable: dict[str, tuple[str, ...]]
    scope: Scope = field(default_factory=Scope)


def load_dataset(
    config: TrainConfig,
    dataset: Dataset,
    preprocessing: Preprocessing,
    *,
    cache_dir: Path | None,
    digests: Digests | None = None,
    is_stopping: Callable[[], bool] = lambda: False,
) -> LoadedDataset:
    """Decode every image of a data set, the test split's too, so that faults show before training.

    `digests` are those that the data set was read with.

    Raises:
        TrainingStopped: `is_stopping`, asked after every image, was true.
        DatasetError: more than `max_unreadable_fraction` of the images are unreadable, a class has no readable
            training image, a split has no readable image, or masks and the like are among DICOM images.
    """
    records = [record for split in SPLITS for record in dataset.split(split)]
    loaded = load_images(
        [Sample(record.image) for record in records],
        preprocessing,
        cache_dir=cache_dir,
        workers=config.num_workers or len(os.sched_getaffinity(0)),
        what="reading images",
        digests=digests,
        is_stopping=is_stopping,
    )
    _check_readable(records, loaded.unreadable, config, preprocessing)
    names = [record.name for record in records]
    check_kinds(names, loaded.traits)
    for line in oddities(loaded.traits):
        logger.warning("%s", line)
    dataset, rows, unreadable = without_faulty(dataset, set(loaded.unreadable), "read")
    _check_training(dataset, unreadable["training"])
    for line in odd_pixels(lambda row: loaded.pixels[row], rows, names, preprocessing):
        logger.warning("%s", line)
    scope = scope_of(
        [loaded.traits[row] for row in rows["training"]],
        spatial_dims=preprocessing.spatial_dims,
        # A modality given for photographs is not the Modality that their DICOM files have.
        modality="" if preprocessing.dtype == "uint8" else said_modality(dataset.modality),
    )
    return LoadedDataset(dataset, loaded.pixels, rows, unreadable, scope)


def without_faulty(
    dataset: Dataset, faulty: Collection[int], verb: str
) -> tuple[Dataset, dict[str, np.ndarray], dict[str, tuple[str, ...]]]:
    """A data set without the images that cannot be used.

    Args:
        dataset: with all images.
        faulty: their positions among the records of all splits, in the order of SPLITS.
        verb: what cannot be done with them, for the message.

    Returns:
        The data set, the positions of its records by split, and the names of the others by split.

    Raises:
        DatasetError: a split has nothing left.
    """
    records = [record for split in SPLITS for record in dataset.split(split)]
    rows, unreadable, start = {}, {}, 0
    for split in SPLITS:
        span = range(start, start + len(dataset.split(split)))
        rows[split] = np.asarray([row for row in span if row not in faulty], dtype=np.int64)
        unreadable[split] = tuple(records[row].name for row in span if row in faulty)
        if span and not rows[split].size:
            raise DatasetError(f"no image of the {split} split can be {verb}: replace {some_of(unreadable[split])}")
        start = span.stop
    training, validation, test = (tuple(records[row] for row in rows[split]) for split in SPLITS)
    return replace(dataset, training=training, validation=validation, test=test), rows, unreadable


def _check_readable(
    records: Sequence[Record], faulty: Sequence[int], config: TrainConfig, preprocessing: Preprocessing
) -> None:
    """Refuse more unreadable images than allowed; name fewer in the log."""
    names = some_of([records[index].name for index in faulty])
    if len(faulty) > config.max_unreadable_fraction * len(records):
        reason = "it could not be read a moment ago"
        try:
            preprocessing.load(Sample(records[faulty[0]].image))
        except CallerError as error:
            reason = str(error)
        raise DatasetError(
            f"{len(faulty)} of {len(records)} images cannot be read ({names}), the first because: {reason}; that is "
            f"more than max_unreadable_fraction {config.max_unreadable_fraction:g}: remove or replace them"
        )
    if faulty:
        logger.warning("%d of %d images cannot be read and are left out: %s", len(faulty), len(records), names)


def _check_training(dataset: Dataset, unreadable: Sequence[str]) -> None:
    """Refuse a training split with too few readable images, in total or of a class."""
    if len(dataset.training) < FEWEST_TRAINING:
        raise DatasetError(
            f"only one training image can be read, and {FEWEST_TRAINING} are needed: replace {some_of(unreadable)}"
        )
    seen = targets_of(dataset.training, dataset.labels) > 0
    is_class = TASKS[dataset.task].has_classes
    if unseen := [label for index, label in enumerate(dataset.labels) if is_class and not seen[:, index].any()]:
        raise DatasetError(f"no training image of {some_of(unseen)} can be read: replace them or remove the class")


def check_kinds(names: Sequence[str], traits: Sequence[Traits]) -> None:
    """Refuse masks, doses and the like among DICOM images, and warn of other unusual ones.

    Raises:
        DatasetError: some objects can never be pictures, and others are.
    """
    kinds = [each.identity for each in traits if each.identity is not None]
    if all(each.kind == "image" for each in kinds):
        return  # also if nothing is DICOM, whose module takes 0.3 s to import
    from sagemaker_monai.images.dicom.objects import NEVER_PICTURES, Subject, names_of

    def named(identities: Iterable[Identity]) -> str:
        return names_of(Subject(each.kind, each.modality, is_colour=False) for each in identities)

    never = [index for index, each in enumerate(traits) if each.identity and each.identity.kind in NEVER_PICTURES]
    if never and len(never) < len(kinds):
        said = named(identity for index in never if (identity := traits[index].identity) is not None)
        raise DatasetError(
            f"{len(never)} of {len(names)} images are not images like the others, but {said} "
            f"({some_of([names[index] for index in never])}): leave them out, or keep the images of their studies"
        )
    odd = [each for each in kinds if each.kind != "image"]
    logger.warning("%d of %d images are not plain images: %s", len(odd), len(names), named(odd))


def oddities(traits: Sequence[Traits]) -> list[str]:
    """Sentences about DICOM objects that were skipped, and about findings in the images that were read."""
    lines = []
    others = [each.identity.passed_over for each in traits if each.identity and each.identity.passed_over]
    if others:
        lines.append(
            f"beside {len(others)} of {len(traits)} images lie other DICOM series or objects, {sum(others)} in all, "
            "which were skipped, as they are in serving requests"
        )
    codes = Counter(code for each in traits for code in each.findings)
    if codes:
        counts = ", ".join(f"{code} {count}" for code, count in codes.most_common())
        lines.append(f"findings in images that were read all the same (see docs/formats.md): {counts}")
    return lines


def odd_pixels(
    pixels: Callable[[int], np.ndarray],
    rows: Mapping[str, np.ndarray],
    names: Sequence[str],
    preprocessing: Preprocessing,
) -> list[str]:
    """Sentences about images that are blank as the network sees them, and about copies in different splits.

    Copies are images of equal pixels and shape; some people copy images of rare classes.

    Args:
        pixels: gives the prepared image of a row, (C, W, H[, D]).
        rows: by split.
        names: of all rows.
        preprocessing: that prepared them.
    """
    blank, repeated = [], []
    seen: dict[tuple[tuple[int, ...], bytes], tuple[str, str]] = {}
    for split in SPLITS:
        for row in rows[split]:
            image = np.ascontiguousarray(pixels(row))
            if shows_nothing(image, preprocessing.value_range):
                blank.append(names[row])
            digest = hashlib.blake2b(image.data, digest_size=16).digest()
            first_split, first = seen.setdefault((image.shape, digest), (split, names[row]))
            if first_split != split:
                repeated.append(f"{first} = {names[row]}")
    lines = []
    if blank:
        lines.append(
            f"{len(blank)} of {len(names)} images show nothing once they are prepared (black, white, one value or a "
            f"few levels): {some_of(blank)}; look at them, and at the window and the range of values"
        )
    if repeated:
        lines.append(
            f"equal images in two splits make the scores too good: {some_of(repeated)}; remove the copies, or give "
            "them one group"
        )
    return lines
