"""MetaImage: header and values in one file (.mha), or a header (.mhd) that names a file in its folder.

Coordinates are ITK's: left, posterior, superior. `TransformMatrix` lists the direction of each axis in turn.
`CenterOfRotation` belongs to a transform, not to the grid: as in ITK, it does not move the image. 2-D images, and those
without `TransformMatrix` and `Offset`, have no position in the patient. The fourth axis holds channels.

Source: https://itk.org/Wiki/ITK/MetaIO/Documentation
"""

from pathlib import Path
from typing import BinaryIO

import numpy as np

from sagemaker_monai.errors import UndecodableImage, UnsuitableImage
from sagemaker_monai.images.formats.affines import MM_PER_UNIT, SIGNS, affine_of, grid
from sagemaker_monai.images.formats.inflate import Stream, opened
from sagemaker_monai.images.formats.pairs import data_files, read_data_files
from sagemaker_monai.images.formats.text_fields import Fields
from sagemaker_monai.images.formats.voxels import (
    NonFinite,
    Stored,
    channel_first,
    check_order,
    check_shape,
    expect_volume,
    read_values,
)
from sagemaker_monai.images.volumes import Volume

MAX_HEADER_BYTES = 1 << 20

# MET_LONG has 4 bytes in every file, whatever the size of a long on the machine.
TYPES = {
    "MET_CHAR": "i1",
    "MET_UCHAR": "u1",
    "MET_SHORT": "i2",
    "MET_USHORT": "u2",
    "MET_INT": "i4",
    "MET_UINT": "u4",
    "MET_LONG": "i4",
    "MET_ULONG": "u4",
    "MET_LONG_LONG": "i8",
    "MET_ULONG_LONG": "u8",
    "MET_FLOAT": "f4",
    "MET_DOUBLE": "f8",
}
# Keys with the same meaning; the first that occurs counts.
_MATRIX = ("TransformMatrix", "Orientation", "Rotation")
_OFFSET = ("Offset", "Position", "Origin")
_SPACING = ("ElementSpacing", "ElementSize")
_BIG_ENDIAN = ("BinaryDataByteOrderMSB", "ElementByteOrderMSB")
_TRUTHS = {"true": True, "t": True, "1": True, "false": False, "f": False, "0": False}


def read_metaimage(source: Path | bytes, non_finite: NonFinite = "refuse") -> Volume:
    """Read a file, or the files that a header names.

    Raises:
        UndecodableImage: a broken header or geometry, truncated values, a missing data file.
        UnsuitableImage: other types, more axes, rescaled values, data files outside the folder or named by a pattern,
            values that are not finite.
        PayloadTooLarge: more than the limits.
    """
    with opened(source) as (file, size):
        fields, listed, header_bytes = _parse(file.read(MAX_HEADER_BYTES))
        shape, channel_axis = _shape(fields)
        affine, has_geometry = _geometry(fields, shape, channel_axis)
        stored = _stored(fields, shape)
        expect_volume(shape, channel_axis, affine if has_geometry else None)
        packing = "zlib" if _truth(fields, ("CompressedData",)) else "raw"
        if (place := fields["ElementDataFile"]) == "LOCAL":
            file.seek(header_bytes)
            stream = Stream(file, size - header_bytes, packing)
            values = read_values(stream, stored, non_finite)
            stream.finish()
    if place != "LOCAL":
        values = _read_detached(source, fields, listed, stored, packing, non_finite)
    return Volume(channel_first(values, channel_axis), affine, has_geometry=has_geometry)


def _parse(head: bytes) -> tuple[Fields, list[str], int]:
    """The fields, file names after `ElementDataFile = LIST`, and the length of the header with its last line."""
    fields = Fields("MetaImage")
    position = 0
    while "ElementDataFile" not in fields:
        end = head.find(b"\n", position)
        line = head[position : end if end >= 0 else len(head)]
        name, equals, value = line.decode("utf-8", "replace").partition("=")
        if not equals or (name := name.strip()) in fields:
            if not line.strip() and end >= 0:
                position = end + 1
                continue
            raise UndecodableImage("the MetaImage header has an invalid line, a field twice, or no end")
        fields[name] = value.strip()
        position = end + 1 if end >= 0 else len(head)
    is_listed = fields["ElementDataFile"].split()[:1] == ["LIST"]
    listed = head[position:].decode("utf-8", "replace").split("\n") if is_listed else []
    if is_listed and len(head) == MAX_HEADER_BYTES:
        raise UndecodableImage(f"the MetaImage header has no end within {MAX_HEADER_BYTES} bytes")
    return fields, [name.strip() for name in listed if name.strip()], position


def _numbers(fields: Fields, names: tuple[str, ...], count: int) -> list[float] | None:
    """The numbers of the first of these fields that exists, exactly `count`; None without one."""
    name = next((name for name in names if name in fields), None)
    return None if name is None else fields.numbers(name, count)


def _truth(fields: dict[str, str], names: tuple[str, ...]) -> bool:
    text = next((fields[name] for name in names if name in fields), "False")
    if text.lower() not in _TRUTHS:
        raise UndecodableImage(f"the MetaImage field {names[0]} must be True or False")
    return _TRUTHS[text.lower()]


def _shape(fields: Fields) -> tuple[tuple[int, ...], int | None]:
    """Sizes, fastest axis first, and the channel axis or None."""
    if fields.get("ObjectType", "Image") != "Image":
        raise UnsuitableImage("the MetaImage file does not hold an image; send one")
    rank = fields.whole("NDims")
    if rank not in (2, 3, 4):
        raise UnsuitableImage(f"the MetaImage file has {rank} axes; send 2 or 3, or 4 with channels last")
    sizes = fields.sizes("DimSize", rank)
    channels = fields.whole("ElementNumberOfChannels", "1")
    check_shape((channels, *sizes), channels=channels)
    if channels > 1:
        if rank == 4 and sizes[3] > 1:
            raise UnsuitableImage("the MetaImage file has both channels and a fourth axis; send one image")
        return (channels, *sizes[:3]), 0
    if rank == 4:
        check_order(sizes)
        check_shape(sizes, channels=sizes[3])
    return sizes, 3 if rank == 4 else None


def _stored(fields: Fields, shape: tuple[int, ...]) -> Stored:
    name = fields.get("ElementType", "")
    if name not in TYPES:
        raise UnsuitableImage("the MetaImage file has no plain ElementType; send integers or floating point")
    for key, plain in (("ElementToIntensityFunctionSlope", 1.0), ("ElementToIntensityFunctionOffset", 0.0)):
        # Programs disagree on whether to apply these on reading; ITK does not.
        if _numbers(fields, (key,), 1) not in (None, [plain]):
            raise UnsuitableImage("the MetaImage header rescales its values; write the values themselves")
    is_text = not _truth({"BinaryData": "True", **fields}, ("BinaryData",))
    dtype = np.dtype(TYPES[name]).newbyteorder(">" if _truth(fields, _BIG_ENDIAN) else "<")
    return Stored(dtype, shape, is_text=is_text)


@np.errstate(over="ignore", invalid="ignore")  # what overflows is refused by `affine_of`
def _geometry(fields: Fields, shape: tuple[int, ...], channel_axis: int | None) -> tuple[np.ndarray, bool]:
    rank = fields.whole("NDims")
    scale = MM_PER_UNIT.get(fields.get("DistanceUnits", "mm").lower(), 1.0)
    spacing = np.array(_numbers(fields, _SPACING, rank) or [1.0] * rank)
    matrix, offset = _numbers(fields, _MATRIX, rank * rank), _numbers(fields, _OFFSET, rank)
    if rank == 2 or (matrix is None and offset is None):
        return grid(list(spacing[:3] * scale)), False
    directions = np.eye(rank) if matrix is None else np.array(matrix).reshape(rank, rank).T
    signs = np.array(SIGNS["LPS"]) * scale
    columns = directions[:3, :3] * spacing[:3] * signs[:, np.newaxis]
    sizes = [size for axis, size in enumerate(shape) if axis != channel_axis]
    return affine_of(columns, np.array(offset or [0.0] * rank)[:3] * signs, sizes), True


def _read_detached(
    source: Path | bytes, fields: Fields, listed: list[str], stored: Stored, packing: str, non_finite: NonFinite
) -> np.ndarray:
    words = fields["ElementDataFile"].split()
    if "%" in fields["ElementDataFile"]:
        raise UnsuitableImage("the MetaImage header names its files by a pattern; write one file")
    header_bytes = fields.whole("HeaderSize", "0")
    if header_bytes < -1 or (header_bytes == -1 and packing != "raw"):
        raise UndecodableImage("the MetaImage field HeaderSize must not be negative, or -1 for raw values")

    def start(file: BinaryIO, size: int, values_bytes: int) -> Stream:
        file.seek(max(size - values_bytes, 0) if header_bytes == -1 else min(header_bytes, size))
        return Stream(file, size - file.tell(), packing)

    names = listed if words[:1] == ["LIST"] else [fields["ElementDataFile"]]
    return read_data_files(data_files(source, names), stored, non_finite, start)
