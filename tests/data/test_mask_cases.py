"""An image with its mask, as training reads them."""

import logging
from dataclasses import replace

import nibabel
import numpy as np
import pytest
import torch

from sagemaker_monai.data import case_loading, mask_reading
from sagemaker_monai.data.case_loading import load_cases
from sagemaker_monai.data.case_store import open_store
from sagemaker_monai.data.datasets import read_dataset
from sagemaker_monai.data.legends import Legend
from sagemaker_monai.data.mask_reading import read_case
from sagemaker_monai.errors import DatasetError, PayloadTooLarge
from sagemaker_monai.hyperparameters import TrainConfig
from sagemaker_monai.images.sample import Sample
from sagemaker_monai.images.volumes import Identity, Traits
from sagemaker_monai.preprocessing.medical import LoadSlice, LoadVolume
from sagemaker_monai.storage.digests import Digests
from sagemaker_monai.training.plan import make_plan
from tests.masks.test_contours import expected
from tests.masks.test_rtstruct import FILES, OUTLINE, SQUARE, contour, in_mm, structure_set, volume
from tests.support.dicom_series import to_bytes, write_series
from tests.support.mask_sets import write_balls
from tests.support.segmentations import written

NOTHING = {"kind": "none"}
SETS = [("BODY", [contour(in_mm(OUTLINE, 1))]), ("liver", [contour(in_mm(SQUARE, 1))])]


def test_of_a_structure_set_the_structures_with_a_label_are_read(tmp_path):
    """The outline of the body overlaps all others, and is left out before that is asked."""
    write_series(tmp_path / "series", FILES)
    path = written(tmp_path / "structures", structure_set(SETS))
    load = LoadVolume(1, (9, 8, 5), "stretch", "LPS", None, NOTHING)

    case = read_case(load, Sample(tmp_path / "series"), path, Legend((7,), ("Liver",)))

    assert np.array_equal(case.true, volume(s1=expected(SQUARE)))
    assert case.findings == ("structures_left_out",)


def test_a_single_slice_has_its_part_of_a_structure_set(tmp_path):
    path = written(tmp_path / "structures", structure_set(SETS))
    (tmp_path / "slice").write_bytes(to_bytes(FILES[1]))

    case = read_case(
        LoadSlice(1, (9, 8), "stretch", NOTHING), Sample(tmp_path / "slice"), path, Legend((7,), ("liver",))
    )

    assert np.array_equal(case.true, expected(SQUARE))


def load(root, cache_dir):
    config = TrainConfig(num_workers=1, max_unreadable_fraction=0.5)
    dataset = read_dataset({"training": root}, validation_fraction=0.2, test_fraction=0.2, seed=0)
    plan = make_plan(config, dataset, torch.device("cpu"))
    return load_cases(plan.config, dataset, plan.preprocessing, cache_dir=cache_dir, digests=Digests())


def test_copies_of_an_image_in_two_splits_and_blank_ones_are_named(tmp_path, caplog):
    """As of images without masks; the copy of the training image lies in the file of another header."""
    root = write_balls(tmp_path / "data", 7, {"training": 4, "validation": 1, "test": 2})
    folder = root / "imagesTr"
    copied = nibabel.load(folder / "case_02.nii.gz")
    nibabel.save(nibabel.Nifti1Image(copied.get_fdata(), copied.affine), folder / "case_05.nii.gz")
    mask = nibabel.load(root / "labelsTr" / "case_02.nii.gz")
    nibabel.save(mask, root / "labelsTr" / "case_05.nii.gz")
    blank = nibabel.load(folder / "case_01.nii.gz")
    nibabel.save(nibabel.Nifti1Image(np.full(blank.shape, 7.0), blank.affine), folder / "case_01.nii.gz")

    with caplog.at_level(logging.WARNING):
        load(root, tmp_path / "cache")

    assert (
        "equal images in two splits make the scores too good: imagesTr/case_02.nii.gz = imagesTr/case_05.nii.gz"
        in caplog.text
    )
    assert "1 of 7 images show nothing once they are prepared" in caplog.text


def test_a_structure_that_no_mask_of_a_split_shows_is_told(tmp_path, caplog):
    root = write_balls(tmp_path / "data", 5, {"training": 3, "validation": 1, "test": 1})
    path = root / "labelsTr" / "case_03.nii.gz"
    mask = nibabel.load(path)
    values = np.asarray(mask.dataobj)
    nibabel.save(nibabel.Nifti1Image(np.where(values == 2, 0, values).astype(np.uint8), mask.affine), path)

    with caplog.at_level(logging.WARNING):
        load(root, tmp_path / "cache")

    assert "no mask of the validation split shows dark: its scores there only say" in caplog.text
    assert "of the test split" not in caplog.text


def test_a_mask_among_dicom_images_is_refused_as_without_masks(tmp_path, monkeypatch):
    root = write_balls(tmp_path / "data", 4, {"training": 2, "validation": 1, "test": 1})
    kinds = [Traits(Identity("", (), kind=kind, modality="CT")) for kind in ("image", "image", "mask", "image")]

    def open_as_dicom(*arguments, **options):
        store = open_store(*arguments, **options)
        store.cases = tuple(replace(case, traits=kind) for case, kind in zip(store.cases, kinds, strict=True))
        return store

    monkeypatch.setattr(case_loading, "open_store", open_as_dicom)

    with pytest.raises(
        DatasetError, match=r"1 of 4 images are not images like the others, but CT \(mask\) \(.*case_02"
    ):
        load(root, tmp_path / "cache")


def test_an_image_larger_than_the_memory_is_refused_before_it_is_decoded(tmp_path, monkeypatch):
    nibabel.save(nibabel.Nifti1Image(np.zeros((40, 40, 40), np.int16), np.eye(4)), tmp_path / "image.nii")
    nibabel.save(nibabel.Nifti1Image(np.ones((40, 40, 40), np.uint8), np.eye(4)), tmp_path / "mask.nii")
    load, legend = LoadVolume(1, (16, 16, 16), "whole", "RAS", None, NOTHING), Legend((1,), ("a",))

    def read():
        return read_case(load, Sample(tmp_path / "image.nii"), tmp_path / "mask.nii", legend)

    monkeypatch.setattr(mask_reading, "memory_bytes", lambda: 16 * 40**3)
    assert read().values.shape == (1, 40, 40, 40)
    monkeypatch.setattr(mask_reading, "memory_bytes", lambda: 4 * 40**3)
    monkeypatch.setattr("sagemaker_monai.images.formats.nifti.read_values", lambda *_: pytest.fail("decoded"))
    with pytest.raises(PayloadTooLarge, match=r"40 x 40 x 40 takes .* GiB while .* spacing_mm"):
        read()
