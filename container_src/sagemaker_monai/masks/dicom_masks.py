"""DICOM objects with masks: what the header of one claims, before voxels are looked at, and the reader of its kind."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from pydicom import Dataset
from pydicom.uid import RTStructureSetStorage

from sagemaker_monai.errors import UnsuitableImage
from sagemaker_monai.images.dicom.elements import has_value, text_of
from sagemaker_monai.images.dicom.headers import refusing
from sagemaker_monai.images.dicom.media import Instance
from sagemaker_monai.images.dicom.objects import subject_of
from sagemaker_monai.images.dicom.whole import whole_instances
from sagemaker_monai.masks.dicom_seg import labels_of, read_seg, references_of_seg
from sagemaker_monai.masks.mask import Grid, Mask
from sagemaker_monai.masks.mask_references import References
from sagemaker_monai.masks.rtstruct import drawn_structures, read_rtstruct, references_of_structures

_BROKEN = "the DICOM mask is broken; export it again"


@dataclass(frozen=True)
class Contents:
    """What a DICOM mask says that it holds.

    Attributes:
        structures: SegmentLabel, or ROIName of what is drawn; "" where there is none.
        references: what it was drawn on.
    """

    structures: tuple[str, ...]
    references: References


def is_mask(instance: Instance) -> bool:
    """Whether a DICOM object is a mask, by SOP class and Modality; of a kind that is read or not."""
    return subject_of(instance).kind in ("mask", "contours")


def contents_of(header: Dataset) -> Contents:
    """What a DICOM mask holds, by its header alone.

    Raises:
        UndecodableImage: broken.
        UnsuitableImage: of a kind that is not read.
    """
    with refusing(_BROKEN):
        if _is_structure_set(header):
            return Contents(drawn_structures(header), references_of_structures(header))
        return Contents(tuple(labels_of(header).values()), references_of_seg(header))


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
    masks = [each for each in whole_instances(source) if is_mask(each)]
    if len(masks) != 1:
        raise UnsuitableImage(
            f"{len(masks)} DICOM masks (SEG or RTSTRUCT) where one is meant; name one file of its kind"
        )
    return read_mask_object(masks[0], grid, threshold=threshold, tolerance_mm=tolerance_mm, wanted=wanted)


def read_mask_object(
    instance: Instance, grid: Grid, *, threshold: float, tolerance_mm: float, wanted: Callable[[str], bool] | None
) -> Mask:
    """Read the mask of a DICOM object, with its header; as `read_dicom_mask`."""
    assert instance.header is not None
    if _is_structure_set(instance.header):
        return read_rtstruct(instance, grid, tolerance_mm=tolerance_mm, wanted=wanted)
    return read_seg(instance, grid, threshold=threshold, tolerance_mm=tolerance_mm, wanted=wanted)


def _is_structure_set(header: Dataset) -> bool:
    """Whether a mask is an RTSTRUCT; else it is a SEG.

    Raises:
        UnsuitableImage: it is neither.
    """
    if has_value(header, "StructureSetROISequence"):
        return True
    if text_of(header, "SOPClassUID") == RTStructureSetStorage:
        raise UnsuitableImage("the structure set has no structures (StructureSetROISequence); export it again")
    if not text_of(header, "SegmentationType"):
        raise UnsuitableImage("a DICOM object that is a mask, but no SEG of pixels or RTSTRUCT; export one of them")
    return False
