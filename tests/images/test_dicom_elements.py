"""Header values: where they are looked for, and which spellings have one reading."""

import itertools
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom import Dataset
from pydicom.dataelem import RawDataElement
from pydicom.sequence import Sequence
from pydicom.tag import Tag

from sagemaker_monai.errors import UndecodableImage
from sagemaker_monai.images.dicom.elements import (
    frame_header,
    integer_of,
    number,
    numbers,
    numbers_of,
    text_of,
    whole_number,
    word,
)  # fmt: skip
from sagemaker_monai.images.dicom.pixels import read_frames
from sagemaker_monai.images.dicom.planes import planes_of
from sagemaker_monai.images.volumes import Window
from tests.support.made_dicom import item, made_dataset

# pydicom complains about what it converts; every reader here keeps it quiet.
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")

# Keyword -> its functional group (PS3.3 C.7.6.16.2) and three different sound values.
PLACED: dict[str, tuple[str, tuple[Any, ...]]] = {
    "RescaleSlope": ("PixelValueTransformationSequence", (2, 3, 5)),
    "RescaleIntercept": ("PixelValueTransformationSequence", (-7, 11, 13)),
    "WindowCenter": ("FrameVOILUTSequence", (17, 19, 23)),
    "WindowWidth": ("FrameVOILUTSequence", (29, 31, 37)),
    "PixelSpacing": ("PixelMeasuresSequence", ([0.5, 0.25], [0.75, 0.5], [1.5, 2])),
    "SliceThickness": ("PixelMeasuresSequence", (1, 2.5, 4)),
    "ImagePositionPatient": ("PlanePositionSequence", ([1, 2, 3], [4, 5, 6], [7, 8, 9])),
    "ImageOrientationPatient": (
        "PlaneOrientationSequence",
        ([1, 0, 0, 0, 1, 0], [0, 1, 0, 0, 0, 1], [1, 0, 0, 0, 0, 1]),
    ),
}


ABSENT, EMPTY, THERE = "absent", "empty", "there"
places = st.fixed_dictionaries(
    {keyword: st.tuples(*[st.sampled_from([ABSENT, EMPTY, THERE])] * 3) for keyword in PLACED}
)


def raw(keyword: str, vr: str, content: bytes) -> Dataset:
    """A dataset with one element as it would stand in a file."""
    dataset, tag = Dataset(), Tag(keyword)
    dataset[tag] = RawDataElement(tag, vr, len(content), content, 0, False, True)
    return dataset


def enhanced(where: dict[str, tuple[str, str, str]]) -> tuple[Dataset, dict[str, Any]]:
    """A file of one frame whose values stand per frame, shared or at the top, and what each has to be read as."""
    own, shared, top = Dataset(), Dataset(), made_dataset(np.full((1, 2, 2), 3, np.uint8))
    expected: dict[str, Any] = {}
    for keyword, states in where.items():
        sequence, values = PLACED[keyword]
        for level, state, chosen in zip((own, shared, top), states, values, strict=True):
            if state == ABSENT:
                continue
            if level is not top and sequence not in level:
                setattr(level, sequence, item())
            holder = level if level is top else level[sequence].value[0]
            setattr(holder, keyword, chosen if state == THERE else None)
        expected[keyword] = next((v for v, state in zip(values, states, strict=True) if state == THERE), None)
    top.PerFrameFunctionalGroupsSequence, top.SharedFunctionalGroupsSequence = Sequence([own]), Sequence([shared])
    return top, expected


@given(places)
@settings(max_examples=30, deadline=None)
def test_each_value_is_the_frames_own_then_the_shared_one_then_that_of_the_top(where):
    dataset, expected = enhanced(where)

    [frame] = read_frames(dataset)
    [plane] = planes_of(dataset)

    slope, intercept = expected["RescaleSlope"] or 1, expected["RescaleIntercept"] or 0
    assert frame.values.ravel().tolist() == [3 * slope + intercept] * 4
    center, width = expected["WindowCenter"], expected["WindowWidth"]
    assert frame.display.voi == (Window(center, width) if center and width else None)
    spacing = expected["PixelSpacing"]
    assert frame.spacing_mm == (tuple(reversed(spacing)) if spacing else None)
    assert plane.spacing == (tuple(spacing) if spacing else None)
    assert plane.thickness == expected["SliceThickness"]
    is_whole = all(expected[key] for key in ("PixelSpacing", "ImagePositionPatient", "ImageOrientationPatient"))
    assert plane.position == (tuple(expected["ImagePositionPatient"]) if is_whole else None)
    assert plane.orientation == (tuple(expected["ImageOrientationPatient"]) if is_whole else None)


@pytest.mark.parametrize("level", ["own", "shared", "top"])
def test_the_nearest_of_table_and_rescale_is_applied(level):
    table = item(LUTDescriptor=[4, 0, 16], LUTData=[100, 200, 300, 400], ModalityLUTType="US")
    data = made_dataset(np.full((2, 1, 1), 2, np.uint8), RescaleSlope=7, RescaleIntercept=0)
    if level == "top":
        data.ModalityLUTSequence = table
    else:
        group = item(PixelValueTransformationSequence=item(ModalityLUTSequence=table))
        keyword = "SharedFunctionalGroupsSequence" if level == "shared" else "PerFrameFunctionalGroupsSequence"
        setattr(data, keyword, group)

    first, second = read_frames(data)

    assert first.values.item() == 300
    assert second.values.item() == (14 if level == "own" else 300)


def test_a_rescale_of_the_frame_goes_before_a_table_of_the_top():
    table = item(LUTDescriptor=[4, 0, 16], LUTData=[100, 200, 300, 400], ModalityLUTType="US")
    group = item(PixelValueTransformationSequence=item(RescaleSlope=2, RescaleIntercept=1))
    dataset = made_dataset(np.full((1, 1, 1), 2, np.uint8), ModalityLUTSequence=table)
    dataset.PerFrameFunctionalGroupsSequence = group

    assert read_frames(dataset)[0].values.item() == 5


@pytest.mark.parametrize(
    ("keyword", "vr", "content", "expected"),
    [
        ("RescaleSlope", "DS", b"1,5", (1.5,)),
        ("RescaleSlope", "DS", b"-,5", (-0.5,)),
        ("RescaleSlope", "DS", b"0,125", (0.125,)),  # nobody writes thousands of nothing
        ("RescaleSlope", "DS", b"1,500000", (1.5,)),
        ("RescaleSlope", "DS", b"1,5E-3", (0.0015,)),
        ("PixelSpacing", "DS", b"0,703125\\0.5", (0.703125, 0.5)),
        ("PixelSpacing", "DS", b" 1.5 \0\\ 1,5\0", (1.5, 1.5)),
        ("PixelSpacing", "UN", b"1.5\\2.5 ", (1.5, 2.5)),
        ("PixelSpacing", "LO", b"1.5\\2,5", (1.5, 2.5)),
        ("SliceThickness", "DS", b"3 mm", (3.0,)),
        ("SliceThickness", "OB", b"3.5 ", (3.5,)),
        ("RescaleSlope", "DS", b"1\\1.0", (1.0, 1.0)),
        ("RescaleSlope", "DS", b"2\\", (2.0,)),
        ("RescaleSlope", "DS", b"  ", ()),
        ("RescaleSlope", "DS", b"", ()),
        ("RescaleSlope", "SQ", b"", ()),
        ("RescaleSlope", "FD", np.float64(2.5).tobytes(), (2.5,)),
        ("InstanceNumber", "IS", b"12.0", (12.0,)),
        ("InstanceNumber", "IS", b"12,0", (12.0,)),
        ("InstanceNumber", "IS", b" 0012\0", (12.0,)),
    ],
)
def test_numbers_with_one_reading_are_read(keyword, vr, content, expected):
    assert numbers(raw(keyword, vr, content), keyword) == expected


@pytest.mark.parametrize(
    ("keyword", "content", "reason"),
    [
        ("RescaleIntercept", b"-1,024", "comma"),
        ("RescaleIntercept", b"1.024,5", "not a number"),
        ("RescaleIntercept", b"1,5,5", "not a number"),
        ("RescaleIntercept", b"ten", "not a number"),
        ("RescaleIntercept", b"3 mm", "not a number"),  # HU are no lengths
        ("RescaleIntercept", b"1 2", "not a number"),
        ("RescaleIntercept", b"NaN", "not finite"),
        ("RescaleIntercept", b"-inf", "not finite"),
        ("RescaleIntercept", b"1e400", "not finite"),
        ("RescaleIntercept", b"1\\2", "2 values"),
        ("SliceThickness", b"3 cm", "not a number"),
        ("WindowCenter", b"40\\\\80", "between others"),
    ],
)
def test_numbers_with_two_readings_or_none_are_refused_by_name(keyword, content, reason):
    header = raw(keyword, "DS", content)

    with pytest.raises(UndecodableImage, match=f"^{keyword} of the DICOM header .*{reason}"):
        _ = numbers(header, keyword), number(header, keyword)

    assert numbers_of(header, keyword, 1) is None


@given(st.decimals(-(10**6), 10**6, places=3), st.sampled_from(["{}", " {} ", "{}\0", "+{}"]), st.booleans())
@settings(max_examples=100, deadline=None)
def test_a_comma_is_a_decimal_point_unless_it_may_part_thousands(value, form, has_comma):
    text = form.format(value if form != "+{}" else abs(value))
    plain = text.replace("+", "").strip(" \0")
    whole, fraction = plain.lstrip("-").split(".")
    header = raw("RescaleIntercept", "DS", (text.replace(".", ",") if has_comma else text).encode())

    if has_comma and len(whole) <= 3 and whole != "0" and len(fraction) == 3:
        with pytest.raises(UndecodableImage, match="comma"):
            number(header, "RescaleIntercept")
    else:
        assert number(header, "RescaleIntercept") == float(plain)


def test_whole_numbers_have_no_fraction_and_one_value():
    assert whole_number(raw("Rows", "US", b"\x02\0\x02\0"), "Rows", low=1, high=9) == 2
    assert integer_of(raw("InstanceNumber", "IS", b"7.0"), "InstanceNumber") == 7
    for keyword, vr, content in (("NumberOfFrames", "IS", b"1.5"), ("Rows", "US", b"\x02\0\x03\0")):
        header = raw(keyword, vr, content)
        with pytest.raises(UndecodableImage, match=f"^{keyword} of the DICOM header"):
            whole_number(header, keyword, low=1, high=9)
        assert integer_of(header, keyword) is None


def test_words_are_stripped_of_blanks_and_nuls_and_are_one():
    assert word(raw("SeriesInstanceUID", "UI", b"1.2.03 \0"), "SeriesInstanceUID") == "1.2.03"
    assert text_of(raw("PatientID", "LO", b" ab\0 "), "PatientID") == "ab"
    assert text_of(raw("PatientName", "PN", b"Doe^Jane "), "PatientName") == "Doe^Jane"
    assert text_of(raw("ImageType", "CS", b"ORIGINAL\\PRIMARY "), "ImageType") == "ORIGINAL\\PRIMARY"
    assert word(raw("Modality", "CS", b"CT\\CT"), "Modality") == "CT"
    with pytest.raises(UndecodableImage, match=r"^Modality of the DICOM header has 2 values"):
        word(raw("Modality", "CS", b"CT\\MR"), "Modality")


def test_frames_without_groups_of_their_own_have_the_shared_and_the_top_ones():
    dataset = made_dataset(np.zeros((3, 1, 1), np.uint8), RescaleIntercept=4)
    dataset.SharedFunctionalGroupsSequence = item(PixelValueTransformationSequence=item(RescaleSlope=2))
    dataset.PerFrameFunctionalGroupsSequence = item(PixelValueTransformationSequence=item(RescaleSlope=9))

    values = [[number(frame_header(dataset, k), key) for key in ("RescaleSlope", "RescaleIntercept")] for k in range(3)]

    assert values == [[9, 4], [2, 4], [2, 4]]


def test_combinations_of_levels_are_all_tried_for_one_value():
    for states in itertools.product((ABSENT, EMPTY, THERE), repeat=3):
        dataset, expected = enhanced({"RescaleSlope": states})
        assert number(frame_header(dataset, 0), "RescaleSlope") == expected["RescaleSlope"], states
