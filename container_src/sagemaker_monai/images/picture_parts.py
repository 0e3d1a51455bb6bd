"""Counts the parts of an encoded picture before Pillow reads them: segments, chunks, tiles, the canvas.

Pillow walks them in Python without a limit: six million empty segments take half a minute. Nothing is decoded here, so
a picture that passes may still be broken.

Sources: ITU-T T.81 annex B (JPEG), ISO/IEC 15948 section 5 (PNG), TIFF 6.0 sections 2 and 15, RFC 9649 (WebP).
"""

import struct
from collections.abc import Callable
from dataclasses import dataclass

from sagemaker_monai.budget import spend_work
from sagemaker_monai.errors import PayloadTooLarge, UnsuitableImage

MAX_PIXELS = 64_000_000  # of one picture, by its header; more than any camera in the field has (a guess)
MAX_SEGMENTS = 2_048  # of a JPEG before its first scan; a large colour profile has 255
MAX_JUNK_BYTES = 1 << 16  # between them, which Pillow skips byte by byte
MAX_EXIF_BYTES = 4 << 20  # of all EXIF segments, which Pillow joins one by one
MAX_CHUNKS = 4_096  # of a PNG or WebP, plus one per KiB: some programs write image data in pieces of 4 KiB
MAX_TAGS = 4_096  # of a TIFF's directory
MAX_TILE_PIXELS = 1 << 22  # of a TIFF that is itself smaller; libtiff holds one whole tile
MAX_RLE_BYTES = 4 << 20  # of a BMP, which Pillow unpacks in Python
_NS_A_RLE_BYTE, _NS_A_PHOTOSHOP_BYTE = 600, 250

_EXIF, _PHOTOSHOP = b"Exif\0\0", b"Photoshop 3.0\0"
_TIFF_ORDERS = {b"II*\0": "<", b"MM\0*": ">", b"MM*\0": ">", b"II\0*": "<", b"II+\0": "<", b"MM\0+": ">"}
_TILE_WIDTH, _TILE_LENGTH, _WIDTH, _LENGTH = 322, 323, 256, 257
_SOFS = frozenset({0xC0, 0xC1, 0xC2, 0xC3, 0xC5, 0xC6, 0xC7, 0xC9, 0xCA, 0xCB, 0xCD, 0xCE, 0xCF})
_ALONE = frozenset({0x01, *range(0xD0, 0xDA)})  # markers without a length


@dataclass(frozen=True)
class JpegFrame:
    """From the frame header: samples per pixel after subsampling, and whether the picture is progressive."""

    samples_a_pixel: float
    is_progressive: bool


def check_parts(data: bytes) -> None:
    """Refuse an encoded picture with too many parts; all other faults are left to its reader.

    Raises:
        PayloadTooLarge: too many parts.
        UnsuitableImage: several pages.
    """
    for magic, check in _CHECKS.items():
        if data.startswith(magic):
            check(data)
            return


def jpeg_frame(data: bytes) -> JpegFrame:
    """Walk a JPEG up to its first scan.

    Raises:
        PayloadTooLarge: more segments or junk than the limits.
    """
    position, segments, junk, exif_bytes, photoshop_bytes = 2, 0, 0, 0, 0
    frame = JpegFrame(3.0, is_progressive=False)
    while position + 4 <= len(data):
        if data[position] != 0xFF:
            found = data.find(b"\xff", position)
            junk, position = junk + (found if found >= 0 else len(data)) - position, found
        elif data[position + 1] in (0xFF, 0x00):
            junk, position = junk + 1, position + 1
        else:
            marker, segments = data[position + 1], segments + 1
            if marker == 0xDA:
                break
            length = 0 if marker in _ALONE else struct.unpack_from(">H", data, position + 2)[0]
            segment = data[position + 4 : position + 2 + length]
            if marker in _SOFS:
                frame = _frame_of(segment, marker)
            exif_bytes += length if marker == 0xE1 and segment.startswith(_EXIF) else 0
            photoshop_bytes += length if marker == 0xED and segment.startswith(_PHOTOSHOP) else 0
            position += 2 + length
        if segments > MAX_SEGMENTS:
            raise PayloadTooLarge(f"a JPEG with more than {MAX_SEGMENTS} segments; save the picture again")
        if junk > MAX_JUNK_BYTES:
            raise PayloadTooLarge(f"a JPEG with more than {MAX_JUNK_BYTES} junk bytes; save the picture again")
        if exif_bytes > MAX_EXIF_BYTES:
            raise PayloadTooLarge(f"a JPEG with more than {MAX_EXIF_BYTES} bytes of EXIF; save the picture again")
        if position < 0:
            break
    spend_work(photoshop_bytes * _NS_A_PHOTOSHOP_BYTE, "the Photoshop data of a JPEG")
    return frame


def _frame_of(segment: bytes, marker: int) -> JpegFrame:
    end = min(6 + 3 * segment[5], len(segment)) if len(segment) > 5 else 0
    factors = [segment[place] for place in range(7, end, 3)]
    across, down = [factor >> 4 for factor in factors], [factor & 15 for factor in factors]
    most = max(across, default=1) * max(down, default=1)
    samples = sum(a * d for a, d in zip(across, down, strict=True)) / most if most else 4.0
    return JpegFrame(min(samples or 3.0, 4.0), is_progressive=marker in (0xC2, 0xC6, 0xCA, 0xCE))


def _check_jpeg(data: bytes) -> None:
    jpeg_frame(data)


def _check_png(data: bytes) -> None:
    _check_chunks(data, 8, ">", has_tag_first=False, more_bytes=12)


def _check_webp(data: bytes) -> None:
    if data[8:12] != b"WEBP":
        return
    _check_chunks(data, 12, "<", has_tag_first=True, more_bytes=8)
    kind, body = data[12:16], data[20:30].ljust(10, b"\0")
    if kind == b"VP8X":
        width, height = (1 + int.from_bytes(body[place : place + 3], "little") for place in (4, 7))
    elif kind == b"VP8L":
        bits = int.from_bytes(body[1:5], "little")
        width, height = 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)
    else:
        width, height = (part & 0x3FFF for part in struct.unpack("<2H", body[6:10]))
    check_pixels(width, height)  # libwebp allocates its canvas when the file is opened


def check_pixels(width: int, height: int) -> None:
    """Refuse more than MAX_PIXELS with PayloadTooLarge."""
    if width * height > MAX_PIXELS:
        raise PayloadTooLarge(f"{width} x {height} pixels are more than {MAX_PIXELS}; shrink the picture")


def _check_chunks(data: bytes, position: int, order: str, *, has_tag_first: bool, more_bytes: int) -> None:
    count, most = 0, MAX_CHUNKS + (len(data) >> 10)
    place = 4 if has_tag_first else 0
    while position + 8 <= len(data):
        count += 1
        if count > most:
            raise PayloadTooLarge(f"a picture in more than {most} chunks; save it again")
        length = struct.unpack_from(f"{order}L", data, position + place)[0]
        position += more_bytes + length + (length & 1 if has_tag_first else 0)


def _check_tiff(data: bytes) -> None:
    order = _TIFF_ORDERS[data[:4]]
    is_big = b"+" in data[:4]
    entry, head = ("HHQ8s", "Q") if is_big else ("HHL4s", "H")
    try:
        [start] = struct.unpack_from(f"{order}{'Q' if is_big else 'L'}", data, 8 if is_big else 4)
        [count] = struct.unpack_from(f"{order}{head}", data, start)
        if count > MAX_TAGS:
            raise PayloadTooLarge(f"a TIFF with more than {MAX_TAGS} tags; save the picture again")
        values: dict[int, int] = {}
        first, size = start + struct.calcsize(f"{order}{head}"), struct.calcsize(f"{order}{entry}")
        for place in range(count):
            tag, kind, _, raw = struct.unpack_from(f"{order}{entry}", data, first + place * size)
            values[tag] = int.from_bytes(raw[: {3: 2, 4: 4, 16: 8}.get(kind, 4)], "little" if order == "<" else "big")
        [following] = struct.unpack_from(f"{order}{'Q' if is_big else 'L'}", data, first + count * size)
    except (struct.error, OverflowError):
        return  # broken, as Pillow will report
    if following:
        raise UnsuitableImage("the file has several frames or pages; send one picture")
    tile = values.get(_TILE_WIDTH, 0) * values.get(_TILE_LENGTH, 0)
    if tile > max(MAX_TILE_PIXELS, 2 * values.get(_WIDTH, 0) * values.get(_LENGTH, 0)):
        raise PayloadTooLarge("a TIFF whose tiles are larger than the picture; save it again")


def _check_bmp(data: bytes) -> None:
    if len(data) < 34 or struct.unpack_from("<L", data, 30)[0] not in (1, 2):  # BI_RLE8, BI_RLE4
        return
    if len(data) > MAX_RLE_BYTES:
        raise PayloadTooLarge(f"a BMP of more than {MAX_RLE_BYTES} bytes of run lengths; save it as PNG")
    spend_work(len(data) * _NS_A_RLE_BYTE, "the run lengths of a BMP")


_CHECKS: dict[bytes, Callable[[bytes], None]] = {
    b"\xff\xd8": _check_jpeg,
    b"\x89PNG\r\n\x1a\n": _check_png,
    b"RIFF": _check_webp,
    b"BM": _check_bmp,
    **dict.fromkeys(_TIFF_ORDERS, _check_tiff),
}
