"""Whether a DICOM mask is of this image: what it refers to, against the image's own header.

Positions alone prove nothing. The phases of a contrast study, the echoes of an MR and the same patient a month later
have slices in the same places, and a mask of one lies well on the other. So a mask has to share the image's frame of
reference where both name one, and to name the image's series, or slices of it, where it names any at all. A mask that
names none is believed by its frame of reference, which is said; without either it is refused.

An image that is not DICOM (such as converted NIfTI) has only its geometry to compare, which is reported too.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from pydicom import Dataset

from sagemaker_monai.errors import UnsuitableImage
from sagemaker_monai.images.dicom.elements import items, text_of
from sagemaker_monai.masks.mask import Grid

_REMEDY = "take the mask that was drawn on this series, or the series that the mask names"


@dataclass(frozen=True)
class References:
    """What a mask refers to.

    Attributes:
        frames_of_reference: FrameOfReferenceUID.
        series: SOPInstanceUIDs by SeriesInstanceUID, none where only the series is named; under "" those of images
            whose series is not named.
    """

    frames_of_reference: frozenset[str]
    series: Mapping[str, frozenset[str]] = field(default_factory=dict)

    @classmethod
    def of(
        cls, frames_of_reference: Iterable[str], series: Iterable[Dataset], instances: str, images: Iterable[str] = ()
    ) -> "References":
        """From items with a SeriesInstanceUID and a sequence of that keyword with ReferencedSOPInstanceUIDs.

        Args:
            frames_of_reference: FrameOfReferenceUIDs.
            series: the items.
            instances: the keyword.
            images: SOPInstanceUIDs that are named without a series.
        """
        named: dict[str, set[str]] = defaultdict(set)
        for each in series:
            found = {text_of(item, "ReferencedSOPInstanceUID") for item in items(each, instances)}
            named[text_of(each, "SeriesInstanceUID")] |= found - {""}
        named[""] |= set(images) - {""}
        uids = {uid: frozenset(found) for uid, found in named.items() if uid or found}
        return cls(frozenset(frames_of_reference) - {""}, uids)


def check_references(grid: Grid, references: References) -> tuple[str, ...]:
    """Refuse a mask of another image.

    Returns:
        Findings.

    Raises:
        UnsuitableImage: another frame of reference, series or slices, or nothing that could be compared.
    """
    headers = headers_of(grid)
    if grid.identity is None or not headers:
        if grid.affine is None:
            raise UnsuitableImage("a DICOM mask is placed by its image's geometry, and this image has none")
        return ("mask_reference_unproved",)
    own = own_frames_of_reference(grid)
    is_same_frame = bool(own & references.frames_of_reference)
    if own and references.frames_of_reference and not is_same_frame:
        raise UnsuitableImage(
            "the mask has another FrameOfReferenceUID than its image, so that their places cannot be compared; "
            f"{_REMEDY}"
        )
    if not references.series:
        if not is_same_frame:
            raise UnsuitableImage(
                "the mask names neither a series nor the image's FrameOfReferenceUID, so that nothing says that it is "
                f"of this image; {_REMEDY}"
            )
        return ("mask_reference_unproved",)
    ours = set(grid.identity.sop_instance_uids)
    slices = references.series.get(grid.identity.series_instance_uid)
    is_of_slices = any(ours & named for named in references.series.values())
    if slices is None and not is_of_slices:
        raise UnsuitableImage(f"the mask names another series than this image's; {_REMEDY}")
    if slices and not is_of_slices and len(grid.shape) == 3:
        raise UnsuitableImage(
            f"the mask names other slices of the series than this volume has, as of another phase or echo; {_REMEDY}"
        )
    # Of several volumes in the frames of one file nothing says whose frame is whose.
    return ("mask_reference_unproved",) if grid.identity.volume and not slice_uids(grid) else ()


def headers_of(grid: Grid) -> list[Dataset]:
    """The headers of a DICOM image, none of another."""
    headers = () if grid.identity is None else grid.identity.headers
    return [header for header in headers if isinstance(header, Dataset)]


def own_frames_of_reference(grid: Grid) -> set[str]:
    """FrameOfReferenceUIDs of a DICOM image: one, or none."""
    return {text_of(header, "FrameOfReferenceUID") for header in headers_of(grid)} - {""}


def slice_uids(grid: Grid) -> tuple[str, ...]:
    """SOPInstanceUIDs in the order of the slices, where each slice is a file of its own; else none."""
    uids = () if grid.identity is None else grid.identity.sop_instance_uids
    return uids if len(uids) == grid.sizes[2] else ()
