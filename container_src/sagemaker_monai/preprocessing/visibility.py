"""Whether anything is visible in a prepared image, by the values that the network gets."""

from collections.abc import Iterator

import numpy as np

LEVELS = 256  # of the range of values
FAINT_LEVELS = 8  # neighbouring levels that hold all of a picture that shows nothing: 3 % of the range (a guess)
REST = 0.005  # share of pixels that may have other levels: a marker, a dead pixel (a guess)
_AT_ONCE = 1 << 16


def shows_nothing(values: np.ndarray, value_range: tuple[float, float] | None) -> bool:
    """Whether an image is black, white, of one value, or of a few neighbouring levels.

    Args:
        values: (C, W, H[, D]) from the load half; a filled border does not count.
        value_range: the lowest and highest possible value; with None only a single value shows nothing.
    """
    inner = _without_border(values)
    low, high = float(inner.min()), float(inner.max())
    if low == high:
        return True
    if value_range is None:
        return False
    bottom, top = value_range
    if (high - low) * LEVELS < FAINT_LEVELS * (top - bottom):
        return True
    found = np.zeros(LEVELS, np.int64)
    for part in _slabs(inner, int(np.argmax(inner.shape))):
        levels = ((part.astype(np.float32) - bottom) * np.float32((LEVELS - 1) / (top - bottom))).astype(np.uint8)
        found += np.bincount(levels.ravel(), minlength=LEVELS)
    counts = np.cumsum(np.concatenate([[0], found]))
    return bool((counts[FAINT_LEVELS:] - counts[:-FAINT_LEVELS]).max() >= (1 - REST) * inner.size)


def _without_border(values: np.ndarray) -> np.ndarray:
    """Without the outermost planes that hold only the lowest value, with which borders are filled."""
    parts = [slice(None)]
    lowest = values.min()
    for axis in range(1, values.ndim):
        others = tuple(each for each in range(values.ndim) if each != axis)
        is_used = [(part != lowest).any(axis=others) for part in _slabs(values, axis)]
        used = np.flatnonzero(np.concatenate(is_used))
        if not used.size:
            return values
        parts.append(slice(int(used[0]), int(used[-1]) + 1))
    return values[tuple(parts)]


def _slabs(values: np.ndarray, axis: int) -> Iterator[np.ndarray]:
    """Parts of about _AT_ONCE values along an axis, so that what is computed of them takes little memory."""
    step = max(1, _AT_ONCE * values.shape[axis] // max(values.size, 1))
    for start in range(0, values.shape[axis], step):
        yield values[(slice(None),) * axis + (slice(start, start + step),)]
