"""De-identification of DICOM objects on the way into a data set.

DICOM PS3.15 Annex E, Basic Application Level Confidentiality Profile (113100), with the option Retain Longitudinal
Temporal Information with Modified Dates (113107): dates are moved back by a secret number of days, the same for all of
a patient's objects, and times are kept, so that intervals and a PET's decay remain right. Keyed hashes (`pseudonyms`)
replace UIDs and the patient, so that references and groups hold across files and runs with one salt. `profile` says
what is done to each element.

PatientAge, sex, size and weight are removed, as the profile requires, unless `keep_patient_characteristics` selects the
option 113108 (PET's SUV needs the weight). Then ages above 89 years become 90: under HIPAA's safe harbour (45 CFR
164.514(b)(2)(i)(C)) they are identifying. That rule also forbids all dates but the year, in some readings even moved
ones; to follow it literally, have an expert determine the risk (164.514(b)(1)).

The transfer syntax and the pixel values stay, bit for bit; of the pixel data's bytes only those needed by the header
and the decoder are kept (`pixel_data`). Pictures that are likely to show text are refused, kept, or blacked out
(`burned_in`). Faces that can be rendered from a head CT or MR are not removed.
"""

import re
from collections import Counter
from collections.abc import Callable
from copy import copy
from dataclasses import replace
from typing import Literal

from pydicom import Dataset
from pydicom.dataelem import DataElement, RawDataElement
from pydicom.dataset import FileMetaDataset
from pydicom.multival import MultiValue
from pydicom.sequence import Sequence
from pydicom.tag import BaseTag
from pydicom.uid import UID, ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian

from sagemaker_monai.deidentification.burned_in import black_out, burned_in_risk
from sagemaker_monai.deidentification.coded_entries import (
    CODE_TAGS,
    CONTEXT_TAGS,
    MAY_BE_EMPTY,
    has_code,
    known_code,
)
from sagemaker_monai.deidentification.defined_terms import defined_term
from sagemaker_monai.deidentification.element_bytes import (
    Element,
    bytes_of,
    code,
    dummy_sequence,
    raw_element,
    text_element,
    vr_of,
    words_of,
)
from sagemaker_monai.deidentification.identity import MAX_DEPTH, identity_of, patient_of
from sagemaker_monai.deidentification.lookup_tables import LOOKUP_TABLES, SEGMENTED, checked_table, plain_palette
from sagemaker_monai.deidentification.matcher import Matcher
from sagemaker_monai.deidentification.number_values import (
    BINARY_NUMBERS,
    are_numbers,
    has_multiplicity,
    number_text,
    whole_numbers,
)
from sagemaker_monai.deidentification.pixel_data import is_compressed, needed_pixels
from sagemaker_monai.deidentification.profile import (
    PATIENT_CHARACTERISTICS,
    Action,
    action_of,
    basic_action,
    dummy,
    is_class_uid,
    is_transfer_syntax,
    vrs_of,
)
from sagemaker_monai.deidentification.pseudonyms import (
    check_salt,
    keyed_word,
    mapped_uid,
    pseudonym,
    shift_of,
    shifted,
)
from sagemaker_monai.deidentification.technical_texts import TECHNICAL_TEXTS, technical_word
from sagemaker_monai.errors import ConfigError, PayloadTooLarge, UndecodableImage, UnsuitableImage
from sagemaker_monai.images.dicom.elements import meta_of, tag_of, tags_of, text_of, values_of
from sagemaker_monai.images.dicom.headers import PIXEL_GROUP, quiet_pydicom
from sagemaker_monai.images.dicom.pixel_layout import pixel_tag_of

BurnedIn = Literal["refuse", "keep", "black_out"]
BURNED_IN: tuple[BurnedIn, ...] = ("refuse", "keep", "black_out")
METHOD = "DICOM PS3.15 Basic Profile, dates modified, UIDs keyed hashes"  # LO: at most 64 characters
_CLEAN_PIXELS = "113101"
_CODES = {
    "113100": "Basic Application Confidentiality Profile",
    _CLEAN_PIXELS: "Clean Pixel Data Option",
    "113107": "Retain Longitudinal Temporal Information Modified Dates Option",
    "113108": "Retain Patient Characteristics Option",
}
_MEDIA_DIRECTORY = "1.2.840.10008.1.3.10"
_ENCAPSULATED = "1.2.840.10008.5.1.4.1.1.104."  # PDF, CDA, STL and other documents
# What happens to words that are not defined terms, if they are not simply removed: ImageType distinguishes volumes, the
# terms of a list are kept ("others"), and the last ones are mandatory.
_OTHER_TERMS: dict[int, str] = {
    **dict.fromkeys(tags_of("ImageType FrameType"), "keyed word"),
    **dict.fromkeys(tags_of("ScanOptions SequenceVariant ScanningSequence SpecificCharacterSet"), "others"),
    tag_of("Modality"): "modality",
    tag_of("ContentLabel"): "dummy",
    tag_of("PatientSex"): "empty",
}
_FIXED = {"dummy": b"REMOVED", "empty": b"", "modality": b"OT"}
_MOST_WORDS = 4096
_SYNTAXES: dict[object, UID] = {  # by (is implicit, is little endian)
    (True, True): ImplicitVRLittleEndian,
    (False, True): ExplicitVRLittleEndian,
    (False, False): ExplicitVRBigEndian,
}
_READABLE_ERRORS = (UndecodableImage, UnsuitableImage, PayloadTooLarge)


class _Patient:
    """The replacements for one object's elements, and what must not occur in the result."""

    def __init__(self, salt: bytes, dataset: Dataset) -> None:
        keyword, value = patient_of(dataset)
        key = value if keyword == "PatientID" else f"{keyword}:{value}" * bool(value)
        self.pseudonym = pseudonym(salt, key)
        self.shift_days = shift_of(salt, key)
        self.matcher = Matcher(replace(identity_of(dataset), dates=frozenset(), uids=frozenset()))


class Deidentifier:
    """De-identifies objects with one salt and counts what it did; not for several threads at once."""

    def __init__(
        self, salt: bytes, *, burned_in: BurnedIn = "refuse", keep_patient_characteristics: bool = False
    ) -> None:
        """Set the rules.

        Args:
            salt: at least 16 secret bytes; see `pseudonyms.make_salt`. It is never written anywhere.
            burned_in: what to do with pictures that state that they show text, or are likely to.
            keep_patient_characteristics: keep sex, age (90 for more than 89 years), size, weight, ethnic group,
                smoking and pregnancy status.

        Raises:
            ConfigError: the salt is too short, or the policy is unknown.
        """
        check_salt(salt)
        if burned_in not in BURNED_IN:
            raise ConfigError(f"burned_in must be one of {', '.join(BURNED_IN)}")
        self._salt = salt
        self._burned_in = burned_in
        self._keeps = PATIENT_CHARACTERISTICS if keep_patient_characteristics else frozenset()
        self.counts: Counter[str] = Counter()
        self._words: dict[tuple[int, str, bytes], bytes | None] = {}  # cached replacements of words

    def __repr__(self) -> str:
        """Without the salt."""
        return f"Deidentifier(burned_in={self._burned_in!r})"

    def __call__(self, dataset: Dataset) -> Dataset:
        """De-identify one object.

        Args:
            dataset: complete, from `read_instance`; it is not changed.

        Returns:
            A new dataset with a new `file_meta`.

        Raises:
            UnsuitableImage: the picture may show text (see `burned_in`), or the object is a DICOMDIR, an embedded
                document, or has no SOP class.
            UndecodableImage: sequences are nested too deeply, or the pixel data is broken.
            PayloadTooLarge: more pixels than the limits.
        """
        quiet_pydicom()
        sop_class = text_of(dataset, "SOPClassUID") or text_of(meta_of(dataset), "MediaStorageSOPClassUID")
        _check_class(sop_class)
        risk = burned_in_risk(dataset)
        is_suspect = risk in ("stated", "likely")
        if is_suspect and self._burned_in == "refuse":
            raise UnsuitableImage(
                f"text about the patient may be burned into the picture ({risk} by its header); "
                'leave it out, or set burned_in to "black_out" or, after checking it visually, "keep"'
            )
        patient = _Patient(self._salt, dataset)
        result = self._cleaned(dataset, patient, depth=0)
        self._describe(dataset, result, sop_class, patient)
        if is_suspect and self._burned_in == "black_out":
            black_out(result)
            result.DeidentificationMethodCodeSequence.append(code(_CLEAN_PIXELS, _CODES[_CLEAN_PIXELS]))
            self.counts["pictures blacked out"] += 1
        self.counts["objects de-identified"] += 1
        return result

    def report(self) -> list[str]:
        """What was done so far, as counts without values."""
        return [f"{count} {what}" for what, count in sorted(self.counts.items())]

    def _cleaned(self, source: Dataset, patient: _Patient, depth: int) -> Dataset:
        if depth > MAX_DEPTH:
            raise UndecodableImage(f"sequences of the DICOM file are nested more than {MAX_DEPTH} deep")
        result = Dataset()
        implicit, little = source.original_encoding
        result.set_original_encoding(implicit, little, source.original_character_set)
        for tag in source.keys():  # noqa: SIM118 - iterating a Dataset parses every element
            element: Element = source.get_item(tag)
            vr = vr_of(source, tag, element)
            action = Action.KEEP if tag in self._keeps else action_of(tag, vr)
            try:
                if action is not Action.REMOVE and vr not in vrs_of(tag):  # the file's VR is not trusted
                    vr, action = _corrected(tag, vr)
                if isinstance(element, RawDataElement) and element.VR == "UN" and vr != "UN":
                    element = source[tag]
                new = self._element(action, source, element, vr, patient, depth)
            except _READABLE_ERRORS:
                raise
            except Exception:
                # pydicom's exceptions for values of the wrong type are not documented. The unknown value is removed.
                new = None
            if new is None:
                self.counts["private elements removed" if tag.is_private else "elements removed"] += 1
            else:
                result[new.tag] = new
        return result

    def _item(self, source: Dataset, patient: _Patient, depth: int) -> Dataset | None:
        """An item of a sequence; None for a coded entry that DICOM does not list."""
        result = self._cleaned(source, patient, depth)
        if not has_code(source):
            return result
        if (known := known_code(source)) is None:
            self.counts["codes of local schemes removed"] += 1
            return None
        for tag in CONTEXT_TAGS & result.keys():
            del result[tag]
        value, result.CodingSchemeDesignator, result.CodeMeaning = known[0], known[1], known[2][:64]
        setattr(result, "CodeValue" if len(value) <= 16 else "LongCodeValue", value)
        return result

    def _element(
        self, action: Action, source: Dataset, element: Element, vr: str, patient: _Patient, depth: int
    ) -> Element | None:
        """What an element becomes; None removes it."""
        tag = element.tag
        if tag.group == PIXEL_GROUP:
            # Pictures within sequences are icons of the whole one; offset tables are rewritten with the pixel data.
            return self._pixels(source, element, vr) if tag == pixel_tag_of(source) and not depth else None
        if action is Action.REMOVE:
            return None
        if action is Action.KEEP:
            return _JUDGES[vr](self, source, element, patient) if vr in _JUDGES else None
        if action is Action.CLEAN:
            items = [self._item(item, patient, depth + 1) for item in source[tag].value or ()]
            kept = [item for item in items if item is not None]
            return DataElement(tag, "SQ", Sequence(kept)) if kept or not items or tag in MAY_BE_EMPTY else None
        if action is Action.MAP_UID or vr == "UI":
            self.counts["UIDs replaced"] += 1
            return text_element(tag, vr, [mapped_uid(self._salt, uid) for uid in values_of(source[tag])])
        if action is Action.SHIFT:
            values = values_of(source[tag])
            moved = [shifted(value, vr, patient.shift_days) if value else "" for value in values]
            # A time has six digits, and its fraction six more: as many as a patient's number.
            is_telling = any(patient.matcher.in_number(value if vr == "TM" else value[8:]) for value in values)
            if None in moved or is_telling or not has_multiplicity(tag, len(values)):
                return self._element(basic_action(tag, vr), source, element, vr, patient, depth)
            self.counts["times kept" if vr == "TM" else "dates moved"] += 1
            return text_element(tag, vr, moved)
        self.counts["values replaced or emptied"] += 1
        if action is Action.PATIENT:
            return DataElement(tag, vr, patient.pseudonym)
        if action is Action.EMPTY:
            return DataElement(tag, vr, [] if vr == "SQ" else None)
        return dummy_sequence(source[tag], self._salt) if vr == "SQ" else DataElement(tag, vr, dummy(vr))

    def _pixels(self, source: Dataset, element: Element, vr: str) -> DataElement:
        data = needed_pixels(source)
        if data != element.value:
            self.counts["pixel data cut to what the header needs"] += 1
        compressed = is_compressed(source)
        new = DataElement(element.tag, "OB" if compressed else vr, data)
        new.is_undefined_length = compressed
        return new

    def _kept_words(self, source: Dataset, element: Element, _patient: _Patient) -> Element | None:
        tag, vr, data = element.tag, vr_of(source, element.tag, element), bytes_of(element)
        key = (int(tag), vr, data)
        if key not in self._words:
            if len(self._words) >= _MOST_WORDS:
                self._words.clear()
            self._words[key] = self._words_for(tag, vr, words_of(data))
        words = self._words[key]
        return None if words is None else raw_element(source, tag, vr, words)

    def _words_for(self, tag: BaseTag, vr: str, values: list[str]) -> bytes | None:
        if not has_multiplicity(tag, len(values)) or tag in CODE_TAGS:
            return None
        look_up = defined_term if vr == "CS" else technical_word
        words = [look_up(tag, value) if value else "" for value in values]
        if None in words:
            self.counts["unknown texts replaced or removed"] += 1
            otherwise = _OTHER_TERMS.get(tag, "remove") if vr == "CS" else TECHNICAL_TEXTS[tag].otherwise
            if otherwise == "remove":
                return None
            if otherwise in _FIXED:
                return _FIXED[otherwise]
            if otherwise == "keyed word":
                words = [
                    keyed_word(self._salt, value) if word is None else word
                    for word, value in zip(words, values, strict=True)
                ]
        return "\\".join(word for word in words if word is not None).encode("ascii")

    def _kept_class(self, source: Dataset, element: Element, _patient: _Patient) -> Element | None:
        values = words_of(bytes_of(element))
        if not has_multiplicity(element.tag, len(values)):
            return None
        uids = [value if is_class_uid(value) else mapped_uid(self._salt, value) for value in values]
        return raw_element(source, element.tag, "UI", "\\".join(uids).encode("ascii"))

    def _kept_number(self, source: Dataset, element: Element, patient: _Patient) -> Element | None:
        tag, vr = element.tag, vr_of(source, element.tag, element)
        text = number_text(tag, vr, bytes_of(element))
        if text is None:
            return None
        if any(patient.matcher.in_number(number.decode()) for number in whole_numbers(text)):
            self.counts["values with the patient's name or numbers removed"] += 1
            return None
        return raw_element(source, tag, vr, text)

    def _kept_binary(self, source: Dataset, element: Element, patient: _Patient) -> Element | None:
        tag, vr, data = element.tag, vr_of(source, element.tag, element), bytes_of(element)
        is_little = source.original_encoding[1] is not False
        if tag in SEGMENTED:
            return plain_palette(source, tag, is_little_endian=is_little)
        if tag in LOOKUP_TABLES:
            is_converted = not isinstance(element, RawDataElement) and not isinstance(element.value, bytes)
            if is_converted and not is_little:
                data = b"".join(data[place : place + 2][::-1] for place in range(0, len(data), 2))
            table = checked_table(source, tag, data, is_little_endian=is_little)
            if patient.matcher.in_bulk(table):
                raise UnsuitableImage(
                    "a lookup table of the header contains the patient's name or number; export the file again, or "
                    "leave it out"
                )
            return raw_element(source, tag, "OW" if "OW" in vr else vr, table)
        if vr not in BINARY_NUMBERS:
            return None
        is_raw = isinstance(element, RawDataElement)
        if not are_numbers(tag, vr, data, is_little_endian=not is_raw or is_little):
            return None
        if not is_raw:
            element = copy(element)  # do not share lists of values with the original
            if isinstance(element.value, MultiValue):
                element = DataElement(tag, element.VR, list(element.value), already_converted=True)
        return element

    def _kept_age(self, _source: Dataset, element: Element, _patient: _Patient) -> Element | None:
        values = words_of(bytes_of(element))
        if len(values) != 1 or not re.fullmatch(r"[0-9]{3}[DWMY]", values[0]):
            return None
        is_old = values[0][3] == "Y" and int(values[0][:3]) > 89
        return DataElement(element.tag, "AS", "090Y" if is_old else values[0])

    def _describe(self, source: Dataset, result: Dataset, sop_class: str, patient: _Patient) -> None:
        old = meta_of(source)
        uid = text_of(source, "SOPInstanceUID") or text_of(old, "MediaStorageSOPInstanceUID")
        if not uid:
            raise UnsuitableImage("the object has no SOPInstanceUID; export it again")
        result.SOPClassUID = sop_class
        result.SOPInstanceUID = mapped_uid(self._salt, uid)
        result.PatientName = result.PatientID = patient.pseudonym
        meta = FileMetaDataset()
        meta.MediaStorageSOPClassUID = UID(sop_class)
        meta.MediaStorageSOPInstanceUID = result.SOPInstanceUID
        syntax = text_of(old, "TransferSyntaxUID") or _SYNTAXES.get(source.original_encoding, ExplicitVRLittleEndian)
        if not is_transfer_syntax(str(syntax)):
            raise UnsuitableImage("DICOM does not define this transfer syntax; export the file in another one")
        meta.TransferSyntaxUID = UID(str(syntax))
        result.file_meta = meta
        result.preamble = bytes(128)  # the original may be a TIFF header, or anything
        result.PatientIdentityRemoved = "YES"
        result.LongitudinalTemporalInformationModified = "MODIFIED"
        result.DeidentificationMethod = METHOD
        codes = ["113100", "113107", *(["113108"] if self._keeps else [])]
        result.DeidentificationMethodCodeSequence = [code(value, _CODES[value]) for value in codes]


def is_blacked_out(dataset: Dataset) -> bool:
    """Whether a de-identified object states that parts of its picture were blacked out."""
    return any(
        item.get("CodeValue") == _CLEAN_PIXELS for item in dataset.get("DeidentificationMethodCodeSequence") or ()
    )


_JUDGES: dict[str, Callable[[Deidentifier, Dataset, Element, _Patient], Element | None]] = {
    **dict.fromkeys(("CS", "LO", "SH", "UC"), Deidentifier._kept_words),
    **dict.fromkeys(("DS", "IS"), Deidentifier._kept_number),
    **dict.fromkeys((*BINARY_NUMBERS, "OB", "OW", "US or OW"), Deidentifier._kept_binary),
    "UI": Deidentifier._kept_class,
    "AS": Deidentifier._kept_age,
}


def _corrected(tag: BaseTag, vr: str) -> tuple[str, Action]:
    """VR and action for an element with a wrong VR: it is never kept or moved."""
    vr = min(vrs_of(tag) - {"UN"}, key=len)
    action = action_of(tag, vr)
    return vr, action if action in (Action.EMPTY, Action.DUMMY, Action.PATIENT) and vr != "SQ" else Action.REMOVE


def _check_class(sop_class: str) -> None:
    if sop_class == _MEDIA_DIRECTORY:
        raise UnsuitableImage("a DICOMDIR cannot be de-identified, because its files and offsets change; leave it out")
    if sop_class.startswith(_ENCAPSULATED):
        raise UnsuitableImage("an embedded document (PDF, CDA, 3-D model) cannot be de-identified; leave it out")
    if not sop_class:
        raise UnsuitableImage("the object has no SOPClassUID, so its kind is unknown; export it again")
    if not is_class_uid(sop_class):
        raise UnsuitableImage(
            "the object's SOPClassUID is neither DICOM's nor a known maker's, so it may identify somebody; leave it out"
        )
