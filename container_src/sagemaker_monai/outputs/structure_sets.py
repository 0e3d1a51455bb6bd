"""Label maps as DICOM RT Structure Set: one ROI per label, its outlines in every slice as closed planar contours.

Contours follow the edges of voxels (`outlines`), on the plane of the source's slice. A hole is a contour of its own in
its outline: what lies in two contours of a structure is not in it. Every label is an ROI, one that is nowhere without
contours.

Implicit VR, because explicit VR has no room for more than 65,534 characters of ContourData.

Source: DICOM PS3.3 A.19, C.8.8.5, C.8.8.6 and C.8.8.8.
"""

import hashlib
import warnings
from collections.abc import Iterator
from datetime import datetime
from typing import TYPE_CHECKING

import numpy as np

from sagemaker_monai.budget import lent, spend_bytes, spend_work
from sagemaker_monai.images.volumes import Traits
from sagemaker_monai.outputs.dicom_files import (
    MANUFACTURER,
    MAX_LO_CHARS,
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
from sagemaker_monai.outputs.mask_sources import MaskSource, Slice, find_source
from sagemaker_monai.outputs.outlines import outlines_of
from sagemaker_monai.outputs.segmentation_objects import algorithm_of
from sagemaker_monai.tasks.mask_colours import colour_of

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from pydicom import Dataset

    from sagemaker_monai.tasks.segmentation import MaskPrediction

_DECIMALS = 6  # of mm: with at most 7 digits before them, within the 16 characters of DS
_STUDY = "1.2.840.10008.3.1.2.3.1"  # Detached Study Management, which every reference to a study names
_CONTOUR_DATA = 0x30060050
# Measured on one core: 32,000 contours of 140,000 corners (noise) took 132 MiB and 10 s; 1,176 long ones (four balls in
# 512 x 512 x 300), all found and written, 34 to 89 MiB and 3.3 s.
_BYTES_A_CONTOUR, _NS_A_CONTOUR = 5_000, 350_000
_BYTES_A_CORNER, _NS_A_CORNER = 200, 3_000


def encode_rtstruct(prediction: "MaskPrediction", traits: Traits, *, model: Provenance, now: datetime) -> bytes:
    """Write the structure set of one image or series.

    Args:
        prediction: its label map.
        traits: of the image.
        model: the model.
        now: when the answer was made, local time.

    Returns:
        A DICOM file, Implicit VR Little Endian.

    Raises:
        NotAcceptable, UnsuitableImage: as of `find_source`; also for an image without a position.
        PayloadTooLarge: its contours would exceed the request's budget.
    """
    from pydicom import FileMetaDataset
    from pydicom.uid import ImplicitVRLittleEndian, RTStructureSetStorage
    from pydicom.valuerep import DA, TM

    source = find_source(prediction, traits, needs_position=True)
    labels = tuple(prediction.structures)
    digest = hashlib.sha256(np.ascontiguousarray(prediction.mask).data).hexdigest()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module=r"(pydicom|highdicom)\.")  # odd but valid values of the source
        document = source.about
        document.SOPClassUID = RTStructureSetStorage
        document.SOPInstanceUID = derived_uid(
            "structures", *source.names, model.name, model.version, repr(labels), digest
        )
        document.SpecificCharacterSet = "ISO_IR 192"
        of_series = str(document.SeriesInstanceUID)
        document.SeriesInstanceUID = derived_uid("structure sets", of_series, model.name, model.version)
        document.Modality = "RTSTRUCT"
        document.SeriesNumber, document.InstanceNumber = SERIES_NUMBER + 2, 1
        document.SeriesDescription = SERIES_DESCRIPTION
        document.OperatorsName = ""
        document.Manufacturer, document.ManufacturerModelName = MANUFACTURER, long_text(model.name)
        document.DeviceSerialNumber = document.SoftwareVersions = model.version[:MAX_LO_CHARS]
        document.FrameOfReferenceUID = source.frame_of_reference
        document.PositionReferenceIndicator = source.position_indicator
        document.StructureSetLabel, document.StructureSetName = "AI", SERIES_DESCRIPTION
        document.StructureSetDate, document.StructureSetTime = DA(now.date()), TM(now.time())
        document.SeriesDate, document.SeriesTime = DA(now.date()), TM(now.time())
        document.ApprovalStatus = "UNAPPROVED"
        document.CodingSchemeIdentificationSequence = [coding_scheme()]
        document.ReferencedFrameOfReferenceSequence = [_referenced(source, of_series)]
        document.StructureSetROISequence = [
            _described(number, label, name, source, model)
            for number, (label, name) in enumerate(zip(labels, names_of(labels), strict=True), start=1)
        ]
        with lent(2 * prediction.mask.size, f"structures of {prediction.mask.size} voxels"):
            document.ROIContourSequence = [
                _drawn(number, prediction.inside(number - 1), source) for number in range(1, len(labels) + 1)
            ]
        document.RTROIObservationsSequence = [
            _observed(number, label, model) for number, label in enumerate(labels, start=1)
        ]
        document.file_meta = FileMetaDataset()
        document.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian
        document.file_meta.MediaStorageSOPClassUID = document.SOPClassUID
        document.file_meta.MediaStorageSOPInstanceUID = document.SOPInstanceUID
        return to_bytes(document, now)


def _referenced(source: MaskSource, series_instance_uid: str) -> "Dataset":
    from pydicom import Dataset

    frame, study, series = Dataset(), Dataset(), Dataset()
    series.SeriesInstanceUID = series_instance_uid
    series.ContourImageSequence = source.images()
    study.ReferencedSOPClassUID, study.ReferencedSOPInstanceUID = _STUDY, source.about.StudyInstanceUID
    study.RTReferencedSeriesSequence = [series]
    frame.FrameOfReferenceUID = source.frame_of_reference
    frame.RTReferencedStudySequence = [study]
    return frame


def _described(number: int, label: str, name: str, source: MaskSource, model: Provenance) -> "Dataset":
    from pydicom import Dataset

    roi = Dataset()
    roi.ROINumber, roi.ROIName = number, name
    if name != label:
        roi.ROIDescription = short_text(label)
    roi.ReferencedFrameOfReferenceUID = source.frame_of_reference
    roi.ROIGenerationAlgorithm = "AUTOMATIC"
    roi.ROIDerivationAlgorithmIdentificationSequence = algorithm_of(model)
    return roi


def _observed(number: int, label: str, model: Provenance) -> "Dataset":
    from pydicom import Dataset

    observation = Dataset()
    observation.ObservationNumber = observation.ReferencedROINumber = number
    observation.SegmentedPropertyCategoryCodeSequence = [category_of(label, model.codes)]
    observation.RTROIIdentificationCodeSequence = [type_of(label, model.codes)]
    observation.RTROIInterpretedType = observation.ROIInterpreter = ""
    return observation


def _drawn(number: int, inside: "NDArray[np.bool_]", source: MaskSource) -> "Dataset":
    """The contours of one label, which is (W, H) or (W, H, D)."""
    from pydicom import Dataset
    from scipy import ndimage

    roi = Dataset()
    roi.ReferencedROINumber = number
    roi.ROIDisplayColor = list(colour_of(number))
    volume = np.atleast_3d(inside)
    boxes = ndimage.find_objects(volume.view(np.uint8))
    if boxes:
        [(across, down, along)] = boxes
        roi.ContourSequence = [
            contour
            for index in range(along.start, along.stop)
            for contour in _contours(volume[across, down, index], (across.start, down.start), source.slices[index])
        ]
    return roi


def _contours(is_inside: "NDArray[np.bool_]", first: tuple[int, int], own: Slice) -> Iterator["Dataset"]:
    """The contours of one slice of a box that begins at the voxel `first`.

    Raises:
        PayloadTooLarge: they would exceed the request's budget, as those of a mask of scattered voxels do.
    """
    from pydicom import DataElement, Dataset

    from sagemaker_monai.images.dicom.geometry import LPS_TO_RAS, affine_of, normal_of

    plane = own.plane
    assert plane is not None
    assert plane.orientation is not None
    assert plane.spacing is not None
    assert plane.position is not None
    to_ras = affine_of(plane.orientation, plane.spacing, plane.position, normal_of(plane.orientation))
    to_mm = LPS_TO_RAS @ to_ras[:3][:, [0, 1, 3]]
    outlines = outlines_of(is_inside)
    corners_in_all = sum(map(len, outlines))
    spend_bytes(_BYTES_A_CONTOUR * len(outlines) + _BYTES_A_CORNER * corners_in_all, f"{len(outlines)} contours")
    spend_work(_NS_A_CONTOUR * len(outlines) + _NS_A_CORNER * corners_in_all, f"{len(outlines)} contours")
    for corners in outlines:
        places = (corners + first) @ to_mm[:, :2].T + to_mm[:, 2]
        image, contour = Dataset(), Dataset()
        image.ReferencedSOPClassUID, image.ReferencedSOPInstanceUID = own.sop_class_uid, own.sop_instance_uid
        if own.frame is not None:
            image.ReferencedFrameNumber = own.frame
        contour.ContourImageSequence = [image]
        contour.ContourGeometricType = "CLOSED_PLANAR"
        contour.NumberOfContourPoints = len(places)
        text = "\\".join([f"{number:.{_DECIMALS}f}".rstrip("0").rstrip(".") for number in places.ravel().tolist()])
        # As the file has it: pydicom would take microseconds and 0.5 kB for each number.
        contour[_CONTOUR_DATA] = DataElement(_CONTOUR_DATA, "DS", text, already_converted=True)
        yield contour
