"""What an answer as DICOM quotes from its images: their UIDs, their patient and their study.

Headers are not trusted. An attribute that an answer requires is empty if the header lacks it; a value that its type
does not allow is left out, so that an answer is never worse than its source.

An answer is about one patient and one study. If the headers name several, or only some name one, there is none.
"""

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

from sagemaker_monai.errors import NotAcceptable, UnsuitableImage
from sagemaker_monai.storage.file_names import is_fit

if TYPE_CHECKING:
    from pydicom import Dataset

_UIDS = ("SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID")
# Type 2 of the modules Patient and General Study, in highdicom's order; empty if the source lacks them.
_REQUIRED = (
    "PatientID", "PatientName", "PatientBirthDate", "PatientSex", "AccessionNumber", "StudyID", "StudyDate",
    "StudyTime", "ReferringPhysicianName",
)  # fmt: skip
# Further attributes by which an archive compares patients and studies.
_OPTIONAL = ("IssuerOfPatientID", "PatientAge", "PatientSize", "PatientWeight", "StudyDescription")
# Must be the same in all images that have it; PatientID and StudyInstanceUID must be the same in all images.
_OF_ONE_PATIENT = ("IssuerOfPatientID", "PatientName", "PatientBirthDate")
# Leading zeros are not allowed but common; an answer must quote them as the archive knows them.
_UID = re.compile(r"(?=.{1,64}$)\d+(\.\d+)*", re.ASCII)
_MAX_UID_CHARS = 64
_SEXES = frozenset({"F", "M", "O"})


def make_evidence(headers: Sequence["Dataset"]) -> list["Dataset"]:
    """Make the sources of an answer, with only the attributes that it quotes, valid and decoded.

    Args:
        headers: the files' datasets, without pixel data, in the order of the slices.

    Returns:
        One dataset per file, with its UIDs; the first also has the patient and study, in attributes that may be empty.

    Raises:
        NotAcceptable: no headers: the images are not DICOM.
        UnsuitableImage: one lacks a UID, has a broken one or that of another image, or they are not all of one patient
            and one study.
    """
    from pydicom import Dataset
    from pydicom.datadict import dictionary_VR

    if not headers:
        raise NotAcceptable("an answer as DICOM needs DICOM images; send those, or Accept: application/json")
    evidence = []
    for header in headers:
        source = Dataset()
        for keyword in _UIDS:
            value = text_of(header, keyword)
            if not value:
                raise UnsuitableImage(
                    f"an answer as DICOM needs the {keyword} of every image; send complete headers, or "
                    "Accept: application/json"
                )
            if not is_uid(value):
                raise UnsuitableImage(
                    f"an answer as DICOM needs the {keyword} of every image, and one is malformed: a UID is numbers "
                    f"separated by points, at most {_MAX_UID_CHARS} characters; correct it, or Accept: application/json"
                )
            setattr(source, keyword, value)
        evidence.append(source)
    if len({source.SOPInstanceUID for source in evidence}) < len(evidence):
        raise UnsuitableImage(
            "an answer as DICOM names its images by their SOPInstanceUID, and two images have the same; correct it, or "
            "Accept: application/json"
        )
    if len({source.StudyInstanceUID for source in evidence}) > 1 or not _is_one_patient(headers):
        raise UnsuitableImage(
            "an answer as DICOM is of one patient and one study, but the images name several, or some name none; "
            "correct PatientID, PatientName, PatientBirthDate and StudyInstanceUID, or Accept: application/json"
        )
    first = evidence[0]
    for keyword in (*_REQUIRED, *_OPTIONAL):
        value = text_of(headers[0], keyword)
        if keyword == "PatientSex" and value not in _SEXES:
            value = ""
        if value and not is_sound(dictionary_VR(keyword), value):
            value = ""
        if value or keyword in _REQUIRED:
            setattr(first, keyword, value)
    if text_of(headers[0], "PatientIdentityRemoved") == "YES":
        method = text_of(headers[0], "DeidentificationMethod")
        first.PatientIdentityRemoved = "YES"
        # Type 1C: an answer must have one, but many sources have none or several.
        first.DeidentificationMethod = method if is_sound("LO", method) and method else "as in the source images"
    return evidence


def text_of(header: "Dataset", keyword: str) -> str:
    """A single value of a header as text, decoded by its own character set; empty if it is missing or broken."""
    from sagemaker_monai.images.dicom import elements

    text = elements.text_of(header, keyword)
    return "" if "\\" in text else text  # several values where one is allowed


def is_uid(value: str) -> bool:
    """Whether a text is a UID as archives know them."""
    return _UID.fullmatch(value) is not None


def is_sound(vr: str, value: str) -> bool:
    """Whether a value is one of its VR."""
    from pydicom.config import RAISE
    from pydicom.valuerep import validate_value

    try:
        validate_value(vr, value, RAISE)
    except ValueError:
        return False
    return is_fit(value)  # a name may have an ideographic space


def _is_one_patient(headers: Sequence["Dataset"]) -> bool:
    from sagemaker_monai.images.dicom.belonging import plain_patient_id

    if len({plain_patient_id(text_of(header, "PatientID")) for header in headers}) > 1:
        return False
    for keyword in _OF_ONE_PATIENT:
        # Names differ in their case and in the carets and blanks between their parts.
        texts = {" ".join(re.split("[\\s^=]+", text_of(header, keyword).casefold())).strip() for header in headers}
        if len(texts - {""}) > 1:
            return False
    return True
