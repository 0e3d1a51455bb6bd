"""NIfTI-1 and NIfTI-2: one file (.nii), gzipped (.nii.gz), or a pair of header and image (.hdr, .img).

Geometry is chosen as in nibabel and MONAI:

- the sform if sform_code > 0, even if the qform differs: it can hold registrations and shears, and programs that write
  it keep it current;
- otherwise, or if the sform is invalid (rows of zeros, axes in one plane, not finite), the qform if qform_code > 0; any
  qfac but -1 counts as 1, negative pixdim count as positive;
- otherwise the file has no geometry: pixdim give the grid, and the volume says so.

A remark names ignored and contradicting transforms. A file that claims transforms of which none is valid is refused.

Lengths are in the unit of xyzt_units, or mm if it is unknown. The fourth axis, or the fifth if the fourth is 1, holds
channels; sizes that look as if channels came first or slices last are refused as unclear. A slope that is 0 or not
finite means no scaling. Header extensions are ignored.

nibabel computes the geometry. It does not read the values, because it has no limits.
"""

import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from nibabel.nifti1 import Nifti1Header
from nibabel.nifti2 import Nifti2Header
from nibabel.spatialimages import HeaderDataError

from sagemaker_monai.errors import CallerError, UndecodableImage, UnsuitableImage
from sagemaker_monai.images.formats.affines import affine_of, grid, sizes_of, spacing_remarks
from sagemaker_monai.images.formats.inflate import Stream, gunzipping, opened
from sagemaker_monai.images.formats.pairs import image_of
from sagemaker_monai.images.formats.voxels import (
    NonFinite,
    Stored,
    channel_first,
    check_order,
    check_shape,
    dtype_of,
    expect_volume,
    read_values,
)
from sagemaker_monai.images.volumes import Volume
from sagemaker_monai.messages.remarks import Remark, remark

SAME_PLACE = 0.5  # of a voxel: allowed distance of transforms at a corner, for rounding of float32 and quaternions
_TIME_UNITS = 0x38  # of xyzt_units: the fourth axis is time or frequency
MAX_HEADER_BYTES = 16 << 20  # before the values: the header and its extensions

# By sizeof_hdr: header class, position of the magic, and its values for one file and for a pair.
_VERSIONS: dict[int, tuple[Any, slice, bytes, bytes]] = {  # nibabel's classes are not typed
    348: (Nifti1Header, slice(344, 348), b"n+1\0", b"ni1\0"),
    540: (Nifti2Header, slice(4, 12), b"n+2\0\r\n\x1a\n", b"ni2\0\r\n\x1a\n"),
}
_TYPES = {2: "u1", 4: "i2", 8: "i4", 16: "f4", 64: "f8", 256: "i1", 512: "u2", 768: "u4", 1024: "i8", 1280: "u8"}
_MM_PER_UNIT = {1: 1e3, 2: 1.0, 3: 1e-3}  # the three lowest bits of xyzt_units: m, mm, micron


@dataclass(frozen=True)
class _Header:
    """A checked header: `channel_axis` is the channel axis of `stored.shape`, or None."""

    stored: Stored
    channel_axis: int | None
    affine: np.ndarray
    has_geometry: bool
    remarks: tuple[Remark, ...]
    is_pair: bool
    offset_bytes: int
    size_bytes: int


def read_nifti(source: Path | bytes, non_finite: NonFinite = "refuse") -> Volume:
    """Read a file, or the header of a pair and the image beside it.

    Raises:
        UndecodableImage: a broken header or geometry, truncated values, a missing image of a pair.
        UnsuitableImage: colours, complex numbers, a time series, more axes, values that are not finite.
        PayloadTooLarge: more than the limits.
    """
    with opened(source) as (file, size):
        stream = gunzipping(file, size)
        header = _read_header(stream)
        if not header.is_pair:
            return _read_image(stream, header, header.offset_bytes - header.size_bytes, non_finite)
    if isinstance(source, bytes):
        raise UnsuitableImage("the header of a pair (.hdr) without its image (.img); send one .nii or .nii.gz")
    image, packing = image_of(source)
    with opened(image) as (file, size):
        return _read_image(Stream(file, size, packing), header, header.offset_bytes, non_finite)


def header_remarks(path: Path) -> tuple[Remark, ...]:
    """Remarks on the geometry by a file's header alone; none for refused files and other formats."""
    try:
        with opened(path) as (file, size):
            return _read_header(gunzipping(file, size)).remarks
    except CallerError:
        return ()


def _read_image(stream: Stream, header: _Header, skip_bytes: int, non_finite: NonFinite) -> Volume:
    stream.skip(skip_bytes)
    expect_volume(header.stored.shape, header.channel_axis, header.affine if header.has_geometry else None)
    values = read_values(stream, header.stored, non_finite)
    stream.finish()
    voxels = channel_first(values, header.channel_axis)
    return Volume(
        voxels,
        header.affine,
        has_geometry=header.has_geometry,
        remarks=header.remarks,
        is_scaled=header.stored.is_scaled,
    )


def _read_header(stream: Stream) -> _Header:
    start = stream.take(4)
    order = next((order for order in "<>" if start in (struct.pack(f"{order}i", size) for size in _VERSIONS)), None)
    if order is None:
        raise UndecodableImage("not a NIfTI file: the header's length is neither 348 nor 540")
    [size] = struct.unpack(f"{order}i", start)
    header_class, place, magic, pair_magic = _VERSIONS[size]
    block = start + stream.take(size - 4)
    if len(block) < size:
        raise UndecodableImage("the NIfTI header is cut off")
    if block[place] not in (magic, pair_magic):
        raise UndecodableImage("not a NIfTI file: its magic number is missing")
    header = header_class(block, endianness=order, check=False)
    is_pair = block[place] == pair_magic
    shape, channel_axis = _shape(header)
    spatial = [count for axis, count in enumerate(shape) if axis != channel_axis]
    affine, has_geometry, remarks = _geometry(header, [*spatial, 1, 1][:3])
    return _Header(
        stored=_stored(header, shape),
        channel_axis=channel_axis,
        affine=affine,
        has_geometry=has_geometry,
        remarks=remarks,
        is_pair=is_pair,
        offset_bytes=_offset(header, 0 if is_pair else size),
        size_bytes=size,
    )


def _shape(header: Any) -> tuple[tuple[int, ...], int | None]:
    """Sizes of (W, H), (W, H, D) or (W, H, D, C), and the axis of C."""
    rank, *sizes = (int(size) for size in header["dim"])
    if not 1 <= rank <= 7:
        raise UndecodableImage(f"the NIfTI header claims {rank} axes; 1 to 7 are possible")
    sizes = sizes[:rank]
    check_shape(sizes)
    if rank < 2:
        raise UnsuitableImage("the NIfTI file has one axis; an image has 2 or 3, and one for channels")
    spatial, further = sizes[:3], [size for size in sizes[3:] if size > 1]
    if any(size > 1 for size in sizes[5:]) or len(further) > 1:
        raise UnsuitableImage("the NIfTI file has more axes than space and channels; send one image")
    if not further:
        return tuple(spatial), None
    if rank > 3 and sizes[3] > 1:
        is_told = bool(int(header["xyzt_units"]) & _TIME_UNITS or int(header["intent_code"]))
        check_order(sizes[:4], is_told=is_told)
    check_shape([*spatial, *further], channels=further[0])
    return (*spatial, *further), 3


def _stored(header: Any, shape: tuple[int, ...]) -> Stored:
    dtype = dtype_of(header, _TYPES, "NIfTI")
    slope, intercept = float(header["scl_slope"]), float(header["scl_inter"])
    if not np.isfinite(slope) or slope == 0:
        return Stored(dtype, shape)
    if not np.isfinite(intercept):
        raise UndecodableImage("the NIfTI header's scl_inter is not finite; write 0")
    return Stored(dtype, shape, slope, intercept)


def _offset(header: Any, size: int) -> int:
    """Bytes before the values; a single file has the header and the four bytes that announce extensions there."""
    offset = float(header["vox_offset"])
    least = size + 4 if size else 0
    if not np.isfinite(offset) or offset != int(offset) or not least <= offset <= MAX_HEADER_BYTES:
        raise UndecodableImage(f"the NIfTI header's vox_offset must be whole, {least} to {MAX_HEADER_BYTES}")
    return int(offset)


@np.errstate(over="ignore", invalid="ignore")  # what overflows is refused by `affine_of`
def _geometry(header: Any, shape: list[int]) -> tuple[np.ndarray, bool, tuple[Remark, ...]]:
    """The affine, whether it is geometry of the patient, and remarks.

    Raises:
        UndecodableImage: the header claims transforms of which none is valid.
    """
    scale = _MM_PER_UNIT.get(int(header["xyzt_units"]) & 7, 1.0)
    pixdim = np.abs(np.asarray(header["pixdim"][1:4], np.float64))
    sound: dict[str, np.ndarray] = {}
    faults: dict[str, UndecodableImage] = {}
    for name in ("sform", "qform"):
        if int(header[f"{name}_code"]) > 0:
            try:
                sound[name] = _transform(header, name, pixdim, shape, scale)
            except UndecodableImage as error:
                faults[name] = error
    if not sound:
        for name, fault in faults.items():
            raise UndecodableImage(f"the NIfTI header's {name} is invalid: {fault}") from fault
        return grid([float(size) * scale for size in pixdim]), False, ()
    name, affine = next(iter(sound.items()))
    remarks = [remark("useless_transform", useless=other, used=name) for other in faults]
    other = sound.get("qform", affine)
    spacing = np.linalg.norm(affine[:3, :3], axis=0)
    if np.abs(_corners(affine, shape) - _corners(other, shape)).max() > SAME_PLACE * spacing.min():
        remarks.append(remark("contradicting_transforms", sform=_shown(affine), qform=_shown(other)))
    if name == "sform":
        remarks += spacing_remarks(affine, [float(size) * scale for size in pixdim], shape)
    return affine, True, tuple(remarks)


def _transform(header: Any, name: str, pixdim: np.ndarray, shape: list[int], scale: float) -> np.ndarray:
    if name == "sform":
        matrix = np.asarray(header.get_sform(), np.float64)
    else:
        matrix = _qform(header, np.where((pixdim == 0) & (np.array(shape) == 1), 1.0, pixdim))
    return affine_of(matrix[:3, :3] * scale, matrix[:3, 3] * scale, shape)


def _corners(affine: np.ndarray, shape: list[int]) -> np.ndarray:
    """Positions of the corner voxels, (8, 3) mm."""
    ends = np.array([[place * (size - 1) for place, size in zip(corner, shape, strict=True)]
                     for corner in np.ndindex(2, 2, 2)])  # fmt: skip
    corners: np.ndarray = ends @ affine[:3, :3].T + affine[:3, 3]
    return corners


def _shown(affine: np.ndarray) -> str:
    """Spacing, directions and position of the first voxel, for a remark."""
    place = ", ".join(f"{mm:.4g}" for mm in affine[:3, 3])
    directions = affine[:3, :3] / np.linalg.norm(affine[:3, :3], axis=0)
    axes = " ".join("/".join(f"{part:.2g}" for part in column) for column in directions.T)
    return f"{sizes_of(np.linalg.norm(affine[:3, :3], axis=0))} mm along {axes} from ({place})"


def _qform(header: Any, pixdim: np.ndarray) -> np.ndarray:
    header = header.copy()
    header["pixdim"][0] = -1 if header["pixdim"][0] < 0 else 1  # as nifti1_io.c; nibabel would refuse others
    header["pixdim"][1:4] = pixdim
    if not np.isfinite([header[f"quatern_{name}"] for name in "bcd"]).all():
        raise UndecodableImage("the NIfTI header's quaternion is not finite; write a sound qform or none")
    try:
        return np.asarray(header.get_qform(), np.float64)
    except (HeaderDataError, ValueError) as error:
        raise UndecodableImage("the NIfTI header's quaternion is invalid; write a sound qform or none") from error
