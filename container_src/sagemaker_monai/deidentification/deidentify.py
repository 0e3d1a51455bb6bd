"""De-identification of DICOM objects on the way into a data set.

DICOM PS3.15 Annex E, Basic Application Level Confidentiality Profile (113100), with the option Retain Longitudinal
Temporal Information with Modified Dates (113107): dates are moved back by a number of days that is secret and the same
for all of a patient's objects, times stay, so that intervals and a PET's decay remain right. UIDs and the patient are
replaced by keyed hashes (`pseudonyms`), so that references and groups still hold across files and runs with one salt.
What is done to which element says `profile`.

PatientAge, sex, size and weight go, as the profile has it, unless `keep_patient_characteristics` asks for the option
113108 (PET's SUV needs the weight). Ages above 89 years become 90 then: under HIPAA's safe harbour (45 CFR
164.514(b)(2)(i)(C)) they are identifying. That rule also forbids all dates but the year, moved ones included in the
reading of some; whoever needs it literally has an expert determine the risk (164.514(b)(1)).

The transfer syntax and the pixels' values stay, bit for bit; of the pixel data's bytes only those stay that the header
and the decoder need (`pixel_data`). Pictures that are likely to show text are refused, kept, or blacked
out (`burned_in`). Faces that can be rendered from a head CT or MR are not removed.
"""

import re
from collections import Counter
from copy import copy
from dataclasses import replace
from pathlib import Path
from typing import Literal

from pydicom import Dataset, dcmwrite
from pydicom.dataelem import DataElement, RawDataElement
from pydicom.dataset import FileMetaDataset
from pydicom.multival import MultiValue
from pydicom.sequence import Sequence
from pydicom.tag import BaseTag
from pydicom.uid import UID, ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian

from sagemaker_monai.deidentification.burned_in import black_out, burned_in_risk
from sagemaker_monai.deidentification.elements import Element, code, dummy_sequence, text_element, vr_of
from sagemaker_monai.deidentification.identity import MAX_DEPTH, identity_of, patient_of, values_of
from sagemaker_monai.deidentification.matcher import Matcher
from sagemaker_monai.deidentification.pixel_data import is_compressed, needed_pixels
from sagemaker_monai.deidentification.profile import (
    PATIENT_CHARACTERISTICS,
    Action,
    action_of,
    basic_action,
    dummy,
)
from sagemaker_monai.deidentification.pseudonyms import check_salt, mapped_uid, pseudonym, shift_of, shifted
from sagemaker_monai.dicom.headers import PIXEL_GROUP, quiet_pydicom, read_instance
from sagemaker_monai.dicom.layouts import pixel_tag_of
from sagemaker_monai.errors import ConfigError, PayloadTooLarge, UndecodableImage, UnsuitableImage
from sagemaker_monai.files import replacing

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
_PIXEL_DESCRIPTIONS = frozenset({0x00080060, 0x00280004})  # Modality, PhotometricInterpretation: nothing works without
_TEXT_VRS = frozenset({"CS", "LO", "SH", "LT", "ST", "UT", "UC", "UR", "DS", "IS", "AS"})
_NUMBERS = re.compile(rb"[0-9eE+\-. \\\0]*")
_MAX_TEXT_BYTES = 1 << 16
_SYNTAXES: dict[object, UID] = {  # by (is implicit, is little endian)
    (True, True): ImplicitVRLittleEndian,
    (False, True): ExplicitVRLittleEndian,
    (False, False): ExplicitVRBigEndian,
}
_READABLE_ERRORS = (UndecodableImage, UnsuitableImage, PayloadTooLarge)
_MIN_SEARCHED_BYTES = 16  # numbers take less, and no name is hidden in one


class _Patient:
    """What one object's elements are replaced with, and what must not stand anywhere."""

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
            burned_in: what to do with pictures that state, or by their kind are likely, to show text.
            keep_patient_characteristics: keep sex, age (90 for more than 89 years), size, weight, ethnic group,
                smoking and pregnancy status.

        Raises:
            ConfigError: a short salt, or no such policy.
        """
        check_salt(salt)
        if burned_in not in BURNED_IN:
            raise ConfigError(f"burned_in must be one of {', '.join(BURNED_IN)}")
        self._salt = salt
        self._burned_in = burned_in
        self._keeps = PATIENT_CHARACTERISTICS if keep_patient_characteristics else frozenset()
        self.counts: Counter[str] = Counter()

    def __repr__(self) -> str:
        """Without the salt."""
        return f"Deidentifier(burned_in={self._burned_in!r})"

    def __call__(self, dataset: Dataset) -> Dataset:
        """De-identify one object.

        Args:
            dataset: complete, as `read_instance` gives it; it is not changed.

        Returns:
            A new dataset with a new `file_meta`.

        Raises:
            UnsuitableImage: text may stand in the picture (see `burned_in`), the patient's name stands in the pixel
                data's bytes, or the object is a DICOMDIR, an embedded document, or has no SOP class.
            UndecodableImage: sequences are nested too deeply, or the pixel data are broken.
            PayloadTooLarge: more pixels than the limits.
        """
        quiet_pydicom()
        sop_class = str(dataset.get("SOPClassUID") or _meta_of(dataset).get("MediaStorageSOPClassUID") or "")
        _check_class(sop_class)
        risk = burned_in_risk(dataset)
        is_suspect = risk in ("stated", "likely")
        if is_suspect and self._burned_in == "refuse":
            raise UnsuitableImage(
                f"text about the patient may be burned into the picture ({risk} by its header); "
                'leave it out, or set burned_in to "black_out" or, after somebody has looked at it, "keep"'
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

    def deidentify_file(self, source: Path, target: Path) -> None:
        """De-identify a file; the target is written whole or not at all.

        Raises:
            CallerError: as `read_instance` and `__call__`.
        """
        result = self(read_instance(source))
        with replacing(target) as part:
            dcmwrite(part, result, enforce_file_format=True)

    def report(self) -> list[str]:
        """What was done so far, in words with counts; no values."""
        return [f"{count} {what}" for what, count in sorted(self.counts.items())]

    def _cleaned(self, source: Dataset, patient: _Patient, depth: int) -> Dataset:
        if depth > MAX_DEPTH:
            raise UndecodableImage(f"sequences of the DICOM file are nested more than {MAX_DEPTH} deep")
        result = Dataset()
        implicit, little = source.original_encoding
        result.set_original_encoding(implicit, little, source.original_character_set)
        for tag in source.keys():  # noqa: SIM118 - iterating a Dataset parses every element
            element = source.get_item(tag)
            vr = vr_of(source, tag, element)
            action = Action.KEEP if tag in self._keeps else action_of(tag, vr)
            try:
                new = self._element(action, source, element, vr, patient, depth)
            except _READABLE_ERRORS:
                raise
            except Exception:
                # pydicom promises no list of exceptions for values that are none of their type. Nobody knows what
                # stands there, so it goes.
                new = None
            if new is None:
                self.counts["private elements removed" if tag.is_private else "elements removed"] += 1
            else:
                result[tag] = new
        return result

    def _element(
        self, action: Action, source: Dataset, element: Element, vr: str, patient: _Patient, depth: int
    ) -> Element | None:
        """What an element becomes; None removes it."""
        tag = element.tag
        if tag.group == PIXEL_GROUP:
            # Pictures within sequences are icons of the whole one; offset tables are a part of what is written anew.
            return self._pixels(source, element, vr, patient) if tag == pixel_tag_of(source) and not depth else None
        if action is Action.REMOVE:
            return None
        if action is Action.KEEP:
            return self._kept(source, element, vr, patient)
        if action is Action.CLEAN:
            items = [self._cleaned(item, patient, depth + 1) for item in source[tag].value or ()]
            return DataElement(tag, "SQ", Sequence(items))
        if action is Action.MAP_UID or vr == "UI":
            self.counts["UIDs replaced"] += 1
            return text_element(tag, vr, [mapped_uid(self._salt, uid) for uid in values_of(source[tag])])
        if action is Action.SHIFT:
            moved = [shifted(value, vr, patient.shift_days) if value else "" for value in values_of(source[tag])]
            if None in moved:
                return self._element(basic_action(tag, vr), source, element, vr, patient, depth)
            self.counts["times kept" if vr == "TM" else "dates moved"] += 1
            return text_element(tag, vr, moved)
        self.counts["values replaced or emptied"] += 1
        if action is Action.PATIENT:
            return DataElement(tag, vr, patient.pseudonym)
        if action is Action.EMPTY:
            return DataElement(tag, vr, [] if vr == "SQ" else None)
        return dummy_sequence(source[tag], self._salt) if vr == "SQ" else DataElement(tag, vr, dummy(vr))

    def _pixels(self, source: Dataset, element: Element, vr: str, patient: _Patient) -> DataElement:
        data = needed_pixels(source)
        if data != element.value:
            self.counts["pixel data cut to what the header needs"] += 1
        if patient.matcher.in_bulk(data):
            raise UnsuitableImage(
                "the pixel data's bytes hold the patient's name or number, in what the picture itself is made of; "
                "leave the file out"
            )
        compressed = is_compressed(source)
        new = DataElement(element.tag, "OB" if compressed else vr, data)
        new.is_undefined_length = compressed
        return new

    def _kept(self, source: Dataset, element: Element, vr: str, patient: _Patient) -> Element | None:
        tag, value = element.tag, element.value
        if not isinstance(element, RawDataElement):
            element = copy(element)  # bytes are shared, lists of values are not
            if isinstance(value, MultiValue):
                element = DataElement(tag, element.VR, list(value), already_converted=True)
        if vr == "AS":
            return _capped_age(tag, values_of(source[tag]))
        text = values_of(source[tag]) if not isinstance(value, bytes) else []
        data = value if isinstance(value, bytes) else "\\".join(text).encode("utf-8", "surrogateescape")
        if vr in ("DS", "IS") and not _NUMBERS.fullmatch(data):
            return None
        is_searched = tag not in _PIXEL_DESCRIPTIONS
        if is_searched and (vr in _TEXT_VRS or len(data) >= _MIN_SEARCHED_BYTES) and _holds(data, patient):
            self.counts["values with the patient's name or numbers removed"] += 1
            return None
        return element

    def _describe(self, source: Dataset, result: Dataset, sop_class: str, patient: _Patient) -> None:
        old = _meta_of(source)
        uid = str(source.get("SOPInstanceUID") or old.get("MediaStorageSOPInstanceUID") or "")
        if not uid.strip(" \0"):
            raise UnsuitableImage("the object has no SOPInstanceUID, so nothing can refer to it; export it again")
        result.SOPClassUID = sop_class
        result.SOPInstanceUID = mapped_uid(self._salt, uid)
        result.PatientName = result.PatientID = patient.pseudonym
        meta = FileMetaDataset()
        meta.MediaStorageSOPClassUID = UID(sop_class)
        meta.MediaStorageSOPInstanceUID = result.SOPInstanceUID
        meta.TransferSyntaxUID = old.get("TransferSyntaxUID") or _SYNTAXES.get(
            source.original_encoding, ExplicitVRLittleEndian
        )
        result.file_meta = meta
        result.preamble = bytes(128)  # the old one may be a TIFF's header, or anything
        result.PatientIdentityRemoved = "YES"
        result.LongitudinalTemporalInformationModified = "MODIFIED"
        result.DeidentificationMethod = METHOD
        codes = ["113100", "113107", *(["113108"] if self._keeps else [])]
        result.DeidentificationMethodCodeSequence = [code(value, _CODES[value]) for value in codes]


def is_blacked_out(dataset: Dataset) -> bool:
    """Whether a de-identified object says that parts of its pictures were blacked out."""
    return any(
        item.get("CodeValue") == _CLEAN_PIXELS for item in dataset.get("DeidentificationMethodCodeSequence") or ()
    )


def _meta_of(dataset: Dataset) -> Dataset:
    return getattr(dataset, "file_meta", None) or Dataset()


def _check_class(sop_class: str) -> None:
    if sop_class == _MEDIA_DIRECTORY:
        raise UnsuitableImage("a DICOMDIR lists files and offsets that change; leave it out, the files are enough")
    if sop_class.startswith(_ENCAPSULATED):
        raise UnsuitableImage("an embedded document (PDF, CDA, 3-D model) cannot be de-identified; leave it out")
    if not sop_class:
        raise UnsuitableImage("the object has no SOPClassUID, so nobody knows what it is; export it again")


def _capped_age(tag: BaseTag, values: list[str]) -> DataElement | None:
    if len(values) != 1 or not re.fullmatch(r"[0-9]{3}[DWMY]", values[0]):
        return None
    is_old = values[0][3] == "Y" and int(values[0][:3]) > 89
    return DataElement(tag, "AS", "090Y" if is_old else values[0])


def _holds(data: bytes, patient: _Patient) -> bool:
    if len(data) > _MAX_TEXT_BYTES:  # in tables of numbers short words stand by chance
        return bool(patient.matcher.in_bulk(data))
    return bool(patient.matcher.in_bytes(data))
