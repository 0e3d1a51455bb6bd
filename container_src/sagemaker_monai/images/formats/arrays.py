"""NumPy files: the header of an .npy, parsed without evaluating it, and volumes in .npy and .npz.

A volume is (W, H, D), (C, W, H, D) or, for one slice, (W, H): MONAI's order. An .npy has no geometry; an .npz may have
an array `affine` (4, 4; RAS, mm) or `spacing` (three numbers, mm) beside the image, which is the array `image` or the
only other one.
"""

import io
import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Literal

import numpy as np

from sagemaker_monai.errors import PayloadTooLarge, UndecodableImage, UnsuitableImage
from sagemaker_monai.images.expected import Expected, expect
from sagemaker_monai.images.formats.affines import affine_of, grid
from sagemaker_monai.images.formats.inflate import Stream, most_bytes, opened
from sagemaker_monai.images.formats.voxels import NonFinite, Stored, check_shape, read_values
from sagemaker_monai.images.signatures import NPY_MAGIC
from sagemaker_monai.images.volumes import Volume, check_voxels
from sagemaker_monai.storage.zips import (
    ArchiveLimits,
    ArchiveTooLargeError,
    UnsafeArchiveError,
    copy_member,
    member_names,
)

MAX_NPY_HEADER_BYTES = 1_024  # NumPy writes 118 for plain numbers
_HEAD_BYTES = 12 + MAX_NPY_HEADER_BYTES  # magic, version, length, header

_LENGTH_BYTES = {b"\x01\x00": 2, b"\x02\x00": 4, b"\x03\x00": 4}  # by format version; numpy.lib.format
_ENTRY = r"'(descr|fortran_order|shape)'\s*:\s*('[^'\\\n]*'|True|False|\([0-9,\s]*\))\s*"
_HEADER = re.compile(rf"\{{\s*{_ENTRY},\s*{_ENTRY},\s*{_ENTRY},?\s*\}}\s*", re.ASCII)
_DTYPES = re.compile(r"[|<>](b1|[iu][1248]|f[248])", re.ASCII)
_SHAPE = re.compile(r"\(\s*(\d{1,9}\s*(,\s*\d{1,9}\s*)*,?\s*)?\)", re.ASCII)
_MAX_MEMBERS = 64  # of an .npz
_DEFLATE_RATIO = 1_032  # the maximum for a member: the effective limit is that of the whole archive
_GEOMETRY = {"affine": (4, 4), "spacing": (3,)}


@dataclass(frozen=True)
class NpyHeader:
    """The header of an .npy file; the values start at byte `offset`."""

    dtype: np.dtype
    shape: tuple[int, ...]
    order: Literal["C", "F"]
    offset: int


def parse_npy_header(head: bytes) -> NpyHeader:
    """Parse the header; nothing is evaluated or unpickled.

    Args:
        head: the file, or at least its first 12 + MAX_NPY_HEADER_BYTES bytes.

    Raises:
        UndecodableImage: not an npy file, or a malformed header.
        UnsuitableImage: the type is not bool, integer or floating point.
    """
    length_bytes = _LENGTH_BYTES.get(head[6:8]) if head.startswith(NPY_MAGIC) else None
    if length_bytes is None:
        raise UndecodableImage("not an npy file of format version 1, 2 or 3")
    start = 8 + length_bytes
    end = start + int.from_bytes(head[8:start], "little")
    if end - start > MAX_NPY_HEADER_BYTES or end > len(head):
        raise UndecodableImage("the npy header is too long or cut off")
    match = _HEADER.fullmatch(head[start:end].decode("latin-1"))
    entries = {match[i]: match[i + 1] for i in (1, 3, 5)} if match is not None else {}
    if len(entries) != 3 or entries["fortran_order"] not in ("True", "False"):
        if b"[" in head[start:end]:
            raise UnsuitableImage("raw values must be plain numbers; structured types are not accepted")
        raise UndecodableImage("the npy header is malformed")
    dtype_name = entries["descr"].strip("'")
    if not _DTYPES.fullmatch(dtype_name):
        raise UnsuitableImage("raw values must be bool, integer or floating point; objects are not accepted")
    if not _SHAPE.fullmatch(entries["shape"]):
        raise UndecodableImage("the npy header has a malformed shape")
    shape = tuple(int(size) for size in re.findall(r"\d+", entries["shape"]))
    return NpyHeader(np.dtype(dtype_name), shape, "F" if entries["fortran_order"] == "True" else "C", end)


def read_npy_volume(source: Path | bytes, non_finite: NonFinite = "refuse") -> Volume:
    """Read an .npy file; the affine is a meaningless identity.

    Raises:
        UndecodableImage: not an npy file, or values that do not fill the shape exactly.
        UnsuitableImage: objects, another number of axes, too many channels, values that are not finite.
        PayloadTooLarge: more than the limits.
    """
    return Volume(_read_array(source, non_finite), np.eye(4), has_geometry=False)


def _read_array(
    source: Path | bytes,
    non_finite: NonFinite,
    place: Callable[[Sequence[int]], np.ndarray | None] = lambda _extents: None,
) -> np.ndarray:
    """The values (C, W, H, D); `place` gives the affine of their extents, where there is one."""
    with opened(source) as (file, size):
        header = parse_npy_header(file.read(_HEAD_BYTES))
        shape = header.shape
        if len(shape) not in (2, 3, 4):
            raise UnsuitableImage(f"the array has {len(shape)} axes; send (W, H, D), (C, W, H, D) or (W, H)")
        check_shape(shape, channels=shape[0] if len(shape) == 4 else 1)
        if size - header.offset != math.prod(shape) * header.dtype.itemsize:
            raise UndecodableImage("the npy values do not fill the shape exactly")
        full = {2: (1, *shape, 1), 3: (1, *shape), 4: shape}[len(shape)]
        expect(Expected(full, place(full[1:])))
        file.seek(header.offset)
        fastest_first = shape if header.order == "F" else shape[::-1]
        values = read_values(Stream(file, size - header.offset), Stored(header.dtype, fastest_first), non_finite)
    values = values if header.order == "F" else values.transpose()
    return values.reshape(full, order=header.order)


def read_npz_volume(source: Path | bytes, non_finite: NonFinite = "refuse") -> Volume:
    """Read an .npz archive with one image, and its geometry if it has any.

    Raises:
        UndecodableImage: a damaged or unsafe archive, an array that `read_npy_volume` cannot read, or an invalid affine
            or spacing.
        UnsuitableImage: no image, or several of which none is named `image`; and as `read_npy_volume`.
        PayloadTooLarge: more arrays or bytes than the limits.
    """
    with opened(source) as (file, size):
        total_bytes = most_bytes(size)
        limits = ArchiveLimits(_MAX_MEMBERS, member_bytes=total_bytes, total_bytes=total_bytes, ratio=_DEFLATE_RATIO)
        try:
            names = _wanted(member_names(file, limits=limits))
            contents = {name: _member(file, name, limits) for name in names}
        except ArchiveTooLargeError as error:
            raise PayloadTooLarge(f"{error.reason}; send one image") from error
        except UnsafeArchiveError as error:
            raise UndecodableImage(error.reason) from error
    geometry = {name: _geometry(contents.pop(f"{name}.npy"), name) for name in _GEOMETRY if f"{name}.npy" in contents}
    [content] = contents.values()
    if "affine" in geometry:
        matrix = geometry["affine"]
        if not np.array_equal(matrix[3], [0, 0, 0, 1]):
            raise UndecodableImage("the last row of the array `affine` must be 0, 0, 0, 1")

        def place(extents: Sequence[int]) -> np.ndarray:
            return affine_of(matrix[:3, :3], matrix[:3, 3], extents)

        values = _read_array(content, non_finite, place)
        return Volume(values, place(values.shape[1:]))
    values = _read_array(content, non_finite)
    return Volume(values, grid(list(geometry.get("spacing", ()))), has_geometry=False)


class _Member(io.BytesIO):
    """A member while it is inflated: its header is checked as soon as it is complete, and limits its length."""

    limit_bytes: int | None = None

    def write(self, content: Any, /) -> int:
        """Write, or refuse more than the header announces."""
        count = super().write(content)
        if self.limit_bytes is None and self.tell() >= _HEAD_BYTES:
            header = parse_npy_header(self.getbuffer()[:_HEAD_BYTES].tobytes())
            check_voxels(*header.shape)
            self.limit_bytes = header.offset + math.prod(header.shape) * header.dtype.itemsize
        if self.limit_bytes is not None and self.tell() > self.limit_bytes:
            raise UndecodableImage("the npy values do not fill the shape exactly")
        return count


def _member(file: BinaryIO, name: str, limits: ArchiveLimits) -> bytes:
    member = _Member()
    copy_member(file, name, member, limits=limits)
    return member.getvalue()


def _wanted(names: list[str]) -> set[str]:
    """The members with the image and its geometry."""
    geometry = {name for name in names if name in {f"{known}.npy" for known in _GEOMETRY}}
    images = [name for name in names if name.endswith(".npy") and name not in geometry]
    if "image.npy" in images:
        images = ["image.npy"]
    if len(images) != 1:
        raise UnsuitableImage(f"the npz file has {len(images)} arrays; name the one that is the image `image`")
    return {*images, *geometry}


def _geometry(content: bytes, name: str) -> np.ndarray:
    header = parse_npy_header(content)
    shape = _GEOMETRY[name]
    if header.shape != shape or len(content) - header.offset != math.prod(shape) * header.dtype.itemsize:
        raise UndecodableImage(f"the array `{name}` must have the shape {shape}")
    values = np.frombuffer(content, header.dtype, offset=header.offset).reshape(shape, order=header.order)
    return values.astype(np.float64)
