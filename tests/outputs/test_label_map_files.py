"""Label maps as NIfTI and PNG, read back by the libraries."""

import dataclasses
import gzip
import io
import zipfile

import nibabel
import numpy as np
import pytest
from PIL import Image

from sagemaker_monai.artifact.mask_predictor import describe
from sagemaker_monai.errors import NotAcceptable
from sagemaker_monai.images.volumes import Traits
from sagemaker_monai.outputs.label_map_files import encode_mask_files
from sagemaker_monai.serving.inference import negotiate, types_of
from sagemaker_monai.tasks.mask_colours import colour_of
from sagemaker_monai.tasks.regions import Regions

AFFINE = np.array([[-0.5, 0.1, 0, 20], [0.1, 0.7, 0, -30], [0, 0, 3, 5], [0, 0, 0, 1]], float)


@pytest.fixture
def volume():
    mask = np.zeros((4, 5, 6), np.uint8)
    mask[1:3, 2:4, 1:5] = 1
    mask[0, 0, 0] = mask[3, 4, 5] = 2
    spacing = tuple(np.linalg.norm(AFFINE[:3, :3], axis=0))
    return describe(mask, ("organ", "lesion", "nothing"), Traits(size=mask.shape, affine=AFFINE, spacing_mm=spacing))


@pytest.fixture
def picture():
    mask = np.zeros((5, 3), np.uint8)
    mask[1:4, 1:] = 1
    return describe(mask, ("disc",), Traits(size=mask.shape))


def test_nifti_has_the_grid_and_the_labels(volume):
    body, content_type = encode_mask_files([volume], "application/x-nifti")
    packed, _ = encode_mask_files([volume], "application/x-nifti+gzip")

    image = nibabel.Nifti1Image.from_bytes(body)
    assert content_type == "application/x-nifti"
    assert np.array_equal(np.asarray(image.dataobj), volume.mask)
    assert image.get_data_dtype() == np.uint8
    assert np.allclose(image.affine, AFFINE)
    assert int(image.header["sform_code"]) == 1
    assert gzip.decompress(packed) == body


@pytest.mark.parametrize(("values", "kind"), [((1, 4), np.uint8), ((4, 1_035), np.uint16)])
def test_structures_that_overlap_have_their_values_of_masks(values, kind):
    mask = np.array([[0, 1, 2]], np.uint8)
    answer = describe(mask, ("whole", "core"), Traits(size=mask.shape), Regions(((1, 2), (2,)), (1, 2), values))

    image = nibabel.Nifti1Image.from_bytes(encode_mask_files([answer], "application/x-nifti")[0])

    assert image.get_data_dtype() == kind
    assert np.asarray(image.dataobj).ravel().tolist() == [0, *values]
    if kind == np.uint8:
        picture = Image.open(io.BytesIO(encode_mask_files([answer], "image/png")[0]))
        assert np.asarray(picture).ravel().tolist() == [0, *values]
        return
    with pytest.raises(NotAcceptable, match="PNG has values up to 255"):
        encode_mask_files([answer], "image/png")


def test_a_picture_s_labels_are_indices_of_a_palette(picture, volume):
    body, _ = encode_mask_files([picture], "image/png")

    image = Image.open(io.BytesIO(body))
    assert (image.mode, image.size) == ("P", (5, 3))
    assert np.array_equal(np.asarray(image), picture.mask.T)
    assert image.convert("RGB").getpixel((2, 1)) == colour_of(1)
    with pytest.raises(NotAcceptable, match="single images"):
        encode_mask_files([volume], "image/png")


def test_several_are_a_zip_in_order_with_the_same_bytes_each_time(volume, picture):
    body, content_type = encode_mask_files([volume, picture], "application/x-nifti+gzip")

    assert content_type == "application/zip"
    assert encode_mask_files([volume, picture], "application/x-nifti+gzip")[0] == body
    with zipfile.ZipFile(io.BytesIO(body)) as archive:
        assert archive.namelist() == ["1.nii.gz", "2.nii.gz"]
        assert nibabel.Nifti1Image.from_bytes(gzip.decompress(archive.read("2.nii.gz"))).shape == (5, 3)


def test_structures_are_measured_in_ml_and_mm(volume, picture):
    voxel_ml = abs(np.linalg.det(AFFINE[:3, :3])) / 1000
    organ, lesion, nothing = (volume.structures[name] for name in ("organ", "lesion", "nothing"))

    assert (organ.voxels, organ.components, lesion.voxels, lesion.components) == (16, 1, 2, 2)
    # Voxels of an affine that shears are a little smaller than the product of their sides.
    assert organ.size == pytest.approx(16 * voxel_ml, rel=0.05)
    assert organ.centroid == pytest.approx((AFFINE @ [1.5, 2.5, 2.5, 1])[:3])
    assert organ.extent == pytest.approx(np.array([2, 2, 4]) * np.linalg.norm(AFFINE[:3, :3], axis=0))
    assert (nothing.voxels, nothing.size, nothing.components, nothing.centroid) == (0, 0, 0, None)
    assert (picture.unit, picture.fields()["sizes"]) == ("px", {"disc": 6})
    assert picture.structures["disc"].centroid == (2, 1.5)


def test_a_model_of_numbers_is_never_asked_for_masks():
    accept = "image/png, application/json;q=0.5"

    assert negotiate(accept, types_of(has_masks=True)) == "image/png"
    assert negotiate(accept, types_of(has_masks=False)) == "application/json"
    with pytest.raises(NotAcceptable):
        negotiate("application/x-nifti")


def test_structures_that_overlap_are_drawn_one_over_the_other():
    regions = Regions(((1, 2), (2,)), (1, 2), (1, 2))  # the second lies in the first
    mask = np.zeros((9, 9), np.uint8)
    mask[1:8, 1:8] = 1
    mask[3:6, 3:6] = 2
    prediction = describe(mask, ("organ", "lesion"), Traits(size=mask.shape), regions)
    prediction = dataclasses.replace(prediction, picture=np.full((9, 9, 3), 100, np.uint8))

    body, content_type = encode_mask_files([prediction], "image/png; type=overlay")

    drawn = np.asarray(Image.open(io.BytesIO(body)))
    assert content_type == "image/png"
    assert drawn[0, 0].tolist() == [100, 100, 100]
    assert (tuple(drawn[1, 4]), tuple(drawn[3, 4])) == (colour_of(1), colour_of(2))
    for place, label in (((4, 4), 2), ((6, 6), 1)):
        assert np.abs(drawn[place] - (55 + 0.45 * np.array(colour_of(label)))).max() < 2


def test_an_overlay_needs_a_picture_and_a_single_image(volume, picture):
    with pytest.raises(NotAcceptable, match="without the picture"):
        encode_mask_files([picture], "image/png; type=overlay")
    with pytest.raises(NotAcceptable, match="accept application/x-nifti"):
        encode_mask_files([volume], "image/png; type=overlay")
