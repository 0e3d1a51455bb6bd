"""What a file's own header tells of the people in it: one list of the attributes, and how their values are gathered.

Copies of a name turn up where no table lists them: in a software version, a label, a JPEG comment. So they are taken
from the attributes that are made for them and looked for everywhere (`matcher`).
"""

import contextlib
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, fields, replace
from typing import Literal

from pydicom import Dataset
from pydicom.charset import convert_encodings
from pydicom.datadict import tag_for_keyword
from pydicom.dataelem import DataElement

from sagemaker_monai.deidentification.profile import is_blank, is_standard_uid
from sagemaker_monai.dicom.elements import text_of

MAX_DEPTH = 24  # of sequences in sequences, as the reader's

Kind = Literal["names", "numbers", "places"]
# Every PN, DA, DT and UI counts too, whatever its tag. These are the attributes of other types.
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
    tag: kind
    for kind, keywords in _KINDS.items()
    for keyword in keywords.split()
    if (tag := tag_for_keyword(keyword)) is not None
}


@dataclass(frozen=True)
class Identity:
    """What identifies people in one dataset, or in several.

    Attributes:
        names: of people, as they stand in PN, one for each of its groups (alphabetic, ideographic, phonetic).
        numbers: of patients, orders, devices and telephones.
        places: institutions, departments and addresses.
        dates: YYYYMMDD, from DA and DT.
        uids: all that the standard does not register, classes of vendors included.
        encodings: Python's names of the character sets of the dataset.
    """

    names: frozenset[str] = frozenset()
    numbers: frozenset[str] = frozenset()
    places: frozenset[str] = frozenset()
    dates: frozenset[str] = frozenset()
    uids: frozenset[str] = frozenset()
    encodings: frozenset[str] = frozenset()

    def without(self, *, dates: Iterable[str] = (), uids: Iterable[str] = ()) -> "Identity":
        """Less some dates and UIDs, which rightly stand in a result."""
        return replace(self, dates=self.dates - set(dates), uids=self.uids - set(uids))


def union(identities: Iterable[Identity]) -> Identity:
    """What identifies the people of all of them."""
    found: dict[str, set[str]] = {each.name: set() for each in fields(Identity)}
    for identity in identities:
        for name, values in found.items():
            values |= getattr(identity, name)
    return Identity(**{name: frozenset(values) for name, values in found.items()})


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
    """Gather what identifies people in a dataset, its file meta information and its sequences."""
    found: dict[str, set[str]] = {each.name: set() for each in fields(Identity)}
    for element in walk(dataset):
        _add(found, element)
    for element in getattr(dataset, "file_meta", None) or ():
        if element.tag == 0x00020003:
            _add(found, element)
    with contextlib.suppress(LookupError):  # an unknown character set: the two that are always tried remain
        found["encodings"] |= set(convert_encodings(dataset.get("SpecificCharacterSet") or "ISO_IR 6"))
    return Identity(**{kind: frozenset(values) for kind, values in found.items()})


def _add(found: dict[str, set[str]], element: DataElement) -> None:
    """Add one element's values, when it is of a kind that identifies."""
    kind = "names" if element.VR == "PN" else IDENTIFYING.get(element.tag)
    values = [value for value in values_of(element) if not is_blank(value)] if element.VR != "SQ" else []
    if element.VR == "PN":
        found["names"] |= {group for value in values for group in value.split("=") if group}
    elif kind is not None:
        found[kind] |= set(values)
    elif element.VR == "UI":
        found["uids"] |= {uid for uid in values if not is_standard_uid(uid)}
    elif element.VR in ("DA", "DT"):
        found["dates"] |= {value[:8] for value in values if re.match(r"[12]\d{7}", value)}


# One patient too few is safer in a split than one too many.
PATIENT_KEYWORDS = ("PatientID", "PatientName", "StudyInstanceUID", "SOPInstanceUID")


def patient_of(dataset: Dataset) -> tuple[str, str]:
    """What tells the patient of an object: the first of PATIENT_KEYWORDS that it has, and its value; both may be ""."""
    for keyword in PATIENT_KEYWORDS:
        if value := text_of(dataset, keyword):
            return keyword, value
    return "", ""
