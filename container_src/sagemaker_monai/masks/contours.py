"""Closed contours to voxels: which centres of voxels lie inside, by the even-odd rule.

A row of voxels is crossed by the edges of a contour. A centre is inside where an odd number of crossings lie to its
right. An edge counts for the rows from its lower end up to, and without, its upper end, and a crossing counts where it
lies to the right of a centre and not on it. So a centre on an edge is inside where the contour's inside follows towards
higher indices, and of two structures with a common edge exactly one has it.

Each edge is computed from its lower end, whichever way it is drawn. So the two edges of a channel (keyhole) that joins
a hole with the outline cross each row in the same place, and leave nothing.

Source: the crossing test of M. Shimrat, Algorithm 112: Position of point relative to polygon, CACM 5 (1962).
"""

from dataclasses import dataclass

import numpy as np

from sagemaker_monai.budget import lent, spend_work
from sagemaker_monai.errors import PayloadTooLarge

_AT_ONCE = 1 << 20  # crossings
MOST_CROSSINGS, MOST_VOXELS = 1 << 28, 1 << 34  # of all contours of a file: some 10 s, and some 20 s
_NS_A_CROSSING, _NS_A_VOXEL = 60, 3
_TOO_MANY = "the contours are too many or too finely drawn; export fewer structures at once"


@dataclass
class Effort:
    """What may still be computed for a file."""

    crossings: int = MOST_CROSSINGS
    voxels: int = MOST_VOXELS

    def spend(self, crossings: int, voxels: int) -> None:
        """Count what is about to be computed.

        Raises:
            PayloadTooLarge: too much.
        """
        self.crossings -= crossings
        self.voxels -= voxels
        if min(self.crossings, self.voxels) < 0:
            raise PayloadTooLarge(_TOO_MANY)
        spend_work(_NS_A_CROSSING * crossings + _NS_A_VOXEL * voxels, "contours to voxels")


@dataclass(frozen=True)
class Filled:
    """The voxels inside a contour: where their box begins, and bool (w, h) of it; it may be empty."""

    first: tuple[int, int]
    is_inside: np.ndarray

    @property
    def box(self) -> tuple[slice, slice]:
        """The box's place in a slice."""
        (left, top), (width, height) = self.first, self.is_inside.shape
        return slice(left, left + width), slice(top, top + height)


def fill(points: np.ndarray, size: tuple[int, int], effort: Effort) -> Filled:
    """Find the voxels of a slice whose centres lie in a closed contour.

    Args:
        points: (n, 2) float64 voxel indices (w, h); voxel (0, 0) has its centre at 0, 0. The last is joined to the
            first.
        size: of the slice, (W, H); what lies outside is cut off.
        effort: what may be computed, which is spent.

    Raises:
        PayloadTooLarge: too much.
    """
    low, high = _box(points, size)
    width, height = (int(count) for count in high - low + 1)
    if not width or not height:
        return Filled((int(low[0]), int(low[1])), np.zeros((width, height), bool))
    start, end = points, np.roll(points, -1, axis=0)
    is_turned = (start[:, 1] > end[:, 1])[:, np.newaxis]
    start, end = np.where(is_turned, end, start), np.where(is_turned, start, end)
    rows = np.clip(np.ceil(np.stack([start[:, 1], end[:, 1]])), low[1], high[1] + 1).astype(
        int
    )  # first, and behind last
    counts = rows[1] - rows[0]
    effort.spend(int(counts.sum()) + len(points), width * height)
    with lent(2 * (width + 1) * height, "contours to voxels"):
        # Column i of a row holds whether an odd number of crossings lie beyond i - 1 and not beyond i.
        parity = np.zeros((height, width + 1), np.uint8)
        edges = np.flatnonzero(counts)
        for part in np.split(edges, np.flatnonzero(np.diff(np.cumsum(counts[edges]) // _AT_ONCE)) + 1):
            edge = np.repeat(part, counts[part])
            before = np.repeat(np.cumsum(counts[part]) - counts[part], counts[part])
            row = rows[0][edge] + np.arange(len(edge)) - before
            (left, bottom), (right, top) = start[edge].T, end[edge].T
            crossing = left + (row - bottom) * (right - left) / (top - bottom)
            column = np.clip(np.ceil(crossing) - low[0], 0, width).astype(int)
            np.bitwise_xor.at(parity, (row - low[1], column), 1)
        inside = np.bitwise_xor.accumulate(parity[:, ::-1], axis=1)[:, ::-1][:, 1:]
        return Filled((int(low[0]), int(low[1])), inside.T.astype(bool))


def fill_plane(contours: list[np.ndarray], size: tuple[int, int], effort: Effort) -> tuple[Filled, bool]:
    """The voxels of one structure in one slice: those inside an odd number of its contours, so that holes come out.

    Args:
        contours: as of `fill`.
        size, effort: as of `fill`.

    Returns:
        The voxels, and whether contours cross or cover each other, which makes neither a hole nor a part of its own.
    """
    low, high = _box(np.concatenate(contours), size)
    depth = np.zeros(high - low + 1, np.uint16, order="F")
    are_crossing = False
    last: Filled | None = None
    for points in sorted(contours, key=_area, reverse=True):  # outlines before their holes
        each = fill(points, size, effort)
        is_covering = last is not None and last.box == each.box and np.array_equal(last.is_inside, each.is_inside)
        are_crossing = are_crossing or (is_covering and bool(each.is_inside.any()))
        last = each
        across, down = each.box
        part = depth[across.start - low[0] : across.stop - low[0], down.start - low[1] : down.stop - low[1]]
        there = part[each.is_inside]  # one value, unless an edge of a larger contour runs through
        are_crossing = are_crossing or bool(there.size and there.min() != there.max())
        part += each.is_inside
    return Filled((int(low[0]), int(low[1])), depth % 2 == 1), are_crossing


def _box(points: np.ndarray, size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """The lowest and highest voxel whose centre can lie inside, (2,) each; without any the highest is just below."""
    low = np.clip(np.ceil(points.min(axis=0)), 0, size).astype(int)
    high = np.clip(np.floor(points.max(axis=0)), low - 1, np.array(size) - 1).astype(int)
    return low, high


def _area(points: np.ndarray) -> float:
    """Of a polygon that does not cross itself, in voxels (the shoelace formula)."""
    after = np.roll(points, -1, axis=0)
    return abs(float((points[:, 0] * after[:, 1] - points[:, 1] * after[:, 0]).sum())) / 2
