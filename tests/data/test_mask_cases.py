"""An image with its mask, as training reads them."""

import numpy as np

from sagemaker_monai.data.legends import Legend
from sagemaker_monai.data.mask_reading import read_case
from sagemaker_monai.images.sample import Sample
from sagemaker_monai.preprocessing.medical import LoadSlice, LoadVolume
from tests.masks.test_contours import expected
from tests.masks.test_rtstruct import FILES, OUTLINE, SQUARE, contour, in_mm, structure_set, volume
from tests.support.dicom_series import to_bytes, write_series
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
