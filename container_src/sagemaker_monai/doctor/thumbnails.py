"""Small pictures of images, as a viewer shows them, for the contact sheet."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from nibabel import orientations
from PIL import Image

from sagemaker_monai.data.mask_reading import MaskOf, grid_of, labels_on_grid
from sagemaker_monai.doctor.found_files import DICOM, PICTURE
from sagemaker_monai.errors import CallerError
from sagemaker_monai.images.dicom.grouping import group_series
from sagemaker_monai.images.dicom.headers import File
from sagemaker_monai.images.dicom.media import instance_of
from sagemaker_monai.images.dicom.pixels import apply_display, read_frames
from sagemaker_monai.images.dicom.series import read_series
from sagemaker_monai.images.pictures import count_bits, decode
from sagemaker_monai.images.sample import Sample
from sagemaker_monai.images.volume_files import read_volume_file
from sagemaker_monai.images.volumes import Display, Volume
from sagemaker_monai.preprocessing.deep_pictures import read_deep_frame, shown_deep
from sagemaker_monai.preprocessing.shown import grey_bytes, in_range, shown_grey
from sagemaker_monai.tasks.mask_colours import drawn_over, palette

SIDE = 128  # pixels
PERCENTILES = (0.5, 99.5)  # of a volume without a window in its header
MAX_STACK_VOXELS = 1 << 27  # 512 x 512 x 512; of larger stacks only the middle slice is decoded


@dataclass(frozen=True)
class Picture:
    """What to show: the files of one image, all of one kind.

    Attributes:
        paths: files; several are the slices of one series.
        kind: see `found_files.Found`.
        voxels: of the whole image, by its headers.
        mask: of it, whose structures are drawn in colours, or None.
    """

    paths: tuple[Path, ...] = field(repr=False)
    kind: str
    voxels: int
    mask: MaskOf | None = None


def draw(picture: Picture) -> np.ndarray | None:
    """Draw an image, (SIDE, SIDE, 3) uint8, a volume in three planes; None if it cannot be read."""
    try:
        labels = _labels_of(picture.mask)
        if picture.kind == PICTURE and count_bits(picture.paths[0]) > 8:
            return _fitted([_coloured(shown_deep(read_deep_frame(Sample(picture.paths[0]))), labels)])
        if picture.kind == PICTURE:
            pixels = np.asarray(decode(Sample(picture.paths[0]), channels=3, min_size=(SIDE, SIDE)))
            return _fitted([_coloured(pixels, labels)])
        if picture.kind != DICOM:
            return _of_volume(read_volume_file(picture.paths[0], non_finite="zero"), labels)
        if picture.voxels > MAX_STACK_VOXELS:
            return _of_file(picture.paths[len(picture.paths) // 2])
        return _of_stack(picture.paths, labels)
    except Exception:  # one picture less on the sheet
        return None


def _of_file(source: File) -> np.ndarray:
    frames = read_frames(source)
    frame = frames[len(frames) // 2]
    return _fitted([_shown(frame.values, frame.display)])


def _of_stack(paths: Sequence[Path], labels: np.ndarray | None = None) -> np.ndarray:
    stacks = [stack for stack in group_series([instance_of(path) for path in paths]) if stack.slices]
    stack = max(stacks, key=lambda each: len(each.slices))
    if len(stack.slices) == 1:
        return _of_file(paths[0])
    try:
        return _of_volume(read_series(stack), labels)
    except CallerError:  # not a volume, but it has a middle slice
        return _of_file(stack.slices[len(stack.slices) // 2].instance.source)


def _of_volume(volume: Volume, labels: np.ndarray | None = None) -> np.ndarray:
    values = volume.values[:1]  # (1, W, H, D) of the first channel
    if labels is None or labels.size != values.size:
        labels = np.zeros(values.shape[1:], np.uint8)
    labels = labels.reshape(1, *values.shape[1:])
    if values.shape[3] == 1:
        return _fitted([_coloured(_shown(values[..., 0], volume.display), labels[0, ..., 0])])
    spacing = np.linalg.norm(np.asarray(volume.affine, np.float64)[:3, :3], axis=0)
    if volume.has_geometry:  # axes to the left, back and head, as in viewers
        values, turn = _to_patient(values, volume.affine)
        labels, _ = _to_patient(labels, volume.affine)
        spacing = spacing[np.argsort(turn[:, 0])]
    _, columns, rows, slices = values.shape
    display = volume.display
    if display.voi is None:  # with the whole range, one bright vessel would leave the rest dark
        low, high = np.percentile(values, PERCENTILES)
        display = in_range(display, float(low), float(high))
    shown = apply_display(values, display)
    column, row, level = columns // 2, rows // 2, slices // 2
    if (there := labels[0] > 0).any():  # the planes that show most of the structures
        column, row, level = (int(there.sum(axis=others).argmax()) for others in ((1, 2), (0, 2), (0, 1)))
    planes = (
        ((slice(None), slice(None), slice(None), level), spacing[1] / spacing[0]),
        ((slice(None), slice(None), row, slice(None, None, -1)), spacing[2] / spacing[0]),
        ((slice(None), column, slice(None), slice(None, None, -1)), spacing[2] / spacing[1]),
    )
    pictures = [_coloured(grey_bytes(shown[plane]), labels[plane][0]) for plane, _ in planes]
    return _fitted(pictures, [float(aspect) for _, aspect in planes])


def _labels_of(mask: MaskOf | None) -> np.ndarray | None:
    """The label map (W, H) or (W, H, D), or None if it cannot be read."""
    if mask is None:
        return None
    try:
        return labels_on_grid(mask.mask, grid_of(mask.image, mask.spatial_dims), mask.legend)[0]
    except CallerError:  # the image is shown all the same
        return None


def _coloured(pixels: np.ndarray, labels: np.ndarray | None) -> np.ndarray:
    """(H, W, 3) bytes with the structures of a label map (W, H) in colours; the map may have another size."""
    if labels is None or labels.ndim != 2 or not labels.any():
        return pixels
    size = (pixels.shape[1], pixels.shape[0])
    shown = np.asarray(Image.fromarray(np.ascontiguousarray(labels.T)).resize(size, Image.Resampling.NEAREST))
    return drawn_over(pixels, shown.T, palette(), has_outline=False)


def _to_patient(values: np.ndarray, affine: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Turn (1, W, H, D) by right angles so that axes grow to LPS; and where each axis went (3, 2)."""
    nibabel: Any = orientations  # without types
    turn = nibabel.ornt_transform(nibabel.io_orientation(affine), nibabel.axcodes2ornt(tuple("LPS")))
    return nibabel.apply_orientation(values[0], turn)[None], turn


def _shown(values: np.ndarray, display: Display) -> np.ndarray:
    """(C, W, H) of a frame to (H, W, 3) bytes."""
    return values.transpose(2, 1, 0) if values.shape[0] == 3 else shown_grey(values, display)


def _fitted(pictures: Sequence[np.ndarray], aspects: Sequence[float] = ()) -> np.ndarray:
    """One picture, or three in a square of four, each shrunk into its place with its pixels' aspect kept."""
    canvas = Image.new("RGB", (SIDE, SIDE))
    side = SIDE if len(pictures) == 1 else SIDE // 2
    places = [(0, 0), (side, 0), (0, side)]
    for pixels, place, aspect in zip(pictures, places, aspects or [1.0] * len(pictures), strict=False):
        image = Image.fromarray(np.ascontiguousarray(pixels), "RGB")
        height = image.height * (aspect if np.isfinite(aspect) and 0.05 < aspect < 20 else 1.0)
        scale = side / max(image.width, height)
        size = (max(1, round(image.width * scale)), max(1, round(height * scale)))
        image = image.resize(size, Image.Resampling.BOX if scale < 1 else Image.Resampling.BILINEAR)
        canvas.paste(image, (place[0] + (side - size[0]) // 2, place[1] + (side - size[1]) // 2))
    return np.asarray(canvas)
