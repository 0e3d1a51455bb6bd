"""Answers of annotators as AWS's crowd elements and the DICOM task of the seed send them."""

import json

import pytest

from sagemaker_monai.errors import DatasetError
from sagemaker_monai.prepare.ground_truth.answers import MAX_DEPTH, Region, read_content

URL = "https://pacs.example/instances/0a1b-2c/file"
HANDLE = {"highlight": True, "active": False}


def dicom_task(*chosen, offered=("Edema", "Pneumonia", "No Finding"), roi=None):
    """As a page for DICOM sends it: the checkboxes by crowd-form, the rest as a text in a hidden input."""
    labels = {"label": list(chosen), "imageurl": URL} | ({"ROI": roi} if roi is not None else {})
    return json.dumps({"disease": {name: name in chosen for name in offered}, "labels": json.dumps(labels)})


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ({"crowd-image-classifier": {"label": "cat"}}, {"cat"}),
        ({"crowd-image-classifier-multi-select": {"labels": ["cat", "dog"]}}, {"cat", "dog"}),
        ({"diagnosis": "benign"}, {"benign"}),
        ({"disease": {"Edema": True, "Pneumonia": False}}, {"Edema"}),
        ({"disease": {"Edema": {"on": True}, "Pneumonia": {"on": False}}}, {"Edema"}),
        ({"btn": {"yes": True, "no": False}}, {"yes"}),
        ({"annotatedResult": {"boundingBoxes": [], "inputImageProperties": {"width": 9, "height": 9}}}, set()),
        ({"labels": ""}, set()),
        ({"labels": "", "disease": {"Edema": True, "Pneumonia": False}}, {"Edema"}),
        ({"my-attribute": json.dumps({"label": " Edema "})}, {"Edema"}),
        (dicom_task("Pneumonia"), {"Pneumonia"}),
        (dicom_task("Pneumonia", "Edema"), {"Pneumonia", "Edema"}),
        (dicom_task(), set()),
    ],
)
def test_the_classes_of_known_pages_are_found(content, expected):
    assert read_content(content)[0].classes == expected


def test_the_checkboxes_tell_which_classes_could_be_chosen():
    assert read_content(dicom_task("Edema"))[0].offered == {"Edema", "Pneumonia", "No Finding"}


def test_the_box_of_the_dicom_task_is_between_its_handles_and_not_its_caption():
    roi = {
        "start": {"x": 90.5, "y": 20, **HANDLE},
        "end": {"x": 30, "y": 80, **HANDLE},
        "boundingBox": {"left": 300, "top": 5, "width": 99, "height": 45},  # of the caption's text
    }

    assert read_content(dicom_task("Edema", roi=roi))[0].regions == (Region("box", "Edema", ((30, 20), (90.5, 80))),)


def test_the_polygon_of_the_dicom_task_keeps_its_corners_in_order():
    corners = [{"x": x, "y": y, "lines": [{"x": 0, "y": 0}], **HANDLE} for x, y in ((1, 2), (9, 2), (5, 8))]

    [region] = read_content(dicom_task("Edema", "Pneumonia", roi={"vertices": corners}))[0].regions

    assert region == Region("polygon", None, ((1, 2), (9, 2), (5, 8)))  # two findings: it is not told which


@pytest.mark.parametrize(
    ("roi", "expected"),
    [
        ({"handles": {"start": {"x": 1, "y": 2}, "end": {"x": 3, "y": 4}, "textBox": {"x": 9, "y": 9}}}, "box"),
        ({"handles": [{"x": 0, "y": 0}, {"x": 4, "y": 0}, {"x": 4, "y": 4}]}, "polygon"),
        ({"handles": {"points": [{"x": 0, "y": 0}, {"x": 4, "y": 0}, {"x": 4, "y": 4}]}}, "polygon"),
        ({"left": 1, "top": 2, "width": 3, "height": 4, "label": "Edema"}, "box"),
    ],
)
def test_the_tool_states_of_cornerstone_are_regions(roi, expected):
    assert [region.kind for region in read_content({"label": "x", "ROI": [roi]})[0].regions] == [expected]


def test_boxes_and_polygons_of_crowd_elements_carry_their_own_class():
    content = {
        "annotatedResult": {
            "boundingBoxes": [{"label": "dog", "left": 10, "top": 20, "width": 5, "height": 6}],
            "polygons": [{"label": "cat", "vertices": [{"x": 0, "y": 0}, {"x": 2, "y": 0}, {"x": 2, "y": 2}]}],
            "inputImageProperties": {"width": 100, "height": 100},
        }
    }

    read, unsound = read_content(content)

    assert read.classes == {"dog"}  # boundingBoxes go before polygons
    assert read.regions == (
        Region("box", "dog", ((10, 20), (15, 26))),
        Region("polygon", "cat", ((0, 0), (2, 0), (2, 2))),
    )
    assert unsound == 0


@pytest.mark.parametrize(
    "roi",
    [
        {"start": {"x": 1, "y": 1}, "end": {"x": 1, "y": 9}},
        {"start": {"x": 1}, "end": {"x": 3, "y": 9}},
        {"start": {"x": "1", "y": 1}, "end": {"x": 3, "y": 9}},
        {"left": 1, "top": 1, "width": -3, "height": True},
        {"left": 1e308, "top": 1, "width": 1e308, "height": 5},
        {"vertices": [{"x": 0, "y": 0}, {"x": 1, "y": 1}]},
        {"vertices": [{"x": 0, "y": 0}, {"x": 1, "y": 1}, {"x": 10**400, "y": 1}]},
    ],
)
def test_a_region_without_area_or_with_impossible_points_is_left_out_and_counted(roi):
    read, unsound = read_content({"label": "Edema", "ROI": roi})

    assert (read.regions, unsound, read.classes) == ((), 1, {"Edema"})


def test_the_answer_path_leads_through_json_in_json_and_lists():
    content = {"a": json.dumps([{"b": {"c": "left"}}]), "label": "wrong"}

    assert read_content(content, path=("a", "0", "b", "c"))[0].classes == {"left"}


@pytest.mark.parametrize(
    ("content", "path"),
    [
        ({"comment": True, "quality": {"x": 1.5, "y": 2}}, ()),
        ({"one": {"yes": True}, "two": {"no": True}}, ()),
        ({"label": "Edema"}, ("labels",)),
        ({"label": ["Edema"]}, ("label", "7")),
        ({"label": ["Edema"]}, ("label", "9" * 5000)),
        (None, ()),
        (3.5, ()),
    ],
)
def test_an_answer_without_a_known_place_is_refused_with_the_remedy(content, path):
    with pytest.raises(DatasetError, match="--answer-path"):
        read_content(content, path=path)


def nested(depth, wrap):
    value = "x"
    for _ in range(depth):
        value = wrap(value)
    return value


@pytest.mark.parametrize(
    "content",
    [
        nested(MAX_DEPTH + 2, lambda value: {"label": value}),
        nested(MAX_DEPTH + 2, lambda value: [value]),
        {"label": ["x"] * 2000},
        {"label": "x", "ROI": [{"start": {"x": 1, "y": 1}, "end": {"x": 2, "y": 2}}] * 2000},
        {"label": "x" * 1000},
        {"label": "a\x00b"},
    ],
)
def test_an_answer_past_the_limits_is_refused(content):
    with pytest.raises(DatasetError):
        read_content(content)


def test_json_that_is_nested_without_end_is_a_text_and_no_crash():
    with pytest.raises(DatasetError):
        read_content("[" * 100_000)
