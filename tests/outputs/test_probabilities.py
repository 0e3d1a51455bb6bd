"""Probabilities as DICOM and NIfTI, read by highdicom, pydicom, nibabel and our own reader of masks."""

import dataclasses
import gzip
import io
import shutil
import zipfile

import nibabel
import numpy as np
import pydicom
import pytest
from highdicom.seg import Segmentation
from pydicom.pixels import pixel_array
from pydicom.uid import RLELossless

from sagemaker_monai.artifact.mask_predictor import describe
from sagemaker_monai.errors import NotAcceptable
from sagemaker_monai.images.volumes import Traits
from sagemaker_monai.masks.mask import Grid
from sagemaker_monai.masks.read_mask import read_mask
from sagemaker_monai.outputs.label_map_files import encode_mask_files
from sagemaker_monai.outputs.run_lengths import packed
from sagemaker_monai.outputs.segmentation_objects import encode_seg
from tests.outputs.test_masks_as_dicom import (
    LABELS,
    MODEL,
    NOW,
    answer_on,
    encoded,
    items_of,
    parse,
    validated,
    volume_of,
)
from tests.support.dicom_series import CORONAL, enhanced, pixels
from tests.support.segmentations import series

SHAPE = (5, 7, 6)  # (W, H, D)
SHARES = np.random.default_rng(5).dirichlet([0.4] * 3, SHAPE)[..., :2]  # of two structures
VALUES = np.ascontiguousarray(np.floor(SHARES * 255).astype(np.uint8).transpose(3, 0, 1, 2))  # (K, W, H, D)
VALUES[:, :, :, 2] = 0
VALUES[1, :, :, 4] = 0


def likely(image, values=VALUES, labels=LABELS):
    """A prediction with probabilities, and its traits."""
    prediction, traits = answer_on(image, (values.max(axis=0) > 127).astype(np.uint8), labels)
    return dataclasses.replace(prediction, probabilities=values), traits


def fractional(image, values=VALUES, **options):
    return encode_seg(*likely(image, values), model=MODEL, now=NOW, kind="FRACTIONAL", **options)


@pytest.fixture(scope="module")
def coronal():
    return volume_of(series(CORONAL, SHAPE[::-1])[::-1])


def test_highdicom_and_pydicom_read_the_probabilities(coronal):
    content = fractional(coronal)
    document = parse(content)
    seg = Segmentation.from_dataset(document)
    uids = list(coronal.identity.sop_instance_uids)

    read = seg.get_pixels_by_source_instance(uids, rescale_fractional=True, assert_missing_frames_are_empty=True)

    assert np.allclose(read.transpose(3, 2, 1, 0), VALUES / 255, atol=1e-6)
    assert (document.SegmentationType, document.SegmentationFractionalType) == ("FRACTIONAL", "PROBABILITY")
    assert (document.MaximumFractionalValue, document.SegmentsOverlap) == (255, "UNDEFINED")
    assert document.file_meta.TransferSyntaxUID == RLELossless
    frames = pixel_array(document)
    for frame, group in zip(frames, document.PerFrameFunctionalGroupsSequence, strict=True):
        segment = group.SegmentIdentificationSequence[0].ReferencedSegmentNumber
        uid = group.DerivationImageSequence[0].SourceImageSequence[0].ReferencedSOPInstanceUID
        assert np.array_equal(frame, VALUES[segment - 1, :, :, uids.index(uid)].T)
    assert len(frames) == 5 + 4  # one slice without both, one without the second


@pytest.mark.parametrize("threshold", [0.5, 0.25, 0.9])
def test_our_reader_of_masks_takes_a_threshold(coronal, threshold, tmp_path):
    path = tmp_path / "mask.dcm"
    path.write_bytes(fractional(coronal, np.stack([VALUES[0], 0 * VALUES[1]])))

    mask = read_mask(path, Grid.of(coronal), threshold=threshold)

    assert np.array_equal(mask.values, VALUES[0] / 255 >= threshold)
    assert mask.names == dict(enumerate(LABELS, start=1))
    assert "fractional_mask" in mask.findings


def test_structures_of_a_half_each_are_read_without_overlap(coronal, tmp_path):
    path = tmp_path / "mask.dcm"
    path.write_bytes(fractional(coronal))

    assert np.array_equal(
        read_mask(path, Grid.of(coronal)).values, (VALUES >= 128).argmax(axis=0) + (VALUES >= 128).any(axis=0)
    )


def test_frames_of_one_file_and_single_images_have_probabilities():
    image = volume_of([enhanced(pixels(SHAPE[::-1]), order=[3, 0, 5, 1, 4, 2])])
    seg = Segmentation.from_dataset(parse(fractional(image)))
    assert set(items_of(seg, "ReferencedSOPInstanceUID")) >= {image.identity.sop_instance_uids[0]}
    assert set(items_of(seg, "ReferencedFrameNumber")) == {4 - 2, 4, 1, 5, 3}
    [alone] = [volume_of(series(shape=(1, 7, 5)))]
    document = parse(fractional(alone, VALUES[..., :1]))
    assert np.array_equal(pixel_array(document), VALUES[..., 0].transpose(0, 2, 1))


def test_no_probability_at_all_is_an_answer(coronal):
    document = parse(fractional(coronal, np.zeros_like(VALUES)))

    assert not pixel_array(document).any()
    assert (document.Rows, document.Columns) == SHAPE[1::-1]


def test_the_same_probabilities_are_the_same_file_and_others_another(coronal):
    other = VALUES.copy()
    other[0, 0, 0, 0] ^= 1

    first, again, changed = fractional(coronal), fractional(coronal), fractional(coronal, other)

    assert first == again
    uids = {parse(each).SOPInstanceUID for each in (first, changed, encoded(encode_seg, coronal))}
    assert len(uids) == 3


@pytest.mark.skipif(shutil.which("dciodvfy") is None, reason="needs dciodvfy of dicom3tools")
def test_the_validator_finds_no_errors(coronal, tmp_path):
    for index, values in enumerate((VALUES, VALUES[:1], np.zeros_like(VALUES))):
        path = tmp_path / f"{index}.dcm"
        prediction, traits = likely(coronal, values, LABELS[: len(values)])
        path.write_bytes(encode_seg(prediction, traits, model=MODEL, now=NOW, kind="FRACTIONAL"))
        assert validated(path) == []


@pytest.mark.parametrize("shape", [(1, 1), (1, 300), (300, 1), (7, 128), (64, 129), (200, 1500)])
def test_packed_frames_are_decoded_by_pydicom(shape):
    rng = np.random.default_rng(0)
    for frame in (rng.integers(0, 256, shape), np.zeros(shape), rng.integers(0, 256, shape) // 128 * 9):
        frame = frame.astype(np.uint8)
        document = pydicom.Dataset()
        document.Rows, document.Columns = shape
        document.SamplesPerPixel, document.PixelRepresentation, document.PhotometricInterpretation = 1, 0, "MONOCHROME2"
        document.BitsAllocated = document.BitsStored = 8
        content = packed(frame)

        decoded = pydicom.pixels.get_decoder(RLELossless).as_array(
            pydicom.encaps.encapsulate([content]), rows=shape[0], columns=shape[1], samples_per_pixel=1,
            bits_allocated=8, bits_stored=8, pixel_representation=0, number_of_frames=1, pixel_keyword="PixelData",
            photometric_interpretation="MONOCHROME2", decoding_plugin="pydicom",
        )[0]  # fmt: skip

        assert len(content) % 2 == 0
        assert np.array_equal(decoded.reshape(shape), frame)


AFFINE = np.array([[-0.5, 0.1, 0, 20], [0.1, 0.7, 0, -30], [0, 0, 3, 5], [0, 0, 0, 1]], float)


def test_nifti_has_a_volume_for_each_structure():
    traits = Traits(size=SHAPE, affine=AFFINE, spacing_mm=(0.5, 0.7, 3))
    prediction = dataclasses.replace(describe(np.zeros(SHAPE, np.uint8), LABELS, traits), probabilities=VALUES)

    body, content_type = encode_mask_files([prediction], "application/x-nifti; type=probabilities")
    packed_body, packed_type = encode_mask_files([prediction], "application/x-nifti+gzip; type=probabilities")

    image = nibabel.Nifti1Image.from_bytes(body)
    assert image.shape == (*SHAPE, 2)
    assert np.array_equal(image.dataobj.get_unscaled(), VALUES.transpose(1, 2, 3, 0))
    assert np.allclose(image.get_fdata(), VALUES.transpose(1, 2, 3, 0) / 255, atol=1e-7)
    assert np.asarray(nibabel.Nifti1Image.from_bytes(body).dataobj).max() <= 1
    assert np.allclose(image.affine, AFFINE)
    assert (image.get_data_dtype(), content_type) == (np.uint8, "application/x-nifti")
    assert (gzip.decompress(packed_body), packed_type) == (body, "application/x-nifti+gzip")


def test_nifti_of_a_single_image_has_four_axes_too_and_several_are_a_zip():
    traits = Traits(size=SHAPE[:2])
    single = dataclasses.replace(describe(np.zeros(SHAPE[:2], np.uint8), LABELS, traits), probabilities=VALUES[..., 0])

    body, content_type = encode_mask_files([single, single], "application/x-nifti; type=probabilities")

    assert content_type == "application/zip"
    with zipfile.ZipFile(io.BytesIO(body)) as archive:
        assert archive.namelist() == ["1.nii", "2.nii"]
        image = nibabel.Nifti1Image.from_bytes(archive.read("2.nii"))
    assert image.shape == (5, 7, 1, 2)
    assert np.array_equal(image.dataobj.get_unscaled()[:, :, 0], VALUES[..., 0].transpose(1, 2, 0))
    assert np.array_equal(image.affine, np.eye(4))


def test_a_prediction_of_other_code_without_probabilities_is_refused(coronal):
    prediction, traits = answer_on(coronal)

    with pytest.raises(NotAcceptable, match="accept another type"):
        encode_mask_files([prediction], "application/x-nifti; type=probabilities")
    with pytest.raises(NotAcceptable, match="accept another type"):
        encode_seg(prediction, traits, model=MODEL, now=NOW, kind="FRACTIONAL")
