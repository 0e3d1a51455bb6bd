"""From a header's directions, spacing and origin to an affine that a computation can rely on.

What a header claims about its place in the patient has to be sound: not finite or degenerate directions are refused,
for a wrong place is worse than none. Where a header claims none, the grid is only a grid: a spacing that is zero,
negative or not finite is then its absolute value or 1 mm.

One exception is common and harmless: an axis with one voxel (2-D files) whose direction is zero. It gets the direction
normal to the other two, 1 mm long.
"""

from collections.abc import Sequence

import numpy as np

from sagemaker_monai.errors import UndecodableImage
from sagemaker_monai.messages.remarks import Remark, remark

# From the coordinates of a patient's left, posterior, superior (DICOM, ITK) and others to right, anterior, superior.
SIGNS = {"RAS": (1.0, 1.0, 1.0), "LAS": (-1.0, 1.0, 1.0), "LPS": (-1.0, -1.0, 1.0)}
MM_PER_UNIT = {"m": 1e3, "cm": 10.0, "mm": 1.0, "um": 1e-3, "μm": 1e-3, "µm": 1e-3, "micron": 1e-3, "microns": 1e-3}

_SPACING_LIMITS_MM = (1e-7, 1e7)  # a tenth of a nanometre to ten kilometres: outside is no image of anybody
SAME_SPACING = 0.01  # of a spacing
_SMALLEST_VOLUME = 1e-4  # of the parallelepiped of three unit directions; 1 is orthogonal


def grid(spacing_mm: Sequence[float]) -> np.ndarray:
    """The affine of a file without geometry: voxel (0, 0, 0) at the origin, axes along x, y and z.

    Args:
        spacing_mm: of W, H and, unless the image is 2-D, D.
    """
    affine = np.eye(4)
    for axis, size in enumerate(spacing_mm[:3]):
        if np.isfinite(size) and _SPACING_LIMITS_MM[0] < abs(size) < _SPACING_LIMITS_MM[1]:
            affine[axis, axis] = abs(size)
    return affine


def affine_of(directions: np.ndarray, origin: np.ndarray, shape: Sequence[int]) -> np.ndarray:
    """Put columns and origin together.

    Args:
        directions: (3, 3), column i is the step in mm from a voxel to the next along axis i.
        origin: (3,), centre of voxel (0, 0, 0) in mm.
        shape: (W, H, D).

    Raises:
        UndecodableImage: not finite, a step of zero or beyond reason, or directions in one plane.
    """
    directions = np.array(directions, np.float64)
    if not (np.isfinite(directions).all() and np.isfinite(origin).all()):
        raise UndecodableImage(
            "the header's orientation, spacing or origin is not finite; write sound geometry or none"
        )
    for axis in range(3):
        if shape[axis] == 1 and not directions[:, axis].any():
            normal = np.cross(directions[:, (axis + 1) % 3], directions[:, (axis + 2) % 3])
            length = np.linalg.norm(normal)
            directions[:, axis] = normal / length if length > 0 else 0
    lengths = np.linalg.norm(directions, axis=0)
    if not np.all((lengths > _SPACING_LIMITS_MM[0]) & (lengths < _SPACING_LIMITS_MM[1])):
        raise UndecodableImage("the header's spacing is zero or beyond reason; write sound geometry or none")
    if abs(np.linalg.det(directions / lengths)) < _SMALLEST_VOLUME:
        raise UndecodableImage("the header's axes lie in one plane; write sound geometry or none")
    affine = np.eye(4)
    affine[:3, :3] = directions
    affine[:3, 3] = origin
    return affine


def spacing_remarks(affine: np.ndarray, given_mm: Sequence[float], shape: Sequence[int]) -> tuple[Remark, ...]:
    """What there is to say where a header gives its spacing once more beside its directions.

    Args:
        affine: of `affine_of`, which counts.
        given_mm: the other spacing, along the axes; what is no length says nothing.
        shape: voxels along the axes; the spacing of one voxel says nothing.
    """
    spacing = np.linalg.norm(affine[:3, :3], axis=0)[: len(given_mm)]
    given = np.abs(np.asarray(given_mm, np.float64))
    is_told = np.isfinite(given) & (given > 0) & (np.asarray(shape)[: len(given)] > 1)
    if (np.abs(spacing / np.where(is_told, given, spacing) - 1) <= SAME_SPACING).all():
        return ()
    return (remark("contradicting_spacing", used=sizes_of(spacing), other=sizes_of(given)),)


def sizes_of(spacing_mm: np.ndarray) -> str:
    """A spacing for people: "2 x 2 x 3"."""
    return " x ".join(f"{mm:.4g}" for mm in spacing_mm)
