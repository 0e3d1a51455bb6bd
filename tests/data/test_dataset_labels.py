"""What else than one class of one file a data set may say: findings, shares, numbers, grades; series and sequences."""

import json

import numpy as np
import pytest

from sagemaker_monai.data.dataset_json import write_dataset_json
from sagemaker_monai.data.datasets import SPLITS, read_dataset, read_dataset_to_score, targets_of
from sagemaker_monai.data.entries import image_files, is_image
from sagemaker_monai.data.unpacking import unpack_channels
from sagemaker_monai.errors import DatasetError
from sagemaker_monai.images.sample import Sequences
from tests.support.sharded import write_sharded


def write(root, labels, items, **changes):
    """Items are given as (image, label); half of them are for training, the others for validation."""
    records = {"training": items[::2], "validation": items[1::2]}
    for image, _ in items:
        for name in image if isinstance(image, list) else [image]:
            path = root / name
            path = path / "1.dcm" if name.endswith("/") else path
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(name.encode())
    listed = {
        split: [{"image": image, "label": label, "group": str(image)} for image, label in rows]
        for split, rows in records.items()
    }
    write_dataset_json(root, name="n", description="d", labels=labels, records=listed, **changes)
    return root


def read(root, task="auto"):
    return read_dataset({"training": root}, task=task, validation_fraction=0.2, test_fraction=0, seed=0)


def write_table(root, *rows, header="image,label,split"):
    """A table, and the images that its rows begin with."""
    (root / "list.csv").write_text("\n".join([header, *rows, ""]))
    for row in rows:
        name = row.partition(",")[0]
        (root / name).write_bytes(name.encode())
    return root


def names(count, suffix=".dcm"):
    return [f"./images/{index}{suffix}" for index in range(count)]


def test_a_list_of_findings_makes_a_multi_label_data_set(tmp_path):
    labels = [["b"], ["a", "b"], [], ["b"], ["a"], []]
    dataset = read(write(tmp_path, ("a", "b"), list(zip(names(6), labels, strict=True)), task="multilabel"))

    assert dataset.task == "multilabel"
    assert targets_of(dataset.training, dataset.labels).tolist() == [[0, 1], [0, 0], [1, 0]]


def test_the_form_of_labels_is_enough_to_know_the_task(tmp_path):
    items = list(zip(names(4), [["a"], ["b"], ["a"], []], strict=True))
    root = write(tmp_path, ("a", "b"), items)
    with pytest.raises(DatasetError, match="classes without a training image: 1 of 2"):
        read(root)

    root = write(tmp_path, ("a", "b"), [*items, ("./images/9.dcm", ["b"])])

    assert read(root).task == "multilabel"


def test_shares_of_annotators_are_targets_and_the_largest_is_the_class(tmp_path):
    items = list(zip(names(4), [{"a": 2, "b": 1}, "b", {"b": 3.0}, "a"], strict=True))
    dataset = read(write(tmp_path, ("a", "b"), items))

    assert dataset.task == "classification"
    assert dataset.training[0].target == pytest.approx((2 / 3, 1 / 3))
    assert [record.label for record in dataset.training] == [0, 1]


def test_numbers_make_a_regression(tmp_path):
    dataset = read(write(tmp_path, ("age",), list(zip(names(4), [31, 40.5, 60, 71], strict=True)), task="regression"))

    assert (dataset.task, dataset.labels) == ("regression", ("age",))
    assert targets_of(dataset.training, dataset.labels).tolist() == [[31.0], [60.0]]


def test_numbers_in_a_table_are_a_regression_when_asked_for(tmp_path):
    write_table(tmp_path, "a.dcm,31,train", "b.dcm,40.5,train", "c.dcm,7,val")

    assert read(tmp_path, task="regression").training[1].target == (40.5,)
    with pytest.raises(DatasetError, match=r"numbers with decimals \(40.5\); choose task=regression"):
        read(tmp_path)


def test_findings_in_a_table_are_separated_by_a_bar(tmp_path):
    write_table(tmp_path, "a.dcm,x|y,train", "b.dcm,x,train", "c.dcm,x,val")

    dataset = read(tmp_path, task="multilabel")

    assert dataset.labels == ("x", "y")
    assert dataset.training[0].target == (1.0, 1.0)


def test_a_number_for_an_index_stays_the_decathlons_way_to_name_a_class(tmp_path):
    dataset = read(write(tmp_path, ("a", "b"), list(zip(names(4), [1, 1, 0, 0], strict=True))))

    assert [record.label for record in dataset.training] == [1, 0]


def test_what_is_written_is_what_train_reads_about_the_images(tmp_path):
    items = list(zip(names(4, ".nii.gz"), "abab", strict=True))
    dataset = read(write(tmp_path, ("a", "b"), [*items, ("./images/7.nii.gz", "b")], spatial_dims=3, modality="MR"))

    assert (dataset.spatial_dims, dataset.modality) == (3, "MR")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"label": ["a", 3]}, "must have label"),
        ({"label": {"a": "much"}}, "must have label"),
        ({"label": True}, "must have label"),
        ({"label": {"c": 1}}, "class 'c' is not in labels|classes that are not in labels"),
        ({"image": []}, "must have image"),
        ({"image": ["./images/0.dcm"] * 17}, "must have image"),
        ({"image": ["./images/0.dcm", "./images/0.dcm"]}, "more than once"),
        ({"image": ["./images/0.dcm", "../outside"]}, "outside its channel"),
        ({"image": "./empty"}, "not in the channel"),
    ],
)
def test_an_item_that_is_wrong_is_named(tmp_path, change, message):
    root = write(tmp_path, ("a", "b"), list(zip(names(4), "abab", strict=True)))
    (root / "empty").mkdir()
    content = json.loads((root / "dataset.json").read_text())
    content["training"][0] |= change
    (root / "dataset.json").write_text(json.dumps(content))

    with pytest.raises(DatasetError, match=message):
        read(root)


def test_an_unknown_task_is_refused(tmp_path):
    root = write(tmp_path, ("a", "b"), list(zip(names(4), "abab", strict=True)), task="detection")

    with pytest.raises(DatasetError, match="task must be one of classification, multilabel, ordinal, regression"):
        read(root)


@pytest.fixture
def mixed(tmp_path):
    """Series folders, sequences, and files."""
    items = [
        ("./series/1/", "a"),
        ("./series/2/", "a"),
        (["./images/t1.nii", "./images/t2.nii"], "b"),
        ("./images/3.nii", "b"),
    ]
    return write(tmp_path / "mixed", ("a", "b"), items)


def test_a_series_is_a_folder_and_sequences_are_one_image(mixed):
    dataset = read(mixed)

    series, sequences = (record.image for record in dataset.training)
    assert series == mixed / "series" / "1"
    assert isinstance(sequences, Sequences)
    assert [record.name for record in dataset.training] == ["series/1", "images/t1.nii + images/t2.nii"]
    assert image_files(sequences) == [mixed / "images/t1.nii", mixed / "images/t2.nii"]


def test_every_file_of_an_image_counts_for_the_fingerprint(mixed):
    before = read(mixed).fingerprint

    (mixed / "series" / "1" / "2.dcm").write_bytes(b"more")
    after = read(mixed).fingerprint
    (mixed / "images" / "t2.nii").write_bytes(b"longer than before")

    assert len({before, after, read(mixed).fingerprint}) == 3


def test_series_and_sequences_go_through_shards(mixed, tmp_path):
    write_sharded(mixed, tmp_path / "shards", shard_bytes=1 << 14)

    unpacked = unpack_channels({"training": tmp_path / "shards"}, tmp_path / "unpacked")

    assert read(unpacked["training"]).fingerprint == read(mixed).fingerprint


def test_links_in_a_series_folder_are_passed_over(mixed, tmp_path):
    (tmp_path / "secret").write_bytes(b"x")
    (mixed / "series" / "1" / "link.dcm").symlink_to(tmp_path / "secret")

    assert [path.name for path in image_files(mixed / "series" / "1")] == ["1.dcm"]


def test_class_folders_may_hold_series_and_dicom_without_a_suffix(tmp_path):
    for label in ("a", "b"):
        for index in range(4):
            folder = tmp_path / label / f"series{index}"
            folder.mkdir(parents=True)
            (folder / "1").write_bytes(b"x")
        (tmp_path / label / "1.2.840.1").write_bytes(bytes(128) + b"DICM")

    dataset = read(tmp_path)

    assert sum(len(dataset.split(split)) for split in SPLITS) == 10
    assert is_image(tmp_path / "a" / "1.2.840.1")
    assert not is_image(tmp_path / "a" / "series0" / "1")


def test_numbers_are_stratified_by_size(tmp_path):
    write_table(tmp_path, *(f"{index}.dcm,{index}" for index in range(40)), header="image,label")

    dataset = read_dataset(
        {"training": tmp_path}, task="regression", validation_fraction=0.25, test_fraction=0.25, seed=3
    )

    for split in ("validation", "test"):
        values = targets_of(dataset.split(split), dataset.labels)[:, 0]
        assert np.histogram(values, bins=[0, 10, 20, 30, 40])[0].min() >= 1


def test_a_model_is_scored_with_its_own_labels(tmp_path):
    root = write(tmp_path, ("b", "a"), list(zip(names(4), ["a", "b", "a", "b"], strict=True)))

    dataset = read_dataset_to_score(
        {"training": root}, labels=("a", "b"), task="ordinal", validation_fraction=0.2, test_fraction=0, seed=0
    )

    assert [record.label for record in dataset.training] == [0, 0]
    assert dataset.training[0].target == (1.0, 0.0)


def test_the_values_of_a_volume_in_two_files_go_with_its_header(tmp_path):
    for name, text in {
        "a.hdr": "", "a.img": "", "b.img": "", "c.mhd": "ElementDataFile = c.raw\n", "c.raw": "", "d.raw": "",
        "e.nhdr": "NRRD0004\ndata file: LIST\nf1.raw\nf2.raw\n", "f1.raw": "", "f2.raw": "",
    }.items():  # fmt: skip
        (tmp_path / name).write_text(text)

    assert [path.name for path in image_files(tmp_path / "a.hdr")] == ["a.hdr", "a.img"]
    assert [path.name for path in image_files(tmp_path / "c.mhd")] == ["c.mhd", "c.raw"]
    assert [path.name for path in image_files(tmp_path / "e.nhdr")] == ["e.nhdr", "f1.raw", "f2.raw"]


def test_one_image_to_learn_from_is_refused(tmp_path):
    write_table(tmp_path, "a.dcm,1.5,train", "b.dcm,2.5,val", "c.dcm,9,test")

    with pytest.raises(DatasetError, match="training split has 1 image; training needs at least 2"):
        read(tmp_path, task="regression")
