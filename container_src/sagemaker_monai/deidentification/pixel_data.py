"""Cuts an object's pixel data to the bytes that its header needs, in the same transfer syntax.

Nothing is recompressed, and `dicom.decoding` reads the same values. Removed are bytes after the last frame, bits
outside BitsStored (old overlays), unneeded fragments and offset tables, and everything that a decoder skips in a
compressed frame. Offset tables are rebuilt.

Sources: DICOM PS3.5, 8.1, 8.2, A.4 (encapsulation).
"""

from collections.abc import Callable

import numpy as np
from pydicom import Dataset, uid
from pydicom.encaps import encapsulate

from sagemaker_monai.deidentification.j2k_markers import cleaned_j2k
from sagemaker_monai.deidentification.jpeg_markers import cleaned_jpeg
from sagemaker_monai.deidentification.rle_segments import cleaned_rle
from sagemaker_monai.errors import UndecodableImage
from sagemaker_monai.images.dicom.decoding import DECODERS, JPEG, JPEG_LS, NATIVE, compressed_frames, unsupported
from sagemaker_monai.images.dicom.headers import refusing
from sagemaker_monai.images.dicom.native import count_values, is_swapped, type_of
from sagemaker_monai.images.dicom.pixel_layout import Layout, layout_of

_MOST_OFFSET = (1 << 32) - 1  # in a basic offset table
_CHUNK_VALUES = 1 << 22  # processed at once, to avoid a second copy of a large object

# Transfer syntax -> the function that cuts a compressed frame to what its decoder needs.
_CLEANERS: dict[str, Callable[[bytes, Layout], bytes]] = {
    **dict.fromkeys(JPEG | JPEG_LS, lambda frame, _layout: cleaned_jpeg(frame)),
    **dict.fromkeys(
        (uid.JPEG2000Lossless, uid.JPEG2000, uid.HTJ2KLossless, uid.HTJ2KLosslessRPCL, uid.HTJ2K),
        lambda frame, _layout: cleaned_j2k(frame),
    ),
    uid.RLELossless: lambda frame, layout: cleaned_rle(frame, _size_of_segment(layout)),
}


def needed_pixels(dataset: Dataset) -> bytes:
    """The pixel data of a complete dataset with only what the header needs.

    Returns:
        Of even length. If compressed, a basic offset table and one fragment for each frame, without the delimiter.

    Raises:
        UndecodableImage: less data than the header announces, or it cannot be parsed.
        UnsuitableImage: no image, or stored in an unsupported way.
        PayloadTooLarge: more than the limits.
    """
    with refusing("the pixel data of the DICOM file is broken; export it again"):
        layout = layout_of(dataset)
        if layout.syntax in NATIVE:
            return _native(layout)
        if layout.syntax not in DECODERS:
            raise unsupported(layout)
        clean = _CLEANERS[layout.syntax]
        frames = [clean(frame, layout) for frame in compressed_frames(dataset, layout, layout.frames)]
        has_table = len(frames) > 1 and sum(len(frame) + 9 for frame in frames) <= _MOST_OFFSET
        return bytes(encapsulate(frames, has_bot=has_table))


def is_compressed(dataset: Dataset) -> bool:
    """Whether the pixel data is a sequence of fragments."""
    return layout_of(dataset).syntax in DECODERS


def _size_of_segment(layout: Layout) -> int:
    pixels = layout.rows * layout.columns
    return -(-pixels // 8) if layout.bits_allocated == 1 else pixels


def _native(layout: Layout) -> bytes:
    count = layout.frames * count_values(layout)
    needed = -(-count * layout.bits_allocated // 8)
    if len(layout.data) < needed:
        raise UndecodableImage(
            f"the DICOM file has {len(layout.data)} bytes of pixel data, its header asks for {needed}"
        )
    if layout.bits_allocated == 1:
        return _of_bits(layout.data[:needed], count)
    is_odd = needed % 2
    if is_swapped(layout) and is_odd:  # the byte that fills the last pair comes before the last value
        if len(layout.data) == needed:
            raise UndecodableImage("the pixel data of the DICOM file is truncated; export it again")
        return _of_values(layout.data[: needed - 1], layout) + _of_values(b"\0" + layout.data[needed:][:1], layout)
    return _of_values(layout.data[:needed], layout) + bytes(is_odd)


def _of_bits(data: bytes, count: int) -> bytes:
    """Single bits, lowest first, with the bits after the last one cleared."""
    if count % 8:
        data = data[:-1] + bytes((data[-1] & (1 << count % 8) - 1,))
    return data + bytes(len(data) % 2)


def _of_values(data: bytes, layout: Layout) -> bytes:
    """Cells with only the value, its sign, and padding that is outside the value on purpose."""
    if layout.float_type or layout.bits_stored == layout.bits_allocated:
        return data
    kind = type_of(layout)
    cells = np.frombuffer(data, kind)
    result = np.empty_like(cells)
    for start in range(0, len(cells), _CHUNK_VALUES):
        part = slice(start, start + _CHUNK_VALUES)
        own = cells[part].astype(kind.newbyteorder("="), copy=False)
        kept = layout.aligned(own) << layout.high_bit + 1 - layout.bits_stored
        if layout.padding is not None:
            low, high = layout.padding
            kept = np.where((own >= low) & (own <= high), own, kept)
        result[part] = kept
    return result.tobytes()
