"""How well a predicted mask fits the true one, structure by structure: overlap, surfaces, volumes, lesions.

MONAI's `HausdorffDistanceMetric` answers 0.0 where a structure is missed altogether and its Dice leaves out structures
that are predicted where none is; here both count against the model. The empty rule:

- neither mask has the structure: overlap 1, distances 0 mm;
- only one has it: overlap 0, distances as long as the diagonal of the image.

Distances are between centres of surface voxels: those of the structure with a face neighbour outside, where what lies
beyond the image is outside.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
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
)
PERCENTILE = 95  # of the distances, for HD95
_NO_SURFACES = [math.nan] * 3


def compare_masks(
    predicted: NDArray[np.integer],
    true: NDArray[np.integer],
    structures: Sequence[int | Sequence[int]],
    spacing_mm: Sequence[float],
    *,
    tolerance_mm: float,
    ignored: int | None = None,
    has_surfaces: bool = True,
) -> Floats:
    """Measure every structure of one image.

    Args:
        predicted: label map (W, H) or (W, H, D).
        true: the annotator's, of the same shape.
        structures: their values in both maps; several of one that has parts.
        spacing_mm: distance of voxel centres along each axis, all above 0.
        tolerance_mm: how far surfaces may lie apart and still count as equal, for `surface_dice`.
        ignored: value of `true` where nothing was annotated; those voxels count for neither mask.
        has_surfaces: whether the distances of surfaces are measured, which take most of the time; NaN if not.

    Returns:
        (structures, measures), in the order of `MEASURES`; sizes are volumes in ml, or areas in the square of the unit
        of `spacing_mm`, which is pixels for pictures of unknown size. `hd95` is the larger of the two directed 95th
        percentiles; `assd` the mean distance over the surface voxels of both; `surface_dice` the share of these
        that lie within the tolerance of the other surface. A lesion is a component of voxels that touch by faces,
        edges or corners; it is found, or right, if it shares at least one voxel with the other mask.

    Source: Nikolov et al., arXiv:1809.04430 (surface Dice, here of voxels, not of surface elements); Maier-Hein et al.,
    Nature Methods 21 (2024), 195-212 (the choice of scores).
    """
    import numpy as np

    annotated = None if ignored is None else true != ignored
    rows = []
    for values in structures:
        numbers = (values,) if isinstance(values, int) else values
        is_predicted, is_true = is_inside(predicted, numbers), is_inside(true, numbers)
        if annotated is not None:
            is_predicted = is_predicted & annotated
        rows.append(_compare(is_predicted, is_true, spacing_mm, tolerance_mm if has_surfaces else None))
    return np.array(rows, dtype=np.float64).reshape(len(structures), len(MEASURES))


def _compare(predicted: Bools, true: Bools, spacing_mm: Sequence[float], tolerance_mm: float | None) -> list[float]:
    counts = int(predicted.sum()), int(true.sum())
    size = math.prod(spacing_mm) / (1000 if len(spacing_mm) == 3 else 1)
    volumes = [counts[1] * size, counts[0] * size]
    if not any(counts):
        return [
            1.0,
            1.0,
            *([0.0, 0.0, 1.0] if tolerance_mm is not None else _NO_SURFACES),
            *volumes,
            0.0,
            0.0,
            0.0,
            0.0,
        ]
    box = _bounding_box(predicted | true)
    diagonal = math.hypot(*(extent * mm for extent, mm in zip(true.shape, spacing_mm, strict=True)))
    predicted, true = predicted[box], true[box]
    lesions = _lesions(predicted, true)
    if not all(counts):
        surfaces = [diagonal, diagonal, 0.0] if tolerance_mm is not None else _NO_SURFACES
        return [0.0, 0.0, *surfaces, *volumes, *lesions]
    common = int((predicted & true).sum())
    dice, iou = 2 * common / sum(counts), common / (sum(counts) - common)
    surfaces = _NO_SURFACES if tolerance_mm is None else _surfaces(predicted, true, spacing_mm, tolerance_mm)
    return [dice, iou, *surfaces, *volumes, *lesions]


def _bounding_box(is_there: Bools) -> tuple[slice, ...]:
    """The part with all that is there."""
    import numpy as np

    box = []
    for axis in range(is_there.ndim):
        along = np.flatnonzero(is_there.any(axis=tuple(other for other in range(is_there.ndim) if other != axis)))
        box.append(slice(int(along[0]), int(along[-1]) + 1))
    return tuple(box)


def _surfaces(predicted: Bools, true: Bools, spacing_mm: Sequence[float], tolerance_mm: float) -> list[float]:
    """HD95, ASSD and surface Dice of two masks that both have something."""
    import numpy as np
    from scipy import ndimage

    surfaces = [mask & ~ndimage.binary_erosion(mask) for mask in (predicted, true)]
    # From each surface voxel to the other surface.
    distances = [
        ndimage.distance_transform_edt(~other, sampling=spacing_mm)[own]
        for own, other in (surfaces, reversed(surfaces))
    ]
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
