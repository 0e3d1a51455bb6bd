"""Places in a DICOM object's pixel data that can hold a text without changing the pixels.

Each place takes a valid dataset, which it changes, and the text.
"""

import struct
from collections.abc import Callable
from itertools import pairwise

import numpy as np
from pydicom import Dataset
from pydicom.dataelem import DataElement
from pydicom.encaps import encapsulate, generate_frames
from pydicom.sequence import Sequence

from tests.attacks.jpeg_places import JPEG_PLACES

Hide = Callable[[Dataset, bytes], None]
Change = Callable[[bytes, bytes], bytes]  # of one compressed frame


def even(data: bytes) -> bytes:
    return data + bytes(len(data) % 2)


def _set(dataset: Dataset, data: bytes) -> None:
    element = dataset["PixelData"]
    dataset["PixelData"] = DataElement(0x7FE00010, element.VR, even(data))
    dataset["PixelData"].is_undefined_length = element.is_undefined_length


def _behind(dataset: Dataset, text: bytes) -> None:
    _set(dataset, dataset.PixelData + text)


def _in_high_bits(dataset: Dataset, text: bytes) -> None:
    """Four bits of each cell above the lower twelve; the values become those of the lower twelve."""
    cells = np.frombuffer(dataset.PixelData, "<u2").copy()
    count = min(len(text), len(cells) // 2)
    letters = np.frombuffer(text[:count], np.uint8)
    cells[: 2 * count : 2] = cells[: 2 * count : 2] & 0xFFF | (letters >> 4).astype("<u2") << 12
    cells[1 : 2 * count : 2] = cells[1 : 2 * count : 2] & 0xFFF | (letters & 15).astype("<u2") << 12
    dataset.BitsStored, dataset.HighBit = 12, 11
    _set(dataset, cells.tobytes())


def _in_low_bits(dataset: Dataset, text: bytes) -> None:
    """The lower byte of cells whose value is the upper one."""
    cells = bytearray(dataset.PixelData)
    cells[: 2 * len(text) : 2] = text[: len(cells[: 2 * len(text) : 2])]
    dataset.BitsStored, dataset.HighBit = 8, 15
    _set(dataset, bytes(cells))


def _icon(dataset: Dataset, text: bytes) -> None:
    icon = Dataset()
    icon.Rows = icon.Columns = 2
    icon.add_new(0x7FE00010, "OB", even(text))
    dataset.IconImageSequence = Sequence([icon])


def _nested(dataset: Dataset, text: bytes) -> None:
    item = Dataset()
    item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = "1.2.840.10008.5.1.4.1.1.2", "1.2.3.4.5.6"
    item.add_new(0x7FE00010, "OW", even(text))
    item.add_new(0x7FE00008, "OF", text * 4)
    dataset.ReferencedImageSequence = Sequence([item])


def _beside(tag: int, vr: str, size: int) -> Hide:
    def hide(dataset: Dataset, text: bytes) -> None:
        dataset.add_new(tag, vr, text * size)

    return hide


NATIVE_PLACES: dict[str, Hide] = {
    "behind the last frame": _behind,
    "bits above BitsStored": _in_high_bits,
    "bits below the value": _in_low_bits,
    "an icon": _icon,
    "a picture within a sequence": _nested,
    "floating-point pixels beside": _beside(0x7FE00008, "OF", 4),
    "doubles beside": _beside(0x7FE00009, "OD", 8),
    "an offset table": _beside(0x7FE00001, "OV", 8),
    "lengths of frames": _beside(0x7FE00002, "OV", 8),
    "an unknown element of the group": _beside(0x7FE00020, "OW", 2),
}


def _frames(dataset: Dataset) -> list[bytes]:
    return list(generate_frames(dataset.PixelData, number_of_frames=int(dataset.get("NumberOfFrames") or 1)))


def _item(data: bytes) -> bytes:
    return struct.pack("<LL", 0xE000FFFE, len(data)) + data


def _in_offset_table(dataset: Dataset, text: bytes) -> None:
    frames = _frames(dataset)
    table = encapsulate(frames)[8 : 8 + 4 * len(frames)]
    padded = text + bytes(-len(text) % 4)
    _set(dataset, _item(table + padded) + b"".join(_item(even(frame)) for frame in frames))


def _in_parts(dataset: Dataset, text: bytes) -> None:
    """Each frame in two fragments, the last with text."""
    frames = _frames(dataset)
    parts = [part for frame in frames for part in (frame[:10], even(frame[10:]))]
    parts[-1] = even(parts[-1] + text)
    places, place = [], 0
    for first, second in zip(parts[::2], parts[1::2], strict=True):
        places.append(place)
        place += 16 + len(first) + len(second)
    _set(dataset, _item(struct.pack(f"<{len(places)}L", *places)) + b"".join(map(_item, parts)))


def _one_more(dataset: Dataset, text: bytes) -> None:
    frames = _frames(dataset)
    _set(dataset, encapsulate([*frames, even(text)], has_bot=True))
    if len(frames) == 1:
        dataset.NumberOfFrames = 1


def _in_frames(change: Change) -> Hide:
    def hide(dataset: Dataset, text: bytes) -> None:
        _set(dataset, encapsulate([even(change(frame, text)) for frame in _frames(dataset)]))

    return hide


FRAGMENT_PLACES: dict[str, Hide] = {
    "the offset table": _in_offset_table,
    "fragments": _in_parts,
    "a frame too many": _one_more,
    "an extended offset table": _beside(0x7FE00001, "OV", 8),
    "lengths of frames": _beside(0x7FE00002, "OV", 8),
    "an icon": _icon,
    "a picture within a sequence": _nested,
    "floating-point pixels beside": _beside(0x7FE00008, "OF", 4),
}


def _j2k_segment(marker: int, content: bytes) -> bytes:
    return struct.pack(">HH", marker, 2 + len(content)) + content


def _j2k_before_tiles(marker: int, head: bytes = b"") -> Change:
    def change(frame: bytes, text: bytes) -> bytes:
        place = frame.index(b"\xff\x90\x00\x0a")
        return frame[:place] + _j2k_segment(marker, head + text) + frame[place:]

    return change


def _j2k_in_tile(marker: int, head: bytes = b"") -> Change:
    def change(frame: bytes, text: bytes) -> bytes:
        place = frame.index(b"\xff\x90\x00\x0a")
        length = struct.unpack(">L", frame[place + 6 : place + 10])[0]
        segment = _j2k_segment(marker, head + text)
        new = struct.pack(">L", length + len(segment) if length else 0)
        return frame[: place + 6] + new + frame[place + 10 : place + 12] + segment + frame[place + 12 :]

    return change


def _j2k_longer(marker: int) -> Change:
    """Text behind what a segment of the main header means."""

    def change(frame: bytes, text: bytes) -> bytes:
        place = frame.find(struct.pack(">H", marker))
        length = struct.unpack(">H", frame[place + 2 : place + 4])[0]
        end = place + 2 + length
        longer = struct.pack(">H", length + len(text))
        return frame[: place + 2] + longer + frame[place + 4 : end] + text + frame[end:]

    return change


def _in_jp2(frame: bytes, text: bytes) -> bytes:
    def box(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">L", 8 + len(content)) + kind + content

    return (
        box(b"jP  ", b"\r\n\x87\n")
        + box(b"ftyp", b"jp2 \0\0\0\0jp2 ")
        + box(b"xml ", text)
        + box(b"uuid", bytes(16) + text)
        + box(b"jp2c", frame)
        + box(b"xml ", text)
    )


def _behind_packets(frame: bytes, text: bytes) -> bytes:
    """Within the last tile-part, whose length says so."""
    place = frame.rindex(b"\xff\x90\x00\x0a")
    length = struct.unpack(">L", frame[place + 6 : place + 10])[0]
    end = frame.rindex(b"\xff\xd9")
    new = struct.pack(">L", length + len(text) if length else 0)
    return frame[: place + 6] + new + frame[place + 10 : end] + text + frame[end:]


def _one_tile_part_more(frame: bytes, text: bytes) -> bytes:
    end = frame.rindex(b"\xff\xd9")
    part = _j2k_segment(0xFF90, struct.pack(">HLBB", 0, 14 + len(text), 1, 0)) + b"\xff\x93" + text
    return frame[:end] + part + frame[end:]


J2K_PLACES: dict[str, Change] = {
    "a comment": _j2k_before_tiles(0xFF64, b"\0\1"),
    "a comment of a tile": _j2k_in_tile(0xFF64, b"\0\1"),
    "registration": _j2k_before_tiles(0xFF63),
    "lengths of tile-parts": _j2k_before_tiles(0xFF55, b"\0\x60"),
    "lengths of packets": _j2k_before_tiles(0xFF57, b"\0"),
    "lengths of a tile's packets": _j2k_in_tile(0xFF58, b"\0"),
    "profile": _j2k_before_tiles(0xFF59),
    "a marker of no meaning": _j2k_before_tiles(0xFF30),
    "behind the quantization": _j2k_longer(0xFF5C),
    "behind the coding style": _j2k_longer(0xFF52),
    "behind the size": _j2k_longer(0xFF51),
    "boxes of JP2": _in_jp2,
    "behind the end": lambda frame, text: frame + text,
    "behind the end, as another end": lambda frame, text: frame + text + b"\xff\xd9",
    "before the end": lambda frame, text: frame[:-2] + text + frame[-2:],
    "behind the packets": _behind_packets,
    "a tile-part too many": _one_tile_part_more,
}


def _rle_parts(frame: bytes) -> tuple[int, list[bytes]]:
    count, *offsets = struct.unpack("<16L", frame[:64])
    places = [*offsets[:count], len(frame)]
    return count, [frame[start:end] for start, end in pairwise(places)]


def _rle_of(parts: list[bytes], first: int = 64, gap: bytes = b"", rest: bytes = b"") -> bytes:
    places, place = [], first
    for part in parts:
        places.append(place)
        place += len(part) + len(gap)
    header = struct.pack(f"<{1 + len(parts)}L", len(parts), *places)
    return header + rest.ljust(64 - len(header), b"\0")[: 64 - len(header)] + bytes(0) + gap.join(parts)


def _rle_runs_of_nothing(frame: bytes, text: bytes) -> bytes:
    """Bits of the text as runs that say nothing, or none, before each run."""
    _, parts = _rle_parts(frame)
    segment, position, out = parts[0], 0, b""
    bits = "".join(f"{letter:08b}" for letter in text)
    for bit in bits:
        if position + 1 >= len(segment):
            break
        code = segment[position]
        length = code + 2 if code < 128 else 2 if code > 128 else 1
        out += b"\x80" * int(bit) + segment[position : position + length]
        position += length
    return _rle_of([even(out + segment[position:]), *parts[1:]])


RLE_PLACES: dict[str, Change] = {
    "behind the runs": lambda frame, text: _rle_of([even(part + text) for part in _rle_parts(frame)[1]]),
    "before the segments": lambda frame, text: (
        _rle_of(_rle_parts(frame)[1], first=64 + len(text))[:64] + text + b"".join(_rle_parts(frame)[1])
    ),
    "between the segments": lambda frame, text: _rle_of(_rle_parts(frame)[1], gap=text),
    "unused offsets": lambda frame, text: _rle_of(_rle_parts(frame)[1], rest=text),
    "behind the frame": lambda frame, text: frame + text,
    "runs that say nothing": _rle_runs_of_nothing,
}

FRAME_PLACES: dict[str, dict[str, Change]] = {"JPEG": JPEG_PLACES, "J2K": J2K_PLACES, "RLE": RLE_PLACES}


def places_of(family: str) -> dict[str, Hide]:
    """All places of a compressed object: JPEG (JPEG-LS too), J2K (HTJ2K too), RLE, or of a native one: ""."""
    if not family:
        return NATIVE_PLACES
    return FRAGMENT_PLACES | {f"{family}: {name}": _in_frames(change) for name, change in FRAME_PLACES[family].items()}
