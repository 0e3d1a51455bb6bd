"""The one reader of header values: numbers, words and items of a data set, or of one frame of a multi-frame file.

Each attribute of a frame is looked up in the frame's own functional groups, then in the shared ones, then at the top
(PS3.3 C.7.6.16). An empty element counts as missing at every level, so a group with some of the values does not hide
the others.

A value with one possible reading is read however it is spelled: a decimal comma, blanks and NULs around it, "1.0" for a
whole number, one value repeated, mm after a length. An ambiguous or unreadable value is refused by the element's name:
"-1,024", "abc", two different values where one is expected.

`value`, `word`, `numbers`, `number` and `whole_number` raise for a broken element; `value_of`, `text_of`, `numbers_of`,
`integer_of` and `item_of` treat it as missing. Messages never quote the file.
"""

import functools
import math
import re
from collections.abc import Iterator
from collections.abc import Sequence as Several
from typing import Any, NamedTuple

from pydicom import Dataset
from pydicom.datadict import dictionary_VR
from pydicom.dataelem import DataElement, RawDataElement
from pydicom.dataset import FileMetaDataset
from pydicom.sequence import Sequence
from pydicom.tag import BaseTag, Tag

from sagemaker_monai.errors import UndecodableImage

_MAX_VALUES = 1 << 16  # of one element that are looked at
_BLANKS = " \0\t\r\n"
_UNCONVERTED_VRS = frozenset({"CS", "DA", "TM", "UI"})  # one value of ASCII is its own text
_PLAIN_VRS = frozenset({"CS", "DA", "DS", "DT", "IS", "LO", "SH", "ST", "TM"})

# Path of sequences in a functional group -> the keywords in it; PS3.3 C.7.6.16.2 and the macros of enhanced CT, MR, PET
# and XA. Other keywords are looked up at the top only.
_KEYWORDS = {
    "PlanePositionSequence": "ImagePositionPatient",
    "PlaneOrientationSequence": "ImageOrientationPatient",
    "PixelMeasuresSequence": "PixelSpacing SpacingBetweenSlices SliceThickness ImagerPixelSpacing "
    "NominalScannedPixelSpacing",
    "PixelValueTransformationSequence": "RescaleSlope RescaleIntercept RescaleType ModalityLUTSequence",
    "FrameVOILUTSequence": "WindowCenter WindowWidth VOILUTFunction VOILUTSequence",
    "FramePixelDataPropertiesSequence": "PixelIntensityRelationship",
    "CTImageFrameTypeSequence": "FrameType",
    "MRImageFrameTypeSequence": "FrameType ComplexImageComponent",
    "PETFrameTypeSequence": "FrameType",
    "XAXRFFrameCharacteristicsSequence": "FrameType ImagerPixelSpacing NominalScannedPixelSpacing",
    "FrameContentSequence": "StackID InStackPositionNumber TemporalPositionIndex FrameAcquisitionNumber "
    "FrameAcquisitionDateTime FrameReferenceDateTime DimensionIndexValues",
    "TemporalPositionSequence": "TemporalPositionTimeOffset",
    "SegmentIdentificationSequence": "ReferencedSegmentNumber",
    "MREchoSequence": "EffectiveEchoTime",
    "MRTimingAndRelatedParametersSequence": "RepetitionTime FlipAngle",
    "MRModifierSequence": "InversionTimes",
    "MRDiffusionSequence": "DiffusionBValue",
    "MRDiffusionSequence/DiffusionGradientDirectionSequence": "DiffusionGradientOrientation",
    "CardiacSynchronizationSequence": "NominalCardiacTriggerDelayTime NominalPercentageOfCardiacPhase",
    "RespiratorySynchronizationSequence": "NominalRespiratoryTriggerDelayTime NominalPercentageOfRespiratoryPhase",
    "CTReconstructionSequence": "ConvolutionKernel ReconstructionAlgorithm ReconstructionDiameter "
    "ReconstructionTargetCenterPatient",
    "CTXRayDetailsSequence": "KVP",
}
GROUPS: dict[str, tuple[str, ...]] = {  # keyword -> paths, in order of precedence
    keyword: tuple(path for path, keywords in _KEYWORDS.items() if keyword in keywords.split())
    for keyword in " ".join(_KEYWORDS.values()).split()
}
_LENGTHS_MM = frozenset({
    "ImagePositionPatient", "PixelSpacing", "SpacingBetweenSlices", "SliceThickness", "ImagerPixelSpacing",
    "NominalScannedPixelSpacing", "GridFrameOffsetVector",
})  # fmt: skip
_NUMBER = re.compile(r"[+-]?(\d+([.,]\d*)?|[.,]\d+)([eE][+-]?\d+)?", re.ASCII)
_PLAIN = re.compile(rb"[-+.\d\\eE \0]*")
_TEXTS = frozenset({"CS", "DS", "IS", "LO", "SH", "UI"})
_THOUSANDS = re.compile(r"[+-]?[1-9]\d{0,2},\d{3}", re.ASCII)  # "-1,024": a decimal comma, or thousands?


class FrameHeader(NamedTuple):
    """The header of one frame: the data set, and its functional groups, the frame's own before the shared ones."""

    top: Dataset
    groups: tuple[Dataset, ...] = ()


Header = Dataset | FrameHeader


def frame_header(dataset: Dataset, frame: int) -> FrameHeader:
    """The header of a frame, numbered from 0; without functional groups, that of the data set."""
    groups = []
    for keyword, place in (("PerFrameFunctionalGroupsSequence", frame), ("SharedFunctionalGroupsSequence", 0)):
        found = items(dataset, keyword)
        if place < len(found):
            groups.append(found[place])
    return FrameHeader(dataset, tuple(groups))


def holders(header: Header, keyword: str) -> Iterator[Dataset]:
    """The data sets that may hold a keyword, in order of precedence."""
    if not isinstance(header, FrameHeader):
        yield header
        return
    if header.groups:
        for group in header.groups:
            for path in GROUPS.get(keyword, ()):
                yield from _items_along(group, path.split("/"))
    yield header.top


def has_value(dataset: Dataset, keyword: str) -> bool:
    """Whether an element is present and not empty; a broken one is present."""
    tag = tag_of(keyword)
    if tag not in dataset:
        return False
    raw = _raw(dataset, tag)
    if raw is not None and raw.VR in _TEXTS:
        return bool((raw.value or b"").strip(b" \0\t\r\n\\"))
    try:
        found = value(dataset, keyword)
    except UndecodableImage:
        return True
    return bool(len(found)) if isinstance(found, Sequence) else bool(_several(found))


# --- strict ----------------------------------------------------------------------------------------------------------


def value(header: Header, keyword: str) -> Any:
    """The converted value of an element, None if it is missing or empty; UndecodableImage if it cannot be converted."""
    dataset, tag = _holder(header, keyword), tag_of(keyword)
    try:
        return dataset[tag].value if tag in dataset else None
    except Exception as error:
        # pydicom converts a value on access, and does not document what a broken one raises.
        raise UndecodableImage(f"{keyword} of the DICOM header is broken; correct it") from error


def word(header: Header, keyword: str) -> str:
    """A text element with one value, stripped; "" if it is missing.

    Raises:
        UndecodableImage: it cannot be converted, or has several different values.
    """
    values = {_text(part) for part in _several(value(header, keyword))}
    return _only(values, keyword) if values else ""


def count_written(header: Header, keyword: str) -> int:
    """How many values an element has by the backslashes in its text; 0 if it is missing or was converted already."""
    raw = _raw(_holder(header, keyword), tag_of(keyword))
    return 0 if raw is None or not raw.value else raw.value.count(b"\\") + 1


def numbers(header: Header, keyword: str) -> tuple[float, ...]:
    """All values of an element, () if it is missing.

    Raises:
        UndecodableImage: one is not a finite number, or is missing before another, or of very many one is not written
            as DICOM requires.
    """
    dataset = _holder(header, keyword)
    plain = _plain_numbers(dataset, keyword)
    if plain is not None:
        return plain
    if count_written(dataset, keyword) > _MAX_VALUES:  # pydicom makes an object of 0.5 kB of each
        raise UndecodableImage(
            f"{keyword} of the DICOM header has more than {_MAX_VALUES} values, and one is not written as DICOM "
            "requires; correct it"
        )
    return tuple(_number(part, keyword) for part in _several(value(dataset, keyword), keeps_gaps=True))


def number(header: Header, keyword: str) -> float | None:
    """The value of an element, None if it is missing.

    Raises:
        UndecodableImage: it is not a finite number, or it has several different values.
    """
    dataset = _holder(header, keyword)
    values = set(_plain_numbers(dataset, keyword) or ())
    values = values or {_number(part, keyword) for part in _several(value(dataset, keyword))}
    return _only(values, keyword) if values else None


def whole_number(
    header: Header, keyword: str, *, low: int, high: int, default: int | None = None, is_lax: bool = False
) -> int:
    """Read a whole number from `low` to `high`.

    Args:
        header, keyword: where it is.
        low, high: the plausible range.
        default: for a missing or empty element; without a default that is an error.
        is_lax: a value out of range counts as missing.

    Raises:
        UndecodableImage: missing, not a whole number, or out of range.
    """
    count = number(header, keyword)
    if count is None:
        if default is None:
            raise UndecodableImage(f"the DICOM header has no {keyword}; export the file again")
        return default
    if not count.is_integer():
        raise UndecodableImage(f"{keyword} of the DICOM header is not a whole number; correct it")
    if low <= count <= high:
        return int(count)
    if is_lax and default is not None:
        return default
    raise UndecodableImage(f"{keyword} of the DICOM header must be {low} to {high}, got {int(count)}")


def items(header: Header, keyword: str) -> Sequence | tuple[Dataset, ...]:
    """The items of a sequence, () if it is missing, empty or not a sequence."""
    found = value(header, keyword)
    return found if isinstance(found, Sequence) else ()


# --- lenient ---------------------------------------------------------------------------------------------------------


def value_of(header: Header | None, keyword: str) -> Any:
    """A value of a header, or None if it is absent, empty or unreadable."""
    try:
        found = None if header is None else value(header, keyword)
    except UndecodableImage:
        return None
    return None if isinstance(found, str) and not found else found


def text_of(header: Header | None, keyword: str) -> str:
    """A value as text, several joined with a backslash as in the file; "" if there is none."""
    if isinstance(header, Dataset) and (raw := _raw(header, tag_of(keyword))) is not None:
        word = raw.value if raw.VR in _UNCONVERTED_VRS else None
        if word and word.isascii() and b"\\" not in word:
            return word.decode("ascii").strip(_BLANKS)
    found = value_of(header, keyword)
    if found is None or isinstance(found, Sequence):
        return ""
    parts = found if _is_several(found) else [found]
    try:
        return "\\".join(_text(part) for part in parts)
    except Exception:  # as in `value`: names decode when they are written out
        return ""


def plain_text_of(dataset: Dataset, keyword: str) -> str:
    """Like `text_of`, but words and decimals as they are in the file: converting them for many attributes of many files
    would take longer than everything else done with a header.
    """
    raw = _raw(dataset, tag_of(keyword))
    if raw is not None and raw.VR in _PLAIN_VRS and isinstance(raw.value, bytes):
        return raw.value.decode("latin-1").strip(_BLANKS)
    return text_of(dataset, keyword)


def values_of(element: DataElement) -> list[str]:
    """The values of a text element, without padding; none for bytes."""
    found = element.value
    if found is None or isinstance(found, bytes):
        return []
    return [str(part).strip(" \0") for part in (found if _is_several(found) else [found])]


def meta_of(dataset: Dataset) -> FileMetaDataset:
    """The file meta information, which may be empty."""
    found: FileMetaDataset | None = getattr(dataset, "file_meta", None)
    return found or FileMetaDataset()


def numbers_of(header: Header | None, keyword: str, count: int) -> tuple[float, ...] | None:
    """The numbers of an element, or None if their count differs or one is not finite."""
    try:
        if count == 1:
            found = None if header is None else number(header, keyword)
            return None if found is None else (found,)
        values = () if header is None else numbers(header, keyword)
    except UndecodableImage:
        return None
    return values if len(values) == count else None


def integer_of(header: Header | None, keyword: str) -> int | None:
    """A whole number of a header, or None."""
    found = numbers_of(header, keyword, 1)
    return int(found[0]) if found and found[0].is_integer() else None


def item_of(header: Header | None, keyword: str) -> Dataset | None:
    """The first item of a sequence, or None."""
    found = value_of(header, keyword)
    return found[0] if isinstance(found, Sequence) and len(found) else None


# --- spellings -------------------------------------------------------------------------------------------------------


@functools.cache
def tag_of(keyword: str) -> BaseTag:
    """The tag of a keyword, cached: a dataset looks a keyword up on each access, which would dominate the time here."""
    return Tag(keyword)


def tags_of(keywords: str) -> frozenset[BaseTag]:
    """The tags of keywords separated by blanks."""
    return frozenset(map(tag_of, keywords.split()))


def is_oddly_spelled(header: Header, keyword: str) -> bool:
    """Whether an element's numbers are not written as DICOM requires."""
    tag = tag_of(keyword)
    for holder in holders(header, keyword):
        if tag not in holder:
            continue
        raw = _raw(holder, tag)
        if raw is not None and _PLAIN.fullmatch(raw.value or b""):
            continue
        if any(type(part) in (str, bytes) for part in _several(value_of(holder, keyword))):
            return True
    return False


def _raw(dataset: Dataset, tag: BaseTag) -> RawDataElement | None:
    """An element as in the file, unless its value was converted already."""
    element: Any = dataset.get_item(tag) if tag in dataset else None  # pydicom's stub lacks raw elements
    return element if isinstance(element, RawDataElement) else None


def _plain_numbers(dataset: Dataset, keyword: str) -> tuple[float, ...] | None:
    """Decimals written as DICOM requires, without pydicom's slow conversion; None for anything else."""
    raw = _raw(dataset, tag_of(keyword))
    if (
        raw is None
        or (raw.VR or dictionary_VR(raw.tag)) not in ("DS", "IS")
        or not raw.value
        or not _PLAIN.fullmatch(raw.value)
    ):
        return None
    try:
        found = tuple(map(float, raw.value.split(b"\\")))
    except ValueError:
        return None
    return found if all(map(math.isfinite, found)) else None


def _holder(header: Header, keyword: str) -> Dataset:
    """The data set that has the value of a keyword, or else the top one."""
    if not isinstance(header, FrameHeader):
        return header
    if header.groups and keyword in GROUPS:
        return next((at for at in holders(header, keyword) if has_value(at, keyword)), header.top)
    return header.top


def _items_along(group: Dataset, path: list[str]) -> Iterator[Dataset]:
    for item in items(group, path[0]):
        if len(path) == 1:
            yield item
        else:
            yield from _items_along(item, path[1:])


def _several(found: Any, *, keeps_gaps: bool = False) -> list[Any]:
    """The values of an element without empty ones; `keeps_gaps` keeps empty ones that precede others."""
    if found is None or isinstance(found, Sequence | Dataset):
        return []
    values = list(found[:_MAX_VALUES]) if _is_several(found) else [found]
    full = [part for part in values if not _is_empty(part)]
    if not keeps_gaps or len(full) == len(values) or not full:
        return full
    last = max(place for place, part in enumerate(values) if not _is_empty(part))
    return values[: last + 1]


def _is_several(found: Any) -> bool:
    return isinstance(found, Several) and not isinstance(found, str | bytes)


def _is_empty(part: Any) -> bool:
    return part is None or (isinstance(part, str) and not part.strip(_BLANKS)) or part == b""


def _text(part: Any) -> str:
    return str(part).strip(_BLANKS)


def _number(part: Any, keyword: str) -> float:
    if isinstance(part, bytes) and dictionary_VR(tag_of(keyword)) in ("DS", "IS"):
        part = part.decode("ascii", "replace")  # the file gives the element another VR
    try:
        number = _parsed(part, keyword) if isinstance(part, str) else float(part)
    except (TypeError, ValueError, OverflowError) as error:
        raise UndecodableImage(f"{keyword} of the DICOM header is not a number; correct it") from error
    if not math.isfinite(number):
        raise UndecodableImage(f"{keyword} of the DICOM header is not finite; correct it")
    return number


def _parsed(text: str, keyword: str) -> float:
    text = text.strip(_BLANKS)
    if keyword in _LENGTHS_MM and text.endswith("mm"):
        text = text[:-2].rstrip(_BLANKS)
    if _THOUSANDS.fullmatch(text):
        raise UndecodableImage(
            f"{keyword} of the DICOM header has a comma that could be a decimal point or a thousands separator; "
            "correct it"
        )
    if not text:
        raise UndecodableImage(f"{keyword} of the DICOM header lacks a value between others; correct it")
    return float(text.replace(",", ".") if _NUMBER.fullmatch(text) else text)


def _only(values: set[Any], keyword: str) -> Any:
    if len(values) > 1:
        raise UndecodableImage(f"{keyword} of the DICOM header has {len(values)} values instead of one; correct it")
    return next(iter(values))
