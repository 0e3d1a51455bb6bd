"""Label maps go the way of their images: forth onto the prepared grid, and back."""

import itertools

import numpy as np
import pytest

from sagemaker_monai.errors import UnsuitableImage
from sagemaker_monai.images.sample import Sample
from sagemaker_monai.images.volumes import Identity, Traits, Volume
from sagemaker_monai.preprocessing.medical import LoadSlice, LoadVolume
from sagemaker_monai.preprocessing.ways import labels_back, labels_forth, plane_way, volume_way, with_size

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
