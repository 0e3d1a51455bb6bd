"""What is done to each DICOM element: the table of PS3.15, Annex E, and stricter rules of ours for the rest.

The tags and actions are dicom-anonymizer's (its newest table, PS3.15 2026c). Its code is not used, because it ignores
nested elements of most tags, draws UIDs at random and gives every date the same value. Where the standard lets the
object's definition decide (X/Z, X/D, Z/D, X/Z/D), we choose what is valid for every object: an empty or a dummy value,
and removal for sequences, which are all optional there.

Stricter than the profile, because their content is unknown: curves and overlays are removed, and so are elements that
are not in the dictionary, and names, addresses, application entities, links and long texts that the table does not
list. Every UID is replaced unless it names a class, a coding scheme or another UID of the standard. Other elements are
kept only with values that are checked one by one: defined terms (`defined_terms`), words of technical attributes
(`technical_texts`), codes of the standard (`coded_entries`), numbers (`number_values`), lookup tables (`lookup_tables`)
and pixel data.
"""

import re
from collections.abc import Set
from enum import Enum
from functools import cache
from typing import Any

from dicomanonymizer.dicom_anonymization_databases import (
    dicomfields_2026c as table,
)
from pydicom._uid_dict import UID_dictionary
from pydicom.datadict import dictionary_VR, keyword_for_tag

from sagemaker_monai.deidentification.coded_entries import CODE_TAGS
from sagemaker_monai.deidentification.lookup_tables import LOOKUP_TABLES, SEGMENTED
from sagemaker_monai.deidentification.technical_texts import TECHNICAL_TEXTS
from sagemaker_monai.images.dicom.elements import tags_of
from sagemaker_monai.images.dicom.headers import PIXEL_TAGS


class Action(Enum):
    """What is done to an element."""

    REMOVE = "remove"
    EMPTY = "empty"
    DUMMY = "dummy"  # a meaningless value of the same type
    MAP_UID = "map UID"
    SHIFT = "shift"  # dates; times stay
    PATIENT = "pseudonym"
    CLEAN = "clean"  # keep a sequence, and apply this table to its elements
    KEEP = "keep"


# PS3.15, table E.1-1a; see the module docstring for those with a slash.
_PLAIN = {
    "D_TAGS": Action.DUMMY,
    "Z_TAGS": Action.EMPTY,
    "X_TAGS": Action.REMOVE,
    "U_TAGS": Action.MAP_UID,
    "Z_D_TAGS": Action.EMPTY,
    "X_Z_TAGS": Action.EMPTY,
    "X_D_TAGS": Action.DUMMY,
    "X_Z_D_TAGS": Action.DUMMY,
    "X_Z_U_STAR_TAGS": Action.CLEAN,  # U*: the references stay, with their UIDs replaced
}
_SEQUENCES_ONLY_REMOVED = frozenset({"X_D_TAGS", "X_Z_D_TAGS"})

LISTED: dict[int, Action] = {
    tag[0] << 16 | tag[1]: (
        Action.REMOVE if name in _SEQUENCES_ONLY_REMOVED and dictionary_VR(tag[0] << 16 | tag[1]) == "SQ" else action
    )
    for name, action in _PLAIN.items()
    for tag in getattr(table, name)
    if len(tag) == 2  # the others are the curves and overlays
}


_OURS: dict[int, Action] = {
    **dict.fromkeys(tags_of("PatientID PatientName"), Action.PATIENT),
    # GraphicAnnotationSequence: the profile's dummy would be an empty drawing, which no object requires.
    # EncryptedAttributesSequence may hold the very values that are removed here, and MACParametersSequence signatures,
    # which any change invalidates.
    **dict.fromkeys(
        tags_of(
            "GraphicAnnotationSequence EncryptedAttributesSequence MACParametersSequence "
            "PatientBirthDateInAlternativeCalendar PatientDeathDateInAlternativeCalendar "
            "IssuerOfAccessionNumberSequence OrderPlacerIdentifierSequence OrderFillerIdentifierSequence "
            "IssuerOfPatientIDQualifiersSequence HPGLDocument OwnerID ImageID ItineraryID BoardingPassID PrinterName "
            "DoseComment ErrorComment SystemStatusComment SubstanceAdministrationNotes HangingProtocolUserGroupName "
            "ContactDisplayName"
        ),
        Action.REMOVE,
    ),
    **dict.fromkeys(tags_of("TextValue TrackingID"), Action.DUMMY),
    **dict.fromkeys(tags_of("AnnotationGroupUID"), Action.MAP_UID),  # D in the table, as if it were text
}
# Attributes that state what was done; their original values are removed.
STATEMENTS = tags_of(
    "PatientIdentityRemoved DeidentificationMethod DeidentificationMethodCodeSequence "
    "LongitudinalTemporalInformationModified"
)
# VRs whose attributes are kept only if listed; CS and numbers are kept in all, after their values are checked.
_TEXTS = TECHNICAL_TEXTS.keys() | CODE_TAGS
_BINARIES = LOOKUP_TABLES | SEGMENTED.keys() | frozenset(PIXEL_TAGS)
_ONLY_LISTED: dict[str, Set[int]] = {
    **dict.fromkeys(("LO", "SH", "UC"), _TEXTS),
    **dict.fromkeys(("OB", "OW", "OB or OW", "US or OW", "US or SS or OW", "OF", "OD", "OL", "OV"), _BINARIES),
    **dict.fromkeys(("PN", "AE", "UR", "ST", "LT", "UT", "UN", "SV", "UV", "DA", "DT", "TM"), frozenset()),
}
_CLASS_UIDS = tags_of(
    "SOPClassUID ReferencedSOPClassUID MediaStorageSOPClassUID RelatedGeneralSOPClassUID "
    "OriginalSpecializedSOPClassUID SOPClassesInStudy SOPClassesSupported PertinentSOPClassesInStudy "
    "PertinentSOPClassesInSeries TransferSyntaxUID AvailableTransferSyntaxUID MACCalculationTransferSyntaxUID "
    "EncryptedContentTransferSyntaxUID CodingSchemeUID ContextUID MappingResourceUID"
)
# The temporal option (E.3.6) shifts every date of the table except for these.
_BIRTH = tags_of("PatientBirthDate PatientBirthTime")
# E.3.7, Retain Patient Characteristics: the attributes with "K" in that column.
PATIENT_CHARACTERISTICS = tags_of(
    "PatientSex PatientAge PatientSize PatientWeight EthnicGroup SmokingStatus PregnancyStatus PatientSexNeutered"
)

_DUMMIES: dict[str, Any] = {
    **dict.fromkeys(("AE", "CS", "LO", "LT", "PN", "SH", "ST", "UC", "UT"), "REMOVED"),
    **dict.fromkeys(("FD", "FL", "SL", "SS", "SV", "UL", "US", "UV", "AT"), 0),
    **dict.fromkeys(("DS", "IS"), "0"),
    **dict.fromkeys(("OB", "OD", "OF", "OL", "OV", "OW", "UN"), bytes(8)),  # a whole number of values of any size
    "AS": "000Y",
    "DA": "19000101",
    "DT": "19000101000000",
    "TM": "000000",
    "UR": "http://removed.invalid",
}
# Values that reveal nothing.
_BLANK = re.compile(r"REMOVED|0|000Y|19000101(000000)?|000000|http://removed\.invalid|P-[A-Z2-7]{12}|\0*")


def dummy(vr: str) -> Any:
    """A meaningless value of this VR (action D); not for UI and SQ."""
    return _DUMMIES[vr]


def is_blank(value: object) -> bool:
    """Whether a value reveals nothing: empty, a dummy, or a pseudonym."""
    if value is None or value == "" or value == b"":
        return True
    text = value.decode("latin-1") if isinstance(value, bytes) else str(value)
    return _BLANK.fullmatch(text) is not None


_CLASS_KINDS = frozenset({
    "SOP Class", "Meta SOP Class", "Service Class", "Transfer Syntax", "Coding Scheme", "DICOM UIDs as a Coding Scheme",
    "Mapping Resource", "Context Group Name", "Well-known SOP Instance",
})  # fmt: skip
# Makers' private classes, from dcmtk's table (dcuid.cc) and conformance statements.
VENDOR_CLASSES = frozenset({
    "1.3.12.2.1107.5.9.1",  # Siemens, CSA non-image
    "1.3.12.2.1107.5.99.3.10", "1.3.12.2.1107.5.99.3.11",  # Siemens, volumes and protocols of syngo.via
    "1.2.840.113619.4.2", "1.2.840.113619.4.3", "1.2.840.113619.4.5.249", "1.2.840.113619.4.26",  # GE: CT, display, 3-D
    "1.2.840.113619.4.27", "1.2.840.113619.4.30",
    "1.3.46.670589.2.3.1.1", "1.3.46.670589.2.4.1.1", "1.3.46.670589.2.5.1.1",  # Philips, specialized X-ray, CVS
    "1.3.46.670589.5.0.1", "1.3.46.670589.5.0.1.1", "1.3.46.670589.5.0.2", "1.3.46.670589.5.0.2.1",
    "1.3.46.670589.5.0.3", "1.3.46.670589.5.0.3.1", "1.3.46.670589.5.0.4", "1.3.46.670589.5.0.8",
    "1.3.46.670589.11.0.0.12.1", "1.3.46.670589.11.0.0.12.2", "1.3.46.670589.11.0.0.12.4",  # Philips MR
    "1.2.392.200036.9116.7.8.1.1.1",  # Toshiba, US
    "1.2.392.200036.9125.1.1.2", "1.2.392.200036.9125.1.1.4",  # Fuji, CR
    "1.2.124.113532.3500.7",  # Agfa
    "2.16.840.1.113709.1.5.1", "2.16.840.1.113709.1.2.2",  # Camtronics, Acuson
    "1.2.840.113543.6.6.1.3.10002",  # Agfa, arrhythmia
})  # fmt: skip


def is_class_uid(uid: str) -> bool:
    """Whether a UID names a class, transfer syntax or coding scheme of the standard, or a known maker's class."""
    return uid in VENDOR_CLASSES or (uid in UID_dictionary and UID_dictionary[uid][1] in _CLASS_KINDS)


def is_transfer_syntax(uid: str) -> bool:
    """Whether the standard registers a UID as a transfer syntax, or it is GE's private big-endian one."""
    return uid == "1.2.840.113619.5.2" or (uid in UID_dictionary and UID_dictionary[uid][1] == "Transfer Syntax")


def is_standard_uid(uid: str) -> bool:
    """Whether the standard registers a UID (classes, transfer syntaxes, frames of reference of atlases)."""
    return uid in UID_dictionary


def is_known(tag: int) -> bool:
    """Whether the data dictionary has this tag."""
    return keyword_for_tag(tag) != ""


@cache
def vrs_of(tag: int) -> frozenset[str]:
    """The dictionary's VRs of an attribute, as pydicom names them."""
    named = dictionary_VR(tag)
    return frozenset({named, *named.split(" or ")})


@cache
def action_of(tag: int, vr: str) -> Action:
    """What the profile, with shifted dates and our stricter rules, does to an element.

    Args:
        tag: group and element as one number.
        vr: the file's or the dictionary's; "US or SS" and the like are allowed.
    """
    group = tag >> 16
    if group % 2 or group <= 0x0002 or tag & 0xFFFF == 0 or group & 0xFF00 in (0x5000, 0x6000):
        return Action.REMOVE
    if vr in ("DA", "DT", "TM") and tag not in _BIRTH:
        return Action.SHIFT if is_known(tag) or tag in LISTED else Action.REMOVE
    return basic_action(tag, vr)


@cache
def basic_action(tag: int, vr: str) -> Action:
    """The action without the temporal option, or for a date that cannot be shifted."""
    if tag in _OURS:
        return _OURS[tag]
    if tag in LISTED:
        return LISTED[tag]
    if not is_known(tag) or (vr in _ONLY_LISTED and tag not in _ONLY_LISTED[vr]):
        return Action.REMOVE
    if vr == "UI":
        return Action.KEEP if tag in _CLASS_UIDS else Action.MAP_UID
    return Action.CLEAN if vr == "SQ" else Action.KEEP
