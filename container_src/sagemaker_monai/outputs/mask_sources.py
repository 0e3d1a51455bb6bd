"""The source slices of a label map: which file, and which of its frames, each slice of it lies on.

An answer as DICOM names its source and lies on it, so each slice of the label map has to be a slice of the source, by
its position. A volume that was resampled because its slices are uneven has no such answer, nor has one without
positions. A single image without a position, such as a radiograph, is its file's picture.
"""

import warnings
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from sagemaker_monai.errors import NotAcceptable, UndecodableImage, UnsuitableImage
from sagemaker_monai.images.volumes import Traits
from sagemaker_monai.outputs.evidence import is_sound, is_uid, make_evidence, text_of

if TYPE_CHECKING:
    from pydicom import Dataset

    from sagemaker_monai.images.dicom.planes import Plane
    from sagemaker_monai.tasks.segmentation import MaskPrediction

_MOST_VOXELS, _MOST_MM = 0.1, 0.5  # that a slice may lie from its source, as masks may from their images
_INSTEAD = "accept application/x-nifti or application/json"


@dataclass(frozen=True)
class Slice:
    """The source of one slice of a label map.

    Attributes:
        sop_class_uid, sop_instance_uid: of the file.
        frame: from 1, of a file with several frames; None also where nothing says which of several it is.
        plane: None if the image has no position.
        thickness: SliceThickness in mm, None if unknown.
    """

    sop_class_uid: str
    sop_instance_uid: str
    frame: int | None
    plane: "Plane | None"
    thickness: float | None


@dataclass(frozen=True)
class MaskSource:
    """The source of a label map.

    Attributes:
        slices: in the label map's order.
        about: the patient and the study, as of `make_evidence`; with its UIDs.
        modality: of the first file, "" if unknown.
        frame_of_reference: FrameOfReferenceUID; "" only if the image has no position.
        position_indicator: PositionReferenceIndicator.
    """

    slices: tuple[Slice, ...]
    about: "Dataset" = field(repr=False)
    modality: str
    frame_of_reference: str
    position_indicator: str

    @property
    def names(self) -> tuple[str, ...]:
        """What tells this source from every other: UIDs and frames."""
        return tuple(f"{each.sop_instance_uid} {each.frame}" for each in self.slices)

    def images(self) -> list["Dataset"]:
        """Items that refer to the files, each once, in order."""
        from pydicom import Dataset

        items = {}
        for each in self.slices:
            if each.sop_instance_uid not in items:
                item = items[each.sop_instance_uid] = Dataset()
                item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = each.sop_class_uid, each.sop_instance_uid
        return list(items.values())


def find_source(prediction: "MaskPrediction", traits: Traits, *, needs_position: bool = False) -> MaskSource:
    """Find the source slices of a label map.

    Args:
        prediction: with its label map.
        traits: of its image.
        needs_position: refuse an image without one.

    Raises:
        NotAcceptable: the image is not DICOM, has no position, or has not these slices.
        UnsuitableImage: it is DICOM whose identifiers or positions are missing or broken.
    """
    from pydicom import Dataset

    identity = traits.identity
    headers = [] if identity is None else [header for header in identity.headers if isinstance(header, Dataset)]
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module=r"(pydicom|highdicom)\.")  # the source's header may have faults
        evidence = make_evidence(headers)
        if len({source.SeriesInstanceUID for source in evidence}) > 1:
            raise UnsuitableImage(f"a mask as DICOM is of one series, and the images name several; {_INSTEAD}")
        assert identity is not None
        frames = {text_of(header, "FrameOfReferenceUID") for header in headers}
        candidates = [
            each for header, source in zip(headers, evidence, strict=True) for each in _slices(header, source)
        ]
        if prediction.mask.ndim == 2:
            slices = [candidates[(identity.frame or 1) - 1]] if len(candidates) >= (identity.frame or 1) else []
        else:
            slices = _on_grid(candidates, prediction)
        has_planes = bool(slices) and all(each.plane is not None for each in slices)
        has_place = has_planes and len(frames) == 1 and is_uid(min(frames))
        if not slices or (not has_place and (prediction.mask.ndim == 3 or needs_position)):
            # A radiograph without a position is sound, and has no such answer.
            refusal = UnsuitableImage if prediction.mask.ndim == 3 or has_planes else NotAcceptable
            raise refusal(
                "a mask as DICOM needs FrameOfReferenceUID, one of all images, and the position of each; correct "
                f"them, or {_INSTEAD}"
            )
        if not has_place:
            slices = [Slice(each.sop_class_uid, each.sop_instance_uid, each.frame, None, None) for each in slices]
        indicator = text_of(headers[0], "PositionReferenceIndicator")
        return MaskSource(
            slices=tuple(slices),
            about=evidence[0],
            modality=text_of(headers[0], "Modality"),
            frame_of_reference=frames.pop() if has_place else "",
            position_indicator=indicator if is_sound("LO", indicator) else "",
        )


def _slices(header: "Dataset", source: "Dataset") -> list[Slice]:
    """Every frame of a file, with its plane where it has a sound one."""
    from sagemaker_monai.images.dicom.elements import frame_header, numbers_of
    from sagemaker_monai.images.dicom.planes import planes_of

    try:
        planes = planes_of(header)
    except UndecodableImage as error:
        raise UnsuitableImage(f"{error}; or {_INSTEAD}") from error
    found = []
    for index, plane in enumerate(planes):
        is_sound = plane.position is not None and plane.orientation is not None and plane.spacing is not None
        thickness = numbers_of(frame_header(header, index), "SliceThickness", 1)
        found.append(
            Slice(
                str(source.SOPClassUID),
                str(source.SOPInstanceUID),
                index + 1 if len(planes) > 1 else None,
                plane if is_sound else None,
                thickness[0] if thickness and thickness[0] > 0 else None,
            )
        )
    return found


def _on_grid(candidates: Sequence[Slice], prediction: "MaskPrediction") -> list[Slice]:
    """The slice of the source on which each slice of a volume lies."""
    from sagemaker_monai.images.dicom.geometry import affine_of, normal_of

    if prediction.affine is None:
        return []
    width, height, depth = prediction.mask.shape
    grid = np.asarray(prediction.affine, np.float64)
    turn = np.linalg.inv(grid)
    corners = np.array([[w, h, 0, 1] for w in (0, width - 1) for h in (0, height - 1)], np.float64).T
    found: dict[int, list[Slice]] = defaultdict(list)
    for each in candidates:
        plane = each.plane
        if plane is None:
            continue
        assert plane.orientation is not None
        assert plane.spacing is not None
        assert plane.position is not None
        own = affine_of(plane.orientation, plane.spacing, plane.position, normal_of(plane.orientation))
        voxels = (turn @ own @ corners)[:3]
        index = round(float(voxels[2].mean()))
        shift = voxels - corners[:3] - [[0], [0], [index]]
        shift_mm = np.linalg.norm(grid[:3, :3] @ shift, axis=0)
        if np.abs(shift).max() <= _MOST_VOXELS and shift_mm.max() <= _MOST_MM:
            found[index].append(each)
    if any(index not in found for index in range(depth)):
        raise NotAcceptable(
            "the mask does not lie on the images' own slices, as of a series that was resampled because its slices "
            f"are uneven or missing; {_INSTEAD}"
        )
    return [_one_of(found[index]) for index in range(depth)]


def _one_of(slices: list[Slice]) -> Slice:
    """The only one; of several frames in one place nothing says which is meant, only of which file."""
    first = slices[0]
    if len(slices) == 1:
        return first
    return Slice(first.sop_class_uid, first.sop_instance_uid, None, first.plane, first.thickness)
