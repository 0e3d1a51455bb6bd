"""Masks whose files name their structures, of which those without a label are left out."""

import numpy as np
import pytest

from sagemaker_monai.data.legends import Legend, read_legend
from sagemaker_monai.errors import DatasetError
from sagemaker_monai.masks.mask import Mask
from sagemaker_monai.tasks.label_maps import IGNORED

LEGEND = Legend((1, 2), ("liver", "tumour"))
VALUES = np.array([[0, 1, 2], [7, 7, 0]], np.uint16)


def test_structures_are_wanted_by_their_names():
    assert LEGEND.is_named(" LIVER")
    assert not LEGEND.is_named("liver left")
    assert LEGEND.labels_of(Mask(VALUES[:1], {1: "Tumour", 2: "liver"}, left_out=("BODY",)))[1] == (
        "structures_left_out",
    )


def test_a_mask_none_of_whose_structures_has_a_label_is_no_empty_one():
    with pytest.raises(DatasetError, match="Segment_1, BODY, and labels has liver, tumour"):
        LEGEND.labels_of(Mask(np.zeros((2, 2), np.uint16), left_out=("Segment_1", "BODY")))


def test_two_structures_of_one_name_are_refused_where_both_have_voxels():
    with pytest.raises(DatasetError, match="are one by their names"):
        LEGEND.labels_of(Mask(VALUES, {1: "liver", 2: "tumour", 7: "Liver"}))

    labels, _ = LEGEND.labels_of(Mask(VALUES[1:], {5: "liver", 7: "Liver"}))
    assert np.array_equal(labels, [[1, 1, 0]])


def test_what_nobody_annotated_may_be_named():
    legend = read_legend({"background": 0, "liver": 1, "ignore": 2})

    labels, findings = legend.labels_of(Mask(VALUES[1:], {7: "Ignore", 2: "liver"}))

    assert np.array_equal(labels, [[IGNORED, IGNORED, 0]])
    assert findings == ()
