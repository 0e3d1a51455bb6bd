"""A file's voxels: from bytes to float32 in MONAI's order of axes, checked before they are allocated.

All formats call `read_values`, so that sizes, truncated files, scaling and non-finite values are treated alike. The
resulting array keeps the file's order in memory (W varies fastest in most): it is a view and not copied.
"""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from sagemaker_monai.budget import spend_bytes, spend_work
from sagemaker_monai.errors import PayloadTooLarge, UndecodableImage, UnsuitableImage
from sagemaker_monai.images.expected import Expected, expect
from sagemaker_monai.images.formats.inflate import Stream
from sagemaker_monai.images.volumes import check_voxels

MAX_CHANNELS = 16  # sequences, echoes, maps of one image; more are a time series, which no classifier here accepts

MOST_COLOURS = 4  # of a picture; more planes are more likely slices or points in time
_SLENDER = 8  # length to width

MAX_TEXT_BYTES = 64 << 20  # of numbers written as text with one digit each: 320^3, some 4 s

NonFinite = Literal["refuse", "zero"]

_NS_A_VOXEL, _NS_A_TEXT = 4, 250  # to convert a number to float32
_MAX_TOKEN_BYTES = 512  # of one number written as text
# Datatype codes of NIfTI and Analyze that are not read.
_OTHER_TYPES = {
    1: "single bits",
    32: "complex numbers",
    128: "RGB colours",
    1536: "128-bit floating point",
    1792: "complex numbers",
    2048: "complex numbers",
    2304: "RGBA colours",
}


@dataclass(frozen=True)
class Stored:
    """How a file stores its values.

    Attributes:
        dtype: integer or floating point, with byte order.
        shape: the fastest axis first.
        slope, intercept: value = stored x slope + intercept.
        is_text: numbers written as text, separated by white space.
    """

    dtype: np.dtype
    shape: tuple[int, ...]
    slope: float = 1.0
    intercept: float = 0.0
    is_text: bool = False

    @property
    def is_scaled(self) -> bool:
        """Whether values are other ones than stored."""
        return (self.slope, self.intercept) != (1.0, 0.0)

    @property
    def size_bytes(self) -> int:
        """The fewest bytes that can hold the values."""
        count = math.prod(self.shape)
        return 2 * count - 1 if self.is_text else count * self.dtype.itemsize


def dtype_of(header: Any, types: Mapping[int, str], name: str) -> np.dtype:
    """The type of voxels by the header of a NIfTI or Analyze file.

    Args:
        header: nibabel's.
        types: the datatype codes that are read.
        name: the format's, for messages.
    """
    code, bits = int(header["datatype"]), int(header["bitpix"])
    if code in _OTHER_TYPES:
        raise UnsuitableImage(f"the {name} file holds {_OTHER_TYPES[code]}; send integers or floating point")
    if code not in types:
        raise UndecodableImage(f"the {name} header has the unknown datatype {code}")
    dtype = np.dtype(types[code]).newbyteorder(header.endianness)
    if bits != 8 * dtype.itemsize:
        raise UndecodableImage(f"the {name} header claims {bits} bits per voxel for a datatype of {8 * dtype.itemsize}")
    return dtype


def check_shape(shape: Iterable[int], channels: int = 1) -> None:
    """Refuse impossible sizes, too large images and too many channels.

    Raises:
        UndecodableImage: a size below 1.
        UnsuitableImage: more than MAX_CHANNELS.
        PayloadTooLarge: more than MAX_VOXELS values.
    """
    sizes = tuple(int(size) for size in shape)
    if any(size < 1 for size in sizes):
        raise UndecodableImage(f"the header claims the size {' x '.join(map(str, sizes))}; every axis needs a voxel")
    if channels > MAX_CHANNELS:
        raise UnsuitableImage(
            f"{channels} channels or points in time are more than {MAX_CHANNELS}; send one image, not a time series"
        )
    check_voxels(*sizes)


def check_order(sizes: Sequence[int], *, is_told: bool = False) -> None:
    """Refuse four axes that may be (C, W, H, D), as in networks' arrays, or (W, H, 1, D) instead of (W, H, D, C).

    Args:
        sizes: of the four axes in the file's order.
        is_told: the header says that the fourth axis is time or anything else but space.

    Raises:
        UnsuitableImage: the order is unclear.
    """
    if is_unclear(sizes, is_told=is_told):
        first, second, third, fourth = sizes
        raise UnsuitableImage(
            f"the order of the file's axes is unclear: {' x '.join(map(str, sizes))} would be {fourth} channels of "
            f"{first} x {second} x {third} voxels; write space in the first three axes (width, height, depth) and "
            "channels in the fourth"
        )


def is_unclear(sizes: Sequence[int], *, is_told: bool = False) -> bool:
    """Whether `check_order` would refuse."""
    first, second, third, fourth = sizes
    looks_channels_first = first == 1 or (first <= MOST_COLOURS < fourth and min(second, third) >= _SLENDER * first)
    return fourth > 1 and (looks_channels_first or (third == 1 and fourth > MOST_COLOURS and not is_told))


def expect_volume(shape: Sequence[int], channel_axis: int | None, affine: np.ndarray | None) -> None:
    """Tell the caller that waits for it the size that `channel_first` will return; see `expected.expect`."""
    channels = 1 if channel_axis is None else shape[channel_axis]
    spatial = [size for axis, size in enumerate(shape) if axis != channel_axis]
    expect(Expected((channels, *spatial, *[1] * (3 - len(spatial))), affine))


def read_values(stream: Stream, stored: Stored, non_finite: NonFinite) -> np.ndarray:
    """Read exactly the values of one image and leave `stream` after them.

    Values are scaled in float64 and rounded once, so that they equal those of a float64 reader.

    Args:
        stream: at the first value.
        stored: how they are stored.
        non_finite: whether NaN, infinity and values beyond float32 are refused or become 0.

    Returns:
        float32 of `stored.shape`, first axis fastest in memory.

    Raises:
        UndecodableImage: too few values, or text that is not a number of the type.
        UnsuitableImage: values that are not finite, with "refuse".
        PayloadTooLarge: not enough memory.
    """
    check_shape(stored.shape)
    if stored.is_text and stored.size_bytes > MAX_TEXT_BYTES:
        raise PayloadTooLarge("the file has too many numbers written as text; write it with a binary encoding")
    stream.expect(stored.size_bytes)
    count = math.prod(stored.shape)
    spend_bytes(4 * count, f"{count} voxels of 4 bytes")
    spend_work(count * (_NS_A_TEXT if stored.is_text else _NS_A_VOXEL), f"{count} voxels")
    try:
        values = np.empty(count, np.float32)
    except MemoryError as error:
        raise PayloadTooLarge(f"not enough memory for {count} values; send a smaller image") from error
    parts = _numbers(stream, stored) if stored.is_text else _items(stream.pieces(stored.size_bytes), stored.dtype)
    position = bad = 0
    for part in parts:
        if position + part.size > count:
            raise UndecodableImage("the file has more values than its header says; write it again")
        place = values[position : position + part.size]
        position += part.size
        bad += _convert(part, stored, place)
    if position != count:
        raise UndecodableImage(f"the file ends after {position} of {count} values; write or send it again")
    if bad and non_finite == "refuse":
        raise UnsuitableImage(f"{bad} of {count} values are NaN or infinite; replace them, or have them read as zero")
    return values.reshape(stored.shape, order="F")


def _convert(part: np.ndarray, stored: Stored, place: np.ndarray) -> int:
    """Write one part as float32, non-finite values as 0; returns the number of the latter."""
    with np.errstate(over="ignore", invalid="ignore"):
        if not stored.is_scaled:
            place[...] = part
            if part.dtype.kind != "f":
                return 0
        else:
            scaled = np.multiply(part, stored.slope, dtype=np.float64)
            scaled += stored.intercept
            place[...] = scaled
    is_finite = np.isfinite(place)
    if is_finite.all():
        return 0
    place[~is_finite] = 0
    return place.size - int(np.count_nonzero(is_finite))


def _items(pieces: Iterable[bytes | memoryview], dtype: np.dtype) -> Iterator[np.ndarray]:
    """Arrays of whole items from pieces that may end within an item."""
    rest = b""
    for piece in pieces:
        data = rest + piece if rest else piece
        count = len(data) // dtype.itemsize
        yield np.frombuffer(data, dtype, count)
        rest = bytes(data[count * dtype.itemsize :])


def _numbers(stream: Stream, stored: Stored) -> Iterator[np.ndarray]:
    """Arrays of numbers written as text, to the end of the stream."""
    limits = np.iinfo(stored.dtype) if stored.dtype.kind in "iu" else None
    rest = b""
    pieces = stream.pieces(1 << 62)
    while True:
        piece = next(pieces, b"")
        data = rest + piece
        cut = max(data.rfind(space) for space in (b" ", b"\n", b"\t")) + 1 if piece else len(data)
        tokens, rest = data[:cut].split(), data[cut:]
        if len(rest) > _MAX_TOKEN_BYTES or any(len(token) > _MAX_TOKEN_BYTES for token in tokens):
            raise UndecodableImage("the file's text is not a list of numbers")
        try:
            numbers = np.array([float(token) for token in tokens])
        except ValueError as error:
            raise UndecodableImage("the file's text is not a list of numbers") from error
        if limits is not None and not np.all(
            (numbers >= limits.min) & (numbers <= limits.max) & (np.trunc(numbers) == numbers)
        ):
            raise UndecodableImage("a number in the file's text is out of range for its type or has a fraction")
        yield numbers
        if not piece:
            return


def channel_first(values: np.ndarray, channel_axis: int | None) -> np.ndarray:
    """Bring 2-D or 3-D values, with or without a channel axis, to the axes (C, W, H, D)."""
    values = values[np.newaxis] if channel_axis is None else np.moveaxis(values, channel_axis, 0)
    return values.reshape(*values.shape, 1) if values.ndim == 3 else values
