"""Volumes packed into one picture are refused by name, and frames without places keep what the file says."""

import struct

import numpy as np
import pytest

from sagemaker_monai.errors import UnsuitableImage
from sagemaker_monai.images.dicom.pixels import read_frames
from sagemaker_monai.images.dicom.series import find_instances, group_series, read_series
from tests.support.dicom_series import AXIAL, GAP_MM, OBLIQUE, ORIGIN, SPACING, make_slice, pixels, to_bytes


def csa_header(count):
    """The part of a Siemens CSA header that says how many tiles there are, as scanners write it."""
    header = b"SV10\x04\x03\x02\x01" + struct.pack("<II", 1, 77)
    header += b"NumberOfImagesInMosaic".ljust(64, b"\0") + struct.pack("<i4siii", 1, b"US\0\0", 6, 6, 77)
    items = [str(count).encode()] if count else []
    for value in items:
        header += struct.pack("<iiii", *(len(value) + 1,) * 4) + value.ljust(8, b"\0")
    return header


def packed(kind):
    image_type = ["ORIGINAL", "PRIMARY", "M", "ND"]
    dataset = make_slice(pixels((12, 12)), ImageType=[*image_type, "MOSAIC"] if kind == "ImageType" else image_type)
    if kind == "element":
        dataset.private_block(0x0019, "SIEMENS MR HEADER", create=True).add_new(0x0A, "US", 9)
    if kind == "text":
        dataset.private_block(0x0019, "SIEMENS MR HEADER", create=True).add_new(0x0A, "DS", "9")
    if kind.startswith("CSA"):
        count = int(kind.removeprefix("CSA") or 9)
        dataset.private_block(0x0029, "SIEMENS CSA HEADER", create=True).add_new(0x10, "OB", csa_header(count))
    if kind == "frames":
        dataset.private_block(0x0065, "Image Private Header", create=True).add_new(0x50, "DS", "24")
    return dataset


@pytest.mark.parametrize("kind", ["ImageType", "element", "text", "CSA", "frames"])
def test_slices_that_are_packed_in_one_picture_are_refused_by_name(kind):
    content = to_bytes(packed(kind))

    [series] = group_series(find_instances([content]))

    assert ("packed_slices", "error") in [(found.code, found.severity) for found in series.findings]
    with pytest.raises(UnsuitableImage, match="mosaic"):
        read_series(series)
    with pytest.raises(UnsuitableImage, match=r"packed in one picture \((Siemens mosaic|United Imaging volume)"):
        read_frames(content)


@pytest.mark.parametrize("kind", ["", "CSA0", "CSA1"])
def test_other_images_of_the_same_scanners_are_read(kind):
    content = to_bytes(packed(kind))

    [series] = group_series(find_instances([content]))

    assert [found.code for found in series.findings] == ["single_slice"]
    assert len(read_frames(content)) == 1


def stack(**elements):
    header = {"Modality": "CT", "SOPClassUID": "1.2.840.10008.5.1.4.1.1.7.3", "SpacingBetweenSlices": GAP_MM}
    return make_slice(pixels(), **(header | elements))


def test_frames_without_functional_groups_lie_at_the_spacing_that_the_file_says():
    values = pixels()

    [series] = group_series(find_instances([to_bytes(stack(ImageOrientationPatient=list(OBLIQUE)))]))
    volume = read_series(series)

    assert [(found.code, found.severity, found.count) for found in series.findings] == [
        ("counted_frames", "warning", len(values))
    ]
    assert np.array_equal(volume.values[0].transpose(2, 1, 0), values)
    normal = np.cross(OBLIQUE[:3], OBLIQUE[3:])
    last = (np.asarray(ORIGIN) + normal * GAP_MM * (len(values) - 1)) * [-1, -1, 1]
    assert volume.affine @ (0, 0, len(values) - 1, 1) == pytest.approx([*last, 1])


@pytest.mark.parametrize(
    "elements",
    [
        {"SpacingBetweenSlices": None},
        {"FrameTime": 40},
        {"CineRate": 25},
        {"Modality": "US"},
        {"ImagePositionPatient": None},
    ],
)
def test_frames_whose_places_nothing_says_keep_their_order_and_pixel_spacing(elements):
    [series] = group_series(find_instances([to_bytes(stack(ImageOrientationPatient=list(AXIAL), **elements))]))
    volume = read_series(series)

    assert [found.code for found in series.findings] == ["missing_geometry"]
    assert not volume.has_geometry
    assert np.array_equal(volume.affine[:2, :2], np.diag(SPACING[::-1]))
