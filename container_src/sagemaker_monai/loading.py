"""A data set with its images decoded: what is checked and counted before the first step of training."""

import hashlib
import logging
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from sagemaker_monai.cache import load_images
from sagemaker_monai.config import TrainConfig
from sagemaker_monai.datasets import SPLITS, Dataset, Record, targets_of
from sagemaker_monai.errors import CallerError, ConfigError, DatasetError
from sagemaker_monai.images import IMAGE_SUFFIXES
from sagemaker_monai.pictures import decode
from sagemaker_monai.presets import preprocessing_for
from sagemaker_monai.reading import read_frames_of, read_volumes_of
from sagemaker_monai.samples import Sample
from sagemaker_monai.tables import some_of
from sagemaker_monai.transforms import Preprocessing

logger = logging.getLogger(__name__)

IMAGES_LOOKED_AT = 64  # training images that decide what all are
PRESET_OF = {
    (2, "CT"): "ct_slice",
    (2, "MR"): "mr_slice",
    (3, "CT"): "ct_volume",
    (3, "MR"): "mr_volume",
}


@dataclass(frozen=True)
class LoadedDataset:
    """A data set with its images decoded.

    Attributes:
        dataset: without the images that could not be read.
        pixels: (N, C, *size) of all splits, in the preprocessing's type, those of unreadable images too.
        rows: for each split the positions of its records in `pixels`.
        unreadable: names of the images left out, by split.
    """

    dataset: Dataset
    pixels: np.ndarray
    rows: dict[str, np.ndarray]
    unreadable: dict[str, tuple[str, ...]]


@dataclass(frozen=True)
class Kind:
    """What the images of a data set are, by those of them that were looked at."""

    is_photograph: bool
    spatial_dims: int
    modality: str
    channels: int


def choose_preprocessing(config: TrainConfig, dataset: Dataset) -> list[dict[str, Any]]:
    """The preprocessing of a data set: the preset as asked or by the kind of images, channels as asked or as they are.

    Raises:
        ConfigError: the preset is for other images, or its hyperparameters do not suit it.
        DatasetError: none of the images that were looked at can be read.
    """
    looked_at = dataset.training[:: max(1, len(dataset.training) // IMAGES_LOOKED_AT)]
    kind = _kind(looked_at, dataset)
    preset = _preset_of(kind) if config.preset == "auto" else config.preset
    if (preset == "photo") != kind.is_photograph and preset != "photo":
        raise ConfigError(f"preset {preset} is not for photographs: set preset to auto or photo")
    asked = {"auto": kind.channels, "rgb": 3, "grey": 1}[config.color]
    logger.info("images: %s, channels: %d", preset, asked)
    return preprocessing_for(
        preset,
        channels=asked,
        image_size=config.image_size,
        image_depth=config.image_depth,
        fit=config.fit,
        window=config.window,
        spacing_mm=config.spacing_mm,
    )


def _preset_of(kind: Kind) -> str:
    if kind.is_photograph:
        return "photo"
    return PRESET_OF.get((kind.spatial_dims, kind.modality), {2: "xray", 3: "volume"}[kind.spatial_dims])


def _kind(records: Sequence[Record], dataset: Dataset) -> Kind:
    if all(isinstance(record.image, Path) and record.image.suffix.lower() in IMAGE_SUFFIXES for record in records):
        return Kind(True, 2, "", 3 if any(map(_is_coloured, records)) else 1)
    modality = {"MRI": "MR"}.get(dataset.modality.upper(), dataset.modality.upper())
    first: CallerError | None = None
    for record in records:
        try:
            return _kind_of(record, modality, dataset.spatial_dims)
        except CallerError as error:
            first = first or error
    names = some_of([record.name for record in records])
    raise DatasetError(f"none of {len(records)} images can be read ({names}), the first because: {first}; replace them")


def _kind_of(record: Record, modality: str, spatial_dims: int | None) -> Kind:
    sample = Sample(record.image)
    is_file = isinstance(record.image, Path) and record.image.is_file()
    if spatial_dims == 2 or (spatial_dims is None and is_file and is_dicom_file(record.image)):
        frames = read_frames_of(sample)
        if len(frames) == 1:
            return Kind(False, 2, frames[0].modality or modality, frames[0].values.shape[0])
    volume = read_volumes_of(sample)[0]
    return Kind(False, 3, volume.modality or modality, volume.values.shape[0])


def is_dicom_file(path: Any) -> bool:
    """Whether a file is DICOM by its first bytes."""
    from sagemaker_monai.dicom.headers import is_dicom

    with path.open("rb") as file:
        return is_dicom(file.read(256))


def _is_coloured(record: Record) -> bool:
    try:
        image = decode(Sample(record.image), channels=3, min_size=(64, 64))
    except CallerError:
        return False  # counted when all images are read
    values = np.asarray(image)
    return bool((values != values[..., :1]).any())


def load_dataset(
    config: TrainConfig,
    dataset: Dataset,
    preprocessing: Preprocessing,
    *,
    cache_dir: Path | None,
    is_stopping: Callable[[], bool] = lambda: False,
) -> LoadedDataset:
    """Decode every image of a data set, the test split's too, so that faults show before training.

    Raises:
        TrainingStopped: `is_stopping`, asked after every image, said yes.
        DatasetError: more than `max_unreadable_fraction` of the images are unreadable, or a class has no readable
            training image, or a split nothing that can be read.
    """
    records = [record for split in SPLITS for record in dataset.split(split)]
    loaded = load_images(
        [Sample(record.image) for record in records],
        preprocessing,
        cache_dir=cache_dir,
        workers=config.num_workers or len(os.sched_getaffinity(0)),
        what="reading images",
        is_stopping=is_stopping,
    )
    faulty = set(loaded.unreadable)
    names = [records[index].name for index in sorted(faulty)]
    if len(faulty) > config.max_unreadable_fraction * len(records):
        raise DatasetError(
            f"{len(faulty)} of {len(records)} images cannot be read ({some_of(names)}), the first because: "
            f"{_fault(records[min(faulty)], preprocessing)}; that is more than max_unreadable_fraction "
            f"{config.max_unreadable_fraction:g}: remove or replace them"
        )
    if faulty:
        logger.warning("%d of %d images cannot be read and are left out: %s", len(faulty), len(records), some_of(names))
    rows, readable, unreadable, start = {}, {}, {}, 0
    for split in SPLITS:
        of_split = dataset.split(split)
        kept = [index for index in range(len(of_split)) if start + index not in faulty]
        rows[split] = np.asarray(kept, dtype=np.int64) + start
        readable[split] = tuple(of_split[index] for index in kept)
        unreadable[split] = tuple(of_split[i].name for i in range(len(of_split)) if start + i in faulty)
        if of_split and not kept:
            raise DatasetError(f"no image of the {split} split can be read: replace {some_of(unreadable[split])}")
        start += len(of_split)
    seen = targets_of(readable["training"], dataset.labels) > 0
    is_class = dataset.task != "regression"
    if unseen := [label for index, label in enumerate(dataset.labels) if is_class and not seen[:, index].any()]:
        raise DatasetError(f"no training image of {some_of(unseen)} can be read: replace them or remove the class")
    if repeated := _in_two_splits(loaded.pixels, rows, readable):
        logger.warning(
            "%d images are the same in two splits, which makes the scores too good: %s; remove the copies, or give "
            "them one group",
            len(repeated),
            some_of([f"{first} = {second}" for first, second in repeated]),
        )
    return LoadedDataset(
        replace(dataset, training=readable["training"], validation=readable["validation"], test=readable["test"]),
        loaded.pixels,
        rows,
        unreadable,
    )


def _fault(record: Record, preprocessing: Preprocessing) -> str:
    """What is wrong with an unreadable image."""
    try:
        preprocessing.load(Sample(record.image))
    except CallerError as error:
        return str(error)
    return "it could not be read a moment ago"


def _in_two_splits(
    pixels: np.ndarray, rows: dict[str, np.ndarray], records: dict[str, tuple[Record, ...]]
) -> list[tuple[str, str]]:
    """Names of images with equal pixels in different splits: copies, as people make them of rare classes."""
    seen: dict[bytes, tuple[str, str]] = {}
    repeated = []
    for split in SPLITS:
        for row, record in zip(rows[split], records[split], strict=True):
            digest = hashlib.blake2b(np.ascontiguousarray(pixels[row]).data, digest_size=16).digest()
            first_split, first = seen.setdefault(digest, (split, record.name))
            if first_split != split:
                repeated.append((first, record.name))
    return repeated
