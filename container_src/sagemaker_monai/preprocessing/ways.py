"""The way of positions between a source and what the load half makes of it: label maps go forth and back on it.

Every load half keeps axes straight: an axis of its result runs along one axis of the source, with one start and one
step. So a voxel's counterpart is found axis by axis, by its centre, and a map goes either way by picking: no label is
ever a mean of two. Fractions, such as probabilities, are: they go back by linear interpolation.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sagemaker_monai.errors import UnsuitableImage
from sagemaker_monai.images.pictures import upright_size
from sagemaker_monai.images.sample import Sample
from sagemaker_monai.images.volumes import Traits
from sagemaker_monai.preprocessing.fits import FITS
from sagemaker_monai.preprocessing.resampling import grid_of_spacing, orientation_of, spacing_of

# A source voxel may lie this far outside of the prepared grid, in prepared voxels, and still takes its edge: a grid of
# another spacing, rounded to whole voxels, is up to a quarter of a voxel shorter at each end.
_EDGE = 0.3
ONLY_PICTURES = "this model segments pictures; send PNG, JPEG, BMP, TIFF or WebP, not DICOM"
_HALF = 0.501  # a little more, for sums of float32
_SLAB_VOXELS = 1 << 20  # of fractions that are interpolated at once
_BYTES_A_VOXEL = 16  # of them: two neighbours and their mean as float32, and before one was enlarged


@dataclass(frozen=True)
class Axis:
    """One axis of the prepared image.

    Attributes:
        source: the axis of the source that it runs along, without channels.
        start: where its first voxel begins, in voxels of the source from the outer edge of the first one.
        step: length of one of its voxels in voxels of the source; negative where it runs backwards.
        size: its voxels.
    """

    source: int
    start: float
    step: float
    size: int

    def cut_or_padded(self, size: int) -> "Axis":
        """The same with `size` voxels about the centre, as `resampling.crop_or_pad` does it."""
        before = self.size // 2 - size // 2 if self.size >= size else -((size - self.size) // 2)
        return replace(self, start=self.start + before * self.step, size=size)

    def stretched(self, size: int) -> "Axis":
        """The same extent in `size` voxels."""
        return replace(self, step=self.step * self.size / size, size=size)


Way = tuple[Axis, ...]


def plane_way(shape: Sequence[int], fit: str, size: Sequence[int], aspect: float = 1.0) -> Way:
    """The way of a picture or slice (W, H) to `size` by a key of `fits.FITS`.

    Args:
        shape: (W, H) of the source.
        fit: a key of `fits.FITS`.
        size: (width, height) of the result.
        aspect: width of a pixel in its heights.
    """
    inner, shares = FITS[fit]((shape[0] * aspect, shape[1]), (size[0], size[1]))
    axes = []
    for axis, (extent, filled, share, side) in enumerate(zip(shape, inner, shares, size, strict=True)):
        part = Axis(axis, extent * (1 - share) / 2, extent * share / filled, filled)
        axes.append(part.cut_or_padded(side) if filled != side else part)
    return tuple(axes)


def volume_way(
    shape: Sequence[int],
    affine: np.ndarray | None,
    *,
    orientation: str,
    spacing_mm: Sequence[float] | None,
    fit: str,
    size: Sequence[int],
) -> Way:
    """The way of a volume (W, H, D) through `medical.LoadVolume`.

    Args:
        shape: (W, H, D) of the source.
        affine: of the source; None where it has no geometry, and its axes are taken as they are.
        orientation, spacing_mm, fit, size: arguments of `LoadVolume`.
    """
    axes = [Axis(axis, 0.0, 1.0, extent) for axis, extent in enumerate(shape)]
    if affine is not None:
        turned = orientation_of(affine, orientation)
        axes = [Axis(source, float(shape[source]), -1.0, shape[source]) if is_flipped
                else Axis(source, 0.0, 1.0, shape[source]) for source, is_flipped in turned]  # fmt: skip
        if spacing_mm is not None:
            own = spacing_of(affine)
            spacing = [own[axis.source] for axis in axes]
            grid = grid_of_spacing([axis.size for axis in axes], spacing, spacing_mm)
            axes = [
                Axis(axis.source, axis.start + start * axis.step, axis.step * (stop - start) / voxels, voxels)
                for axis, (voxels, (start, stop)) in zip(axes, grid, strict=True)
            ]
    if fit == "stretch":
        axes = [axis.stretched(side) for axis, side in zip(axes, size, strict=True)]
    elif fit == "pad":
        axes = [axis.cut_or_padded(side) for axis, side in zip(axes, size, strict=True)]
    return tuple(axes)


def labels_forth(labels: NDArray[np.integer], way: Way, outside: int = 0) -> NDArray[np.integer]:
    """A label map of the source on the prepared grid: each voxel takes the source voxel that holds its centre.

    Args:
        labels: on the source's grid.
        way: of the source.
        outside: value where the prepared grid leaves the source.
    """
    picked = []
    for axis in way:
        centres = axis.start + (np.arange(axis.size) + 0.5) * axis.step
        picked.append(_inside(centres, labels.shape[axis.source], 0.0))
    return _pick(labels.transpose([axis.source for axis in way]), picked, outside)


def labels_back(labels: NDArray[np.integer], way: Way, shape: Sequence[int], outside: int = 0) -> NDArray[np.integer]:
    """A label map of the prepared grid on the source's: each voxel takes the prepared one that holds its centre.

    Args:
        labels: on the prepared grid.
        way: of the source.
        shape: of the source.
        outside: value where the source leaves the prepared grid.
    """
    picked = []
    for axis in way:
        centres = (np.arange(shape[axis.source]) + 0.5 - axis.start) / axis.step
        picked.append(_inside(centres, axis.size, _EDGE))
    turned = _pick(labels, picked, outside)
    order = np.argsort([axis.source for axis in way])
    return np.ascontiguousarray(turned.transpose(order))


def rounded(fractions: NDArray[np.floating]) -> NDArray[np.uint8]:
    """Fractions of 255 as whole numbers.

    Halves go down: where fractions together are at most 255, no two of them become more than half of it, also after a
    rounding before and interpolation. So a threshold of one half never finds two structures in a voxel.

    Args:
        fractions: 0 to 255; changed.
    """
    fractions -= _HALF
    np.ceil(fractions, out=fractions)
    return fractions.astype(np.uint8)


def fractions_back(
    fractions: NDArray[np.uint8], way: Way, shape: Sequence[int], out: NDArray[np.uint8] | None = None
) -> NDArray[np.uint8]:
    """Fractions of the prepared grid on the source's, linear between the centres of voxels, and 0 outside.

    Args:
        fractions: on the prepared grid, of 255.
        way: of the source.
        shape: of the source.
        out: for the result.

    Returns:
        uint8 of the source's shape, from `rounded`.
    """
    out = np.empty(tuple(shape), np.uint8) if out is None else out
    turned = out.transpose([axis.source for axis in way])
    mixed = [_between(axis, shape[axis.source]) for axis in way]
    slab = max(1, _SLAB_VOXELS // math.prod(max(axis.size, shape[axis.source]) for axis in way[1:]))
    for first in range(0, turned.shape[0], slab):
        part = slice(first, first + slab)
        values: NDArray[Any] = fractions
        for axis, (low, weight) in enumerate(mixed):
            values = _mix(values, axis, *((low[part], weight[part]) if axis == 0 else (low, weight)))
        turned[part] = values if values.dtype == np.uint8 else rounded(values)
    for axis, each in enumerate(way):
        centres = (np.arange(turned.shape[axis]) + 0.5 - each.start) / each.step
        if (is_outside := _inside(centres, each.size, _EDGE) < 0).any():
            np.moveaxis(turned, axis, 0)[is_outside] = 0
    return out


def interpolation_bytes(prepared: Sequence[int], shape: Sequence[int]) -> int:
    """The most memory that `fractions_back` takes beside the result, whichever axis goes where."""
    sides = sorted([*prepared, *shape], reverse=True)[: len(shape)]
    return _BYTES_A_VOXEL * min(math.prod(sides), max(_SLAB_VOXELS, math.prod(sides[:-1])))


def _between(axis: Axis, extent: int) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """For each source voxel the prepared one before its centre, and how far on it lies to the next, 0 to 1."""
    centres = (np.arange(extent) + 0.5 - axis.start) / axis.step - 0.5
    centres = np.clip(np.round(centres, 6), 0, axis.size - 1)  # so that grids that are the same except for rounding are
    low = np.minimum(np.floor(centres), max(axis.size - 2, 0)).astype(np.int64)
    return low, (centres - low).astype(np.float32)


def _mix(values: NDArray[Any], axis: int, low: NDArray[np.int64], weight: NDArray[np.float32]) -> NDArray[Any]:
    """Values at other places along an axis, as they are where these are voxels, else as float32."""
    if np.isin(weight, (0, 1)).all():
        return np.take(values, low + weight.astype(np.int64), axis=axis)
    before = np.take(values, low, axis=axis).astype(np.float32, copy=False)
    after = np.take(values, low + 1, axis=axis).astype(np.float32, copy=False)
    after -= before
    after *= weight.reshape([-1 if each == axis else 1 for each in range(values.ndim)])
    after += before
    return after


def _inside(centres: NDArray[np.floating], extent: int, slack: float) -> NDArray[np.int64]:
    """The voxel that holds each centre; -1 where it lies more than `slack` outside."""
    voxels: NDArray[np.int64] = np.clip(np.floor(centres), 0, extent - 1).astype(np.int64)
    voxels[(centres < -slack) | (centres > extent + slack)] = -1
    return voxels


def _pick(labels: NDArray[np.integer], voxels: Sequence[NDArray[np.int64]], outside: int) -> NDArray[np.integer]:
    first, *others = (np.maximum(each, 0) for each in voxels)
    picked = np.empty([len(each) for each in voxels], labels.dtype)
    plane = math.prod(max(*sides) for sides in zip(labels.shape[1:], picked.shape[1:], strict=True))
    step = max(1, _SLAB_VOXELS // max(plane, 1))
    for start in range(0, len(first), step):  # axis by axis is faster than all at once, which `np.ix_` would do
        part = labels[first[start : start + step]]
        for axis, each in enumerate(others, start=1):
            part = part.take(each, axis=axis)
        picked[start : start + step] = part
    for axis, each in enumerate(voxels):
        if (each < 0).any():
            index: list[slice | NDArray[np.bool_]] = [slice(None)] * picked.ndim
            index[axis] = each < 0
            picked[tuple(index)] = outside
    return picked


def with_size(sample: Sample, traits: Traits) -> Traits:
    """What is known of an image with its size, which pictures of 8 bits do not carry through the load half.

    Raises:
        UndecodableImage, UnsuitableImage, PayloadTooLarge: as `pictures.decode`; UnsuitableImage also for DICOM that
            was read as a picture.
    """
    source = sample.source
    if traits.size:
        return traits
    if isinstance(source, np.ndarray):
        return replace(traits, size=tuple(map(int, source.shape[-2:])))
    if traits.identity is not None or not isinstance(source, Path | bytes):
        raise UnsuitableImage(ONLY_PICTURES)
    return replace(traits, size=upright_size(source))
