"""What becomes of each DICOM element: the table of PS3.15, Annex E, and stricter rules of ours for what it leaves out.

The tags and actions are dicom-anonymizer's (its newest table, PS3.15 2026c); its code is not used, because it leaves
nested elements of most tags alone, draws UIDs at random and gives every date the same value. Where the standard lets
the object's definition decide (X/Z, X/D, Z/D, X/Z/D), the choice is the one that is valid for every object: an emptied
or a dummy value, and for sequences, which are all optional there, removal.

Stricter than the profile, because nobody can tell what stands there: curves and overlays go whole, and so do elements
that the dictionary does not know, names, addresses, application entities, links and long texts that the table does not
list. Every UID is replaced unless it names a class, a coding scheme or something of the standard.
"""

import re
from enum import Enum
from functools import cache
from typing import Any

from dicomanonymizer.dicom_anonymization_databases import (
    dicomfields_2026c as table,
)
from pydicom._uid_dict import UID_dictionary
from pydicom.datadict import dictionary_VR, keyword_for_tag, tag_for_keyword


class Action(Enum):
    """What is done to an element."""

    REMOVE = "remove"
    EMPTY = "empty"
    DUMMY = "dummy"  # a value of the same type that says nothing
    MAP_UID = "map UID"
    SHIFT = "shift"  # dates; times stay
    PATIENT = "pseudonym"
    CLEAN = "clean"  # a sequence stays, each of its elements is treated by this table
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


def _tags(*keywords: str) -> dict[str, int]:
    found = {keyword: tag_for_keyword(keyword) for keyword in keywords}
    return {keyword: tag for keyword, tag in found.items() if tag is not None}


_OURS: dict[int, Action] = {
    **dict.fromkeys(_tags("PatientID", "PatientName").values(), Action.PATIENT),
    # Marks of a picture's text and drawings: the profile's dummy would be an empty drawing, which no object requires.
    **dict.fromkeys(
        _tags(
            "GraphicAnnotationSequence",
            "PatientBirthDateInAlternativeCalendar",
            "PatientDeathDateInAlternativeCalendar",
            "EncryptedAttributesSequence",  # may hold the very values that are removed here
            "MACParametersSequence",  # signatures are void once anything has changed
            "IssuerOfAccessionNumberSequence",
            "OrderPlacerIdentifierSequence",
            "OrderFillerIdentifierSequence",
            "IssuerOfPatientIDQualifiersSequence",
            "HPGLDocument",
            "OwnerID",
            "ImageID",
            "ItineraryID",
            "BoardingPassID",
            "PrinterName",
            "DoseComment",
            "ErrorComment",
            "SystemStatusComment",
            "SubstanceAdministrationNotes",
            "HangingProtocolUserGroupName",
            "ContactDisplayName",
        ).values(),
        Action.REMOVE,
    ),
    **dict.fromkeys(_tags("TextValue", "TrackingID").values(), Action.DUMMY),
    **dict.fromkeys(_tags("AnnotationGroupUID").values(), Action.MAP_UID),  # D in the table, as if it were a text
    # Coding schemes are described by the standard's or a vendor's words.
    **dict.fromkeys(
        _tags(
            "CodingSchemeName",
            "CodingSchemeResponsibleOrganization",
            "CodingSchemeURL",
            "URNCodeValue",
            "SpectralSensitivity",
            "GridAbsorbingMaterial",
            "GridSpacingMaterial",
        ).values(),
        Action.KEEP,
    ),
}
# What is written at the end to say what was done; what stood there before is removed.
STATEMENTS = frozenset(
    _tags(
        "PatientIdentityRemoved",
        "DeidentificationMethod",
        "DeidentificationMethodCodeSequence",
        "LongitudinalTemporalInformationModified",
    ).values()
)
_UNLISTED_VRS_REMOVED = frozenset({"PN", "AE", "UR", "ST", "LT", "UT", "UN"})
_CLASS_UIDS = frozenset(
    _tags(
        "SOPClassUID",
        "ReferencedSOPClassUID",
        "MediaStorageSOPClassUID",
        "RelatedGeneralSOPClassUID",
        "OriginalSpecializedSOPClassUID",
        "SOPClassesInStudy",
        "SOPClassesSupported",
        "PertinentSOPClassesInStudy",
        "PertinentSOPClassesInSeries",
        "TransferSyntaxUID",
        "AvailableTransferSyntaxUID",
        "MACCalculationTransferSyntaxUID",
        "EncryptedContentTransferSyntaxUID",
        "CodingSchemeUID",
        "ContextUID",
        "MappingResourceUID",
    ).values()
)
# The temporal option (E.3.6) keeps every date of the table as a shifted one, but for these.
_BIRTH = frozenset(_tags("PatientBirthDate", "PatientBirthTime").values())
# E.3.7, Retain Patient Characteristics: the attributes with "K" in that column.
PATIENT_CHARACTERISTICS = frozenset(
    _tags(
        "PatientSex",
        "PatientAge",
        "PatientSize",
        "PatientWeight",
        "EthnicGroup",
        "SmokingStatus",
        "PregnancyStatus",
        "PatientSexNeutered",
    ).values()
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
# Values that a list of what still stands in a header need not name.
_BLANK = re.compile(r"REMOVED|0|000Y|19000101(000000)?|000000|http://removed\.invalid|P-[A-Z2-7]{12}|\0*")


def dummy(vr: str) -> Any:
    """A value of this type that says nothing (action D); not for UI and SQ."""
    return _DUMMIES[vr]


def is_blank(value: object) -> bool:
    """Whether a value says nothing: empty, a dummy, or a pseudonym."""
    if value is None or value == "" or value == b"":
        return True
    text = value.decode("latin-1") if isinstance(value, bytes) else str(value)
    return _BLANK.fullmatch(text) is not None


def is_standard_uid(uid: str) -> bool:
    """Whether the standard itself registers this UID (classes, transfer syntaxes, frames of reference of atlases)."""
    return uid in UID_dictionary


def is_known(tag: int) -> bool:
    """Whether the data dictionary has this tag."""
    return keyword_for_tag(tag) != ""


@cache
def action_of(tag: int, vr: str) -> Action:
    """What the profile, with shifted dates and our stricter rules, does to an element.

    Args:
        tag: group and element as one number.
        vr: value representation as it stands in the file, or the dictionary's; "US or SS" and the like are allowed.
    """
    group = tag >> 16
    if group % 2 or group <= 0x0002 or tag & 0xFFFF == 0 or group & 0xFF00 in (0x5000, 0x6000):
        return Action.REMOVE
    if vr in ("DA", "DT", "TM") and tag not in _BIRTH:
        return Action.SHIFT if is_known(tag) or tag in LISTED else Action.REMOVE
    return basic_action(tag, vr)


@cache
def basic_action(tag: int, vr: str) -> Action:
    """What is done without the option for dates, or to a date that cannot be shifted."""
    if tag in _OURS:
        return _OURS[tag]
    if tag in LISTED:
        return LISTED[tag]
    if not is_known(tag) or vr in _UNLISTED_VRS_REMOVED or vr in ("DA", "DT", "TM"):
        return Action.REMOVE
    if vr == "UI":
        return Action.KEEP if tag in _CLASS_UIDS else Action.MAP_UID
    return Action.CLEAN if vr == "SQ" else Action.KEEP
