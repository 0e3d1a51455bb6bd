"""Reduces a frame of RLE Lossless to the runs that its pixels need.

Empty runs, runs after the last byte of a segment, and bytes between segments are dropped. The header is rewritten.

Source: DICOM PS3.5, annex G.
"""

import struct
from itertools import pairwise

from sagemaker_monai.errors import UndecodableImage
from sagemaker_monai.images.dicom.codestreams import count_rle_segments

_HEADER_BYTES = 64
_NO_RUN = 128
_CUT_OFF = "a frame of RLE Lossless is truncated; export it again"


def cleaned_rle(data: bytes, size_bytes: int) -> bytes:
    """Rewrite a frame whose segments unpack to `size_bytes` each; UndecodableImage if it is broken or too short."""
    count = count_rle_segments(data)
    offsets = [*struct.unpack(f"<{count}L", data[4 : 4 + 4 * count]), len(data)]
    segments = [_segment(data[start:end], size_bytes) for start, end in pairwise(offsets)]
    places, place = [], _HEADER_BYTES
    for segment in segments:
        places.append(place)
        place += len(segment)
    return struct.pack("<16L", count, *places, *[0] * (15 - count)) + b"".join(segments)


def _segment(data: bytes, size_bytes: int) -> bytes:
    """The runs of a segment up to its last byte, padded to even length."""
    parts: list[bytes] = []  # kept pieces
    position = start = 0
    left = size_bytes
    end = len(data)
    while left > 0:
        if position >= end:
            raise UndecodableImage(_CUT_OFF)
        code = data[position]
        if code < _NO_RUN:
            size, length = code + 1, code + 2
        elif code > _NO_RUN:
            size, length = 257 - code, 2
        else:
            parts.append(data[start:position])
            position += 1
            start = position
            continue
        if size > left:  # the last run is longer than the picture
            parts.append(data[start:position])
            head = left - 1 if code < _NO_RUN else (257 - left if left > 1 else 0)
            parts.append(bytes((head,)) + data[position + 1 : position + 1 + (left if code < _NO_RUN else 1)])
            start = position = position + length
            break
        left -= size
        position += length
    if position > end:
        raise UndecodableImage(_CUT_OFF)
    parts.append(data[start:position])
    whole = b"".join(parts)
    return whole + bytes(len(whole) % 2)
