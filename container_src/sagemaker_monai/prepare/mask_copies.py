"""Masks as they are written to a data set: label maps on the grid of their image, with the values of its `labels`.

Only voxels and their place are written, so nothing else that a mask's file says can travel: names, dates, drawings of
other structures. Each file is read back as `train` reads it, and has to give the same labels.
"""

import io
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from sagemaker_monai.data.legends import Legend
from sagemaker_monai.data.mask_reading import labels_on_grid
from sagemaker_monai.errors import UnsuitableImage
from sagemaker_monai.images.dicom.headers import read_up_to_pixels
from sagemaker_monai.images.dicom.media import Instance
from sagemaker_monai.images.formats.nifti_labels import encode_labels
from sagemaker_monai.masks.dicom_masks import read_mask_object
from sagemaker_monai.masks.mask import Grid
from sagemaker_monai.masks.overlaps import Overlaps, lay, refuse_overlaps
from sagemaker_monai.masks.read_mask import THRESHOLD
from sagemaker_monai.masks.same_grid import MOST_MM
from sagemaker_monai.tasks.label_maps import IGNORED

VOLUME, PICTURE = ".nii.gz", ".png"  # suffixes of label maps


@dataclass(frozen=True)
class LabelMap:
    """The masks of one image.

    Attributes:
        labels: uint8 of the grid's shape; 0 for the background, i + 1 for the i-th structure, or `IGNORED`.
        findings: codes of what was odd.
    """

    labels: NDArray[np.uint8]
    findings: tuple[str, ...] = ()

    def present(self, legend: Legend) -> tuple[str, ...]:
        """The structures that it shows."""
        occurs = np.bincount(self.labels.ravel(), minlength=IGNORED + 1) > 0
        return tuple(name for label, name in enumerate(legend.names, start=1) if occurs[label])


def read_objects(masks: Sequence[Instance], grid: Grid, legend: Legend) -> LabelMap:
    """Read the DICOM masks of one image into one label map.

    Args:
        masks: SEG and RTSTRUCT, each with other structures.
        grid: of the image.
        legend: of the data set; other structures are left out.

    Raises:
        UndecodableImage, PayloadTooLarge: broken, or more than the limits.
        UnsuitableImage: not of this image, on another grid, or structures overlap.
        DatasetError: values without a name.
    """
    joined = np.zeros(grid.shape, np.uint16)
    overlaps: Overlaps = Overlaps()
    findings: list[str] = []
    for each in masks:
        header, pixels_at = read_up_to_pixels(each.source)
        instance = replace(each, header=header, pixels_at=pixels_at)
        mask = read_mask_object(instance, grid, threshold=THRESHOLD, tolerance_mm=MOST_MM, wanted=legend.is_named)
        labels, odd = legend.labels_of(mask)
        lay(joined, labels.astype(np.uint16), overlaps)
        findings += [*mask.findings, *odd]
    refuse_overlaps(overlaps, dict(enumerate(legend.names, start=1)))
    return LabelMap(joined.astype(np.uint8), tuple(dict.fromkeys(findings)))


def store_label_map(labels: LabelMap, path: Path, grid: Grid, legend: Legend) -> int:
    """Write a label map, and read it back.

    Args:
        labels: of the grid.
        path: with one of the suffixes above; its folder must exist.
        grid: of the image.
        legend: of the data set.

    Returns:
        The size of the file in bytes.

    Raises:
        UnsuitableImage: the file would not give the same labels.
    """
    values = np.zeros(IGNORED + 1, np.uint8)
    values[1 : len(legend.values) + 1] = legend.values
    values[IGNORED] = legend.ignored or 0
    stored = values[labels.labels]
    path.write_bytes(
        _png(stored) if path.name.endswith(PICTURE) else encode_labels(stored, grid.affine, is_packed=True)
    )
    back, _ = labels_on_grid(path, grid, legend)
    if not np.array_equal(back, labels.labels):
        raise UnsuitableImage("the mask does not give the same labels once it is written; save it as NIfTI or PNG")
    return path.stat().st_size


def _png(values: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(values.T)).save(buffer, "PNG")
    return buffer.getvalue()
