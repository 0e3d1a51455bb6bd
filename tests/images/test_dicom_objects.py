"""What an object is by its attributes, and which of several series is meant."""

import numpy as np
import pytest

from sagemaker_monai.errors import ConfigError
from sagemaker_monai.images.dicom.choice import choose, meant
from sagemaker_monai.images.dicom.objects import Subject, kind_of, modality_of
from sagemaker_monai.images.dicom.series import find_instances, group_series
from sagemaker_monai.images.dicom.wanted import Choice
from tests.support.dicom_series import AXIAL, CORONAL, CT, make_series, make_slice, positions_of, to_bytes
from tests.support.exhaustive import exhaustive
from tests.support.medical_sets import coloured

STORAGE = "1.2.840.10008.5.1.4.1.1."


@pytest.mark.parametrize(
    ("sop_class", "modality", "image_type", "kind"),
    [
        ("2", "CT", ["ORIGINAL", "PRIMARY", "AXIAL"], "image"),
        ("2.1", "CT", ["ORIGINAL", "PRIMARY", "VOLUME", "NONE"], "image"),
        ("4", "MR", ["DERIVED", "PRIMARY", "DIFFUSION", "ADC"], "image"),
        ("1.1", "DX", [], "image"),
        ("6.2", "US", [], "image"),
        ("66.4", "SEG", ["DERIVED", "PRIMARY"], "mask"),
        ("2", "SEG", ["DERIVED", "PRIMARY", "AXIAL"], "mask"),  # a tool that copied the class
        ("66.4", "CT", [], "mask"),
        ("66.4", "", [], "mask"),
        ("481.2", "RTDOSE", [], "dose"),
        ("481.2", "", [], "dose"),
        ("", "RTDOSE", [], "dose"),
        ("481.5", "RTPLAN", [], "plan"),
        ("481.3", "RTSTRUCT", [], "contours"),
        ("481.1", "RTIMAGE", [], "image"),
        ("30", "MR", [], "map"),
        ("67", "RWV", [], "map"),
        ("11.1", "PR", [], "state"),
        ("88.67", "SR", [], "report"),
        ("104.1", "DOC", [], "document"),
        ("7", "CT", ["DERIVED", "SECONDARY"], "capture"),
        ("7.4", "", [], "capture"),
        ("2", "CT", ["DERIVED", "SECONDARY", "SCREEN SAVE"], "capture"),
        ("2", "CT", ["DERIVED", "SECONDARY", "OTHER", "CT_SOM5 PROT"], "capture"),
        ("2", "CT", ["derived", "secondary", "Screen_Shot"], "capture"),
        ("2", "CT", ["ORIGINAL", "PRIMARY", "LOCALIZER", "CT_SOM5 TOP"], "scout"),
        ("4", "MR", ["DERIVED", "SECONDARY", "PROJECTION IMAGE"], "projection"),
        ("4", "MR", ["DERIVED", "PRIMARY", "MIP"], "projection"),
        ("2", "CT", ["DERIVED", "SECONDARY", "AXIAL", "CT_SOM5 MIP"], "projection"),
        ("2", "CT", ["DERIVED", "SECONDARY", "MPR"], "reformat"),
        ("2", "CT", ["DERIVED", "SECONDARY", "REFORMATTED", "AVERAGE"], "reformat"),
        ("2", "CT", ["ORIGINAL", "PRIMARY", "AXIAL", "CT_SOM5 SPI"], "image"),
        ("9.1.1", "ECG", [], "other"),
    ],
)
def test_class_modality_and_type_say_what_an_object_is(sop_class, modality, image_type, kind):
    assert kind_of(STORAGE + sop_class if sop_class else "", modality, tuple(image_type)) == kind


def test_what_is_missing_is_said_by_the_rest():
    assert kind_of("", "") == "image"
    assert kind_of("1.3.12.2.1107.5.9.1", "MR") == "unknown"
    assert modality_of(f"{STORAGE}2", "") == "CT"
    assert modality_of(f"{STORAGE}4.1\0", " \0") == "MR"
    assert modality_of("", "pt ") == "PT"


def test_a_name_says_nothing_that_only_the_file_says():
    assert Subject("mask", "SEG", is_colour=False).name == "SEG (mask)"
    assert Subject("image", "DOE^JANE", is_colour=False).name == "images without a known Modality"


def stacks(*parts):
    """Stacks of series, in this order of files."""
    files = [to_bytes(each) for part in parts for each in part]
    return [each for each in group_series(find_instances(files)) if each.slices]


def ct(number, count=8, orientation=AXIAL, gap_mm=2.5, **elements):
    values = np.random.default_rng(number).integers(0, 100, (count, 6, 7)).astype(np.int16)
    places = positions_of(count, orientation, gap_mm)
    header = CT | {"SeriesInstanceUID": f"1.2.3.{number}", "SeriesNumber": number} | elements
    files = make_series(values, orientation, places=places, **header | {"SOPClassUID": header["SOPClassUID"] or "1"})
    for each in files if header["SOPClassUID"] is None else ():
        del each.SOPClassUID
    return files


RULES = (meant, lambda found: choose(found, Choice(), remedy="r"))
UNWANTED = {
    "a mask": lambda: ct(2, 12, SOPClassUID=f"{STORAGE}66.4", Modality="SEG"),
    "a dose": lambda: ct(2, 12, SOPClassUID=f"{STORAGE}481.2", Modality="RTDOSE"),
    "a dose without modality": lambda: ct(2, 12, SOPClassUID=f"{STORAGE}481.2", Modality=None, ImageType=None),
    "a map": lambda: ct(2, 12, SOPClassUID=f"{STORAGE}30"),
    "a grey capture": lambda: ct(2, 1, SOPClassUID=f"{STORAGE}7", ImageType=["DERIVED", "SECONDARY", "SCREEN SAVE"]),
    "a colour report": lambda: [coloured(np.zeros((6, 7, 3)), SeriesInstanceUID="1.2.3.2")],
    "a marked localizer": lambda: ct(2, 12, ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"]),
    "a scout without a mark": lambda: ct(2, 2, CORONAL),
    "one slice without a mark": lambda: ct(2, 1),
    "projections": lambda: ct(2, 12, ImageType=["DERIVED", "SECONDARY", "MIP"]),
    "reformatted": lambda: ct(2, 12, CORONAL, ImageType=["DERIVED", "SECONDARY", "MPR"]),
}


@pytest.mark.parametrize("missing", exhaustive(["", "ImageType", "Modality", "SOPClassUID"]))
@pytest.mark.parametrize("name", UNWANTED)
def test_of_a_series_and_something_else_the_series_is_meant(name, missing):
    found = stacks(UNWANTED[name](), ct(1, **({missing: None} if missing else {})))

    for each, chosen in ((each, rule(each)) for each in (found, found[::-1]) for rule in RULES):
        assert [each[place].uid for place in chosen.taken] == ["1.2.3.1"]
        assert len(chosen.left) == len(found) - 1
        assert not chosen.fault


@pytest.mark.parametrize("name", UNWANTED)
def test_what_is_there_alone_is_meant(name):
    found = stacks(UNWANTED[name]())

    assert choose(found, Choice(), remedy="r").taken == (0,)


def test_who_asks_for_masks_gets_them():
    found = stacks(ct(1), UNWANTED["a mask"]())
    chosen = choose(found, Choice(("seg",)), remedy="r")

    assert [found[place].modality for place in chosen.taken] == ["SEG"]
    assert "no series of PT, only CT, SEG (mask)" in choose(found, Choice(("PT",)), remedy="r").fault


@pytest.mark.parametrize(("rule", "uid"), [("most-slices", "1.2.3.1"), ("thinnest", "1.2.3.2"), ("newest", "1.2.3.3")])
def test_each_rule_takes_one_series_in_any_order(rule, uid):
    parts = [
        ct(1, 9, gap_mm=5, SeriesDate="20240101", SeriesTime="101010"),
        ct(2, 8, gap_mm=1, SeriesDate="20240101", SeriesTime="1110"),
        ct(3, 7, gap_mm=3, SeriesDate="20240102", SeriesTime="091010.5"),
    ]
    for order in (parts, parts[::-1]):
        found = stacks(*order)
        chosen = choose(found, Choice(series=rule), remedy="r")
        assert [found[place].uid for place in chosen.taken] == [uid]
    assert len(choose(found, Choice(series="all"), remedy="r").taken) == 3
    assert len(choose(found, Choice(series="1.2.3.2"), remedy="r").taken) == 1


@pytest.mark.parametrize(
    ("rule", "said"),
    [
        ("most-slices", "2 series with 8 slices each; name one"),
        ("thinnest", "2 series equally thin; name one"),
        ("newest", "2 series, of which 2 have no date and time; name one"),
        ("only", "2 series or volumes (other echoes, times or orientations); name one"),
    ],
)
def test_a_tie_is_refused_and_not_broken_by_a_uid(rule, said):
    chosen = choose(stacks(ct(1), ct(2)), Choice(series=rule), remedy="name one")

    assert (chosen.taken, chosen.fault) == ((), said)


def test_a_description_chooses_with_wildcards_in_any_case():
    found = stacks(ct(1, SeriesDescription="Lung 1.0"), ct(2, SeriesDescription="soft tissue"))

    assert [found[each].uid for each in choose(found, Choice(description="*LUNG*"), remedy="r").taken] == ["1.2.3.1"]
    assert choose(found, Choice(description="brain"), remedy="r").fault
    with pytest.raises(ConfigError, match="shorten"):
        Choice(description="x" * 300).check()
    with pytest.raises(ConfigError, match="series must be one of"):
        Choice(series="largest").check()


def test_two_modalities_of_a_study_are_not_chosen_among():
    found = stacks(ct(1, 9), ct(2, 8, Modality="PT", SOPClassUID=f"{STORAGE}128"))

    assert choose(found, Choice(), remedy="r").fault == "images of 2 modalities (CT, PT); r"
    assert len(choose(found, Choice(("PT",)), remedy="r").taken) == 1


def test_an_x_ray_is_no_scout_of_another():
    found = stacks([make_slice(np.zeros((6, 7)), Modality="DX", SeriesInstanceUID=f"1.{n}") for n in range(2)])

    assert len(meant(found).taken) == 2
