"""What a mask is once it is read, and the grid of the image that it has to lie on."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from sagemaker_monai.images.volumes import Frame, Identity, Traits, Volume

MOST_VALUE = (1 << 16) - 1


@dataclass(frozen=True)
class Grid:
    """Where the voxels of an image are.

    Attributes:
        shape: (W, H) or (W, H, D), as `volumes` has it.
        affine: float64 (4, 4) from voxel indices (w, h, d, 1) to mm, RAS; of a single slice the third column is its
            normal, one thickness long. None where the image has no geometry.
        identity: of a DICOM image, with its headers; None for other files.
    """

    shape: tuple[int, ...]
    affine: np.ndarray | None = None
    identity: Identity | None = field(default=None, repr=False)

    @classmethod
    def of(cls, image: Frame | Volume) -> "Grid":
        """The grid of an image; of a frame of a DICOM file the place is taken from its header."""
        shape = tuple(image.values.shape[1:])
        if isinstance(image, Volume):
            affine = np.asarray(image.affine, np.float64) if image.has_geometry else None
            return cls(shape, affine, image.identity)
        return cls(shape, _affine_of_slice(image.identity), image.identity)

    @classmethod
    def of_traits(cls, traits: Traits) -> "Grid":
        """The grid of an image by its traits, whose size is known; as `of`."""
        affine = traits.affine
        if affine is None and len(traits.size) == 2:
            affine = _affine_of_slice(traits.identity)
        return cls(traits.size, affine, traits.identity)

    @property
    def sizes(self) -> tuple[int, int, int]:
        """The shape with three axes."""
        width, height, depth = (*self.shape, 1)[:3]
        return width, height, depth


@dataclass(frozen=True)
class Parts:
    """A mask in several files of one image (`7_mask.png`, `7_mask_1.png`), laid together one mask."""

    files: tuple[Path, ...]


@dataclass(frozen=True)
class Mask:
    """A mask on its image's grid.

    Attributes:
        values: uint16 of the grid's shape, in the image's order of axes; 0 is nothing.
        names: what the file itself calls its values; empty where it does not say.
        left_out: names in the file of structures that were not wanted.
        findings: codes of `messages.remarks` of what was odd and read all the same.
    """

    values: np.ndarray
    names: Mapping[int, str] = field(default_factory=dict)
    findings: tuple[str, ...] = ()
    left_out: tuple[str, ...] = ()


def _affine_of_slice(identity: Identity | None) -> np.ndarray | None:
    if identity is None or not identity.headers:
        return None
    from pydicom import Dataset

    from sagemaker_monai.images.dicom.geometry import affine_of, normal_of
    from sagemaker_monai.images.dicom.planes import planes_of

    header = identity.headers[0]
    assert isinstance(header, Dataset)
    planes = planes_of(header)
    frame = (identity.frame or 1) - 1
    plane = planes[frame] if frame < len(planes) else None
    if plane is None or plane.position is None or plane.orientation is None or plane.spacing is None:
        return None
    step = normal_of(plane.orientation) * (plane.thickness or 1.0)
    return affine_of(plane.orientation, plane.spacing, plane.position, step)
