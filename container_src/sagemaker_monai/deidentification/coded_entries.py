"""Coded entries: kept if DICOM itself lists the code, with the meaning that the standard gives it.

A hospital's own codes name its procedures and departments, and a meaning is free text. So value and scheme of a coded
entry stay only if PS3.16 (pydicom's copy) has the pair, and the meaning is rewritten. Items with other codes are
removed, and so is a sequence without items left. Versions and contexts of codes are not needed and are removed.
"""

from functools import cache
from typing import cast

from pydicom import Dataset

from sagemaker_monai.images.dicom.elements import tags_of, text_of

_VALUES = ("CodeValue", "LongCodeValue")
CODE_TAGS = tags_of("CodeValue LongCodeValue CodingSchemeDesignator CodeMeaning URNCodeValue")
# PS3.3, 8.8: some of them are required with a ContextIdentifier, and forbidden without it.
CONTEXT_TAGS = tags_of(
    "ContextIdentifier ContextUID ContextGroupVersion ContextGroupLocalVersion ContextGroupExtensionFlag "
    "ContextGroupExtensionCreatorUID MappingResource MappingResourceUID MappingResourceName"
)
# Code sequences that images must have even if empty (type 2); others may not be empty.
MAY_BE_EMPTY = tags_of(
    "AnatomicRegionSequence ViewModifierCodeSequence PatientOrientationCodeSequence ContainerTypeCodeSequence "
    "PatientOrientationModifierCodeSequence PatientGantryRelationshipCodeSequence RadionuclideCodeSequence "
    "RegistrationTypeCodeSequence ContrastBolusIngredientCodeSequence ModeOfPercutaneousAccessSequence "
    "LensesCodeSequence IlluminationTypeCodeSequence ImagePathFilterTypeStackCodeSequence "
    "LightPathFilterTypeStackCodeSequence RelativeImagePositionCodeSequence"
)
_RETIRED_SNOMED = ("SRT", "SNM3", "99SDM")


@cache
def _meanings() -> dict[tuple[str, str], str]:
    """Scheme and value -> meaning. Loaded on demand (0.6 s, 15 MB): most pictures have no code."""
    from pydicom.sr._concepts_dict import concepts
    from pydicom.sr._snomed_dict import mapping

    found: dict[tuple[str, str], str] = {}
    for scheme, keywords in concepts.items():
        for codes in cast("dict[str, dict[str, tuple[str, object]]]", keywords).values():
            for value, (meaning, _) in codes.items():
                text = meaning.encode("ascii", "ignore").decode()
                found[scheme, value] = min(text, found.get((scheme, value), text), key=len)  # common words are short
    for old, new in mapping["SRT"].items():
        if current := found.get(("SCT", new)):
            found |= {(scheme, old): current for scheme in _RETIRED_SNOMED}
    return found


def has_code(item: Dataset) -> bool:
    """Whether a data set is a coded entry or describes a coding scheme."""
    return any(tag in item for tag in CODE_TAGS)


def known_code(item: Dataset) -> tuple[str, str, str] | None:
    """Value, scheme and meaning of a coded entry, if DICOM lists it."""
    scheme = text_of(item, "CodingSchemeDesignator")
    for keyword in _VALUES:
        value = text_of(item, keyword)
        if value and (meaning := _meanings().get((scheme, value))) is not None:
            return value, scheme, meaning
    return None
