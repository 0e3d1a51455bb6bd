"""Oddities in the values of one header that do not prevent reading it: codes of `findings.MESSAGES`.

They are found in the header alone, cheaply, so that `doctor`, `prepare` and the first look of `train` report the same
as an answer does. Here a window is judged by the range of the stored bits; with pixels, it is judged by their values.
"""

from collections.abc import Callable

from pydicom import Dataset

from sagemaker_monai.errors import UndecodableImage
from sagemaker_monai.images.dicom.display import is_useless
from sagemaker_monai.images.dicom.elements import (
    FrameHeader,
    frame_header,
    is_oddly_spelled,
    numbers,
    numbers_of,
    text_of,
)  # fmt: skip

# Numbers that affect geometry or pixels.
_NUMBERS = (
    "PixelSpacing", "ImagePositionPatient", "ImageOrientationPatient", "SliceThickness", "SpacingBetweenSlices",
    "RescaleSlope", "RescaleIntercept", "WindowCenter", "WindowWidth", "DoseGridScaling", "PatientWeight",
)  # fmt: skip
# All attributes used here for a file without functional groups.
LOOKED_AT = (*_NUMBERS, "BitsAllocated", "HighBit", "PixelPaddingValue", "PixelPaddingRangeLimit", "VOILUTFunction",
             "VOILUTSequence", "ModalityLUTSequence", "PresentationIntentType", "SOPClassUID",
             "PixelIntensityRelationship")  # fmt: skip


def oddities_of(dataset: Dataset) -> tuple[str, ...]:
    """The codes for a file, by its header and its first frame's functional groups."""
    header = frame_header(dataset, 0)
    return tuple(code for code, holds in _RULES.items() if holds(header))


def _has_odd_numbers(header: FrameHeader, *, are_readable: bool) -> bool:
    odd = (keyword for keyword in _NUMBERS if is_oddly_spelled(header, keyword))
    return any(_is_readable(header, keyword) == are_readable for keyword in odd)


def _is_readable(header: FrameHeader, keyword: str) -> bool:
    try:
        return bool(numbers(header, keyword))
    except UndecodableImage:
        return False


_RULES: dict[str, Callable[[FrameHeader], bool]] = {
    "odd_numbers": lambda header: _has_odd_numbers(header, are_readable=True),
    "unreadable_numbers": lambda header: _has_odd_numbers(header, are_readable=False),
    "zero_slope": lambda header: numbers_of(header, "RescaleSlope", 1) == (0,),
    "useless_window": lambda header: is_useless(header.top),
    "for_processing": lambda header: text_of(header, "PresentationIntentType").upper() == "FOR PROCESSING",
}
