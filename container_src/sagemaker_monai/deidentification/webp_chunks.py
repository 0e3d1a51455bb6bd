"""WebP without anything but the picture: the bitstream, its alpha, and the orientation where it is not upright.

Bytes that a decoder does not need, within a chunk behind the picture's end, cannot be told from it without decoding. So
each chunk is tried without its last bytes; one that gives the same picture all the same has room for something, and the
picture is then compressed anew, without loss. Room inside of a lossy bitstream, between its partitions, is looked for
at the first one's end only.

Sources: WebP Container Specification; RFC 6386, 9.1 (frame header of VP8).
"""

import io
import struct

import numpy as np
from PIL import Image

from sagemaker_monai.deidentification.decoded import decoded, exif_of, orientation_of
from sagemaker_monai.errors import UndecodableImage, UnsuitableImage

_LOSSY, _LOSSLESS, _ALPHA, _EXTENDED, _EXIF = b"VP8 ", b"VP8L", b"ALPH", b"VP8X", b"EXIF"
_ANIMATED = frozenset({b"ANIM", b"ANMF"})
_HAS_EXIF, _HAS_ALPHA = 0x08, 0x10
_TAIL_BYTES = 4  # at the end of a bitstream, which encoders fill up
_VP8_HEADER_BYTES = 10

_Chunks = list[tuple[bytes, bytes]]


def is_webp(head: bytes) -> bool:
    """Whether a file that begins so is a WebP."""
    return head[:4] == b"RIFF" and head[8:12] == b"WEBP"


def cleaned_webp(content: bytes) -> bytes:
    """The picture alone; the very same bytes where it is.

    Raises:
        UndecodableImage: no sound WebP.
        UnsuitableImage: an animation.
        PayloadTooLarge: more than the most pixels.
    """
    chunks = _chunks(content)
    names = [name for name, _ in chunks]
    if _ANIMATED & {*names}:
        raise UnsuitableImage("the WebP has several frames; send one picture")
    pictures = [(name, data) for name, data in chunks if name in (_LOSSY, _LOSSLESS)]
    # Beside a picture that is not announced as one with more, nothing is read.
    alphas = [(name, data) for name, data in chunks if name == _ALPHA and names[0] == _EXTENDED]
    if len(pictures) != 1 or len(alphas) > 1:
        raise UndecodableImage("the WebP holds no picture, or several; save it again")
    orientation = orientation_of(content, "WEBP", is_decoded=False) if {_EXIF, b"XMP "} & {*names} else 1
    bare = alphas * (pictures[0][0] == _LOSSY) + pictures
    pixels = _pixels(_file(bare, 1))
    if pixels is None or not np.array_equal(pixels, whole if (whole := _pixels(content)) is not None else ()):
        raise UndecodableImage("not a sound WebP; save the picture again")
    if not all(_is_tight(bare, index, pixels) for index in range(len(bare))):
        bare = _compressed(pixels)
    return _file(bare, orientation)


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
        raise UndecodableImage("the WebP is cut off or made of odd chunks; save the picture again")
    return chunks


def _file(chunks: _Chunks, orientation: int) -> bytes:
    exif = exif_of(orientation)
    if exif or len(chunks) > 1:
        flags = _HAS_EXIF * bool(exif) | _HAS_ALPHA * _has_alpha(chunks)
        width, height = _size(*chunks[-1])
        extended = struct.pack("<I", flags) + (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little")
        chunks = [(_EXTENDED, extended), *chunks, *([(_EXIF, exif)] if exif else [])]
    body = b"".join(name + struct.pack("<I", len(data)) + data + b"\0" * (len(data) % 2) for name, data in chunks)
    return b"RIFF" + struct.pack("<I", 4 + len(body)) + b"WEBP" + body


def _has_alpha(chunks: _Chunks) -> bool:
    name, data = chunks[-1]
    return len(chunks) > 1 or (name == _LOSSLESS and bool(int.from_bytes(data[1:5], "little") >> 28 & 1))


def _size(name: bytes, data: bytes) -> tuple[int, int]:
    """Width and height of a bitstream."""
    if len(data) < _VP8_HEADER_BYTES:
        raise UndecodableImage("the WebP's picture is cut off; save it again")
    if name == _LOSSLESS:
        bits = int.from_bytes(data[1:5], "little")
        return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    width, height = struct.unpack_from("<HH", data, 6)
    return max(width & 0x3FFF, 1), max(height & 0x3FFF, 1)


def _pixels(content: bytes) -> np.ndarray | None:
    try:
        return np.asarray(decoded(content, "WEBP"))
    except UndecodableImage:
        return None


def _is_tight(chunks: _Chunks, index: int, pixels: np.ndarray) -> bool:
    """Whether all of a chunk is needed for the picture."""
    name, data = chunks[index]
    tries = [data[:-_TAIL_BYTES]]
    if name == _LOSSY:
        end = _VP8_HEADER_BYTES + (int.from_bytes(data[:3], "little") >> 5)
        inverted = bytes(byte ^ 0xFF for byte in data[end - _TAIL_BYTES : end])
        tries.append(data[: end - _TAIL_BYTES] + inverted + data[end:])
    for each in tries:
        without = _pixels(_file([*chunks[:index], (name, each), *chunks[index + 1 :]], 1))
        if without is not None and np.array_equal(without, pixels):
            return False
    return True


def _compressed(pixels: np.ndarray) -> _Chunks:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "WEBP", lossless=True, exact=True)
    return [chunk for chunk in _chunks(file.getvalue()) if chunk[0] == _LOSSLESS]
