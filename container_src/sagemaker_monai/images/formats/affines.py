"""From a header's directions, spacing and origin to a reliable affine.

What a header claims about the position in the patient must be sound: non-finite or degenerate directions are refused,
because a wrong position is worse than none. If a header claims none, the volume is only a grid, and a spacing that is
zero, negative or not finite becomes its absolute value or 1 mm.

One exception is common and harmless: an axis with one voxel (2-D files) and a zero direction gets the normal of the
other two axes, 1 mm long.
"""

from collections.abc import Sequence

import numpy as np

from sagemaker_monai.errors import UndecodableImage
from sagemaker_monai.messages.remarks import Remark, remark

# From patient coordinates such as left, posterior, superior (DICOM, ITK) to right, anterior, superior.
SIGNS = {"RAS": (1.0, 1.0, 1.0), "LAS": (-1.0, 1.0, 1.0), "LPS": (-1.0, -1.0, 1.0)}
MM_PER_UNIT = {"m": 1e3, "cm": 10.0, "mm": 1.0, "um": 1e-3, "μm": 1e-3, "µm": 1e-3, "micron": 1e-3, "microns": 1e-3}

_SPACING_LIMITS_MM = (1e-7, 1e7)  # a tenth of a nanometre to ten kilometres
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
    """Combine directions and origin.

    Args:
        directions: (3, 3), column i is the step in mm from one voxel to the next along axis i.
        origin: (3,), centre of voxel (0, 0, 0) in mm.
        shape: (W, H, D).

    Raises:
        UndecodableImage: not finite, a step that is zero or out of range, or directions in one plane.
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
        raise UndecodableImage("the header's spacing is zero or out of range; write sound geometry or none")
    if abs(np.linalg.det(directions / lengths)) < _SMALLEST_VOLUME:
        raise UndecodableImage("the header's axes lie in one plane; write sound geometry or none")
    affine = np.eye(4)
    affine[:3, :3] = directions
    affine[:3, 3] = origin
    return affine


def spacing_remarks(affine: np.ndarray, given_mm: Sequence[float], shape: Sequence[int]) -> tuple[Remark, ...]:
    """A remark if a header's separate spacing contradicts its directions.

    Args:
        affine: of `affine_of`, which is used.
        given_mm: the separate spacing along the axes; invalid lengths are ignored.
        shape: voxels along the axes; axes with one voxel are ignored.
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
