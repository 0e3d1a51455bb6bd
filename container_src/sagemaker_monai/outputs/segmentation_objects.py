"""Masks as DICOM Segmentation, made by highdicom: BINARY (a frame for each structure in each slice), LABELMAP, or
FRACTIONAL, which has the probability of each structure as BINARY has its voxels. Structures that overlap are BINARY.

The frames lie on the source's slices and name them; frames without a structure are left out. Every label is a segment,
also one that is nowhere, with the codes that the artifact has of it, or a private one.

highdicom gets stand-ins of the source, one per slice, with only what it needs and in sound form. So a fault in a header
is refused by `mask_sources` with its name, and a frame of a multi-frame file is referred to like a file of its own.
"""

import copy
import hashlib
import math
import warnings
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from sagemaker_monai.budget import lent, spend_work
from sagemaker_monai.errors import NotAcceptable
from sagemaker_monai.images.volumes import Traits
from sagemaker_monai.outputs.dicom_files import (
    MANUFACTURER,
    MAX_LO_CHARS,
    SECONDARY_CAPTURE,
    SERIES_DESCRIPTION,
    SERIES_NUMBER,
    Provenance,
    category_of,
    coding_scheme,
    derived_uid,
    long_text,
    names_of,
    short_text,
    to_bytes,
    type_of,
)
from sagemaker_monai.outputs.label_map_files import probabilities_of
from sagemaker_monai.outputs.mask_sources import MaskSource, Slice, find_source
from sagemaker_monai.outputs.run_lengths import set_frames
from sagemaker_monai.outputs.segmentation_costs import costs_of
from sagemaker_monai.tasks.label_maps import FULL
from sagemaker_monai.tasks.mask_colours import colour_of
from sagemaker_monai.tasks.regions import is_inside

if TYPE_CHECKING:
    from highdicom import AlgorithmIdentificationSequence
    from highdicom.seg import SegmentDescription
    from pydicom import Dataset

    from sagemaker_monai.tasks.segmentation import MaskPrediction

MOST_BINARY = 4  # structures; of more, frames of single bits for each are many
_MAX_LT_CHARS = 10_240


def encode_seg(
    prediction: "MaskPrediction", traits: Traits, *, model: Provenance, now: datetime, kind: str | None = None
) -> bytes:
    """Write the segmentation of one image or series.

    Args:
        prediction: its label map and, for FRACTIONAL, probabilities.
        traits: of the image.
        model: the model.
        now: when the answer was made, local time.
        kind: BINARY, LABELMAP or FRACTIONAL; None: BINARY up to MOST_BINARY structures, and of those that overlap.

    Returns:
        A DICOM file: BINARY as Explicit VR Little Endian, the others in RLE Lossless.

    Raises:
        NotAcceptable: as of `find_source` and `probabilities_of`; or a LABELMAP of structures that overlap.
        UnsuitableImage: as of `find_source`.
        PayloadTooLarge: it would exceed the request's budget of memory or computing; before it is begun.
    """
    if kind == "LABELMAP" and prediction.regions is not None:
        raise NotAcceptable(
            "the model's structures overlap, and a LABELMAP has one of them in each voxel: accept application/dicom; "
            "type=binary, or application/x-nifti"
        )
    source = find_source(prediction, traits)
    labels = tuple(prediction.structures)
    is_binary = len(labels) <= MOST_BINARY or prediction.regions is not None
    kind = kind or ("BINARY" if is_binary else "LABELMAP")
    if kind == "FRACTIONAL":
        probabilities_of(prediction)
    needed_bytes, needed_ns = costs_of(prediction, kind)
    what = f"a segmentation of {prediction.mask.size} voxels"
    spend_work(needed_ns, what)
    with lent(needed_bytes, what):
        return _encoded(prediction, source, model, now, kind)


def _encoded(prediction: "MaskPrediction", source: MaskSource, model: Provenance, now: datetime, kind: str) -> bytes:
    labels = tuple(prediction.structures)
    stand_ins = {derived_uid("stand-in", str(index)): each for index, each in enumerate(source.slices)}
    fractions = _fractions(prediction) if kind == "FRACTIONAL" else None
    if fractions is None:
        values = np.ascontiguousarray(np.atleast_3d(prediction.mask).transpose(2, 1, 0))  # (D, H, W)
        digest = hashlib.sha256(values.data)
        if prediction.regions is not None:  # (D, H, W, K)
            values = np.stack([is_inside(values, numbers) for numbers in prediction.numbers], axis=-1).astype(np.uint8)
    else:
        # highdicom takes fractions as floats and sorts all of them. It gets a pixel in place of each frame, which says
        # whether there is one, and the frames are put in afterwards.
        values = (fractions.max(axis=(2, 3)) > 0).T[:, None, None].astype(np.uint8)  # (D, 1, 1, K)
        digest = _digest(fractions)
    named = (*source.names, model.name, model.version, kind, repr(labels), digest.hexdigest())
    if not values.any():  # a segmentation has at least one frame
        values, stand_ins = values[:1], dict(list(stand_ins.items())[:1])
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module=r"(pydicom|highdicom)\.")  # odd but valid values of the source
        from highdicom.seg import Segmentation
        from pydicom.valuerep import DA, TM

        algorithm = algorithm_of(model)
        document = Segmentation(
            source_images=[
                _stand_in(source, uid, each, values.shape[1], values.shape[2]) for uid, each in stand_ins.items()
            ],
            pixel_array=values,
            segmentation_type=kind,
            fractional_type="PROBABILITY",
            max_fractional_value=FULL,
            segment_descriptions=[
                _segment(number, label, name, model, algorithm)
                for number, (label, name) in enumerate(zip(labels, names_of(labels), strict=True), start=1)
            ],
            series_instance_uid=derived_uid(
                "segmentations",
                str(source.about.StudyInstanceUID),
                source.frame_of_reference,
                model.name,
                model.version,
            ),
            series_number=SERIES_NUMBER + 1,
            sop_instance_uid=derived_uid("mask", *named),
            instance_number=1,
            manufacturer=MANUFACTURER,
            manufacturer_model_name=long_text(model.name),
            software_versions=model.version[:MAX_LO_CHARS],
            device_serial_number=model.version[:MAX_LO_CHARS],
            content_label="SEGMENTATION",
            series_description=SERIES_DESCRIPTION,
            specific_character_set="ISO_IR 192",
            coding_schemes=[coding_scheme()],
        )
        document.SeriesDate, document.SeriesTime = DA(now.date()), TM(now.time())
        if not source.frame_of_reference:
            document.PatientOrientation = ""  # type 2C: of images without a position
        frames = None if fractions is None else _frames(document, fractions, stand_ins)
        _refer(document, source, stand_ins)
        organization = derived_uid("dimensions", *named)
        document.DimensionOrganizationSequence[0].DimensionOrganizationUID = organization
        for dimension in document.DimensionIndexSequence:
            dimension.DimensionOrganizationUID = organization
        if kind == "LABELMAP":
            # Runs of one label are most of it: four balls in 512 x 512 x 300 are 1.4 MB instead of 68.
            size = len(document.PerFrameFunctionalGroupsSequence), *values.shape[1:]
            frames = list(np.frombuffer(document.PixelData, np.uint8, math.prod(size)).reshape(size))
        if frames is not None:
            set_frames(document, frames)
        return to_bytes(document, now)


def _segment(
    number: int, label: str, name: str, model: Provenance, algorithm: "AlgorithmIdentificationSequence"
) -> "SegmentDescription":
    """The description of one segment."""
    from highdicom.color import CIELabColor
    from highdicom.seg import SegmentDescription

    described = SegmentDescription(
        segment_number=number,
        segment_label=name,
        segmented_property_category=category_of(label, model.codes),
        segmented_property_type=type_of(label, model.codes),
        algorithm_type="AUTOMATIC",
        algorithm_identification=algorithm,
        display_color=CIELabColor.from_rgb(*colour_of(number)),
    )
    if name != label:
        described.SegmentDescription = short_text(label)
    return described


def algorithm_of(model: Provenance) -> "AlgorithmIdentificationSequence":
    """What a segment says of the model."""
    from highdicom import AlgorithmIdentificationSequence
    from pydicom.sr.codedict import codes

    told = AlgorithmIdentificationSequence(
        name=long_text(model.name),
        family=codes.cid7162.ArtificialIntelligence,
        version=model.version[:MAX_LO_CHARS],
        source=MANUFACTURER,
    )
    if model.parameters:
        told[0].AlgorithmParameters = "; ".join(model.parameters)[:_MAX_LT_CHARS]
    return told


def _fractions(prediction: "MaskPrediction") -> NDArray[np.uint8]:
    """Probabilities as a view (K, D, H, W)."""
    values = probabilities_of(prediction)
    return (values[..., None] if values.ndim == 3 else values).transpose(0, 3, 2, 1)


def _digest(fractions: NDArray[np.uint8]) -> "hashlib._Hash":
    digest = hashlib.sha256()
    for planes in fractions:
        for plane in planes:
            digest.update(plane.tobytes())
    return digest


def _frames(document: "Dataset", fractions: NDArray[np.uint8], stand_ins: Iterable[str]) -> list[NDArray[np.uint8]]:
    """The frames of fractions (K, D, H, W) that a document has, as views, and its size by them."""
    document.Rows, document.Columns = fractions.shape[2:]
    document.SegmentsOverlap = "UNDEFINED" if len(fractions) > 1 else "NO"
    slices = {uid: index for index, uid in enumerate(stand_ins)}
    frames = []
    [shared] = document.SharedFunctionalGroupsSequence  # has the segment if there is one only
    for group in document.PerFrameFunctionalGroupsSequence:
        [of] = group.get("SegmentIdentificationSequence") or shared.SegmentIdentificationSequence
        segment = int(of.ReferencedSegmentNumber)
        [image] = group.DerivationImageSequence[0].SourceImageSequence
        frames.append(fractions[segment - 1, slices[str(image.ReferencedSOPInstanceUID)]])
    return frames


def _stand_in(source: MaskSource, uid: str, own: Slice, rows: int, columns: int) -> "Dataset":
    image = copy.deepcopy(source.about)  # a shallow copy shares its elements
    image.SOPClassUID, image.SOPInstanceUID = SECONDARY_CAPTURE, uid
    image.Modality = source.modality
    image.Rows, image.Columns = rows, columns
    if (plane := own.plane) is not None:
        image.FrameOfReferenceUID = source.frame_of_reference
        image.PositionReferenceIndicator = source.position_indicator
        image.ImagePositionPatient = _decimals(plane.position)
        image.ImageOrientationPatient = _decimals(plane.orientation)
        image.PixelSpacing = _decimals(plane.spacing)
        image.SliceThickness = _decimals([own.thickness or plane.thickness or 1.0])[0]
    return image


def _decimals(numbers: Sequence[float] | None) -> list[str]:
    from pydicom.valuerep import format_number_as_ds

    return [format_number_as_ds(float(number)) for number in numbers or ()]


def _refer(document: "Dataset", source: MaskSource, stand_ins: Mapping[str, Slice]) -> None:
    """Put the source's files and frames where its stand-ins are."""
    document.SourceImageSequence = source.images()
    document.ReferencedSeriesSequence[0].ReferencedInstanceSequence = source.images()
    for group in document.PerFrameFunctionalGroupsSequence:
        for derivation in group.get("DerivationImageSequence", ()):
            for image in derivation.SourceImageSequence:
                if (own := stand_ins.get(str(image.ReferencedSOPInstanceUID))) is None:
                    continue  # the item of a frame of another segment, which was done
                image.ReferencedSOPClassUID, image.ReferencedSOPInstanceUID = own.sop_class_uid, own.sop_instance_uid
                if own.frame is not None:
                    image.ReferencedFrameNumber = own.frame
