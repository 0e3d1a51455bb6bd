import json
import os
import shutil
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sagemaker_monai.data.dataset_json import write_dataset_json
from sagemaker_monai.data.datasets import SPLITS, read_dataset
from sagemaker_monai.errors import ConfigError, DatasetError, failure_line
from tests.support.refusals import not_refused


def item(number, label, group=None, **metadata):
    grouped = {} if group is None else {"group": group}
    return {"image": f"./images/{number}.jpg", "label": label, **grouped, **metadata}


def write(root, labels=("mel", "nv"), **records):
    (root / "images").mkdir(parents=True, exist_ok=True)
    for listed in records.values():
        for entry in listed:
            (root / entry["image"]).write_bytes(b"x" * (1 + len(entry["label"])))
    write_dataset_json(root, name="n", description="ä", labels=labels, records=records)
    return root


def read(root, validation=0.2, test=0.2, seed=0):
    return read_dataset({"training": root}, validation_fraction=validation, test_fraction=test, seed=seed)


def balanced(count, start=0):
    return [item(start + index, ("mel", "nv")[index % 2], f"p{start + index}") for index in range(count)]


@pytest.fixture
def complete(tmp_path):
    return write(
        tmp_path / "a",
        training=[*balanced(4), item(90, "nv", "p0", age=40.0, sex=None)],
        validation=balanced(2, 10),
        test=balanced(2, 20),
    )


def test_what_is_written_is_read_again(complete):
    dataset = read(complete)

    assert dataset.labels == ("mel", "nv")
    assert [len(dataset.split(name)) for name in SPLITS] == [5, 2, 2]
    assert dataset.split("training") is dataset.training
    last = dataset.training[-1]
    assert (last.name, last.label, last.group) == ("images/90.jpg", 1, "p0")
    assert last.metadata == {"age": 40.0, "sex": None}
    assert last.image == complete / "images/90.jpg"
    assert last.image.is_absolute()


def test_the_file_is_in_the_decathlon_layout_with_a_line_an_image(complete):
    text = (complete / "dataset.json").read_text(encoding="utf-8")
    content = json.loads(text)

    assert content["labels"] == {"0": "mel", "1": "nv"}
    assert content["tensorImageSize"] == "2D"
    assert content["modality"] == {"0": "RGB"}
    assert [content[name] for name in ("numTraining", "numValidation", "numTest")] == [5, 2, 2]
    assert content["test"][0] == {"image": "./images/20.jpg", "label": "mel", "group": "p20"}
    assert content["description"] == "ä"
    assert sum("./images/" in line for line in text.splitlines()) == 9
    assert [path.name for path in complete.iterdir() if path.name.startswith(".")] == []


def test_an_interrupted_write_leaves_the_old_file(complete):
    before = (complete / "dataset.json").read_bytes()

    with pytest.raises(ValueError, match="Out of range float"):
        write_dataset_json(
            complete, name="", description="", labels=("a",), records={"training": [item(1, "a", age=float("nan"))]}
        )
    assert (complete / "dataset.json").read_bytes() == before


@pytest.mark.parametrize(
    ("given", "sizes"),
    [
        ({}, {"training": 24, "validation": 8, "test": 8}),
        ({"validation": 4}, {"training": 32, "validation": 4, "test": 8}),
        ({"test": 4}, {"training": 32, "validation": 8, "test": 4}),
    ],
)
def test_missing_splits_are_drawn_from_training(tmp_path, given, sizes):
    write(tmp_path, training=balanced(40), **{name: balanced(count, 100) for name, count in given.items()})
    dataset = read(tmp_path)

    assert {name: len(dataset.split(name)) for name in SPLITS} == sizes
    assert all(set(Counter(record.label for record in dataset.split(name))) == {0, 1} for name in SPLITS)


def test_a_given_split_does_not_change_with_the_seed_and_a_drawn_one_does(tmp_path, complete):
    drawn = write(tmp_path / "drawn", training=balanced(40))

    assert read(complete, seed=1) == read(complete, seed=2)
    assert read(drawn, seed=1) == read(drawn, seed=1)
    assert read(drawn, seed=1).test != read(drawn, seed=2).test


@settings(max_examples=20)
@given(sizes=st.lists(st.integers(1, 5), min_size=12, max_size=25), seed=st.integers(0, 99))
def test_no_group_is_on_two_sides_of_a_drawn_split(tmp_path_factory, sizes, seed):
    folder = tmp_path_factory.mktemp("drawn")
    pairs = [(("mel", "nv")[index % 2], f"p{index}") for index, size in enumerate(sizes) for _ in range(size)]
    write(folder, training=[item(number, label, group) for number, (label, group) in enumerate(pairs)])
    dataset = read(folder, seed=seed)

    sides = [{record.group for record in dataset.split(name)} for name in SPLITS]
    assert sum(len(side) for side in sides) == len(sizes)
    assert set.union(*sides) == {group for _, group in pairs}
    assert sum(len(dataset.split(name)) for name in SPLITS) == len(pairs)


def test_a_test_split_may_be_declined(tmp_path):
    write(tmp_path, training=balanced(20))

    assert read(tmp_path, test=0.0).test == ()


def test_the_fingerprint_does_not_depend_on_the_place_or_the_order(tmp_path, complete):
    shutil.copytree(complete, tmp_path / "elsewhere")
    content = json.loads((complete / "dataset.json").read_text())
    content["training"].reverse()
    (tmp_path / "elsewhere/dataset.json").write_text(json.dumps(content))

    assert read(tmp_path / "elsewhere").fingerprint == read(complete).fingerprint


@pytest.mark.parametrize(
    "change",
    [
        lambda content: content["training"][0].update(label="nv"),
        lambda content: content["training"][0].update(group="other"),
        lambda content: content["training"].append(content["test"].pop()),
        lambda content: content["training"].pop(),
        lambda content: content.update(labels={"0": "nv", "1": "mel"}),
    ],
)
def test_the_fingerprint_notices_every_change(complete, change):
    before = read(complete).fingerprint
    content = json.loads((complete / "dataset.json").read_text())
    change(content)
    (complete / "dataset.json").write_text(json.dumps(content))

    assert read(complete).fingerprint != before


@pytest.mark.parametrize("is_same_size", [True, False])
def test_the_fingerprint_notices_another_picture_whatever_its_size_and_time(complete, is_same_size):
    before, picture = read(complete).fingerprint, complete / "images/0.jpg"
    status, content = picture.stat(), picture.read_bytes()
    picture.write_bytes(bytes(len(content)) if is_same_size else b"another" + content)
    os.utime(picture, ns=(status.st_atime_ns, status.st_mtime_ns))

    assert read(complete).fingerprint != before


def test_the_fingerprint_of_a_touched_data_set_stays(complete):
    before = read(complete).fingerprint
    os.utime(complete / "images/0.jpg", ns=(1, 1))

    assert read(complete).fingerprint == before


@pytest.mark.parametrize(
    ("records", "message"),
    [
        ({"training": []}, "has no images"),
        ({"training": [item(1, "bcc"), item(2, "nv")]}, r"not in labels: 1 \(bcc\); labels has mel, nv"),
        ({"training": [item(1, "nv")], "validation": [item(2, "mel")]}, r"without a training image: 1 of 2 \(mel\)"),
        (
            {"training": [item(1, "nv", "p"), item(2, "mel", "q")], "validation": [item(3, "nv", "p")]},
            r"more than one split: 1 \(p\)",
        ),
        ({"training": [item(1, "nv"), item(2, "mel")]}, "no image is left for validation .*validation_fraction"),
    ],
)
def test_a_data_set_that_cannot_be_trained_on_is_refused(tmp_path, records, message):
    write(tmp_path, **records)

    with pytest.raises(DatasetError, match=message):
        read(tmp_path)


@pytest.mark.parametrize("labels", [("nv",), ("nv", "x" * 101), ("nv", "a\nb")])
def test_labels_that_cannot_be_outputs_are_refused(tmp_path, labels):
    write(tmp_path, labels=labels, training=[item(index, labels[index % len(labels)]) for index in range(6)])

    with pytest.raises(DatasetError, match=r"only one class|class names"):
        read(tmp_path)


def test_a_validation_split_cannot_be_declined(tmp_path):
    write(tmp_path, training=balanced(20))

    with pytest.raises(DatasetError, match="no image is left for validation"):
        read(tmp_path, validation=0.0)


@pytest.mark.parametrize(("validation", "test"), [(-0.1, 0.1), (0.5, 0.5), (1.0, 0.0), (float("nan"), 0.1)])
def test_fractions_out_of_range_are_refused(complete, validation, test):
    with pytest.raises(ConfigError, match="validation_fraction and test_fraction"):
        read(complete, validation=validation, test=test)


def test_a_refusal_of_thousands_fits_the_failure_file_and_ends_with_the_remedy(tmp_path):
    records = [item(f"{index}{'x' * 200}", f"class {index}{'y' * 90}") for index in range(2000)]
    write(tmp_path, training=records)

    with pytest.raises(DatasetError) as caught:
        read(tmp_path)
    line = failure_line(caught.value)
    assert "2000" in line
    assert line.endswith("add or correct them")
    assert len(line) <= 1024


def test_class_folders_with_an_empty_class_are_refused(tmp_path):
    for name in ("nv/1.jpg", "mel/1.jpg"):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).write_bytes(b"x")
    (tmp_path / "df").mkdir()

    with pytest.raises(DatasetError, match=r"without a training image: 1 of 3 \(df\)"):
        read(tmp_path)


def test_a_class_may_be_called_in_any_script_but_not_by_what_ends_or_turns_a_line(tmp_path):
    def read_class(name):
        place = tmp_path / str(len(list(tmp_path.iterdir())))
        for label in (name, "other"):
            (place / label).mkdir(parents=True)
            for index in range(8):
                (place / label / f"{index}.png").write_bytes(b"x")
        return set(read(place).labels)

    for name in ("\u6b63\u5e38\u3000\u80ba", "no\u00a0finding", "\u0646\u0645\u06cc\u200c\u062f"):
        assert read_class(name) == {name, "other"}
    assert not_refused(["a\u202eb", "a\u2028b", "a\x1bb", "a\tb"], read_class, DatasetError, "control characters") == []
