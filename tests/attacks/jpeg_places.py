"""Places of a JPEG or JPEG-LS picture where a text can be put so that decoders show the same picture."""

import re
import struct
from collections.abc import Callable

Hide = Callable[[bytes, bytes], bytes]  # gets a picture of an encoder and a text, returns the picture with the text


def segment(marker: int, content: bytes) -> bytes:
    return struct.pack(">BBH", 0xFF, marker, 2 + len(content)) + content


def start_of(picture: bytes, *markers: int) -> int:
    """Where the first segment with one of these markers begins; the header has no others that look like them."""
    position = 2
    while picture[position + 1] not in markers:
        position += 2 + int.from_bytes(picture[position + 2 : position + 4], "big")
    return position


def before(picture: bytes, inserted: bytes, *markers: int) -> bytes:
    place = start_of(picture, *markers)
    return picture[:place] + inserted + picture[place:]


SCAN = 0xDA
FRAMES = (0xC0, 0xC1, 0xC2, 0xC3, 0xF7)


def _behind_codes(picture: bytes, text: bytes) -> bytes:
    end = picture.rindex(b"\xff\xd9")
    return picture[:end] + text.replace(b"\xff", b"\xff\0") + picture[end:]


def _before_a_restart(picture: bytes, text: bytes) -> bytes:
    found = re.search(rb"\xff[\xd0-\xd7]", picture[start_of(picture, SCAN) :])
    if found is None:
        return _behind_codes(picture, text)
    place = start_of(picture, SCAN) + found.start()
    return picture[:place] + text.replace(b"\xff", b"\xff\0") + picture[place:]


def _in_component_ids(picture: bytes, text: bytes) -> bytes:
    """Three bytes, which is all that fits."""
    changed = bytearray(picture)
    frame = start_of(picture, *FRAMES)
    count = picture[frame + 9]
    ids = dict(zip((picture[frame + 10 + 3 * index] for index in range(count)), text, strict=False))
    if len(set(ids.values())) < count:
        return picture
    for index, new in enumerate(ids.values()):
        changed[frame + 10 + 3 * index] = new
    for scan in (found.start() for found in re.finditer(rb"\xff\xda\x00[\x06\x08\x0a\x0c\x0e][\x01-\x04]", picture)):
        for index in range(picture[scan + 4]):
            place = scan + 5 + 2 * index
            changed[place] = ids[picture[place]]
    return bytes(changed)


def _quantization(text: bytes) -> bytes:
    return segment(0xDB, b"\3" + text.replace(b"\0", b"1").ljust(64, b"1")[:64])


def _huffman(text: bytes) -> bytes:
    symbols = bytes(sorted(set(text)))[:200]
    return segment(0xC4, b"\x13" + bytes(15) + bytes((len(text[:200]),)) + (text if symbols else b"")[:200])


JPEG_PLACES: dict[str, Hide] = {
    "a comment": lambda picture, text: picture[:2] + segment(0xFE, text) + picture[2:],
    "a comment before the scan": lambda picture, text: before(picture, segment(0xFE, text), SCAN),
    "a comment in several parts": lambda picture, text: (
        picture[:2] + b"".join(segment(0xFE, text[index : index + 1]) for index in range(len(text))) + picture[2:]
    ),
    "JFIF's thumbnail": lambda picture, text: (
        picture[:2] + segment(0xE0, b"JFIF\0\1\1\0\0\1\0\1\1" + bytes((len(text),)) + 3 * text) + picture[2:]
        if b"JFIF" in picture[:16]
        else picture[:2] + segment(0xE0, b"JFXX\0\x10" + text) + picture[2:]
    ),
    "JFIF extension": lambda picture, text: picture[:2] + segment(0xE0, b"JFXX\0\x10" + text) + picture[2:],
    "Exif": lambda picture, text: before(picture, segment(0xE1, b"Exif\0\0II*\0" + text), *FRAMES),
    "a colour profile's segment": lambda picture, text: before(
        picture, segment(0xE2, b"ICC_PROFILE\0\1\1" + text), SCAN
    ),
    "MPF": lambda picture, text: before(picture, segment(0xE2, b"MPF\0" + text), SCAN),
    "APP13": lambda picture, text: before(picture, segment(0xED, b"Photoshop 3.0\0" + text), SCAN),
    "SPIFF": lambda picture, text: before(picture, segment(0xE8, b"SPIFF\0" + text), SCAN),
    "behind HP's transform": lambda picture, text: before(picture, segment(0xE8, b"mrfx\0" + text), SCAN),
    "behind Adobe's transform": lambda picture, text: picture.replace(
        segment(0xEE, b"Adobe\0\x64\0\0\0\0\0"), segment(0xEE, b"Adobe\0\x64\0\0\0\0\0" + text)
    ),
    "APP15": lambda picture, text: before(picture, segment(0xEF, text), SCAN),
    "a table that nothing refers to": lambda picture, text: before(picture, _quantization(text), SCAN),
    "codes that nothing refers to": lambda picture, text: before(picture, _huffman(text), SCAN),
    "behind the codes": _behind_codes,
    "before a restart marker": _before_a_restart,
    "between the codes and the end": lambda picture, text: (
        picture[: picture.rindex(b"\xff\xd9")] + segment(0xFE, text) + b"\xff\xd9"
    ),
    "an application segment behind the scan": lambda picture, text: (
        picture[: picture.rindex(b"\xff\xd9")] + segment(0xE1, text) + b"\xff\xd9"
    ),
    "behind the end": lambda picture, text: picture + text,
    "another picture behind the end": lambda picture, text: picture + picture[:2] + segment(0xFE, text) + picture[2:],
    "the names of components": _in_component_ids,
}
