"""How well a predicted mask fits the true one, structure by structure: overlap, surfaces, volumes, lesions.

MONAI's `HausdorffDistanceMetric` answers 0.0 where a structure is missed altogether and its Dice leaves out structures
that are predicted where none is; here both count against the model. The empty rule:

- neither mask has the structure: overlap 1, distances 0 mm;
- only one has it: overlap 0, distances as long as the diagonal of the image.

Distances are between centres of surface voxels: those of the structure with a face neighbour outside, where what lies
beyond the image is outside. They are right on grids whose axes are not perpendicular (a tilted gantry) too.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING

from sagemaker_monai.tasks.regions import is_inside

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from sagemaker_monai.tasks.task import Floats

    Bools = NDArray[np.bool_]

# What is measured of one structure of one image, in this order.
MEASURES = (
    "dice",
    "iou",
    "hd95",
    "assd",
    "surface_dice",
    "true_size",
    "predicted_size",
    "true_lesions",
    "found_lesions",
    "predicted_lesions",
    "right_lesions",
    "answered_voxels",
)
PERCENTILE = 95  # of the distances, for HD95
_NO_SURFACES = [math.nan] * 3
_PERPENDICULAR = 1e-3  # cosine of two axes up to which they count as perpendicular: what headers round


def compare_masks(
    predicted: NDArray[np.integer],
    true: NDArray[np.integer],
    structures: Sequence[int | Sequence[int]],
    spacing_mm: Sequence[float] | None,
    *,
    tolerance_mm: float,
    ignored: int | None = None,
    has_surfaces: bool = True,
    affine: Floats | None = None,
) -> Floats:
    """Measure every structure of one image.

    Args:
        predicted: label map (W, H) or (W, H, D).
        true: the annotator's, of the same shape.
        structures: their values in both maps; several of one that has parts.
        spacing_mm: distance of voxel centres along each axis, all above 0; None where it is unknown: distances are in
            voxels then, and so are sizes.
        tolerance_mm: how far surfaces may lie apart and still count as equal, for `surface_dice`.
        ignored: value of `true` where nothing was annotated; those voxels count for neither mask.
        has_surfaces: whether the distances of surfaces are measured, which take most of the time; NaN if not.
        affine: (4, 4) of a volume's grid in mm; None where it has none. Its axes need not be perpendicular.

    Returns:
        (structures, measures), in the order of `MEASURES`; sizes are volumes in ml, or areas in the square of the unit
        of `spacing_mm`. `hd95` is the larger of the two directed 95th
        percentiles; `assd` the mean distance over the surface voxels of both; `surface_dice` the share of these
        that lie within the tolerance of the other surface. A lesion is a component of voxels that touch by faces,
        edges or corners; it is found, or right, if it shares at least one voxel with the other mask. `answered_voxels`
        counts what is predicted where nobody annotated too: a server's answer has as many.

    Source: Nikolov et al., arXiv:1809.04430 (surface Dice, here of voxels, not of surface elements); Maier-Hein et al.,
    Nature Methods 21 (2024), 195-212 (the choice of scores).
    """
    import numpy as np

    annotated = None if ignored is None else true != ignored
    geometry = _geometry(spacing_mm, affine, true.ndim)
    rows = []
    for values in structures:
        numbers = (values,) if isinstance(values, int) else values
        is_predicted, is_true = is_inside(predicted, numbers), is_inside(true, numbers)
        answered = float(is_predicted.sum())
        if annotated is not None:
            is_predicted = is_predicted & annotated
        measured = _compare(is_predicted, is_true, geometry, tolerance_mm if has_surfaces else None)
        rows.append([*measured, answered])
    return np.array(rows, dtype=np.float64).reshape(len(structures), len(MEASURES))


@dataclass(frozen=True, eq=False)
class _Geometry:
    """A grid.

    Attributes:
        spacing_mm: along its axes.
        size: of a voxel, in ml or the square of the unit of `spacing_mm`.
        axes: (3, 3), a step along each axis as a column, where they are not perpendicular.
    """

    spacing_mm: tuple[float, ...]
    size: float
    axes: Floats | None = None

    def diagonal(self, shape: Sequence[int]) -> float:
        """The longest way through an image of that shape."""
        import numpy as np

        if self.axes is None:
            return math.hypot(*(extent * mm for extent, mm in zip(shape, self.spacing_mm, strict=True)))
        corners = np.array(list(product((1, -1), repeat=len(shape)))) * shape
        return float(np.linalg.norm(corners @ self.axes.T, axis=1).max())

    def distances(self, own: Bools, other: Bools) -> Floats:
        """From each voxel of one mask to the nearest one of another, in mm."""
        import numpy as np
        from scipy import ndimage, spatial

        if self.axes is None:
            found: Floats = ndimage.distance_transform_edt(~other, sampling=self.spacing_mm)[own]
            return found
        places, others = (np.argwhere(mask) @ self.axes.T for mask in (own, other))
        return np.asarray(spatial.KDTree(others).query(places)[0], np.float64)


def voxel_size(spacing_mm: Sequence[float] | None, affine: Floats | None) -> float:
    """The volume of a voxel in ml, or the area of a pixel in mm2.

    Args:
        spacing_mm: along each axis; None where it is unknown, so that each voxel counts as 1.
        affine: (4, 4) of a volume's grid, whose axes need not be perpendicular; None where it has none.
    """
    import numpy as np

    if spacing_mm is None:
        return 1.0
    size = math.prod(spacing_mm) if affine is None else abs(float(np.linalg.det(affine[:3, :3])))
    return size / (1000 if len(spacing_mm) == 3 else 1)


def _geometry(spacing_mm: Sequence[float] | None, affine: Floats | None, axes_count: int) -> _Geometry:
    import numpy as np

    size = voxel_size(spacing_mm, affine)
    spacing = (1.0,) * axes_count if spacing_mm is None else tuple(spacing_mm)
    if affine is None:
        return _Geometry(spacing, size)
    axes = np.asarray(affine[:3, :3], np.float64)
    cosines = (axes / np.linalg.norm(axes, axis=0)).T @ (axes / np.linalg.norm(axes, axis=0))
    is_sheared = bool(np.abs(cosines - np.eye(3)).max() > _PERPENDICULAR)
    return _Geometry(spacing, size, axes if is_sheared else None)


def _compare(predicted: Bools, true: Bools, geometry: _Geometry, tolerance_mm: float | None) -> list[float]:
    counts = int(predicted.sum()), int(true.sum())
    volumes = [counts[1] * geometry.size, counts[0] * geometry.size]
    if not any(counts):
        surfaces = [0.0, 0.0, 1.0] if tolerance_mm is not None else _NO_SURFACES
        return [1.0, 1.0, *surfaces, *volumes, 0.0, 0.0, 0.0, 0.0]
    box = _bounding_box(predicted | true)
    diagonal = geometry.diagonal(true.shape)
    predicted, true = predicted[box], true[box]
    lesions = _lesions(predicted, true)
    if not all(counts):
        surfaces = [diagonal, diagonal, 0.0] if tolerance_mm is not None else _NO_SURFACES
        return [0.0, 0.0, *surfaces, *volumes, *lesions]
    common = int((predicted & true).sum())
    dice, iou = 2 * common / sum(counts), common / (sum(counts) - common)
    surfaces = _NO_SURFACES if tolerance_mm is None else _surfaces(predicted, true, geometry, tolerance_mm)
    return [dice, iou, *surfaces, *volumes, *lesions]


def _bounding_box(is_there: Bools) -> tuple[slice, ...]:
    """The part with all that is there."""
    import numpy as np

    box = []
    for axis in range(is_there.ndim):
        along = np.flatnonzero(is_there.any(axis=tuple(other for other in range(is_there.ndim) if other != axis)))
        box.append(slice(int(along[0]), int(along[-1]) + 1))
    return tuple(box)


def _surfaces(predicted: Bools, true: Bools, geometry: _Geometry, tolerance_mm: float) -> list[float]:
    """HD95, ASSD and surface Dice of two masks that both have something."""
    import numpy as np
    from scipy import ndimage

    surfaces = [mask & ~ndimage.binary_erosion(mask) for mask in (predicted, true)]
    # From each surface voxel to the other surface.
    distances = [geometry.distances(own, other) for own, other in (surfaces, reversed(surfaces))]
    together = np.concatenate(distances)
    hd95 = max(float(np.percentile(each, PERCENTILE)) for each in distances)
    # Distances are square roots of sums: a tolerance of two voxels of 0.1 mm must include 0.2 mm.
    return [hd95, float(together.mean()), float((together <= tolerance_mm * (1 + 1e-9)).mean())]


def _lesions(predicted: Bools, true: Bools) -> list[float]:
    """True lesions, those found, predicted lesions, and those right."""
    import numpy as np
    from scipy import ndimage

    touching = np.ones((3,) * true.ndim)
    found = []
    for own, other in ((true, predicted), (predicted, true)):
        parts, count = ndimage.label(own, structure=touching)
        found += [float(count), float(len(np.unique(parts[own & other])))]
    return found


def image_scores(measured: Floats) -> Mapping[str, Floats]:
    """Scores of every image and structure, of measures (N, K, M).

    Returns:
        name -> (N, K): the first five of `MEASURES`, and `volume_error`, the absolute difference.
    """
    import numpy as np

    column = {name: measured[:, :, index] for index, name in enumerate(MEASURES)}
    errors = np.abs(column["predicted_size"] - column["true_size"])
    return {name: column[name] for name in MEASURES[:5]} | {"volume_error": errors}


def lesion_scores(measured: Floats, weights: Floats) -> dict[str, Floats]:
    """Lesion-wise sensitivity, precision and F1 over all images together, (R, K), NaN for 0 / 0.

    Args:
        measured: (N, K, M), as `compare_masks` gives it for each image.
        weights: (R, N), how often each image counts.
    """
    from sagemaker_monai.tasks.metrics import divide

    names = ("true_lesions", "found_lesions", "predicted_lesions", "right_lesions")
    true, found, predicted, right = (weights @ measured[:, :, MEASURES.index(name)] for name in names)
    sensitivity, precision = divide(found, true), divide(right, predicted)
    return {
        "lesion_sensitivity": sensitivity,
        "lesion_precision": precision,
        "lesion_f1": divide(2 * sensitivity * precision, sensitivity + precision),
    }
