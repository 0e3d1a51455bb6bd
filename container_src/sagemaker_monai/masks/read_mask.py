"""One file to a mask on its image's grid, whatever its format. The content decides which reader is called."""

from collections.abc import Callable, Collection, Mapping
from functools import partial
from pathlib import Path

from sagemaker_monai.images.read import DICOM_FORMAT, kind_of
from sagemaker_monai.masks.mask import Grid, Mask, Parts
from sagemaker_monai.masks.mask_parts import read_parts
from sagemaker_monai.masks.same_grid import MOST_MM
from sagemaker_monai.masks.structure_files import is_structure_folder, read_structure_files

THRESHOLD = 0.5  # of fractions


def read_mask(
    source: Path | Parts,
    grid: Grid,
    *,
    threshold: float = THRESHOLD,
    tolerance_mm: float = MOST_MM,
    wanted: Callable[[str], bool] | None = None,
    colours: Mapping[tuple[int, int, int], int] | None = None,
    named: Collection[int] = (),
) -> Mask:
    """Read a mask.

    Args:
        source: DICOM SEG or RTSTRUCT (or a folder or archive with one), NIfTI, Analyze, NRRD (also .seg.nrrd),
            MetaImage, NumPy, or a picture that is not lossy; or a folder with a volume file for each structure; or
            several of these that are parts of one mask.
        grid: of its image.
        threshold: of a DICOM SEG of fractions, the one from which a voxel belongs to the structure; above 0, at most 1.
        tolerance_mm: how far its corners may lie from the image's, beside a tenth of a voxel.
        wanted: of a file that names its structures, says by the name which are read; the others are left out before
            anything is said of overlaps. None reads all.
        colours: of a picture in colour, the value of each (red, green, blue).
        named: values that have a name, so that white is no other way to write 1 where it is one of them.

    Raises:
        UndecodableImage: broken bytes, or a file that cannot be read.
        UnsuitableImage: no mask, or none of this image.
        PayloadTooLarge: more than the limits.
    """
    assert 0 < threshold <= 1
    if isinstance(source, Parts):
        read = partial(
            read_mask, grid=grid, threshold=threshold, tolerance_mm=tolerance_mm, wanted=wanted, colours=colours,
            named=named,
        )  # fmt: skip
        return read_parts([partial(read, file) for file in source.files])
    if is_structure_folder(source):
        return read_structure_files(source, grid, wanted=wanted, tolerance_mm=tolerance_mm)
    kind = kind_of(source)
    if kind == DICOM_FORMAT:
        from sagemaker_monai.masks.dicom_masks import read_dicom_mask

        return read_dicom_mask(source, grid, threshold=threshold, tolerance_mm=tolerance_mm, wanted=wanted)
    if kind == "picture":
        from sagemaker_monai.masks.mask_pictures import read_picture_mask

        return read_picture_mask(source, grid, colours=colours, named=named)
    from sagemaker_monai.masks.mask_volumes import read_volume_mask

    return read_volume_mask(source, kind, grid, wanted=wanted, tolerance_mm=tolerance_mm)
