import numpy as np
import pytest

from sagemaker_monai.images.dicom.geometry import affine_of, axcodes, is_sound, normal_of, spacing_mm, spread_of
from tests.support.dicom_series import (
    AXIAL,
    CORONAL,
    GAP_MM,
    OBLIQUE,
    ORIENTATIONS,
    ORIGIN,
    SAGITTAL,
    SPACING,
    positions_of,
)


@pytest.mark.parametrize("name", ORIENTATIONS)
@pytest.mark.parametrize("voxel", [(0, 0, 0), (4, 0, 0), (0, 6, 0), (0, 0, 5), (4, 6, 5)])
def test_every_corner_of_a_volume_lies_where_the_standards_equation_puts_it(name, voxel):
    orientation = ORIENTATIONS[name]
    column, row, index = voxel
    place = positions_of(6, orientation)[index]
    # PS3.3 C.7.6.2.1.1, written out: S + X * (distance of columns) * column index + Y * (distance of rows) * row index
    lps = [
        place[axis] + orientation[axis] * SPACING[1] * column + orientation[3 + axis] * SPACING[0] * row
        for axis in range(3)
    ]

    affine = affine_of(orientation, SPACING, ORIGIN, normal_of(orientation) * GAP_MM)

    assert affine @ (*voxel, 1) == pytest.approx([-lps[0], -lps[1], lps[2], 1])


@pytest.mark.parametrize(("orientation", "codes"), [(AXIAL, "LPS"), (SAGITTAL, "PIR"), (CORONAL, "LIP")])
def test_axes_of_the_three_planes_have_the_letters_of_an_atlas(orientation, codes):
    affine = affine_of(orientation, SPACING, ORIGIN, normal_of(orientation) * GAP_MM)

    assert axcodes(affine) == codes


@pytest.mark.parametrize("name", ORIENTATIONS)
def test_spacing_is_that_of_columns_then_rows_then_slices(name):
    orientation = ORIENTATIONS[name]

    affine = affine_of(orientation, SPACING, ORIGIN, normal_of(orientation) * GAP_MM)

    assert spacing_mm(affine) == pytest.approx((0.5, 0.75, 2.5))


def test_the_affine_of_a_tilted_gantry_is_sheared_and_keeps_every_slice_in_its_place():
    affine = affine_of(AXIAL, SPACING, ORIGIN, (0, 1, 3))

    assert affine @ (0, 0, 2, 1) == pytest.approx([31.5, -12.25 - 2, 100.75 + 6, 1])
    assert affine[:3, 1] @ affine[:3, 2] != 0
    assert spacing_mm(affine)[2] == pytest.approx(10**0.5)


@pytest.mark.parametrize(
    ("orientation", "spacing", "position"),
    [
        ((0, 0, 0, 0, 0, 0), (1, 1), (0, 0, 0)),
        ((1, 0, 0, 1, 0, 0), (1, 1), (0, 0, 0)),
        ((2, 0, 0, 0, 1, 0), (1, 1), (0, 0, 0)),
        (AXIAL, (0, 1), (0, 0, 0)),
        (AXIAL, (1, -1), (0, 0, 0)),
        (AXIAL, (1, 1), (float("nan"), 0, 0)),
        (AXIAL, (1, 1), (1e300, 0, 0)),
    ],
)
def test_numbers_that_are_no_place_are_recognised(orientation, spacing, position):
    assert not is_sound(orientation, spacing, position)


def test_cosines_rounded_to_six_digits_are_a_place():
    assert is_sound((0.999999, -0.000048, -0.000252, 0.0, 0.982289, -0.187371), (1, 1), (0, 0, 0))


def spread(along, beside=None):
    positions = np.zeros((len(along), 3))
    positions[:, 2] = along
    if beside is not None:
        positions[:, 1] = beside
    return spread_of(positions, np.array([0.0, 0.0, 1.0]))


def test_positions_rounded_to_hundredths_are_even():
    result = spread(np.round(np.arange(40) * 0.625, 2))

    assert (result.missing, result.uneven, result.shifted, result.is_tilted) == (0, 0, 0, False)


@pytest.mark.parametrize(
    ("along", "missing"), [([0, 1, 2, 4, 5], 1), ([0, 1, 5, 6], 3), ([0, 1, 3], 1), ([0, 2, 6, 8, 12], 2)]
)
def test_missing_slices_are_counted(along, missing):
    result = spread(along)

    assert (result.missing, result.uneven) == (missing, 0)


@pytest.mark.parametrize(("along", "places"), [([0, 1, 2, 3.5, 5], 2), ([0, 1, 2.2, 3.2, 4.2], 1), ([0, 1, 2.5], 1)])
def test_places_of_another_distance_are_counted(along, places):
    result = spread(along)

    assert (result.missing, result.uneven) == (0, places)


def test_an_even_shift_is_a_tilt_and_an_uneven_one_is_not():
    tilted = spread([0, 3, 6, 9], [0, 1, 2, 3])
    shifted = spread([0, 3, 6, 9], [0, 0, 5, 0])

    assert (tilted.is_tilted, tilted.shifted) == (True, 0)
    assert (shifted.is_tilted, shifted.shifted) == (False, 1)
    assert tilted.step == pytest.approx([0, 1, 3])


def test_oblique_slices_are_no_tilt():
    assert not spread_of(positions_of(5, OBLIQUE), normal_of(OBLIQUE)).is_tilted
