"""What the load halves will take for an image, by its header alone: the memory, the work and the size of the result.

The same counts as those that `budget` gets while an image is loaded, made before it is decoded.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from sagemaker_monai.images.expected import Expected
from sagemaker_monai.images.volumes import check_voxels
from sagemaker_monai.preprocessing.resampling import changed_axes, grid_of_spacing, resizing, spacing_of
from sagemaker_monai.preprocessing.ways import volume_way


@dataclass(frozen=True)
class Needs:
    """What an image takes until it is prepared.

    Attributes:
        loading_bytes: the most at once, the decoded values included.
        work_ns: to resample it.
        prepared: (C, ...) of the result.
    """

    loading_bytes: int
    work_ns: int
    prepared: tuple[int, ...]


def plane_needs(expected: Expected, prepared: Sequence[int]) -> Needs:
    """The needs of a picture or slice, whose values are held while it is scaled in intensity and size."""
    return Needs(8 * math.prod(expected.shape) + expected.decoding_bytes, 0, tuple(prepared))


def volume_needs(
    expected: Expected,
    *,
    orientation: str,
    spacing_mm: Sequence[float] | None,
    fit: str,
    size: Sequence[int],
    intensity: Mapping[str, Any],
) -> Needs:
    """The needs of a volume; arguments as for `medical.LoadVolume`.

    Raises:
        PayloadTooLarge: more values than `volumes.MAX_VOXELS` at the spacing.
        UnsuitableImage: broken geometry.
    """
    channels, *extents = expected.shape
    affine = expected.affine
    way = volume_way(extents, affine, orientation=orientation, spacing_mm=spacing_mm, fit="whole", size=size)
    turned = [extents[axis.source] for axis in way]
    grid = [axis.size for axis in way]
    check_voxels(channels, *grid)
    voxels = channels * math.prod(extents)
    held = 4 * voxels
    most, work_ns = held + expected.decoding_bytes, 0
    mask_bytes = voxels if expected.has_padding else 0
    held += mask_bytes
    most = max(most, held + mask_bytes)
    if affine is not None and spacing_mm is not None:
        own = spacing_of(np.asarray(affine))
        boxes = [box for _, box in grid_of_spacing(turned, [own[axis.source] for axis in way], spacing_mm)]
        moment, each_ns = resizing([channels, *turned], grid, changed_axes(turned, grid, boxes))
        voxels = channels * math.prod(grid)
        if mask_bytes:  # the mask is resized as well, as float32
            most, held = max(most, held + 4 * mask_bytes + moment), held + 5 * voxels
            mask_bytes = voxels
        most, held = max(most, held + moment), held + 4 * voxels
        work_ns += each_ns * (2 if mask_bytes else 1)
    if intensity["kind"] == "percentile":
        most = max(most, held + 4 * voxels // channels * (2 if mask_bytes else 1))
    prepared = list(size) if fit in ("stretch", "pad") else grid
    final = 4 * channels * math.prod(prepared)
    if fit == "stretch":
        changed = changed_axes(grid, prepared, [(0.0, float(extent)) for extent in grid])
        moment, each_ns = resizing([channels, *grid], prepared, changed)
        most, held, work_ns = max(most, held + moment), held + final, work_ns + each_ns
    held += final  # cropped or padded, or in another order of axes
    return Needs(max(most, held), work_ns, (channels, *prepared))
