"""Whether a mask lies on its image's grid: decided here and nowhere else.

Two grids are one where every voxel of the one has its centre on that of a voxel of the other. Programs store the same
grid from either end of each axis and with the axes in another order; such a mask is brought to the image's order, which
changes no value. All else is another grid and refused: resampling is a decision with losses that somebody has to make
knowingly.

Corners may lie SAME_GRID of a voxel apart and never more than MOST_MM. Headers round: float32 of NIfTI to 0.0001 mm,
DICOM often to 0.01 mm, quaternions to less than that at the far end of an axis. A tenth of a voxel is above all of
these and below half a voxel, where another voxel's centre would be the nearer one; half a millimetre keeps that honest
for thick slices.

If image or mask has no position (a picture, an .npy), only equal sizes can be required. A picture
that fits when it is transposed is refused: it may as well be another picture's.
"""

from itertools import permutations, product

import numpy as np

from sagemaker_monai.errors import UnsuitableImage
from sagemaker_monai.images.read import SAME_GRID
from sagemaker_monai.masks.mask import Grid

MOST_MM = 0.5

_RESAMPLE = "resample the mask to the image with nearest neighbour, or take the image that it was drawn on"


def on_grid(
    values: np.ndarray, affine: np.ndarray | None, grid: Grid, *, tolerance_mm: float = MOST_MM
) -> tuple[np.ndarray, tuple[str, ...]]:
    """Bring a mask to its image's grid.

    Args:
        values: (W, H) or (W, H, D) in the order of the mask's file.
        affine: (4, 4) of the mask, RAS mm; None where it has no geometry.
        grid: of the image.
        tolerance_mm: the most that corners may lie apart, beside SAME_GRID of a voxel.

    Returns:
        A view of the grid's shape, and findings.

    Raises:
        UnsuitableImage: another grid.
    """
    full = values.reshape((*values.shape, 1)[:3])
    if affine is None or grid.affine is None:
        if full.shape != grid.sizes:
            raise UnsuitableImage(_other_sizes(full.shape, grid.sizes))
        is_unproved = (affine is None) != (grid.affine is None)
        return values.reshape(grid.shape), ("mask_place_unproved",) if is_unproved else ()
    best: tuple[float, tuple[int, ...], tuple[bool, ...]] | None = None
    for order in permutations(range(3)):
        if tuple(full.shape[axis] for axis in order) != grid.sizes:
            continue
        for flips in product((False, True), repeat=3):
            if any(is_flipped and size == 1 for is_flipped, size in zip(flips, grid.sizes, strict=True)):
                continue
            shift_mm, is_same = _shift(affine, grid, order, flips, tolerance_mm)
            if is_same and (best is None or shift_mm < best[0]):
                best = shift_mm, order, flips
    if best is None:
        raise UnsuitableImage(_other_place(full.shape, affine, grid, tolerance_mm))
    _, order, flips = best
    turned = full.transpose(order)[tuple(slice(None, None, -1 if is_flipped else 1) for is_flipped in flips)]
    return turned.reshape(grid.shape), ()


def is_small(shift_voxels: np.ndarray, shift_mm: np.ndarray, tolerance_mm: float = MOST_MM) -> bool:
    """Whether places so far apart are one place.

    Args:
        shift_voxels: (..., 3) along the image's axes.
        shift_mm: (..., 3) of the same.
        tolerance_mm: as of `on_grid`.
    """
    return bool(np.abs(shift_voxels).max() <= SAME_GRID and np.linalg.norm(shift_mm, axis=-1).max() <= tolerance_mm)


def _shift(
    affine: np.ndarray, grid: Grid, order: tuple[int, ...], flips: tuple[bool, ...], tolerance_mm: float
) -> tuple[float, bool]:
    """How far corners lie apart when the mask is stored in another order, mm, and whether that is nothing."""
    assert grid.affine is not None
    ends = np.array(grid.sizes) - 1
    corners = np.array([ends * corner for corner in np.ndindex(2, 2, 2)])  # (8, 3) voxels of the image
    own = np.empty_like(corners)  # the same of the mask
    own[:, list(order)] = np.where(flips, ends - corners, corners)
    shift = _places(affine, own) - _places(grid.affine, corners)
    voxels = shift @ np.linalg.inv(grid.affine[:3, :3]).T
    return float(np.linalg.norm(shift, axis=1).max()), is_small(voxels, shift, tolerance_mm)


def _places(affine: np.ndarray, voxels: np.ndarray) -> np.ndarray:
    places: np.ndarray = voxels @ affine[:3, :3].T + affine[:3, 3]
    return places


def _other_sizes(shape: tuple[int, ...], sizes: tuple[int, ...]) -> str:
    if sorted(shape) == sorted(sizes):
        return (
            f"the mask has {_sizes(shape)} pixels (width x height) and its image {_sizes(sizes)}: they would fit with "
            "the axes in another order, but nothing says that it is the same picture; store the mask as its image is"
        )
    return f"the mask has {_sizes(shape)} pixels (width x height) and its image {_sizes(sizes)}; {_RESAMPLE}"


def _other_place(shape: tuple[int, ...], affine: np.ndarray, grid: Grid, tolerance_mm: float) -> str:
    assert grid.affine is not None
    both = f"the mask has {_shown(shape, affine)}, its image {_shown(grid.sizes, grid.affine)}"
    if shape != grid.sizes:
        return f"the mask lies on another grid than its image: {both}; {_RESAMPLE}"
    apart, _ = _shift(affine, grid, (0, 1, 2), (False, False, False), tolerance_mm)
    return f"the mask lies elsewhere than its image, at the corners up to {apart:.3g} mm: {both}; {_RESAMPLE}"


def _shown(shape: tuple[int, ...], affine: np.ndarray) -> str:
    from sagemaker_monai.images.dicom.geometry import axcodes, spacing_mm

    spacing = " x ".join(f"{mm:.4g}" for mm in spacing_mm(affine))
    first = ", ".join(f"{mm:.4g}" for mm in affine[:3, 3])
    return f"{_sizes(shape)} voxels of {spacing} mm towards {axcodes(affine)} from ({first})"


def _sizes(shape: tuple[int, ...]) -> str:
    return " x ".join(map(str, shape if len(shape) < 3 or shape[2] != 1 else shape[:2]))
