"""The place of each frame of a DICOM file, from wherever its kind of file keeps it.

A file with one frame has it in the main dataset, an enhanced multi-frame file in its functional groups, an older
multi-frame file (NM, RTDOSE) by counting from the first frame. Cine files have none. Beside the place stands what may
tell volumes of one series apart: echo, time, b-value, type of image.
"""

import functools
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import DecimalException
from typing import Any

import numpy as np
from pydicom import Dataset
from pydicom.tag import BaseTag, Tag

from sagemaker_monai.dicom.geometry import Cosines, Vector, is_sound, normal_of
from sagemaker_monai.errors import PayloadTooLarge

MAX_FRAMES = 1 << 16  # of one file
# What pydicom raises when the text of a value is no number, or not of its VR.
BAD_VALUE = (ValueError, TypeError, AttributeError, KeyError, IndexError, OverflowError, NotImplementedError,
             struct.error, DecimalException)  # fmt: skip

# What may tell volumes of one place apart, tried in this order: our name -> (sequence of the functional groups or "",
# keyword). A value that is not in the functional groups is looked for in the main dataset.
DISCRIMINATORS = {
    "StackID": ("FrameContentSequence", "StackID"),
    "ReferencedSegmentNumber": ("SegmentIdentificationSequence", "ReferencedSegmentNumber"),
    "TemporalPositionIndex": ("FrameContentSequence", "TemporalPositionIndex"),
    "TemporalPositionIdentifier": ("", "TemporalPositionIdentifier"),
    "EffectiveEchoTime": ("MREchoSequence", "EffectiveEchoTime"),
    "EchoNumbers": ("", "EchoNumbers"),
    "EchoTime": ("", "EchoTime"),
    "DiffusionBValue": ("MRDiffusionSequence", "DiffusionBValue"),
    "DiffusionGradientOrientation": ("", "DiffusionGradientOrientation"),
    "InversionTime": ("", "InversionTime"),
    "FlipAngle": ("", "FlipAngle"),
    "FrameType": ("MRImageFrameTypeSequence", "FrameType"),
    "ImageType": ("", "ImageType"),
    "FrameAcquisitionNumber": ("FrameContentSequence", "FrameAcquisitionNumber"),
    "AcquisitionNumber": ("", "AcquisitionNumber"),
    "NominalCardiacTriggerDelayTime": ("CardiacSynchronizationSequence", "NominalCardiacTriggerDelayTime"),
    "TriggerTime": ("", "TriggerTime"),
    "FrameReferenceTime": ("", "FrameReferenceTime"),
    "ConvolutionKernel": ("", "ConvolutionKernel"),
}


@dataclass(frozen=True)
class Plane:
    """One frame's place.

    Attributes:
        position: ImagePositionPatient, LPS mm; None where the frame has no complete geometry, as the next two.
        orientation: ImageOrientationPatient.
        spacing: PixelSpacing: between rows, between columns, mm; may be known without a position.
        thickness: SpacingBetweenSlices or SliceThickness, mm, for a slice that has no neighbour.
        is_invalid: the header has a geometry, but not one that can be.
        tells: values of `DISCRIMINATORS` that the frame has, as text.
        rescale: RescaleSlope and RescaleIntercept as text, for comparison.
    """

    position: Vector | None = None
    orientation: Cosines | None = None
    spacing: tuple[float, float] | None = None
    thickness: float | None = None
    is_invalid: bool = False
    tells: tuple[tuple[str, str], ...] = ()
    rescale: str = ""


@functools.cache
def tag_of(keyword: str) -> BaseTag:
    """The tag of a keyword; asking a dataset by keyword looks it up each time, at the cost of everything else here."""
    return Tag(keyword)


def value_of(dataset: Dataset | None, keyword: str) -> Any:
    """A value of a header, or None where it is absent, empty or unreadable."""
    tag = tag_of(keyword)
    try:
        value = dataset[tag].value if dataset is not None and tag in dataset else None
    except BAD_VALUE:
        return None
    return None if value is None or (isinstance(value, str) and not value) else value


def text_of(dataset: Dataset | None, keyword: str) -> str:
    """A value as text, several joined with a backslash as the file has them; "" where there is none."""
    value = value_of(dataset, keyword)
    try:
        if isinstance(value, Sequence) and not isinstance(value, str | bytes):
            return "\\".join(map(str, value))
        return "" if value is None else str(value)
    except BAD_VALUE:
        return ""


def integer_of(dataset: Dataset | None, keyword: str) -> int | None:
    """A whole number of a header, or None."""
    numbers = numbers_of(dataset, keyword, 1)
    return int(numbers[0]) if numbers and numbers[0].is_integer() else None


def numbers_of(dataset: Dataset | None, keyword: str, count: int) -> tuple[float, ...] | None:
    """The numbers of a header, or None when there are not exactly as many, or one is not finite."""
    value = value_of(dataset, keyword)
    try:
        values = value if isinstance(value, Sequence) and not isinstance(value, str | bytes) else [value]
        numbers = tuple(float(number) for number in values) if value is not None else ()
    except BAD_VALUE:
        return None
    return numbers if len(numbers) == count and np.isfinite(numbers).all() else None


def item_of(dataset: Dataset | None, keyword: str) -> Dataset | None:
    """The first item of a sequence, or None."""
    value = value_of(dataset, keyword)
    try:
        item = value[0] if value else None
    except BAD_VALUE:
        return None
    return item if isinstance(item, Dataset) else None


def planes_of(header: Dataset) -> tuple[Plane, ...]:
    """The place of every frame of a file, in the file's order.

    Raises:
        PayloadTooLarge: more frames than MAX_FRAMES.
    """
    frames = max(integer_of(header, "NumberOfFrames") or 1, 1)
    if frames > MAX_FRAMES:
        raise PayloadTooLarge(f"{frames} frames are more than {MAX_FRAMES}; send the file in parts")
    groups = value_of(header, "PerFrameFunctionalGroupsSequence")
    if groups is not None:
        shared = item_of(header, "SharedFunctionalGroupsSequence")
        per_frame = [group if isinstance(group, Dataset) else None for group in list(groups)[:frames]]
        per_frame += [None] * (frames - len(per_frame))  # a file that lacks groups has frames without a place
        return tuple(_plane((group, shared), header) for group in per_frame)
    if frames == 1:
        return (_plane((), header),)
    return _counted_planes(header, frames)


def _grouped(groups: Sequence[Dataset | None], header: Dataset, sequence: str, keyword: str) -> Dataset | None:
    """The dataset that has the keyword: a functional group of the frame, one that all share, or the main dataset."""
    for group in groups:
        item = item_of(group, sequence) if sequence else None
        if item is not None and tag_of(keyword) in item:
            return item
    return header if tag_of(keyword) in header else None


def _plane(groups: Sequence[Dataset | None], header: Dataset) -> Plane:
    def numbers(sequence: str, keyword: str, count: int) -> tuple[float, ...] | None:
        return numbers_of(_grouped(groups, header, sequence, keyword), keyword, count)

    position_keyword = "ImagePositionPatient"
    position_at = _grouped(groups, header, "PlanePositionSequence", position_keyword)
    orientation_at = _grouped(groups, header, "PlaneOrientationSequence", "ImageOrientationPatient")
    spacing_at = _grouped(groups, header, "PixelMeasuresSequence", "PixelSpacing")
    position: Any = numbers_of(position_at, position_keyword, 3)
    orientation: Any = numbers_of(orientation_at, "ImageOrientationPatient", 6)
    spacing: Any = numbers_of(spacing_at, "PixelSpacing", 2)
    between = numbers("PixelMeasuresSequence", "SpacingBetweenSlices", 1)
    thickness = numbers("PixelMeasuresSequence", "SliceThickness", 1)
    tells = []
    for name, (sequence, keyword) in DISCRIMINATORS.items():
        if text := text_of(_grouped(groups, header, sequence, keyword), keyword):
            tells.append((name, text))
    if not any(name == "DiffusionGradientOrientation" for name, _ in tells):
        diffusion = next((at for group in groups if (at := item_of(group, "MRDiffusionSequence"))), None)
        if text := text_of(item_of(diffusion, "DiffusionGradientDirectionSequence"), "DiffusionGradientOrientation"):
            tells.append(("DiffusionGradientOrientation", text))
    rescale_at = [
        text_of(_grouped(groups, header, "PixelValueTransformationSequence", keyword), keyword)
        for keyword in ("RescaleSlope", "RescaleIntercept")
    ]
    is_present = all(value_of(at, keyword) is not None for at, keyword in (
        (position_at, position_keyword), (orientation_at, "ImageOrientationPatient"), (spacing_at, "PixelSpacing")
    ))  # fmt: skip
    is_complete = bool(position and orientation and spacing and is_sound(orientation, spacing, position))
    size = next((abs(number[0]) for number in (between, thickness) if number and number[0]), None)
    has_spacing = spacing is not None and min(spacing) > 0
    return Plane(
        position=position if is_complete else None,
        orientation=orientation if is_complete else None,
        spacing=spacing if has_spacing else None,
        thickness=size,
        is_invalid=is_present and not is_complete,
        tells=tuple(tells),
        rescale="\\".join(rescale_at),
    )


def _counted_planes(header: Dataset, frames: int) -> tuple[Plane, ...]:
    """Frames of a file without functional groups: the first has a place, and the others a distance from it."""
    first = _plane((), header)
    if first.position is None and not first.is_invalid:
        first = _plane((), _with_detector(header))  # NM keeps the place with its detector
    nowhere = Plane(
        spacing=first.spacing, thickness=first.thickness, is_invalid=first.is_invalid, rescale=first.rescale
    )
    offsets = _offsets(header, frames, first)
    if offsets is None or first.position is None or first.orientation is None:
        return (nowhere,) * frames
    positions = np.asarray(first.position) + np.outer(offsets, normal_of(first.orientation))
    return tuple(
        Plane(
            position=(float(x), float(y), float(z)),
            orientation=first.orientation,
            spacing=first.spacing,
            thickness=first.thickness,
            tells=first.tells,
            rescale=first.rescale,
        )
        for x, y, z in positions
    )


def _with_detector(header: Dataset) -> Dataset:
    detector = item_of(header, "DetectorInformationSequence")
    joined = Dataset()
    for source in (header, detector or Dataset()):
        for keyword in ("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "SpacingBetweenSlices",
                        "SliceThickness", "RescaleSlope", "RescaleIntercept"):  # fmt: skip
            if value_of(source, keyword) is not None:
                joined[keyword] = source[keyword]
    return joined


def _offsets(header: Dataset, frames: int, first: Plane) -> np.ndarray | None:
    """How far each frame lies from the first along the normal, mm; None when the file does not say."""
    if offsets := numbers_of(header, "GridFrameOffsetVector", frames):
        away = np.asarray(offsets)
        # PS3.3 C.8.8.3.2: from the first frame, or (then not starting at 0) the z of each frame, for axial doses only.
        if away[0] != 0 and first.orientation is not None:
            away = (away - away[0]) * np.sign(normal_of(first.orientation)[2])
        return away
    # PS3.3 C.8.4.8 and C.8.4.15: only reconstructed tomographs of nuclear medicine are stacks of slices.
    kinds = text_of(header, "ImageType").split("\\")
    if text_of(header, "Modality") not in ("NM", "PT") or "RECON TOMO" not in kinds or "GATED" in kinds:
        return None
    between = numbers_of(header, "SpacingBetweenSlices", 1) or numbers_of(header, "SliceThickness", 1)
    counts = numbers_of(header, "SliceVector", frames) or tuple(range(1, frames + 1))
    return None if not between else (np.asarray(counts) - counts[0]) * between[0]
