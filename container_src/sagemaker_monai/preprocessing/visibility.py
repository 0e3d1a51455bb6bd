"""Whether anything can be seen in an image once it is prepared, by the very values that the network gets."""

import numpy as np

LEVELS = 256  # that the range of values is cut into
FAINT_LEVELS = 8  # neighbours that hold all of a picture in which nothing can be seen: 3 % of the range (a guess)
REST = 0.005  # the share of pixels that may lie elsewhere: a marker, a dead pixel (a guess)


def shows_nothing(values: np.ndarray, value_range: tuple[float, float] | None) -> bool:
    """Whether an image is black, white, of one value, or of a few levels that lie side by side.

    Args:
        values: (C, W, H[, D]) as the load half gives them; a border that was filled up does not count.
        value_range: the lowest and highest value that there can be; None, without a bound, finds one value only.
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
    levels = ((inner.astype(np.float32) - bottom) * np.float32((LEVELS - 1) / (top - bottom))).astype(np.uint8)
    counts = np.cumsum(np.concatenate([[0], np.bincount(levels.ravel(), minlength=LEVELS)]))
    return bool((counts[FAINT_LEVELS:] - counts[:-FAINT_LEVELS]).max() >= (1 - REST) * inner.size)


def _without_border(values: np.ndarray) -> np.ndarray:
    """Without the outermost planes that hold nothing but the lowest value, which is what a border is filled with."""
    parts = [slice(None)]
    lowest = values.min()
    for axis in range(1, values.ndim):
        others = tuple(each for each in range(values.ndim) if each != axis)
        used = np.flatnonzero((values != lowest).any(axis=others))
        if not used.size:
            return values
        parts.append(slice(int(used[0]), int(used[-1]) + 1))
    return values[tuple(parts)]
