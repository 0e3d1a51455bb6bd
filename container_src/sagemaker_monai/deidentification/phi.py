"""Finds what may identify a patient in a DICOM header or picture.

Findings name the attribute and the kind, never a value, so they can be logged and shown.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass, replace

from pydicom import Dataset
from pydicom.datadict import keyword_for_tag

from sagemaker_monai.deidentification.burned_in import burned_in_risk
from sagemaker_monai.deidentification.identity import Identity, identity_of, union, walk
from sagemaker_monai.deidentification.matcher import Matcher
from sagemaker_monai.deidentification.profile import STATEMENTS, Action, action_of, is_blank, is_standard_uid
from sagemaker_monai.deidentification.pseudonyms import KEYED_WORD
from sagemaker_monai.images.dicom.elements import values_of
from sagemaker_monai.images.dicom.headers import quiet_pydicom

MAPPED_UID = re.compile(r"2\.25\.(0|[1-9]\d{0,38})")
_TEXT_VRS = frozenset({"AE", "CS", "LO", "LT", "PN", "SH", "ST", "UC", "UR", "UT"})
# Searched for in texts that the profile keeps, except for codes, which are long numbers themselves.
_PATTERNS = {
    "e-mail": re.compile(r"[\w.+-]+@[\w-]+\.\w{2,}"),
    "date": re.compile(
        r"(?<!\d)(?:(?:19|20)\d\d[-./]?(?:0[1-9]|1[0-2])[-./]?(?:0[1-9]|[12]\d|3[01])"
        r"|(?:0?[1-9]|[12]\d|3[01])[-./](?:0?[1-9]|1[0-2])[-./](?:19|20)\d\d)(?!\d)"
    ),
    "telephone number": re.compile(
        r"(?<![\d.])(?:\+\d{1,3}[ -]?|\(0?\d{2,5}\) ?|0\d{2,4}[ /-])\d{2,5}(?:[ -]?\d{2,5})+"
    ),
    "long number": re.compile(r"(?<![\d.])\d{7,}(?![\d.])"),
}
_CODES = frozenset({"CodeValue", "LongCodeValue", "CodingSchemeDesignator", "CodingSchemeVersion"})
_MAX_TEXT = 4096  # characters searched


@dataclass(frozen=True)
class PhiFinding:
    """One attribute that may identify the patient.

    Attributes:
        keyword: DICOM's, or else the tag as (gggg,eeee).
        kind: "attribute" (the profile removes or replaces it), "UID", "date", "e-mail", "telephone number",
            "long number", "known value" (a name or number of another attribute in a text that the profile keeps),
            "private", "burned in: stated" or "burned in: likely".
    """

    keyword: str
    kind: str


def name_of(tag: int) -> str:
    """DICOM's keyword, or (gggg,eeee) for a tag without one."""
    return keyword_for_tag(tag) or f"({tag >> 16:04X},{tag & 0xFFFF:04X})"


def find_phi(dataset: Dataset, *, known_values: Iterable[str] = ()) -> list[PhiFinding]:
    """Find what may identify the patient, in the header and by the kind of picture.

    Args:
        dataset: a header, or all of an object; nested sequences are searched too.
        known_values: names, numbers or addresses that must not occur anywhere.

    Returns:
        Each attribute and kind once, by tag. Not reported: dates if the header says that they were modified, UIDs with
        the root 2.25, dummies and pseudonyms. Only `proof`, which has the original, can tell whether they are this
        package's. De-identification replaces all of them, whatever a header says.
    """
    quiet_pydicom()
    found: dict[PhiFinding, None] = {}
    are_dates_modified = dataset.get("LongitudinalTemporalInformationModified") in ("MODIFIED", "REMOVED")
    identity = replace(identity_of(dataset), dates=frozenset(), uids=frozenset())
    given = frozenset(known_values)
    known = Matcher(union((identity, Identity(names=given, numbers=given))))
    for element in walk(dataset):
        name, action = name_of(element.tag), action_of(element.tag, element.VR)
        values = [value for value in values_of(element) if value] if element.VR != "SQ" else []
        if element.tag.is_private:
            found[PhiFinding(name, "private")] = None
        elif element.tag in STATEMENTS:
            continue
        elif action is Action.MAP_UID:
            if any(not is_standard_uid(value) and not MAPPED_UID.fullmatch(value) for value in values):
                found[PhiFinding(name, "UID")] = None
        elif action is Action.SHIFT:
            if element.VR != "TM" and not are_dates_modified and any(not is_blank(value) for value in values):
                found[PhiFinding(name, "date")] = None
        elif action in (Action.KEEP, Action.CLEAN):
            for kind in _kinds_of_text(element.VR, name, values, known):
                found[PhiFinding(name, kind)] = None
        elif element.VR == "SQ":
            if any(len(item) for item in element.value or ()) and not _is_dummy(element.value):
                found[PhiFinding(name, "attribute")] = None
        elif not is_blank(element.value) and (not values or any(not is_blank(value) for value in values)):
            found[PhiFinding(name, "attribute")] = None
    risk = burned_in_risk(dataset)
    if risk in ("stated", "likely"):
        found[PhiFinding("PixelData", f"burned in: {risk}")] = None
    return list(found)


def _is_dummy(items: Iterable[Dataset]) -> bool:
    return all(
        element.VR == "SQ"
        or is_blank(element.value)
        or action_of(element.tag, element.VR) in (Action.KEEP, Action.MAP_UID, Action.SHIFT)
        for item in items
        for element in walk(item)
    )


def _kinds_of_text(vr: str, name: str, values: list[str], known: Matcher) -> list[str]:
    if vr not in _TEXT_VRS:
        return []
    text = "\n".join(value for value in values if not KEYED_WORD.fullmatch(value))[:_MAX_TEXT]
    kinds = []
    if known.in_text(text):
        kinds.append("known value")
    if name not in _CODES:
        kinds += [kind for kind, pattern in _PATTERNS.items() if pattern.search(text)][:1]
    return kinds
