"""What a camera writes beside the picture: place, time, owner, and comments. It goes; the picture stays, bit for bit.

JPEG and PNG lose their segments and chunks of text without being compressed again. Which way up the picture is stays,
for whoever reads it turns it; so does the colour profile. TIFF and WebP cannot be cut so: what is in them is found, not
removed. What a phone appends behind the picture's end is not looked at.

Sources: Exif 2.32 (APP1, tag 274); ITU T.81, B.1 (segments); PNG, third edition, 11.3 (chunks).
"""

import io
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

CLEANED = (".jpg", ".jpeg", ".png")
LOOKED_AT = (".tif", ".tiff", ".webp")
ORIENTATION = 274
# Of TIFF and WebP: image description, date, artist, host, copyright, XMP, IPTC, GPS, owner, and Exif's own dates.
TELLING_TAGS = frozenset({270, 306, 315, 316, 33432, 700, 33723, 34853, 36867, 36868, 37510, 42032})
EXIF_POINTER = 34665
_PNG = b"\x89PNG\r\n\x1a\n"
_PNG_TEXTS = frozenset({b"tEXt", b"zTXt", b"iTXt", b"tIME", b"eXIf"})
_APP1, _APP13, _COMMENT, _SCAN = 0xE1, 0xED, 0xFE, 0xDA
_EXIF = b"Exif\0\0"


@dataclass(frozen=True)
class _Segment:
    """A marker segment of a JPEG: its marker, and its bytes with marker and length."""

    marker: int
    content: bytes


def cleaned(content: bytes) -> bytes:
    """A JPEG or PNG without what tells who, where and when; anything else, broken ones too, as it is."""
    if content.startswith(b"\xff\xd8"):
        return _jpeg(content)
    return _png(content) if content.startswith(_PNG) else content


def telling(path: Path) -> bool:
    """Whether a TIFF or WebP has texts, dates or a place; False for a file that is none."""
    try:
        with Image.open(path) as image:
            exif = image.getexif()
            return bool(TELLING_TAGS & (set(exif) | set(exif.get_ifd(EXIF_POINTER)))) or "xmp" in image.info
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError, struct.error):
        return False


def _orientation(content: bytes) -> int:
    try:
        with Image.open(io.BytesIO(content)) as image:
            return int(image.getexif().get(ORIENTATION, 1))
    except (OSError, ValueError, TypeError, SyntaxError, Image.DecompressionBombError, struct.error):
        return 1


def _exif(orientation: int) -> bytes:
    """TIFF header and one directory with the orientation alone; nothing for a picture that is upright."""
    if not 2 <= orientation <= 8:
        return b""
    return b"MM\0*" + struct.pack(">IHHHIHHI", 8, 1, ORIENTATION, 3, 1, orientation, 0, 0)


def _segments(content: bytes) -> Iterator[_Segment]:
    """The segments before the first scan, and everything from there on as one.

    Raises:
        ValueError: it is not made of segments.
    """
    position = 2
    while position < len(content):
        if content[position] != 0xFF or position + 4 > len(content):
            raise ValueError("no marker")
        marker = content[position + 1]
        if marker == _SCAN:
            yield _Segment(marker, content[position:])
            return
        if marker == 0xFF:  # a fill byte
            position += 1
            continue
        end = position + 2 + int.from_bytes(content[position + 2 : position + 4], "big")
        yield _Segment(marker, content[position:end])
        position = end
    raise ValueError("no scan")


def _jpeg(content: bytes) -> bytes:
    try:
        segments = list(_segments(content))
    except ValueError:
        return content
    texts = [each for each in segments if each.marker in (_APP1, _APP13, _COMMENT)]
    exif = _exif(_orientation(content)) if texts else b""
    kept = _EXIF + exif if exif else b""
    head = bytes((0xFF, _APP1)) + struct.pack(">H", 2 + len(kept)) + kept if kept else b""
    if not texts or [each.content for each in texts] == [head]:
        return content
    return b"\xff\xd8" + head + b"".join(each.content for each in segments if each not in texts)


def _png(content: bytes) -> bytes:
    chunks: list[tuple[bytes, bytes]] = []
    position = len(_PNG)
    while position + 12 <= len(content):
        size = int.from_bytes(content[position : position + 4], "big")
        chunks.append((content[position + 4 : position + 8], content[position : position + 12 + size]))
        position += 12 + size
    if position != len(content):
        return content
    texts = [whole for kind, whole in chunks if kind in _PNG_TEXTS]
    exif = _exif(_orientation(content)) if texts else b""
    body = b"eXIf" + exif
    kept = struct.pack(">I", len(exif)) + body + struct.pack(">I", zlib.crc32(body)) if exif else b""
    if not texts or texts == [kept]:
        return content
    header, *others = [whole for kind, whole in chunks if kind not in _PNG_TEXTS]
    return _PNG + header + kept + b"".join(others)
