"""Reads a sample of any kind (DICOM, volume file, picture, raw values) to images with their unit and geometry.

The content selects the reader, within the formats that the sample allows. Readers are imported when they are needed:
pydicom and nibabel take 0.3 s each, which a server of photographs does not need.
"""

import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from sagemaker_monai.budget import spend_bytes
from sagemaker_monai.errors import UndecodableImage, UnsuitableImage
from sagemaker_monai.images.deep_values import DeepPicture
from sagemaker_monai.images.dicom.findings import Policy
from sagemaker_monai.images.dicom.wanted import OF_ONE, Choice
from sagemaker_monai.images.expected import Expected, expect
from sagemaker_monai.images.pictures import PICTURE_FORMATS, decode, decode_deep, read_head
from sagemaker_monai.images.sample import Held, Instances, Sample, Sequences
from sagemaker_monai.images.signatures import GZIP_MAGIC, is_archive, is_dicom_file
from sagemaker_monai.images.volumes import Display, Frame, Volume, check_voxels

if TYPE_CHECKING:
    from sagemaker_monai.images.formats.voxels import NonFinite
    from sagemaker_monai.images.scope import Scope

DICOM_FORMAT = "DICOM"  # beside the names of `pictures` and `volume_files` in `Sample.formats`
MAX_CHANNELS = 16
SAME_GRID = 0.1  # of a voxel: the largest distance between the corners of two sequences
_HEAD_BYTES = 1 << 16  # enough to recognise every format, gzip included
_POLICY = Policy()

_Image = TypeVar("_Image", Frame, Volume)


def read_frames_of(sample: Sample, *, scope: "Scope | None" = None) -> list[Frame]:
    """Read 2-D images, all of `each_frame_of`."""
    return list(each_frame_of(sample, scope=scope))


def each_frame_of(sample: Sample, *, scope: "Scope | None" = None) -> Iterator[Frame]:
    """Read 2-D images one by one, so that the frames of a file are not all held at once.

    Args:
        sample: a picture; DICOM files, a folder or an archive of them; a volume file with one slice; raw values (W, H)
            or (C, W, H); sequences with one image each.
        scope: what the model is for; selects the DICOM objects to read.

    Yields:
        At least one frame: those of one DICOM file in its order, or the slices of several, series by series. Pictures
        without colour become grey; those of more than 8 bits keep their values, as float32.

    Raises:
        UndecodableImage: broken bytes, an unreadable file, or none of `sample.formats`.
        UnsuitableImage: no pixels, a volume, or sequences on different grids.
        PayloadTooLarge: more than the reader's limits.
    """
    source = sample.source
    if isinstance(source, Sequences):
        frames = read_frame_channels(source)
        values = np.concatenate([np.asarray(frame.values, np.float32) for frame in frames])
        first = frames[0]
        display, findings = _shared_display(frames), _all_findings(frames)
        yield Frame(values, first.spacing_mm, display, first.modality, first.identity, findings)
    elif isinstance(source, np.ndarray):
        yield Frame(_checked(source, ("(W, H)", "(C, W, H)"), is_colour_kept=True), None)
    elif isinstance(source, Instances):
        yield from _frames_of_dicom(source.files, scope)
    elif (kind := kind_of(source, sample.formats)) == DICOM_FORMAT:
        yield from _frames_of_dicom(source if isinstance(source, Path) else (source,), scope)
    elif kind == "picture":
        yield _frame_of_picture(sample)
    else:
        yield _frame_of_volume(_read_volume(source, kind), is_bare=kind == "NPY")


def read_volumes_of(
    sample: Sample,
    *,
    policy: Policy = _POLICY,
    non_finite: "NonFinite" = "refuse",
    choice: Choice = OF_ONE,
    scope: "Scope | None" = None,
) -> list[Volume]:
    """Read 3-D images.

    Args:
        sample: DICOM files of one or more series; a DICOM file, a folder or an archive with one series; a volume file;
            raw values (W, H, D) or (C, W, H, D); sequences with one volume each.
        policy: how findings of a DICOM series are handled.
        non_finite: for volume files, as in `volume_files.read_volume_file`; in raw values they are always refused.
        choice: which series of a study; by default each one of a request, and the only one of a folder.
        scope: what the model is for; selects the DICOM objects to read.

    Returns:
        At least one volume: for DICOM files of a request, one per series of images.

    Raises:
        UndecodableImage: broken bytes, an unreadable file, or none of `sample.formats`.
        UnsuitableImage: no pixels, nothing in the model's scope, a picture, a folder with several series, or sequences
            on different grids.
        PayloadTooLarge: more than the reader's limits.
    """
    source = sample.source
    if isinstance(source, Sequences):
        volumes = read_volume_channels(source, policy=policy, non_finite=non_finite, choice=choice)
        values = np.concatenate([volume.values for volume in volumes])
        first = volumes[0]
        display = _shared_display(volumes)
        has_geometry, findings = first.has_geometry, _all_findings(volumes)
        return [Volume(values, first.affine, display, first.modality, first.identity, has_geometry, findings)]
    if isinstance(source, np.ndarray):
        values = _checked(source, ("(W, H, D)", "(C, W, H, D)"), is_colour_kept=False)
        return [Volume(values, np.eye(4), has_geometry=False)]
    if isinstance(source, Instances):
        return _volumes_of_dicom(source.files, policy, choice, scope)
    kind = kind_of(source, sample.formats)
    if kind == DICOM_FORMAT:
        return _volumes_of_dicom(source if isinstance(source, Path) else (source,), policy, choice, scope)
    if kind == "picture":
        raise UnsuitableImage("this model takes volumes, not pictures; send DICOM, NIfTI, NRRD, MetaImage or npy")
    return [_read_volume(source, kind, non_finite)]


def read_frame_channels(sequences: Sequences) -> list[Frame]:
    """Read one frame per channel, all of the same size; raises as `read_frames_of`."""
    frames = [_only(read_frames_of(Sample(path)), "image") for path in _channels_of(sequences)]
    for number, frame in enumerate(frames[1:], start=2):
        if len(frame.values) != 1 or len(frames[0].values) != 1:
            raise UnsuitableImage("a sequence has several channels or colours; name one grey image per channel")
        first = frames[0].spacing_mm, frames[0].values.shape
        is_same = frame.values.shape == first[1] and (frame.spacing_mm is None) == (first[0] is None)
        if is_same and frame.spacing_mm is not None and first[0] is not None:
            shifts = (abs(a / b - 1) * n for a, b, n in zip(frame.spacing_mm, first[0], first[1][1:], strict=True))
            is_same = max(shifts) < SAME_GRID
        if not is_same:
            raise UnsuitableImage(f"sequence {number} differs from the first in size or spacing; resample it")
    return frames


def read_volume_channels(
    sequences: Sequences,
    *,
    policy: Policy = _POLICY,
    non_finite: "NonFinite" = "refuse",
    choice: Choice = OF_ONE,
) -> list[Volume]:
    """Read one volume per channel, all on the same voxel grid; arguments and errors as for `read_volumes_of`."""
    volumes = [
        _only(read_volumes_of(Sample(path), policy=policy, non_finite=non_finite, choice=choice), "volume")
        for path in _channels_of(sequences)
    ]
    for number, volume in enumerate(volumes[1:], start=2):
        if len(volume.values) != 1 or len(volumes[0].values) != 1:
            raise UnsuitableImage("a sequence has several channels; name one volume per channel")
        if not _is_same_grid(volume, volumes[0]):
            raise UnsuitableImage(
                f"sequence {number} lies on another voxel grid than the first; resample it to the first"
            )
    return volumes


def kind_of(source: Path | bytes, formats: tuple[str, ...] = ()) -> str:
    """Recognise a file, a folder or bytes: "DICOM", a name of `volume_files.VOLUME_FORMATS`, or "picture".

    Raises:
        UndecodableImage: it cannot be read, or is none of `formats`.
    """
    if isinstance(source, Path) and source.is_dir():
        return _allowed(DICOM_FORMAT, formats)
    head, name = read_head(source, _HEAD_BYTES), source.name if isinstance(source, Path) else ""
    if is_dicom_file(head):
        return _allowed(DICOM_FORMAT, formats)
    from sagemaker_monai.images.volume_files import HEAD_BYTES, volume_format_of

    # The name counts only for files without a mark, such as the .img of a pair.
    is_packed = is_archive(head) and not head.startswith(GZIP_MAGIC)
    if (volume_format := volume_format_of(head[:HEAD_BYTES], "" if is_packed else name)) is not None:
        return _allowed(volume_format, formats)
    return _allowed(DICOM_FORMAT if is_archive(head) else "picture", formats)


def is_dicom_sample(sample: Sample) -> bool:
    """Whether a sample is DICOM, by its first bytes; cheap enough to check every photograph.

    Raises:
        UndecodableImage: the file cannot be read.
    """
    source = sample.source
    if isinstance(source, Instances):
        return True
    if not isinstance(source, Path | bytes) or (sample.formats and DICOM_FORMAT not in sample.formats):
        return False
    return (isinstance(source, Path) and source.is_dir()) or is_dicom_file(read_head(source, 512))


def _allowed(kind: str, formats: tuple[str, ...]) -> str:
    is_allowed = any(name in PICTURE_FORMATS for name in formats) if kind == "picture" else kind in formats
    if formats and not is_allowed:
        raise UndecodableImage(f"not a sound image of the expected type ({', '.join(formats)})")
    return kind


def _read_volume(source: Path | bytes, kind: str, non_finite: "NonFinite" = "refuse") -> Volume:
    from sagemaker_monai.images.volume_files import read_volume_file

    return read_volume_file(source, (kind,), non_finite)


def frame_of_deep(picture: DeepPicture) -> Frame:
    """A picture of more than 8 bits as float32, unscaled: (1, W, H), or (3, W, H) if it has colours."""
    values = picture.values.astype(np.float32).transpose(2, 1, 0)
    if (values == values[:1]).all():
        values = values[:1]
    if picture.missing is None:
        return Frame(values, None, Display(is_inverted=picture.is_white_zero))
    present = values[:, ~picture.missing.T]
    nothing = float(np.nextafter(present.min(), np.float32(-np.inf))) if present.size else 0.0
    values = np.where(picture.missing.T, np.float32(nothing), values)
    return Frame(values, None, Display(is_inverted=picture.is_white_zero, padding=(nothing, nothing)))


def _frame_of_picture(sample: Sample) -> Frame:
    if (deep := decode_deep(sample)) is not None:
        return frame_of_deep(deep)
    rows = np.asarray(decode(sample, channels=3, min_size=None))  # (H, W, 3)
    values = rows.transpose(2, 1, 0)
    if (values[0] == values[1]).all() and (values[0] == values[2]).all():
        return Frame(values[:1].astype(np.float32), None)
    return Frame(values, None)


def _frame_of_volume(volume: Volume, *, is_bare: bool) -> Frame:
    values = volume.values
    if values.shape[3] == 1:
        spacing = np.linalg.norm(np.asarray(volume.affine, np.float64)[:3, :2], axis=0)
        spacing_mm = (float(spacing[0]), float(spacing[1])) if volume.has_geometry else None
        return Frame(values[..., 0], spacing_mm, volume.display, volume.modality, volume.identity, volume.findings)
    if is_bare and values.shape[0] == 1 and values.shape[1] <= MAX_CHANNELS:
        return Frame(values[0], None)  # for a 2-D model an array of three axes is (C, W, H)
    raise UnsuitableImage(f"this model takes single images, not a volume of {values.shape[3]} slices; send one slice")


def _frames_of_dicom(source: Path | Sequence[bytes | Held], scope: "Scope | None") -> Iterator[Frame]:
    from sagemaker_monai.images.dicom.study import read_study_frames

    return read_study_frames(source, scope)


def _volumes_of_dicom(
    source: Path | Sequence[bytes | Held], policy: Policy, choice: Choice, scope: "Scope | None"
) -> list[Volume]:
    from sagemaker_monai.images.dicom.study import read_study_volumes

    return read_study_volumes(source, policy, choice, scope)


def _channels_of(sequences: Sequences) -> Iterator[Path]:
    if not 1 <= len(sequences.channels) <= MAX_CHANNELS:
        raise UnsuitableImage(f"an image has 1 to {MAX_CHANNELS} channels, got {len(sequences.channels)} sequences")
    return iter(sequences.channels)


def _only(images: list[_Image], what: str) -> _Image:
    if len(images) != 1:
        raise UnsuitableImage(f"a sequence holds {len(images)} {what}s; name one {what} per channel")
    return images[0]


def _is_same_grid(volume: Volume, other: Volume) -> bool:
    if volume.values.shape != other.values.shape or volume.has_geometry != other.has_geometry:
        return False
    extents = np.array(volume.values.shape[1:]) - 1
    corners = np.array([[*(extents * corner), 1] for corner in np.ndindex(2, 2, 2)])  # (8, 4)
    first = np.einsum("ij,kj->ki", np.asarray(other.affine, np.float64), corners)
    second = np.einsum("ij,kj->ki", np.asarray(volume.affine, np.float64), corners)
    voxel_mm = np.linalg.norm(np.asarray(other.affine, np.float64)[:3, :3], axis=0).min()
    return bool(np.abs(first - second).max() <= SAME_GRID * voxel_mm)


def _shared_display(images: Sequence[Frame] | Sequence[Volume]) -> Display:
    """The header's display if all channels share it; windows of different sequences are ignored."""
    first = images[0].display
    return first if all(image.display is first for image in images) else Display()


def _all_findings(images: Sequence[Frame] | Sequence[Volume]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(code for image in images for code in image.findings))


def _checked(values: np.ndarray, shapes: tuple[str, str], *, is_colour_kept: bool) -> np.ndarray:
    axes = shapes[1].count(",") + 1
    if values.ndim == axes + 1 and values.shape[-1] == 1 and is_colour_kept:
        values = values[..., 0]  # a volume of one slice
    if values.ndim == axes - 1:
        values = values[np.newaxis]
    if values.ndim != axes or not 1 <= values.shape[0] <= MAX_CHANNELS:
        raise UnsuitableImage(
            f"raw values have the shape {values.shape}; send {' or '.join(shapes)} with 1 to {MAX_CHANNELS} channels"
        )
    if values.dtype.kind not in "buif":
        raise UnsuitableImage("raw values must be bool, integer or floating point")
    if 0 in values.shape:
        raise UnsuitableImage("the image has no pixels")
    check_voxels(*values.shape)
    expect(Expected(values.shape))
    if is_colour_kept and values.dtype == np.uint8 and len(values) == 3:
        return values
    spend_bytes(4 * values.size, f"{values.size} values of 4 bytes")
    with np.errstate(over="ignore"):
        numbers = values.astype(np.float32)
    if values.dtype.kind == "f" and not math.isfinite(float(np.sum(numbers, dtype=np.float64))):
        raise UnsuitableImage("raw values must be finite numbers that float32 can hold")
    return numbers
