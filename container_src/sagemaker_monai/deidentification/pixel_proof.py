"""Proves that the pixel data of a de-identified object is what its header needs and nothing else.

It shares only the header's layout with `pixel_data`, which cuts the data. That the pixels are the same is proved by
decoding them before and after; CharLS (JPEG-LS) also refuses a frame with a byte too many.
"""

import hashlib
import re
import struct
from collections.abc import Callable, Iterator
from itertools import pairwise

import numpy as np
from pydicom import Dataset, uid

from sagemaker_monai.deidentification.identity import walk
from sagemaker_monai.errors import CallerError
from sagemaker_monai.images.dicom.decoding import JPEG, JPEG_LS, NATIVE, decode_stored
from sagemaker_monai.images.dicom.headers import PIXEL_GROUP, PIXEL_TAGS, refusing
from sagemaker_monai.images.dicom.native import count_values, is_swapped, type_of
from sagemaker_monai.images.dicom.pixel_layout import Layout, layout_of

_ITEM = 0xE000FFFE  # the tag read as little endian
_CHUNK_VALUES = 1 << 22
_FRAMES_AT_ONCE = 64  # of a multi-frame file
_FRAME_END = (b"", b"\0")  # a fragment has an even length
# JPEG markers allowed in a frame, and the allowed lengths of their segments; None for any.
_JPEG_SEGMENTS: dict[int, tuple[int, ...] | None] = {
    **dict.fromkeys((0xC0, 0xC1, 0xC2, 0xC3, 0xC4, 0xDA, 0xDB, 0xF7)),
    0xDD: (4, 6),  # DRI
    0xE0: (16,),  # JFIF without a thumbnail
    0xE8: (7,),  # HP's colour transform of JPEG-LS
    0xEE: (14,),  # Adobe's
    0xF8: (13,),  # LSE
}
_END_OF_CODES = {True: re.compile(rb"\xff[\x80-\xcf\xd8-\xff]"), False: re.compile(rb"\xff[^\x00\xd0-\xd7]")}
_J2K_SEGMENTS = frozenset({0xFF50, 0xFF51, 0xFF52, 0xFF53, 0xFF55, 0xFF5C, 0xFF5D, 0xFF5E, 0xFF5F, 0xFF90})


def pixel_faults(result: Dataset) -> Iterator[str]:
    """Report anything in or beside the pixel data that the header does not need.

    Args:
        result: as written, complete, with `file_meta`.

    Yields:
        Faults in words, without any value.
    """
    tags = [element.tag for element in walk(result) if element.tag.group == PIXEL_GROUP]
    if not tags:
        return
    if len(tags) > 1 or tags[0] not in PIXEL_TAGS or tags[0] not in result:
        yield "there is more than one pixel data element, or a separate offset table"
        return
    try:
        with refusing("broken"):
            layout = layout_of(result)
            is_bare = _is_native_bare(layout) if layout.syntax in NATIVE else _is_compressed_bare(layout)
    except CallerError:
        is_bare = False
    if not is_bare:
        yield "the pixel data contains more or less than the header needs"


def stored_frames(dataset: Dataset) -> Iterator[tuple[range, np.ndarray]]:
    """The stored values of an object, as from `decode_stored`, with their frame numbers."""
    with refusing("the DICOM header is broken; export the file again"):
        count = layout_of(dataset).frames
    for start in range(0, count, _FRAMES_AT_ONCE):
        frames = range(start, min(start + _FRAMES_AT_ONCE, count))
        yield frames, decode_stored(dataset, frames)


def add_stored(digest: "hashlib._Hash", stored: np.ndarray) -> None:
    """Add values to a digest, with their type and size."""
    digest.update(f"{stored.dtype.str} {stored.shape} ".encode())
    digest.update(np.ascontiguousarray(stored).data)


def stored_digest(dataset: Dataset) -> bytes:
    """SHA-256 of all stored values of an object; raises like `decode_stored`."""
    digest = hashlib.sha256()
    for _, stored in stored_frames(dataset):
        add_stored(digest, stored)
    return digest.digest()


def _is_native_bare(layout: Layout) -> bool:
    bits = layout.frames * count_values(layout) * layout.bits_allocated
    size = -(-bits // 8)
    data = layout.data
    if len(data) != size + size % 2:
        return False
    if is_swapped(layout):
        data = np.frombuffer(data, ">u2").astype("<u2").tobytes()
    if any(data[size:]) or (bits % 8 and data[size - 1] >> bits % 8):
        return False
    if layout.float_type or layout.bits_stored == layout.bits_allocated:
        return True
    cells = np.frombuffer(data[:size], type_of(layout))
    return all(
        _has_only_values(cells[start : start + _CHUNK_VALUES], layout) for start in range(0, len(cells), _CHUNK_VALUES)
    )


def _has_only_values(cells: np.ndarray, layout: Layout) -> bool:
    own = cells.astype(cells.dtype.newbyteorder("="))
    if layout.padding is not None:
        own = own[(own < layout.padding[0]) | (own > layout.padding[1])]
    place = layout.high_bit + 1 - layout.bits_stored
    lowest, highest = (limit << place for limit in layout.limits)
    if own.size == 0:
        return True
    is_within = lowest <= int(own.min()) and int(own.max()) <= highest
    return is_within and not np.any(own & own.dtype.type((1 << place) - 1))


def _is_compressed_bare(layout: Layout) -> bool:
    items = list(_items(layout.data))
    if not items or len(items) - 1 != layout.frames:
        return False
    table, *frames = items
    places = np.cumsum([0, *(8 + len(frame) for frame in frames)])[:-1]
    if table not in (b"", places.astype("<u4").tobytes()) or (len(frames) == 1 and table):
        return False
    is_bare = _CHECKS[layout.syntax]
    return all(is_bare(frame, layout) for frame in frames)


def _items(data: bytes) -> Iterator[bytes]:
    position = 0
    while position < len(data):
        tag, length = struct.unpack("<LL", data[position : position + 8])
        if tag != _ITEM or position + 8 + length > len(data):
            raise ValueError
        yield data[position + 8 : position + 8 + length]
        position += 8 + length


def _is_jpeg_bare(data: bytes, layout: Layout) -> bool:
    ends = _END_OF_CODES[layout.syntax in JPEG_LS]
    position = 2
    while data[position : position + 2] != b"\xff\xd9":
        lead, marker, length = struct.unpack(">BBH", data[position : position + 4])
        lengths = _JPEG_SEGMENTS.get(marker, ())
        if lead != 0xFF or (lengths is not None and length not in lengths):
            return False
        position += 2 + length
        if marker == 0xDA:
            found = ends.search(data, position)
            if found is None:
                return False
            position = found.start()
    return data.startswith(b"\xff\xd8") and data[position + 2 :] in _FRAME_END


def _is_j2k_bare(data: bytes, _layout: Layout) -> bool:
    if not data.startswith(b"\xff\x4f\xff\x51"):
        return False
    position, end = 2, 0
    while data[position : position + 2] != b"\xff\xd9":
        marker, length = struct.unpack(">HH", data[position : position + 4])
        if marker == 0xFF93 and end:
            position, end = end, 0
            continue
        if marker not in _J2K_SEGMENTS:
            return False
        if marker == 0xFF90:
            end = position + int(struct.unpack(">L", data[position + 6 : position + 10])[0])
        position += 2 + length
    return data[position + 2 :] in _FRAME_END


def _is_rle_bare(data: bytes, layout: Layout) -> bool:
    pixels = layout.rows * layout.columns
    size = -(-pixels // 8) if layout.bits_allocated == 1 else pixels
    count, *offsets = struct.unpack("<16L", data[:64])
    used = [*offsets[:count], len(data)]
    if used[0] != 64 or any(offsets[count:]):
        return False
    return all(_is_run_length_bare(data[start:end], size) for start, end in pairwise(used))


def _is_run_length_bare(segment: bytes, size: int) -> bool:
    position = made = 0
    while made < size:
        code = segment[position]
        if code == 128:
            return False
        made += code + 1 if code < 128 else 257 - code
        position += code + 2 if code < 128 else 2
    return made == size and segment[position:] in (b"", b"\0") and position <= len(segment)


_CHECKS: dict[str, Callable[[bytes, Layout], bool]] = {
    **dict.fromkeys(JPEG | JPEG_LS, _is_jpeg_bare),
    **dict.fromkeys(
        (uid.JPEG2000Lossless, uid.JPEG2000, uid.HTJ2KLossless, uid.HTJ2KLosslessRPCL, uid.HTJ2K), _is_j2k_bare
    ),
    uid.RLELossless: _is_rle_bare,
}
