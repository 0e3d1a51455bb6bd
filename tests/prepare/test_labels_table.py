"""Tables of labels: every way in which people write them, and every fault that would otherwise be learned from."""

import pytest

from sagemaker_monai.errors import ConfigError, DatasetError
from sagemaker_monai.prepare.labels_table import LabelOptions, labels_of_folders, read_labels
from sagemaker_monai.prepare.matching import find_lines
from tests.support.imported import table


@pytest.fixture
def read(tmp_path):
    def call(*rows, **options):
        return read_labels(table(tmp_path / "labels.csv", *rows), LabelOptions(**options))

    return call


def test_the_column_says_what_a_line_is_about(read):
    kinds = {
        "file": ("file", "Image", "File Name"),
        "SOPInstanceUID": ("SOPInstanceUID",),
        "SeriesInstanceUID": ("series_instance_uid", "series_uid"),
        "StudyInstanceUID": ("StudyInstanceUID",),
        "PatientID": ("patient_id", "Patient ID"),
        "case": ("case",),
    }
    for kind, columns in kinds.items():
        for column in columns:
            found = read([column, "label"], ["a", "x"], ["b", "y"])
            assert (found.kind, [line.key for line in found.lines]) == (kind, ["a", "b"]), column


def test_the_finest_column_is_taken_unless_another_is_named(read):
    rows = [["patient_id", "file", "label"], ["p", "a", "x"], ["q", "b", "y"]]

    assert read(*rows).kind == "file"
    assert read(*rows, match="PatientID").kind == "PatientID"
    assert [line.key for line in read(*rows, match="patient_id").lines] == ["p", "q"]


def test_a_column_of_any_name_can_be_matched_by(read):
    assert read(["scan", "label"], ["a", "x"], ["b", "y"], match="Scan").kind == "file"


def test_numbers_as_classes_are_in_the_order_of_numbers(read):
    assert read(["file", "label"], *[[f"f{n}", n] for n in (10, 9, 2)]).classes == ("2", "9", "10")


def test_columns_of_zeros_and_ones_are_findings(read):
    found = read(
        ["file", "Edema", "mass"], ["a", 1, "0.0"], ["b", "0", "false"], ["c", "1.0", "True"], columns=("edema", "mass")
    )

    assert (found.task, found.classes) == ("multilabel", ("edema", "mass"))
    assert [line.label for line in found.lines] == [("edema",), (), ("edema", "mass")]


@pytest.mark.parametrize(
    ("cell", "message"),
    [("2", "'2' in mass; columns of findings hold 0 or 1"), ("maybe", "'maybe' in mass"),
     ("-1", "an uncertain finding .* --uncertain-labels: missing, positive, negative"), ("U", "an uncertain finding")],
)  # fmt: skip
def test_an_uncertain_or_odd_finding_is_not_taken_for_no(read, cell, message):
    with pytest.raises(DatasetError, match=f"row 3 has {message}"):
        read(["file", "edema", "mass"], ["a", 1, 0], ["b", 1, cell], columns=("edema", "mass"))


def test_a_cell_of_a_finding_is_no_finding_when_empty_and_a_line_without_a_label_when_it_says_so(read):
    rows = [["file", "edema", "mass"], ["a", 1, ""], ["b", "", ""], ["c", "nan", 1]]
    found = read(*rows, columns=("edema", "mass"))

    assert [line.label for line in found.lines] == [("edema",), ()]
    assert found.unlabelled == ("c",)
    # Where "no" is written as 0, a line of empty cells says nothing.
    assert read(*rows, ["d", 0, 0], columns=("edema", "mass")).unlabelled == ("b", "c")


def test_findings_in_one_column_have_bars_between_them(read):
    found = read(["file", "label"], ["a", "mass|edema"], ["b", ""], ["c", "edema; edema"], task="multilabel")

    assert found.classes == ("edema", "mass")
    assert [line.label for line in found.lines] == [("mass", "edema"), (), ("edema",)]


def test_numbers_are_for_regression_and_finite(read):
    def numbers(*cells):
        rows = [[f"f{place}", cell] for place, cell in enumerate(cells)]
        return [line.label for line in read(["file", "label"], *rows, task="regression").lines]

    assert numbers("1.5", "-2") == [1.5, -2.0]
    assert numbers("1,5", "nan") == [1.5]
    for cell in ("inf", "x"):
        with pytest.raises(DatasetError, match="regression needs a finite number"):
            numbers(cell)


def test_measurements_do_not_silently_become_classes(read):
    with pytest.raises(DatasetError, match="choose --task regression"):
        read(["file", "label"], ["a", "1.5"], ["b", "2.25"])


def test_grades_are_in_the_order_that_was_given_and_may_be_without_an_image(read):
    found = read(["file", "label"], ["a", "severe"], ["b", "none"], grades=("none", "mild", "severe"))

    assert (found.task, found.classes) == ("ordinal", ("none", "mild", "severe"))
    with pytest.raises(DatasetError, match=r"not in --grades: 1 \(Mild\)"):
        read(["file", "label"], ["a", "Mild"], grades=("none", "mild"))
    with pytest.raises(ConfigError, match="order of mild, none is not known"):
        read(["file", "label"], ["a", "mild"], ["b", "none"], task="ordinal")


def test_a_key_with_two_labels_is_refused_and_the_same_line_twice_is_one(read):
    assert len(read(["file", "label"], ["a", "x"], ["a", "x"], ["b", "y"]).lines) == 2
    with pytest.raises(DatasetError, match="row 4 contradicts row 2, which has the same patient_id"):
        read(["patient_id", "label"], ["p", "x"], ["q", "x"], ["p", "y"])


def test_lines_without_a_label_are_told_apart_from_labels(read):
    found = read(["file", "label"], ["a", "x"], ["b", ""], ["c", "y"])

    assert (found.unlabelled, found.classes) == (("b",), ("x", "y"))


def test_only_columns_that_were_asked_for_are_kept(read):
    rows = [["file", "label", "Name", "age"], ["a", "x", "Quixotic", "70"], ["b", "y", "Doe", ""]]

    assert [line.kept for line in read(*rows).lines] == [{}, {}]
    assert [line.kept for line in read(*rows, keep_columns=("Age",)).lines] == [{"age": "70"}, {"age": None}]


@pytest.mark.parametrize(
    ("rows", "options", "message"),
    [
        ([["file", "age"], ["a", "x"]], {}, "no column label; it has file, age"),
        ([["title", "label"], ["a", "x"]], {}, "no column that identifies the images"),
        ([["file", "label"]], {}, "has no lines"),
        ([["file", "label"], ["a", "x"], ["b", "x"]], {}, "needs at least 2 classes"),
        ([["file", "label"], ["", "x"]], {}, "row 2 has nothing in file"),
        ([["file", "label", "split"], ["a", "x", "all"]], {}, "split 'all'; use training"),
        ([["file", "label"], ["a", "x"]], {"match": "scan"}, "no column scan"),
    ],
)
def test_what_is_no_table_of_labels_is_refused_with_the_reason(read, rows, options, message):
    with pytest.raises(DatasetError, match=message):
        read(*rows, **options)


@pytest.mark.parametrize(
    "options",
    [
        {"columns": ("x", "y"), "task": "regression"},
        {"grades": ("a", "b"), "task": "classification"},
        {"columns": ("x",), "task": "segmentation"},
        {"task": "detection"},
    ],
)
def test_options_that_contradict_each_other_are_refused(read, options):
    with pytest.raises(ConfigError):
        read(["file", "label", "x", "y"], ["a", "1", 1, 0], ["b", "2", 0, 1], **options)


def test_folders_are_classes_at_any_depth_and_splits_above_them():
    found = labels_of_folders(["ill/1.dcm", "well/p/2.dcm"], LabelOptions())
    assert [line.label for line in found.lines] == ["ill", "well"]
    assert not found.has_split

    found = labels_of_folders(["train/ill/1.dcm", "train/well/2.dcm", "val/ill/3.dcm"], LabelOptions())
    assert [(line.label, line.split) for line in found.lines] == [
        ("ill", "training"), ("well", "training"), ("ill", "validation"),
    ]  # fmt: skip

    with pytest.raises(DatasetError, match=r"in no folder of a class: 1 \(2.dcm\)"):
        labels_of_folders(["ill/1.dcm", "2.dcm"], LabelOptions())


def test_patients_that_a_spreadsheet_took_for_numbers_are_found_with_their_zeros(read):
    table = read(["PatientID", "label"], ["100", "a"], ["101.0", "b"])

    lines, remarks = find_lines(table, ["000100", "000101"])

    assert {patient: line.label for patient, line in lines.items()} == {"000100": "a", "000101": "b"}
    assert [(remark.code, remark.count) for remark in remarks] == [("names_found_otherwise", 2)]
    with pytest.raises(DatasetError, match=r"could be about several PatientID, or share one: 1 \(row 2\)"):
        find_lines(table, ["0100", "00100", "000101"])
