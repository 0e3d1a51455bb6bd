"""The one DICOM object with a mask that a file, a folder or an archive holds, given to the reader of its kind."""

from collections.abc import Callable
from pathlib import Path

from sagemaker_monai.errors import UnsuitableImage
from sagemaker_monai.images.dicom.elements import has_value, text_of
from sagemaker_monai.images.dicom.objects import subject_of
from sagemaker_monai.images.dicom.whole import whole_instances
from sagemaker_monai.masks.dicom_seg import read_seg
from sagemaker_monai.masks.mask import Grid, Mask
from sagemaker_monai.masks.rtstruct import read_rtstruct


def read_dicom_mask(
    source: Path, grid: Grid, *, threshold: float, tolerance_mm: float, wanted: Callable[[str], bool] | None
) -> Mask:
    """Read a DICOM SEG or RTSTRUCT.

    Args:
        source: a file; or a folder or an archive with one mask, perhaps beside its image.
        grid, threshold, tolerance_mm, wanted: as of `read_mask`.

    Raises:
        UndecodableImage, PayloadTooLarge: broken, or more than the limits.
        UnsuitableImage: none or several masks, one of a kind that is not read, or none of this image.
    """
    masks = [each for each in whole_instances(source) if subject_of(each).kind in ("mask", "contours")]
    if len(masks) != 1:
        raise UnsuitableImage(
            f"{len(masks)} DICOM masks (SEG or RTSTRUCT) where one is meant; name one file of its kind"
        )
    [instance] = masks
    if instance.header is not None and has_value(instance.header, "StructureSetROISequence"):
        return read_rtstruct(instance, grid, tolerance_mm=tolerance_mm, wanted=wanted)
    if instance.header is None or not text_of(instance.header, "SegmentationType"):
        raise UnsuitableImage("a DICOM object that is a mask, but no SEG of pixels or RTSTRUCT; export one of them")
    return read_seg(instance, grid, threshold=threshold, tolerance_mm=tolerance_mm, wanted=wanted)
