"""What a structured report quotes of the images that it is about: their UIDs, their patient and their study.

Headers come from strangers and are only as good as their scanner. What a report requires and the header lacks is empty
there; what the header has and its type does not allow is left out, so that a report is never worse than its source.
"""

from collections.abc import Sequence
from contextlib import suppress
from typing import TYPE_CHECKING

from sagemaker_monai.errors import NotAcceptable

if TYPE_CHECKING:
    from pydicom import Dataset

_UIDS = ("SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID")
# Type 2 of the modules Patient and General Study, in highdicom's order; empty where the source lacks them.
_REQUIRED = (
    "PatientID", "PatientName", "PatientBirthDate", "PatientSex", "AccessionNumber", "StudyID", "StudyDate",
    "StudyTime", "ReferringPhysicianName",
)  # fmt: skip
# Which patient and study it is, as far as an archive compares it.
_OPTIONAL = ("IssuerOfPatientID", "PatientAge", "PatientSize", "PatientWeight", "StudyDescription")
_SEXES = frozenset({"F", "M", "O"})


def make_evidence(headers: Sequence["Dataset"]) -> list["Dataset"]:
    """Make the sources of a report: of each only what a report quotes, sound, decoded and small.

    Args:
        headers: the files' datasets, without pixel data, in the order of the slices.

    Returns:
        One dataset a file, with its UIDs; the first one also says whose images they are, in attributes that are all
        there and may be empty.

    Raises:
        NotAcceptable: there are none, or one lacks a UID.
    """
    from pydicom import Dataset

    if not headers:
        raise NotAcceptable("a DICOM report needs DICOM images; send those, or Accept: application/json")
    evidence = []
    for header in headers:
        source = Dataset()
        for keyword in _UIDS:
            value = text_of(header, keyword)
            if not value or not _is_sound("UI", value):
                raise NotAcceptable(
                    f"a DICOM report needs the {keyword} of every image; send complete headers, or "
                    "Accept: application/json"
                )
            setattr(source, keyword, value)
        evidence.append(source)
    first = evidence[0]
    for keyword in (*_REQUIRED, *_OPTIONAL):
        value = text_of(headers[0], keyword)
        if keyword == "PatientSex" and value not in _SEXES:
            value = ""
        if value and not _is_sound(_vr(keyword), value):
            value = ""
        if value or keyword in _REQUIRED:
            setattr(first, keyword, value)
    if text_of(headers[0], "PatientIdentityRemoved") == "YES":
        method = text_of(headers[0], "DeidentificationMethod")
        first.PatientIdentityRemoved = "YES"
        # Type 1C: there has to be one, and many sources have none, or one a step.
        first.DeidentificationMethod = method if _is_sound("LO", method) and method else "as in the source images"
    return evidence


def text_of(header: "Dataset", keyword: str) -> str:
    """One value of a header as text, decoded by its own character set; empty where there is none or it is broken."""
    with suppress(Exception):  # a value that its type does not allow raises whatever pydicom's conversion raises
        value = header.get(keyword)
        if value is not None and not hasattr(value, "append"):  # several values where there may be one
            return str(value).strip(" \0")
    return ""


def _vr(keyword: str) -> str:
    from pydicom.datadict import dictionary_VR, tag_for_keyword

    tag = tag_for_keyword(keyword)
    assert tag is not None
    return dictionary_VR(tag)


def _is_sound(vr: str, value: str) -> bool:
    from pydicom.config import RAISE
    from pydicom.valuerep import validate_value

    try:
        validate_value(vr, value, RAISE)
    except ValueError:
        return False
    return value.isprintable()
