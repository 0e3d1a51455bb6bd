"""Files of MedMNIST: the published split, names and axes, and what is no such file."""

import io
import json
import zipfile

import numpy as np
import pytest
from PIL import Image

from sagemaker_monai.errors import ConfigError, DatasetError
from sagemaker_monai.images.volume_files import read_volume_file
from sagemaker_monai.prepare.medmnist import MedmnistOptions, import_medmnist
from sagemaker_monai.prepare.medmnist_sets import SETS, set_of
from sagemaker_monai.tasks.tasks import TASKS
from tests.support.imported import content_of, records_of
from tests.support.places import SHARED_DATA

SHARED = SHARED_DATA / "medmnist"


def arrays(shape=(5, 4), labels=None, counts=(6, 2, 2)):
    made = np.random.default_rng(0)
    content = {}
    for name, count in zip(("train", "val", "test"), counts, strict=True):
        content[f"{name}_images"] = made.integers(0, 256, (count, *shape), dtype=np.uint8)
        content[f"{name}_labels"] = (
            (np.arange(count) % 2)[:, None].astype(np.uint8) if labels is None else labels(count)
        )
    return content


@pytest.fixture
def write(tmp_path):
    def call(name="breastmnist.npz", **content):
        np.savez_compressed(tmp_path / name, **content)
        return tmp_path / name

    return call


def test_pictures_are_the_arrays_pixels_in_the_published_split(write, tmp_path):
    content = arrays()
    report = import_medmnist(write(**content), tmp_path / "out")

    found = content_of(tmp_path / "out")
    assert found["labels"] == {"0": "malignant", "1": "normal, benign"}
    assert (found["tensorImageSize"], found["modality"]) == ("2D", {"0": "RGB"})
    for split, name in (("training", "train"), ("validation", "val"), ("test", "test")):
        for place, item in enumerate(found[split]):
            picture = np.asarray(Image.open(tmp_path / "out" / item["image"]))
            assert (picture == content[f"{name}_images"][place]).all()
            assert item["label"] == ("malignant", "normal, benign")[place % 2]
    assert (report.images, report.groups) == (10, 10)


def test_colour_pictures_stay_in_colour_and_grades_are_ordered(write, tmp_path):
    content = arrays((4, 4, 3), labels=lambda n: (np.arange(n) % 5)[:, None])
    import_medmnist(write("retinamnist_64.npz", **content), tmp_path / "out")

    found = content_of(tmp_path / "out")
    assert (found["task"], list(found["labels"].values())) == ("ordinal", ["0", "1", "2", "3", "4"])
    picture = Image.open(tmp_path / "out" / found["training"][1]["image"])
    assert picture.mode == "RGB"
    assert (np.asarray(picture) == content["train_images"][1]).all()


def test_volumes_have_columns_as_w_rows_as_h_and_slices_as_d(write, tmp_path):
    content = arrays((2, 3, 4))  # slices, rows, columns
    import_medmnist(write("adrenalmnist3d.npz", **content), tmp_path / "out")

    found = content_of(tmp_path / "out")
    assert (found["tensorImageSize"], found["modality"]) == ("3D", {"0": "OT"})
    values = read_volume_file(tmp_path / "out" / found["training"][0]["image"]).values
    assert values.shape == (1, 4, 3, 2)
    assert values[0, 3, 1, 0] == content["train_images"][0, 0, 1, 3]
    assert np.load(tmp_path / "out" / found["training"][0]["image"]).dtype == np.uint8


def test_findings_of_chestmnist_are_lists_of_names(write, tmp_path):
    def labels(count):
        values = np.zeros((count, 14), np.uint8)
        values[0, [1, 13]] = 1
        return values

    import_medmnist(write("chestmnist.npz", **arrays(labels=labels)), tmp_path / "out")

    found = content_of(tmp_path / "out")
    assert found["task"] == "multilabel"
    assert [item["label"] for item in found["training"][:2]] == [["cardiomegaly", "hernia"], []]


def test_classes_and_task_can_be_given(write, tmp_path):
    source = write("mine.npz", **arrays())
    import_medmnist(source, tmp_path / "out", MedmnistOptions(classes=("no", "yes"), title="Mine"))
    found = content_of(tmp_path / "out")
    assert (found["labels"], found["name"]) == ({"0": "no", "1": "yes"}, "Mine")
    told = json.loads((tmp_path / "out" / "import_report.json").read_text())["options"]
    assert told == {"task": "auto", "classes": ["no", "yes"], "title": "Mine"}

    import_medmnist(source, tmp_path / "out", MedmnistOptions(task="regression"))
    assert records_of(tmp_path / "out")[1]["label"] == 1.0
    with pytest.raises(ConfigError, match="need 2 classes, there are 1 names"):
        import_medmnist(source, tmp_path / "out", MedmnistOptions(classes=("no",)))


def test_the_same_call_again_writes_nothing(write, tmp_path):
    source = write(**arrays())
    import_medmnist(source, tmp_path / "out")
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*")}

    assert import_medmnist(source, tmp_path / "out").is_repeated
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*")} == before

    (tmp_path / "out" / "images" / "0001.png").unlink()
    assert not import_medmnist(source, tmp_path / "out").is_repeated


def test_images_on_two_sides_of_the_published_split_are_said(write, tmp_path):
    content = arrays()
    content["test_images"][0] = content["train_images"][3]

    assert any("1 images are byte for byte on two sides" in text for text in
               import_medmnist(write(**content), tmp_path / "out").warnings)  # fmt: skip


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"train_images": np.zeros((6, 5, 4), np.float32)}, "must be uint8"),
        ({"train_images": np.zeros((6, 5, 4, 3, 2), np.uint8)}, "must be uint8"),
        ({"train_images": np.zeros((5, 5, 4), np.uint8)}, "with a row for each of 5 images"),
        ({"train_images": np.array([{}] * 6, object)}, "objects are not accepted"),
        ({"val_images": np.zeros((2, 5, 5), np.uint8)}, "different shapes"),
        ({"train_labels": np.array([[0], [1], [0.5], [0], [1], [1]])}, "not class numbers"),
        ({"train_labels": np.array([[0], [1], [np.nan], [0], [1], [1]])}, "not finite"),
        ({"train_labels": np.full((6, 1), -1)}, "not class numbers"),
        ({"train_labels": None}, "only one of train_images and train_labels"),
    ],
)
def test_what_is_no_such_file_is_refused(write, tmp_path, change, message):
    content = {name: values for name, values in (arrays() | change).items() if values is not None}

    with pytest.raises(DatasetError, match=message):
        import_medmnist(write(**content), tmp_path / "out")
    assert not (tmp_path / "out" / "dataset.json").exists()


def test_a_label_beyond_all_names_allocates_nothing(write, tmp_path):
    content = arrays(labels=lambda n: np.full((n, 1), 4_000_000_000, np.int64))
    with pytest.raises(DatasetError, match="need 4000000001 classes"):
        import_medmnist(write("mine.npz", **content), tmp_path / "out")


@pytest.mark.parametrize("kind", ["text", "other archive", "cut off", "header that lies"])
def test_damaged_and_hostile_files_are_refused(write, tmp_path, kind):
    source = write(**arrays())
    if kind == "text":
        source.write_bytes(b"no zip")
    elif kind == "cut off":
        source.write_bytes(source.read_bytes()[:-200])
    else:
        buffer = io.BytesIO()
        np.save(buffer, np.zeros((6, 5, 4), np.uint8))
        lie = buffer.getvalue().replace(b"(6, 5, 4)", b"(900000000, 5, 4)")
        with zipfile.ZipFile(source, "w") as archive:
            archive.writestr("train_images.npy" if kind == "header that lies" else "readme.txt", lie)
    with pytest.raises(DatasetError):
        import_medmnist(source, tmp_path / "out")


def test_the_table_has_every_published_set_once_by_its_file():
    assert len(SETS) == 18
    assert {each.task for each in SETS.values()} <= set(TASKS)
    assert set_of("OrganMNIST3D_64.npz") == "organmnist3d"
    assert set_of("breastmnist (1).npz") == "breastmnist"
    assert set_of("notbreastmnist.npz") is None
    assert set_of("breastmnist3d.npz") is None


@pytest.mark.skipif(not SHARED.is_dir(), reason="shared data not present")
@pytest.mark.parametrize(
    ("name", "counts"),
    [
        ("breastmnist", {"malignant": [147, 21, 42], "normal, benign": [399, 57, 114]}),
        pytest.param(
            "adrenalmnist3d", {"normal": [929, 76, 229], "hyperplasia": [259, 22, 69]}, marks=pytest.mark.long
        ),
    ],
)
def test_real_files_have_the_published_counts(tmp_path, name, counts):
    report = import_medmnist(SHARED / f"{name}.npz", tmp_path)

    assert {label: list(row.values()) for label, row in report.counts.items()} == counts
    assert json.loads((tmp_path / "import_report.json").read_text())["number_of_files"] == report.images
