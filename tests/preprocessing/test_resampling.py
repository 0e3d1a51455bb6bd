import itertools

import nibabel
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from nibabel import orientations
from PIL import Image
from scipy import ndimage

from sagemaker_monai.errors import PayloadTooLarge, UnsuitableImage
from sagemaker_monai.images.volumes import Volume
from sagemaker_monai.preprocessing.resampling import crop_or_pad, reorient, resample, resize, spacing_of


def turned(angles_rad=(0.0, 0.0, 0.0), spacing=(1.0, 1.0, 1.0), order=(0, 1, 2), signs=(1, 1, 1), origin=(5, -7, 11)):
    """An affine: axes permuted and flipped, then turned about the world's x, y and z."""
    matrix = np.eye(3)
    for axis, angle in enumerate(angles_rad):
        turn = np.eye(3)
        first, second = [index for index in range(3) if index != axis]
        turn[first, first] = turn[second, second] = np.cos(angle)
        turn[second, first], turn[first, second] = np.sin(angle), -np.sin(angle)
        matrix = turn @ matrix
    affine = np.eye(4)
    affine[:3, :3] = (matrix @ np.eye(3)[:, list(order)]) * np.array(signs) * np.array(spacing)
    affine[:3, 3] = origin
    return affine


def smooth(points_mm):
    """A value for every point of the world; (..., 3) in mm."""
    x, y, z = np.moveaxis(np.asarray(points_mm), -1, 0)
    return np.sin(x / 30) + np.cos(y / 25) * np.sin(z / 40) + z / 100


def world(shape, affine):
    index = np.stack(np.meshgrid(*(np.arange(side) for side in shape), indexing="ij"), axis=-1)
    return index @ affine[:3, :3].T + affine[:3, 3]


def volume(shape=(24, 20, 16), **geometry):
    affine = turned(**geometry)
    return Volume(smooth(world(shape, affine)).astype(np.float32)[None], affine)


PLANES = {
    "axial": {"signs": (-1, -1, 1)},
    "sagittal": {"order": (1, 2, 0), "signs": (-1, -1, 1)},
    "coronal": {"order": (0, 2, 1), "signs": (-1, -1, 1)},
    "oblique": {"angles_rad": (0.3, -0.2, 0.4), "order": (1, 2, 0)},
}


@pytest.mark.parametrize("order", list(itertools.permutations(range(3))))
@pytest.mark.parametrize("axcodes", ["RAS", "LPS", "SAR", "PIL"])
def test_turning_is_exact_and_is_nibabels(order, axcodes):
    given_volume = volume(angles_rad=(0.2, -0.1, 0.15), order=order, signs=(1, -1, -1), spacing=(1, 2, 3))

    result = reorient(given_volume, axcodes)

    change = orientations.ornt_transform(
        orientations.io_orientation(given_volume.affine), orientations.axcodes2ornt(axcodes)
    )
    image = nibabel.Nifti1Image(given_volume.values[0], given_volume.affine).as_reoriented(change)
    assert np.array_equal(result.values[0], np.asarray(image.dataobj))
    assert np.allclose(result.affine, image.affine)
    assert "".join(nibabel.aff2axcodes(result.affine)) == axcodes
    assert np.allclose(result.values[0], smooth(world(result.values.shape[1:], result.affine)), atol=1e-5)


@pytest.mark.parametrize("plane", PLANES)
@pytest.mark.parametrize("spacing_mm", [(1.0, 1.0, 1.0), (0.7, 2.5, 1.3), (4.0, 4.0, 4.0)])
def test_every_voxel_of_the_new_grid_has_the_value_of_its_place_in_the_world(plane, spacing_mm):
    given_volume = reorient(volume((30, 28, 26), spacing=(1.3, 1.1, 2.0), **PLANES[plane]), "RAS")

    result = resample(given_volume, spacing_mm)

    assert np.allclose(spacing_of(result.affine), spacing_mm)
    inside = (slice(2, -2),) * 3
    found, expected = result.values[0][inside], smooth(world(result.values.shape[1:], result.affine))[inside]
    assert np.abs(found - expected).max() < 0.02  # of a range of 3: a triangle of 4 mm rounds a wave of 150 mm a little
    centre = (np.array(given_volume.values.shape[1:]) - 1) / 2
    new_centre = (np.array(result.values.shape[1:]) - 1) / 2
    assert np.allclose((given_volume.affine @ [*centre, 1]), (result.affine @ [*new_centre, 1]))


def test_finer_grids_are_scipys_linear_interpolation():
    given_volume = Volume(np.random.default_rng(0).normal(size=(1, 12, 11, 10)).astype(np.float32), np.eye(4))

    result = resample(given_volume, (0.6, 0.8, 0.5))

    points = np.moveaxis(world(result.values.shape[1:], result.affine), -1, 0)
    expected = ndimage.map_coordinates(given_volume.values[0], points, order=1, mode="nearest", prefilter=False)
    assert np.abs(result.values[0] - expected).max() < 1e-5


@pytest.mark.parametrize("plane", PLANES)
def test_turning_and_spacing_agree_with_monai(plane):
    transforms = pytest.importorskip("monai.transforms")
    data = pytest.importorskip("monai.data")
    given_volume = volume((30, 28, 26), spacing=(1.3, 1.1, 2.0), **PLANES[plane])
    image = data.MetaTensor(given_volume.values, affine=given_volume.affine)

    monai = transforms.Orientation("RAS", labels=(("L", "R"), ("P", "A"), ("I", "S")))(image)
    ours = reorient(given_volume, "RAS")
    assert np.array_equal(ours.values, monai.numpy())
    assert np.allclose(ours.affine, monai.affine.numpy())

    # MONAI keeps the first voxel where we keep the centre, so both are asked for the value of the same places.
    monai = transforms.Spacing((1.0, 1.0, 1.0))(monai)
    ours = resample(ours, (1.0, 1.0, 1.0))
    places = world(ours.values.shape[1:], ours.affine)
    index = (places - monai.affine.numpy()[:3, 3]) @ np.linalg.inv(monai.affine.numpy()[:3, :3]).T
    theirs = ndimage.map_coordinates(monai.numpy()[0], np.moveaxis(index, -1, 0), order=1, mode="nearest")
    inside = (slice(3, -3),) * 3
    assert np.abs(ours.values[0] - theirs)[inside].max() < 0.01


def test_a_reduction_is_a_triangle_as_wide_as_itself():
    """By hand: 6 to 3, weights 1 3 3 1 over eighths of the two neighbours on each side; cut off at the edge."""
    line = np.array([0, 8, 0, 0, 16, 0], np.float32).reshape(1, 6, 1)

    result = resize(line, (3, 1))

    # First: voxels 0 1 2 with 3 3 1; second: 1 2 3 4 with 1 3 3 1; third: 3 4 5 with 1 3 3.
    assert result.ravel().tolist() == pytest.approx([24 / 7, 24 / 8, 48 / 7])


def test_planes_are_resized_as_pillow_does_at_once():
    plane = np.random.default_rng(1).normal(size=(1, 40, 30)).astype(np.float32)

    result = resize(plane, (17, 50))

    image = Image.fromarray(np.ascontiguousarray(plane[0].T)).resize((17, 50), Image.Resampling.BILINEAR)
    assert np.abs(result[0].T - np.asarray(image)).max() < 1e-6


@pytest.mark.parametrize("order", list(itertools.permutations(range(4))))
def test_how_values_lie_in_memory_changes_no_bit(order):
    values = np.random.default_rng(2).normal(size=(2, 13, 12, 11)).astype(np.float32)
    other = np.ascontiguousarray(values.transpose(order)).transpose(np.argsort(order))

    assert np.array_equal(resize(other, (7, 20, 5)), resize(values, (7, 20, 5)))
    assert np.array_equal(resize(values[:, ::-1], (7, 20, 5)), resize(values[:, ::-1].copy(), (7, 20, 5)))


def test_where_the_grid_sticks_out_the_edge_counts_on():
    given_volume = Volume(np.arange(1, 5, dtype=np.float32).reshape(1, 4, 1, 1), np.eye(4))

    result = resample(given_volume, (3.0, 1.0, 1.0))  # 4 mm: one voxel of 3 mm
    wide = resample(given_volume, (2.6, 1.0, 1.0))  # two voxels, 5.2 mm: 0.6 stick out on each side

    assert result.values.shape == (1, 1, 1, 1)
    assert wide.values.shape == (1, 2, 1, 1)
    assert wide.values.mean() == pytest.approx(2.5)
    assert np.allclose(wide.affine[0], [2.6, 0, 0, 0.2])  # centres at 1.5 -+ 1.3 voxels


def test_a_voxel_larger_than_the_volume_takes_no_memory_for_what_is_outside():
    tiny = Volume(np.full((1, 4, 300, 300), 5, np.float32), np.diag([1e-9, 1e-9, 1e-9, 1.0]))

    result = resample(tiny, (100.0, 100.0, 100.0))

    assert result.values.tolist() == [[[[5.0]]]]
    assert np.allclose(spacing_of(result.affine), 100)


def test_a_spacing_that_a_volume_has_changes_nothing():
    given_volume = volume(spacing=(1.0000001, 0.9999999, 3.0))
    result = resample(given_volume, (1.0, 1.0, 3.0))
    assert np.array_equal(result.values, given_volume.values)
    assert np.allclose(result.affine, given_volume.affine)


@given(st.tuples(*[st.integers(1, 9)] * 3), st.tuples(*[st.floats(0.3, 8)] * 3))
@settings(max_examples=60)
def test_a_constant_volume_keeps_its_value_on_every_grid(shape, spacing_mm):
    result = resample(Volume(np.full((1, *shape), -1000.0, np.float32), np.eye(4)), spacing_mm)

    assert np.allclose(result.values, -1000)
    extents = np.array(result.values.shape[1:]) * spacing_of(result.affine)
    assert (np.abs(extents - shape) <= np.maximum(np.array(spacing_mm) / 2, spacing_mm) + 1e-6).all()


@pytest.mark.parametrize("shape", [(5, 8, 3), (4, 4, 4), (9, 2, 6), (1, 1, 1)])
def test_the_centre_is_cut_and_padded_where_monai_does(shape):
    transforms = pytest.importorskip("monai.transforms")
    values = np.random.default_rng(3).normal(size=(2, *shape)).astype(np.float32)

    result = crop_or_pad(values, (4, 5, 6), np.zeros(2, np.float32))

    assert np.array_equal(result, np.asarray(transforms.ResizeWithPadOrCrop((4, 5, 6), mode="constant")(values)))


@pytest.mark.parametrize(
    "axes",
    [np.zeros((3, 3)), np.full((3, 3), np.nan), np.array([[1, 1, 0], [0, 0, 0], [0, 0, 1.0]]), np.diag([1, np.inf, 1])],
)
def test_a_broken_geometry_is_refused(axes):
    affine = np.eye(4)
    affine[:3, :3] = axes
    for change in (lambda broken: reorient(broken, "RAS"), lambda broken: resample(broken, (1, 1, 1))):
        with pytest.raises(UnsuitableImage, match="geometry is broken"):
            change(Volume(np.zeros((1, 2, 2, 2), np.float32), affine))


def test_a_spacing_that_would_need_all_memory_is_refused_before_it_is_taken():
    with pytest.raises(PayloadTooLarge):
        resample(Volume(np.zeros((1, 64, 64, 64), np.float32), np.diag([1000.0, 1000.0, 1000.0, 1.0])), (0.5, 0.5, 0.5))
