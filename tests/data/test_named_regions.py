"""DICOM SEG, RTSTRUCT and folders of structures that overlap, where labels has regions of values."""

import nibabel
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sagemaker_monai.data.legends import read_legend
from sagemaker_monai.data.mask_reading import labels_on_grid
from sagemaker_monai.data.named_regions import read_named_regions
from sagemaker_monai.errors import DatasetError
from sagemaker_monai.masks.mask import Mask
from sagemaker_monai.tasks.label_maps import IGNORED
from tests.support.segmentations import grid_of, segmentation, series, written

LEGEND = read_legend({"background": 0, "whole": [1, 2, 4], "core": [2, 4], "enhancing": 4, "ignore": 9})
PARTS = np.random.default_rng(0).integers(0, 4, (4, 4, 4)).astype(np.uint8)
OF = {"whole": (1, 2, 3), "core": (2, 3), "enhancing": (3,)}


def reader(masks, findings=()):
    """A mask that has the structures of a dict."""

    def read(wanted):
        chosen = {number: name for number, name in enumerate(masks, start=1) if wanted(name)}
        values = np.zeros(PARTS.shape, np.uint16)
        for number, name in chosen.items():
            values[masks[name]] = number
        return Mask(values, chosen, findings, tuple(name for name in masks if name not in chosen.values()))

    return read


def structures(parts=PARTS, names=OF):
    return {name: np.isin(parts, OF[name]) for name in names}


def test_what_lies_together_is_the_part_that_labels_has_of_it():
    ignored = PARTS == 0
    masks = {" Enhancing": structures()["enhancing"], "CORE": structures()["core"], "whole": structures()["whole"]}

    found = read_named_regions(reader(masks | {"Ignore": ignored, "brain": PARTS >= 0}, ("odd",)), LEGEND)

    assert np.array_equal(found[0], np.where(ignored, IGNORED, PARTS))
    assert found[1] == ("structures_left_out", "odd")
    assert read_named_regions(reader(masks), LEGEND)[1] == ()
    assert read_named_regions(lambda _wanted: Mask(PARTS.astype(np.uint16)), LEGEND) is None


@pytest.mark.parametrize(("masks", "message"), [
    ({"brain": PARTS > 0}, "calls its structures brain, and labels has whole, core, enhancing: give both the same"),
    # Structures beside each other in place of one in the other.
    ({"whole": PARTS == 1, "core": PARTS == 2}, rf"has {(PARTS == 2).sum()} voxels in core and in no other structure"),
    ({"whole": PARTS > 0, "enhancing": PARTS == 3}, "voxels in enhancing, whole and in no other structure, and"),
    ({"whole": PARTS == 1, "Whole": PARTS == 2}, "several structures of the mask are whole by their names"),
])  # fmt: skip
def test_a_mask_whose_structures_lie_otherwise_is_refused(masks, message):
    with pytest.raises(DatasetError, match=message):
        read_named_regions(reader(masks), LEGEND)


@settings(max_examples=25)
@given(st.integers(0, 2**32 - 1), st.permutations(list(OF)))
def test_every_map_of_parts_is_read_again_from_its_structures(seed, order):
    parts = np.random.default_rng(seed).integers(0, 4, PARTS.shape).astype(np.uint8)

    assert np.array_equal(read_named_regions(reader(structures(parts, order)), LEGEND)[0], parts)


def test_segments_of_dicom_and_files_of_a_folder_may_overlap(tmp_path):
    files = series(shape=(4, 6, 5))
    grid = grid_of(files)
    parts = np.random.default_rng(1).integers(0, 4, grid.shape).astype(np.uint8)
    inside = [np.isin(parts, numbers) for numbers in OF.values()]
    seg = segmentation(
        files, np.stack([each.transpose(2, 1, 0) for each in inside], -1).astype(np.uint8), labels=tuple(OF)
    )
    folder = tmp_path / "segmentations"
    folder.mkdir()
    for name, each in zip(OF, inside, strict=True):
        nibabel.save(nibabel.Nifti1Image(each.astype(np.uint8), grid.affine), folder / f"{name}.nii.gz")
    nibabel.save(nibabel.Nifti1Image(np.array([0, 1, 2, 4], np.uint8)[parts], grid.affine), tmp_path / "values.nii.gz")

    for mask in (written(tmp_path / "seg.dcm", seg), folder, tmp_path / "values.nii.gz"):
        labels, findings = labels_on_grid(mask, grid, LEGEND)
        assert np.array_equal(labels, parts), mask
        assert findings == (), mask
