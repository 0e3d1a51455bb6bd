"""Uncompressed pixel data: bytes to the values of each frame."""

from collections.abc import Callable

import numpy as np

from sagemaker_monai.budget import spend_bytes
from sagemaker_monai.errors import UndecodableImage, UnsuitableImage
from sagemaker_monai.images.dicom.pixel_layout import Layout


def native_reader(layout: Layout) -> Callable[[int], np.ndarray]:
    """A function that unpacks a frame, given its number from 0.

    Returns:
        It returns (H, W) or (H, W, 3), as in the file but in native byte order; single bits as uint8 0 and 1, chroma of
        YBR_FULL_422 repeated.

    Raises:
        UndecodableImage: less data than the header announces.
        UnsuitableImage: a retired kind of chroma subsampling.

    Source: DICOM PS3.5 8.1 and 8.2, PS3.3 C.7.6.3.1.2.
    """
    if layout.photometric in ("YBR_PARTIAL_422", "YBR_PARTIAL_420"):
        raise UnsuitableImage("colour of a retired kind (YBR_PARTIAL); export the file as RGB")
    count = count_values(layout)
    is_halved = count < layout.rows * layout.columns * layout.samples
    needed = -(-layout.frames * count * layout.bits_allocated // 8)
    if len(layout.data) < needed:
        raise UndecodableImage(
            f"the DICOM file has {len(layout.data)} bytes of pixel data, its header asks for {needed}"
        )
    data = _in_order(layout)

    def read(frame: int) -> np.ndarray:
        if layout.bits_allocated == 1:
            values = _unpack_bits(data, frame * count, count)
        else:
            offset = frame * count * layout.bits_allocated // 8
            values = np.frombuffer(data, type_of(layout), count=count, offset=offset)
        if is_halved:
            return _with_whole_chroma(values, layout)
        if layout.samples == 1:
            return values.reshape(layout.rows, layout.columns)
        if layout.is_planar:
            return values.reshape(layout.samples, layout.rows, layout.columns).transpose(1, 2, 0)
        return values.reshape(layout.rows, layout.columns, layout.samples)

    return read


def count_values(layout: Layout) -> int:
    """Values of one frame, without the chroma that YBR_FULL_422 omits."""
    count = layout.rows * layout.columns * layout.samples
    is_halved = layout.photometric == "YBR_FULL_422" and layout.samples == 3
    if is_halved and len(layout.data) >= layout.frames * count * layout.bits_allocated // 8:
        is_halved = False  # mislabelled: every pixel has its chroma
    return count // 3 * 2 if is_halved else count


def is_swapped(layout: Layout) -> bool:
    """Whether bytes were written as big-endian words, in swapped pairs that may span two frames."""
    return not layout.is_little_endian and layout.bits_allocated == 8 and layout.is_word


def type_of(layout: Layout) -> np.dtype:
    """Type of the cells, in the file's byte order; not for single bits."""
    kind = layout.float_type or f"{'ui'[layout.is_signed]}{layout.bits_allocated // 8}"
    return np.dtype(("<" if layout.is_little_endian else ">") + kind)


def _in_order(layout: Layout) -> bytes | np.ndarray:
    if not is_swapped(layout):
        return layout.data
    spend_bytes(len(layout.data), "the pixel data of a big-endian DICOM file")
    pairs = np.frombuffer(layout.data, np.uint8, count=len(layout.data) // 2 * 2).reshape(-1, 2)
    return np.ascontiguousarray(pairs[:, ::-1]).ravel()


def _unpack_bits(data: bytes | np.ndarray, first: int, count: int) -> np.ndarray:
    # Frames follow each other without a gap, so one may begin within a byte.
    part = np.frombuffer(data, np.uint8, count=(first + count + 7) // 8 - first // 8, offset=first // 8)
    return np.unpackbits(part, bitorder="little")[first % 8 : first % 8 + count]


def _with_whole_chroma(values: np.ndarray, layout: Layout) -> np.ndarray:
    if layout.columns % 2:
        raise UndecodableImage("YBR_FULL_422 needs an even number of Columns; export the file as RGB")
    pairs = values.reshape(layout.rows, layout.columns // 2, 4)  # Y1 Y2 CB CR
    frame = np.empty((layout.rows, layout.columns, 3), values.dtype)
    frame[:, 0::2, 0], frame[:, 1::2, 0] = pairs[..., 0], pairs[..., 1]
    frame[..., 1:] = np.repeat(pairs[..., 2:], 2, axis=1)
    return frame
