"""The colours of structures, the same in every answer and picture, and pictures with structures drawn over them."""

import numpy as np
from numpy.typing import NDArray

from sagemaker_monai.tasks.label_maps import IGNORED

# Colours of the first labels; those of others follow from their number. Chosen apart in hue, as a palette of maps is.
_COLOURS = ((230, 25, 75), (60, 180, 75), (255, 225, 25), (0, 130, 200), (245, 130, 48), (145, 30, 180))
_OPACITY = 115  # of 256, so that what lies below can be seen
_AT_ONCE = 1 << 18  # pixels that are drawn at once


def colour_of(label: int) -> tuple[int, int, int]:
    """The colour of a label: black for the background, and the same for a number everywhere."""
    if label == 0:
        return 0, 0, 0
    if label <= len(_COLOURS):
        return _COLOURS[label - 1]
    red, green, blue = (64 + (label * factor) % 192 for factor in (97, 151, 211))
    return red, green, blue


def palette() -> NDArray[np.uint8]:
    """The colours of all labels, (256, 3)."""
    return np.array([colour_of(label) for label in range(256)], np.uint8)


def drawn_over(
    pixels: NDArray[np.uint8], labels: NDArray[np.uint8], colours: NDArray[np.uint8], *, has_outline: bool
) -> NDArray[np.uint8]:
    """A picture with structures half transparent over it.

    Args:
        pixels: (H, W, 3).
        labels: (W, H); 0 and `IGNORED` are not drawn.
        colours: of the labels, (256, 3).
        has_outline: the pixels of a structure that touch another label have its full colour.

    Returns:
        Another picture of the same shape.
    """
    drawn, rows = pixels.copy(), labels.T
    step = max(1, _AT_ONCE // pixels.shape[1])
    for first in range(0, len(rows), step):
        own = rows[first : first + step]
        if not (is_drawn := (own != 0) & (own != IGNORED)).any():
            continue
        part = drawn[first : first + step]
        tint = colours[own[is_drawn]].astype(np.uint16) * _OPACITY
        part[is_drawn] = (part[is_drawn] * np.uint16(256 - _OPACITY) + tint) >> 8
        if has_outline:
            before = min(first, 1)
            around = rows[first - before : first + step + 1]
            is_edge = _edges(around)[before : before + len(own)] & is_drawn
            part[is_edge] = colours[own[is_edge]]
    return drawn


def _edges(labels: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Where one of the four neighbours has another label."""
    is_edge = np.zeros(labels.shape, bool)
    for edges, own in ((is_edge, labels), (is_edge.T, labels.T)):
        differs = own[1:] != own[:-1]
        edges[1:] |= differs
        edges[:-1] |= differs
    return is_edge
