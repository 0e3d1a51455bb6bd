"""A folder with one file for each structure, named as it: `segmentations/liver.nii.gz`, as of TotalSegmentator.

Any number but 0 is the structure. Files that are not volumes are ignored.
"""

from collections.abc import Callable
from pathlib import Path

import numpy as np

from sagemaker_monai.budget import spend_bytes
from sagemaker_monai.errors import UnsuitableImage
from sagemaker_monai.images.read import kind_of
from sagemaker_monai.images.suffixes import VOLUME_SUFFIXES
from sagemaker_monai.masks.mask import Grid, Mask
from sagemaker_monai.masks.mask_values import values_in
from sagemaker_monai.masks.mask_volumes import read_volume_mask
from sagemaker_monai.masks.overlaps import Overlaps, lay, refuse_overlaps
from sagemaker_monai.messages.shortened import some_of
from sagemaker_monai.storage.files import files_in

_SUFFIXES = tuple(sorted(VOLUME_SUFFIXES, key=lambda suffix: (-len(suffix), suffix)))


def structure_of(path: Path) -> str:
    """The structure that a file of a volume is named as; "" for other files."""
    lower = path.name.lower()
    suffix = next((suffix for suffix in _SUFFIXES if lower.endswith(suffix)), "")
    return path.name[: len(path.name) - len(suffix)] if suffix else ""


def is_structure_folder(source: Path) -> bool:
    """Whether it is a folder with files of volumes, not of a DICOM series."""
    return source.is_dir() and any(structure_of(path) for path in files_in(source))


def read_structure_files(
    folder: Path, grid: Grid, *, wanted: Callable[[str], bool] | None, tolerance_mm: float
) -> Mask:
    """Read the files of a folder as one mask that names its structures.

    Args:
        folder: the files.
        grid: of the image.
        wanted, tolerance_mm: as of `read_mask`; unwanted files are not opened.

    Raises:
        UndecodableImage, PayloadTooLarge: as `read_volume_mask`.
        UnsuitableImage: as that, a file with several values, two files of one name, structures that overlap.
    """
    files = [(structure_of(path), path) for path in files_in(folder) if structure_of(path)]
    names = [name for name, _ in files]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise UnsuitableImage(f"the mask has several files of one structure ({some_of(twice)}); keep one of each")
    chosen = [(name, path) for name, path in files if wanted is None or wanted(name)]
    spend_bytes(2 * int(np.prod(grid.shape)), "a mask of several files")
    joined = np.zeros(grid.shape, np.uint16)
    overlaps: Overlaps = Overlaps()
    findings: list[str] = []
    for number, (name, path) in enumerate(chosen, start=1):
        try:
            part = read_volume_mask(path, kind_of(path), grid, wanted=None, tolerance_mm=tolerance_mm)
        except UnsuitableImage as error:
            raise UnsuitableImage(f"structure {name}: {error}") from error
        if len([value for value in values_in(part.values) if value]) > 1:
            raise UnsuitableImage(f"structure {name}: the file has several values; write one file for each structure")
        lay(joined, np.where(part.values != 0, np.uint16(number), np.uint16(0)), overlaps)
        findings += part.findings
    known = {number: name for number, (name, _) in enumerate(chosen, start=1)}
    refuse_overlaps(overlaps, known)
    left_out = tuple(name for name in names if name not in known.values())
    return Mask(joined, known, tuple(dict.fromkeys(findings)), left_out)
