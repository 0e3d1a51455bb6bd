"""Slice geometry: from ImagePositionPatient, ImageOrientationPatient and PixelSpacing to an affine.

Millimetres throughout. DICOM's patient coordinates are LPS (+x left, +y posterior, +z superior); an affine is RAS, as
in nibabel and MONAI. `planes` reads the attributes.
"""

import math
from dataclasses import dataclass
from typing import Any

import nibabel
import numpy as np

RIGHT_ANGLE_TOLERANCE = 1e-3  # of the cosines' product; headers round to 6 digits
UNIT_TOLERANCE = 1e-2
PLACE_TOLERANCE = 0.02  # of the slice distance: how far a slice may be from its place,
PLACE_TOLERANCE_MM = 0.02  # but at least this much, because headers round to 0.01 mm,
PLACE_TOLERANCE_MOST = 0.25  # and at most this part of the distance, which is micrometres for micrographs
GAP_PIXELS = 5  # slices may be much thicker than their distance, which is hardly ever more than this many pixels
TILT_TOLERANCE_RAD = 2e-3  # 0.1 degree; gantries tilt by 0.5 or more
MISSING_FROM = 1.5  # times the usual distance
LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0])

Vector = tuple[float, float, float]
Cosines = tuple[float, float, float, float, float, float]


def is_sound(orientation: Cosines, spacing: tuple[float, float], position: Vector) -> bool:
    """Whether the numbers are a valid plane: two orthogonal unit vectors, positive lengths, all finite."""
    row, column = np.reshape(orientation, (2, 3))
    if not np.isfinite([*orientation, *spacing, *position]).all() or max(map(abs, position)) > 1e6:
        return False
    lengths = np.linalg.norm([row, column], axis=1)
    return bool(
        np.abs(lengths - 1).max() < UNIT_TOLERANCE
        and abs(row @ column) < RIGHT_ANGLE_TOLERANCE
        and min(spacing) > 1e-6
        and max(spacing) < 1e4
    )


def normal_of(orientation: Cosines) -> np.ndarray:
    """The unit normal (3,) in LPS, along which slices are ordered: row direction x column direction."""
    row, column = np.reshape(orientation, (2, 3))
    normal = np.cross(row, column)
    return np.asarray(normal / np.linalg.norm(normal))


def place_tolerance_mm(gap_mm: float) -> float:
    """How far two positions may differ, along the normal or in the plane, and still be the same place.

    The only such tolerance: for telling volumes apart, and for even spacing. `gap_mm` is the slice distance, above 0;
    `likely_gap_mm` if it is not known yet.
    """
    return min(max(PLACE_TOLERANCE_MM, PLACE_TOLERANCE * gap_mm), PLACE_TOLERANCE_MOST * gap_mm)


def likely_gap_mm(spacing: tuple[float, float], thickness: float | None) -> float:
    """Roughly the largest distance of slices with this PixelSpacing and SliceThickness, mm."""
    return min(GAP_PIXELS * min(spacing), thickness or math.inf)


def places_of(positions: np.ndarray, orientation: Cosines, tolerance_mm: float) -> np.ndarray:
    """Number the places of slices.

    Args:
        positions: (n, 3) LPS mm.
        orientation: of all of them.
        tolerance_mm: from `place_tolerance_mm`.

    Returns:
        (n,) integers: equal for slices in one place, ascending along the normal, then along the rows and columns.
    """
    row, column = np.reshape(orientation, (2, 3))
    numbers = np.zeros(len(positions), np.int64)
    for axis in (normal_of(orientation), row, column):
        along = positions @ axis
        order = np.lexsort((along, numbers))
        is_new = (np.diff(numbers[order]) > 0) | (np.diff(along[order]) > tolerance_mm)
        numbers[order] = np.concatenate([[0], np.cumsum(is_new)])
    return numbers


def affine_of(
    orientation: Cosines, spacing: tuple[float, float], first: np.ndarray | Vector, step: np.ndarray | Vector
) -> np.ndarray:
    """The affine of a stack of slices.

    Args:
        orientation: ImageOrientationPatient: the cosines along a row, then those down a column.
        spacing: PixelSpacing: the distance between rows, then between columns, mm.
        first: ImagePositionPatient of the first slice: the centre of its first pixel, LPS mm.
        step: from a slice to the next, LPS mm. Not along the normal if the gantry was tilted: then the affine is
            sheared, which keeps every pixel where it was measured.

    Returns:
        float64 (4, 4) from voxel indices (w, h, d, 1) to RAS mm.

    Source: DICOM PS3.3 C.7.6.2.1.1, equation C.7.6.2.1-1; w is its column index and h its row index.
    """
    row, column = np.reshape(orientation, (2, 3))
    affine = np.eye(4)
    affine[:3, 0] = LPS_TO_RAS @ row * spacing[1]
    affine[:3, 1] = LPS_TO_RAS @ column * spacing[0]
    affine[:3, 2] = LPS_TO_RAS @ np.asarray(step)
    affine[:3, 3] = LPS_TO_RAS @ np.asarray(first)
    return affine


def spacing_mm(affine: np.ndarray) -> tuple[float, ...]:
    """The distance of neighbouring voxels along each axis: the length of each column of the affine."""
    return tuple(float(length) for length in np.linalg.norm(affine[:-1, :-1], axis=0))


def axcodes(affine: np.ndarray) -> str:
    """The nearest anatomical direction of each voxel axis, such as "LPS" or "RAS"."""
    codes: Any = nibabel.orientations  # incomplete types
    return "".join(codes.aff2axcodes(affine))


@dataclass(frozen=True)
class Spread:
    """How sorted slices are spaced.

    Attributes:
        step: the mean step from slice to slice, LPS mm (3,).
        missing: number of missing slices; 0 if the spacing is uneven for another reason.
        uneven: number of unusual distances, unless slices are missing.
        shifted: slices off the line through the first and the last.
        is_tilted: the line is not along the normal.
        usual_mm: the usual distance along the normal.
    """

    step: np.ndarray
    missing: int
    uneven: int
    shifted: int
    is_tilted: bool
    usual_mm: float


def spread_of(positions: np.ndarray, normal: np.ndarray) -> Spread:
    """Describe how slices are spaced.

    Args:
        positions: (n, 3) LPS mm, at least two, distinct, sorted along the normal.
        normal: (3,) from `normal_of`.
    """
    along = (positions - positions[0]) @ normal
    gaps = np.diff(along)
    usual = float(np.sort(gaps)[(len(gaps) - 1) // 2])  # the lower median: of two gaps, 1 and 2, 2 is the odd one
    step = (positions[-1] - positions[0]) / (len(positions) - 1)
    tolerance = place_tolerance_mm(usual)
    off_grid = np.abs(along - (step @ normal) * np.arange(len(along)))
    missing = uneven = 0
    if off_grid.max() > tolerance:
        multiples = np.rint(gaps / usual)
        is_whole = np.abs(gaps - multiples * usual) <= tolerance * multiples
        if is_whole.all() and (multiples > MISSING_FROM).any():
            missing = int(multiples.sum() - len(gaps))
        else:
            uneven = max(1, int((np.abs(gaps - usual) > tolerance).sum()))
    line = step / (step @ normal)  # the step for one mm along the normal
    beside = np.linalg.norm(positions - positions[0] - np.outer(along, line), axis=1)
    return Spread(
        step=step,
        missing=missing,
        uneven=uneven,
        shifted=int((beside > tolerance).sum()),
        is_tilted=bool(np.linalg.norm(line - normal) > TILT_TOLERANCE_RAD),
        usual_mm=usual,
    )
