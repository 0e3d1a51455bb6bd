"""NRRD: header and values in one file (.nrrd), or a header (.nhdr) that names files in its folder.

The header marks the channel axis, in this order: by `none` among the space directions; by a kind other than domain and
space; by a spacing of nan. Four axes without such a mark are refused: guessing could mistake slices for channels.
Directions count as geometry if `space` names the patient's axes (RAS, LAS, LPS); other spaces give a grid.

Source: https://teem.sourceforge.net/nrrd/format.html
"""

import math
import re
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np

from sagemaker_monai.errors import UndecodableImage, UnsuitableImage
from sagemaker_monai.images.formats.affines import MM_PER_UNIT, SIGNS, affine_of, grid, spacing_remarks
from sagemaker_monai.images.formats.inflate import Stream, opened
from sagemaker_monai.images.formats.pairs import data_files, read_data_files
from sagemaker_monai.images.formats.text_fields import Fields, is_number
from sagemaker_monai.images.formats.voxels import (
    NonFinite,
    Stored,
    channel_first,
    check_shape,
    expect_volume,
    read_values,
)
from sagemaker_monai.images.volumes import Volume
from sagemaker_monai.messages.remarks import Remark

MAX_HEADER_BYTES = 1 << 20

_MAGIC = re.compile(rb"NRRD000[1-6]")
_TYPES = {
    "i1": ("signed char", "int8", "int8_t"),
    "u1": ("uchar", "unsigned char", "uint8", "uint8_t"),
    "i2": ("short", "short int", "signed short", "signed short int", "int16", "int16_t"),
    "u2": ("ushort", "unsigned short", "unsigned short int", "uint16", "uint16_t"),
    "i4": ("int", "signed int", "int32", "int32_t"),
    "u4": ("uint", "unsigned int", "uint32", "uint32_t"),
    "i8": (
        *("longlong", "long long", "long long int", "signed long long", "signed long long int"),
        *("int64", "int64_t"),
    ),
    "u8": ("ulonglong", "unsigned long long", "unsigned long long int", "uint64", "uint64_t"),
    "f4": ("float",),
    "f8": ("double",),
}
DTYPES = {name: dtype for dtype, names in _TYPES.items() for name in names}
_PACKINGS = {"raw": "raw", "gzip": "gzip", "gz": "gzip", "bzip2": "bzip2", "bz2": "bzip2"}
_TEXTS = ("ascii", "text", "txt")
SPACES = {
    "right-anterior-superior": "RAS",
    "left-anterior-superior": "LAS",
    "left-posterior-superior": "LPS",
    **{name.lower(): name for name in SIGNS},
}
_SPATIAL_KINDS = ("domain", "space")
_SYNONYMS = {"datafile": "data file", "lineskip": "line skip", "byteskip": "byte skip", "centerings": "centers"}
_VECTOR = re.compile(r"none|\(([^()]*)\)", re.IGNORECASE)


@dataclass(frozen=True)
class _Header:
    """Fields by lower-case name, custom keys and values, file names after `data file: LIST`, and its length."""

    fields: Fields
    keys: list[tuple[str, str]]
    listed: list[str]
    size_bytes: int


def read_nrrd(source: Path | bytes, non_finite: NonFinite = "refuse") -> Volume:
    """Read a file, or the files that a detached header names.

    Raises:
        UndecodableImage: a broken header or geometry, truncated values, a missing data file.
        UnsuitableImage: blocks, other encodings or spaces, complex numbers, more axes, data files outside the folder,
            values that are not finite.
        PayloadTooLarge: more than the limits.
    """
    with opened(source) as (file, size):
        header = _parse(file.read(MAX_HEADER_BYTES))
        shape, channel_axis = _shape(header)
        affine, has_geometry = _geometry(header, shape, channel_axis)
        remarks = _remarks(header, affine, shape, channel_axis)
        stored = _stored(header, shape)
        packing = _packing(header)
        expect_volume(shape, channel_axis, affine if has_geometry else None)
        if "data file" not in header.fields:
            file.seek(header.size_bytes)
            stream = Stream(file, size - header.size_bytes, packing)
            values = read_values(stream, stored, non_finite)
            stream.finish()
    if "data file" in header.fields:
        values = _read_detached(source, header, stored, packing, non_finite)
    return Volume(channel_first(values, channel_axis), affine, has_geometry=has_geometry, remarks=remarks)


def read_nrrd_keys(source: Path | bytes) -> list[tuple[str, str]]:
    """The custom keys of a header with their values, in the file's order; raises UndecodableImage."""
    with opened(source) as (file, _):
        return _parse(file.read(MAX_HEADER_BYTES)).keys


def _parse(head: bytes) -> _Header:
    """Parse the header up to the empty line or, in a detached header, to the end."""
    if not _MAGIC.match(head):
        raise UndecodableImage("not an NRRD file of version 1 to 6")
    ending = re.search(rb"\r?\n\r?\n", head)
    if ending is None and len(head) == MAX_HEADER_BYTES:
        raise UndecodableImage(f"the NRRD header has no end within {MAX_HEADER_BYTES} bytes")
    fields = Fields("NRRD")
    listed: list[str] = []
    keys: list[tuple[str, str]] = []
    lines = head[: ending.start() if ending else len(head)].decode("utf-8", "replace").splitlines()
    for line in lines[1:]:
        if fields.get("data file", "").startswith("LIST"):
            listed.append(line.strip())
        elif not line.startswith("#") and ":=" in line:
            key, _, value = line.partition(":=")
            keys.append((key, value))
        elif not line.startswith("#"):
            name, colon, value = line.partition(":")
            name = " ".join(name.lower().split())
            name = _SYNONYMS.get(name, name)
            if not colon or name in fields:
                raise UndecodableImage("the NRRD header has an invalid line, or a field twice")
            fields[name] = value.strip()
    return _Header(fields, keys, listed, ending.end() if ending else len(head))


def _axes_without_space(header: _Header, rank: int) -> list[int]:
    """The channel axes by the header."""
    fields = header.fields
    kinds = fields["kinds"].lower().split() if "kinds" in fields else []
    if kinds and len(kinds) != rank:
        raise UndecodableImage("the NRRD field `kinds` must have a word for each axis")
    if "complex" in kinds:
        raise UnsuitableImage("the NRRD file holds complex numbers; send integers or floating point")
    if "space directions" in fields:
        vectors = _vectors(fields["space directions"])
        if len(vectors) != rank:
            raise UndecodableImage("the NRRD field `space directions` must have a vector for each axis")
        return [axis for axis, vector in enumerate(vectors) if vector is None]
    if kinds and not {"???", "none"} & set(kinds):
        return [axis for axis, kind in enumerate(kinds) if kind not in _SPATIAL_KINDS]
    if "spacings" in fields:
        return [axis for axis, size in enumerate(fields.numbers("spacings", rank)) if math.isnan(size)]
    return []


def _shape(header: _Header) -> tuple[tuple[int, ...], int | None]:
    """Sizes by axis, and the channel axis or None."""
    rank = header.fields.whole("dimension")
    if not 1 <= rank <= 16:
        raise UndecodableImage(f"the NRRD header claims {rank} axes; 1 to 16 are possible")
    shape = header.fields.sizes("sizes", rank)
    channels = _axes_without_space(header, rank)
    if len(channels) > 1 or not 2 <= rank - len(channels) <= 3:
        raise UnsuitableImage(
            "the NRRD file must have 2 or 3 axes in space and at most one of channels; say in `kinds` or "
            "`space directions` which axis holds channels"
        )
    check_shape(shape, channels=shape[channels[0]] if channels else 1)
    return shape, channels[0] if channels else None


def _stored(header: _Header, shape: tuple[int, ...]) -> Stored:
    name = " ".join(header.fields.get("type", "").lower().split())
    if name == "block":
        raise UnsuitableImage("the NRRD file holds blocks of bytes; send integers or floating point")
    if name not in DTYPES:
        raise UndecodableImage("the NRRD header has no known type")
    dtype = np.dtype(DTYPES[name])
    is_text = header.fields.get("encoding", "").lower() in _TEXTS
    if dtype.itemsize > 1 and not is_text:
        endian = header.fields.get("endian", "").lower()
        if endian not in ("little", "big"):
            raise UndecodableImage("the NRRD header must have `endian: little` or `endian: big`")
        dtype = dtype.newbyteorder("<" if endian == "little" else ">")
    return Stored(dtype, shape, is_text=is_text)


def _packing(header: _Header) -> str:
    encoding = header.fields.get("encoding", "").lower()
    if encoding in _TEXTS:
        return "raw"
    if encoding not in _PACKINGS:
        raise UnsuitableImage("the NRRD file's encoding is not accepted; write raw, gzip, bzip2 or ascii")
    return _PACKINGS[encoding]


def _vectors(text: str) -> list[list[float] | None]:
    """Vectors in parentheses, None for `none`."""
    vectors: list[list[float] | None] = []
    if _VECTOR.sub("", text).strip():
        raise UndecodableImage("the NRRD header has a malformed vector")
    for match in _VECTOR.finditer(text):
        words = None if match[1] is None else [word.strip() for word in match[1].split(",")]
        if words is not None and not all(map(is_number, words)):
            raise UndecodableImage("the NRRD header has a malformed vector")
        vectors.append(None if words is None else [float(word) for word in words])
    return vectors


@np.errstate(over="ignore", invalid="ignore")  # what overflows is refused by `affine_of`
def _geometry(header: _Header, shape: tuple[int, ...], channel_axis: int | None) -> tuple[np.ndarray, bool]:
    fields = header.fields
    spatial = [axis for axis in range(len(shape)) if axis != channel_axis]
    if "space directions" not in fields:
        spacings = fields.numbers("spacings", len(shape)) if "spacings" in fields else [1.0] * len(shape)
        return grid([spacings[axis] for axis in spatial]), False
    vectors = _vectors(fields["space directions"])
    columns = [vector for vector in vectors if vector is not None]
    origin = next(iter(_vectors(fields.get("space origin", ""))), None)
    length = len(columns[0]) if columns else 0
    if any(len(vector) != length for vector in columns):
        raise UndecodableImage("the NRRD field `space directions` must have vectors of one length")
    if origin is not None and len(origin) != length:
        raise UndecodableImage("the NRRD field `space origin` must be a vector as long as the directions")
    scale = _mm_per_unit(fields.get("space units", ""))
    name = SPACES.get(fields.get("space", "").lower())
    if length != 3 or name is None:
        if length > 3:
            raise UnsuitableImage("the NRRD file's space has more than three axes; send one image in space")
        return grid([math.hypot(*column) * scale for column in columns]), False
    signs = np.array(SIGNS[name]) * scale
    directions = np.zeros((3, 3))
    directions[:, : len(columns)] = np.array(columns).T * signs[:, np.newaxis]
    sizes = [*(shape[axis] for axis in spatial), 1][:3]
    return affine_of(directions, np.array(origin or (0.0, 0.0, 0.0)) * signs, sizes), True


def _remarks(
    header: _Header, affine: np.ndarray, shape: tuple[int, ...], channel_axis: int | None
) -> tuple[Remark, ...]:
    """Directions include the spacing; `spacings` beside them violates the format and may contradict them."""
    if not {"space directions", "spacings"} <= set(header.fields):
        return ()
    scale = _mm_per_unit(header.fields.get("space units", ""))
    sizes = header.fields.numbers("spacings", len(shape))
    given = [size * scale for axis, size in enumerate(sizes) if axis != channel_axis]
    return spacing_remarks(affine, given, [size for axis, size in enumerate(shape) if axis != channel_axis])


def _mm_per_unit(text: str) -> float:
    units = {MM_PER_UNIT.get(unit, 1.0) for unit in re.findall(r'"([^"]*)"', text)}
    if len(units) > 1:
        raise UndecodableImage("the NRRD header has several units of length; write millimetres")
    return units.pop() if units else 1.0


def _read_detached(
    source: Path | bytes, header: _Header, stored: Stored, packing: str, non_finite: NonFinite
) -> np.ndarray:
    name = header.fields["data file"]
    if not header.listed and re.search(r"%0?\d*d", name):
        raise UnsuitableImage("the NRRD header names its files by a pattern; write `data file: LIST` or one file")
    line_skip, byte_skip = header.fields.whole("line skip", "0"), header.fields.whole("byte skip", "0")
    if line_skip < 0 or byte_skip < -1 or (byte_skip == -1 and packing != "raw"):
        raise UndecodableImage("the NRRD fields `line skip` and `byte skip` must not be negative")

    def start(file: BinaryIO, size: int, values_bytes: int) -> Stream:
        for _ in range(min(line_skip, MAX_HEADER_BYTES)):
            file.readline(MAX_HEADER_BYTES)
        if byte_skip == -1:
            file.seek(max(size - values_bytes, 0))
        stream = Stream(file, size - file.tell(), packing)
        stream.skip(max(byte_skip, 0))
        return stream

    is_listed = name.split()[:1] == ["LIST"]
    return read_data_files(data_files(source, header.listed if is_listed else [name]), stored, non_finite, start)
