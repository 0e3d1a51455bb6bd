"""Padding, windows that show nothing, Modality LUTs by SOP class, and what is said of a header's values."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sagemaker_monai.images.dicom.decoding import decode_stored
from sagemaker_monai.images.dicom.display import display_for, display_of
from sagemaker_monai.images.dicom.modality import LUT_NOT_APPLIED
from sagemaker_monai.images.dicom.oddities import oddities_of
from sagemaker_monai.images.dicom.pixel_layout import padding_of
from sagemaker_monai.images.dicom.pixels import read_frames
from sagemaker_monai.images.volumes import Lut, Window
from sagemaker_monai.preprocessing.intensity import padding_mask, show
from tests.support.made_dicom import item, made_dataset

RAMP = np.arange(0, 256, 4, dtype=np.uint8).reshape(1, 8, 8)


@pytest.mark.parametrize(
    ("dtype", "stored_bits", "body", "padding", "vr", "given"),
    [
        ("u2", 12, 1100, 63536, "US", 63536),  # -2000 of 16 bits
        ("u2", 12, 1100, 63536, "SS", -2000),
        ("u2", 12, 2096, 63536, "US", 63536),  # the body has the very bits that would be left of the padding
        ("i2", 12, 0, -32768, "SS", -32768),  # of which twelve bits leave 0, which is water
        ("i2", 12, 40, -2000, "SS", -2000),
        ("i2", 12, 40, -2000, "US", 63536),
        ("i2", 12, 40, -2000, "US", 2096),  # twelve bits without their sign
        ("u2", 16, 1100, 65535, "US", 65535),
        ("u1", 8, 100, 255, "US", 255),
    ],
)
def test_padding_is_known_by_the_bits_of_its_cell_and_no_tissue_is_taken_for_it(
    dtype, stored_bits, body, padding, vr, given
):
    cells = np.full((1, 4, 4), body, dtype)
    cells[0, 0] = padding
    dataset = made_dataset(cells, BitsStored=stored_bits, HighBit=stored_bits - 1, RescaleIntercept=-1024)
    dataset.add_new("PixelPaddingValue", vr, given)

    [frame] = read_frames(dataset)

    mask = padding_mask(frame.values, frame.display)
    assert mask is not None
    assert mask[0, :, 0].all()
    assert not mask[0, :, 1:].any()
    assert (frame.values[0, :, 1:] == body - 1024).all()


def test_padding_without_its_sign_in_the_pixels_is_the_same_value():
    cells = np.array([[[0x830, 40]]], np.int16)  # -2000 of 12 bits, not extended
    dataset = made_dataset(cells, BitsStored=12, HighBit=11)
    dataset.add_new("PixelPaddingValue", "SS", -2000)

    assert decode_stored(dataset).tolist() == [[[-2000, 40]]]
    assert padding_of(dataset) == (-2000, -2000)


def test_bits_outside_the_value_that_are_no_padding_are_still_removed():
    cells = np.array([[[0xF00A, 0x1005, 63536]]], np.uint16)
    dataset = made_dataset(cells, BitsStored=12, HighBit=11, PixelPaddingValue=63536)

    assert decode_stored(dataset).tolist() == [[[10, 5, 63536]]]


def test_a_range_of_padding_that_would_cover_every_pixel_is_its_first_value():
    dataset = made_dataset(np.zeros((1, 1, 1), np.uint16), BitsStored=12, HighBit=11, PixelPaddingValue=63536)
    dataset.PixelPaddingRangeLimit = 0

    assert padding_of(dataset) == (63536, 63536)


@given(st.integers(2, 16), st.booleans(), st.integers(0, 0xFFFF), st.booleans())
@settings(max_examples=60, deadline=None)
def test_a_padding_value_is_what_a_pixel_of_its_cell_becomes(stored_bits, is_signed, cell, is_us):
    dtype = "i2" if is_signed else "u2"
    dataset = made_dataset(np.array([[[cell]]], "u2").view(dtype), BitsStored=stored_bits, HighBit=stored_bits - 1)
    number = cell if is_us or cell < 0x8000 else cell - 0x10000
    dataset.add_new("PixelPaddingValue", "US" if is_us else "SS", number)

    [value] = decode_stored(dataset).ravel().tolist()

    assert padding_of(dataset) == (value, value)


@pytest.mark.parametrize(
    "elements",
    [
        {"WindowCenter": 0, "WindowWidth": 1},
        {"WindowCenter": 100, "WindowWidth": 1},  # black and white only
        {"WindowCenter": 100, "WindowWidth": 0.5, "VOILUTFunction": "LINEAR_EXACT"},
        {"WindowCenter": 100, "WindowWidth": 0},
        {"WindowCenter": 100, "WindowWidth": -5},
        {"WindowCenter": 3000, "WindowWidth": 400},
        {"WindowCenter": -3000, "WindowWidth": 400},
        {"WindowCenter": 40000, "WindowWidth": 100, "VOILUTFunction": "SIGMOID"},
        {"WindowCenter": 100},
        {"VOILUTSequence": item(LUTDescriptor=[4, 5000, 8], LUTData=[0, 1, 2, 255])},
        {"VOILUTSequence": item(LUTDescriptor=[256, 0, 8], LUTData=[7] * 256)},
    ],
)
def test_a_window_that_shows_nothing_gives_way_to_the_range_of_the_values(elements):
    dataset = made_dataset(RAMP, **elements)

    [frame] = read_frames(dataset)

    assert frame.display.voi is None
    assert len(np.unique(show(frame.values, frame.display))) == 64
    assert display_for(dataset, 0, frame.values)[1] == ("useless_window",)
    if "VOILUTSequence" not in elements:  # the header alone tells, for eight bits hold no such values
        assert oddities_of(dataset) == ("useless_window",)


@pytest.mark.parametrize(
    ("elements", "voi"),
    [
        ({}, None),
        ({"WindowCenter": 128, "WindowWidth": 256}, Window(128, 256)),
        ({"WindowCenter": 100, "WindowWidth": 2}, Window(100, 2)),
        ({"WindowCenter": 500, "WindowWidth": 600}, Window(500, 600)),  # the upper end of the ramp is seen
        ({"WindowCenter": 128, "WindowWidth": 40, "VOILUTFunction": "SIGMOID"}, Window(128, 40, "SIGMOID")),
        ({"WindowCenter": [40, 128], "WindowWidth": [80, 9]}, Window(40, 80)),
    ],
)
def test_a_window_that_shows_something_is_obeyed_as_ever(elements, voi):
    dataset = made_dataset(RAMP, **elements)

    [frame] = read_frames(dataset)

    assert frame.display == display_of(dataset, 0)
    assert frame.display.voi == voi
    assert display_for(dataset, 0, frame.values)[1] == oddities_of(dataset) == ()


def test_of_several_windows_the_first_that_shows_something_is_used():
    windows = {"WindowCenter": [5000, 128, 40], "WindowWidth": [1, 200, 80]}
    dataset = made_dataset(RAMP, **windows)

    display, codes = display_for(dataset, 0, read_frames(dataset)[0].values)

    assert display.voi == Window(128, 200)
    assert codes == ("useless_window",)


def test_only_the_values_tell_that_a_window_lies_beside_them():
    dataset = made_dataset(RAMP.astype(np.uint16), WindowCenter=3000, WindowWidth=400)

    [frame] = read_frames(dataset)

    assert frame.display.voi is None
    assert oddities_of(dataset) == ()
    assert display_for(dataset, 0, frame.values)[1] == ("useless_window",)


def test_a_picture_of_one_value_is_not_the_windows_fault_nor_padding_its_content():
    blank = made_dataset(np.full((1, 4, 4), 7, np.uint16), WindowCenter=3000, WindowWidth=400)
    padded = made_dataset(np.array([[[3000, 7], [8, 9]]], np.uint16), WindowCenter=3000, WindowWidth=400)
    padded.PixelPaddingValue = 3000

    assert read_frames(blank)[0].display.voi == Window(3000, 400)
    assert read_frames(padded)[0].display.voi is None


def test_a_binary_picture_keeps_the_window_of_its_two_values():
    mask = made_dataset((RAMP > 100).astype(np.uint8), WindowCenter=1, WindowWidth=1)

    assert read_frames(mask)[0].display.voi == Window(1, 1)


def test_a_narrow_window_of_fine_steps_is_sane():
    dose = made_dataset(RAMP, RescaleSlope=0.001, WindowCenter=0.1, WindowWidth=0.2, VOILUTFunction="LINEAR_EXACT")

    assert read_frames(dose)[0].display.voi == Window(0.1, 0.2, "LINEAR_EXACT")


@pytest.mark.parametrize("relationship", ["LOG", "DISP", "LIN", None])
@pytest.mark.parametrize("sop_class", [*LUT_NOT_APPLIED, "1.2.840.10008.5.1.4.1.1.1.1"])
def test_a_modality_lut_of_angiography_is_not_for_display_where_values_are_logarithmic(sop_class, relationship):
    table = item(LUTDescriptor=[256, 0, 16], LUTData=[k * k for k in range(256)])
    dataset = made_dataset(RAMP, SOPClassUID=sop_class, ModalityLUTSequence=table)
    if relationship:
        dataset.PixelIntensityRelationship = relationship

    values = np.sort(read_frames(dataset)[0].values.ravel())

    is_stored = sop_class in LUT_NOT_APPLIED and relationship in ("LOG", "DISP")
    assert values.tolist() == [k if is_stored else k * k for k in range(0, 256, 4)]


def test_what_is_odd_about_a_header_has_a_code():
    assert oddities_of(made_dataset(RAMP, PresentationIntentType="FOR PROCESSING")) == ("for_processing",)
    assert oddities_of(made_dataset(RAMP, PresentationIntentType="FOR PRESENTATION")) == ()
    assert oddities_of(made_dataset(RAMP, RescaleSlope=0)) == ("zero_slope",)


def test_a_lut_of_the_header_is_judged_by_the_part_that_values_reach():
    lut = {"LUTDescriptor": [256, 0, 8], "LUTData": [0] * 128 + list(range(128))}
    low, high = made_dataset(RAMP // 2, VOILUTSequence=item(**lut)), made_dataset(RAMP, VOILUTSequence=item(**lut))

    assert read_frames(low)[0].display.voi is None
    assert isinstance(read_frames(high)[0].display.voi, Lut)


def test_a_number_that_cannot_be_read_is_passed_over_with_a_word():
    dataset = made_dataset(RAMP)
    dataset.add_new("PixelSpacing", "LO", ["half", "half"])

    [frame] = read_frames(dataset)

    assert frame.spacing_mm is None
    assert frame.findings == ("unreadable_numbers",)
