"""DICOM segmentations of made series, written by highdicom, and the grid of the series."""

import highdicom
import numpy as np
from highdicom.seg import Segmentation, SegmentDescription
from pydicom.sr.codedict import codes

from sagemaker_monai.images.read import read_volumes_of
from sagemaker_monai.images.sample import Instances, Sample
from sagemaker_monai.masks.mask import Grid
from tests.support.dicom_series import AXIAL, SHAPE, make_series, pixels, to_bytes

# What highdicom asks of its source images.
PATIENT = {
    "PatientBirthDate": "", "PatientSex": "", "StudyID": "1", "StudyDate": "20200101", "StudyTime": "",
    "AccessionNumber": "", "ReferringPhysicianName": "", "PositionReferenceIndicator": "",
}  # fmt: skip


def series(orientation=AXIAL, shape=SHAPE, **elements):
    """The files of a series, in the order of its slices."""
    return make_series(pixels(shape), orientation, **(PATIENT | elements))


def grid_of(files):
    """The grid of a series as images are read."""
    [volume] = read_volumes_of(Sample(Instances(tuple(to_bytes(each) for each in files))))
    return Grid.of(volume)


def segmentation(files, values, kind="BINARY", labels=("liver", "spleen"), **options):
    """A SEG of values (D, H, W), or (D, H, W, segments) for fractions and overlaps."""
    descriptions = [
        SegmentDescription(
            segment_number=number,
            segment_label=label,
            segmented_property_category=codes.SCT.Organ,
            segmented_property_type=codes.SCT.Liver,
            algorithm_type="MANUAL",
        )
        for number, label in enumerate(labels, start=1)
    ]
    return Segmentation(
        source_images=files,
        pixel_array=np.asarray(values),
        segmentation_type=kind,
        segment_descriptions=descriptions,
        series_instance_uid=highdicom.UID(),
        series_number=2,
        sop_instance_uid=highdicom.UID(),
        instance_number=1,
        manufacturer="Test",
        manufacturer_model_name="Test",
        software_versions="1",
        device_serial_number="1",
        **options,
    )


def written(path, dataset):
    """Write a file, and give its path."""
    dataset.save_as(path, enforce_file_format=True)
    return path
