"""Stored values to the modality's unit: HU for CT, Bq/ml for most PET, Gy for a dose, else what the header gives."""

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
    """What makes modality values of stored ones: `table` from `first` where there is one, else slope and intercept."""

    slope: float = 1.0
    intercept: float = 0.0
    first: int = 0
    table: np.ndarray | None = None

    def apply(self, stored: np.ndarray) -> np.ndarray:
        """Float32 modality values of the same shape, never the same memory."""
        if self.table is not None:
            return look_up(stored, self.first, self.table).astype(np.float32)
        with np.errstate(over="ignore"):  # doubles beyond float32 become infinite, and are refused or filled later
            values = stored.astype(np.float32)
        if self.slope != 1:
            values *= np.float32(self.slope)
        if self.intercept != 0:
            values += np.float32(self.intercept)
        return values

    @property
    def may_be_negative(self) -> bool:
        """Unsigned stored values can become negative."""
        return self.table is None and (self.intercept < 0 or self.slope < 0)


# Where a Modality LUT makes X-ray intensities for computations and is not meant for display: by SOP class the values of
# PixelIntensityRelationship. There the stored values are the modality's, as windows of such files are made for them.
# All other SOP classes: applied. PS3.3 C.8.7.1.1.2; DCMTK does the same.
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

    The frame's functional group goes before the shared one and that before the top of the data set, slope and intercept
    each for itself; a LUT before rescale of the same place, except for those of
    LUT_NOT_APPLIED; DoseGridScaling is what a dose has instead. A slope of 0,
    which would wipe the image out, counts as 1.

    Raises:
        UndecodableImage: a value of it is broken.

    Source: DICOM PS3.3 C.11.1, C.7.6.16.2.9, C.8.8.3.
    """
    header = frame_header(dataset, frame)
    for holder in holders(header, "ModalityLUTSequence"):
        # Some writers leave an item without values in the sequence, which is no table.
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
    """Modality LUT or rescale, for each frame with its own.

    Args:
        dataset: the header.
        stored: (F, H, W), as of `decoding.decode_stored`; grey.
        frames: the numbers of its frames from 0; None when it has all of the file.

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
