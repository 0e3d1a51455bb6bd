"""Cleans a WebP: its pixels recompressed, without loss, and the orientation if it is not upright.

A WebP's bitstream has bytes that decoders ignore, after each partition and at the end of each chunk, and finding them
would need a decoder of our own. So none of its bytes are copied: the pixels are the same, but the file of a lossy
picture becomes several times larger.

Source: WebP Container Specification.
"""

import io
import struct

import numpy as np
from PIL import Image

from sagemaker_monai.deidentification.decoded import decoded, exif_of, orientation_of
from sagemaker_monai.errors import UndecodableImage, UnsuitableImage

_LOSSY, _LOSSLESS, _EXTENDED, _EXIF = b"VP8 ", b"VP8L", b"VP8X", b"EXIF"
_ANIMATED = frozenset({b"ANIM", b"ANMF"})
_HAS_EXIF, _HAS_ALPHA = 0x08, 0x10

_Chunks = list[tuple[bytes, bytes]]


def is_webp(head: bytes) -> bool:
    """Whether a file with this beginning is a WebP."""
    return head[:4] == b"RIFF" and head[8:12] == b"WEBP"


def cleaned_webp(content: bytes) -> bytes:
    """The picture alone; exactly the same bytes if it was cleaned before.

    Raises:
        UndecodableImage: not a valid WebP.
        UnsuitableImage: an animation.
        PayloadTooLarge: too many pixels.
    """
    names = [name for name, _ in _chunks(content)]
    if _ANIMATED & {*names}:
        raise UnsuitableImage("the WebP has several frames; send one picture")
    if sum(name in (_LOSSY, _LOSSLESS) for name in names) != 1:
        raise UndecodableImage("the WebP contains no picture, or several; save it again")
    orientation = orientation_of(content, "WEBP", is_decoded=False) if {_EXIF, b"XMP "} & {*names} else 1
    pixels = np.asarray(decoded(content, "WEBP"))
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "WEBP", lossless=True, exact=True)
    [data] = [data for name, data in _chunks(file.getvalue()) if name == _LOSSLESS]
    return _file(data, pixels, orientation)


def _chunks(content: bytes) -> _Chunks:
    """Names and contents of the chunks that RIFF's own length covers."""
    end = 8 + int.from_bytes(content[4:8], "little")
    chunks, position = [], 12
    while is_webp(content) and position + 8 <= end <= len(content):
        size = int.from_bytes(content[position + 4 : position + 8], "little")
        if position + 8 + size > end:
            break
        chunks.append((content[position : position + 4], content[position + 8 : position + 8 + size]))
        position += 8 + size + size % 2
    if not chunks or position < end:
        raise UndecodableImage("the WebP is truncated or has invalid chunks; save the picture again")
    return chunks


def _file(data: bytes, pixels: np.ndarray, orientation: int) -> bytes:
    chunks = [(_LOSSLESS, data)]
    if exif := exif_of(orientation):
        height, width, samples = pixels.shape
        flags = _HAS_EXIF | _HAS_ALPHA * (samples == 4)
        extended = struct.pack("<I", flags) + (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little")
        chunks = [(_EXTENDED, extended), *chunks, (_EXIF, exif)]
    body = b"".join(name + struct.pack("<I", len(part)) + part + b"\0" * (len(part) % 2) for name, part in chunks)
    return b"RIFF" + struct.pack("<I", 4 + len(body)) + b"WEBP" + body
