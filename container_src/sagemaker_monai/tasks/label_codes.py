"""Codes of labels: what a structure is in the words of DICOM, as dataset.json gives them and the artifact carries them.

A code is scheme, value and meaning. It may be written as a list in this order or in that of DICOM (value, scheme,
meaning), as an object of dcmqi (CodeValue, CodingSchemeDesignator, CodeMeaning), or as Slicer writes it
(`SCT^10200004^Liver`). Identifiers of SNOMED CT have a check digit, which finds typing errors.

Source: DICOM PS3.3, 8.8 (codes) and C.8.20.4 (segmented property); PS3.16, 8 (coding schemes).
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

# PS3.16, table 8-1, those that name structures and lesions; private schemes begin with 99.
SCHEMES = frozenset({
    "SCT", "SRT", "SNM3", "DCM", "FMA", "RADLEX", "NCIt", "UMLS", "LN", "MSH", "UBERON", "NEU", "BARI", "IBSI", "I9",
    "I9C", "I10", "I10P", "ICDO3",
})  # fmt: skip
_PRIVATE = re.compile(r"99[A-Za-z0-9_.-]{1,14}")
_VALUE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:/+-]{0,63}")
_SNOMED = re.compile(r"[1-9][0-9]{5,17}")
_MEANING = re.compile(r"[^\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\\^~\ud800-\udfff]{1,64}")
_MOST_MODIFIERS = 4
_DCMQI = ("CodingSchemeDesignator", "CodeValue", "CodeMeaning")
_PARTS = {
    "category": ("category", "SegmentedPropertyCategoryCodeSequence"),
    "type": ("type", "SegmentedPropertyTypeCodeSequence"),
    "modifier": ("modifier", "SegmentedPropertyTypeModifierCodeSequence"),
}
_FORM = '{"category": ["SCT", "91723000", "Anatomical Structure"], "type": ["SCT", "10200004", "Liver"]}'
# Verhoeff's check digit: the dihedral group of order 10, and the permutation of its places.
_PRODUCT = [[(a + b) % 5 if a < 5 and b < 5 else 5 + (a + b) % 5 if a < 5 else 5 + (a - b) % 5 if b < 5 else (a - b) % 5
             for b in range(10)] for a in range(10)]  # fmt: skip
_MOVED = (1, 5, 7, 6, 2, 8, 3, 0, 9, 4)


@dataclass(frozen=True)
class Code:
    """One code.

    Attributes:
        scheme: CodingSchemeDesignator, one of SCHEMES or private (99...).
        value: CodeValue, at most 64 characters.
        meaning: CodeMeaning, at most 64 characters.
    """

    scheme: str
    value: str
    meaning: str


@dataclass(frozen=True)
class LabelCodes:
    """What a label is.

    Attributes:
        category: SegmentedPropertyCategoryCodeSequence, such as Anatomical Structure.
        type: SegmentedPropertyTypeCodeSequence, such as Kidney.
        modifiers: of the type, such as Left.
    """

    category: Code
    type: Code
    modifiers: tuple[Code, ...] = ()


def read_codes(content: Any) -> LabelCodes:
    """The codes of one label, in any of the forms of the module.

    Args:
        content: an object with category, type and perhaps modifier (a code or a list of codes), also by their DICOM
            keywords as dcmqi has them, or Slicer's entry of a terminology as one text.

    Raises:
        ValueError: not one of these forms, or a code that cannot be; the message says which and the remedy.
    """
    parts = _of_slicer(content) if isinstance(content, str) else content
    if not isinstance(parts, Mapping):
        raise ValueError(f"the codes of a label must be like {_FORM}")  # noqa: TRY004 - as of any other wrong form
    allowed = {name: part for part, names in _PARTS.items() for name in names}
    named: dict[str, Any] = {}
    for name, value in parts.items():
        part = allowed.get(name)
        if part is None or part in named:
            raise ValueError(f"{str(name)[:40]!r} is not a part of its codes, or comes twice; write them like {_FORM}")
        named[part] = value
    if missing := [part for part in ("category", "type") if part not in named]:
        raise ValueError(f"its codes lack {' and '.join(missing)}; write them like {_FORM}")
    several = named.get("modifier") or []
    is_one = not (isinstance(several, list) and all(isinstance(each, list | Mapping) for each in several))
    modifiers = [several] if is_one else several
    if len(modifiers) > _MOST_MODIFIERS:
        raise ValueError(f"a label has at most {_MOST_MODIFIERS} modifiers, got {len(modifiers)}; leave some out")
    return LabelCodes(_code(named["category"]), _code(named["type"]), tuple(map(_code, modifiers)))


def write_codes(codes: LabelCodes) -> dict[str, Any]:
    """The form that `read_codes` reads back, of lists only."""
    written: dict[str, Any] = {"category": _listed(codes.category), "type": _listed(codes.type)}
    return written | ({"modifier": [_listed(each) for each in codes.modifiers]} if codes.modifiers else {})


def _listed(code: Code) -> list[str]:
    return [code.scheme, code.value, code.meaning]


def _of_slicer(text: str) -> dict[str, str]:
    """The parts of an entry of a terminology in Slicer: context~category~type~modifier~anatomic context~..."""
    parts = text.split("~")
    if not 4 <= len(parts) <= 7:
        raise ValueError(f"a text must be a terminology entry of Slicer; write the codes like {_FORM}")
    return {"category": parts[1], "type": parts[2], **({"modifier": parts[3]} if parts[3].strip("^") else {})}


def _code(content: Any) -> Code:
    if isinstance(content, list) and len(content) == 1 and isinstance(content[0], Mapping):
        [content] = content  # a sequence of one item, as DICOM's JSON has it
    if isinstance(content, Mapping):
        content = [content.get(key) for key in _DCMQI] if set(content) == set(_DCMQI) else None
    elif isinstance(content, str):
        content = content.split("^")
    if not (isinstance(content, list) and len(content) == 3 and all(isinstance(part, str) for part in content)):
        raise ValueError('a code is scheme, value and meaning, like ["SCT", "10200004", "Liver"]')
    scheme, value, meaning = (part.strip() for part in content)
    if not _is_scheme(scheme) and _is_scheme(value):
        scheme, value = value, scheme
    if not _is_scheme(scheme):
        raise ValueError(
            f"{scheme[:20]!r} is no coding scheme that is known here; take one of {', '.join(sorted(SCHEMES))}, or a "
            "private one, which begins with 99"
        )
    if not _VALUE.fullmatch(value) or not _MEANING.fullmatch(meaning):
        raise ValueError(
            f"the code {value[:20]!r} of {scheme} has a value or a meaning that DICOM does not allow: values have "
            r"letters, digits and . _ : / + -, meanings 1 to 64 characters without \ ^ ~ and line breaks"
        )
    if scheme == "SCT" and not is_snomed_identifier(value):
        raise ValueError(f"{value[:20]!r} is no identifier of SNOMED CT: its check digit is wrong; copy it again")
    return Code(scheme, value, meaning)


def _is_scheme(text: str) -> bool:
    return text in SCHEMES or _PRIVATE.fullmatch(text) is not None


def is_snomed_identifier(value: str) -> bool:
    """Whether a text has the form and the check digit of a SNOMED CT identifier.

    Source: SNOMED CT Release File Specification, 6.3 (Verhoeff's algorithm).
    """
    if not _SNOMED.fullmatch(value):
        return False
    check = 0
    for place, digit in enumerate(reversed(value)):
        moved = int(digit)
        for _ in range(place % 8):
            moved = _MOVED[moved]
        check = _PRODUCT[check][moved]
    return check == 0
