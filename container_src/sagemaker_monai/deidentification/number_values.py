"""Numbers that are kept: in canonical form, as many as the attribute allows, and none that could be text.

Sixteen digits of a DS can hold a patient's number, and a binary number of eight bytes a name. So decimal texts are
rewritten without unneeded characters, long whole numbers are removed except in the few attributes that have them, and
binary numbers must be plausible: a name read as a number is absurdly large or small.
"""

import re
import struct
from collections.abc import Sequence
from functools import cache
from itertools import pairwise

from pydicom.datadict import dictionary_has_tag, dictionary_VM
from pydicom.tag import Tag

from sagemaker_monai.images.dicom.elements import tag_of

_CODES = {"US": "H", "SS": "h", "UL": "L", "SL": "l", "FL": "f", "FD": "d", "US or SS": "H"}
_SIZES = {code: struct.calcsize(f"<{code}") for code in "HhLlfd"}
BINARY_NUMBERS = frozenset({*_CODES, "AT"})

# The form that nearly every scanner writes; others are rewritten.
_USUAL = re.compile(rb"(?:-?(?:0|[1-9]\d{0,6})(?:\.\d{1,13})?)(?:\\-?(?:0|[1-9]\d{0,6})(?:\.\d{1,13})?)* ?")
_NUMBER = re.compile(r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d{1,3})?", re.ASCII)
_MOST = 1e7  # 19490228 is a date and 12345678 a patient's number
_MOST_TEXT = 16  # bytes of a DS
_LARGE = {
    tag_of(keyword)
    for keyword in (
        "RadionuclideTotalDose",  # Bq
        "CountsAccumulated", "SecondaryCountsAccumulated", "CountRate", "DoseCalibrationFactor",
        "ActualFrameDuration",  # ms
        "SamplingFrequency", "TransmitterFrequency",  # Hz
    )
}  # fmt: skip
# Plausible in any unit that DICOM uses, except for zero.
_LEAST_DOUBLE, _MOST_DOUBLE = 1e-12, 1e12
_LEAST_FLOAT, _MOST_FLOAT = 1e-9, 1e9
# Letters, digits and separators in UTF-8.
_TEXT = re.compile(rb"(?:[A-Za-z0-9 ^.,/-]|[\xC2-\xDF][\x80-\xBF]|[\xE0-\xEF][\x80-\xBF]{2})+")
_MOST_LETTERS = 5  # consecutive bytes of numbers, or numbers that are one character each
_MOST_INDEX = 0x1FFF  # of a frame, slice or the like; larger ones could be two letters
_FIRST_CHARACTER = 32
# Three numbers could be six letters, but not these: the number of bits is small.
_DESCRIPTORS = {
    tag_of(keyword)
    for keyword in (
        "LUTDescriptor", "RedPaletteColorLookupTableDescriptor", "GreenPaletteColorLookupTableDescriptor",
        "BluePaletteColorLookupTableDescriptor",
    )
}  # fmt: skip
_MOST_BITS = 16
# Lists of binary numbers of any length that reading a picture needs.
_LISTS = {
    tag_of(keyword)
    for keyword in (
        "EnergyWindowVector", "DetectorVector", "PhaseVector", "RotationVector", "RRIntervalVector", "TimeSlotVector",
        "SliceVector", "AngularViewVector", "TimeSliceVector", "InversionTimes", "DimensionIndexValues",
        "ReferencedSegmentNumber", "ReferencedFrameNumbers", "FrameNumbersOfInterest", "MaskFrameNumbers",
        "DepthsOfFocus", "FrameIncrementPointer", "AcquisitionMatrix",
    )
}  # fmt: skip
_MULTIPLICITY = re.compile(r"(\d+)(?:-(\d+)|-(\d*)n)?")


@cache
def has_multiplicity(tag: int, count: int) -> bool:
    """Whether an attribute may have this many values (PS3.6); zero is always allowed."""
    match = _MULTIPLICITY.fullmatch(dictionary_VM(tag))
    if count == 0 or match is None:
        return count == 0
    least, most, step = int(match[1]), match[2], match[3]
    if step is not None:
        return count >= least and (count - least) % int(step or 1) == 0
    return least <= count <= int(most or least)


def number_text(tag: int, vr: str, data: bytes) -> bytes | None:
    """A DS or IS in canonical form, of even length; None if it is not a number, or might identify somebody."""
    usual = _USUAL.fullmatch(data) is not None
    if usual and (vr == "DS" or b"." not in data) and has_multiplicity(tag, data.count(b"\\") + 1):
        return data if len(data) % 2 == 0 else data + b" "
    parts = [part.strip(" \0") for part in data.decode("latin-1").split("\\")]
    if not any(parts):
        return b""
    if not has_multiplicity(tag, len(parts)):
        return None
    found = [_written(tag, vr, part) if part else "" for part in parts]
    if None in found:
        return None
    text = "\\".join(part or "" for part in found).encode()
    return text + b" " * (len(text) % 2)


def _written(tag: int, vr: str, part: str) -> str | None:
    if len(part) > 2 * _MOST_TEXT or not _NUMBER.fullmatch(part):
        return None
    value = float(part)
    if value - value != 0 or (abs(value) >= _MOST and tag not in _LARGE):
        return None
    if value.is_integer() and abs(value) < 1e15:
        return str(int(value))
    if vr == "IS":
        return None
    for digits in range(17, 8, -1):  # the most digits that fit
        text = f"{value:.{digits}g}"
        if float(text) == value and len(text) <= _MOST_TEXT:
            return text
    return next(text for digits in range(16, 0, -1) if len(text := f"{value:.{digits}g}") <= _MOST_TEXT)


def whole_numbers(data: bytes) -> list[bytes]:
    """The whole numbers of four or more digits in a DS or IS, without sign and decimals."""
    parts = (part.strip(b" \0").removeprefix(b"-") for part in data.split(b"\\"))
    return [whole for part in parts if len(whole := re.sub(rb"\.0*$", b"", part)) > 3 and whole.isdigit()]


def are_numbers(tag: int, vr: str, data: bytes, *, is_little_endian: bool) -> bool:
    """Whether the value of an attribute of the dictionary, with a VR of BINARY_NUMBERS, is valid and plausible."""
    order = "<" if is_little_endian else ">"
    code = _CODES.get(vr, "H")
    size = 4 if vr == "AT" else _SIZES[code]
    count, rest = divmod(len(data), size)
    if not data:
        return True
    is_list = dictionary_VM(tag).endswith("n")
    if rest or not has_multiplicity(tag, count) or (is_list and tag not in _LISTS):
        return False
    if vr == "AT":
        pairs = struct.unpack(f"{order}{2 * count}H", data)
        return all(dictionary_has_tag(Tag(*pair)) for pair in zip(pairs[::2], pairs[1::2], strict=True))
    values = struct.unpack(f"{order}{count}{code}", data)
    if code == "d":
        is_text = any(_has_text(data[place : place + 8], 6) for place in range(0, len(data), 8))
        return not is_text and all(value == 0 or _LEAST_DOUBLE < abs(value) < _MOST_DOUBLE for value in values)
    if code == "f":
        return not _has_text(data, 7) and all(value == 0 or _LEAST_FLOAT < abs(value) < _MOST_FLOAT for value in values)
    if tag in _DESCRIPTORS:
        return bool(0 < values[-1] <= _MOST_BITS)
    if (tag in _LISTS and max(values) > _MOST_INDEX) or (tag not in _LISTS and count > 2):
        return False
    return not _has_text(data, _MOST_LETTERS) and not _spells(values)


def _has_text(data: bytes, most: int) -> bool:
    return len(data) > most and any(match.end() - match.start() > most for match in _TEXT.finditer(data))


def _spells(numbers: Sequence[int]) -> bool:
    """Whether numbers may be one character each, as in UTF-16: counters only rise, text goes up and down."""
    run: list[int] = []
    for number in (*filter(None, numbers), 1) if len(numbers) > _MOST_LETTERS else ():
        if number >= _FIRST_CHARACTER:
            run.append(number)
            continue
        steps = [later > former for former, later in pairwise(run) if later != former]
        if len(run) > _MOST_LETTERS and sum(former != later for former, later in pairwise(steps)) > 1:
            return True
        run = []
    return False
