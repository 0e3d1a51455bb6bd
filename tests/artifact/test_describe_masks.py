"""What is said of a label map, against numbers by hand."""

import numpy as np
import pytest

from sagemaker_monai.artifact.mask_predictor import describe
from sagemaker_monai.images.volumes import Traits


def test_sizes_components_extents_and_centres_are_those_by_hand():
    mask = np.zeros((6, 5, 4), np.uint8)
    mask[0:2, 1:3, 1] = 1  # four voxels
    mask[4, 4, 3] = 1  # and one apart
    affine = np.diag([2.0, 3.0, -5.0, 1.0])
    affine[:3, 3] = (10, 20, 30)

    prediction = describe(mask, ("a", "b"), Traits(size=mask.shape, spacing_mm=(2, 3, 5), affine=affine))

    found = prediction.structures["a"]
    assert (found.voxels, found.components, prediction.unit) == (5, 2, "ml")
    assert found.size == pytest.approx(5 * 30 / 1000)
    assert found.extent == (10, 12, 15)
    assert found.centroid == pytest.approx((10 + 2 * 6 / 5, 20 + 3 * 10 / 5, 30 - 5 * 7 / 5))
    assert (prediction.structures["b"].voxels, prediction.structures["b"].centroid) == (0, None)


def test_the_voxels_of_a_sheared_grid_are_no_boxes():
    affine = np.eye(4)
    affine[1, 2] = 1.0  # slices of a tilted gantry: 45 degrees

    prediction = describe(
        np.ones((2, 2, 2), np.uint8), ("a",), Traits(size=(2, 2, 2), spacing_mm=(1, 1, 2**0.5), affine=affine)
    )

    assert prediction.structures["a"].size == pytest.approx(8 / 1000)
