"""Lookup tables that are kept: cut to the length in their descriptor, and without anything that reads like text.

Apart from pixel data, only these binary values are kept, because values and colours depend on them: modality and VOI
tables, palettes. Segmented palettes, which have no stated length, are written as plain ones.
"""

import re

import numpy as np
from pydicom import Dataset
from pydicom.dataelem import DataElement

from sagemaker_monai.errors import UnsuitableImage
from sagemaker_monai.images.dicom.elements import tag_of, value
from sagemaker_monai.images.dicom.palettes import palette_table

_COLOURS = ("Red", "Green", "Blue")
_DESCRIPTORS: dict[int, str] = {
    tag_of("LUTData"): "LUTDescriptor",
    **{
        tag_of(f"{colour}PaletteColorLookupTableData"): f"{colour}PaletteColorLookupTableDescriptor"
        for colour in _COLOURS
    },
}
LOOKUP_TABLES = frozenset(_DESCRIPTORS)
SEGMENTED: dict[int, tuple[str, int]] = {
    tag_of(f"Segmented{colour}PaletteColorLookupTableData"): (colour, tag_of(f"{colour}PaletteColorLookupTableData"))
    for colour in _COLOURS
}
# Curves rise or fall over long stretches; text goes up and down with every other letter.
_TEXT = re.compile(rb"[A-Za-z0-9 ^.,/@:-]{6,}")


def checked_table(dataset: Dataset, tag: int, data: bytes, *, is_little_endian: bool) -> bytes:
    """The entries that a table's descriptor announces.

    Args:
        dataset: the data set or item with the table.
        tag: one of LOOKUP_TABLES.
        data: its value.
        is_little_endian: the byte order of 16-bit entries.

    Raises:
        UnsuitableImage: no descriptor, entries of more bits than it says, or something that reads like text.
    """
    descriptor = value(dataset, _DESCRIPTORS[tag])
    try:
        count, _, bits = (int(part) for part in descriptor)
    except (TypeError, ValueError, OverflowError) as error:
        if not data:
            return data
        raise UnsuitableImage("a lookup table of the header has no descriptor; export the file again") from error
    count = (count & 0xFFFF) or 0x10000
    if not 8 <= bits <= 16:
        raise UnsuitableImage("the descriptor of a lookup table of the header is broken; export the file again")
    is_palette = "Palette" in _DESCRIPTORS[tag]
    is_narrow = len(data) < 2 * count and (bits == 8 or is_palette)  # the same rule as the readers'
    kept = data[: (count + count % 2) if is_narrow else 2 * count]
    if is_palette and bits == 8 and not is_narrow:  # only the low bytes are read
        kept = (np.frombuffer(kept, "<u2" if is_little_endian else ">u2") & 0xFF).tobytes()
    entries = np.frombuffer(kept[: len(kept) // 2 * 2], "u1" if is_narrow else ("<u2" if is_little_endian else ">u2"))
    padding = kept[count:] if is_narrow else b""
    if any(padding) or (not is_narrow and 8 <= bits < 16 and len(entries) and int(entries.max()) >> bits):
        raise UnsuitableImage("a lookup table of the header contains more than its descriptor says; export it again")
    if _reads_like_text(entries):
        raise UnsuitableImage(
            "a lookup table of the header contains something that reads like text, so it cannot be proved to be clean; "
            "export the file again, or leave it out"
        )
    return kept


def _reads_like_text(entries: np.ndarray) -> bool:
    """Whether consecutive letters, one or two per entry, go up and down."""
    width = entries.dtype.itemsize
    letters = np.where(entries < 128, entries, 0).astype(np.uint8).tobytes()  # one to an entry
    for data, size, most in ((entries.tobytes(), width, 2 - width), (letters, 1, 1)):
        for match in _TEXT.finditer(data):
            part = entries[match.start() // size : -(-match.end() // size)].astype(np.int64)
            rises = np.diff(part)[np.diff(part) != 0] > 0
            if int(np.count_nonzero(rises[1:] != rises[:-1])) > most:
                return True
    return False


def plain_palette(dataset: Dataset, tag: int, *, is_little_endian: bool) -> DataElement | None:
    """The plain form of a segmented palette, 16 bits per entry; None if the data set has a plain one too.

    Raises:
        UndecodableImage: the segments are broken.
    """
    colour, plain = SEGMENTED[tag]
    if plain in dataset:
        return None
    entries = palette_table(dataset, colour, is_little_endian=is_little_endian)
    return DataElement(plain, "OW", entries.astype("<u2" if is_little_endian else ">u2").tobytes())
