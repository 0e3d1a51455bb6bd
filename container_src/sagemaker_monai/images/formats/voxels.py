"""Values of a file's voxels: from bytes to float32 in MONAI's order of axes, checked before they are allocated.

All formats come through `read_values`, so that sizes, cut-off files, scaling and values that are not finite are treated
alike. The array that comes back has the file's order in memory (W varies fastest in most): it is a view, not copied to
be contiguous.
"""

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from sagemaker_monai.budget import spend_bytes, spend_work
from sagemaker_monai.errors import PayloadTooLarge, UndecodableImage, UnsuitableImage
from sagemaker_monai.images.formats.inflate import Stream
from sagemaker_monai.images.volumes import check_voxels

MAX_CHANNELS = 16  # sequences, echoes, maps of one image; more are a time series, which no classifier here takes

MOST_COLOURS = 4  # of a picture; more planes in one place are rather slices or times
_SLENDER = 8  # times as long as wide

MAX_TEXT_BYTES = 64 << 20  # of numbers written as text, at one digit each: 320^3, some 4 s

NonFinite = Literal["refuse", "zero"]

_NS_A_VOXEL, _NS_A_TEXT = 4, 250  # to make float32 of a number
_MAX_TOKEN_BYTES = 512  # of one number written as text


@dataclass(frozen=True)
class Stored:
    """How a file keeps its values.

    Attributes:
        dtype: type with byte order, integer or floating point.
        shape: the axis that varies fastest first.
        slope, intercept: value = stored x slope + intercept.
        is_text: numbers written as text with white space between.
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
        """The least bytes that hold the values."""
        count = math.prod(self.shape)
        return 2 * count - 1 if self.is_text else count * self.dtype.itemsize


def check_shape(shape: Iterable[int], channels: int = 1) -> None:
    """Refuse sizes that are no image, or one that is too large or has too many channels.

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
    """Refuse four axes that are as likely (C, W, H, D), as arrays of networks are, or (W, H, 1, D) as (W, H, D, C).

    Args:
        sizes: of the four axes in the order of the file.
        is_told: the header says that the fourth axis is time or something else than space.

    Raises:
        UnsuitableImage: names both readings.
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


def read_values(stream: Stream, stored: Stored, non_finite: NonFinite) -> np.ndarray:
    """Read exactly the values of one image; `stream` stays behind them.

    Scaling is done in float64 and rounded once, so that values are those of a reader in float64.

    Args:
        stream: at the first value.
        stored: how they are kept; the shape has been checked.
        non_finite: whether NaN, infinity and what float32 cannot hold are refused or become 0.

    Returns:
        float32 of `stored.shape`, first axis fastest in memory.

    Raises:
        UndecodableImage: too few values, or text that is no number of the type.
        UnsuitableImage: values that are not finite, by `non_finite`.
        PayloadTooLarge: no memory for them.
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
        raise PayloadTooLarge(f"no memory for {count} values; send a smaller image") from error
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
    """Write one part in float32, zeros for what is not finite; how many those were."""
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
    """Arrays of whole items; pieces may end within one."""
    rest = b""
    for piece in pieces:
        data = rest + piece if rest else piece
        count = len(data) // dtype.itemsize
        yield np.frombuffer(data, dtype, count)
        rest = bytes(data[count * dtype.itemsize :])


def _numbers(stream: Stream, stored: Stored) -> Iterator[np.ndarray]:
    """Arrays of numbers written as text, to the stream's end."""
    limits = np.iinfo(stored.dtype) if stored.dtype.kind in "iu" else None
    rest = b""
    pieces = stream.pieces(1 << 62)
    while True:
        piece = next(pieces, b"")
        data = rest + piece
        cut = max(data.rfind(space) for space in (b" ", b"\n", b"\t")) + 1 if piece else len(data)
        tokens, rest = data[:cut].split(), data[cut:]
        if len(rest) > _MAX_TOKEN_BYTES or any(len(token) > _MAX_TOKEN_BYTES for token in tokens):
            raise UndecodableImage("the file's text is no list of numbers")
        try:
            numbers = np.array([float(token) for token in tokens])
        except ValueError as error:
            raise UndecodableImage("the file's text is no list of numbers") from error
        if limits is not None and not np.all(
            (numbers >= limits.min) & (numbers <= limits.max) & (np.trunc(numbers) == numbers)
        ):
            raise UndecodableImage("a number in the file's text is none of its type; its range or a fraction is wrong")
        yield numbers
        if not piece:
            return


def channel_first(values: np.ndarray, channel_axis: int | None) -> np.ndarray:
    """Give 2-D and 3-D values, with a channel axis or without, the axes (C, W, H, D)."""
    values = values[np.newaxis] if channel_axis is None else np.moveaxis(values, channel_axis, 0)
    return values.reshape(*values.shape, 1) if values.ndim == 3 else values
