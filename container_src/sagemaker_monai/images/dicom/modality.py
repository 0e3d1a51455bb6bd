"""Stored values to the modality's unit: HU for CT, Bq/ml for most PET, Gy for a dose, else as the header says."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from pydicom import Dataset, uid

from sagemaker_monai.images.dicom.elements import FrameHeader, frame_header, has_value, holders, items, number, word
from sagemaker_monai.images.dicom.headers import refusing
from sagemaker_monai.images.dicom.luts import look_up, read_lut
from sagemaker_monai.images.dicom.pixel_layout import byte_order_is_little


@dataclass(frozen=True)
class ModalityTransform:
    """Stored values to modality values: `table` starting at `first` if there is one, else slope and intercept."""

    slope: float = 1.0
    intercept: float = 0.0
    first: int = 0
    table: np.ndarray | None = None

    def apply(self, stored: np.ndarray) -> np.ndarray:
        """Float32 modality values of the same shape, never the same memory."""
        if self.table is not None:
            return look_up(stored, self.first, self.table).astype(np.float32)
        with np.errstate(over="ignore"):  # doubles beyond float32 become infinite; they are refused or filled later
            values = stored.astype(np.float32)
        if self.slope != 1:
            values *= np.float32(self.slope)
        if self.intercept != 0:
            values += np.float32(self.intercept)
        return values

    @property
    def may_be_negative(self) -> bool:
        """Whether unsigned stored values can become negative."""
        return self.table is None and (self.intercept < 0 or self.slope < 0)


# SOP class -> values of PixelIntensityRelationship for which the Modality LUT yields X-ray intensities for computation,
# not for display. It is not applied then, because the windows of such files refer to stored values. PS3.3 C.8.7.1.1.2;
# DCMTK does the same.
LUT_NOT_APPLIED: dict[str, frozenset[str]] = dict.fromkeys(
    (
        uid.XRayAngiographicImageStorage,
        uid.XRayRadiofluoroscopicImageStorage,
        "1.2.840.10008.5.1.4.1.1.12.3",  # X-Ray Angiographic Bi-Plane (retired)
        uid.EnhancedXAImageStorage,
        uid.EnhancedXRFImageStorage,
    ),
    frozenset({"LOG", "DISP"}),
)


def modality_transform(dataset: Dataset, frame: int) -> ModalityTransform:
    """The transform of a frame, numbered from 0.

    The frame's functional group takes precedence over the shared one, and that over the top of the data set, separately
    for slope and intercept. At the same level a LUT takes precedence over rescale, except those of LUT_NOT_APPLIED. A
    dose has DoseGridScaling instead. A slope of 0, which would erase the image, counts as 1.

    Raises:
        UndecodableImage: one of its values is broken.

    Source: DICOM PS3.3 C.11.1, C.7.6.16.2.9, C.8.8.3.
    """
    header = frame_header(dataset, frame)
    for holder in holders(header, "ModalityLUTSequence"):
        # Some writers leave an empty item in the sequence.
        tables = [item for item in items(holder, "ModalityLUTSequence") if has_value(item, "LUTDescriptor")]
        if tables and not _is_for_computing(header):
            is_signed = number(dataset, "PixelRepresentation") == 1
            first, _, table = read_lut(tables[0], is_signed=is_signed, is_little_endian=byte_order_is_little(dataset))
            return ModalityTransform(first=first, table=table)
        if any(has_value(holder, keyword) for keyword in ("RescaleSlope", "RescaleIntercept")):
            break
    slope, intercept = number(header, "RescaleSlope"), number(header, "RescaleIntercept")
    if slope is None and word(dataset, "Modality") == "RTDOSE":
        slope = number(dataset, "DoseGridScaling")
    return ModalityTransform(slope=slope or 1.0, intercept=intercept or 0.0)


def _is_for_computing(header: FrameHeader) -> bool:
    relationships = LUT_NOT_APPLIED.get(word(header, "SOPClassUID"), frozenset())
    return word(header, "PixelIntensityRelationship").upper() in relationships


def modality_values(dataset: Dataset, stored: np.ndarray, frames: Sequence[int] | None = None) -> np.ndarray:
    """Apply each frame's own Modality LUT or rescale.

    Args:
        dataset: the header.
        stored: grey, (F, H, W), from `decoding.decode_stored`.
        frames: its frame numbers from 0; None for all of the file.

    Returns:
        float32 (F, H, W).

    Raises:
        UndecodableImage: the header's transform is broken.
    """
    numbers = range(len(stored)) if frames is None else frames
    values = np.empty(stored.shape, np.float32)
    with refusing("the modality transform of the DICOM header is broken; correct it"):
        for place, frame in enumerate(numbers):
            values[place] = modality_transform(dataset, frame).apply(stored[place])
    return values
