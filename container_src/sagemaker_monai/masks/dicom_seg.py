"""DICOM Segmentation: BINARY, FRACTIONAL and LABELMAP frames onto the slices of an image.

Each frame says of which segment it is and where it lies; their order says nothing, and where no frame lies, nothing is.
`seg_places` finds the slice. A fraction (a probability, or the part of a voxel that is filled) counts from a threshold
on, which is said.

Source: DICOM PS3.3 A.51 and C.8.20.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np
from pydicom import Dataset, uid

from sagemaker_monai.budget import lent, spend_bytes
from sagemaker_monai.errors import UndecodableImage, UnsuitableImage
from sagemaker_monai.images.dicom.decoding import stored_frames
from sagemaker_monai.images.dicom.elements import frame_header, integer_of, items, text_of, whole_number, word
from sagemaker_monai.images.dicom.headers import refusing
from sagemaker_monai.images.dicom.media import Instance
from sagemaker_monai.images.dicom.pixel_layout import Layout, layout_of
from sagemaker_monai.masks.mask import MOST_VALUE, Grid, Mask
from sagemaker_monai.masks.mask_references import References, check_references
from sagemaker_monai.masks.mask_values import some_values
from sagemaker_monai.masks.overlaps import Overlaps, lay, refuse_overlaps
from sagemaker_monai.masks.seg_places import Place, Sources, place_of, sources_in, sources_of

_ROUNDING = 1e-9  # 0.07 x 100 is a little more than 7
_TYPES = frozenset({"BINARY", "FRACTIONAL", "LABELMAP"})
_LOSSY = frozenset(
    {uid.JPEGBaseline8Bit, uid.JPEGExtended12Bit, uid.JPEGLSNearLossless, uid.JPEG2000, uid.HTJ2K}
)  # or that may be
_BROKEN = "the DICOM segmentation is broken; export it again"


@dataclass(frozen=True)
class _Kind:
    """What a stored value means: the type, the value of a whole voxel, and of a LABELMAP the value of nothing."""

    name: str
    most: int
    background: int


def read_seg(
    instance: Instance, grid: Grid, *, threshold: float, tolerance_mm: float, wanted: Callable[[str], bool] | None
) -> Mask:
    """Read a segmentation.

    Args:
        instance: the file, with its header.
        grid: of the image.
        threshold: the fraction from which a voxel of a FRACTIONAL segmentation belongs, above 0 and at most 1.
        tolerance_mm, wanted: as of `read_mask`; asked of SegmentLabel.

    Raises:
        UndecodableImage: broken, or header and frames contradict each other.
        UnsuitableImage: of another image or on another grid, segments that overlap, or a kind that is not read.
        PayloadTooLarge: more than the limits.
    """
    header = instance.header
    assert header is not None
    with refusing(_BROKEN):
        labels = labels_of(header)
        kind = _kind_of(header)
        findings = [*check_references(grid, references_of_seg(header))]
        chosen = {number for number, label in labels.items() if wanted is None or wanted(label)}
        with lent(2 * instance.size_bytes, "the pixels of a DICOM file"):
            dataset = instance.read()
            layout = _layout(dataset)
            wanted_frames = list(_places(header, instance, layout, grid, kind, labels, tolerance_mm))
            values = _filled(dataset, layout, grid, wanted_frames, kind, labels, chosen, threshold)
    if kind.name == "FRACTIONAL":
        findings.append("fractional_mask")
    names = {number: labels[number] for number in sorted(chosen) if labels[number]}
    left_out = tuple(label for number, label in labels.items() if number not in chosen)
    return Mask(values, names, tuple(findings), left_out)


def labels_of(header: Dataset) -> dict[int, str]:
    """SegmentLabel by SegmentNumber, "" without one; 0 is left out.

    Raises:
        UndecodableImage: no segments, or a number twice.
    """
    labels: dict[int, str] = {}
    for item in items(header, "SegmentSequence"):
        number = whole_number(item, "SegmentNumber", low=0, high=MOST_VALUE)
        if number in labels:
            raise UndecodableImage(f"the segmentation has SegmentNumber {number} twice; export it again")
        labels[number] = " ".join(text_of(item, "SegmentLabel").split())
    labels.pop(0, None)
    if not labels:
        raise UndecodableImage("the segmentation describes no segment; export it again")
    return labels


def references_of_seg(header: Dataset) -> References:
    """What a segmentation was drawn on: the series that it names, or without any the images that its frames name."""
    elsewhere = items(header, "StudiesContainingOtherReferencedInstancesSequence")
    series = [each for at in (header, *elsewhere) for each in items(at, "ReferencedSeriesSequence")]
    frames = [text_of(header, "FrameOfReferenceUID")]
    references = References.of(frames, series, "ReferencedInstanceSequence")
    if references.series:
        return references
    groups = [*items(header, "SharedFunctionalGroupsSequence"), *items(header, "PerFrameFunctionalGroupsSequence")]
    sources = [uid for group in groups for uid in sources_in(group)]
    sources += [text_of(each, "ReferencedSOPInstanceUID") for each in items(header, "SourceImageSequence")]
    return References.of(frames, [], "", images=sources)


def _kind_of(header: Dataset) -> _Kind:
    name = word(header, "SegmentationType").upper()
    if name not in _TYPES:
        raise UnsuitableImage("the segmentation is neither BINARY, FRACTIONAL nor LABELMAP; export it as one of them")
    most = whole_number(header, "MaximumFractionalValue", low=1, high=MOST_VALUE) if name == "FRACTIONAL" else 1
    background = integer_of(header, "PixelPaddingValue") if name == "LABELMAP" else 0
    if background:
        raise UnsuitableImage("the segmentation has another background than 0 (PixelPaddingValue); export it anew")
    return _Kind(name, most, background=0)


def _layout(dataset: Dataset) -> Layout:
    layout = layout_of(dataset, are_frames_apart=True)
    if layout.syntax in _LOSSY:
        raise UnsuitableImage("a segmentation in a lossy transfer syntax, whose values smear; export it uncompressed")
    is_index = layout.photometric in ("MONOCHROME2", "PALETTE COLOR")
    if layout.samples != 1 or layout.float_type or not is_index:
        raise UnsuitableImage("the segmentation's pixels are not segment numbers; export it again")
    return replace(layout, photometric="MONOCHROME2")  # a palette is for display: the index is the segment


def _places(
    header: Dataset,
    instance: Instance,
    layout: Layout,
    grid: Grid,
    kind: _Kind,
    labels: dict[int, str],
    tolerance_mm: float,
) -> Iterator[tuple[int, int, Place]]:
    """Numbers of the frame and its segment (0 in a LABELMAP), and its place; without frames beside a single slice."""
    groups = len(items(header, "PerFrameFunctionalGroupsSequence"))
    if not layout.frames == len(instance.planes) == groups:
        raise UndecodableImage(
            f"the segmentation has NumberOfFrames {layout.frames} and places for {groups} frames; export it again"
        )
    if any(keyword in header for keyword in ("TotalPixelMatrixColumns", "TotalPixelMatrixRows")):
        raise UnsuitableImage("a segmentation in tiles of a whole-slide image is not read; export it for each image")
    seen: set[tuple[int, Place]] = set()
    sources: dict[int, Sources] = {}
    for frame, plane in enumerate(instance.planes):
        own = frame_header(header, frame)
        segment = 0
        if kind.name != "LABELMAP":
            segment = whole_number(own, "ReferencedSegmentNumber", low=1, high=MOST_VALUE)
            if segment not in labels:
                raise UndecodableImage(f"a frame is of segment {segment}, which the segmentation does not describe")
        place = place_of(sources_of(own, sources), plane, (layout.columns, layout.rows), grid, tolerance_mm)
        if place is None:
            continue
        if (segment, place) in seen:
            raise UnsuitableImage(
                "the segmentation has two frames of one segment in one slice, and nothing says which is meant; "
                "export it again"
            )
        seen.add((segment, place))
        yield frame, segment, place


def _filled(
    dataset: Dataset,
    layout: Layout,
    grid: Grid,
    frames: list[tuple[int, int, Place]],
    kind: _Kind,
    labels: dict[int, str],
    chosen: set[int],
    threshold: float,
) -> np.ndarray:
    """uint16 of the grid's shape."""
    count = int(np.prod(grid.sizes))
    spend_bytes(2 * count, f"{count} values of a mask")
    values = np.zeros(grid.sizes, np.uint16, order="F")
    overlaps: Overlaps = Overlaps()
    frames = [each for each in frames if each[1] in chosen or kind.name == "LABELMAP"]
    decoded = stored_frames(dataset, [frame for frame, _, _ in frames], layout)
    for (_, segment, place), stored in zip(frames, decoded, strict=True):
        if kind.name == "LABELMAP":
            frame_values = _numbers(stored, labels, chosen)
        else:
            if stored.max(initial=0) > kind.most or stored.min(initial=0) < 0:
                raise UndecodableImage(
                    f"the segmentation has the value {int(stored.max())} where {kind.most} is the most; export it again"
                )
            least = threshold * kind.most * (1 - _ROUNDING)
            frame_values = ((stored > 0) & (stored >= least)) * np.uint16(segment)
        if not frame_values.any():
            continue
        if place.index >= grid.sizes[place.axes[2]] or place.index < 0:
            raise UnsuitableImage("the segmentation has voxels beyond the image's slices; take the image of the mask")
        lay(place.slab(values), frame_values.T, overlaps)
    refuse_overlaps(overlaps, labels)
    return values.reshape(grid.shape)


def _numbers(stored: np.ndarray, labels: dict[int, str], chosen: set[int]) -> np.ndarray:
    """Segment numbers of a frame of a LABELMAP, those that are not wanted as 0."""
    found = np.unique(stored)
    unknown = [int(number) for number in found if number != 0 and int(number) not in labels]
    if unknown:
        raise UndecodableImage(
            f"the segmentation has the values {some_values(unknown)}, which it does not describe; export it again"
        )
    left_out = [int(number) for number in found if int(number) not in chosen]
    return np.where(np.isin(stored, left_out), 0, stored).astype(np.uint16)
