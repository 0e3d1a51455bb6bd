"""The drawn CT series with masks, and the scores of their demo."""

import json

import nibabel
import numpy as np
import pytest
from pydicom import dcmread

from develop.draw_volumes import CYST_HU, INTERCEPT_HU, ORGAN_HU, STRUCTURES, draw_masked
from develop.mask_answers import dice_of, overlap


def test_drawn_masks_lie_where_the_structures_are_as_dicom_and_as_nifti(tmp_path):
    series, volumes = draw_masked(tmp_path / "a", 1, seed=3), draw_masked(tmp_path / "b", 1, seed=3, as_nifti=True)

    slices = sorted(map(dcmread, (series / "scans" / "000").iterdir()), key=lambda each: each.ImagePositionPatient[2])
    values = np.stack([each.pixel_array.T + float(each.RescaleIntercept) for each in slices], axis=-1)
    labels = np.asarray(nibabel.load(series / "masks" / "000.nii.gz").dataobj)
    volume = nibabel.load(volumes / "scans" / "000.nii.gz")
    for value, level in enumerate((ORGAN_HU, CYST_HU), start=1):
        assert values[labels == value].mean() == pytest.approx(level, abs=5)
    stored = np.maximum(np.asarray(volume.dataobj), INTERCEPT_HU)  # noise below it is cut off in DICOM
    assert np.abs(stored - values).max() <= 0.51
    assert json.loads((series / "dataset.json").read_text())["labels"] == {"background": 0, "organ": 1, "cyst": 2}
    assert STRUCTURES == ("organ", "cyst")


def test_dice_is_one_of_nothing_and_half_of_half_and_needs_one_grid(tmp_path):
    one = np.zeros((2, 2, 2), bool)
    other = one.copy()
    assert overlap(one, other) == 1
    one[0, 0], other[0, :, 0] = True, True
    assert overlap(one, other) == 0.5

    nibabel.save(nibabel.Nifti1Image(one.astype(np.uint8), np.eye(4)), tmp_path / "mask.nii")
    assert dice_of(nibabel.Nifti1Image(other.astype(np.uint8), np.eye(4)), tmp_path / "mask.nii", 1) == 0.5
    with pytest.raises(SystemExit, match="another grid"):
        dice_of(nibabel.Nifti1Image(other.astype(np.uint8), 2 * np.eye(4)), tmp_path / "mask.nii", 1)
