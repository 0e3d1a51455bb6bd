"""Folders by class, as people have them."""

import pytest

from sagemaker_monai.data.layouts import read_channels
from sagemaker_monai.errors import DatasetError


def put(root, *names):
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        if not name.endswith("/"):
            (root / name).write_bytes(b"x" if name.endswith((".txt", ".pdf", ".docx")) else b"\0" * 128 + b"DICM")


def read(root):
    layout = read_channels({"training": root})
    rows = {(entry.name, entry.label, entry.split, "" if entry.group == entry.name else entry.group)
            for entry in layout.entries}  # fmt: skip
    return rows, [(each.code, each.count) for each in layout.remarks]


@pytest.mark.parametrize("above", ["data/", "data/data/", "a/b/c/"])
def test_folders_that_hold_one_folder_are_passed(tmp_path, above):
    put(tmp_path, f"{above}nv/1.png", f"{above}mel/2.png", "README.txt", "__MACOSX/nv/._1.png")

    assert read(tmp_path)[0] == {(f"{above}nv/1.png", "nv", None, ""), (f"{above}mel/2.png", "mel", None, "")}


@pytest.mark.parametrize("names", [("Training", "Testing"), ("Train_set", "TEST SET"), ("train", "Test")])
def test_splits_have_many_names(tmp_path, names):
    first, second = names
    put(tmp_path, f"x/{first}/nv/1.png", f"x/{first}/mel/2.png", f"x/{second}/images/nv/3.png", "x/docs/a.pdf",
        f"x/{second}/images/mel/4.png")  # fmt: skip

    rows, remarks = read(tmp_path)

    assert {(label, split) for _, label, split, _ in rows} == {
        ("nv", "training"), ("mel", "training"), ("nv", "test"), ("mel", "test"),
    }  # fmt: skip
    assert remarks == [("folders_passed_over", 1), ("data_set_below", 1)]


def test_a_class_of_series_is_not_taken_for_a_folder_too_much(tmp_path):
    put(tmp_path, "nodule/series1/1.dcm", "nodule/series2/1.dcm")

    assert {row[:2] for row in read(tmp_path)[0]} == {("nodule/series1", "nodule"), ("nodule/series2", "nodule")}


def test_classes_of_series_can_lie_a_level_too_deep(tmp_path):
    put(tmp_path, "data/a/s1/1.dcm", "data/b/s2/1.dcm")

    assert {row[:2] for row in read(tmp_path)[0]} == {("data/a/s1", "a"), ("data/b/s2", "b")}


def test_folders_below_classes_are_patients(tmp_path):
    put(tmp_path, "nv/p1/1.png", "nv/p1/deeper/2.png", "nv/p2/3.png", "mel/p3/4.png", "mel/p1/5.png", "mel/6.png",
        "mel/p4/case.nii.gz")  # fmt: skip

    rows, remarks = read(tmp_path)

    assert {(name.rpartition("/")[2], group) for name, _, _, group in rows} == {
        ("1.png", "p1"), ("2.png", "p1"), ("3.png", "p2"), ("4.png", "p3"), ("5.png", "p1"), ("6.png", ""),
        ("case.nii.gz", "p4"),
    }  # fmt: skip
    assert remarks == [("patients_below_classes", 4)]


def test_one_folder_below_every_class_means_nothing(tmp_path):
    put(tmp_path, "nv/images/1.png", "mel/images/2.png")

    assert read(tmp_path) == ({("nv/images/1.png", "nv", None, ""), ("mel/images/2.png", "mel", None, "")}, [])


def test_splits_below_classes_are_splits(tmp_path):
    put(tmp_path, "nv/train/1.png", "nv/test/2.png", "mel/Train/3.png", "mel/test/4.png")

    rows, remarks = read(tmp_path)

    assert {(label, split) for _, label, split, _ in rows} == {
        ("nv", "training"), ("nv", "test"), ("mel", "training"), ("mel", "test"),
    }  # fmt: skip
    assert [code for code, _ in remarks] == ["splits_below_classes"]


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ([f"p{n}/{c}/1.png" for n in range(5) for c in ("benign", "malignant")],
         r"5 folders have the same 2 subfolders \(benign, malignant\), so either may be the classes"),
        ([f"{c}/{p}/1.png" for c in "ab" for p in ("left", "right")], "2 folders have the same 2 subfolders"),
        (["nv/1.png", "2.png"], r"images outside the class folders: 1 \(2.png\)"),
        (["data/nv/1.png", "data/mel/3.png", "data/2.png"], r"images outside the class folders: 1 \(data/2.png\)"),
        (["train/nv/1.png", "extra/mel/2.png"], r"mixes split folders with others \(extra\)"),
        (["nv/p1/1.png", "nv/p1/notes.docx", "mel/2.png"], "class folder nv holds files that are not images"),
    ],
)  # fmt: skip
def test_what_folders_do_not_tell_is_refused(tmp_path, names, message):
    put(tmp_path, *names)

    with pytest.raises(DatasetError, match=message):
        read_channels({"training": tmp_path})
