"""How a header asks for modality values to be displayed, and the values displayed so.

The order is the standard's (PS3.4 N.2): VOI LUT or window, then the inversion of MONOCHROME1. Presentation states,
overlays and curves are ignored.
"""

import math
from contextlib import suppress
from dataclasses import replace

import numpy as np
from pydicom import Dataset

from sagemaker_monai.errors import UndecodableImage
from sagemaker_monai.images.dicom.elements import (
    FrameHeader,
    frame_header,
    has_value,
    holders,
    integer_of,
    items,
    number,
    numbers,
    word,
)
from sagemaker_monai.images.dicom.headers import refusing
from sagemaker_monai.images.dicom.luts import look_up, read_lut
from sagemaker_monai.images.dicom.modality import ModalityTransform, modality_transform
from sagemaker_monai.images.dicom.pixel_layout import byte_order_is_little, padding_of
from sagemaker_monai.images.volumes import Display, Lut, Window

_ONE_GREY = 1 / 255
MAX_BITS = 64  # of an integer
_LOOKED_AT = 64  # values sampled along an axis: usually enough to see that a window shows something
_FUNCTIONS = ("LINEAR", "LINEAR_EXACT", "SIGMOID")


def display_of(dataset: Dataset, frame: int) -> Display:
    """Read how to display a frame (numbered from 0).

    A broken VOI LUT or window (not numbers, a width that its function does not allow) is skipped: the modality values
    are right without it.

    Returns:
        The first VOI LUT, else the first valid window; the inversion; and the padding in modality units.

    Raises:
        UndecodableImage: the modality transform or the padding is broken, which changes the values.

    Source: DICOM PS3.3 C.11.2, C.7.5.1.1.2, C.7.6.16.2.10, C.11.6.
    """
    with refusing("the display values of the DICOM header are broken; correct them"):
        return _display(dataset, frame, modality_transform(dataset, frame))[0]


def display_for(dataset: Dataset, frame: int, values: np.ndarray) -> tuple[Display, tuple[str, ...]]:
    """Like `display_of`, but without windows that show none of the values.

    A window shows nothing if it maps all values to one grey (of 256), or if it is no wider than the step between two
    values, so that it only gives black and white. The first window that shows something is used; without one, the
    picture is stretched from its lowest value to its highest.

    Args:
        dataset: the header.
        frame: number from 0; for a volume, that of its first slice.
        values: of the frame or the volume, any shape, in the modality's unit.

    Returns:
        The display, and codes of `findings.MESSAGES`.
    """
    with refusing("the display values of the DICOM header are broken; correct them"):
        transform = modality_transform(dataset, frame)
        display, others = _display(dataset, frame, transform)
        header = frame_header(dataset, frame)
        if display.voi is None:
            return display, ("useless_window",) if _has_voi(header) else ()
        step = 1.0 if transform.table is not None else abs(transform.slope)
        if not has_value(dataset, "BitsStored"):  # as in floating-point files, which have no steps
            step = 0.0
        return _that_shows(display, others, values, step)


def is_useless(dataset: Dataset) -> bool:
    """Whether the header's first window is broken, or shows nothing of any value that BitsStored allows.

    Called for thousands of files, so signs and tables, which would tell a little more, are not considered.
    """
    header = frame_header(dataset, 0)
    has_table = any(has_value(at, "VOILUTSequence") for at in holders(header, "VOILUTSequence"))
    bits = integer_of(dataset, "BitsStored") if _has_voi(header) and not has_table else None
    if bits is None or not 0 < bits <= MAX_BITS:
        return False
    try:
        transform = modality_transform(dataset, 0)
        vois = _vois(header, transform)
    except UndecodableImage:
        return False  # reading the pixels will report it
    if transform.table is not None or not vois:
        return not vois
    ends = (transform.slope * end + transform.intercept for end in (-(1 << bits) // 2, (1 << bits) - 1))
    low, high = sorted(ends)
    return not _shows(vois[0], low, high, abs(transform.slope))


def _that_shows(
    display: Display, others: list[Window | Lut], values: np.ndarray, step: float
) -> tuple[Display, tuple[str, ...]]:
    assert display.voi is not None
    part = values[tuple(slice(None, None, -(-size // _LOOKED_AT)) for size in values.shape)]
    if _shows(display.voi, *_ends(part, display), step) is True:
        return display, ()
    low, high = _ends(values, display)
    if not low < high or _shows(display.voi, low, high, step):
        return display, ()  # the picture itself is blank: not the window's fault
    found = next((voi for voi in others if _shows(voi, low, high, step)), None)
    return replace(display, voi=found), ("useless_window",)


def _ends(values: np.ndarray, display: Display) -> tuple[float, float]:
    """The lowest and highest value that are finite and not padding; infinite ones if there are none."""
    low, high = float(values.min()), float(values.max())
    if display.padding is None and np.isfinite([low, high]).all():
        return low, high
    low, high = np.inf, -np.inf
    for part in values if values.ndim > 2 else [values]:  # slice by slice, to avoid copies of a volume
        counts = np.isfinite(part)
        if display.padding is not None:
            first, last = (np.float32(end) for end in display.padding)
            counts &= (part < first) | (part > last)
        low = min(low, float(part.min(where=counts, initial=np.inf)))
        high = max(high, float(part.max(where=counts, initial=-np.inf)))
    return low, high


def _shows(voi: Window | Lut, low: float, high: float, step: float) -> bool:
    """Whether values from `low` to `high` are distinguishable."""
    if not low < high:
        return False
    if isinstance(voi, Lut):
        first, last = (int(np.clip(np.rint(end) - voi.first, 0, len(voi.table) - 1)) for end in (low, high))
        seen = voi.table[first : last + 1]
        return bool(float(seen.max()) - float(seen.min()) >= _ONE_GREY)
    black, white = _grey(low, voi), _grey(high, voi)
    width = voi.width - 1 if voi.function == "LINEAR" else voi.width
    is_threshold = (width <= 0 or voi.width <= step) and high - low > step
    return white - black >= _ONE_GREY and not is_threshold


def _grey(value: float, window: Window) -> float:
    """`_windowed` for one value."""
    if window.function == "SIGMOID":
        return 1 / (1 + math.exp(min(max(-4 * (value - window.center) / window.width, -80), 80)))
    shift = 0.5 if window.function == "LINEAR" else 0.0
    center, width = window.center - shift, window.width - 2 * shift
    if width <= 0:
        return float(value > center)
    return min(max((value - center) / width + 0.5, 0), 1)


def _display(dataset: Dataset, frame: int, transform: ModalityTransform) -> tuple[Display, list[Window | Lut]]:
    """The display with the first VOI, and the others."""
    is_inverted = word(dataset, "PhotometricInterpretation") == "MONOCHROME1"
    vois = _vois(frame_header(dataset, frame), transform)
    display = Display(
        voi=vois[0] if vois else None,
        is_inverted=is_inverted or word(dataset, "PresentationLUTShape") == "INVERSE",
        padding=_padding(dataset, transform),
    )
    return display, vois[1:]


def apply_display(values: np.ndarray, display: Display) -> np.ndarray:
    """Modality values as a viewer shows them.

    Args:
        values: any shape, in the modality's unit.
        display: of the header, or with the caller's window.

    Returns:
        float32 of the same shape, 0 (black) to 1 (white). Without a VOI, the smallest and largest value that are
        neither padding nor infinite become 0 and 1. Inversion comes last, but padding and NaN are always black, like a
        viewer's background.

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


def _has_voi(header: FrameHeader) -> bool:
    return any(
        has_value(holder, keyword)
        for holder in holders(header, "WindowCenter")
        for keyword in ("WindowCenter", "WindowWidth", "VOILUTSequence")
    )


def _vois(header: FrameHeader, transform: ModalityTransform) -> list[Window | Lut]:
    """The valid VOI LUTs of the nearest level that has some, else the valid windows."""
    for holder in holders(header, "VOILUTSequence"):
        with suppress(UndecodableImage):  # as in `display_of`
            tables = [item for item in items(holder, "VOILUTSequence") if has_value(item, "LUTDescriptor")]
            if tables:
                return [_lut(header, table, transform) for table in tables]
        if has_value(holder, "WindowCenter") or has_value(holder, "WindowWidth"):
            break
    with suppress(UndecodableImage):
        pairs = zip(numbers(header, "WindowCenter"), numbers(header, "WindowWidth"), strict=False)
        function = word(header, "VOILUTFunction")
        function = function if function in _FUNCTIONS else "LINEAR"
        return [
            Window(center, width, function)
            for center, width in pairs
            if width >= 1 or (width > 0 and function != "LINEAR")
        ]
    return []


def _lut(header: FrameHeader, table: Dataset, transform: ModalityTransform) -> Lut:
    is_signed = transform.may_be_negative or (number(header, "PixelRepresentation") == 1 and transform.table is None)
    first, bits, entries = read_lut(table, is_signed=is_signed, is_little_endian=byte_order_is_little(header.top))
    return Lut(first, np.minimum(entries.astype(np.float32) / np.float32(2**bits - 1), 1))


def _padding(dataset: Dataset, transform: ModalityTransform) -> tuple[float, float] | None:
    stored = padding_of(dataset)
    if stored is None:
        return None
    low, high = sorted(float(value) for value in transform.apply(np.array(stored)))
    return low, high
