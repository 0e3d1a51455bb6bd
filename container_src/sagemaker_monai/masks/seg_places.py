"""The slice of an image on which a frame of a segmentation lies, by its position, or by the slice that it names.

A frame has a position and an orientation, and mostly names the image that it was drawn on. Position decides, and a name
that contradicts it is refused: one of the two is wrong, and nobody can tell which. A frame without a position, as of
radiographs, is placed by the name alone. Frames may be stored with other axes than the image, as long as they lie voxel
on voxel.
"""

from dataclasses import dataclass

import numpy as np
from pydicom import Dataset

from sagemaker_monai.errors import UndecodableImage, UnsuitableImage
from sagemaker_monai.images.dicom.elements import FrameHeader, items, numbers, text_of
from sagemaker_monai.images.dicom.geometry import affine_of, normal_of
from sagemaker_monai.images.dicom.planes import Plane
from sagemaker_monai.masks.mask import Grid
from sagemaker_monai.masks.mask_references import slice_uids
from sagemaker_monai.masks.same_grid import is_small

_OTHER_PLACE = "resample the mask to the image with nearest neighbour, or take the image that it was drawn on"
Sources = dict[str, tuple[float, ...]]  # numbers of frames by SOPInstanceUID
_BESIDE = 0.5  # of a thickness from a single slice: a frame further off is of another slice


@dataclass(frozen=True)
class Place:
    """Where a frame lies in an image.

    Attributes:
        axes: the image's axes along the frame's rows, down its columns, and across.
        flips: whether the frame counts the first two from the other end.
        index: along the third.
    """

    axes: tuple[int, int, int]
    flips: tuple[bool, bool]
    index: int

    def slab(self, values: np.ndarray) -> np.ndarray:
        """The view of (W, H, D) that the frame's values (columns, rows) belong into."""
        steps = [slice(None, None, -1 if is_flipped else 1) for is_flipped in self.flips]
        slab: np.ndarray = values.transpose(self.axes)[steps[0], steps[1], self.index]
        return slab


def sources_of(header: FrameHeader, known: dict[int, Sources]) -> Sources:
    """What a frame names as its source.

    Args:
        header: of the frame.
        known: of groups by their `id`, so that what all frames share is looked at once; changed.
    """
    for group in header.groups:
        if id(group) not in known:
            known[id(group)] = sources_in(group)
    return {uid: frames for group in header.groups for uid, frames in known[id(group)].items()}


def place_of(named: Sources, plane: Plane, size: tuple[int, int], grid: Grid, tolerance_mm: float) -> Place | None:
    """Find the place of a frame.

    Args:
        named: what the frame names as its source.
        plane: of the frame.
        size: columns and rows.
        grid: of the image.
        tolerance_mm: as of `same_grid.on_grid`.

    Returns:
        The place, whose index may lie beyond the image's slices; None for a frame beside an image of one slice.

    Raises:
        UndecodableImage: an invalid position.
        UnsuitableImage: the frame lies on no slice, or on another one than it names, or says neither.
    """
    if plane.is_invalid:
        raise UndecodableImage(plane.fault or "a frame of the segmentation has an impossible place; export it again")
    if plane.position is None or grid.affine is None:
        return _by_name(named, size, grid)
    place = _by_position(plane, size, grid, tolerance_mm)
    _check_name(named, place, grid)
    return place


def sources_in(group: Dataset) -> Sources:
    """What a functional group names as the source of its frames."""
    found: Sources = {}
    for derivation in items(group, "DerivationImageSequence"):
        for source in items(derivation, "SourceImageSequence"):
            if uid := text_of(source, "ReferencedSOPInstanceUID"):
                found[uid] = (*found.get(uid, ()), *numbers(source, "ReferencedFrameNumber"))
    return found


def _by_name(named: Sources, size: tuple[int, int], grid: Grid) -> Place | None:
    uids, frame = slice_uids(grid), None if grid.identity is None else grid.identity.frame
    if not named or not uids:
        raise UnsuitableImage(
            "a frame of the segmentation has no position, or its image none, and it names no slice of it; "
            "export it with positions"
        )
    indices = [index for index, uid in enumerate(uids) if uid in named]
    if frame is not None:  # one frame of a file with several
        indices = [index for index in indices if frame in named[uids[index]]]
    if len(indices) > 1:
        raise UnsuitableImage("a frame of the segmentation has no position and names several slices; export it again")
    if not indices:
        if len(grid.shape) == 2:
            return None
        raise UnsuitableImage("a frame of the segmentation names no slice of this image; take the image of the mask")
    if size != grid.sizes[:2]:
        raise UnsuitableImage(
            f"a frame of the segmentation has {size[0]} x {size[1]} pixels and its image {grid.sizes[0]} x "
            f"{grid.sizes[1]}; {_OTHER_PLACE}"
        )
    return Place((0, 1, 2), (False, False), indices[0])


def _by_position(plane: Plane, size: tuple[int, int], grid: Grid, tolerance_mm: float) -> Place | None:
    assert plane.position is not None
    assert plane.orientation is not None
    assert plane.spacing is not None
    assert grid.affine is not None
    frame = affine_of(plane.orientation, plane.spacing, plane.position, normal_of(plane.orientation))
    turn = np.linalg.inv(grid.affine) @ frame  # from the frame's pixels to the image's voxels
    first, second = (int(np.abs(turn[:3, column]).argmax()) for column in (0, 1))
    axes = (first, second, 3 - first - second)
    if first == second or (grid.sizes[first], grid.sizes[second]) != size:
        raise UnsuitableImage(
            f"a frame of the segmentation has {size[0]} x {size[1]} pixels and lies in no slice of the image of "
            f"{' x '.join(map(str, grid.sizes))} voxels; {_OTHER_PLACE}"
        )
    flips = bool(turn[first, 0] < 0), bool(turn[second, 1] < 0)
    ends = np.array([size[0] - 1, size[1] - 1])
    corners = np.array([ends * corner for corner in np.ndindex(2, 2)])  # (4, 2) pixels of the frame
    found = corners @ turn[:3, :2].T + turn[:3, 3]  # (4, 3) voxels of the image
    expected = np.empty_like(found)
    expected[:, [first, second]] = np.where(flips, ends - corners, corners)
    across = float(found[:, axes[2]].mean())
    index = round(across)
    is_single = len(grid.shape) == 2
    if is_single and abs(across) >= _BESIDE:
        expected[:, axes[2]] = across  # of another slice; but it has to be parallel
    else:
        expected[:, axes[2]] = index
    shift = found - expected
    shift_mm = shift @ grid.affine[:3, :3].T
    if not is_small(shift, shift_mm, tolerance_mm):
        most = np.linalg.norm(shift_mm, axis=1).max()
        raise UnsuitableImage(
            f"a frame of the segmentation lies up to {most:.3g} mm from the nearest slice of the image; {_OTHER_PLACE}"
        )
    return None if is_single and abs(across) >= _BESIDE else Place(axes, flips, index)


def _check_name(named: Sources, place: Place | None, grid: Grid) -> None:
    """Refuse a frame that names slices, and not the one that it lies on."""
    uids = slice_uids(grid)
    if not named or not uids:
        return
    if place is None:
        frame = None if grid.identity is None else grid.identity.frame
        is_other = uids[0] in named and (frame is None or frame in named[uids[0]])
    elif place.axes[2] != 2 or not 0 <= place.index < len(uids):
        is_other = not set(uids) & set(named)
    else:
        is_other = uids[place.index] not in named
    if is_other:
        raise UnsuitableImage(
            "a frame of the segmentation lies on another slice of the image than it names; export it again, or take "
            "the image that it was drawn on"
        )
