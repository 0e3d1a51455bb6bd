"""What is odd about values reaches the reader of `doctor`, the importer of `prepare` and the answer, with its code."""

import gzip
import struct

import nibabel
import numpy as np
import pytest

from sagemaker_monai.doctor.examine import examine
from sagemaker_monai.errors import UnsuitableImage
from sagemaker_monai.images.dicom.media import find_instances
from sagemaker_monai.images.dicom.pixels import read_frames
from sagemaker_monai.images.dicom.series import group_series, read_series
from sagemaker_monai.images.read import read_volumes_of
from sagemaker_monai.images.sample import Sample
from sagemaker_monai.images.volume_files import read_volume_file
from sagemaker_monai.images.volumes import Volume
from sagemaker_monai.prepare.nifti_copy import encoded
from tests.support.made_dicom import as_file, made_dataset

RAMP = np.arange(0, 256, 4, dtype=np.uint16).reshape(1, 8, 8)
ODD = {
    "useless_window": {"WindowCenter": 5000, "WindowWidth": 10, "BitsStored": 12, "HighBit": 11},  # the header tells
    "for_processing": {"PresentationIntentType": "FOR PROCESSING"},
    "zero_slope": {"RescaleSlope": 0},
}


def codes_of(folder, tmp_path):
    (tmp_path / "scratch").mkdir()
    return {each.code: each.count for each in examine({"data": folder}, tmp_path / "scratch").remarks}


@pytest.mark.parametrize("code", ODD)
def test_an_odd_header_is_a_finding_of_doctor_of_the_series_and_of_the_answer(code, tmp_path):
    content = as_file(made_dataset(RAMP, **ODD[code]))
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "a.dcm").write_bytes(content)

    [series] = group_series(find_instances([content]))

    assert codes_of(tmp_path / "data", tmp_path).get(code) == 1
    assert code in [each.code for each in series.findings]
    assert code in read_series(series).findings
    assert code in read_frames(content)[0].findings


def test_a_window_that_only_the_values_condemn_is_a_finding_of_doctor_and_of_the_answer(tmp_path):
    content = as_file(made_dataset(RAMP, WindowCenter=5000, WindowWidth=10))
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "a.dcm").write_bytes(content)

    assert codes_of(tmp_path / "data", tmp_path).get("useless_window") == 1
    assert read_frames(content)[0].findings == ("useless_window",)
    assert "useless_window" in read_series(group_series(find_instances([content]))[0]).findings


def test_decimal_commas_are_read_and_said():
    dataset = made_dataset(RAMP, RescaleSlope="1.5", RescaleIntercept="-1024.5", PixelSpacing=["0.5", "0.5"])
    content = as_file(dataset)
    for plain, comma in ((b"-1024.5", b"-1024,5"), (b"0.5\\0.5", b"0,5\\0,5"), (b"1.5 ", b"1,5 ")):
        assert plain in content
        content = content.replace(plain, comma)

    [frame] = read_frames(content)

    assert frame.values[0, 1, 0] == 1.5 * 4 - 1024.5
    assert frame.spacing_mm == (0.5, 0.5)
    assert frame.findings == ("odd_numbers",)


def test_contradicting_transforms_are_a_finding_of_doctor_and_of_the_answer(tmp_path):
    image = nibabel.Nifti1Image(RAMP[0].astype(np.int16)[..., None].repeat(3, 2), np.diag([2.0, 2, 3, 1]))
    image.set_qform(np.diag([2.0, 2, 5, 1]), 1)
    body = bytearray(image.to_bytes())
    struct.pack_into("<h", body, 254, 1)  # sform_code
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "a.nii").write_bytes(body)

    [volume] = read_volumes_of(Sample(tmp_path / "data" / "a.nii"))

    assert "contradicting_transforms" in volume.findings
    assert codes_of(tmp_path / "data", tmp_path).get("contradicting_transforms") == 1


@pytest.mark.parametrize("shape", [(6, 8, 9, 1), (3, 1, 8, 9), (2, 8, 9, 4)])
def test_a_copy_of_a_volume_can_be_read_whatever_its_sizes(shape, tmp_path):
    values = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    (tmp_path / "a.nii.gz").write_bytes(encoded(Volume(values, np.diag([2.0, 2, 3, 1]))))

    volume = read_volume_file(tmp_path / "a.nii.gz")

    assert np.array_equal(volume.values, values)
    assert volume.findings == ()
    assert gzip.decompress((tmp_path / "a.nii.gz").read_bytes())[344:347] == b"n+1"


@pytest.mark.parametrize(
    ("plain", "broken", "reason"),
    [
        (b"0.5\\0.5", b"abc\\0.5", "PixelSpacing of the DICOM header is not a number"),
        (b"0.5\\0.5", b"0.5 0.5", "PixelSpacing of the DICOM header is not a number"),
        (b"0.5\\0.5", b"1,250\\1", "PixelSpacing of the DICOM header has a comma"),
        (b"0.5\\0.5", b"0.50000", "PixelSpacing of the DICOM header has 1 values instead of 2"),
    ],
)
def test_a_place_that_cannot_be_read_is_refused_by_the_name_of_its_element(plain, broken, reason):
    place = {"ImagePositionPatient": [1, 2, 3], "ImageOrientationPatient": [1, 0, 0, 0, 1, 0]}
    content = as_file(made_dataset(RAMP, PixelSpacing=["0.5", "0.5"], **place))
    assert plain in content

    [series] = group_series(find_instances([content.replace(plain, broken)]))

    with pytest.raises(UnsuitableImage, match=reason):
        read_series(series)
