"""What is odd about the values of one header and was read all the same: codes of `findings.MESSAGES`.

It is told from the header alone, at little cost, so that `doctor`, `prepare` and the first look of `train` say the same
as an answer does. Here a window is judged by the values that the stored bits can hold, with the pixels by those.
"""

from collections.abc import Callable

from pydicom import Dataset

from sagemaker_monai.errors import UndecodableImage
from sagemaker_monai.images.dicom.display import is_useless
from sagemaker_monai.images.dicom.elements import (
    FrameHeader,
    frame_header,
    is_oddly_spelled,
    number,
    numbers,
    text_of,
)  # fmt: skip

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


def _has_unreadable_numbers(header: FrameHeader) -> bool:
    return any(is_oddly_spelled(header, keyword) and not _is_readable(header, keyword) for keyword in _NUMBERS)


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


_RULES: dict[str, Callable[[FrameHeader], bool]] = {
    "odd_numbers": _has_odd_numbers,
    "unreadable_numbers": _has_unreadable_numbers,
    "zero_slope": _has_zero_slope,
    "useless_window": lambda header: is_useless(header.top),
    "for_processing": lambda header: text_of(header, "PresentationIntentType").upper() == "FOR PROCESSING",
}
