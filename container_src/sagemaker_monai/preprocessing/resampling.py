"""Planes and volumes on other grids: exact permutation of axes, another spacing, another size.

The filter is Pillow's bilinear one: a triangle as wide as the reduction, so that nothing aliases, and linear
interpolation for enlargement. It works axis by axis in one thread and sums in float64, without a matrix library whose
sums depend on threads and processor, so training and serving get the same bits. SciPy's and MONAI's interpolation were
rejected: both pick single voxels when reducing, which is noise if a network of 128 rows sees a CT of 512.

Values, boxes and affines are channel first, as in `volumes`.
"""

import itertools
import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from PIL import Image

from sagemaker_monai.budget import lent, spend_bytes, spend_work
from sagemaker_monai.errors import UnsuitableImage
from sagemaker_monai.images.volumes import Volume, check_voxels

AXIS_LETTERS = ("LR", "PA", "IS")  # of the world's x, y and z: towards the lower and the higher end
_AT_ONCE = 1 << 20  # values given to Pillow
_NS_A_VOXEL = 8  # to read or write one while an axis is resized
SAME_SPACING_VOXELS = 0.01  # without resampling, the last voxel may be off by this much

Box = tuple[float, float]


def resize(values: np.ndarray, size: Sequence[int], boxes: Sequence[Box] | None = None) -> np.ndarray:
    """Bring planes or volumes to a size.

    Args:
        values: float32 (C, ...), in any memory order, with one more axis than `size` has entries.
        size: of the result, without channels.
        boxes: the part of each axis to use, in voxels from the outer edge of the first one. It may extend outside,
            where the voxels at the edge are repeated. None uses everything.

    Returns:
        float32 (C, *size), in the memory order of `values`.

    Raises:
        PayloadTooLarge: more values than `volumes.MAX_VOXELS`.
    """
    extents = values.shape[1:]
    boxes = [(0.0, float(extent)) for extent in extents] if boxes is None else boxes
    check_voxels(values.shape[0], *size)
    order = np.argsort([-abs(stride) for stride in values.strides], kind="stable")
    changed = changed_axes(extents, size, boxes)
    with lent(*_needed(values, order, size, changed)):
        stored = np.ascontiguousarray(values.transpose(order), np.float32)
        for axis in changed:
            stored = _resize_axis(stored, list(order).index(axis + 1), size[axis], boxes[axis])
    spend_bytes(stored.nbytes, f"{stored.size} resized values")
    return stored.transpose(np.argsort(order))


def _needed(values: np.ndarray, order: np.ndarray, size: Sequence[int], changed: Sequence[int]) -> tuple[int, str]:
    """The most bytes held at once beside `values`, and their description; counts the work as well."""
    is_view = values.dtype == np.float32 and values.transpose(order).flags.c_contiguous
    most, work_ns = resizing(values.shape, size, changed, copied_bytes=0 if is_view else 4 * values.size)
    spend_work(work_ns, f"{values.size} values to resize")
    return most, f"{values.size} values to resize to {' x '.join(map(str, size))}"


def changed_axes(extents: Sequence[int], size: Sequence[int], boxes: Sequence[Box]) -> list[int]:
    """The axes that `resize` works on, in its order; arguments as for `resize`."""
    # The axis that shrinks most comes first, so that no intermediate array is larger than both input and output.
    axes = sorted(range(len(size)), key=lambda axis: (size[axis] / extents[axis], axis))
    return [axis for axis in axes if size[axis] != extents[axis] or boxes[axis] != (0, extents[axis])]


def resizing(
    shape: Sequence[int], size: Sequence[int], changed: Sequence[int], *, copied_bytes: int = 0
) -> tuple[int, int]:
    """What `resize` takes.

    Args:
        shape: (C, ...) of the values.
        size: of the result, without channels.
        changed: from `changed_axes`.
        copied_bytes: of a copy of the values, where they are not contiguous float32.

    Returns:
        The most bytes held at once beside the values, and nanoseconds.
    """
    current = list(shape)
    most = before = copied_bytes
    work_ns = 0
    for axis in changed:
        old = math.prod(current)
        current[axis + 1] = size[axis]
        after = 4 * math.prod(current)
        work_ns += _NS_A_VOXEL * (old + math.prod(current))
        most, before = max(most, before + after), after
    return most, work_ns


def _resize_axis(values: np.ndarray, axis: int, size: int, box: Box) -> np.ndarray:
    extent = values.shape[axis]
    # A header may demand one voxel as large as a million of the old ones: anything beyond one length of the volume
    # would only add weight to its edges, and would need memory.
    box = (max(box[0], -float(extent)), min(box[1], 2.0 * extent))
    before, after = max(0, math.ceil(-box[0])), max(0, math.ceil(box[1] - extent))
    # Rounding may move a sum past the edge by its last bit, which Pillow refuses.
    padded = extent + before + after
    start, stop = max(box[0] + before, 0.0), min(box[1] + before, float(padded))
    outer, inner = math.prod(values.shape[:axis]), math.prod(values.shape[axis + 1 :])
    result = np.empty((*values.shape[:axis], size, *values.shape[axis + 1 :]), np.float32)
    if inner == 1:
        lines, made = values.reshape(outer, extent), result.reshape(outer, size)
        step = max(1, _AT_ONCE // max(padded, size))  # Pillow copies its input and its output
        for first in range(0, outer, step):
            part = lines[first : first + step]
            if before or after:
                part = np.pad(part, [(0, 0), (before, after)], "edge")
            image = Image.fromarray(part)
            rows = image.resize((size, len(part)), Image.Resampling.BILINEAR, box=(start, 0, stop, len(part)))
            made[first : first + step] = np.asarray(rows)
        return result
    planes, resized = values.reshape(outer, extent, inner), result.reshape(outer, size, inner)
    step = max(1, _AT_ONCE // max(padded, size))
    for plane, target in zip(planes, resized, strict=True):
        for first in range(0, inner, step):
            part = np.ascontiguousarray(plane[:, first : first + step])
            if before or after:
                part = np.pad(part, [(before, after), (0, 0)], "edge")
            width = part.shape[1]
            image = Image.fromarray(part)
            image = image.resize((width, size), Image.Resampling.BILINEAR, box=(0, start, width, stop))
            target[:, first : first + step] = np.asarray(image)
    return result


def crop_or_pad(values: np.ndarray, size: Sequence[int], fill: np.ndarray) -> np.ndarray:
    """Crop or pad each axis around its centre, as MONAI's `ResizeWithPadOrCrop` does.

    Args:
        values: (C, ...).
        size: of the result, without channels.
        fill: (C,), the values outside.
    """
    result = np.empty((values.shape[0], *size), values.dtype)
    result[:] = fill.reshape(-1, *[1] * len(size))
    source, target = [slice(None)], [slice(None)]
    for extent, side in zip(values.shape[1:], size, strict=True):
        if extent >= side:
            start = extent // 2 - side // 2
            source.append(slice(start, start + side))
            target.append(slice(None))
        else:
            start = (side - extent) // 2
            source.append(slice(None))
            target.append(slice(start, start + extent))
    result[tuple(target)] = values[tuple(source)]
    return result


def spacing_of(affine: np.ndarray) -> tuple[float, float, float]:
    """Distance of voxel centres along the three axes of a volume in mm."""
    w, h, d = np.linalg.norm(np.asarray(affine, np.float64)[:3, :3], axis=0)
    return float(w), float(h), float(d)


def check_affine(affine: np.ndarray) -> None:
    """Refuse an affine that is not finite or whose axes have no length or lie in one plane, with UnsuitableImage."""
    axes = np.asarray(affine, np.float64)[:3, :3]
    lengths = np.linalg.norm(axes, axis=0)
    if not np.isfinite(affine).all() or not (lengths > 0).all() or abs(np.linalg.det(axes / lengths)) < 1e-3:
        raise UnsuitableImage("the volume's geometry is broken: its axes have no length or lie in one plane")


def orientation_of(affine: np.ndarray, axcodes: str) -> list[tuple[int, bool]]:
    """How the axes of a volume are turned to run as asked as nearly as they can.

    Args:
        affine: (4, 4) of the volume.
        axcodes: where each axis of the result goes, such as "RAS": to the right, to anterior, to superior.

    Returns:
        For each axis of the result the axis of the volume, from 0, and whether it is flipped.

    Raises:
        UnsuitableImage: as `check_affine`.
    """
    check_affine(affine)
    axes = np.asarray(affine, np.float64)[:3, :3]
    cosines = axes / np.linalg.norm(axes, axis=0)  # [world axis, voxel axis]
    # The one of the six orders that fits best; with oblique volumes axis by axis could take one axis twice.
    of_world = max(
        itertools.permutations(range(3)), key=lambda order: sum(abs(cosines[w, v]) for w, v in enumerate(order))
    )
    turned = []
    for letter in axcodes:
        world = next(index for index, pair in enumerate(AXIS_LETTERS) if letter in pair)
        voxel = of_world[world]
        is_up = letter == AXIS_LETTERS[world][1]
        turned.append((voxel, bool((cosines[world, voxel] > 0) != is_up)))
    return turned


def reorient(volume: Volume, axcodes: str, *, is_owned: bool = False) -> Volume:
    """Permute and flip the axes of a volume to the closest orientation; no value changes.

    Args:
        volume: of any orientation.
        axcodes: direction of each axis, such as "RAS": right, anterior, superior.
        is_owned: nobody else needs the values, so they are reordered in place; otherwise the result is a view.

    Raises:
        UnsuitableImage: as `check_affine`.
    """
    turn = np.zeros((4, 4))
    turn[3, 3] = 1
    order, flips = [], []
    for axis, (voxel, is_flipped) in enumerate(orientation_of(volume.affine, axcodes)):
        order.append(voxel + 1)
        flips.append(slice(None, None, -1) if is_flipped else slice(None))
        turn[voxel, axis] = -1 if is_flipped else 1
        turn[voxel, 3] = volume.values.shape[voxel + 1] - 1 if is_flipped else 0
    values = volume.values.transpose(0, *order)[(slice(None), *flips)]
    if is_owned:
        values = _laid_out(values)
    return replace(volume, values=values, affine=np.asarray(volume.affine, np.float64) @ turn)


def _laid_out(values: np.ndarray) -> np.ndarray:
    """The same values in the same memory, reordered so that no axis runs backwards.

    Otherwise operations on lines and planes would copy the whole volume.
    """
    flipped = tuple(axis for axis, stride in enumerate(values.strides) if stride < 0 and values.shape[axis] > 1)
    if not flipped:
        return values
    memory = np.flip(values, flipped)  # in memory order
    outermost = int(np.argmax([stride if size > 1 else -1
                               for stride, size in zip(memory.strides, memory.shape, strict=True)]))  # fmt: skip
    inner = tuple(axis - (axis > outermost) for axis in flipped if axis != outermost)
    slabs = np.moveaxis(memory, outermost, 0)
    last = len(slabs) - 1
    for index in range(len(slabs)):
        other = last - index if outermost in flipped else index
        if other < index:
            break
        first = np.flip(slabs[index], inner).copy()
        if other != index:
            slabs[index] = np.flip(slabs[other], inner).copy() if inner else slabs[other]
        slabs[other] = first
    return memory


def grid_of_spacing(extents: Sequence[int], spacing: Sequence[float], wanted: Sequence[float]) -> list[tuple[int, Box]]:
    """Number of voxels and box of each axis that give exactly the wanted spacing around the same centre."""
    grid = []
    for extent, old, new in zip(extents, spacing, wanted, strict=True):
        if abs(old / new - 1) * extent < SAME_SPACING_VOXELS:
            grid.append((extent, (0.0, float(extent))))
            continue
        size = max(1, round(extent * old / new))
        half = size * new / old / 2
        grid.append((size, (extent / 2 - half, extent / 2 + half)))
    return grid


def resample(volume: Volume, spacing_mm: Sequence[float]) -> Volume:
    """Bring a volume to a spacing.

    Args:
        volume: of any spacing.
        spacing_mm: distance of the result's voxels along W, H and D.

    Returns:
        The volume on a grid of exactly this spacing with the same centre and, rounded to whole voxels, the same extent;
        edge voxels are repeated outside. An axis that already has the spacing stays as it is.

    Raises:
        UnsuitableImage: as `check_affine`.
        PayloadTooLarge: more values than `volumes.MAX_VOXELS`.
    """
    check_affine(volume.affine)
    grid = grid_of_spacing(volume.values.shape[1:], spacing_of(volume.affine), spacing_mm)
    sizes, boxes = [size for size, _ in grid], [box for _, box in grid]
    zoom = np.eye(4)
    for axis, (size, (start, stop)) in enumerate(grid):
        step = (stop - start) / size
        zoom[axis, axis] = step
        zoom[axis, 3] = start + step / 2 - 0.5  # the centre of the first voxel; voxel 0 reaches from -0.5 to 0.5
    affine = np.asarray(volume.affine, np.float64) @ zoom
    return replace(volume, values=resize(volume.values, sizes, boxes), affine=affine)
