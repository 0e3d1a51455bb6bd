"""Label maps go the way of their images: forth onto the prepared grid, and back."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from sagemaker_monai.errors import UnsuitableImage
from sagemaker_monai.images.sample import Sample
from sagemaker_monai.images.volumes import Identity, Traits, Volume
from sagemaker_monai.preprocessing import ways
from sagemaker_monai.preprocessing.medical import LoadSlice, LoadVolume
from sagemaker_monai.preprocessing.ways import (
    Axis,
    fractions_back,
    labels_back,
    labels_forth,
    plane_way,
    rounded,
    volume_way,
    with_size,
)

TURNS = list(itertools.product(itertools.permutations(range(3)), itertools.product((1, -1), repeat=3)))


def affine_of(order, signs, spacing=(1.0, 1.5, 2.5)):
    affine = np.zeros((4, 4))
    affine[3, 3] = 1
    for axis, (world, sign) in enumerate(zip(order, signs, strict=True)):
        affine[world, axis] = sign * spacing[axis]
    affine[:3, 3] = (10, -20, 30)
    return affine


@pytest.mark.parametrize("fit", ["stretch", "pad", "whole"])
def test_a_prepared_voxel_comes_from_where_its_way_says_in_every_orientation(fit):
    """The image is its own coordinates, so its prepared values say where each voxel came from."""
    rng = np.random.default_rng(0)
    for order, signs in TURNS:
        shape, size = rng.integers(6, 12, 3), rng.integers(5, 14, 3)
        affine = affine_of(order, signs)
        spacing = None if fit == "stretch" else rng.uniform(0.8, 2.0, 3).tolist()
        places = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij")).astype(np.float32)
        load = LoadVolume(3, size.tolist(), fit, "RAS", spacing, {"kind": "none"})
        prepared = load._prepare(Volume(places.copy(), affine))

        way = load.way(Traits(size=tuple(shape), affine=affine, spacing_mm=(1, 1, 1)))

        assert tuple(axis.size for axis in way) == prepared.shape[1:]
        for axis, each in enumerate(way):
            centres = each.start + (np.arange(each.size) + 0.5) * each.step - 0.5
            values = np.moveaxis(prepared[each.source], axis, 0).reshape(each.size, -1).max(axis=1)
            is_inner = (centres > 1.5) & (centres < shape[each.source] - 2.5)
            assert np.abs(values - centres)[is_inner].max(initial=0) < 0.3


@pytest.mark.parametrize("turn", range(0, len(TURNS), 5))
def test_labels_on_an_unchanged_spacing_come_back_as_they_were(turn):
    order, signs = TURNS[turn]
    labels = np.random.default_rng(turn).integers(0, 5, (7, 5, 6)).astype(np.uint8)
    way = volume_way(labels.shape, affine_of(order, signs), orientation="RAS", spacing_mm=None, fit="whole", size=())

    assert np.array_equal(labels_back(labels_forth(labels, way), way, labels.shape), labels)


def test_a_volume_turned_to_ras_has_its_labels_where_an_independent_turn_has_them():
    labels = np.zeros((4, 5, 6), np.uint8)
    labels[0, 1, 2] = 7
    affine = np.diag([-1.0, 1.0, -1.0, 1.0])  # LAI

    way = volume_way(labels.shape, affine, orientation="RAS", spacing_mm=None, fit="whole", size=())

    assert np.argwhere(labels_forth(labels, way)).tolist() == [[3, 1, 3]]


@pytest.mark.parametrize(
    ("fit", "size"), [("stretch", (10, 10)), ("pad", (12, 12)), ("pad", (40, 30)), ("crop", (8, 8))]
)
def test_a_disc_on_a_picture_comes_back_about_as_it_was(fit, size):
    x, y = np.meshgrid(np.arange(24), np.arange(16), indexing="ij")
    labels = (np.hypot(x - 12, y - 8) < 6).astype(np.uint8)
    way = plane_way(labels.shape, fit, size)

    back = labels_back(labels_forth(labels, way), way, labels.shape, outside=9)

    inside = back != 9
    assert 2 * ((back == 1) & (labels == 1)).sum() / ((back == 1).sum() + (labels == 1)[inside].sum()) > 0.9
    assert inside.all() == (fit != "crop")


def test_what_lies_beyond_the_prepared_grid_has_no_label():
    labels = np.ones((9, 9, 9), np.uint8)
    way = volume_way(labels.shape, np.eye(4), orientation="RAS", spacing_mm=None, fit="pad", size=(3, 9, 11))

    forth = labels_forth(labels, way, outside=5)
    back = labels_back(forth, way, labels.shape, outside=6)

    assert forth.shape == (3, 9, 11)
    assert (forth[:, :, 0] == 5).all()
    assert (forth[:, :, 1:10] == 1).all()
    assert (back == 1).sum() == 3 * 9 * 9
    assert (back == 6).sum() == 6 * 9 * 9


def test_a_slice_of_oblong_pixels_is_padded_by_its_true_aspect():
    load = LoadSlice(1, (20, 20), "pad", {"kind": "none"})

    way = load.way(Traits(size=(10, 10), spacing_mm=(2.0, 1.0)))

    assert [(axis.size, axis.step) for axis in way] == [(20, 0.5), (20, 1.0)]
    assert way[1].start == -5


def test_the_size_of_a_picture_comes_from_its_header_and_dicom_as_a_picture_is_refused():
    values = np.zeros((3, 7, 5), np.uint8)

    assert with_size(Sample(values), Traits()).size == (7, 5)
    with pytest.raises(UnsuitableImage, match="not DICOM"):
        with_size(Sample(b""), Traits(Identity("1", ("2",))))


# --- fractions


def interpolated(fractions, way, shape):
    """The same by SciPy, as floats, and where the source lies within the prepared grid."""
    order = np.argsort([axis.source for axis in way])
    centres = [(np.arange(shape[axis.source]) + 0.5 - axis.start) / axis.step - 0.5 for axis in way]
    places = np.meshgrid(*centres, indexing="ij")
    values = ndimage.map_coordinates(fractions.astype(float), places, order=1, mode="nearest")
    inside = np.ones(values.shape, bool)
    for axis, place in zip(way, places, strict=True):
        inside &= (place > -0.8) & (place < axis.size - 0.2)
    return values.transpose(order), inside.transpose(order)


@pytest.mark.parametrize("turn", range(0, len(TURNS), 7))
@pytest.mark.parametrize(("fit", "spacing"), [("stretch", None), ("pad", (1.3, 0.9, 2.0)), ("whole", (0.7, 2.1, 2.5))])
def test_fractions_come_back_by_linear_interpolation(turn, fit, spacing):
    rng = np.random.default_rng(turn)
    shape, size = rng.integers(1, 12, 3), rng.integers(3, 14, 3)
    way = volume_way(shape, affine_of(*TURNS[turn]), orientation="RAS", spacing_mm=spacing, fit=fit, size=size.tolist())
    fractions = rng.integers(0, 256, [axis.size for axis in way]).astype(np.uint8)

    back = fractions_back(fractions, way, tuple(shape))

    expected, inside = interpolated(fractions, way, shape)
    assert back.shape == tuple(shape)
    assert np.abs(back - expected)[inside].max(initial=0) <= 0.502
    assert not back[~inside].any()


def test_fractions_on_an_unchanged_grid_come_back_as_they_were():
    for turn in range(0, len(TURNS), 5):
        fractions = np.random.default_rng(turn).integers(0, 256, (7, 5, 6)).astype(np.uint8)
        way = volume_way(
            fractions.shape, affine_of(*TURNS[turn]), orientation="RAS", spacing_mm=None, fit="whole", size=()
        )
        prepared = labels_forth(fractions, way)

        assert np.array_equal(fractions_back(prepared, way, fractions.shape), fractions)


@pytest.mark.parametrize("voxels", [1, 60, 1 << 20])
def test_labels_are_picked_the_same_in_slabs_of_any_size(voxels, monkeypatch):
    monkeypatch.setattr(ways, "_SLAB_VOXELS", voxels)
    labels = np.random.default_rng(0).integers(0, 9, (7, 5, 4)).astype(np.uint8)
    shape, affine = (6, 9, 11), np.diag([-0.7, 1.3, 2.0, 1.0])
    way = volume_way(shape, affine, orientation="ARS", spacing_mm=(1.0, 0.9, 1.7), fit="stretch", size=labels.shape)

    back = labels_back(labels, way, shape)

    for place in np.ndindex(shape):  # by hand: the prepared voxel that holds the centre
        at = [int(min(max((place[axis.source] + 0.5 - axis.start) // axis.step, 0), axis.size - 1)) for axis in way]
        assert back[place] == labels[tuple(at)]


@pytest.mark.parametrize("voxels", [1, 40, 1 << 20])
def test_the_size_of_slabs_changes_no_fraction(voxels, monkeypatch):
    fractions = np.random.default_rng(1).integers(0, 256, (6, 9)).astype(np.uint8)
    way = plane_way((14, 25), "pad", (6, 9))
    expected = fractions_back(fractions, way, (14, 25))
    monkeypatch.setattr(ways, "_SLAB_VOXELS", voxels)

    assert np.array_equal(fractions_back(fractions, way, (14, 25)), expected)


@settings(max_examples=100, deadline=None, derandomize=True)
@given(st.integers(1, 7), st.integers(2, 9), st.integers(1, 30), st.integers(0, 2**32 - 1))
def test_no_two_of_fractions_that_share_a_voxel_reach_a_half(structures, size, extent, seed):
    """Also of halves: two structures that meet in the middle between two voxels."""
    rng = np.random.default_rng(seed)
    shares = rng.dirichlet([0.2] * structures, size).T  # (K, size), whose sums are 1
    shares[:, rng.random(size) < 0.5] = np.eye(structures)[:, [rng.integers(structures)]]
    if structures > 1:
        shares[:, 0] = 0
        shares[:2, 0] = 0.5
    way = (Axis(0, 0.0, extent / size, size),)

    back = np.stack([fractions_back(rounded(255 * each), way, (extent,)).astype(int) for each in shares])

    assert ((back >= 127.5).sum(axis=0) <= 1).all()
    assert (back.sum(axis=0) <= 255 + structures / 2).all()
