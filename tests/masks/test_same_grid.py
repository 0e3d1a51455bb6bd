"""Whether a mask lies on its image's grid, and in which order it was stored."""

import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sagemaker_monai.errors import UnsuitableImage
from sagemaker_monai.images.volumes import Frame, Volume
from sagemaker_monai.masks.mask import Grid
from sagemaker_monai.masks.same_grid import on_grid
from tests.support.odd_volumes import oblique

SHAPE = (4, 5, 6)


def stored_otherwise(values, affine, order, flips):
    """The same grid with its axes in another order and counted from the other end, by the definition of an affine."""
    turn = np.zeros((4, 4))
    turn[3, 3] = 1
    for axis, (old, is_flipped) in enumerate(zip(order, flips, strict=True)):
        turn[old, axis] = -1 if is_flipped else 1
        turn[old, 3] = values.shape[old] - 1 if is_flipped else 0
    changed = np.empty([values.shape[old] for old in order], values.dtype)
    for place in np.ndindex(changed.shape):
        there = turn @ [*place, 1]
        changed[place] = values[tuple(there[:3].astype(int))]
    return changed, affine @ turn


@given(
    shape=st.tuples(*[st.integers(1, 5)] * 3),
    order=st.permutations(range(3)),
    flips=st.tuples(*[st.booleans()] * 3),
    spacing=st.tuples(*[st.floats(0.3, 6)] * 3),
    origin=st.tuples(*[st.floats(-300, 300)] * 3),
)
def test_a_mask_stored_otherwise_comes_back_to_the_images_order(shape, order, flips, spacing, origin):
    values = np.arange(np.prod(shape), dtype=np.uint16).reshape(shape)
    affine = oblique(spacing, origin)

    placed, findings = on_grid(*stored_otherwise(values, affine, order, flips), Grid(shape, affine))

    assert np.array_equal(placed, values)
    assert findings == ()


def test_a_sheared_grid_is_no_other_one():
    affine = oblique()
    affine[:3, 2] += [0.4, -0.2, 0.1]  # a tilted gantry
    values = np.arange(120, dtype=np.uint16).reshape(SHAPE)

    placed, _ = on_grid(*stored_otherwise(values, affine, (2, 0, 1), (True, False, True)), Grid(SHAPE, affine))

    assert np.array_equal(placed, values)


@pytest.mark.parametrize(
    ("spacing", "shift_mm", "is_same"),
    [
        ((1, 1, 1), 0.09, True),
        ((1, 1, 1), 0.11, False),
        ((5, 5, 5), 0.45, True),  # less than half a millimetre, and than a tenth of a voxel
        ((8, 8, 8), 0.6, False),  # less than a tenth of a voxel, but more than half a millimetre
    ],
)
@pytest.mark.parametrize("axis", [0, 1, 2])
def test_corners_may_lie_a_tenth_of_a_voxel_and_half_a_millimetre_apart(spacing, shift_mm, is_same, axis):
    affine = np.diag([*spacing, 1.0])
    shifted = affine.copy()
    shifted[axis, 3] += shift_mm
    values = np.zeros(SHAPE, np.uint16)

    if is_same:
        on_grid(values, shifted, Grid(SHAPE, affine))
    else:
        with pytest.raises(UnsuitableImage, match=re.escape(f"up to {shift_mm} mm")):
            on_grid(values, shifted, Grid(SHAPE, affine))


def test_a_step_that_is_a_little_longer_adds_up_to_another_grid():
    affine, longer = np.eye(4), np.diag([1.001, 1, 1, 1])

    on_grid(np.zeros((50, 2, 2), np.uint16), longer, Grid((50, 2, 2), affine))
    with pytest.raises(UnsuitableImage, match="up to 0"):
        on_grid(np.zeros((201, 2, 2), np.uint16), longer, Grid((201, 2, 2), affine))


def test_a_tighter_tolerance_can_be_asked_for():
    shifted = np.eye(4)
    shifted[0, 3] = 0.05

    on_grid(np.zeros(SHAPE, np.uint16), shifted, Grid(SHAPE, np.eye(4)))
    with pytest.raises(UnsuitableImage):
        on_grid(np.zeros(SHAPE, np.uint16), shifted, Grid(SHAPE, np.eye(4)), tolerance_mm=0.01)


def test_the_refusal_of_another_grid_shows_both():
    with pytest.raises(UnsuitableImage) as refusal:
        on_grid(np.zeros((4, 5, 3), np.uint16), np.diag([2.0, 2, 5, 1]), Grid(SHAPE, np.diag([-1.0, 1, 1, 1])))

    text = str(refusal.value)
    assert "4 x 5 x 3 voxels of 2 x 2 x 5 mm towards RAS from (0, 0, 0)" in text
    assert "4 x 5 x 6 voxels of 1 x 1 x 1 mm towards LAS" in text
    assert "nearest neighbour" in text


def test_a_turn_of_a_degree_is_another_grid():
    turned = np.eye(4)
    turned[:2, :2] = [[np.cos(0.02), -np.sin(0.02)], [np.sin(0.02), np.cos(0.02)]]

    with pytest.raises(UnsuitableImage, match="elsewhere"):
        on_grid(np.zeros((20, 20, 4), np.uint16), turned, Grid((20, 20, 4), np.eye(4)))


@pytest.mark.parametrize("affines", [(None, np.eye(4)), (np.eye(4), None)])
def test_where_one_says_nothing_of_its_place_sizes_are_compared_and_that_is_said(affines):
    values = np.arange(120, dtype=np.uint16).reshape(SHAPE)

    placed, findings = on_grid(values, affines[0], Grid(SHAPE, affines[1]))

    assert np.array_equal(placed, values)
    assert findings == ("mask_place_unproved",)


def test_two_pictures_of_one_size_need_no_word():
    assert on_grid(np.zeros((4, 5), np.uint16), None, Grid((4, 5)))[1] == ()


def test_a_picture_that_fits_only_when_it_is_transposed_is_refused_and_told_so():
    with pytest.raises(UnsuitableImage, match="axes in another order"):
        on_grid(np.zeros((5, 4), np.uint16), None, Grid((4, 5)))
    with pytest.raises(UnsuitableImage, match=r"5 x 4 pixels .* image 7 x 5"):
        on_grid(np.zeros((5, 4), np.uint16), None, Grid((7, 5)))


def test_a_slice_is_compared_with_a_volume_of_one():
    affine = oblique()
    thicker = affine.copy()
    thicker[:3, 2] *= 3  # the thickness of a single slice does not determine its place
    values = np.arange(20, dtype=np.uint16).reshape(4, 5, 1)

    placed, _ = on_grid(values[:, ::-1], thicker @ [[1, 0, 0, 0], [0, -1, 0, 4], [0, 0, 1, 0], [0, 0, 0, 1]],
                        Grid((4, 5), affine))  # fmt: skip

    assert np.array_equal(placed, values[..., 0])


def test_the_grid_of_an_image_is_its_shape_and_its_place_where_it_has_one():
    volume = Grid.of(Volume(np.zeros((1, 4, 5, 6), np.float32), oblique()))
    bare = Grid.of(Volume(np.zeros((2, 4, 5, 6), np.float32), np.eye(4), has_geometry=False))
    picture = Grid.of(Frame(np.zeros((3, 4, 5), np.uint8), None))

    assert volume.shape == bare.shape == SHAPE
    assert np.array_equal(volume.affine, oblique())
    assert bare.affine is None
    assert (picture.shape, picture.affine) == ((4, 5), None)
