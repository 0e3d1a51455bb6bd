"""The plane of each frame of a DICOM file: its position, and what may distinguish volumes (echo, time, b-value, type).

A file with one frame has its position in the main dataset, an enhanced multi-frame file in its functional groups, an
older multi-frame file (NM, RTDOSE) by counting from the first frame. Cine files have none.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from pydicom import Dataset

from sagemaker_monai.budget import spend_bytes, spend_work
from sagemaker_monai.errors import PayloadTooLarge, UndecodableImage
from sagemaker_monai.images.dicom.elements import (
    GROUPS,
    FrameHeader,
    Header,
    frame_header,
    integer_of,
    item_of,
    items,
    numbers,
    numbers_of,
    plain_text_of,
    tag_of,
    text_of,
    value_of,
)
from sagemaker_monai.images.dicom.geometry import Cosines, Vector, is_sound, normal_of
from sagemaker_monai.images.dicom.tells import DISCRIMINATORS, NO_DATE

MAX_FRAMES = 1 << 16  # of one file
# Cost of a frame's plane: of a counted one, and of one with functional groups of its own.
_NS_A_FRAME, _NS_A_GROUP, _BYTES_A_FRAME = 10_000, 200_000, 400
_GEOMETRY = {"ImagePositionPatient": 3, "ImageOrientationPatient": 6, "PixelSpacing": 2}  # and their numbers
# Modalities whose frames are rarely slices, and attributes of cine frames.
_COUNTED_OTHERWISE = frozenset({"NM", "US", "XA", "RF", "DX", "CR", "MG", "IVUS", "OPT"})
_TIMES = ("FrameTime", "FrameTimeVector", "CineRate", "RecommendedDisplayFrameRate", "FrameDelay", "NumberOfTimeSlots",
          "NumberOfTimeSlices")  # fmt: skip
# Attributes that a frame may have itself; the others of the table are in the main dataset only.
_OF_FRAMES = {
    name: frozenset(tag_of(path.split("/")[0]) for path in GROUPS[name]) for name in DISCRIMINATORS if name in GROUPS
}


@dataclass(frozen=True)
class Plane:
    """One frame's plane.

    Attributes:
        position: ImagePositionPatient, LPS mm; None if the geometry is incomplete.
        orientation: ImageOrientationPatient; likewise.
        spacing: PixelSpacing: between rows, between columns, mm; may be known without a position.
        thickness: SpacingBetweenSlices or SliceThickness, mm, for a slice without neighbours.
        is_invalid: the header has an impossible geometry.
        fault: the element that cannot be read and why, "" if the numbers themselves are wrong.
        is_counted: the position was derived from the first frame's, though no rule of the standard says so.
        tells: the frame's values of `tells.DISCRIMINATORS`, as text.
        rescale: RescaleSlope and RescaleIntercept as text, for comparison.
    """

    position: Vector | None = None
    orientation: Cosines | None = None
    spacing: tuple[float, float] | None = None
    thickness: float | None = None
    is_invalid: bool = False
    fault: str = ""
    is_counted: bool = False
    tells: tuple[tuple[str, str], ...] = ()
    rescale: str = ""


def planes_of(header: Dataset) -> tuple[Plane, ...]:
    """The plane of every frame, in the file's order; PayloadTooLarge for more frames than MAX_FRAMES."""
    frames = max(integer_of(header, "NumberOfFrames") or 1, 1)
    if frames > MAX_FRAMES:
        raise PayloadTooLarge(f"{frames} frames are more than {MAX_FRAMES}; send the file in parts")
    groups = len(items(header, "PerFrameFunctionalGroupsSequence"))
    spend_work(frames * _NS_A_FRAME + min(groups, frames) * _NS_A_GROUP, f"the places of {frames} frames")
    spend_bytes(frames * _BYTES_A_FRAME, f"the places of {frames} frames")
    common = _common_tells(header)
    if value_of(header, "PerFrameFunctionalGroupsSequence") is not None:
        # Frames without a group have no plane of their own.
        planes = [_plane(frame_header(header, frame), common) for frame in range(min(frames, groups))]
        return (*planes, *[_plane(frame_header(header, groups), common)] * (frames - len(planes)))
    if frames == 1:
        return (_plane(frame_header(header, 0), common),)
    return _counted_planes(header, frames, common)


def _plane(header: Header, common: Mapping[str, str]) -> Plane:
    position: Any = numbers_of(header, "ImagePositionPatient", 3)
    orientation: Any = numbers_of(header, "ImageOrientationPatient", 6)
    spacing: Any = numbers_of(header, "PixelSpacing", 2)
    between = numbers_of(header, "SpacingBetweenSlices", 1)
    thickness = numbers_of(header, "SliceThickness", 1)
    is_complete = bool(position and orientation and spacing and is_sound(orientation, spacing, position))
    is_invalid = not is_complete and all(value_of(header, keyword) is not None for keyword in _GEOMETRY)
    size = next((abs(number[0]) for number in (between, thickness) if number and number[0]), None)
    has_spacing = spacing is not None and min(spacing) > 0
    return Plane(
        position=position if is_complete else None,
        orientation=orientation if is_complete else None,
        spacing=spacing if has_spacing else None,
        thickness=size,
        is_invalid=is_invalid,
        fault=_fault_of(header) if is_invalid else "",
        tells=_tells(header, common),
        rescale="\\".join(text_of(header, keyword) for keyword in ("RescaleSlope", "RescaleIntercept")),
    )


def _fault_of(header: Header) -> str:
    for keyword, count in _GEOMETRY.items():
        try:
            found = len(numbers(header, keyword))
        except UndecodableImage as error:
            return str(error)
        if found != count:
            return f"{keyword} of the DICOM header has {found} values instead of {count}; correct it"
    return ""


def _common_tells(header: Dataset) -> dict[str, str]:
    """What the main dataset says about all frames, in the order of the table."""
    found = {}
    for name, row in DISCRIMINATORS.items():
        if text := plain_text_of(header, name):
            found[name] = (plain_text_of(header, row.date) or NO_DATE) + text if row.date else text
    return found


def _tells(header: Header, common: Mapping[str, str]) -> tuple[tuple[str, str], ...]:
    if not isinstance(header, FrameHeader) or not header.groups:
        return tuple(common.items())
    there = {tag for group in header.groups for tag in group.keys()}  # noqa: SIM118 - iteration converts values
    names = [name for name, sequences in _OF_FRAMES.items() if not sequences.isdisjoint(there)]
    own = {name: text for name in names if (text := text_of(header, name))}
    return tuple({**common, **own}.items())


def _counted_planes(header: Dataset, frames: int, common: Mapping[str, str]) -> tuple[Plane, ...]:
    """Frames of a file without functional groups: the first has a position, and the others a distance from it."""
    first = _plane(frame_header(header, 0), common)
    if first.position is None and not first.is_invalid:
        first = _plane(_with_detector(header), common)  # NM keeps the position with its detector
    offsets, is_counted = _offsets(header, frames, first), False
    if offsets is None and (between := _distance(header)):
        offsets, is_counted = np.arange(frames) * between, True
    if offsets is None or first.position is None or first.orientation is None:
        return (replace(first, position=None, orientation=None, fault=""),) * frames
    positions = np.asarray(first.position) + np.outer(offsets, normal_of(first.orientation))
    return tuple(
        replace(first, position=(float(x), float(y), float(z)), is_counted=is_counted) for x, y, z in positions
    )


def _distance(header: Dataset) -> float | None:
    """SpacingBetweenSlices of a stack written by a converter or an old scanner.

    None for frames that differ in time, angle or detector: cines, gated and dynamic studies, projections.
    """
    if text_of(header, "Modality") in _COUNTED_OTHERWISE or any(value_of(header, word) is not None for word in _TIMES):
        return None
    between = numbers_of(frame_header(header, 0), "SpacingBetweenSlices", 1)
    return between[0] if between else None


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
    """The distance of each frame from the first along the normal, mm; None if the file does not say."""
    if offsets := numbers_of(header, "GridFrameOffsetVector", frames):
        away = np.asarray(offsets)
        # PS3.3 C.8.8.3.2: relative to the first frame, or (not starting at 0; axial doses only) the z of each frame.
        if away[0] != 0 and first.orientation is not None:
            away = (away - away[0]) * np.sign(normal_of(first.orientation)[2])
        return away
    # PS3.3 C.8.4.8 and C.8.4.15: in nuclear medicine, only reconstructed tomographs are stacks of slices.
    kinds = text_of(header, "ImageType").split("\\")
    if text_of(header, "Modality") not in ("NM", "PT") or "RECON TOMO" not in kinds or "GATED" in kinds:
        return None
    between = numbers_of(header, "SpacingBetweenSlices", 1) or numbers_of(header, "SliceThickness", 1)
    counts = numbers_of(header, "SliceVector", frames) or tuple(range(1, frames + 1))
    return None if not between else (np.asarray(counts) - counts[0]) * between[0]
