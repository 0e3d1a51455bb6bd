"""Modality values, display, padding, spacing, identity and SUV of the frames of one file."""

import math

import numpy as np
import pytest
from pydicom import Dataset
from pydicom.pixels import apply_modality_lut, apply_voi_lut
from pydicom.sequence import Sequence

from sagemaker_monai.errors import UndecodableImage
from sagemaker_monai.images.dicom.headers import read_instance
from sagemaker_monai.images.dicom.pixels import apply_display, display_of, modality_values, read_frames, spacing_of
from sagemaker_monai.images.dicom.suv import suv_factor
from sagemaker_monai.images.volumes import Display, Lut, Window
from tests.support.made_dicom import INSTANCE_UID, SERIES_UID, as_file, item, made_dataset, made_file
from tests.support.odd_files import ODD_DICOM

GREY = np.arange(6, dtype=np.int16).reshape(1, 2, 3)
needs_odd_files = pytest.mark.skipif(not ODD_DICOM.is_dir(), reason="the shared data is not here")


def sequence(*items: Sequence) -> Sequence:
    return Sequence([part[0] for part in items])


def test_a_frame_has_its_columns_first_and_rescaled_values():
    [frame] = read_frames(made_file(GREY, Modality="CT", RescaleSlope=2, RescaleIntercept=-1024))

    assert frame.values.shape == (1, 3, 2)  # (C, W, H)
    assert frame.values.dtype == np.float32
    assert frame.values[0, 2, 1] == 2 * 5 - 1024
    assert frame.values[0, 2, 0] == 2 * 2 - 1024
    assert frame.modality == "CT"


def test_colour_is_rgb_of_eight_bits():
    deep = np.full((1, 2, 3, 3), 0x1234, np.uint16)
    deep[0, 1, 2] = [0xFFFF, 0x8000, 0x00FF]

    [frame] = read_frames(made_file(deep))

    assert frame.values.shape == (3, 3, 2)
    assert frame.values.dtype == np.uint8
    assert frame.values[:, 2, 1].tolist() == [255, 128, 0]
    assert frame.display == Display()


def test_twelve_bit_colour_keeps_its_highest_eight():
    deep = np.full((1, 1, 1, 3), 0xABC, np.uint16)

    assert read_frames(made_file(deep, BitsStored=12, HighBit=11))[0].values.ravel().tolist() == [0xAB] * 3


def test_a_file_bytes_and_its_dataset_give_the_same_frame(tmp_path):
    data = made_file(GREY, PixelSpacing=[2, 3])
    (tmp_path / "x").write_bytes(data)

    frames = [read_frames(source)[0] for source in (data, tmp_path / "x", read_instance(data))]

    assert len({(frame.values.tobytes(), frame.spacing_mm, frame.identity) for frame in frames}) == 1


def test_identity_counts_frames_from_one_and_headers_have_no_pixels():
    single = read_frames(made_file(GREY))[0].identity
    several = [frame.identity for frame in read_frames(made_file(np.zeros((3, 2, 2), np.uint8)))]

    assert single is not None
    assert (single.series_instance_uid, single.sop_instance_uids, single.frame) == (SERIES_UID, (INSTANCE_UID,), None)
    assert [identity.frame for identity in several if identity] == [1, 2, 3]
    [header] = single.headers
    assert isinstance(header, Dataset)
    assert "PixelData" not in header
    assert header.Rows == 2


@pytest.mark.parametrize(
    ("elements", "expected"),
    [
        ({"PixelSpacing": [2, 3]}, (3, 2)),
        ({"ImagerPixelSpacing": [0.5, 0.25]}, (0.25, 0.5)),
        ({"NominalScannedPixelSpacing": [4, 5]}, (5, 4)),
        ({"PixelSpacing": [2, 3], "ImagerPixelSpacing": [9, 9]}, (3, 2)),
        ({"PixelSpacing": [0, 0], "ImagerPixelSpacing": [9, 8]}, (8, 9)),
        ({"PixelSpacing": [1]}, None),
        ({}, None),
        (
            {
                "PixelSpacing": [9, 9],
                "SharedFunctionalGroupsSequence": item(PixelMeasuresSequence=item(PixelSpacing=[1, 2])),
            },
            (2, 1),
        ),
    ],
)
def test_spacing_is_along_the_columns_then_the_rows(elements, expected):
    assert spacing_of(made_dataset(GREY, **elements), 0) == expected


def test_each_frame_has_its_own_functional_groups_before_the_shared_ones():
    frames = [
        item(
            PixelValueTransformationSequence=item(RescaleSlope=1, RescaleIntercept=10),
            FrameVOILUTSequence=item(WindowCenter=1, WindowWidth=2),
            PixelMeasuresSequence=item(PixelSpacing=[1, 2]),
        ),
        item(PixelMeasuresSequence=item(PixelSpacing=[3, 4])),
    ]
    shared = item(
        PixelValueTransformationSequence=item(RescaleSlope=5, RescaleIntercept=0),
        FrameVOILUTSequence=item(WindowCenter=7, WindowWidth=8, VOILUTFunction="SIGMOID"),
    )
    data = made_file(
        np.full((2, 2, 2), 3, np.uint16),
        PerFrameFunctionalGroupsSequence=sequence(*frames),
        SharedFunctionalGroupsSequence=shared,
        RescaleSlope=100,
    )

    first, second = read_frames(data)

    assert first.values.ravel().tolist() == [13] * 4
    assert second.values.ravel().tolist() == [15] * 4
    assert (first.display.voi, second.display.voi) == (Window(1, 2, "SIGMOID"), Window(7, 8, "SIGMOID"))
    assert (first.spacing_mm, second.spacing_mm) == ((2, 1), (4, 3))


def test_chosen_frames_are_rescaled_with_their_own_numbers():
    frames = [item(PixelValueTransformationSequence=item(RescaleSlope=1, RescaleIntercept=i)) for i in range(3)]
    dataset = made_dataset(np.zeros((3, 1, 1), np.uint8), PerFrameFunctionalGroupsSequence=sequence(*frames))

    assert modality_values(dataset, np.zeros((2, 1, 1), np.uint8), [2, 1]).ravel().tolist() == [2, 1]


def test_a_modality_lut_goes_before_rescale_and_holds_at_its_ends():
    stored = np.array([[[-5, -2, -1, 0, 9]]], np.int16)
    lut = item(LUTDescriptor=[3, -2, 16], ModalityLUTType="US", LUTData=[100, 200, 300])
    lut[0]["LUTDescriptor"].VR = "SS"
    lut[0]["LUTData"].VR = "US"
    dataset = made_dataset(stored, ModalityLUTSequence=lut, RescaleSlope=9)

    assert read_frames(as_file(dataset))[0].values.ravel().tolist() == [100, 100, 200, 300, 300]
    np.testing.assert_array_equal(modality_values(dataset, stored), apply_modality_lut(stored, dataset))


def test_a_dose_is_in_gray():
    dataset = made_dataset(np.full((1, 1, 1), 2_000_000, np.uint32), Modality="RTDOSE", DoseGridScaling=1e-6)

    assert read_frames(as_file(dataset))[0].values.item() == pytest.approx(2.0)


@pytest.mark.parametrize("elements", [{"RescaleSlope": math.inf}, {"RescaleIntercept": math.nan}])
def test_a_rescale_that_is_not_finite_is_refused(elements):
    dataset = made_dataset(GREY)
    for keyword, value in elements.items():
        dataset.add_new(keyword, "FD", value)

    with pytest.raises(UndecodableImage, match="not finite"):
        read_frames(dataset)


@pytest.mark.parametrize(
    ("elements", "expected"),
    [
        ({}, None),
        ({"WindowCenter": 40, "WindowWidth": 400}, Window(40, 400)),
        ({"WindowCenter": [40, 500], "WindowWidth": [400, 2000]}, Window(40, 400)),
        ({"WindowCenter": [40, 500], "WindowWidth": [0, 2000]}, Window(500, 2000)),
        ({"WindowCenter": 40, "WindowWidth": 0.5}, None),
        ({"WindowCenter": 40, "WindowWidth": -5}, None),
        ({"WindowCenter": 40}, None),
        ({"WindowCenter": 1, "WindowWidth": 0.5, "VOILUTFunction": "LINEAR_EXACT"}, Window(1, 0.5, "LINEAR_EXACT")),
        ({"WindowCenter": 1, "WindowWidth": 4, "VOILUTFunction": "SIGMOID"}, Window(1, 4, "SIGMOID")),
        ({"WindowCenter": 1, "WindowWidth": 4, "VOILUTFunction": "ODD"}, Window(1, 4)),
    ],
)
def test_the_first_sound_window_counts(elements, expected):
    assert display_of(made_dataset(GREY, **elements), 0).voi == expected


def test_a_voi_lut_goes_before_a_window_and_a_broken_one_is_passed_over():
    table = item(LUTDescriptor=[2, 0, 8], LUTData=[0, 255])
    table[0]["LUTDescriptor"].VR = table[0]["LUTData"].VR = "US"
    broken = item(LUTDescriptor=[2, 0, 99], LUTData=[0, 255])
    broken[0]["LUTDescriptor"].VR = broken[0]["LUTData"].VR = "US"
    window = {"WindowCenter": 40, "WindowWidth": 400}

    voi = display_of(made_dataset(GREY, VOILUTSequence=table, **window), 0).voi

    assert isinstance(voi, Lut)
    assert (voi.first, voi.table.tolist()) == (0, [0, 1])
    assert display_of(made_dataset(GREY, VOILUTSequence=broken, **window), 0).voi == Window(40, 400)


@pytest.mark.parametrize(
    ("elements", "is_inverted"),
    [
        ({"PhotometricInterpretation": "MONOCHROME1"}, True),
        ({"PhotometricInterpretation": "MONOCHROME2", "PresentationLUTShape": "INVERSE"}, True),
        ({"PhotometricInterpretation": "MONOCHROME1", "PresentationLUTShape": "INVERSE"}, True),
        ({"PhotometricInterpretation": "MONOCHROME2", "PresentationLUTShape": "IDENTITY"}, False),
        ({}, False),
    ],
)
def test_inversion_is_read_from_photometric_interpretation_or_presentation_lut(elements, is_inverted):
    assert display_of(made_dataset(GREY, **elements), 0).is_inverted is is_inverted


def test_padding_is_in_modality_units_with_the_sign_of_the_pixels():
    dataset = made_dataset(GREY, RescaleSlope=2, RescaleIntercept=-1000)
    dataset.add_new("PixelPaddingValue", "US", 0x10000 - 2000)
    assert display_of(dataset, 0).padding == (-5000, -5000)

    dataset.add_new("PixelPaddingRangeLimit", "SS", -1990)
    assert display_of(dataset, 0).padding == (-5000, -4980)


# The first three rows are worked out by hand from the pseudo-code of PS3.3 C.11.2.1.2.1 for c 2048, w 4096.
@pytest.mark.parametrize(
    ("window", "value", "expected"),
    [
        (Window(2048, 4096), 0, 0.0),
        (Window(2048, 4096), 4095, 1.0),
        (Window(2048, 4096), 2047.5, 0.5),
        (Window(2048, 4096), -7, 0.0),
        (Window(2048, 4096), 9999, 1.0),
        (Window(0, 100), 0, 0.5 / 99 + 0.5),
        (Window(10, 1), 9.5, 0.0),
        (Window(10, 1), 9.6, 1.0),
        (Window(2048, 4096, "LINEAR_EXACT"), 2048, 0.5),
        (Window(2048, 4096, "LINEAR_EXACT"), 1024, 0.25),
        (Window(2048, 4096, "LINEAR_EXACT"), 0, 0.0),
        (Window(2048, 4096, "SIGMOID"), 2048, 0.5),
        (Window(2048, 4096, "SIGMOID"), 3072, 1 / (1 + math.exp(-1))),
        (Window(0, 1e-6, "SIGMOID"), 1e6, 1.0),
    ],
)
def test_windows_follow_the_standards_formulas(window, value, expected):
    shown = apply_display(np.array([value], np.float32), Display(voi=window))

    assert shown.dtype == np.float32
    assert shown[0] == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("function", ["LINEAR", "LINEAR_EXACT", "SIGMOID"])
def test_windows_are_those_of_pydicom(function):
    stored = np.arange(-200, 200, dtype=np.int16).reshape(1, 20, 20)
    dataset = made_dataset(stored, WindowCenter=30, WindowWidth=120, VOILUTFunction=function)
    theirs = (apply_voi_lut(stored, dataset) + 2**15) / (2**16 - 1)

    shown = apply_display(stored, display_of(dataset, 0))

    np.testing.assert_allclose(shown, theirs, atol=1e-5)


def test_a_lut_is_looked_up_and_clamped():
    display = Display(voi=Lut(10, np.array([0.1, 0.2, 0.3], np.float32)))

    shown = apply_display(np.array([-1e30, 9, 10, 11, 12, 13, 1e30]), display)

    assert shown.tolist() == pytest.approx([0.1, 0.1, 0.1, 0.2, 0.3, 0.3, 0.3])


def test_without_voi_values_are_stretched_between_those_that_are_no_padding():
    values = np.array([-2000, 0, 5, 10, np.nan, np.inf], np.float32)

    shown = apply_display(values, Display(padding=(-2000, -2000)))

    assert shown.tolist() == [0, 0, 0.5, 1, 0, 1]


def test_inversion_is_last_and_padding_stays_black():
    values = np.array([-2000, 0, 25, 100], np.float32)
    display = Display(Window(50, 100, "LINEAR_EXACT"), is_inverted=True, padding=(-2000, -1000))

    assert apply_display(values, display).tolist() == [0, 1, 0.75, 0]


@pytest.mark.parametrize("values", [[7, 7], [np.nan, np.nan], [-1, -1]])
def test_an_image_without_contrast_is_black(values):
    shown = apply_display(np.array(values, np.float32), Display(padding=(-1, -1)))

    assert shown.tolist() == [0, 0]


def test_values_are_not_changed_by_showing_them():
    values = np.array([np.nan, 1, 2], np.float32)
    copy = values.copy()

    apply_display(values, Display(Window(1, 2), is_inverted=True, padding=(2, 2)))

    np.testing.assert_array_equal(values, copy)


@needs_odd_files
@pytest.mark.parametrize("name", ["luts_and_overlays/mlut_18.dcm", "mono_explicit/CT_small.dcm"])
def test_modality_values_of_real_files_are_those_of_pydicom(name):
    dataset = read_instance(ODD_DICOM / name)
    [frame] = read_frames(dataset)

    np.testing.assert_allclose(frame.values[0].T, apply_modality_lut(dataset.pixel_array, dataset))


def test_overlays_are_ignored():
    plain = read_frames(made_file(GREY))[0]
    dataset = made_dataset(GREY)
    for element, vr, value in ((0x0010, "US", 2), (0x0011, "US", 3), (0x3000, "OW", b"\x3f\0")):
        dataset.add_new((0x6000, element), vr, value)

    np.testing.assert_array_equal(read_frames(as_file(dataset))[0].values, plain.values)


DOSE = {"RadionuclideTotalDose": 370e6, "RadionuclideHalfLife": 6586.2}
LATE = item(**DOSE, RadiopharmaceuticalStartTime="233000")  # an hour before 00:30


def pet(**elements: object) -> Dataset:
    values: dict[str, object] = {
        "Modality": "PT",
        "Units": "BQML",
        "CorrectedImage": ["ATTN", "DECY"],
        "DecayCorrection": "START",
        "PatientWeight": 70,
        "SeriesDate": "20240101",
        "SeriesTime": "110000",
        "AcquisitionDate": "20240101",
        "AcquisitionTime": "110500.5",
        "RadiopharmaceuticalInformationSequence": item(**DOSE, RadiopharmaceuticalStartTime="100000.00"),
    }
    return made_dataset(GREY, **{**values, **elements})


DECAYED = 370e6 * 2 ** (-3600 / 6586.2)  # an hour after injection


@pytest.mark.parametrize(
    ("elements", "dose"),
    [
        ({}, DECAYED),
        ({"DecayCorrection": "ADMIN"}, 370e6),
        (
            {"SeriesTime": "003000", "AcquisitionTime": "003500", "RadiopharmaceuticalInformationSequence": LATE},
            DECAYED,
        ),
        # A series made later. Over a second of counting, the mean activity is that of its middle, half a second after
        # the frame began.
        (
            {"SeriesTime": "180000", "AcquisitionTime": "110500", "FrameReferenceTime": 300_500,
             "ActualFrameDuration": 1_000},
            DECAYED,
        ),
    ],
)  # fmt: skip
def test_suv_is_by_weight_and_the_dose_left_at_the_scan(elements, dose):
    assert suv_factor(pet(**elements)) == pytest.approx(70_000 / dose, rel=1e-6)


def test_suv_of_philips_counts_is_in_a_private_element():
    dataset = pet(Units="CNTS")
    block = dataset.private_block(0x7053, "Philips PET Private Group", create=True)
    block.add_new(0x00, "DS", "0.000551")
    assert suv_factor(dataset) == pytest.approx(0.000551)

    block[0x00].value = "0"
    block.add_new(0x09, "DS", "2.5")
    assert suv_factor(dataset) == pytest.approx(2.5 * 70_000 / DECAYED)


def test_grams_per_millilitre_are_suv_unless_by_another_mass():
    assert suv_factor(pet(Units="GML")) == 1.0
    assert suv_factor(pet(Units="GML", SUVType="LBM")) is None


@pytest.mark.parametrize(
    "elements",
    [
        {"Modality": "CT"},
        {"Units": "CNTS"},
        {"Units": "PROPCPS"},
        {"PatientWeight": None},
        {"PatientWeight": 0},
        {"CorrectedImage": ["DECY"]},
        {"DecayCorrection": "NONE"},
        {"SeriesTime": "x1"},
        {"SeriesTime": "180000"},
        {"RadiopharmaceuticalInformationSequence": Sequence()},
    ],
)
def test_suv_is_unknown_where_the_header_does_not_allow_it(elements):
    dataset = pet(**{key: value for key, value in elements.items() if value != "x1"})
    if elements.get("SeriesTime") == "x1":
        dataset["SeriesTime"]._value = "x1"
        dataset.AcquisitionTime = ""

    assert suv_factor(dataset) is None
