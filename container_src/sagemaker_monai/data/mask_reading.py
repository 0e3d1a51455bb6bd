"""A mask to a label map on its image's grid: what `train` reads, and what `doctor` says of it without a plan."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from sagemaker_monai.data.entries import Image
from sagemaker_monai.data.legends import Legend
from sagemaker_monai.data.named_regions import read_named_regions
from sagemaker_monai.errors import DatasetError, PayloadTooLarge
from sagemaker_monai.images.expected import Expected, watching
from sagemaker_monai.images.pictures import upright_size
from sagemaker_monai.images.read import kind_of, read_frames_of, read_volumes_of
from sagemaker_monai.images.sample import Sample, Sequences
from sagemaker_monai.images.volumes import Traits
from sagemaker_monai.masks.mask import Grid, Parts
from sagemaker_monai.masks.read_mask import read_mask
from sagemaker_monai.preprocessing.preprocessing import Load
from sagemaker_monai.preprocessing.ways import labels_forth, with_size
from sagemaker_monai.storage.machine import memory_bytes
from sagemaker_monai.tasks.label_maps import IGNORED

_BYTES_OF_MASK = 6  # for each voxel of a mask: as read, as labels, and on the prepared grid


@dataclass(frozen=True)
class MaskOf:
    """A mask with its image.

    Attributes:
        image, mask: the files.
        legend: what the mask's values mean.
        annotators: what each of several annotators drew, by number.
        spatial_dims: of the data set, or None.
    """

    image: Image = field(repr=False)
    mask: Path | Parts = field(repr=False)
    legend: Legend
    spatial_dims: int | None = None
    annotators: Mapping[int, Path] = field(default_factory=dict, repr=False)


@dataclass(frozen=True)
class ReadCase:
    """An image and its mask.

    Attributes:
        values: (C, *shape), prepared.
        true: label map on the image's own grid.
        traits: what is known of the image, with its size.
        findings: of the mask.
    """

    values: np.ndarray
    true: NDArray[np.uint8]
    traits: Traits
    findings: tuple[str, ...]

    def prepared_labels(self, load: Load) -> NDArray[np.uint8]:
        """The label map on the prepared grid."""
        return np.ascontiguousarray(labels_forth(self.true, load.way(self.traits)), np.uint8)


def read_case(load: Load, sample: Sample, mask: Path | Parts, legend: Legend) -> ReadCase:
    """Read an image and its mask.

    Raises:
        CallerError: either cannot be read, or the mask does not lie on the image's grid or has values without a name;
            PayloadTooLarge, before it is decoded, if this machine's memory cannot hold it while it is prepared.
    """
    with watching(partial(_check_memory, load)):
        values, traits = load.pixels_of_one(sample)
    traits = with_size(sample, traits)
    true, findings = labels_on_grid(mask, Grid.of_traits(traits), legend)
    if (true == IGNORED).all():
        # It would count as an image without any structure in which nothing was wrong.
        raise DatasetError("nobody annotated anything in the mask: all of it is ignored; leave the image out")
    return ReadCase(values, true, traits, findings)


def _check_memory(load: Load, images: Sequence[Expected]) -> int:
    """Refuse an image that would not fit the memory, by its header; returns the bytes that it and its mask take."""
    needed = 0
    for image in images:
        needs, voxels = load.needs(image), math.prod(image.shape[1:])
        prepared = 4 * math.prod(needs.prepared) + math.prod(needs.prepared[1:])
        needed += max(needs.loading_bytes, prepared + _BYTES_OF_MASK * voxels)
    if needed > (memory := memory_bytes()):
        shape = " x ".join(map(str, images[0].shape[1:]))
        raise PayloadTooLarge(
            f"an image of {shape} takes {needed / 2**30:.1f} GiB while it is prepared, and the machine has "
            f"{memory / 2**30:.1f}: set a coarser spacing_mm, crop it, or take a machine with more memory"
        )
    return needed


def labels_on_grid(mask: Path | Parts, grid: Grid, legend: Legend) -> tuple[NDArray[np.uint8], tuple[str, ...]]:
    """The label map of a mask, of the grid's shape, and findings.

    Raises:
        CallerError: the mask cannot be read, does not lie on the grid, or has values without a name.
    """
    if legend.regions is not None and not legend.terms:
        found = read_named_regions(lambda wanted: read_mask(mask, grid, wanted=wanted, named=legend.numbers), legend)
        if found is not None:
            return found
    read = read_mask(mask, grid, wanted=legend.is_named, named=legend.numbers)
    labels, findings = legend.labels_of(read)
    return labels, read.findings + findings


def grid_of(image: Image, spatial_dims: int | None) -> Grid:
    """The grid of an image, of the first of several channels.

    Args:
        image: which.
        spatial_dims: 2 or 3 where the data set says so; else a volume of one slice is a single image.

    Raises:
        CallerError: it cannot be read.
    """
    first = image.channels[0] if isinstance(image, Sequences) else image
    if kind_of(first) == "picture":
        return Grid(upright_size(first))
    if spatial_dims != 2:
        volume = read_volumes_of(Sample(first), non_finite="zero")[0]
        if spatial_dims == 3 or volume.values.shape[3] > 1:
            return Grid.of(volume)
    return Grid.of(read_frames_of(Sample(first))[0])
