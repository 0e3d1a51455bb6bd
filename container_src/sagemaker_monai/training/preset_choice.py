"""Which preset and how many channels: by what kind of images a data set has, of which some are looked at.

Channels are the data's: of single images 3 where some show colour. A preset but that of photographs takes either
colours or grey, and where some files are stored in colour and others are not, `auto` makes all grey. Spreading a grey
image over three channels lost: three channels may as well be three sequences, and a server could not tell a grey image
from one whose other two are missing.
"""

import logging
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from sagemaker_monai.data.datasets import SPLITS, Dataset, Record
from sagemaker_monai.errors import CallerError, ConfigError, DatasetError
from sagemaker_monai.hyperparameters import TrainConfig
from sagemaker_monai.images.dicom.wanted import Choice
from sagemaker_monai.images.pictures import count_bits, decode
from sagemaker_monai.images.read import DICOM_FORMAT, kind_of, read_frames_of, read_volumes_of
from sagemaker_monai.images.sample import Sample, Sequences
from sagemaker_monai.images.scope import said_modality
from sagemaker_monai.images.suffixes import IMAGE_SUFFIXES
from sagemaker_monai.images.volumes import Frame, Volume
from sagemaker_monai.messages.shortened import some_of
from sagemaker_monai.preprocessing.deep_pictures import range_of, read_deep_frame
from sagemaker_monai.preprocessing.medical import UNEVEN_SLICES
from sagemaker_monai.preprocessing.presets import PRESETS, preprocessing_for

logger = logging.getLogger(__name__)

DEPTHS_LOOKED_AT = 5_000  # pictures whose header is asked for its bits, evenly spread
MAY_BE_DEEP = frozenset({".png", ".tif", ".tiff"})
IMAGES_LOOKED_AT = 64  # training images that decide what all are; of volumes the first that can be read
PRESET_OF = {
    (2, "CT"): "ct_slice",
    (2, "MR"): "mr_slice",
    (2, "PT"): "pet_slice",
    (3, "CT"): "ct_volume",
    (3, "MR"): "mr_volume",
    (3, "PT"): "pet_volume",
}
COLOURS = 3


@dataclass(frozen=True)
class Kind:
    """What the images of a data set are, by those of them that were looked at.

    Attributes:
        is_photograph: 8-bit pictures by their names, each and every one.
        spatial_dims: 2 or 3.
        modality: Modality of DICOM, "" where nobody says.
        channels: of an image as it is stored; 1 where some are stored in colour and others are not.
        is_mixed: some are stored in colour and others are not.
        has_colour: some are in colour to the eye; None where nothing is stored in colour.
        bits: of a value where they are pictures of more than 8, else 0.
    """

    is_photograph: bool
    spatial_dims: int
    modality: str
    channels: int
    is_mixed: bool = False
    has_colour: bool | None = None
    bits: int = 0


def choose_preprocessing(config: TrainConfig, dataset: Dataset) -> list[dict[str, Any]]:
    """The preprocessing of a data set: the preset as asked or by the kind of images, channels as asked or as they are.

    Raises:
        ConfigError: the preset is for other images, or its hyperparameters do not suit it.
        DatasetError: none of the images that were looked at can be read, or they have different sequences.
    """
    _check_sequences(dataset)
    kind = _kind(config, dataset)
    preset = _preset_of(kind) if config.preset == "auto" else config.preset
    _check_preset(preset, kind)
    if preset == "photo" and isinstance(dataset.training[0].image, Sequences):
        raise ConfigError(f"preset photo is for single pictures, and these are sequences: set preset to {_able(kind)}")
    value_range = None
    if preset == "deep" and config.window == "preset":
        value_range = range_of([_paths(record)[0] for record in _looked_at(dataset)])
    if config.color == "rgb" and not kind.is_photograph and preset != "photo" and kind.channels != COLOURS:
        raise ConfigError(
            f"color rgb is for images in colour, and {'some' if kind.is_mixed else 'these'} are not: set color to auto "
            "or grey"
        )
    if config.color == "grey" and kind.channels not in (1, COLOURS):
        raise ConfigError(f"color grey is for single images, and these have {kind.channels} sequences: leave it out")
    channels = {"auto": _usual_channels(preset, kind), "rgb": COLOURS, "grey": 1}[config.color]
    logger.info("images: %s, channels: %d", preset, channels)
    if value_range is not None:
        low, high = value_range
        logger.info("pictures of %d bits: values from %g to %g, the range of training, are shown", kind.bits, low, high)
    return preprocessing_for(
        preset,
        channels=channels,
        image_size=config.image_size,
        image_depth=config.image_depth,
        fit=config.fit,
        window=config.window,
        spacing_mm=config.spacing_mm,
        uneven_slices=config.uneven_slices,
        non_finite=config.non_finite,
        value_range=value_range,
        choice=_choice(config),
    )


def _choice(config: TrainConfig) -> Choice:
    return Choice.of(config.modality, config.series_description, config.series)


def _usual_channels(preset: str, kind: Kind) -> int:
    if kind.has_colour is None:
        return kind.channels
    if preset == "photo":  # takes grey and colours alike
        return COLOURS if kind.has_colour else 1
    return kind.channels if kind.has_colour else 1


def _preset_of(kind: Kind) -> str:
    if kind.is_photograph:
        return "photo"
    if kind.bits:
        return "deep"
    return PRESET_OF.get((kind.spatial_dims, kind.modality), {2: "xray", 3: "volume"}[kind.spatial_dims])


def _check_preset(preset: str, kind: Kind) -> None:
    dims = PRESETS[preset].spatial_dims
    if kind.bits and preset != "deep":
        raise ConfigError(
            f"preset {preset} is for other images than pictures of {kind.bits} bits: set preset to auto or deep, and "
            "window as you need it, or export them with 8 bits"
        )
    if preset == "deep" and not kind.bits:
        raise ConfigError("preset deep is for pictures of more than 8 bits, and these are none: set preset to auto")
    if kind.is_photograph and preset != "photo":
        raise ConfigError(
            f"preset {preset} is not for photographs (8-bit pictures): set preset to auto or photo, and augmentation "
            "to grey for pictures of X-rays"
        )
    if dims == 3 and kind.spatial_dims == 2:
        raise ConfigError(
            f"preset {preset} is for volumes, and these are single images: set preset to {_able(kind)}, or keep the "
            "files of each series in a folder of its own"
        )
    if dims == 2 and kind.spatial_dims == 3:
        raise ConfigError(f"preset {preset} is for single images, and these are volumes: set preset to {_able(kind)}")


def _able(kind: Kind) -> str:
    of_files = [name for name in PRESETS if name not in ("photo", "deep")]  # others are for pictures
    names = [name for name in of_files if PRESETS[name].spatial_dims == kind.spatial_dims]
    return f"auto or one of {', '.join(names)}"


def _check_sequences(dataset: Dataset) -> None:
    """Refuse cases that lack a sequence, by their lists alone."""
    records = [record for split in SPLITS for record in dataset.split(split)]
    counts = Counter(len(_paths(record)) for record in records)
    [(usual, _), *others] = counts.most_common()
    if others:
        odd = [record.name for record in records if len(_paths(record)) != usual]
        raise DatasetError(
            f"most images have {usual} sequence{'s' * (usual > 1)}, {len(odd)} have more or fewer ({some_of(odd)}); "
            "name the same sequences for every image, in one order"
        )


def _paths(record: Record) -> tuple[Path, ...]:
    return record.image.channels if isinstance(record.image, Sequences) else (record.image,)


def _is_picture(record: Record) -> bool:
    return all(path.suffix.lower() in IMAGE_SUFFIXES for path in _paths(record))


def _kind(config: TrainConfig, dataset: Dataset) -> Kind:
    records = dataset.training
    looked_at = _looked_at(dataset)
    pictures = sum(map(_is_picture, records))
    is_single = not isinstance(records[0].image, Sequences)
    if pictures == len(records) and is_single:
        if bits := _bits(dataset):
            colours = [channels == COLOURS for record in looked_at if (channels := _channels_of_deep(record))]
            has_colour = bool(colours) and all(colours)
            return Kind(False, 2, "", COLOURS if has_colour else 1, is_mixed=len(set(colours)) > 1, bits=bits)
        return Kind(True, 2, "", COLOURS, has_colour=any(map(_is_coloured, looked_at)))
    if pictures and config.preset == "auto" and is_single:
        raise ConfigError(
            f"{pictures} of {len(records)} training images are pictures and the others are medical files: set "
            "preset to photo, which makes 8-bit pictures of all, or train on one kind"
        )
    modality = said_modality(dataset.modality)
    kinds: list[Kind] = []
    first: CallerError | None = None
    for record in looked_at:
        try:
            kinds.append(_kind_of(record, modality, dataset.spatial_dims, config))
        except CallerError as error:
            first = first or error
        if kinds and (kinds[0].spatial_dims == 3 or isinstance(record.image, Sequences)):
            break  # reading 64 volumes takes minutes, and they have no colours
    if kinds:
        return _common(kinds)
    names = some_of([record.name for record in looked_at])
    raise DatasetError(
        f"none of {len(looked_at)} images can be read ({names}), the first because: {first}; replace them"
    )


def _looked_at(dataset: Dataset) -> Sequence[Record]:
    records = dataset.training
    return records[:: max(1, len(records) // IMAGES_LOOKED_AT)]


def _bits(dataset: Dataset) -> int:
    """Bits of a value where the pictures have more than 8, else 0.

    Raises:
        DatasetError: some have, and some have not.
    """
    records = [record for split in SPLITS for record in dataset.split(split) if _is_picture(record)]
    records = records[:: -(-len(records) // DEPTHS_LOOKED_AT)]
    bits = [
        count_bits(path) if path.suffix.lower() in MAY_BE_DEEP else 8
        for path in (_paths(record)[0] for record in records)
    ]
    deep = [record.name for record, count in zip(records, bits, strict=True) if count > 8]
    if 0 < len(deep) < len(records):
        raise DatasetError(
            f"{len(deep)} of {len(records)} pictures have more than 8 bits ({some_of(deep)}) and the others have 8: "
            "their values are on different scales; export all of them alike"
        )
    return max(bits) if deep else 0


def _channels_of_deep(record: Record) -> int:
    """0 where it cannot be read, which is counted when all images are read."""
    try:
        return len(read_deep_frame(Sample(record.image)).values)
    except CallerError:
        return 0


def _common(kinds: Sequence[Kind]) -> Kind:
    """The first one's, but grey where colours and grey are mixed."""
    is_mixed = {kind.channels for kind in kinds} == {1, COLOURS}
    known = [kind.has_colour for kind in kinds if kind.has_colour is not None]
    channels = 1 if is_mixed else kinds[0].channels
    return replace(kinds[0], channels=channels, is_mixed=is_mixed, has_colour=any(known) if known else None)


def _kind_of(record: Record, modality: str, spatial_dims: int | None, config: TrainConfig) -> Kind:
    paths = _paths(record)
    sample = Sample(paths[0])

    def described(image: Frame | Volume, spatial_dims: int) -> Kind:
        if len(paths) > 1:
            return Kind(False, spatial_dims, image.modality or modality, len(paths))
        values = image.values
        is_rgb = values.dtype == np.uint8 and len(values) == COLOURS
        has_colour = bool((values != values[:1]).any()) if is_rgb else None
        return Kind(False, spatial_dims, image.modality or modality, len(values), has_colour=has_colour)

    is_plain = paths[0].is_file() and kind_of(paths[0]) in ("picture", DICOM_FORMAT)
    if spatial_dims == 2 or (spatial_dims is None and is_plain):
        frames = read_frames_of(sample)
        if len(frames) == 1 or spatial_dims == 2:
            return described(frames[0], 2)
    volume = read_volumes_of(
        sample,
        policy=UNEVEN_SLICES[config.uneven_slices],
        non_finite=config.non_finite,
        choice=_choice(config),
    )[0]
    # One slice is an image, whatever it is packed in: a NIfTI file, or a folder with one X-ray.
    return described(volume, 2 if spatial_dims is None and volume.values.shape[3] == 1 else 3)


def _is_coloured(record: Record) -> bool:
    try:
        image = decode(Sample(record.image), channels=COLOURS, min_size=(64, 64))
    except CallerError:
        return False  # counted when all images are read
    values = np.asarray(image)
    return bool((values != values[..., :1]).any())
