"""Label maps as DICOM Segmentation, made by highdicom: BINARY (a frame for each structure in each slice) or LABELMAP.

The frames lie on the source's slices and name them; frames without a structure are left out. Every label is a segment,
also one that is nowhere, with the codes that the artifact has of it, or a private one.

highdicom gets stand-ins of the source, one per slice, with only what it needs and in sound form. So a fault in a header
is refused by `mask_sources` with its name, and a frame of a multi-frame file is referred to like a file of its own.
"""

import copy
import hashlib
import warnings
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING

import numpy as np

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
from sagemaker_monai.outputs.label_map_files import colour_of
from sagemaker_monai.outputs.mask_sources import MaskSource, Slice, find_source

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
        prediction: its label map.
        traits: of the image.
        model: the model.
        now: when the answer was made, local time.
        kind: BINARY or LABELMAP; None: BINARY up to MOST_BINARY structures.

    Returns:
        A DICOM file: BINARY as Explicit VR Little Endian, LABELMAP in RLE Lossless.

    Raises:
        NotAcceptable, UnsuitableImage: as of `find_source`.
    """
    source = find_source(prediction, traits)
    labels = tuple(prediction.structures)
    kind = kind or ("BINARY" if len(labels) <= MOST_BINARY else "LABELMAP")
    stand_ins = {derived_uid("stand-in", str(index)): each for index, each in enumerate(source.slices)}
    values = np.ascontiguousarray(np.atleast_3d(prediction.mask).transpose(2, 1, 0))  # (D, H, W)
    named = (*source.names, model.name, model.version, kind, repr(labels), hashlib.sha256(values.data).hexdigest())
    if not values.any():  # a segmentation has at least one frame
        values, stand_ins = values[:1], dict(list(stand_ins.items())[:1])
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module=r"(pydicom|highdicom)\.")  # odd but valid values of the source
        from highdicom.seg import Segmentation
        from pydicom.uid import RLELossless
        from pydicom.valuerep import DA, TM

        algorithm = algorithm_of(model)
        document = Segmentation(
            source_images=[
                _stand_in(source, uid, each, values.shape[1], values.shape[2]) for uid, each in stand_ins.items()
            ],
            pixel_array=values,
            segmentation_type=kind,
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
        _refer(document, source, stand_ins)
        organization = derived_uid("dimensions", *named)
        document.DimensionOrganizationSequence[0].DimensionOrganizationUID = organization
        for dimension in document.DimensionIndexSequence:
            dimension.DimensionOrganizationUID = organization
        if kind == "LABELMAP":
            # Runs of one label are most of it: four balls in 512 x 512 x 300 are 1.4 MB instead of 68. By pydicom's own
            # encoder, since GDCM's ends the process on small frames.
            document.compress(RLELossless, encoding_plugin="pydicom", generate_instance_uid=False)
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
