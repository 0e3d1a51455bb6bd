"""Lookup tables of Modality LUT Sequence and VOI LUT Sequence."""

import numpy as np
from pydicom import Dataset

from sagemaker_monai.errors import UndecodableImage
from sagemaker_monai.images.dicom.elements import value

_BROKEN = "a lookup table of the DICOM file is broken; export it again"


def read_lut(item: Dataset, *, is_signed: bool, is_little_endian: bool) -> tuple[int, int, np.ndarray]:
    """Read LUTDescriptor and LUTData.

    Args:
        item: of the sequence.
        is_signed: the input, and so the first mapped value, may be negative.
        is_little_endian: byte order of the file's data set.

    Returns:
        The first mapped value, bits of an entry (8 to 16), and the entries as uint16. A table shorter than its
        descriptor says is used as it is: values beyond it get its last entry either way.

    Raises:
        UndecodableImage: it is empty, or contradicts its descriptor.

    Source: DICOM PS3.3 C.11.1.1.1 and C.11.2.1.1.
    """
    descriptor, data = value(item, "LUTDescriptor"), value(item, "LUTData")
    try:
        count, first, bits = (int(part) for part in descriptor)
    except (TypeError, ValueError, OverflowError) as error:
        raise UndecodableImage(_BROKEN) from error
    # 0 means 65,536 entries. The VR of a descriptor is ambiguous: parsers read its parts as signed or unsigned.
    count = (count & 0xFFFF) or 0x10000
    first = (first & 0xFFFF) - 0x10000 if is_signed and first & 0x8000 else first & 0xFFFF
    if not 8 <= bits <= 16:
        raise UndecodableImage(_BROKEN)
    if isinstance(data, bytes):
        # 8-bit entries are stored one or two to a word; the length tells.
        width = 1 if len(data) < 2 * count and bits == 8 else 2
        kind = np.dtype(f"{'<' if is_little_endian else '>'}u{width}")
        entries = np.frombuffer(data, kind, count=min(count, len(data) // width))
    else:
        parts = [data] if isinstance(data, int) else list(data or ())
        entries = np.array([int(part) & 0xFFFF for part in parts[:count]], np.uint16)
    if not len(entries):
        raise UndecodableImage(_BROKEN)
    return first, bits, entries.astype(np.uint16)


def look_up(values: np.ndarray, first: int, table: np.ndarray) -> np.ndarray:
    """Entries of `table` for `values`, starting at `first`; values outside get the first or last entry."""
    index = np.rint(values).astype(np.int64) if values.dtype.kind == "f" else values.astype(np.int64)
    found: np.ndarray = table[np.clip(index - first, 0, len(table) - 1)]
    return found
