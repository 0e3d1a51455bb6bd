"""The words, numbers, dates and UIDs by which a file's own header identifies somebody, and where else they stand.

Copies of a name turn up where no table lists them: in a software version, a label, a JPEG comment. So they are taken
from the attributes that are made for them and looked for everywhere.
"""

import contextlib
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from pydicom import Dataset
from pydicom.charset import convert_encodings
from pydicom.datadict import tag_for_keyword
from pydicom.dataelem import DataElement

from sagemaker_monai.deidentification.profile import is_blank, is_standard_uid
from sagemaker_monai.dicom.elements import text_of

MAX_DEPTH = 24  # of sequences in sequences, as the reader's
_CHUNK_BYTES = 1 << 24
_MIN_NAME, _MIN_WORD, _MIN_IN_BULK = 3, 4, 6  # characters; shorter ones stand everywhere by chance
_IDENTITY = {
    tag_for_keyword(keyword)
    for keyword in (
        "PatientID",
        "OtherPatientIDs",
        "AccessionNumber",
        "InstitutionName",
        "InstitutionAddress",
        "InstitutionalDepartmentName",
        "PatientAddress",
        "PatientTelephoneNumbers",
        "PatientTelecomInformation",
        "ReferringPhysicianAddress",
        "ReferringPhysicianTelephoneNumbers",
        "PersonAddress",
        "PersonTelephoneNumbers",
        "MilitaryRank",
        "MedicalRecordLocator",
        "InsurancePlanIdentification",
        "AdmissionID",
        "ServiceEpisodeID",
        "DeviceSerialNumber",
        "DetectorID",
        "GantryID",
        "PlateID",
        "CassetteID",
        "RequestedProcedureID",
        "ScheduledProcedureStepID",
        "PerformedProcedureStepID",
        "FillerOrderNumberImagingServiceRequest",
        "PlacerOrderNumberImagingServiceRequest",
        "ClinicalTrialSubjectID",
        "SpecimenIdentifier",
        "ContainerIdentifier",
    )
}
_NAME_SEPARATORS = re.compile(r"[\^=\s,;]+")


@dataclass
class Identity:
    """What identifies somebody in one dataset.

    Attributes:
        words: names, numbers and addresses, in lower case.
        dates: YYYYMMDD, from DA and DT.
        uids: all that the standard does not register, classes of vendors included.
        encodings: Python's names of the character sets of the dataset.
    """

    words: set[str] = field(default_factory=set)
    dates: set[str] = field(default_factory=set)
    uids: set[str] = field(default_factory=set)
    encodings: set[str] = field(default_factory=lambda: {"utf-8", "latin-1"})


def walk(dataset: Dataset, depth: int = 0) -> Iterator[DataElement]:
    """Every element, nested ones included; those that cannot be parsed are left out, bytes stay bytes."""
    for tag in sorted(dataset.keys()):
        try:
            element = dataset[tag]
        except Exception:  # noqa: S112 - pydicom promises no list; its bytes are searched elsewhere
            continue
        yield element
        if element.VR == "SQ" and depth < MAX_DEPTH:
            for item in element.value or ():
                yield from walk(item, depth + 1)


def values_of(element: DataElement) -> list[str]:
    """The values of a text element, without padding."""
    value = element.value
    if value is None or isinstance(value, bytes):
        return []
    parts = [value] if isinstance(value, str) or not hasattr(value, "__iter__") or element.VR == "PN" else list(value)
    if element.VR == "PN" and element.VM > 1:
        parts = list(value)
    return [str(part).strip(" \0") for part in parts]


def identity_of(dataset: Dataset) -> Identity:
    """Gather what identifies somebody in a dataset."""
    found = Identity()
    for element in walk(dataset):
        add_element(found, element)
    for element in dataset.file_meta if hasattr(dataset, "file_meta") else ():
        if element.tag == 0x00020003:
            add_element(found, element)
    with contextlib.suppress(LookupError):  # an unknown character set: the two that are always tried remain
        found.encodings |= set(convert_encodings(dataset.get("SpecificCharacterSet") or "ISO_IR 6"))
    return found


def add_element(found: Identity, element: DataElement) -> None:
    """Add one element's values, when it is of a kind that identifies."""
    if element.VR == "PN":
        for name in values_of(element):
            found.words |= {part.lower() for part in _NAME_SEPARATORS.split(name) if len(part) >= _MIN_NAME}
    elif element.tag in _IDENTITY:
        found.words |= {value.lower() for value in values_of(element) if len(value) >= _MIN_WORD}
    elif element.VR == "UI":
        found.uids |= {uid for uid in values_of(element) if len(uid) >= _MIN_IN_BULK and not is_standard_uid(uid)}
    elif element.VR in ("DA", "DT"):
        found.dates |= {value[:8] for value in values_of(element) if re.match(r"[12]\d{7}", value)}
    found.words = {word for word in found.words if not is_blank(word.upper()) and len(set(word)) > 1}


def needles(values: Iterable[str], encodings: Iterable[str], *, is_bulk: bool = False) -> list[bytes]:
    """The values as bytes, in lower case, in each of the encodings that can write them; short ones not for bulk."""
    found: set[bytes] = set()
    for value in values:
        for encoding in encodings:
            try:
                needle = value.encode(encoding)
            except (UnicodeError, LookupError):
                continue
            if not is_bulk or len(needle) >= _MIN_IN_BULK:
                found.add(needle.lower())
    return sorted(found)


def compile_needles(found: list[bytes], *, boundary: bytes = b"a-z0-9") -> re.Pattern[bytes] | None:
    """A pattern that finds any of them where no character of `boundary` is beside it; None when there are none."""
    if not found:
        return None
    alternatives = b"|".join(re.escape(needle) for needle in sorted(found, key=len, reverse=True))
    return re.compile(b"(?<![%b])(?:%b)(?![%b])" % (boundary, alternatives, boundary), re.IGNORECASE)


def stands_in_bulk(data: bytes, found: list[bytes]) -> bool:
    """Whether one of the needles stands anywhere in much data; upper and lower case are the same."""
    if not found:
        return False
    overlap = max(map(len, found)) - 1
    for start in range(0, len(data), _CHUNK_BYTES):
        chunk = data[start : start + _CHUNK_BYTES + overlap].lower()
        if any(needle in chunk for needle in found):
            return True
    return False


# One patient too few is safer in a split than one too many.
PATIENT_KEYWORDS = ("PatientID", "PatientName", "StudyInstanceUID", "SOPInstanceUID")


def patient_of(dataset: Dataset) -> tuple[str, str]:
    """What tells the patient of an object: the first of PATIENT_KEYWORDS that it has, and its value; both may be ""."""
    for keyword in PATIENT_KEYWORDS:
        if value := text_of(dataset, keyword):
            return keyword, value
    return "", ""
