"""Text burned into the pixels: how likely it is, judged by the header, and blacking it out.

Pixels are not inspected. The rules are those of archives (RSNA's CTP filters, the `deid` project's deid.dicom, TCIA's
curation notes): the dedicated attribute, ultrasound and screen captures, colour in modalities that measure grey values
(fused, rendered or annotated pictures), and reports that scanners save as pictures. A header's NO counts only if
nothing else makes text likely: those who capture a screen do not check it either.

Ultrasound is blacked out outside SequenceOfUltrasoundRegions (PS3.3 C.8.5.5). For other pictures nothing says where
text is, so they are refused.
"""

import re
from dataclasses import dataclass
from typing import Literal

import numpy as np
from pydicom import Dataset
from pydicom.uid import ExplicitVRLittleEndian

from sagemaker_monai.deidentification.defined_terms import defined_term
from sagemaker_monai.errors import UnsuitableImage
from sagemaker_monai.images.dicom.elements import integer_of, items, tag_of, text_of
from sagemaker_monai.images.dicom.headers import PIXEL_TAGS

Risk = Literal["stated", "likely", "unknown", "none"]

_LIKELY_CLASSES = (
    "1.2.840.10008.5.1.4.1.1.7",  # Secondary Capture, single-frame
    "1.2.840.10008.5.1.4.1.1.7.2",  # multi-frame, grey byte (.1 is single-bit)
    "1.2.840.10008.5.1.4.1.1.7.1",
    "1.2.840.10008.5.1.4.1.1.7.3",
    "1.2.840.10008.5.1.4.1.1.7.4",
    "1.2.840.10008.5.1.4.1.1.6",  # Ultrasound, retired
    "1.2.840.10008.5.1.4.1.1.6.1",
    "1.2.840.10008.5.1.4.1.1.3",
    "1.2.840.10008.5.1.4.1.1.3.1",
    "1.2.840.10008.5.1.4.1.1.77.1.1",  # endoscopes and their video write the patient's name beside the picture
    "1.2.840.10008.5.1.4.1.1.77.1.1.1",
)
_LIKELY_MODALITIES = frozenset({"US", "IVUS", "ES", "SC", "DOC", "SR", "OT", "HC"})
_GREY_MODALITIES = frozenset({"CT", "MR", "PT", "NM", "XA", "RF", "CR", "DX", "MG", "PX", "IO"})
_MODALITY = tag_of("Modality")
_GREY = frozenset({"MONOCHROME1", "MONOCHROME2"})
# Values of ImageType (PS3.3 C.7.6.1.1.2 and vendors' terms) for pictures of a screen, a report or a 3-D view.
_LIKELY_TYPES = re.compile(r"SCREEN|SAVE|CAPTURE|DOSE|REPORT|PRESENTATION|VOLREN|PASTED|FUSION|ANNOTATION")


@dataclass(frozen=True)
class _KnownText:
    """Pictures of one maker that are known to show the patient's name; each part must match, ignoring case."""

    manufacturer: str
    model: str
    modality: str
    image_type: str
    source: str


# Matched against Manufacturer, ManufacturerModelName, Modality and ImageType. After the corresponding rows of RSNA's
# CTP pixel filter (DicomPixelAnonymizer script) and deid.dicom. Their text positions for single versions are not used:
# another version has its text elsewhere.
KNOWN_TEXT = (
    _KnownText("GE", "LightSpeed", "CT", "LOCALIZER", "deid.dicom: LightSpeed Localizers"),
    _KnownText("", "SOMATOM Definition AS+", "CT", "LOCALIZER", "deid.dicom: Somatom Localizers"),
    _KnownText("", "SOMATOM Definition AS+", "CT", "OTHER", "deid.dicom: Enhancement Curve"),
    _KnownText("SIEMENS", "", "CT", "SECONDARY", "CTP: CT Dose Series"),
    _KnownText("TOSHIBA", "Aquilion", "CT", "SECONDARY", "CTP: Aquilion One CT Dose Series"),
    _KnownText("SIEMENS", "", "NM", "SECONDARY", "CTP: Siemens NM"),
    _KnownText("VITAL", "", "", "", "CTP: stent planning worksheet"),
    _KnownText("VITREA", "", "", "", "CTP: stent planning worksheet"),
    _KnownText("ADAC", "", "", "SECONDARY", "CTP: ADAC"),
)


def burned_in_risk(dataset: Dataset) -> Risk:
    """How likely a picture shows text about the patient, judged by its header.

    Returns:
        "stated": BurnedInAnnotation is YES, or unused bits of the pixels hold an overlay; "likely": by its kind, see
        the module docstring; "none": not likely and the header says NO, or no picture; "unknown": otherwise.
    """
    if _text(dataset, "BurnedInAnnotation") == "YES" or has_overlay_in_pixels(dataset):
        return "stated"
    if "Rows" not in dataset and not any(tag in dataset for tag in PIXEL_TAGS):
        return "none"
    return "likely" if _is_likely(dataset) else "none" if _text(dataset, "BurnedInAnnotation") == "NO" else "unknown"


def _is_likely(dataset: Dataset) -> bool:
    modality = _text(dataset, "Modality")
    image_type = _text(dataset, "ImageType")
    if _text(dataset, "SOPClassUID") in _LIKELY_CLASSES or modality in _LIKELY_MODALITIES:
        return True
    if modality and defined_term(_MODALITY, modality) is None:  # an unknown kind of picture
        return True
    if modality in _GREY_MODALITIES and _text(dataset, "PhotometricInterpretation") not in (*_GREY, ""):
        return True
    if _LIKELY_TYPES.search(image_type) or "ConversionType" in dataset:
        return True
    return any(_is_known(row, dataset, modality, image_type) for row in KNOWN_TEXT)


def _text(dataset: Dataset, keyword: str) -> str:
    return text_of(dataset, keyword).upper()


def _is_known(row: _KnownText, dataset: Dataset, modality: str, image_type: str) -> bool:
    return (
        row.manufacturer.upper() in _text(dataset, "Manufacturer")
        and row.model.upper() in _text(dataset, "ManufacturerModelName")
        and row.modality in modality
        and row.image_type in image_type
    )


def has_overlay_in_pixels(dataset: Dataset) -> bool:
    """Whether unused bits of the pixel data hold an overlay (retired form)."""
    return any(
        tag & 0xFF00FFFF == 0x60000010 and (tag & 0xFFFF0000 | 0x3000) not in dataset
        for tag in dataset.keys()  # noqa: SIM118
        if tag >> 24 == 0x60
    )


def _regions(dataset: Dataset, rows: int, columns: int) -> list[tuple[slice, slice]]:
    """The regions; none if one lies outside, because then they belong to a picture of another size."""
    places = []
    for item in items(dataset, "SequenceOfUltrasoundRegions"):
        corners = [integer_of(item, f"RegionLocation{name}") for name in ("MinX0", "MinY0", "MaxX1", "MaxY1")]
        if None in corners:
            return []
        left, top, right, bottom = (corner or 0 for corner in corners)
        # The maximum is inclusive (C.8.5.5.1.1), yet scanners write the number of columns or rows.
        if not (0 <= left <= right <= columns and 0 <= top <= bottom <= rows):
            return []
        places.append((slice(top, bottom + 1), slice(left, right + 1)))
    return places


def black_out(dataset: Dataset) -> Dataset:
    """Blacken an ultrasound picture outside its regions, in place.

    Returns:
        The same dataset: native pixel data, Explicit VR Little Endian, colour as RGB, BurnedInAnnotation NO.

    Raises:
        UnsuitableImage: nothing says where the picture is, or the regions cover all of it.
        CallerError: the pixel data cannot be decoded.
    """
    # Imported here because the decoders load slowly, and most data sets have nothing to black out.
    from sagemaker_monai.images.dicom.decoding import decode_stored

    pixels = decode_stored(dataset)  # (F, H, W) or (F, H, W, 3)
    rows, columns = pixels.shape[1:3]
    is_outside = np.ones((rows, columns), dtype=bool)
    for place in _regions(dataset, rows, columns):
        is_outside[place] = False
    if has_overlay_in_pixels(dataset) or is_outside.all() or not is_outside.any():
        raise UnsuitableImage(
            "the header does not say where in the picture text may be, so it cannot be blacked out; "
            "leave the file out, or keep it after checking it visually"
        )
    is_inverted = _text(dataset, "PhotometricInterpretation") == "MONOCHROME1"
    stored, is_signed = int(dataset.BitsStored), pixels.dtype.kind == "i"
    lowest = -(1 << (stored - 1)) if is_signed else 0
    black = lowest + (1 << stored) - 1 if is_inverted else lowest
    pixels = np.array(pixels)
    pixels[:, is_outside] = black
    return _store(dataset, pixels)


def _store(dataset: Dataset, pixels: np.ndarray) -> Dataset:
    is_colour = pixels.ndim == 4
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.set_original_encoding(False, True, dataset.original_character_set)
    bits = pixels.dtype.itemsize * 8
    if is_colour:
        for keyword in [
            f"{colour}PaletteColorLookupTable{part}"
            for colour in ("Red", "Green", "Blue")
            for part in ("Data", "Descriptor")
        ]:
            if keyword in dataset:
                del dataset[keyword]
        dataset.PhotometricInterpretation, dataset.SamplesPerPixel, dataset.PlanarConfiguration = "RGB", 3, 0
        dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation = bits, bits - 1, 0
    dataset.BitsAllocated = bits
    dataset.Rows, dataset.Columns = pixels.shape[1:3]
    data = np.ascontiguousarray(pixels.astype(pixels.dtype.newbyteorder("<"))).tobytes()
    dataset.add_new(0x7FE00010, "OB" if bits == 8 else "OW", data + b"\0" * (len(data) % 2))
    dataset["PixelData"].is_undefined_length = False
    dataset.BurnedInAnnotation = "NO"
    return dataset
