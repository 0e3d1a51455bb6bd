"""PALETTE COLOR: a header's plain or segmented tables, and stored values looked up in them."""

import struct
from collections.abc import Sequence

import numpy as np
from pydicom import Dataset

from sagemaker_monai.errors import UndecodableImage
from sagemaker_monai.images.dicom.elements import value

_COLOURS = ("Red", "Green", "Blue")
_BROKEN = "the colour tables of the DICOM file are broken; export it again"
_AT_ONCE = 1 << 20  # pixels looked up at once, with indices of 8 bytes
_MAX_SEGMENTED = 8  # words of a segmented table per entry; a sensible one has fewer than one
_DISCRETE, _LINEAR, _INDIRECT = 0, 1, 2  # segment types, PS3.3 C.7.9.2


def apply_palette(dataset: Dataset, stored: np.ndarray, *, is_little_endian: bool) -> np.ndarray:
    """Look stored values up in the three tables.

    Args:
        dataset: with the Palette Color Lookup Table module.
        stored: (F, H, W), integers.
        is_little_endian: byte order of the file's data set, and so of its tables.

    Returns:
        (F, H, W, 3) RGB, uint8 if the entries have 8 bits, else uint16. Values below the first mapped one get the first
        colour, values beyond the table its last.

    Raises:
        UndecodableImage: no tables, or they contradict their descriptors.

    Source: DICOM PS3.3 C.7.6.3.1.5, C.7.6.3.1.6 and C.7.9.2.
    """
    tables = [palette_table(dataset, colour, is_little_endian=is_little_endian) for colour in _COLOURS]
    first = _descriptor(dataset, "Red")[1]
    if stored.dtype.kind == "i" and first >= 0x8000:  # its VR follows PixelRepresentation, but the parser's may not
        first -= 0x10000
    rgb = np.empty((*stored.shape, 3), np.result_type(*tables))
    for frame, coloured in zip(stored, rgb, strict=True):
        for start in range(0, len(frame), step := max(1, _AT_ONCE // max(frame.shape[1], 1))):
            index = np.clip(frame[start : start + step].astype(np.int64) - first, 0, len(tables[0]) - 1)
            for sample, table in enumerate(tables):
                coloured[start : start + step, :, sample] = table[np.minimum(index, len(table) - 1)]
    return rgb


def _descriptor(dataset: Dataset, colour: str) -> tuple[int, int, int]:
    values = value(dataset, f"{colour}PaletteColorLookupTableDescriptor")
    try:
        count, first, bits = (int(value) for value in values)
    except (TypeError, ValueError) as error:
        raise UndecodableImage(_BROKEN) from error
    if bits not in (8, 16) or not -0x10000 < count < 0x10000:
        raise UndecodableImage(_BROKEN)
    return (count & 0xFFFF) or 0x10000, first, bits  # 0 means 65,536; a signed parser reads 40,000 as negative


def palette_table(dataset: Dataset, colour: str, *, is_little_endian: bool) -> np.ndarray:
    """One colour's entries, uint8 if they have 8 bits; a segmented table is expanded.

    Raises:
        UndecodableImage: no table, or it contradicts its descriptor.
    """
    count, _, bits = _descriptor(dataset, colour)
    order = "<" if is_little_endian else ">"
    plain = value(dataset, f"{colour}PaletteColorLookupTableData")
    if isinstance(plain, bytes) and plain:
        # 8-bit entries may be stored one or two to a word, regardless of the descriptor; the length decides.
        width = 1 if len(plain) < 2 * count else 2
        entries = np.frombuffer(plain, np.dtype(f"{order}u{width}"), count=min(count, len(plain) // width))
        if len(entries) < count:
            raise UndecodableImage(_BROKEN)
        entries = _swapped(entries) if width == 1 and not is_little_endian else entries
    else:
        segmented = value(dataset, f"Segmented{colour}PaletteColorLookupTableData")
        if not isinstance(segmented, bytes) or len(segmented) < 2:
            raise UndecodableImage("the DICOM file is PALETTE COLOR but has no colour tables; export it again")
        code = "B" if bits == 8 else "H"
        data = struct.unpack(f"{order}{len(segmented) // (bits // 8)}{code}", segmented[: len(segmented) // 2 * 2])
        entries = np.array(_expand(data, count, bits), np.uint16)
    if bits == 8 or entries.dtype.itemsize == 1:
        return entries.astype(np.uint8)
    return entries.astype(np.uint16)


def _swapped(entries: np.ndarray) -> np.ndarray:
    even = len(entries) // 2 * 2
    return np.concatenate([entries[:even].reshape(-1, 2)[:, ::-1].ravel(), entries[even:]])


def _expand(data: Sequence[int], count: int, bits: int) -> list[int]:
    """Expand a segmented table to at most `count` entries: nested repetitions could double it each time."""
    table: list[int] = []
    position = 0
    if len(data) > _MAX_SEGMENTED * count:
        raise UndecodableImage(_BROKEN)
    while position + 1 < len(data) and len(table) < count:
        if data[position] == _INDIRECT:
            position = _repeat(data, position, table, count, bits)
        else:
            position = _segment(data, position, table, count)
    if len(table) < count:
        raise UndecodableImage(_BROKEN)
    return table[:count]


def _segment(data: Sequence[int], position: int, table: list[int], count: int) -> int:
    """Append one discrete or linear segment; returns the position of the next."""
    if position + 2 >= len(data):
        raise UndecodableImage(_BROKEN)
    kind, length = data[position], data[position + 1]
    if kind == _DISCRETE:
        table.extend(data[position + 2 : position + 2 + length])
        return position + 2 + length
    if kind != _LINEAR or not table:
        raise UndecodableImage(_BROKEN)
    last, goal = table[-1], data[position + 2]
    steps = np.arange(1, min(length, count) + 1)
    table.extend(np.rint(last + (goal - last) * steps / max(length, 1)).astype(int).tolist())
    return position + 3


def _repeat(data: Sequence[int], position: int, table: list[int], count: int, bits: int) -> int:
    """Append the segments that an indirect one points to; they must be discrete or linear."""
    words = 4 if bits == 8 else 2  # entries that the 32-bit byte offset takes, least significant first
    pointer = data[position + 2 : position + 2 + words]
    if len(pointer) < words or not table:
        raise UndecodableImage(_BROKEN)
    source = sum(part << (bits * place) for place, part in enumerate(pointer)) // (bits // 8)
    before = len(table)
    for repeated in range(data[position + 1]):
        if source + 1 >= len(data) or data[source] == _INDIRECT or len(table) >= count:
            break
        if repeated > len(table) - before:  # empty segments could be repeated forever
            raise UndecodableImage(_BROKEN)
        source = _segment(data, source, table, count)
    return position + 2 + words
