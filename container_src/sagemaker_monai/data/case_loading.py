"""A data set of images with masks, prepared: what is checked and counted before the first step of training."""

import logging
import os
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from sagemaker_monai.data.case_store import Case, CaseStore, open_store
from sagemaker_monai.data.datasets import SPLITS, Dataset
from sagemaker_monai.data.loading import check_kinds, odd_pixels, oddities, without_faulty
from sagemaker_monai.data.trainable import FEWEST_TRAINING
from sagemaker_monai.errors import DatasetError
from sagemaker_monai.hyperparameters import TrainConfig
from sagemaker_monai.images.sample import Sample
from sagemaker_monai.images.scope import Scope, said_modality, scope_of
from sagemaker_monai.messages.shortened import some_of
from sagemaker_monai.preprocessing.preprocessing import Preprocessing
from sagemaker_monai.storage.digests import Digests

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class LoadedCases:
    """A data set of images with masks, prepared.

    Attributes:
        dataset: without the images that could not be read.
        store: all images and masks, with a place for unreadable ones too.
        rows: by split, the positions of its records in `store`.
        unreadable: by split, the names of the images that are left out.
        scope: the kind of the training images.
    """

    dataset: Dataset
    store: CaseStore
    rows: dict[str, np.ndarray]
    unreadable: dict[str, tuple[str, ...]]
    scope: Scope = field(default_factory=Scope)

    def cases(self, split: str) -> list[Case]:
        """The index of a split."""
        return [case for row in self.rows[split] if (case := self.store.cases[row]) is not None]


def load_cases(
    config: TrainConfig,
    dataset: Dataset,
    preprocessing: Preprocessing,
    *,
    cache_dir: Path,
    digests: Digests,
    is_stopping: Callable[[], bool] = lambda: False,
) -> LoadedCases:
    """Prepare every image and mask of a data set, the test split's too, so that faults show before training.

    Raises:
        TrainingStopped: `is_stopping`, asked after every image, said yes.
        DatasetError: more than `max_unreadable_fraction` of the images or their masks cannot be used, a structure is in
            no training mask, or a split has nothing left.
    """
    records = [record for split in SPLITS for record in dataset.split(split)]
    assert dataset.legend is not None
    store = open_store(
        [Sample(record.image) for record in records],
        [mask for record in records if (mask := record.mask) is not None],
        dataset.legend.among(dataset.labels, dataset.legend.regions),
        preprocessing,
        cache_dir=cache_dir,
        workers=config.num_workers or len(os.sched_getaffinity(0)),
        what="reading images and masks",
        digests=digests,
        is_stopping=is_stopping,
    )
    names = [record.name for record in records]
    _check_readable(store, names, config)
    read = [(name, case.traits) for name, case in zip(names, store.cases, strict=True) if case is not None]
    check_kinds([name for name, _ in read], [traits for _, traits in read])
    faulty = {row for row, case in enumerate(store.cases) if case is None}
    dataset, rows, unreadable = without_faulty(dataset, faulty, "used")
    scope = scope_of(
        [case.traits for row in rows["training"] if (case := store.cases[row]) is not None],
        spatial_dims=preprocessing.spatial_dims,
        modality="" if preprocessing.dtype == "uint8" else said_modality(dataset.modality),
    )
    loaded = LoadedCases(dataset, store, rows, unreadable, scope)
    _check_training(loaded)
    lines = [*oddities([traits for _, traits in read]), *_odd_masks(loaded)]
    for line in [*lines, *odd_pixels(store.image, rows, names, preprocessing)]:
        logger.warning("%s", line)
    return loaded


def _check_readable(store: CaseStore, names: list[str], config: TrainConfig) -> None:
    """Refuse more unusable images than are allowed, and name the others in the log."""
    if not store.faults:
        return
    shown = some_of([names[place] for place in sorted(store.faults)])
    first = store.faults[min(store.faults)]
    if len(store.faults) > config.max_unreadable_fraction * len(names):
        raise DatasetError(
            f"{len(store.faults)} of {len(names)} images or their masks cannot be used ({shown}), the first because: "
            f"{first}; that is more than max_unreadable_fraction {config.max_unreadable_fraction:g}: remove or replace "
            "them"
        )
    logger.warning(
        "%d of %d images or their masks cannot be used and are left out: %s; the first because: %s",
        len(store.faults), len(names), shown, first,
    )  # fmt: skip


def _check_training(loaded: LoadedCases) -> None:
    """Refuse a training split with too few images, or without a structure."""
    if len(loaded.dataset.training) < FEWEST_TRAINING:
        raise DatasetError(
            f"only {len(loaded.dataset.training)} image of the training split can be used, and {FEWEST_TRAINING} are "
            "needed"
        )
    counts = np.sum([case.counts for case in loaded.cases("training")], axis=0)
    if unseen := [label for label, count in zip(loaded.dataset.labels, counts, strict=False) if not count]:
        raise DatasetError(
            f"structures that are in no training mask: {len(unseen)} of {len(loaded.dataset.labels)} "
            f"({some_of(unseen)}); add masks that show them, or take them out of labels"
        )


def _odd_masks(loaded: LoadedCases) -> list[str]:
    """What is odd about masks that were read all the same, in sentences."""
    lines = []
    for split in SPLITS:
        records = loaded.dataset.split(split)
        empty = [record.name for record, case in zip(records, loaded.cases(split), strict=True)
                 if not any(case.counts[:-1])]  # fmt: skip
        if empty:
            lines.append(f"{len(empty)} of {len(records)} masks of the {split} split show nothing: {some_of(empty)}")
        counts = np.sum([case.counts for case in loaded.cases(split)], axis=0) if records else ()
        if unseen := [label for label, count in zip(loaded.dataset.labels, counts, strict=False) if not count]:
            lines.append(
                f"no mask of the {split} split shows {some_of(unseen)}: its scores there only say whether the network "
                "sees it where it is not, so look at the counts beside them, or draw the split anew"
            )
    codes = Counter(code for split in SPLITS for case in loaded.cases(split) for code in case.findings)
    if codes:
        counts = ", ".join(f"{code} {count}" for code, count in codes.most_common())
        lines.append(f"odd about the masks, and read all the same (docs/formats.md has each finding): {counts}")
    return lines
