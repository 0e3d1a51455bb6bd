"""What labels, groups and folds of a data set mean, in every layout: what train, evaluate and doctor read."""

import json

import pytest

from sagemaker_monai.data.label_rules import LabelRules
from sagemaker_monai.data.labelled import Reading, read_labelled, reading_of
from sagemaker_monai.errors import ConfigError, DatasetError
from sagemaker_monai.hyperparameters import TrainConfig
from sagemaker_monai.storage.columns import Columns


@pytest.fixture
def read(tmp_path):
    """Read rows of a table of images that nobody opens; keywords are rules, `columns` are those of a table."""

    def call(header, *rows, columns=None, fold="", known=(), **rules):
        names = header.split(",")
        place = next((position for position, name in enumerate(names) if name == "image"), 0)
        for row in rows:
            (tmp_path / row.split(",")[place]).write_bytes(b"x")
        (tmp_path / "labels.csv").write_text("\n".join([header, *rows, ""]))
        reading = Reading(columns or Columns(), LabelRules(**rules), fold=fold)
        return read_labelled({"training": tmp_path}, reading, known=known)

    return call


def numbered(*labels):
    return [f'{number}.png,"{label}"' for number, label in enumerate(labels)]


def labels_of(layout):
    return [entry.label for entry in layout.entries]


def groups_of(layout):
    return [entry.group for entry in layout.entries]


def splits_of(layout):
    return [entry.split for entry in layout.entries]


def in_class_folders(root, *names):
    """A picture for each class."""
    for name in names:
        (root / name).mkdir(parents=True)
        (root / name / "1.png").write_bytes(b"x")
    return {"training": root}


def codes(layout):
    return [remark.code for remark in layout.remarks if remark.code != "no_groups"]


# --- missing values


@pytest.mark.parametrize(
    "cell", ["", "nan", "NaN", "NA", "N/A", "#N/A", "null", "None", "-", "?", "<NA>", " n/a", "\u2014"]
)
def test_a_cell_that_spreadsheets_write_for_nothing_is_no_class(read, cell):
    layout = read("image,label", *numbered("a", "b", cell))

    assert (layout.labels, labels_of(layout), codes(layout)) == (("a", "b"), ["a", "b"], ["missing_labels"])
    with pytest.raises(DatasetError, match=r"2\.png has no label, one of 1"):
        read("image,label", *numbered("a", "b", cell), missing_labels="refuse")


def test_what_was_declared_is_a_class_whatever_it_is_called(read, tmp_path):
    assert read("image,label", *numbered("None", "Mild"), grades=("None", "Mild")).labels == ("None", "Mild")
    assert labels_of(read("image,label", *numbered("NA", "x"), known=("NA", "x"))) == ["NA", "x"]
    layout = read_labelled(in_class_folders(tmp_path / "folders", "None", "NA"), Reading())

    assert labels_of(layout) == ["NA", "None"]


def test_minus_is_a_class_beside_plus(read):
    assert read("image,label", *numbered("+", "-", "+")).labels == ("+", "-")


# --- grades


@pytest.mark.parametrize(
    ("labels", "order"),
    [
        (["10", "9", "2"], ("2", "9", "10")),
        (["1.0", "0.5", "2"], ("0.5", "1.0", "2")),
        (["Grade 10", "grade 9", "Grade_2"], ("Grade_2", "grade 9", "Grade 10")),
        (["KL2", "KL0", "KL10"], ("KL0", "KL2", "KL10")),
    ],
)
def test_grades_with_numbers_are_in_the_order_of_the_numbers(read, labels, order):
    assert read("image,label", *numbered(*labels), task="ordinal").labels == order


@pytest.mark.parametrize(
    "labels", [["Mild", "Severe"], ["T1", "N2"], ["1", "2", "high"], ["T1a", "T1b"], ["a1", "a01"]]
)
def test_words_are_grades_only_in_an_order_that_was_given(read, labels):
    with pytest.raises((ConfigError, DatasetError), match=r"order of .* is not known; give grades|look alike"):
        read("image,label", *numbered(*labels), task="ordinal")
    assert read("image,label", *numbered(*labels), grades=tuple(labels[::-1])).labels == tuple(labels[::-1])


def test_class_folders_have_no_order_of_grades_and_dataset_json_has(tmp_path):
    channels = in_class_folders(tmp_path, "Severe", "Mild")
    ordinal = Reading(rules=LabelRules(task="ordinal"))
    with pytest.raises(ConfigError, match="order of Mild, Severe is not known"):
        read_labelled(channels, ordinal)
    items = [{"image": f"{name}/1.png", "label": name} for name in ("Mild", "Severe")]
    content = {"labels": {"0": "Mild", "1": "Severe"}, "training": items}
    (tmp_path / "dataset.json").write_text(json.dumps(content))

    assert read_labelled(channels, ordinal).labels == ("Mild", "Severe")


# --- measurements


@pytest.mark.parametrize("labels", [["20.5", "30"], ["20,5", "30,5"], ["1e3", "2e3"], list(map(str, range(20, 60)))])
def test_measurements_are_never_silently_classes(read, labels):
    with pytest.raises(DatasetError, match="choose task=regression, or task=classification"):
        read("image,label", *numbered(*labels))
    assert len(read("image,label", *numbered(*labels), task="classification").labels) == len(labels)


def test_whole_numbers_of_classes_stay_classes(read):
    assert read("image,label", *numbered(*"0120212")).labels == ("0", "1", "2")
    assert read("image,label", *numbered("0.0", "1.0", "1.0")).labels == ("0.0", "1.0")


def test_numbers_have_a_decimal_point_or_comma(read):
    layout = read("image,label", *numbered("1,5", "2.25", "\u22123", "nan"), task="regression")

    assert labels_of(layout) == [1.5, 2.25, -3.0]
    with pytest.raises(DatasetError, match="could be a number with decimals or thousands"):
        read("image,label", *numbered("1,234", "2"), task="regression")


def test_codes_far_from_all_other_numbers_are_told_and_can_be_missing(read):
    labels = [*map(str, range(60, 75)), "-999", "9999"]
    layout = read("image,label", *numbered(*labels), task="regression")

    [remark, _] = layout.remarks
    assert remark.code == "labels_far_off"
    assert "-999 1 times, 9999 1 times" in remark.message
    assert "missing_codes=-999,9999" in remark.message
    layout = read("image,label", *numbered(*labels), task="regression", missing_codes=(-999.0, 9999.0))
    assert (len(layout.entries), codes(layout)) == (15, ["missing_labels"])


# --- findings


@pytest.mark.parametrize("mark", ["|", ";", " | "])
def test_lists_of_findings_are_multi_label_in_any_order(read, mark):
    layout = read("image,label", *numbered(f"Effusion{mark}Edema", f"Edema{mark}Effusion", "Edema", ""))

    assert (layout.task, layout.labels, codes(layout)) == ("multilabel", ("Edema", "Effusion"), ["labels_are_lists"])
    assert labels_of(layout) == [("Effusion", "Edema"), ("Edema", "Effusion"), ("Edema",), ()]


def test_a_name_with_a_bar_whose_parts_are_nowhere_else_is_a_name(read):
    layout = read("image,label", *numbered("=1+1; x|y", "basal cell, nodular"))

    assert (layout.task, layout.labels, codes(layout)) == (
        "classification", ("=1+1; x|y", "basal cell, nodular"), ["bars_in_names"],
    )  # fmt: skip


def test_commas_between_labels_are_refused_where_they_could_be_lists(read):
    with pytest.raises(DatasetError, match=r"commas whose parts are labels too: 1 \(a, b\)"):
        read("image,label", *numbered("a", "b", "a, b"))


def test_commas_are_between_findings_where_multilabel_is_asked_for_and_a_part_stands_elsewhere(read):
    layout = read("image,label", *numbered("Mass, Edema", "Edema", "Mass"), task="multilabel")
    assert labels_of(layout) == [("Mass", "Edema"), ("Edema",), ("Mass",)]

    layout = read("image,label", *numbered("basal cell, nodular", "naevus"), task="multilabel")
    assert labels_of(layout) == [("basal cell, nodular",), ("naevus",)]


def test_crosses_and_empty_cells_are_findings(read):
    layout = read("image,a,b", "1.png,x,", "2.png,,X", "3.png,,", columns=Columns(label=("a", "b")))

    assert labels_of(layout) == [("a",), ("b",), ()]


@pytest.mark.parametrize("code", ["9", "99", "-9"])
def test_a_grade_that_is_a_code_by_its_number_is_told(read, code):
    labels = [*"01230123", code]

    assert "labels_far_off" in codes(read("image,label", *numbered(*labels), task="ordinal"))
    assert read("image,label", *numbered(*labels), missing_codes=(float(code),)).labels == ("0", "1", "2", "3")
    assert codes(read("image,label", *numbered(*"012345678"))) == []


def test_a_list_as_pandas_writes_it_is_a_list(read):
    layout = read("image,label", *numbered("['Mass', 'Edema']", "['Edema']", "[]"))

    assert labels_of(layout) == [("Mass", "Edema"), ("Edema",), ()]


def test_columns_of_findings_are_multi_label_and_empty_is_no_finding(read):
    rows = ["1.png,1,", "2.png,0.0,1", "3.png,,1.0"]
    layout = read("image,Edema,Mass", *rows, columns=Columns(label=("Edema", "mass")))

    assert (layout.task, layout.labels) == ("multilabel", ("edema", "mass"))
    assert labels_of(layout) == [("edema",), ("mass",), ("mass",)]


@pytest.mark.parametrize(
    ("meaning", "expected"),
    [("positive", [("a",), ("b",), ("a", "b")]), ("negative", [("a",), ("b",), ("a",)]), ("missing", [("a",), ("b",)])],
)
@pytest.mark.parametrize("code", ["-1", "-1.0", "u", "U", "uncertain"])
def test_uncertain_findings_mean_what_the_rule_says(read, meaning, expected, code):
    rows = ["1.png,1,0", "2.png,0,1", f"3.png,1,{code}"]
    columns = Columns(label=("a", "b"))
    with pytest.raises(DatasetError, match=r"3\.png has an uncertain finding .*_labels: missing, positive"):
        read("image,a,b", *rows, columns=columns)

    layout = read("image,a,b", *rows, columns=columns, uncertain_labels=meaning)

    assert labels_of(layout) == expected
    assert "uncertain_labels" in codes(layout)


def test_a_set_to_score_is_read_by_the_names_of_the_model(read):
    with pytest.raises(DatasetError, match=r"look alike: 1 .* write them as the model's classes are called"):
        read("image,label", *numbered("benign", "x"), known=("Benign", "x"))
    layout = read("image,label", *numbered("Severe"), known=("Mild", "Severe"), task="ordinal")
    assert layout.labels == ("Mild", "Severe")


def test_an_uncertain_code_beside_yes_and_no_in_one_column_follows_the_same_rule(read):
    labels = numbered("1", "0", "0", "-1")
    with pytest.raises(DatasetError, match="uncertain finding"):
        read("image,label", *labels)

    assert labels_of(read("image,label", *labels, uncertain_labels="positive")) == ["1", "0", "0", "1"]
    assert read("image,label", *labels, uncertain_labels="class").labels == ("-1", "0", "1")
    assert read("image,label", *numbered("1", "-1", "1")).labels == ("-1", "1")


def test_one_hot_columns_can_be_classes(read):
    rows, columns = ["1.png,1,0", "2.png,0,1"], Columns(label=("a", "b"))

    assert "findings_are_classes" in codes(read("image,a,b", *rows, columns=columns))
    assert labels_of(read("image,a,b", *rows, columns=columns, task="classification")) == ["a", "b"]


# --- names that look alike


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("Benign", "benign"), ("1", "1.0"), ("1", "01"), ("No DR", "NoDR"), ("no_dr", "no dr"),
        ("\u00d6dem", "O\u0308dem"),
        ("stage II", "stage \u2161"), ("Benign", "B\u0435nign"), ("a\u00a0b", "a b"), ("zero\u200bwidth", "zerowidth"),
    ],
)  # fmt: skip
def test_labels_that_look_alike_are_refused_merged_or_kept(read, one, other):
    labels = numbered(one, other, other, "x y z")
    with pytest.raises(DatasetError, match=r"look alike: 1 \(.* = .*similar_labels=merge .*similar_labels=keep"):
        read("image,label", *labels)

    merged = read("image,label", *labels, similar_labels="merge")
    assert (labels_of(merged)[:3], codes(merged)) == ([other] * 3, ["similar_labels_merged"])
    assert len(read("image,label", *labels, similar_labels="keep").labels) == 3


def test_findings_in_lists_and_declared_classes_can_look_alike_too(read, tmp_path):
    with pytest.raises(DatasetError, match="look alike"):
        read("image,label", *numbered("Edema|Mass", "edema", "Mass"))
    channels = in_class_folders(tmp_path / "folders", "Benign", "benign ")
    with pytest.raises(DatasetError, match="look alike"):
        read_labelled(channels, Reading())
    content = {"labels": {"0": "Benign", "1": "x"}, "training": [{"image": "Benign/1.png", "label": "benign"}]}
    (tmp_path / "folders" / "dataset.json").write_text(json.dumps(content))
    with pytest.raises(DatasetError, match=r"not in labels: 1 .*look alike"):
        read_labelled(channels, Reading())

    merged = read_labelled(channels, Reading(rules=LabelRules(similar_labels="merge")))

    assert labels_of(merged) == ["Benign"]


# --- who is a patient


@pytest.mark.parametrize(
    "name",
    ["patient_id", "PatientID", "Patient ID", "patient-id", "subject", "SUBJECT_ID", "participant_id", "case",
     "case_id",
     "lesion_id", "MRN", "PatientenNummer", "id_paciente", "\u60a3\u8005ID", "study_id", "AccessionNumber", "ptid"],
)  # fmt: skip
def test_a_column_that_names_a_patient_is_the_group_and_a_remark_says_so(read, name):
    layout = read(f"image,label,{name}", "1.png,a,p1", "2.png,b,p1", "3.png,a,p2", "4.png,b,p2")

    assert groups_of(layout) == ["p1", "p1", "p2", "p2"]
    assert codes(layout) == ["groups_by_column"]


def test_other_columns_are_no_groups(read):
    for name in ("age", "sex", "id", "patient_age", "scanner", "study", "fall", "patch", "category"):
        layout = read(f"image,label,{name}", "1.png,a,p1", "2.png,b,p1")

        assert groups_of(layout) == ["1.png", "2.png"], name


def test_the_coarser_of_two_columns_keeps_both_together(read):
    rows = ["1.png,a,l1,p1", "2.png,b,l2,p1", "3.png,b,l3,p2"]

    assert groups_of(read("image,label,lesion_id,patient_id", *rows)) == ["p1", "p1", "p2"]
    assert groups_of(read("image,label,group,patient_id", *rows)) == ["p1", "p1", "p2"]
    assert groups_of(read("image,label,patient_id,group", *rows)) == ["p1", "p1", "p2"]
    named = read("image,label,lesion_id,patient_id", *rows, columns=Columns(group="Lesion ID"))
    assert groups_of(named) == ["l1", "l2", "l3"]
    none = read("image,label,lesion_id,patient_id", *rows, columns=Columns(group="none"))
    assert groups_of(none) == ["1.png", "2.png", "3.png"]


def test_columns_that_contradict_each_other_are_refused_or_told(read):
    rows = ["1.png,a,1,p1", "2.png,b,1,p2", "3.png,b,2,p2"]

    assert "groups_not_nested" in codes(read("image,label,lesion_id,patient_id", *rows))
    with pytest.raises(DatasetError, match=r"columns group and patient_id disagree .* with group_column"):
        read("image,label,group,patient_id", *rows)


def test_a_group_column_that_says_the_label_is_none_where_a_patient_is_named(read):
    layout = read("image,label,group,participant_id", "1.png,AD,ad,s1", "2.png,AD,ad,s2", "3.png,HC,hc,s3")

    assert groups_of(layout) == ["s1", "s2", "s3"]
    assert codes(layout) == ["groups_by_column", "group_is_label"]


def test_the_label_column_is_never_the_group(read):
    layout = read("image,group", "1.png,AD", "2.png,AD", "3.png,HC", columns=Columns(label=("group",)))

    assert groups_of(layout) == ["1.png", "2.png", "3.png"]


@pytest.mark.parametrize("cell", ["", "nan", "None", "N/A", "unknown", "Anonymous"])
def test_groups_that_name_nobody_are_no_group(read, cell):
    layout = read("image,label,patient_id", f"1.png,a,{cell}", f"2.png,b,{cell}", "3.png,a,p", "4.png,b,p")

    assert groups_of(layout) == ["1.png", "2.png", "p", "p"]
    assert codes(layout) == ["groups_by_column", "images_without_group"]


def test_spellings_of_one_patient_are_one_group(read):
    layout = read("image,label,patient_id", "1.png,a,12", "2.png,b,12.0", "3.png,a,012", "4.png,b,P 7", "5.png,b,p7")

    assert groups_of(layout) == ["012", "012", "012", "P 7", "P 7"]
    assert "groups_alike" in codes(layout)


def test_a_key_of_dataset_json_names_the_patient_too(tmp_path):
    items = [{"image": f"{n}.png", "label": "ab"[n % 2], "PatientID": n // 2} for n in range(4)]
    for item in items:
        (tmp_path / item["image"]).write_bytes(b"x")
    (tmp_path / "dataset.json").write_text(json.dumps({"labels": {"0": "a", "1": "b"}, "training": items}))

    layout = read_labelled({"training": tmp_path}, Reading())

    assert groups_of(layout) == ["0", "0", "1", "1"]


def test_images_that_nobody_groups_are_said_to_count_each_as_a_patient(read):
    assert [remark.code for remark in read("image,label", "1.png,a", "2.png,b").remarks] == ["no_groups"]
    assert read("image,label,split", "1.png,a,train", "2.png,b,val").remarks == ()


# --- lists of dataset.json


def write_json(root, **content):
    for listed in content.values():
        for item in listed if isinstance(listed, list) else ():
            if isinstance(item, dict) and "image" in item:
                (root / item["image"]).write_bytes(b"x")
    (root / "dataset.json").write_text(json.dumps({"labels": {"0": "a", "1": "b"}, **content}))
    return {"training": root}


def item(number, label="a"):
    return {"image": f"{number}.png", "label": label}


def test_lists_of_splits_may_have_other_names(tmp_path):
    names = {"val": "validation", "valid": "validation", "Validation": "validation", "testing": "test"}
    for key, split in (names | {"train": "training"}).items():
        layout = read_labelled(write_json(tmp_path, **{key: [item(1), item(2)]}), Reading())

        assert splits_of(layout) == [split, split]


def test_lists_of_images_under_an_unknown_key_are_refused_by_name(tmp_path):
    unknown = {
        "holdout": [item(1)], "fold0": ["1.nii.gz"], "folds": [[item(1)], [item(2)]], "extra": {"more": [item(1)]},
    }  # fmt: skip
    for key, content in unknown.items():
        with pytest.raises(DatasetError, match=f"{key} holds images, but is not a split"):
            read_labelled(write_json(tmp_path, training=[item(7)], **{key: content}), Reading())


def test_what_describes_a_data_set_stays_harmless(tmp_path):
    told = {"description": "x.png", "modality": {"0": "CT"}, "authors": ["A", "B"], "more": {"image": "CT"}}

    assert len(read_labelled(write_json(tmp_path, training=[item(1)], numTest=0, **told), Reading()).entries) == 1


def test_two_lists_for_one_split_are_refused_and_an_empty_one_is_passed_over(tmp_path):
    with pytest.raises(DatasetError, match="validation and val are for one split"):
        read_labelled(write_json(tmp_path, validation=[item(1)], val=[item(2)]), Reading())
    assert len(read_labelled(write_json(tmp_path, validation=[], val=[item(2)]), Reading()).entries) == 1


@pytest.mark.parametrize("label", [None, float("nan"), "nan", "N/A"])
def test_an_item_whose_label_is_null_has_none(tmp_path, label):
    layout = read_labelled(write_json(tmp_path, training=[item(1), item(2, label)]), Reading())

    assert (labels_of(layout), layout.remarks[0].code) == (["a"], "missing_labels")


# --- folds and hyperparameters


def test_a_fold_can_be_the_validation_split(read):
    rows = ["1.png,a,0,train", "2.png,b,1,train", "3.png,a,1.0,train", "4.png,b,0,test"]
    layout = read("image,label,fold,split", *rows, fold="1")

    assert splits_of(layout) == ["training", "validation", "validation", "test"]
    assert "folds_unused" in codes(read("image,label,fold,split", *rows))
    with pytest.raises(ConfigError, match=r"no image is of fold 7; the data set has 0, 1, 1\.0"):
        read("image,label,fold,split", *rows, fold="7")


def test_a_column_whose_cells_are_all_names_of_splits_is_the_split(read):
    assert splits_of(read("image,label,Subset", "1.png,a,Train", "2.png,b,Testing")) == ["training", "test"]
    assert splits_of(read("image,label,subset", "1.png,a,train", "2.png,b,skin")) == [None, None]


def test_hyperparameters_say_how_to_read():
    config = TrainConfig.parse(
        {"label_column": "Edema, Mass", "group_column": "none", "grades": '["a, b", "c"]', "missing_codes": "-9,99"}
    )
    reading = reading_of(config)

    assert reading.columns == Columns(label=("Edema", "Mass"), group="none")
    assert (reading.rules.grades, reading.rules.missing_codes) == (("a, b", "c"), (-9.0, 99.0))
    assert reading_of(TrainConfig()) == Reading()
    for odd in ({"grades": "[1]"}, {"missing_codes": "x"}):
        with pytest.raises(ConfigError, match="must be"):
            reading_of(TrainConfig.parse(odd))
