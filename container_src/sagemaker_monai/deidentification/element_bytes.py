"""Single DICOM elements: their VR and bytes in a file, and the elements that de-identification replaces them with."""

import struct

from pydicom import Dataset
from pydicom.datadict import dictionary_VR
from pydicom.dataelem import DataElement, RawDataElement
from pydicom.sequence import Sequence
from pydicom.tag import BaseTag

from sagemaker_monai.deidentification.identity import MAX_DEPTH
from sagemaker_monai.deidentification.profile import Action, action_of, dummy, is_known
from sagemaker_monai.deidentification.pseudonyms import mapped_uid
from sagemaker_monai.images.dicom.elements import values_of

Element = DataElement | RawDataElement
_CONTENT_SEQUENCE = 0x0040A730
_NUMBER_CODES = {"US": "H", "SS": "h", "UL": "L", "SL": "l", "FL": "f", "FD": "d", "AT": "H"}


def vr_of(dataset: Dataset, tag: BaseTag, element: Element) -> str:
    """The value representation; the dictionary's if the file has none, or UN for a public element."""
    if not isinstance(element, RawDataElement) or element.VR not in (None, "UN"):
        return str(element.VR)
    if tag.is_private or not is_known(tag):
        return "UN"
    if element.VR is None:
        return dictionary_VR(tag)
    try:
        return str(dataset[tag].VR)
    except Exception:  # pydicom's exceptions are not documented; UN is removed
        return "UN"


def bytes_of(element: Element) -> bytes:
    """The value of text or binary data as in the file; of converted numbers, little-endian."""
    if isinstance(element, RawDataElement):
        return element.value or b""
    value = element.value
    if value is None or value == "":
        return b""
    if isinstance(value, bytes):
        return value
    if (code_of := _NUMBER_CODES.get(str(element.VR))) is not None:
        numbers = [value] if isinstance(value, int | float) else list(value)
        if element.VR == "AT":
            numbers = [part for tag in map(int, numbers) for part in (tag >> 16, tag & 0xFFFF)]
        return struct.pack(f"<{len(numbers)}{code_of}", *numbers)
    return "\\".join(values_of(element)).encode("utf-8", "surrogateescape")


def words_of(data: bytes) -> list[str]:
    """The values of a short text, without padding; other character sets are kept byte by byte."""
    return [part.strip(" \0") for part in data.decode("latin-1").split("\\")] if data else []


def raw_element(source: Dataset, tag: BaseTag, vr: str, data: bytes) -> RawDataElement:
    """An element with this value, to be written unchanged in the encoding of `source`."""
    implicit, little = source.original_encoding
    padded = data + (b"\0" if vr == "UI" else b" ") * (len(data) % 2)
    return RawDataElement(tag, vr, len(padded), padded, 0, bool(implicit), little is not False, is_raw=True)


def text_element(tag: BaseTag, vr: str, values: list[str | None]) -> DataElement:
    """An element with zero or more values."""
    return DataElement(tag, vr, values[0] if len(values) == 1 else values or None)


def code(value: str, meaning: str) -> Dataset:
    """A code of DICOM's own scheme."""
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = value, "DCM", meaning
    return item


def dummy_sequence(element: DataElement, salt: bytes) -> DataElement:
    """One item without content (action D): an empty section of a report, or the first item with dummy values."""
    if element.tag == _CONTENT_SEQUENCE:
        item = Dataset()
        item.RelationshipType, item.ValueType, item.ContinuityOfContent = "CONTAINS", "CONTAINER", "SEPARATE"
        item.ConceptNameCodeSequence = [code("121070", "Findings")]
        return DataElement(element.tag, "SQ", Sequence([item]))
    return DataElement(element.tag, "SQ", Sequence([_dummy_item(item, salt) for item in (element.value or ())[:1]]))


def _dummy_item(item: Dataset, salt: bytes, depth: int = 0) -> Dataset:
    result = Dataset()
    for tag in item.keys():  # noqa: SIM118
        vr = vr_of(item, tag, item.get_item(tag))
        action = action_of(tag, vr)
        if action is Action.REMOVE or depth > MAX_DEPTH:
            continue
        if action is Action.EMPTY:
            result[tag] = DataElement(tag, vr, [] if vr == "SQ" else None)
        elif vr == "SQ":
            items = [_dummy_item(nested, salt, depth + 1) for nested in (item[tag].value or ())[:1]]
            result[tag] = DataElement(tag, "SQ", Sequence(items))
        elif vr == "UI":
            result[tag] = text_element(tag, vr, [mapped_uid(salt, uid) for uid in values_of(item[tag])])
        elif " " not in vr:  # "US or SS" and the like are not needed
            result[tag] = DataElement(tag, vr, dummy(vr))
    return result
