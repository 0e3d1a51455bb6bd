import math

import numpy as np
import pytest

from sagemaker_monai.errors import UnsuitableImage
from sagemaker_monai.images.volumes import Display, Lut, Window
from sagemaker_monai.preprocessing.intensity import (
    INTENSITIES,
    change_intensity,
    check_intensity,
    padding_mask,
    show,
    window,
)
from tests.support.refusals import not_refused

HU = np.array([-2000, -1000, -160, -110, 40, 190, 240, 3000], np.float32).reshape(1, 8, 1)
SPECS = {
    "window": {"kind": "window", "center": 40, "width": 400},
    "header": {"kind": "header"},
    "percentile": {"kind": "percentile", "low": 10, "high": 90},
    "range": {"kind": "range", "low": -160, "high": 240},
    "suv": {"kind": "suv", "low": 0, "high": 10},
    "zscore": {"kind": "zscore", "nonzero": False},
    "none": {"kind": "none"},
}


def change(values, spec, display=None, **options):
    return change_intensity(values, check_intensity(spec), display or Display(), **options)[0]


def by_the_standard(x, center, width, function):
    """PS3.3 C.11.2.1.2.1 and C.11.2.1.3, written out as there, for an output of 0 to 1."""
    if function == "LINEAR":
        if x <= center - 0.5 - (width - 1) / 2:
            return 0.0
        if x > center - 0.5 + (width - 1) / 2:
            return 1.0
        return (x - (center - 0.5)) / (width - 1) + 0.5
    if function == "LINEAR_EXACT":
        return min(max((x - center) / width + 0.5, 0.0), 1.0)
    return 1 / (1 + math.exp(min(-4 * (x - center) / width, 700)))  # more than 700 is no float


@pytest.mark.parametrize("function", ["LINEAR", "LINEAR_EXACT", "SIGMOID"])
@pytest.mark.parametrize(("center", "width"), [(40, 400), (-600, 1500), (0.5, 1), (40, 2)])
def test_a_window_is_the_standards(function, center, width):
    values = np.array([-700, -600, -161, -160, -159, 0, 1, 39, 40, 41, 239, 240, 241, 700], np.float32)

    result = window(values, Window(center, width, function))

    assert np.allclose(result, [by_the_standard(x, center, width, function) for x in values.tolist()], atol=1e-6)


def test_a_window_below_1_which_pet_files_have_is_taken_exactly():
    assert window(np.array([0, 0.25, 0.5], np.float32), Window(0.25, 0.5)).tolist() == pytest.approx([0, 0.5, 1])


def test_the_header_decides_with_its_window_its_lut_or_its_range():
    values = np.array([0, 1, 2, 3, 10], np.float32).reshape(1, 5, 1)
    lut = Lut(first=1, table=np.array([0.1, 0.6, 1.0], np.float32))

    assert change(values, SPECS["header"]).ravel().tolist() == pytest.approx([0, 0.1, 0.2, 0.3, 1])
    assert change(values, SPECS["header"], Display(lut)).ravel().tolist() == pytest.approx([0.1, 0.1, 0.6, 1, 1])
    windowed = change(values, SPECS["header"], Display(Window(2, 4, "LINEAR_EXACT")))
    assert windowed.ravel().tolist() == pytest.approx([0, 0.25, 0.5, 0.75, 1])


@pytest.mark.parametrize("kind", INTENSITIES)
def test_white_for_the_smallest_value_is_inverted_where_there_is_a_picture(kind):
    plain, inverted = (change(HU, SPECS[kind], Display(is_inverted=flag)) for flag in (False, True))

    expected = {"zscore": -plain, "none": plain}.get(kind, 1 - plain)
    assert np.allclose(inverted, expected, atol=1e-6)


@pytest.mark.parametrize("kind", INTENSITIES)
def test_what_means_no_pixel_counts_in_no_statistic_and_becomes_the_lowest_value(kind):
    display = Display(padding=(-2000, -1990))
    mask = padding_mask(HU, display)

    result, lowest = change_intensity(HU, SPECS[kind], display, left_out=mask)

    without, _ = change_intensity(HU[:, 1:], SPECS[kind], Display())
    assert mask.ravel().tolist() == [True] + [False] * 7
    assert np.allclose(result[:, 1:], without)
    assert result[0, 0, 0] == lowest[0] == (-1000 if kind == "none" else 0)


def test_padding_of_a_monochrome1_image_stays_black():
    display = Display(is_inverted=True, padding=(-2000, -2000))

    shown = show(HU, display)

    assert shown.dtype == np.uint8
    assert shown.ravel()[[0, 1, 7]].tolist() == [0, 255, 0]


def test_a_zscore_is_of_each_channel_alone_in_float64():
    values = np.stack([np.full((100, 100), 1e6, np.float32), np.zeros((100, 100), np.float32)])
    values[0, ::2] += 1
    values[1, ::2] = 4

    result = change(values, SPECS["zscore"])

    for channel, mean, std in ((0, 1e6 + 0.5, 0.5), (1, 2, 2)):
        assert np.allclose(result[channel], (values[channel].astype(np.float64) - mean) / std, atol=0.13)
        assert result[channel].std() == pytest.approx(1, abs=0.01)


def test_a_zscore_of_what_is_not_zero_leaves_zeros_alone_as_monai_does():
    transforms = pytest.importorskip("monai.transforms")
    values = np.random.default_rng(0).normal(300, 50, (2, 8, 8, 8)).astype(np.float32)
    values[:, :3] = 0

    result = change(values, {"kind": "zscore", "nonzero": True})

    monai = transforms.NormalizeIntensity(nonzero=True, channel_wise=True)(values)
    assert np.allclose(result, np.asarray(monai), atol=1e-4)
    assert (result[:, :3] == 0).all()


def test_percentiles_are_numpys():
    values = np.random.default_rng(1).normal(size=(1, 50, 40)).astype(np.float32)
    low, high = np.percentile(values.astype(np.float64), [10, 90])

    assert np.allclose(change(values, SPECS["percentile"]), np.clip((values - low) / (high - low), 0, 1), atol=1e-5)


@pytest.mark.parametrize("kind", [kind for kind in INTENSITIES if kind not in ("none", "window", "range", "suv")])
def test_an_image_of_one_value_is_zero_and_not_an_error(kind):
    assert (change(np.full((1, 4, 4), 7, np.float32), SPECS[kind]) == 0).all()


def test_an_image_of_padding_alone_is_no_error():
    display = Display(padding=(7, 7))
    values = np.full((1, 4, 4), 7, np.float32)
    for spec in SPECS.values():
        assert np.isfinite(change(values, spec, display, left_out=padding_mask(values, display))).all()


def test_colours_keep_their_hue_and_have_no_window():
    colours = np.random.default_rng(2).integers(0, 256, (3, 6, 5), dtype=np.uint8)

    assert np.allclose(change(colours, SPECS["header"], is_colour=True), colours / 255, atol=1e-6)
    scored = change(colours, SPECS["zscore"], is_colour=True)
    assert np.allclose(scored, (colours - colours.mean()) / colours.std(), atol=1e-5)
    with pytest.raises(UnsuitableImage, match="no window in HU"):
        change(colours, SPECS["window"], is_colour=True)
    with pytest.raises(UnsuitableImage):
        change(colours, SPECS["suv"], is_colour=True)


@pytest.mark.parametrize("kind", INTENSITIES)
def test_the_input_is_left_alone_and_memory_order_changes_no_bit(kind):
    values = np.random.default_rng(3).normal(size=(2, 9, 8, 7)).astype(np.float32)
    before = values.copy()

    result = change(values, SPECS[kind])

    assert np.array_equal(values, before)
    assert np.array_equal(change(np.asfortranarray(values), SPECS[kind]), result)


def test_any_other_spec_is_refused():
    specs = [
        None,
        {},
        {"kind": "histogram"},
        {"kind": ["window"]},
        {"kind": "window", "center": 40},
        {"kind": "header", "center": 40},
        {"kind": "window", "center": 40, "width": 0},
        {"kind": "window", "center": True, "width": 400},
        {"kind": "window", "center": "40", "width": 400},
        {"kind": "window", "center": float("nan"), "width": 400},
        {"kind": "percentile", "low": -1, "high": 50},
        {"kind": "percentile", "low": 50, "high": 50},
        {"kind": "percentile", "low": 1, "high": 101},
        {"kind": "range", "low": 1, "high": 0},
        {"kind": "zscore", "nonzero": 1},
    ]

    assert not_refused(specs, check_intensity, ValueError, "intensity") == []
