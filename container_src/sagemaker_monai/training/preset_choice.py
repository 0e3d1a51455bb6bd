"""Choose the preset and the number of channels by the kind of images in a data set, a sample of which is read.

Single images have 3 channels if some show colour. Every preset except `photo` takes either colour or grey, so if only
some files are stored in colour, `auto` makes all of them grey. The alternative, copying grey into three channels, lost:
three channels may also be three sequences, and a server could not tell a grey image from a case that lacks two of them.
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
from sagemaker_monai.preprocessing.presets import ORIENTATION, PRESETS, preprocessing_for
from sagemaker_monai.preprocessing.resampling import orientation_of, spacing_of
from sagemaker_monai.tasks.tasks import TASKS

logger = logging.getLogger(__name__)

DEPTHS_LOOKED_AT = 5_000  # pictures whose header is read for its bit depth, evenly spread
MAY_BE_DEEP = frozenset({".png", ".tif", ".tiff"})
IMAGES_LOOKED_AT = 64  # training images that stand for all; of volumes, the first that can be read does
PRESET_OF = {
    (2, "CT"): "ct_slice",
    (2, "MR"): "mr_slice",
    (2, "PT"): "pet_slice",
    (3, "CT"): "ct_volume",
    (3, "MR"): "mr_volume",
    (3, "PT"): "pet_volume",
}
COLOURS = 3
VOLUMES_LOOKED_AT = 24  # whose shapes and spacings stand for all


@dataclass(frozen=True)
class Kind:
    """The kind of images in a data set, judged by the sample.

    Attributes:
        is_photograph: all are 8-bit pictures by their names.
        spatial_dims: 2 or 3.
        modality: DICOM's Modality, "" if unknown.
        channels: of an image as stored; 1 if only some are stored in colour.
        is_mixed: only some are stored in colour.
        has_colour: some show colour; None if nothing is stored in colour.
        bits: per value, for pictures of more than 8 bits, else 0.
    """

    is_photograph: bool
    spatial_dims: int
    modality: str
    channels: int
    is_mixed: bool = False
    has_colour: bool | None = None
    bits: int = 0


def choose_preprocessing(config: TrainConfig, dataset: Dataset) -> list[dict[str, Any]]:
    """Choose the preprocessing of a data set: what the hyperparameters ask for, or else what suits the images.

    Raises:
        ConfigError: the preset does not suit the images, or its hyperparameters do not suit it.
        DatasetError: no image of the sample can be read, or the images have different numbers of sequences.
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
            f"color rgb needs colour images, and {'some' if kind.is_mixed else 'these'} are not: set color to auto "
            "or grey"
        )
    if config.color == "grey" and kind.channels not in (1, COLOURS):
        raise ConfigError(f"color grey needs single images, and these have {kind.channels} sequences: leave it out")
    if TASKS[dataset.task].has_masks and config.fit == "crop":
        raise ConfigError(
            "fit crop leaves out a part of each image, which would get no mask: set fit to stretch or pad"
        )
    channels = {"auto": _usual_channels(preset, kind), "rgb": COLOURS, "grey": 1}[config.color]
    logger.info("images: %s, channels: %d", preset, channels)
    if value_range is not None:
        low, high = value_range
        logger.info("pictures of %d bits: shown from %g to %g, the range of the training images", kind.bits, low, high)
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
        patch=(1, 1, 1) if TASKS[dataset.task].has_masks else (),  # `plan` says how large
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
            f"preset {preset} does not suit pictures of {kind.bits} bits: set preset to auto or deep, and window as "
            "you need it, or export them with 8 bits"
        )
    if preset == "deep" and not kind.bits:
        raise ConfigError("preset deep needs pictures of more than 8 bits, and these are not: set preset to auto")
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
    is_for_pictures = ("photo", "deep")
    names = [x for x in PRESETS if x not in is_for_pictures and PRESETS[x].spatial_dims == kind.spatial_dims]
    return f"auto or one of {', '.join(names)}"


def _check_sequences(dataset: Dataset) -> None:
    """Refuse cases that lack a sequence, without reading files."""
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
            "preset to photo, which converts all to 8-bit pictures, or train on one kind"
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
            break  # reading 64 volumes takes minutes, and they have no colour
    if kinds:
        return _common(kinds)
    names = some_of([record.name for record in looked_at])
    raise DatasetError(
        f"none of {len(looked_at)} images can be read ({names}), the first because: {first}; replace them"
    )


Grids = Sequence[tuple[tuple[int, ...], tuple[float, ...] | None]]  # shapes and spacings


def volume_grids(config: TrainConfig, dataset: Dataset) -> Grids:
    """Shape and spacing in mm (None where it is unknown) of some training volumes, turned as the load half turns them.

    Raises:
        DatasetError: none of them can be read.
    """
    records = dataset.training[:: max(1, len(dataset.training) // VOLUMES_LOOKED_AT)]
    grids: list[tuple[tuple[int, ...], tuple[float, ...] | None]] = []
    for record in records:
        try:
            volume = read_volumes_of(
                Sample(_paths(record)[0]),
                policy=UNEVEN_SLICES[config.uneven_slices],
                non_finite=config.non_finite,
                choice=_choice(config),
            )[0]
        except CallerError:
            continue  # counted when all images are read
        shape: tuple[int, ...] = volume.values.shape[1:]
        spacing: tuple[float, ...] | None = None
        if volume.has_geometry:
            order = [axis for axis, _ in orientation_of(volume.affine, ORIENTATION)]
            own = spacing_of(volume.affine)
            shape, spacing = tuple(shape[axis] for axis in order), tuple(own[axis] for axis in order)
        grids.append((tuple(map(int, shape)), spacing))
    if not grids:
        raise DatasetError(f"none of {len(records)} volumes can be read ({some_of([each.name for each in records])})")
    return grids


def _looked_at(dataset: Dataset) -> Sequence[Record]:
    records = dataset.training
    return records[:: max(1, len(records) // IMAGES_LOOKED_AT)]


def _bits(dataset: Dataset) -> int:
    """Bits per value of pictures with more than 8, else 0.

    Raises:
        DatasetError: only some have more than 8.
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
            f"{len(deep)} of {len(records)} pictures have more than 8 bits ({some_of(deep)}) and the others have 8, so "
            "their values are on different scales: export all with the same bit depth"
        )
    return max(bits) if deep else 0


def _channels_of_deep(record: Record) -> int:
    """0 if it cannot be read, which is reported when all images are read."""
    try:
        return len(read_deep_frame(Sample(record.image)).values)
    except CallerError:
        return 0


def _common(kinds: Sequence[Kind]) -> Kind:
    """The first kind, but grey if colour and grey are mixed."""
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
    # A volume of one slice is an image, whether it is a NIfTI file or a folder with one X-ray.
    return described(volume, 2 if spatial_dims is None and volume.values.shape[3] == 1 else 3)


def _is_coloured(record: Record) -> bool:
    try:
        image = decode(Sample(record.image), channels=COLOURS, min_size=(64, 64))
    except CallerError:
        return False  # reported when all images are read
    values = np.asarray(image)
    return bool((values != values[..., :1]).any())
