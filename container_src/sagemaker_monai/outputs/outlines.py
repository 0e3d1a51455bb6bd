"""The outline of voxels in a slice, as closed polygons along the voxels' edges.

Edges rather than smooth lines through the centres: a program that fills these polygons gets exactly these voxels,
whatever its rule for points on a line, since every centre lies half a voxel away from every line.

Voxels that touch at a corner only are apart, as are holes, so that no polygon touches itself; together, by the even-odd
rule, they are the voxels.
"""

import numpy as np
from numpy.typing import NDArray


def outlines_of(is_inside: NDArray[np.bool_]) -> list[NDArray[np.float64]]:
    """Find the polygons around voxels.

    Args:
        is_inside: (W, H).

    Returns:
        Of each polygon its corners (n, 2), voxel indices (w, h) that end in .5; the last is joined to the first.
    """
    padded = np.pad(is_inside, 1)
    lower = padded[:-1, :-1], padded[1:, :-1]  # of the corner behind voxel (w, h): the voxels before it in h
    upper = padded[:-1, 1:], padded[1:, 1:]
    is_edge = {
        "left": lower[0] != upper[0],  # an edge goes from the corner towards smaller w
        "right": lower[1] != upper[1],
        "down": lower[0] != lower[1],  # towards smaller h
        "up": upper[0] != upper[1],
    }
    is_crossing = is_edge["left"] & is_edge["right"] & is_edge["down"] & is_edge["up"]
    is_corner = (is_edge["left"] != is_edge["right"]) & ~is_crossing
    single, double = np.argwhere(is_corner), np.argwhere(is_crossing)
    # Where two voxels touch at a corner there are two corners, the left and the right one, each of one voxel.
    points = np.concatenate([single, double, double])
    is_right = np.concatenate(
        [is_edge["right"][tuple(single.T)], np.zeros(len(double), bool), np.ones(len(double), bool)]
    )
    # The left one's edge continues along its voxel: that before the corner in h, or that behind it.
    left_goes_up = ~lower[0][tuple(double.T)]
    is_up = np.concatenate([is_edge["up"][tuple(single.T)], left_goes_up, ~left_goes_up])
    across, down = _neighbours(points[:, 1], points[:, 0], is_right), _neighbours(points[:, 0], points[:, 1], is_up)
    return [points[loop] - 0.5 for loop in _loops(across.tolist(), down.tolist())]


def _neighbours(line: NDArray[np.int64], place: NDArray[np.int64], is_start: NDArray[np.bool_]) -> NDArray[np.int64]:
    """The other end of the edge of each corner: on a line, edges run from the first to the second corner, and so on."""
    order = np.lexsort((is_start, place, line))
    other = np.empty(len(order), np.int64)
    other[order[0::2]], other[order[1::2]] = order[1::2], order[0::2]
    return other


def _loops(across: list[int], down: list[int]) -> list[list[int]]:
    """The corners of each polygon in order."""
    loops = []
    is_done = [False] * len(across)
    for start in range(len(across)):
        loop: list[int] = []
        corner = start
        while not is_done[corner]:
            other = across[corner]
            is_done[corner] = is_done[other] = True
            loop += corner, other
            corner = down[other]
        if loop:
            loops.append(loop)
    return loops
