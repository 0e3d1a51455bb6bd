"""Coded entries: kept where the code is one that DICOM itself lists, with the meaning that the standard gives it.

A code of a hospital's own scheme names its procedures and departments, and a meaning is a free text. So of an item with
a code stay its value and scheme, when PS3.16 (pydicom's copy) has the pair, and its meaning is written anew; items with
other codes go whole, and a sequence with them, once none is left. Versions and contexts of codes are not needed to
understand one and go.
"""

from functools import cache
from typing import cast

from pydicom import Dataset

from sagemaker_monai.images.dicom.elements import tags_of, text_of

_VALUES = ("CodeValue", "LongCodeValue")
CODE_TAGS = tags_of("CodeValue LongCodeValue CodingSchemeDesignator CodeMeaning URNCodeValue")
# PS3.3, 8.8: some of them must stand beside a ContextIdentifier, and may not without it.
CONTEXT_TAGS = tags_of(
    "ContextIdentifier ContextUID ContextGroupVersion ContextGroupLocalVersion ContextGroupExtensionFlag "
    "ContextGroupExtensionCreatorUID MappingResource MappingResourceUID MappingResourceName"
)
# Sequences of codes that images must have even without an item (type 2); elsewhere an empty one is an error.
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
    """Scheme and value -> meaning. Most pictures have no code, so the tables, 0.6 s and 15 MB, wait."""
    from pydicom.sr._concepts_dict import concepts
    from pydicom.sr._snomed_dict import mapping

    found: dict[tuple[str, str], str] = {}
    for scheme, keywords in concepts.items():
        for codes in cast("dict[str, dict[str, tuple[str, object]]]", keywords).values():
            for value, (meaning, _) in codes.items():
                text = meaning.encode("ascii", "ignore").decode()
                found[scheme, value] = min(text, found.get((scheme, value), text), key=len)  # the usual word is short
    for old, new in mapping["SRT"].items():
        if current := found.get(("SCT", new)):
            found |= {(scheme, old): current for scheme in _RETIRED_SNOMED}
    return found


def has_code(item: Dataset) -> bool:
    """Whether a data set is a coded entry, or describes a coding scheme."""
    return any(tag in item for tag in CODE_TAGS)


def known_code(item: Dataset) -> tuple[str, str, str] | None:
    """Value, scheme and meaning of a coded entry that DICOM lists; None for others."""
    scheme = text_of(item, "CodingSchemeDesignator")
    for keyword in _VALUES:
        value = text_of(item, keyword)
        if value and (meaning := _meanings().get((scheme, value))) is not None:
            return value, scheme, meaning
    return None
