"""Intensity scaling: from the modality's unit to the network's input by a window, percentiles, or a z-score.

A spec is plain data with a `kind` of `INTENSITIES` and its numbers. Display kinds give 0 to 1 and are inverted last if
the header shows the smallest value as white, so that bone is bright in every X-ray; "no pixel" becomes 0, which is
black in both cases.

Statistics are computed per channel and image, in float64, without the voxels that mean "no pixel"; colours share
theirs, which preserves the hue.
"""

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from sagemaker_monai.budget import lent, spend_bytes
from sagemaker_monai.errors import UnsuitableImage
from sagemaker_monai.images.volumes import Display, Lut, Window

# Centre and width in HU, as in Radiopaedia's "Windowing (CT)".
WINDOWS: dict[str, tuple[float, float]] = {
    "lung": (-600, 1500),
    "mediastinum": (50, 350),
    "soft_tissue": (50, 400),
    "bone": (400, 1800),
    "brain": (40, 80),
}
_CHUNK = 1 << 20
_LINE = 16  # values of a cache line
_LARGEST = 1e10  # of a spec's numbers: pictures may have 32-bit values

# From values to others of the same shape, element by element, so that they can be changed in parts.
Elementwise = Callable[[np.ndarray], np.ndarray]
Change = Callable[[np.ndarray, np.ndarray | None, Display, Mapping[str, Any]], Elementwise]


@dataclass(frozen=True)
class IntensityKind:
    """A row of `INTENSITIES`.

    Attributes:
        parameters: the spec's other keys, in order.
        change: from one channel's float32 values, the voxels to leave out (or None), the header's display and the spec
            to a function that converts any part of the values to float32.
        check: raises ValueError for invalid numbers.
        is_display: gives 0 to 1.
    """

    parameters: tuple[str, ...]
    change: Change
    check: Callable[[Mapping[str, Any]], None] | None = None
    is_display: bool = True


def window(values: np.ndarray, shape: Window) -> np.ndarray:
    """Map modality values to 0 to 1 by a VOI window.

    Args:
        values: float32, any shape, in the unit of the modality (HU for CT).
        shape: LINEAR with a width below 1, which the standard forbids but files have, is read as LINEAR_EXACT.

    Returns:
        float32 of the same shape, within 0 and 1.

    Source: DICOM PS3.3 C.11.2.1.2.1 and C.11.2.1.3.
    """
    center, width = float(shape.center), float(shape.width)
    if shape.function == "SIGMOID":
        # In float64: its last bit may depend on the processor but does not survive rounding to float32.
        with np.errstate(over="ignore"):
            return np.asarray(1 / (1 + np.exp((values.astype(np.float64) - center) * (-4 / width))), np.float32)
    if shape.function == "LINEAR" and width == 1:
        return np.asarray(values > np.float32(center - 0.5), np.float32)
    if shape.function == "LINEAR" and width > 1:
        center, width = center - 0.5, width - 1
    return _stretch(values, center - width / 2, center + width / 2)


def _stretch(values: np.ndarray, low: float, high: float) -> np.ndarray:
    if not high > low:
        return np.zeros_like(values)
    changed = values - np.float32(low)
    changed *= np.float32(1 / (high - low))
    return np.clip(changed, 0, 1, out=changed)


def _window(_values: np.ndarray, _left_out: Any, _display: Display, spec: Mapping[str, Any]) -> Elementwise:
    shape = Window(spec["center"], spec["width"])
    return lambda part: window(part, shape)


def _header(values: np.ndarray, left_out: np.ndarray | None, display: Display, _spec: Mapping[str, Any]) -> Elementwise:
    voi = display.voi
    if isinstance(voi, Window) and voi.width > 0:
        return lambda part: window(part, voi)
    if isinstance(voi, Lut):
        table, first = np.asarray(voi.table, np.float32), np.float32(voi.first)
        # Values outside the table get its first or last entry; modality values need not be whole.
        return lambda part: table[np.clip(np.rint(part - first), 0, len(table) - 1).astype(np.int64)]
    low, high = _ends(values, left_out)
    return lambda part: _stretch(part, low, high)


def _percentile(
    values: np.ndarray, left_out: np.ndarray | None, _display: Display, spec: Mapping[str, Any]
) -> Elementwise:
    # Percentiles are values of the image or lie between two, so float32 is as exact as for the image.
    with lent(values.nbytes * (1 if left_out is None else 2), f"percentiles of {values.size} values"):
        counted = values.ravel(order="K") if left_out is None else _counted(values, left_out)
        low, high = map(float, np.percentile(counted, [spec["low"], spec["high"]]))
    return lambda part: _stretch(part, low, high)


def _range(_values: np.ndarray, _left_out: Any, _display: Display, spec: Mapping[str, Any]) -> Elementwise:
    return lambda part: _stretch(part, spec["low"], spec["high"])


def _zscore(values: np.ndarray, left_out: np.ndarray | None, display: Display, spec: Mapping[str, Any]) -> Elementwise:
    is_nonzero = spec["nonzero"]
    mean, std = _mean_and_std(lambda: _flat_parts(values, left_out, is_nonzero=is_nonzero))
    factor = np.float32((-1.0 if display.is_inverted else 1.0) / std if std > 0 else 0)

    def change(part: np.ndarray) -> np.ndarray:
        changed = part - np.float32(mean)
        changed *= factor
        if is_nonzero:
            changed[part == 0] = 0
        return changed

    return change


def _none(_values: np.ndarray, _left_out: Any, _display: Display, _spec: Mapping[str, Any]) -> Elementwise:
    return lambda part: part


def _counted(values: np.ndarray, left_out: np.ndarray) -> np.ndarray:
    counted = values[~left_out]
    return counted if counted.size else values.ravel()


def _ends(values: np.ndarray, left_out: np.ndarray | None) -> tuple[float, float]:
    """The lowest and highest value that counts."""
    if left_out is None or left_out.all():
        return float(values.min()), float(values.max())
    counts = ~left_out
    return float(values.min(where=counts, initial=np.inf)), float(values.max(where=counts, initial=-np.inf))


def _flat_parts(values: np.ndarray, left_out: np.ndarray | None, *, is_nonzero: bool) -> Iterator[np.ndarray]:
    """The values that count, in parts of _CHUNK (the last may be smaller) and in a fixed order.

    So sums neither depend on the volume's memory order nor need memory for a second volume.
    """
    if left_out is not None and left_out.all():
        left_out = None
    rest = np.empty(0, np.float32)
    step = max(_LINE, _CHUNK // max(math.prod(values.shape[1:]), 1))
    for start in range(0, len(values), step):
        part = np.ascontiguousarray(values[start : start + step]).reshape(-1)
        if left_out is not None:
            part = part[~np.ascontiguousarray(left_out[start : start + step]).reshape(-1)]
        if is_nonzero:
            part = part[part != 0]
        rest = np.concatenate([rest, part]) if rest.size else part
        whole = rest.size // _CHUNK * _CHUNK
        yield from (rest[place : place + _CHUNK] for place in range(0, whole, _CHUNK))
        rest = rest[whole:]
    if rest.size:
        yield rest


def _mean_and_std(parts: Callable[[], Iterator[np.ndarray]]) -> tuple[float, float]:
    size, sums = 0, []
    for part in parts():
        size += part.size
        sums.append(float(part.sum(dtype=np.float64)))
    if not size:
        return 0.0, 0.0
    mean = math.fsum(sums) / size
    squares = math.fsum(float(np.square(part.astype(np.float64) - mean).sum()) for part in parts())
    return mean, math.sqrt(squares / size)


def _check_numbers(spec: Mapping[str, Any], *names: str) -> None:
    for name in names:
        if type(spec[name]) not in (int, float) or not math.isfinite(spec[name]) or abs(spec[name]) > _LARGEST:
            raise ValueError(f"intensity's {name} must be a number, got {spec[name]!r}")


def _check_window(spec: Mapping[str, Any]) -> None:
    _check_numbers(spec, "center", "width")
    if spec["width"] < 1:
        raise ValueError(f"intensity's width must be at least 1, got {spec['width']!r}")


def _check_range(spec: Mapping[str, Any]) -> None:
    _check_numbers(spec, "low", "high")
    if not spec["high"] - spec["low"] >= 1e-6:
        raise ValueError(f"intensity's high must lie above low, got {spec['low']!r} and {spec['high']!r}")


def _check_percentile(spec: Mapping[str, Any]) -> None:
    _check_range(spec)
    if spec["low"] < 0 or spec["high"] > 100:
        raise ValueError(f"intensity's percentiles must lie within 0 and 100, got {spec['low']!r} and {spec['high']!r}")


def _check_zscore(spec: Mapping[str, Any]) -> None:
    if type(spec["nonzero"]) is not bool:
        raise ValueError(f"intensity's nonzero must be true or false, got {spec['nonzero']!r}")


INTENSITIES: dict[str, IntensityKind] = {
    "window": IntensityKind(("center", "width"), _window, _check_window),
    "header": IntensityKind((), _header),  # the first VOI LUT or window; without one, lowest to highest value
    "percentile": IntensityKind(("low", "high"), _percentile, _check_percentile),
    "range": IntensityKind(("low", "high"), _range, _check_range),
    # The same for SUV (g/ml, by body weight), to which the caller has converted the values.
    "suv": IntensityKind(("low", "high"), _range, _check_range),
    # (value - mean) / deviation; negated if the smallest value is white. nonzero leaves out a background of 0.
    "zscore": IntensityKind(("nonzero",), _zscore, _check_zscore, is_display=False),
    "none": IntensityKind((), _none, is_display=False),  # the modality's unit, such as HU, never inverted
}


def check_intensity(spec: object) -> dict[str, Any]:
    """Return a valid copy of a spec for `change_intensity`.

    Raises:
        ValueError: an unknown kind, or missing, unknown or invalid numbers.
    """
    kind = spec.get("kind") if isinstance(spec, Mapping) else None
    if not isinstance(spec, Mapping) or not isinstance(kind, str) or kind not in INTENSITIES:
        raise ValueError(f"intensity must be an object with kind, one of {', '.join(INTENSITIES)}")
    row = INTENSITIES[kind]
    if set(spec) != {"kind", *row.parameters}:
        raise ValueError(f"intensity {kind} needs exactly {', '.join(('kind', *row.parameters))}")
    if row.check is not None:
        row.check(spec)
    return dict(spec)


def padding_mask(values: np.ndarray, display: Display) -> np.ndarray | None:
    """The voxels that mean "no pixel", as bool of the same shape; None if there are none."""
    if display.padding is None:
        return None
    low, high = (np.float32(value) for value in display.padding)
    with lent(values.size, f"the padding of {values.size} values"):
        mask = np.asarray(values >= low)
        mask &= values <= high
    if not mask.any():
        return None
    spend_bytes(mask.size, f"the padding of {values.size} values")
    return mask


def change_intensity(
    values: np.ndarray,
    spec: Mapping[str, Any],
    display: Display,
    *,
    left_out: np.ndarray | None = None,
    is_colour: bool = False,
    is_owned: bool = False,
) -> tuple[np.ndarray, np.ndarray]:
    """Apply a spec to an image.

    Args:
        values: (C, ...) in the unit of the modality, or RGB from 0 to 255.
        spec: from `check_intensity`.
        display: of the header; ignored for colour.
        left_out: bool like `values`, the voxels that mean "no pixel"; None for none.
        is_colour: the channels are red, green and blue of one picture.
        is_owned: `values` are float32 that nobody else needs, and are changed in place.

    Returns:
        float32 of the same shape and, as float32 (C,), the lowest value of each channel: the value of borders and of
        "no pixel". It is 0 for all kinds but "none".

    Raises:
        UnsuitableImage: a window or SUV for a colour picture, which has no unit.
    """
    row = INTENSITIES[spec["kind"]]
    if is_colour:
        if spec["kind"] in ("window", "suv"):
            raise UnsuitableImage("a colour picture has no window in HU or other units; send grey images")
        display = Display()
        if spec["kind"] == "header":
            row, spec = INTENSITIES["range"], {"kind": "range", "low": 0, "high": 255}
    values = np.asarray(values, np.float32)
    if is_owned:
        result = values
    else:
        spend_bytes(4 * values.size, f"{values.size} values of 4 bytes")
        result = np.empty_like(values)
    is_inverted = row.is_display and display.is_inverted
    lowest = np.zeros(len(values), np.float32)
    channels = [slice(None)] if is_colour else [slice(index, index + 1) for index in range(len(values))]
    for place in channels:
        part, mask = values[place], None if left_out is None else left_out[place]
        if not is_colour:
            part, mask = part[0], None if mask is None else mask[0]
        if spec["kind"] == "none":
            lowest[place] = _ends(part, mask)[0]
        change = row.change(part, mask, display, spec)
        for old, new in _blocks(values[place], result[place]):
            changed = change(old)
            new[...] = np.subtract(np.float32(1), changed, out=changed) if is_inverted else changed
    if left_out is not None:
        np.copyto(result, lowest.reshape(-1, *[1] * (values.ndim - 1)), where=left_out)
    return result, lowest


def _blocks(values: np.ndarray, result: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Both in parts of about _CHUNK values, along the axis with the longest stride in memory."""
    axis = int(np.argmax([abs(stride) if size > 1 else 0
                          for stride, size in zip(values.strides, values.shape, strict=True)]))  # fmt: skip
    step = max(1, _CHUNK * values.shape[axis] // max(values.size, 1))
    for start in range(0, values.shape[axis], step):
        place = (slice(None),) * axis + (slice(start, start + step),)
        yield values[place], result[place]


def show(values: np.ndarray, display: Display) -> np.ndarray:
    """Convert a grey image, (1, ...) in the modality's unit, to what a viewer shows first: uint8, 255 is white."""
    mask = padding_mask(values, display)
    shown, _ = change_intensity(values, {"kind": "header"}, display, left_out=mask)
    return np.asarray(np.rint(shown * np.float32(255)), np.uint8)
