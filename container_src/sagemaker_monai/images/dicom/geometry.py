"""Where slices lie in the patient: from ImagePositionPatient, ImageOrientationPatient and PixelSpacing to an affine.

Millimetres throughout. DICOM's patient coordinates are LPS (+x left, +y posterior, +z superior); an affine is RAS, as
nibabel and MONAI have it. Which attributes hold these numbers is `planes`' subject.
"""

import math
from dataclasses import dataclass
from typing import Any

import nibabel
import numpy as np

RIGHT_ANGLE_TOLERANCE = 1e-3  # of the cosines' product; headers round to 6 digits
UNIT_TOLERANCE = 1e-2
PLACE_TOLERANCE = 0.02  # of the distance of slices; a slice may lie so far from its place and is still there,
PLACE_TOLERANCE_MM = 0.02  # or so far, for headers round to 0.01 mm,
PLACE_TOLERANCE_MOST = 0.25  # but never further than this part of the distance, which micrographs have in micrometres
GAP_PIXELS = 5  # slices may be much thicker than they are apart, but hardly further apart than so many pixels
TILT_TOLERANCE_RAD = 2e-3  # 0.1 degree; what gantries do starts at 0.5
MISSING_FROM = 1.5  # times the usual distance
LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0])

Vector = tuple[float, float, float]
Cosines = tuple[float, float, float, float, float, float]


def is_sound(orientation: Cosines, spacing: tuple[float, float], position: Vector) -> bool:
    """Whether the numbers can be a place: two unit vectors at a right angle, lengths above zero, all finite."""
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
    """The unit vector (3,) in LPS along which slices are counted: row direction x column direction."""
    row, column = np.reshape(orientation, (2, 3))
    normal = np.cross(row, column)
    return np.asarray(normal / np.linalg.norm(normal))


def place_tolerance_mm(gap_mm: float) -> float:
    """How far two positions may differ, along the normal or in the plane, and still be one place.

    The only such tolerance there is: of what one place is when volumes are told apart, and of what even is when their
    slices are counted.

    Args:
        gap_mm: the distance of slices, above 0; `likely_gap_mm` where it is not known yet.
    """
    return min(max(PLACE_TOLERANCE_MM, PLACE_TOLERANCE * gap_mm), PLACE_TOLERANCE_MOST * gap_mm)


def likely_gap_mm(spacing: tuple[float, float], thickness: float | None) -> float:
    """About how far slices of this PixelSpacing and SliceThickness are apart at most, mm."""
    return min(GAP_PIXELS * min(spacing), thickness or math.inf)


def places_of(positions: np.ndarray, orientation: Cosines, tolerance_mm: float) -> np.ndarray:
    """Number the places of slices.

    Args:
        positions: (n, 3) LPS mm.
        orientation: of all of them.
        tolerance_mm: from `place_tolerance_mm`.

    Returns:
        (n,) integers: equal for slices in one place, and growing along the normal; of slices that lie side by side
        first along the rows.
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
        step: from a slice to the next, LPS mm. Along the normal, unless the gantry was tilted: then the affine is
            sheared, which keeps every pixel where it was measured.

    Returns:
        float64 (4, 4) from voxel indices (w, h, d, 1) to RAS mm; w counts along a row, so by columns.

    Source: DICOM PS3.3 C.7.6.2.1.1, equation C.7.6.2.1-1, of which w is the column index and h the row index.
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
    """The way along each voxel axis, such as "LPS" or "RAS": the letter of the direction that it is nearest to."""
    codes: Any = nibabel.orientations  # incomplete types
    return "".join(codes.aff2axcodes(affine))


@dataclass(frozen=True)
class Spread:
    """How sorted slices lie to each other.

    Attributes:
        step: the mean way from slice to slice, LPS mm (3,).
        missing: how many slices are missing; 0 where the spacing is uneven otherwise.
        uneven: places where the distance is not the usual one, unless slices are missing.
        shifted: slices that lie beside the line through the first and the last.
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
    """Describe how slices lie to each other.

    Args:
        positions: (n, 3) LPS mm, at least two, sorted along the normal, none twice.
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
    line = step / (step @ normal)  # the way of a mm along the normal
    beside = np.linalg.norm(positions - positions[0] - np.outer(along, line), axis=1)
    return Spread(
        step=step,
        missing=missing,
        uneven=uneven,
        shifted=int((beside > tolerance).sum()),
        is_tilted=bool(np.linalg.norm(line - normal) > TILT_TOLERANCE_RAD),
        usual_mm=usual,
    )
