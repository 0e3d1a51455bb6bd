"""How a header asks for modality values to be shown, and the values shown so.

The order is the standard's (PS3.4 N.2): VOI LUT or window, then the inversion of MONOCHROME1. Presentation states,
overlays and curves are ignored.
"""

import numpy as np
from pydicom import Dataset

from sagemaker_monai.dicom.elements import FrameHeader, frame_header, has_value, holders, items, number, numbers, word
from sagemaker_monai.dicom.headers import refusing
from sagemaker_monai.dicom.layouts import byte_order_is_little
from sagemaker_monai.dicom.luts import look_up, read_lut
from sagemaker_monai.dicom.modality import ModalityTransform, modality_transform
from sagemaker_monai.errors import UndecodableImage
from sagemaker_monai.volumes import Display, Lut, Window

_FUNCTIONS = ("LINEAR", "LINEAR_EXACT", "SIGMOID")
_PADDING = ("PixelPaddingValue", "FloatPixelPaddingValue", "DoubleFloatPixelPaddingValue")


def display_of(dataset: Dataset, frame: int) -> Display:
    """Read how a frame is to be shown.

    A VOI LUT or window that is broken (no numbers, a width that its function does not allow) is passed over: the
    modality values are right without it.

    Args:
        dataset: the header.
        frame: number from 0.

    Returns:
        The first VOI LUT, else the first sound window; the inversion; and the padding in modality units.

    Raises:
        UndecodableImage: the modality transform or the padding is broken, which the values depend on.

    Source: DICOM PS3.3 C.11.2, C.7.5.1.1.2, C.7.6.16.2.10, C.11.6.
    """
    with refusing("the display values of the DICOM header are broken; correct them"):
        transform = modality_transform(dataset, frame)
        is_inverted = word(dataset, "PhotometricInterpretation") == "MONOCHROME1"
        return Display(
            voi=_voi(frame_header(dataset, frame), transform),
            is_inverted=is_inverted or word(dataset, "PresentationLUTShape") == "INVERSE",
            padding=_padding(dataset, transform),
        )


def apply_display(values: np.ndarray, display: Display) -> np.ndarray:
    """Modality values as a viewer shows them.

    Args:
        values: any shape, in the modality's unit.
        display: of the header, or with a window of the caller's.

    Returns:
        float32 of the same shape, 0 (black) to 1 (white). Without a VOI, the smallest and largest value that are
        neither padding nor infinite become 0 and 1. Inversion is last, but padding and values that are not a number
        are black in every case, as the background of a viewer is.

    Source: DICOM PS3.3 C.11.2.1.2 (LINEAR), C.11.2.1.3.1 (SIGMOID), C.11.2.1.3.2 (LINEAR_EXACT), C.11.2.1.1 (LUT).
    """
    values = np.asarray(values, np.float32)
    is_empty = np.isnan(values)
    if display.padding is not None:
        low, high = display.padding
        is_empty |= (values >= np.float32(low)) & (values <= np.float32(high))
    if is_empty.any():
        values = np.where(is_empty, np.float32(0), values)
    if isinstance(display.voi, Lut):
        shown = look_up(np.clip(values, -(2.0**31), 2.0**31), display.voi.first, display.voi.table).astype(np.float32)
    elif display.voi is not None:
        shown = _windowed(values, display.voi)
    else:
        shown = _stretched(values, ~is_empty & np.isfinite(values))
    if display.is_inverted:
        np.subtract(1, shown, out=shown)
    shown[is_empty] = 0
    return shown


def _windowed(values: np.ndarray, window: Window) -> np.ndarray:
    center, width = window.center, window.width
    if window.function == "SIGMOID":
        exponent = np.clip((values - np.float32(center)) * np.float32(-4 / width), -80, 80)
        sigmoid: np.ndarray = np.float32(1) / (1 + np.exp(exponent))
        return sigmoid
    if window.function == "LINEAR":
        center, width = center - 0.5, width - 1
        if width <= 0:
            return (values > np.float32(center)).astype(np.float32)
    shown = values - np.float32(center)
    shown /= np.float32(width)
    shown += np.float32(0.5)
    return np.clip(shown, 0, 1, out=shown)


def _stretched(values: np.ndarray, counts: np.ndarray) -> np.ndarray:
    if not counts.any():
        return np.zeros(values.shape, np.float32)
    low = float(values.min(where=counts, initial=np.inf))
    high = float(values.max(where=counts, initial=-np.inf))
    if high <= low:
        return np.zeros(values.shape, np.float32)
    return np.clip((values.astype(np.float64) - low) / (high - low), 0, 1).astype(np.float32)


def _voi(header: FrameHeader, transform: ModalityTransform) -> Window | Lut | None:
    for holder in holders(header, "VOILUTSequence"):
        try:
            tables = [item for item in items(holder, "VOILUTSequence") if has_value(item, "LUTDescriptor")]
            if tables:
                is_signed = transform.may_be_negative or (
                    number(header, "PixelRepresentation") == 1 and transform.table is None
                )
                is_little = byte_order_is_little(header.top)
                first, bits, table = read_lut(tables[0], is_signed=is_signed, is_little_endian=is_little)
                return Lut(first, np.minimum(table.astype(np.float32) / np.float32(2**bits - 1), 1))
        except UndecodableImage:
            pass  # as said in `display_of`
        if has_value(holder, "WindowCenter") or has_value(holder, "WindowWidth"):
            break
    try:
        pairs = zip(numbers(header, "WindowCenter"), numbers(header, "WindowWidth"), strict=False)
        function = word(header, "VOILUTFunction")
        function = function if function in _FUNCTIONS else "LINEAR"
        for center, width in pairs:
            if width >= 1 or (width > 0 and function != "LINEAR"):
                return Window(center, width, function)
    except UndecodableImage:
        pass
    return None


def _padding(dataset: Dataset, transform: ModalityTransform) -> tuple[float, float] | None:
    for keyword in _PADDING:
        first = number(dataset, keyword)
        if first is not None:
            last = number(dataset, keyword.replace("Value", "RangeLimit"))
            ends = [first, first if last is None else last]
            if keyword == "PixelPaddingValue":
                ends = [_with_sign(end, is_signed=number(dataset, "PixelRepresentation") == 1) for end in ends]
            low, high = sorted(float(value) for value in transform.apply(np.array(ends)))
            return low, high
    return None


def _with_sign(value: float, *, is_signed: bool) -> float:
    """The VR of padding is ambiguous, and writers and parsers take it for signed or unsigned."""
    if is_signed and value >= 0x8000:
        return value - 0x10000
    return value + 0x10000 if value < 0 and not is_signed else value
