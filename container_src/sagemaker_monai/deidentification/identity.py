"""Collects what identifies people in a file's own header.

Copies of a name turn up where no table lists them: in a software version, a label, a JPEG comment. So names are
collected from the attributes intended for them, and searched for everywhere (`matcher`).
"""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, fields, replace
from functools import cache
from typing import Literal

from pydicom import Dataset
from pydicom.datadict import dictionary_has_tag, dictionary_VR
from pydicom.dataelem import DataElement

from sagemaker_monai.deidentification.profile import Action, action_of, is_blank, is_standard_uid
from sagemaker_monai.images.dicom.elements import meta_of, tag_of, text_of, values_of

MAX_DEPTH = 24  # of nested sequences, as in the reader

Kind = Literal["names", "numbers", "places"]
# Every PN, DA, DT and UI counts too, whatever its tag. These are the attributes with other VRs.
_KINDS: dict[Kind, str] = {
    "names": """
        CameraOwnerName ContactDisplayName TopicAuthor
    """,
    "numbers": """
        PatientID OtherPatientIDs AccessionNumber StudyID MedicalRecordLocator InsurancePlanIdentification AdmissionID
        ServiceEpisodeID RequestedProcedureID ScheduledProcedureStepID PerformedProcedureStepID
        FillerOrderNumberImagingServiceRequest PlacerOrderNumberImagingServiceRequest ClinicalTrialSubjectID
        ClinicalTrialSubjectReadingID ClinicalTrialProtocolEthicsCommitteeApprovalNumber SpecimenAccessionNumber
        SpecimenIdentifier ContainerIdentifier SlideIdentifier ContainerComponentID ResultsID InterpretationID
        BoardingPassID ItineraryID OwnerID ImageID BarcodeValue DeviceSerialNumber DetectorID XRayDetectorID
        XRaySourceID GantryID GeneratorID PlateID CassetteID LensSerialNumber SourceSerialNumber
        UniqueDeviceIdentifier SecondaryCaptureDeviceID HardcopyCreationDeviceID DeviceAlternateIdentifier
        ManufacturerDeviceIdentifier PatientTelephoneNumbers PatientTelecomInformation
        ReferringPhysicianTelephoneNumbers PersonTelephoneNumbers PersonTelecomInformation OrderCallbackPhoneNumber
        OrderCallbackTelecomInformation TelephoneNumberTrial
    """,
    "places": """
        InstitutionName InstitutionAddress InstitutionalDepartmentName PatientAddress ReferringPhysicianAddress
        PersonAddress AddressTrial MilitaryRank IssuerOfPatientID ResponsibleOrganization ClinicalTrialSponsorName
        ClinicalTrialSiteName ClinicalTrialCoordinatingCenterName ClinicalTrialProtocolEthicsCommitteeName
        RequestingService CurrentPatientLocation PatientInstitutionResidence ScheduledPatientInstitutionResidence
        HumanPerformerOrganization VerifyingOrganization ScheduledStudyLocation RequestedProcedureLocation
        OrderEntererLocation PerformedLocation ScheduledProcedureStepLocation HangingProtocolUserGroupName
        DistributionAddress
    """,
}
IDENTIFYING: dict[int, Kind] = {
    tag_of(keyword): kind for kind, keywords in _KINDS.items() for keyword in keywords.split()
}
# Codes of people and institutions in sequences: the kind of their CodeMeaning.
_MEANINGS: dict[str, Kind] = {
    "PersonIdentificationCodeSequence": "names",
    "HumanPerformerCodeSequence": "names",
    "InstitutionCodeSequence": "places",
    "InstitutionalDepartmentTypeCodeSequence": "places",
}
_CODED = {tag_of(keyword): kind for keyword, kind in _MEANINGS.items()}
_CODE = frozenset({"CodeValue", "LongCodeValue", "CodeMeaning"})
# VRs that need not be parsed, since their values are terms, numbers or not text.
_NO_TEXTS = "AE AS AT CS DS FD FL IS OB OB/OW OD OF OL OV OW SL SS SV TM UL US UV UR"
_SAYING_NOTHING = frozenset(_NO_TEXTS.split())
_TEXTS = frozenset({"LO", "SH", "LT", "ST", "UC", "UT"})
_TAKEN_OUT = frozenset({Action.REMOVE, Action.EMPTY, Action.DUMMY})
_MOST_TEXT = 1 << 16  # characters
_DAY = re.compile(r"[12]\d{7}")
_MAIL_OR_NUMBER = re.compile(
    r"(?<![\w.+-])[\w.+-]{1,64}@[\w-]{1,64}\.[\w.]{1,64}|(?<![\d.])\+?\d(?:[ /-]?\d){5,}(?![\d.])"
)
_CAPITAL = r"[A-Z\u00c0-\u00de\u0391-\u03a9\u0410-\u042f][^\W\d_]+"
_TITLED = re.compile(rf"\b(?:Mr|Mrs|Ms|Dr|Prof|Herrn?|Frau|Mme|Sra?|Sig)\b\.?\s+({_CAPITAL}(?:[ -]{_CAPITAL})?)")
_DATE = re.compile(
    r"(?<!\d)(?:((?:19|20)\d\d)[-./]?(0?[1-9]|1[0-2])[-./]?(0?[1-9]|[12]\d|3[01])"
    r"|(0?[1-9]|[12]\d|3[01])[-./](0?[1-9]|[12]\d|3[01])[-./]((?:19|20)\d\d))(?!\d)"
)


@dataclass(frozen=True)
class Identity:
    """What identifies people in one dataset, or in several.

    Attributes:
        names: of people, as in PN, one for each of its groups (alphabetic, ideographic, phonetic).
        numbers: of patients, orders, devices and telephones.
        places: institutions, departments and addresses.
        dates: YYYYMMDD, from DA and DT.
        uids: all that the standard does not register, including vendors' classes.
    """

    names: frozenset[str] = frozenset()
    numbers: frozenset[str] = frozenset()
    places: frozenset[str] = frozenset()
    dates: frozenset[str] = frozenset()
    uids: frozenset[str] = frozenset()

    def without(self, *, dates: Iterable[str] = (), uids: Iterable[str] = ()) -> "Identity":
        """Without some dates and UIDs, which may occur in a result."""
        return replace(self, dates=self.dates - set(dates), uids=self.uids - set(uids))


def union(identities: Iterable[Identity]) -> Identity:
    """The union of several identities."""
    found: dict[str, set[str]] = {each.name: set() for each in fields(Identity)}
    for identity in identities:
        for name, values in found.items():
            values |= getattr(identity, name)
    return Identity(**{name: frozenset(values) for name, values in found.items()})


def walk(dataset: Dataset, depth: int = 0) -> Iterator[DataElement]:
    """Every element, including nested ones, except those that cannot be parsed."""
    for tag in sorted(dataset.keys()):
        try:
            element = dataset[tag]
        except Exception:  # noqa: S112 - pydicom's exceptions are not documented; the bytes are searched elsewhere
            continue
        yield element
        if element.VR == "SQ" and depth < MAX_DEPTH:
            for item in element.value or ():
                yield from walk(item, depth + 1)


def identity_of(dataset: Dataset) -> Identity:
    """Collect what identifies people in a dataset, its file meta information and its sequences."""
    found: dict[str, set[str]] = {each.name: set() for each in fields(Identity)}
    _gather(found, dataset, context=None, depth=0)
    for element in meta_of(dataset):
        if element.tag == 0x00020003:  # MediaStorageSOPInstanceUID; the other UIDs identify programs, also ours
            _add(found, element, None)
    return Identity(**{kind: frozenset(values) for kind, values in found.items()})


def _gather(found: dict[str, set[str]], dataset: Dataset, context: Kind | None, depth: int) -> None:
    for tag in dataset.keys():  # noqa: SIM118 - iterating a Dataset parses every element
        if not _may_identify(tag, getattr(dataset.get_item(tag), "VR", None), context):
            continue
        try:
            element = dataset[tag]
        except Exception:  # noqa: S112 - as in `walk`
            continue
        if element.VR == "SQ":
            for item in (element.value or ()) if depth < MAX_DEPTH else ():
                _gather(found, item, _CODED.get(tag), depth + 1)
        elif _may_identify(tag, element.VR, context):
            _add(found, element, context)


@cache
def _may_identify(tag: int, vr: str | None, context: Kind | None) -> bool:
    """Whether an element may identify somebody, so that it must be parsed; implicit VRs are looked up."""
    vr = (dictionary_VR(tag) if dictionary_has_tag(tag) else "UN") if vr is None else vr
    if tag in IDENTIFYING or context is not None:
        return True
    return vr not in _SAYING_NOTHING and (vr not in _TEXTS or action_of(tag, vr) in _TAKEN_OUT)


def _add(found: dict[str, set[str]], element: DataElement, context: Kind | None) -> None:
    """Add one element's values if it identifies people."""
    values = [value for value in values_of(element) if not is_blank(value)]
    kind = IDENTIFYING.get(element.tag)
    if context is not None and element.keyword in _CODE:
        kind = context if element.keyword == "CodeMeaning" else "numbers"
    if element.VR == "PN":
        found["names"] |= {group for value in values for group in value.split("=") if group}
    elif kind is not None:
        found[kind] |= set(values)
    elif element.VR == "UI":
        found["uids"] |= {uid for uid in values if not is_standard_uid(uid)}
    elif element.VR in ("DA", "DT"):
        found["dates"] |= {day[:8] for value in values if _DAY.match(day := value.replace(".", "", 2))}
    elif element.VR in _TEXTS and action_of(element.tag, element.VR) in _TAKEN_OUT:
        for value in values:
            _add_of_text(found, value[:_MOST_TEXT])


def _add_of_text(found: dict[str, set[str]], text: str) -> None:
    """Add what certainly identifies somebody in a text that the profile removes: long numbers, dates, e-mail addresses,
    names. Its other words may describe a procedure or a body part, and occur everywhere.
    """
    found["numbers"] |= {match[0] for match in _MAIL_OR_NUMBER.finditer(text)}
    found["names"] |= {match[1] for match in _TITLED.finditer(text)}
    for match in _DATE.finditer(text):
        year, month, day = (match[1], match[2], match[3]) if match[1] else (match[6], match[5], match[4])
        month, day = (day, month) if int(month) > 12 else (month, day)
        found["dates"].add(f"{year}{int(month):02d}{int(day):02d}")


# For splits, merging two patients is safer than separating one.
PATIENT_KEYWORDS = ("PatientID", "PatientName", "StudyInstanceUID", "SOPInstanceUID")


def patient_of(dataset: Dataset) -> tuple[str, str]:
    """What identifies an object's patient: the first of PATIENT_KEYWORDS that it has, and its value; or two ""."""
    for keyword in PATIENT_KEYWORDS:
        if value := text_of(dataset, keyword):
            return keyword, value
    return "", ""
