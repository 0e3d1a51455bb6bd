"""What is odd about the values of one header and was read all the same: codes of `findings.MESSAGES`.

It is told from the header alone, at little cost, so that `doctor`, `prepare` and the first look of `train` say the same
as an answer does. Here a window is judged by the values that the stored bits can hold, with the pixels by those.
"""

from collections.abc import Callable

import numpy as np
from pydicom import Dataset

from sagemaker_monai.dicom.display import display_for
from sagemaker_monai.dicom.elements import (
    FrameHeader,
    frame_header,
    has_value,
    is_oddly_spelled,
    number,
    numbers,
    text_of,
)  # fmt: skip
from sagemaker_monai.dicom.layouts import bits_of
from sagemaker_monai.dicom.modality import modality_transform
from sagemaker_monai.errors import CallerError, UndecodableImage

# Numbers that become places or pixels.
_NUMBERS = (
    "PixelSpacing", "ImagePositionPatient", "ImageOrientationPatient", "SliceThickness", "SpacingBetweenSlices",
    "RescaleSlope", "RescaleIntercept", "WindowCenter", "WindowWidth", "DoseGridScaling", "PatientWeight",
)  # fmt: skip
# All that is looked at here of a plain file.
LOOKED_AT = (*_NUMBERS, "BitsAllocated", "HighBit", "PixelPaddingValue", "PixelPaddingRangeLimit", "VOILUTFunction",
             "VOILUTSequence", "ModalityLUTSequence", "PresentationIntentType", "SOPClassUID",
             "PixelIntensityRelationship")  # fmt: skip


def oddities_of(dataset: Dataset) -> tuple[str, ...]:
    """The codes that a file deserves, by its header and its first frame's functional groups."""
    header = frame_header(dataset, 0)
    return tuple(code for code, holds in _RULES.items() if holds(header))


def _has_odd_numbers(header: FrameHeader) -> bool:
    return any(is_oddly_spelled(header, keyword) and _is_readable(header, keyword) for keyword in _NUMBERS)


def _is_readable(header: FrameHeader, keyword: str) -> bool:
    try:
        return bool(numbers(header, keyword))
    except UndecodableImage:
        return False


def _has_zero_slope(header: FrameHeader) -> bool:
    try:
        return number(header, "RescaleSlope") == 0
    except UndecodableImage:
        return False


def _has_useless_window(header: FrameHeader) -> bool:
    """A window that shows nothing of any value that the stored bits can hold."""
    if not has_value(header.top, "BitsStored"):
        return False
    try:
        limits = np.array(bits_of(header.top).limits)
        _, codes = display_for(header.top, 0, modality_transform(header.top, 0).apply(limits))
    except CallerError:
        return False  # whoever reads the pixels says so
    return bool(codes)


_RULES: dict[str, Callable[[FrameHeader], bool]] = {
    "odd_numbers": _has_odd_numbers,
    "zero_slope": _has_zero_slope,
    "useless_window": _has_useless_window,
    "for_processing": lambda header: text_of(header, "PresentationIntentType").upper() == "FOR PROCESSING",
}
