"""Masks in NIfTI, NRRD, MetaImage and NumPy files, written by other programs."""

import gzip

import nibabel
import nrrd
import numpy as np
import pytest
import SimpleITK
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sagemaker_monai.budget import Limits, spending
from sagemaker_monai.errors import CallerError, PayloadTooLarge, UndecodableImage, UnsuitableImage
from sagemaker_monai.images.read import read_volumes_of
from sagemaker_monai.images.sample import Sample
from sagemaker_monai.masks.mask import Grid
from sagemaker_monai.masks.read_mask import read_mask
from sagemaker_monai.messages.remarks import REMARKS
from tests.support.odd_volumes import HIPPOCAMPUS, LPS, oblique, write_simpleitk

SHAPE = (5, 6, 7)
AFFINE = oblique()
GRID = Grid(SHAPE, AFFINE)
LABELS = np.random.default_rng(3).integers(0, 5, SHAPE).astype(np.uint8)


def nifti(path, values, affine=AFFINE, **header):
    image = nibabel.Nifti1Image(values, affine)
    for name, value in header.items():
        image.header[name] = value
    nibabel.save(image, path)
    return path


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz", ".nrrd", ".mha"])
@pytest.mark.parametrize("dtype", ["u1", "i2", "u2", "i4", "f4", "f8"])
def test_labels_of_every_format_and_type_are_those_that_were_written(tmp_path, suffix, dtype):
    write_simpleitk(tmp_path / f"a{suffix}", LABELS.astype(dtype), AFFINE, compress=True)

    mask = read_mask(tmp_path / f"a{suffix}", GRID)

    assert np.array_equal(mask.values, LABELS)
    assert mask.values.dtype == np.uint16
    assert (mask.names, mask.findings) == ({}, ())


@settings(max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(codes=st.sampled_from(["RAS", "LPS", "PIR", "SAL", "ILA", "AIR"]), seed=st.integers(0, 99))
def test_a_mask_that_another_program_turned_is_turned_back(tmp_path, codes, seed):
    """nibabel and SimpleITK reorder a file as they do for people."""
    labels = np.random.default_rng(seed).integers(0, 9, SHAPE).astype(np.uint8)
    image = nibabel.Nifti1Image(labels, AFFINE)
    own, wanted = nibabel.orientations.io_orientation(AFFINE), nibabel.orientations.axcodes2ornt(codes)
    nibabel.save(image.as_reoriented(nibabel.orientations.ornt_transform(own, wanted)), tmp_path / "a.nii")
    write_simpleitk(tmp_path / "b.nrrd", labels, AFFINE)
    turned = SimpleITK.DICOMOrient(SimpleITK.ReadImage(str(tmp_path / "b.nrrd")), codes)
    SimpleITK.WriteImage(turned, str(tmp_path / "b.nrrd"))

    for name in ("a.nii", "b.nrrd"):
        assert np.array_equal(read_mask(tmp_path / name, GRID).values, labels)


def test_a_real_mask_lies_on_its_image(shared_data):
    for name in ("hippocampus_001.nii.gz", "hippocampus_003.nii.gz"):
        image = read_volumes_of(Sample(HIPPOCAMPUS / "imagesTr" / name))[0]
        expected = np.asarray(nibabel.load(HIPPOCAMPUS / "labelsTr" / name).dataobj)

        mask = read_mask(HIPPOCAMPUS / "labelsTr" / name, Grid.of(image))

        assert np.array_equal(mask.values, expected)
        assert set(np.unique(mask.values)) == {0, 1, 2}
    with pytest.raises(UnsuitableImage, match="another grid"):
        read_mask(HIPPOCAMPUS / "labelsTr" / "hippocampus_001.nii.gz", Grid.of(image))


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (-1, "-1 is negative"),
        (65_536, "65536 is more than 65535"),
        (0.5, "0.5 is not whole"),
        (2.99, "2.99 is not whole"),
        (1e30, "1e\\+30 is more"),
        (np.nan, "NaN or infinite"),
        (np.inf, "NaN or infinite"),
    ],
)
def test_a_number_that_no_structure_has_is_refused_with_the_number(tmp_path, value, words):
    values = LABELS.astype(np.float64)
    values[1, 2, 3] = value

    with pytest.raises(UnsuitableImage, match=words):
        read_mask(nifti(tmp_path / "a.nii", values), GRID)


def test_a_number_that_is_nearly_whole_is_rounded_and_said(tmp_path):
    mask = read_mask(nifti(tmp_path / "a.nii", LABELS * 0.99999), GRID)

    assert np.array_equal(mask.values, LABELS)
    assert mask.findings == ("mask_values_rounded",)


def test_the_highest_number_is_kept(tmp_path):
    values = LABELS.astype(np.float32)
    values[0, 0, 0] = 65_535

    assert read_mask(nifti(tmp_path / "a.nii", values), GRID).values[0, 0, 0] == 65_535


def test_a_factor_of_the_header_is_applied_and_said(tmp_path):
    path = nifti(tmp_path / "a.nii", LABELS)
    content = bytearray(path.read_bytes())
    content[112:120] = np.array([2, 1], "<f4").tobytes()  # scl_slope and scl_inter
    path.write_bytes(content)

    mask = read_mask(path, GRID)

    assert np.array_equal(mask.values, nibabel.load(path).get_fdata())
    assert np.array_equal(mask.values, LABELS * 2 + 1)
    assert mask.findings == ("mask_values_scaled",)
    content[112:116] = np.array([0.5], "<f4").tobytes()
    path.write_bytes(content)
    with pytest.raises(UnsuitableImage, match="not whole"):
        read_mask(path, GRID)


def test_several_channels_are_refused(tmp_path):
    with pytest.raises(UnsuitableImage, match="2 channels"):
        read_mask(nifti(tmp_path / "a.nii", np.stack([LABELS, LABELS], axis=3)), GRID)


def test_an_image_is_no_mask(tmp_path):
    values = np.random.default_rng(0).normal(0, 100, SHAPE).astype(np.float32)

    with pytest.raises(UnsuitableImage, match="whole numbers"):
        read_mask(nifti(tmp_path / "a.nii", values), GRID)


def test_geometry_that_a_mask_lacks_is_said(tmp_path):
    image = nibabel.Nifti1Image(LABELS, None)
    image.set_sform(None, code=0)
    image.set_qform(None, code=0)
    nibabel.save(image, tmp_path / "a.nii")

    assert read_mask(tmp_path / "a.nii", GRID).findings == ("mask_place_unproved",)


def test_what_is_odd_about_a_masks_own_geometry_is_handed_on(tmp_path):
    image = nibabel.Nifti1Image(LABELS, AFFINE)
    image.set_qform(np.diag([3, 3, 3, 1]), code=1)
    nibabel.save(image, tmp_path / "a.nii")

    assert "contradicting_transforms" in read_mask(tmp_path / "a.nii", GRID).findings


# --- NumPy -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [bool, np.uint8, np.int64, np.float64])
def test_an_array_has_the_images_order(tmp_path, dtype):
    values = (LABELS > 2).astype(dtype)
    np.save(tmp_path / "a.npy", values)

    mask = read_mask(tmp_path / "a.npy", Grid(SHAPE))

    assert np.array_equal(mask.values, values)
    assert mask.findings == ()


def test_an_array_of_a_square_says_that_its_order_is_taken_on_trust(tmp_path):
    values = np.arange(16, dtype=np.uint8).reshape(4, 4)
    np.save(tmp_path / "a.npy", values)

    mask = read_mask(tmp_path / "a.npy", Grid((4, 4)))

    assert np.array_equal(mask.values, values)
    assert mask.findings == ("mask_axes_by_convention",)


@pytest.mark.parametrize("shape", [(4, 5), (1, 4, 5), (4, 5, 1)])
def test_an_array_of_a_picture_may_have_an_axis_of_one(tmp_path, shape):
    values = np.arange(20, dtype=np.uint8)
    np.save(tmp_path / "a.npy", values.reshape(shape))

    assert np.array_equal(read_mask(tmp_path / "a.npy", Grid((4, 5))).values, values.reshape(4, 5))


def test_an_array_with_rows_first_is_refused(tmp_path):
    np.save(tmp_path / "a.npy", LABELS.transpose())

    with pytest.raises(UnsuitableImage, match="another order"):
        read_mask(tmp_path / "a.npy", Grid(SHAPE))


def test_an_npz_with_an_affine_is_placed_by_it(tmp_path):
    turn = np.diag([-1.0, 1, 1, 1])
    turn[0, 3] = SHAPE[0] - 1
    np.savez(tmp_path / "a.npz", image=LABELS[::-1], affine=AFFINE @ turn)

    assert np.array_equal(read_mask(tmp_path / "a.npz", GRID).values, LABELS)


# --- segmentations of 3D Slicer --------------------------------------------------------------------------------------


def segmentation(path, values, segments, **keys):
    """As Slicer writes it: (W, H, D), or (C, W, H, D) with a list of layers; `segments` is (name, value, layer)."""
    matrix = LPS @ AFFINE
    directions = list(matrix[:3, :3].T)
    header = {
        "space": "left-posterior-superior",
        "space origin": matrix[:3, 3],
        "kinds": ["domain"] * 3,
        "space directions": directions,
        "Segmentation_MasterRepresentation": "Binary labelmap",
    }
    if values.ndim == 4:
        header |= {"kinds": ["list", *["domain"] * 3], "space directions": [[np.nan] * 3, *directions]}
    for place, (name, value, layer) in enumerate(segments):
        header |= {f"Segment{place}_ID": f"s{place}", f"Segment{place}_Extent": "0 1 0 1 0 1"}
        given = {"Name": name, "LabelValue": value, "Layer": layer}
        header |= {f"Segment{place}_{key}": str(item) for key, item in given.items() if item is not None}
    # pynrrd knows the field names only; all others become keys
    nrrd.write(str(path), values, header | keys)
    return path


def test_segments_have_names(tmp_path):
    path = segmentation(tmp_path / "a.seg.nrrd", LABELS % 3, [("liver", 2, 0), ("spleen", 1, 0)])

    mask = read_mask(path, GRID)

    assert np.array_equal(mask.values, LABELS % 3)
    assert mask.names == {2: "liver", 1: "spleen"}
    assert mask.findings == ()


def test_layers_that_do_not_overlap_become_one_map(tmp_path):
    layers = np.stack([LABELS == 1, 2 * (LABELS == 2) + (LABELS == 3)]).astype(np.uint8)
    path = segmentation(tmp_path / "a.nrrd", layers, [("one", 1, 0), ("two", 2, 1), ("three", 1, 1)])

    mask = read_mask(path, GRID)

    assert mask.names == {1: "one", 2: "two", 3: "three"}
    assert np.array_equal(mask.values, np.where(LABELS < 4, LABELS, 0))
    assert mask.findings == ("segments_renumbered",)


def test_layers_that_overlap_are_refused_by_name_unless_one_is_wanted(tmp_path):
    layers = np.stack([LABELS >= 2, 2 * (LABELS == 3)]).astype(np.uint8)
    path = segmentation(tmp_path / "a.nrrd", layers, [("organ", 1, 0), ("tumour", 2, 1)])

    with pytest.raises(UnsuitableImage, match=rf"organ and tumour \({np.sum(LABELS == 3)} voxels\)"):
        read_mask(path, GRID)

    mask = read_mask(path, GRID, wanted=lambda name: name == "tumour")
    assert np.array_equal(mask.values, 2 * (LABELS == 3))
    assert (mask.names, mask.left_out) == ({2: "tumour"}, ("organ",))


def test_segmentations_from_before_layers_have_a_channel_a_segment(tmp_path):
    layers = np.stack([LABELS == 1, LABELS == 2]).astype(np.uint8)
    path = segmentation(tmp_path / "a.nrrd", layers, [("one", None, None), ("two", None, None)])

    mask = read_mask(path, GRID)

    assert np.array_equal(mask.values, np.where(LABELS < 3, LABELS, 0))
    assert mask.names == {1: "one", 2: "two"}


def test_a_number_without_a_segment_is_said_and_in_layers_refused(tmp_path):
    assert read_mask(segmentation(tmp_path / "a.nrrd", LABELS, [("one", 1, 0)]), GRID).findings == (
        "mask_values_unnamed",
    )
    layers = np.stack([LABELS == 1, 5 * (LABELS == 2)]).astype(np.uint8)
    with pytest.raises(UnsuitableImage, match=r"layer 2 .* values 5"):
        read_mask(segmentation(tmp_path / "b.nrrd", layers, [("one", 1, 0), ("two", 2, 1)]), GRID)


@pytest.mark.parametrize(
    ("segments", "keys", "words"),
    [
        ([("one", 1, 0), ("two", 1, 0)], {}, "value 1 in one layer"),
        ([("one", 0, 0)], {}, "LabelValue"),
        ([("one", "1.5", 0)], {}, "LabelValue"),
        ([("one", 70_000, 0)], {}, "LabelValue"),
        ([("one", 1, 1)], {}, "a layer that"),
        ([("one", 1, "-1")], {}, "Layer"),
        ([("one", 1, 0)], {"Segmentation_MasterRepresentation": "Fractional labelmap"}, "binary labelmap"),
    ],
)
def test_a_segmentation_that_contradicts_itself_is_refused(tmp_path, segments, keys, words):
    with pytest.raises(CallerError, match=words):
        read_mask(segmentation(tmp_path / "a.nrrd", LABELS, segments, **keys), GRID)


# --- broken and hostile ----------------------------------------------------------------------------------------------


def test_what_is_cut_off_or_no_mask_is_refused(tmp_path):
    whole = nifti(tmp_path / "a.nii.gz", LABELS).read_bytes()
    (tmp_path / "cut.nii.gz").write_bytes(whole[:-20])
    (tmp_path / "text.nii").write_text("no mask")
    (tmp_path / "empty.nrrd").write_bytes(b"")

    for name in ("cut.nii.gz", "text.nii", "empty.nrrd", "missing.nii"):
        with pytest.raises(UndecodableImage):
            read_mask(tmp_path / name, GRID)


def test_a_mask_beyond_the_budget_is_refused_before_it_is_made(tmp_path):
    path = nifti(tmp_path / "a.nii.gz", np.zeros((400, 400, 400), np.uint8), np.eye(4))

    with spending(Limits(memory_bytes=128 << 20).budget(path.stat().st_size)), pytest.raises(PayloadTooLarge):
        read_mask(path, Grid((400, 400, 400), np.eye(4)))


@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_changed_byte_changes_nothing_or_is_said(tmp_path, data):
    """Of a packed file every change is noticed; of a header what is left is a mask on the image's own grid."""
    whole = gzip.decompress(nifti(tmp_path / "a.nii.gz", LABELS).read_bytes())
    place = data.draw(st.integers(0, 351))
    content = bytearray(whole)
    content[place] = data.draw(st.integers(0, 255))
    (tmp_path / "b.nii").write_bytes(content)

    try:
        mask = read_mask(tmp_path / "b.nii", GRID)
    except CallerError:
        return

    assert mask.values.shape == SHAPE
    assert np.array_equal(mask.values, LABELS) or mask.findings


def test_every_finding_has_a_sentence():
    for code in ("mask_place_unproved", "mask_axes_by_convention", "mask_values_rounded", "mask_values_scaled",
                 "mask_values_unnamed", "segments_renumbered"):  # fmt: skip
        assert "{n}" in REMARKS[code][2]
