"""The proof that a de-identified object holds nothing of the original that identifies anybody.

It compares the two objects and searches the bytes of the result; of the code that made it, it shares the table of tags
and the list of identifying attributes, and nothing that replaces, shifts or removes.
"""

import io
from collections.abc import Iterator, Set
from datetime import date

from pydicom import Dataset
from pydicom.dataelem import DataElement
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_dataset

from sagemaker_monai.deidentification.identity import identity_of, values_of, walk
from sagemaker_monai.deidentification.matcher import Matcher
from sagemaker_monai.deidentification.phi import MAPPED_UID, name_of
from sagemaker_monai.deidentification.pixel_proof import pixel_faults
from sagemaker_monai.deidentification.profile import (
    PATIENT_CHARACTERISTICS,
    STATEMENTS,
    Action,
    action_of,
    is_blank,
    is_standard_uid,
)
from sagemaker_monai.dicom.headers import PIXEL_TAGS, quiet_pydicom


def prove_deidentified(original: Dataset, result: Dataset) -> list[str]:
    """Say what is wrong with a de-identified object.

    Names, numbers, addresses, institutions, serial numbers, UIDs and dates of the original must not stand anywhere in
    the result's bytes. Pixel data must be what the header needs and nothing else (`pixel_proof`), and are searched for
    those of 6 bytes or more: shorter ones stand there by chance. The
    profile must have been obeyed for each element, no private one may be left, UIDs must be replaced, and the result
    must say what was done.

    Args:
        original: as it was, complete.
        result: as it is written, complete, with `file_meta`.

    Returns:
        Faults in words, without any value of the original; empty when there are none.
    """
    quiet_pydicom()
    faults: dict[str, None] = {}
    codes = {str(item.get("CodeValue")) for item in result.get("DeidentificationMethodCodeSequence") or ()}
    if result.get("PatientIdentityRemoved") != "YES":
        faults["PatientIdentityRemoved is not YES"] = None
    if not {"113100", "113107"} <= codes or result.get("LongitudinalTemporalInformationModified") != "MODIFIED":
        faults["the result does not state what was done"] = None
    for element in walk(result):
        if not _obeys(element, has_characteristics="113108" in codes):
            faults[f"{name_of(element.tag)} still has a value that the profile removes"] = None
    meta = getattr(result, "file_meta", None) or {}
    if meta.get("MediaStorageSOPInstanceUID") != result.get("SOPInstanceUID"):
        faults["MediaStorageSOPInstanceUID differs from SOPInstanceUID"] = None
    for fault in (*pixel_faults(result), *_found_in_bytes(original, result)):
        faults[fault] = None
    return list(faults)


def _obeys(element: DataElement, *, has_characteristics: bool) -> bool:
    action = action_of(element.tag, element.VR)
    if element.tag in STATEMENTS or (has_characteristics and element.tag in PATIENT_CHARACTERISTICS):
        return True
    if element.tag.is_private:
        return False
    if element.VR == "SQ":
        return action is not Action.REMOVE and (action is not Action.EMPTY or not element.value)
    values = values_of(element)
    if action is Action.REMOVE:
        return False
    if action in (Action.EMPTY, Action.DUMMY):
        return is_blank(element.value) or (bool(values) and all(is_blank(value) for value in values))
    if action is Action.MAP_UID:
        return all(not value or is_standard_uid(value) or MAPPED_UID.fullmatch(value) for value in values)
    if action is Action.PATIENT:
        return all(is_blank(value) for value in values)  # a pseudonym is
    return True


def _found_in_bytes(original: Dataset, result: Dataset) -> Iterator[str]:
    identity = identity_of(original)
    kept_uids = {
        uid
        for element in walk(result)
        if element.VR == "UI" and action_of(element.tag, element.VR) is Action.KEEP  # classes, of vendors too
        for uid in values_of(element)
    }
    dates = _moved_onto(original, result, identity.dates)
    matcher = Matcher(identity.without(dates=dates, uids=kept_uids))
    if kind := matcher.in_bytes(_header_bytes(result)):
        yield f"{kind} of the original stands in the header"
    for tag in PIXEL_TAGS:
        if isinstance(data := _value(result, tag), bytes) and (kind := matcher.in_bulk(data)):
            yield f"{kind} of the original stands in the pixel data's bytes"


def _value(dataset: Dataset, tag: int) -> object:
    return dataset[tag].value if tag in dataset else None


def _header_bytes(dataset: Dataset) -> bytes:
    """Everything but pixel data, as it would be written, not deflated."""
    header = Dataset({tag: dataset.get_item(tag) for tag in dataset.keys() if tag not in PIXEL_TAGS})  # noqa: SIM118
    implicit, little = dataset.original_encoding
    header.set_original_encoding(implicit, little, dataset.original_character_set)
    buffer = DicomBytesIO()
    buffer.is_implicit_VR, buffer.is_little_endian = bool(implicit), little is not False
    write_dataset(buffer, header)
    meta = io.BytesIO()
    for element in getattr(dataset, "file_meta", None) or ():
        meta.write(b"\0" + (element.value if isinstance(element.value, bytes) else str(element.value).encode()))
    return (getattr(dataset, "preamble", None) or b"") + meta.getvalue() + b"\0" + buffer.getvalue()


def _moved_onto(original: Dataset, result: Dataset, dates: frozenset[str]) -> Set[str]:
    """Dates of the original that rightly stand in the result, because another of its dates was moved onto them."""
    for tag in original.keys():  # noqa: SIM118
        if tag in result and original[tag].VR == result[tag].VR == "DA":
            before, after = _date(original[tag].value), _date(result[tag].value)
            if before and after and before > after:
                moved = {f"{day - (before - after):%Y%m%d}" for text in dates if (day := _date(text))}
                return dates & moved
    return frozenset()


def _date(value: object) -> date | None:
    text = str(value or "")
    try:
        return date(int(text[:4]), int(text[4:6]), int(text[6:8])) if len(text) == 8 else None
    except ValueError:
        return None
