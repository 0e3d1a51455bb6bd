"""Proves that a de-identified object contains nothing from the original that identifies anybody.

It checks each element against the profile, each kept value against the lists of known values, what `phi` finds in any
file, and whether the bytes contain identifying values of the original. With the code that made the object it shares the
tables (of tags, terms, words and codes) and the list of identifying attributes, but nothing that replaces, shifts or
removes.
"""

import io
import re
from collections.abc import Iterator
from datetime import date, timedelta

from pydicom import Dataset
from pydicom.dataelem import DataElement
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_dataset

from sagemaker_monai.deidentification.coded_entries import CODE_TAGS, known_code
from sagemaker_monai.deidentification.defined_terms import defined_term
from sagemaker_monai.deidentification.element_bytes import bytes_of
from sagemaker_monai.deidentification.identity import MAX_DEPTH, Identity, identity_of, walk
from sagemaker_monai.deidentification.lookup_tables import LOOKUP_TABLES
from sagemaker_monai.deidentification.matcher import Matcher
from sagemaker_monai.deidentification.number_values import BINARY_NUMBERS, are_numbers, number_text
from sagemaker_monai.deidentification.phi import MAPPED_UID, find_phi, name_of
from sagemaker_monai.deidentification.pixel_proof import pixel_faults
from sagemaker_monai.deidentification.profile import (
    PATIENT_CHARACTERISTICS,
    STATEMENTS,
    Action,
    action_of,
    is_blank,
    is_class_uid,
    is_known,
    is_standard_uid,
    is_transfer_syntax,
    vrs_of,
)
from sagemaker_monai.deidentification.pseudonyms import KEYED_WORD, MAX_SHIFT_DAYS
from sagemaker_monai.deidentification.technical_texts import technical_word
from sagemaker_monai.images.dicom.elements import meta_of, text_of, values_of
from sagemaker_monai.images.dicom.headers import PIXEL_TAGS, quiet_pydicom

_META = frozenset({0x00020000, 0x00020001, 0x00020002, 0x00020003, 0x00020010, 0x00020012, 0x00020013})

# What `pseudonyms` makes; one in three billion UIDs of 128 random bits has fewer digits.
_HASH = re.compile(r"[PW][-_][A-Z2-7]{12}|2\.25\.[1-9]\d{29,38}")
_FARTHEST = timedelta(MAX_SHIFT_DAYS)
_NAMES = ("PatientID", "PatientName")  # a pseudonym looks like one that an earlier run made


def prove_deidentified(original: Dataset, result: Dataset) -> list[str]:
    """Report what is wrong with a de-identified object.

    Names, numbers, addresses, institutions, serial numbers, UIDs and dates of the original must not occur anywhere in
    the result's bytes, except for words of the standard, which identify nobody. Pixel data must be exactly what the
    header needs (`pixel_proof`), and is searched for values that are unlikely to be there by chance. Each element must
    obey the profile, each kept value must be a term, known word, code, number or table as defined by their
    modules, private elements must be removed, UIDs must be replaced, `find_phi` must find nothing except burned-in text
    (which is decided elsewhere), and the result must state what was done.

    Args:
        original: complete.
        result: as written, complete, with `file_meta`.

    Returns:
        Faults in words, without any value of the original; empty if there are none.
    """
    quiet_pydicom()
    faults: dict[str, None] = {}
    header = _header_bytes(result)  # first, while elements are still unconverted and so written as they are
    codes = {str(item.get("CodeValue")) for item in result.get("DeidentificationMethodCodeSequence") or ()}
    if result.get("PatientIdentityRemoved") != "YES":
        faults["PatientIdentityRemoved is not YES"] = None
    if not {"113100", "113107"} <= codes or result.get("LongitudinalTemporalInformationModified") != "MODIFIED":
        faults["the result does not state what was done"] = None
    try:
        elements = list(_walk(result))
    except Exception:  # pydicom's exceptions are not documented
        return ["an element cannot be parsed"]
    for holder, element in elements:
        if not _obeys(element, holder, has_characteristics="113108" in codes):
            faults[f"{name_of(element.tag)} still has a value that the profile removes"] = None
    for found in find_phi(result):
        if not found.kind.startswith("burned in"):
            faults[f"{found.keyword} still has something of the kind: {found.kind}"] = None
    meta = meta_of(result)
    if not all(element.tag in _META or is_blank(element.value) for element in meta):
        faults["the file meta information contains more than what was written"] = None
    if not (is_class_uid(str(result.get("SOPClassUID"))) and is_transfer_syntax(str(meta.get("TransferSyntaxUID")))):
        faults["the SOP class or the transfer syntax is unknown"] = None
    if any(getattr(result, "preamble", None) or b""):
        faults["the preamble is not empty"] = None
    if any((own := text_of(result, keyword)) and own == text_of(original, keyword) for keyword in _NAMES):
        faults["the patient is the original's"] = None
    if meta.get("MediaStorageSOPInstanceUID") != result.get("SOPInstanceUID"):
        faults["MediaStorageSOPInstanceUID differs from SOPInstanceUID"] = None
    for fault in (*pixel_faults(result), *_found_in_bytes(original, result, header)):
        faults[fault] = None
    return list(faults)


def _walk(dataset: Dataset, depth: int = 0) -> Iterator[tuple[Dataset, DataElement]]:
    """Every element, including nested ones, with the data set or item that holds it."""
    for element in dataset:
        yield dataset, element
        if element.VR == "SQ" and depth < MAX_DEPTH and element.tag not in STATEMENTS:
            for item in element.value or ():
                yield from _walk(item, depth + 1)


def _obeys(element: DataElement, holder: Dataset, *, has_characteristics: bool) -> bool:
    action = action_of(element.tag, element.VR)
    if element.tag in STATEMENTS:
        return True
    if element.tag.is_private or not is_known(element.tag) or element.VR not in vrs_of(element.tag):
        return False
    if has_characteristics and element.tag in PATIENT_CHARACTERISTICS:
        action = Action.KEEP
    if element.VR == "SQ":
        return action is not Action.REMOVE and (action is not Action.EMPTY or not element.value)
    if action is Action.KEEP:
        return element.tag in PIXEL_TAGS or is_vouched(element, holder)
    values = values_of(element)
    if action is Action.REMOVE:
        return False
    if action in (Action.EMPTY, Action.DUMMY):
        return is_blank(element.value) or (bool(values) and all(is_blank(value) for value in values))
    if action is Action.MAP_UID:
        return all(not value or is_standard_uid(value) or MAPPED_UID.fullmatch(value) for value in values)
    if action is Action.PATIENT:
        return all(is_blank(value) for value in values)  # a pseudonym is
    return element.VR in ("DA", "DT", "TM")  # moved; the search in the bytes finds original dates


def is_vouched(element: DataElement, holder: Dataset) -> bool:
    """Whether a value that the profile keeps is a known one, or a replacement.

    Args:
        element: of an attribute in the dictionary.
        holder: its data set or item; a code is judged with its scheme.
    """
    tag, vr = element.tag, str(element.VR)
    if tag in CODE_TAGS and not is_blank(element.value):
        known = known_code(holder)
        is_meaning = name_of(tag) == "CodeMeaning"
        return known is not None and (not is_meaning or str(element.value) == known[2][:64])
    values = [value for value in values_of(element) if not is_blank(value) and not KEYED_WORD.fullmatch(value)]
    if vr == "CS":
        return all(defined_term(tag, value) == value for value in values)
    if vr in ("LO", "SH", "UC"):
        return all(technical_word(tag, value) == value for value in values)
    if vr == "UI":
        return all(is_class_uid(value) or MAPPED_UID.fullmatch(value) for value in values)
    if vr in ("DS", "IS"):
        return number_text(tag, vr, bytes_of(element)) is not None
    if tag in LOOKUP_TABLES:
        return True
    if vr in BINARY_NUMBERS:
        return are_numbers(tag, vr, bytes_of(element), is_little_endian=True)
    return vr == "AS" and len(values) <= 1 and all(re.fullmatch(r"0[0-8]\dY|090Y|\d{3}[DWM]", v) for v in values)


def _found_in_bytes(original: Dataset, result: Dataset, header: bytes) -> Iterator[str]:
    identity = identity_of(original)
    matcher = Matcher(identity.without(uids=filter(is_class_uid, identity.uids)))  # classes of vendors stay
    # A patient may be called Head or Lung, and a hash may spell Lee; few objects need the slower check.
    if matcher.in_bytes(header):
        replaced = _Replaced(original, result, identity)
        if kind := matcher.in_bytes(_header_bytes(_without_vouched(result, replaced))):
            yield f"{kind} of the original is in the header"
    for tag in PIXEL_TAGS:
        if isinstance(data := getattr(result.get(tag), "value", None), bytes) and (kind := matcher.in_bulk(data)):
            yield f"{kind} of the original is in the pixel data's bytes"


class _Replaced:
    """Recognises replacements (hashes and moved dates), which can only spell something identifying by chance.

    A hash is recognised by its form, and must not occur in the original. A date is recognised by its distance from one
    of the original, which is the same for all dates of an object.
    """

    def __init__(self, original: Dataset, result: Dataset, identity: Identity) -> None:
        self._old = identity.uids | {value for element in walk(original) for value in values_of(element)}
        self._days = {day for text in identity.dates if (day := _date(text))}
        distances = set(_distances(original, result))
        self._distance = distances.pop() if len(distances) == 1 else timedelta(0)

    def is_old(self, value: str) -> bool:
        """Whether a value looks like a hash but occurs in the original."""
        return _HASH.fullmatch(value) is not None and value in self._old

    def is_new(self, value: str, vr: str) -> bool:
        """Whether a value is a hash (see `is_old`), a class, a dummy, or a moved date."""
        if is_blank(value) or KEYED_WORD.fullmatch(value):
            return True
        if vr == "UI":
            return is_standard_uid(value) or is_class_uid(value) or _HASH.fullmatch(value) is not None
        day = _date(value) if vr in ("DA", "DT") else None
        return day is not None and timedelta(0) < self._distance <= _FARTHEST and day + self._distance in self._days


def _distances(original: Dataset, result: Dataset, depth: int = 0) -> Iterator[timedelta]:
    """By how much each date was moved back."""
    for element in result:
        if element.VR not in ("DA", "DT", "SQ") or element.tag not in original or depth > MAX_DEPTH:
            continue
        old = original[element.tag]
        if element.VR == "SQ" == old.VR and len(old.value or ()) == len(element.value or ()):
            for before, after in zip(old.value or (), element.value or (), strict=True):
                yield from _distances(before, after, depth + 1)
        elif element.VR == old.VR != "SQ":
            for before, after in zip(map(_date, values_of(old)), map(_date, values_of(element)), strict=False):
                if before and after and not is_blank(f"{after:%Y%m%d}"):
                    yield before - after


def _header_bytes(dataset: Dataset) -> bytes:
    """Everything except pixel data, as it would be written, not deflated."""
    header = Dataset({tag: dataset.get_item(tag) for tag in dataset.keys() if tag not in PIXEL_TAGS})  # noqa: SIM118
    implicit, little = dataset.original_encoding
    header.set_original_encoding(implicit, little, dataset.original_character_set)
    buffer = DicomBytesIO()
    buffer.is_implicit_VR, buffer.is_little_endian = bool(implicit), little is not False
    write_dataset(buffer, header)
    meta = io.BytesIO()
    for element in meta_of(dataset):
        meta.write(b"\0" + (element.value if isinstance(element.value, bytes) else str(element.value).encode()))
    return (getattr(dataset, "preamble", None) or b"") + meta.getvalue() + b"\0" + buffer.getvalue()


def _without_vouched(dataset: Dataset, replaced: _Replaced) -> Dataset:
    """The object without known words, which identify nobody, and without replacements."""
    result = Dataset()
    implicit, little = dataset.original_encoding
    result.set_original_encoding(implicit, little, dataset.original_character_set)
    for element in dataset:
        values = values_of(element) if element.VR != "SQ" else []
        if element.VR == "SQ":
            items = [_without_vouched(item, replaced) for item in element.value or ()]
            result.add(DataElement(element.tag, "SQ", items))
        elif any(map(replaced.is_old, values)) or not (
            (values and all(replaced.is_new(value, element.VR) for value in values)) or _is_word(element, dataset)
        ):
            result[element.tag] = element
    return result


def _is_word(element: DataElement, holder: Dataset) -> bool:
    is_kept = action_of(element.tag, element.VR) is Action.KEEP and element.VR in ("CS", "LO", "SH", "UC")
    return element.tag in STATEMENTS or (is_kept and is_vouched(element, holder))


def _date(value: str) -> date | None:
    """The day of a DA or DT; the old form of a DA has dots."""
    text = value.replace(".", "", 2)
    try:
        return date(int(text[:4]), int(text[4:6]), int(text[6:8])) if len(text) >= 8 else None
    except ValueError:
        return None
