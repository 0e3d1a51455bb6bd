"""`evaluate`: what it says of an artifact is what training said, and whatever is wrong is one line."""

import csv
import gzip
import io
import json
import logging
import os
import shutil
import signal
import subprocess
import sys
import tarfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import accuracy_score, precision_recall_fscore_support

from sagemaker_monai.artifact.bundle import read_bundle
from sagemaker_monai.entrypoints import train
from sagemaker_monai.entrypoints.evaluate import main
from sagemaker_monai.evaluation import documents, evaluation, scoring
from sagemaker_monai.tasks.classification import Classification
from sagemaker_monai.tasks.multilabel import MultiLabel
from sagemaker_monai.tasks.ordinal import Ordinal
from sagemaker_monai.tasks.regression import Regression
from tests.sagemaker.test_train_entrypoint import CLASSES, class_folders, csv_layout, dataset_json, picture
from tests.support.bundles import write_small_bundle
from tests.support.exhaustive import exhaustive
from tests.support.sharded import write_sharded

SETTINGS = {"epochs": 1, "image_size": 32, "batch_size": 16, "num_workers": 1, "network": "resnet10"}
LAYOUTS = {"class folders": lambda folder: class_folders(folder, number=12), "csv": csv_layout, "json": dataset_json}


@pytest.fixture(autouse=True)
def no_tree(without_sagemaker, tmp_path, monkeypatch):
    """As on your own machine, where there is no /opt/ml."""
    monkeypatch.setenv("SAGEMAKER_BASE_DIR", str(tmp_path / "opt-ml"))


def train_on(base, *, lay_out, **hyperparameters):
    """One whole training; its folder."""
    lay_out(base / "input" / "data" / "training")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SAGEMAKER_BASE_DIR", str(base))
        assert train.main([f"--{name}={value}" for name, value in (SETTINGS | hyperparameters).items()]) == 0
    return base


@pytest.fixture(scope="module")
def jobs(tmp_path_factory):
    """A training for each layout, with a seed and fractions of its own."""
    folder = tmp_path_factory.mktemp("jobs")
    return {
        name: train_on(folder / name, lay_out=lay_out, seed=5, test_fraction=0.25, validation_fraction=0.2)
        for name, lay_out in LAYOUTS.items()
    }


@pytest.fixture
def job(jobs):
    return jobs["class folders"]


def data_of(job):
    return job / "input" / "data" / "training"


def evaluate(job, out, *arguments, data=None, model=None):
    options = ["--model", str(model or job / "model"), "--data", str(data or data_of(job)), "--output", str(out)]
    return main([*options, *arguments])


def metrics_of(folder):
    return json.loads((folder / "metrics.json").read_text())


@pytest.mark.parametrize("layout", LAYOUTS)
def test_scores_on_the_data_of_training_are_those_of_training_to_the_bit(jobs, layout, tmp_path, capsys, caplog):
    job = jobs[layout]
    caplog.set_level(logging.INFO)

    assert evaluate(job, tmp_path / "out") == 0

    reported = metrics_of(job / "output" / "data")
    assert metrics_of(tmp_path / "out") == reported | {"unreadable_images": {"test": []}}
    if layout == "class folders":
        assert reported["images"] == 9  # a quarter of 36, as asked; the default fraction would give five
    table = job / "output" / "data" / "test_predictions.csv"
    assert (tmp_path / "out" / "test_predictions.csv").read_bytes() == table.read_bytes()
    assert capsys.readouterr().out == (
        f"test_loss={reported['loss']:.6g}; test_accuracy={reported['accuracy']:.6g}; "
        f"test_balanced_accuracy={reported['balanced_accuracy']:.6g}; test_auc={reported['auc']:.6g};\n"
    )
    assert "of the data set of the model's training; model version" in caplog.text


def pack(folder, archive, *, prefix=""):
    with tarfile.open(archive, "w:gz", compresslevel=1) as tar:
        for path in sorted(folder.rglob("*")):
            tar.add(path, arcname=prefix + path.relative_to(folder).as_posix(), recursive=False)
    return archive


@pytest.mark.parametrize("prefix", exhaustive(["", "./"]))
@pytest.mark.parametrize("is_named", exhaustive([True, False]))
def test_an_artifact_may_be_packed(job, tmp_path, prefix, is_named):
    (tmp_path / "packed").mkdir()
    archive = pack(job / "model", tmp_path / "packed" / "model.tar.gz", prefix=prefix)

    assert evaluate(job, tmp_path / "out", model=archive if is_named else archive.parent) == 0

    assert metrics_of(tmp_path / "out")["model_version"] == read_bundle(job / "model").model_version


def test_shards_are_scored_like_their_files(jobs, tmp_path):
    job = jobs["json"]
    write_sharded(data_of(job), tmp_path / "shards", shard_bytes=1 << 15)

    assert evaluate(job, tmp_path / "out", data=tmp_path / "shards") == 0

    assert metrics_of(tmp_path / "out") == metrics_of(job / "output" / "data") | {"unreadable_images": {"test": []}}


@pytest.mark.parametrize(
    ("split", "expected"),
    [("validation", "This split chose the epoch"), ("training", "has learned from these"), ("all", "has learned")],
)
def test_other_splits_are_scored_with_a_note(job, tmp_path, split, expected):
    assert evaluate(job, tmp_path / "out", f"--split={split}") == 0

    metrics = metrics_of(tmp_path / "out")
    images = json.loads((job / "model" / "configs" / "train.json").read_text())["images"]
    assert metrics["images"] == (sum(images.values()) if split == "all" else images[split])
    assert expected in metrics["note"]
    with (tmp_path / "out" / f"{split}_predictions.csv").open() as file:
        assert len(list(csv.DictReader(file))) == metrics["images"]


def test_new_data_that_training_never_saw_is_scored_as_a_whole(job, tmp_path, caplog):
    caplog.set_level(logging.INFO)
    class_folders(tmp_path / "new", number=3)

    assert evaluate(job, tmp_path / "out", "--split=all", data=tmp_path / "new") == 0

    metrics = metrics_of(tmp_path / "out")
    assert (metrics["images"], metrics["note"]) == (9, "")
    assert "another data set than that of the model's training" in caplog.text


def test_a_data_set_of_a_test_split_alone_is_scored(job, tmp_path):
    class_folders(tmp_path / "new", number=3, splits=("test",))

    assert evaluate(job, tmp_path / "out", data=tmp_path / "new") == 0

    assert metrics_of(tmp_path / "out")["images"] == 9


def test_classes_in_another_order_are_the_same_classes(jobs, tmp_path):
    job = jobs["json"]
    shutil.copytree(data_of(job), tmp_path / "data")
    content = json.loads((tmp_path / "data" / "dataset.json").read_text())
    content["labels"] = {str(index): label for index, label in enumerate(reversed(CLASSES))}
    (tmp_path / "data" / "dataset.json").write_text(json.dumps(content))

    assert evaluate(job, tmp_path / "out", data=tmp_path / "data") == 0

    found, expected = metrics_of(tmp_path / "out"), metrics_of(job / "output" / "data")
    assert found["confusion_matrix"] == expected["confusion_matrix"]
    assert found["per_class"] == expected["per_class"]


def test_an_unreadable_image_is_left_out_as_training_would(tmp_path):
    def lay_out(folder):
        class_folders(folder, number=12)
        (folder / "red" / "3.png").write_bytes(b"no picture")

    job = train_on(tmp_path / "job", lay_out=lay_out, max_unreadable_fraction=0.1, test_fraction=0.3)
    for split in ("training", "validation", "test"):
        assert evaluate(job, tmp_path / split, f"--split={split}") == 0

    reported = metrics_of(job / "output" / "data")
    left_out = reported.pop("unreadable_images")
    assert sorted(map(len, left_out.values())) == [0, 0, 1]
    for split, names in left_out.items():
        assert metrics_of(tmp_path / split)["unreadable_images"] == {split: names}
    found = metrics_of(tmp_path / "test")
    del found["unreadable_images"]
    assert found == reported


def test_too_many_unreadable_images_are_refused(job, tmp_path, capsys):
    shutil.copytree(data_of(job), tmp_path / "data")
    for path in (tmp_path / "data" / "red").iterdir():
        path.write_bytes(b"no picture")

    assert evaluate(job, tmp_path / "out", "--split=all", data=tmp_path / "data") == 1

    assert "DatasetError: 12 of 36 images cannot be read (file " in capsys.readouterr().err
    assert not (tmp_path / "out" / "metrics.json").exists()


# --- model quality


def quality_of(folder):
    return json.loads((folder / "evaluation.json").read_text())["multiclass_classification_metrics"]


def test_model_quality_is_what_an_independent_computation_gives(job, tmp_path):
    for index in range(30):  # a third of them in the folder of another class, unequal numbers in each
        colour = CLASSES[index % 3]
        label = CLASSES[(index + 1) % 3] if index % 5 in (0, 1) and index % 3 else colour
        picture(tmp_path / "data" / label / f"{index}.png", colour, index)
    assert evaluate(job, tmp_path / "out", "--split=all", data=tmp_path / "data") == 0

    with (tmp_path / "out" / "all_predictions.csv").open() as file:
        rows = list(csv.DictReader(file))
    true, predicted = [row["label"] for row in rows], [row["predicted"] for row in rows]
    assert 0.3 < accuracy_score(true, predicted) < 0.95
    quality = quality_of(tmp_path / "out")
    value = {name: item["value"] for name, item in quality.items() if name != "confusion_matrix"}
    assert value["accuracy"] == pytest.approx(accuracy_score(true, predicted))
    for beta, name in ((0.5, "weighted_f0_5"), (1, "weighted_f1"), (2, "weighted_f2")):
        precision, recall, f, _ = precision_recall_fscore_support(
            true, predicted, beta=beta, average="weighted", zero_division=0
        )
        assert value["weighted_precision"] == pytest.approx(precision)
        assert value["weighted_recall"] == pytest.approx(recall)
        assert value[name] == pytest.approx(f)
    metrics = metrics_of(tmp_path / "out")
    assert {name: value[name] for name in ("balanced_accuracy", "auc", "loss")} == {
        name: metrics[name] for name in ("balanced_accuracy", "auc", "loss")
    }
    for label, row in quality["confusion_matrix"].items():
        for other, count in row.items():
            assert count == sum(pair == (label, other) for pair in zip(true, predicted, strict=True))
    assert {item["standard_deviation"] for name, item in quality.items() if name != "confusion_matrix"} == {"NaN"}


def test_weighted_scores_by_hand_with_a_class_that_is_never_predicted_and_one_that_never_occurs():
    metrics = {
        "labels": ["a", "b", "c"],
        "confusion_matrix": [[3, 0, 0], [1, 0, 0], [0, 0, 0]],
        "accuracy": 0.75,
        "balanced_accuracy": 0.5,
        "auc": None,
        "loss": 0.1,
    }

    quality = documents.model_quality(metrics)["multiclass_classification_metrics"]

    assert "auc" not in quality
    assert quality["confusion_matrix"]["b"] == {"a": 1, "b": 0, "c": 0}
    assert quality["weighted_recall"]["value"] == pytest.approx(3 / 4)
    assert quality["weighted_precision"]["value"] == pytest.approx(3 / 4 * 3 / 4)
    assert quality["weighted_f1"]["value"] == pytest.approx(3 / 4 * 6 / 7)


# --- as a processing job


@pytest.fixture
def processing(tmp_path, monkeypatch):
    """The tree of a processing job."""
    base = tmp_path / "opt-ml"
    for name in ("processing/input/model", "processing/input/data", "processing/output", "config"):
        (base / name).mkdir(parents=True)
    return base


def test_the_default_places_are_those_of_processing_jobs(job, processing):
    pack(job / "model", processing / "processing" / "input" / "model" / "model.tar.gz")
    shutil.copytree(data_of(job), processing / "processing" / "input" / "data", dirs_exist_ok=True)
    (processing / "output").mkdir()
    (processing / "output" / "message").write_text("of an earlier run")

    assert main([]) == 0

    assert sorted(path.name for path in (processing / "processing" / "output").iterdir()) == [
        "evaluation.json",
        "metrics.json",
        "test_predictions.csv",
    ]
    assert not (processing / "output" / "message").exists()


def test_a_failure_is_the_message_of_the_job(processing, capsys):
    assert main([]) == 1

    message = (processing / "output" / "message").read_text()
    assert message == "BundleError: there is no artifact: name a folder that train wrote, or a model.tar.gz"
    assert capsys.readouterr().err == message + "\n"


def test_a_long_message_is_cut_between_characters(job, processing, capsys):
    data = processing / "processing" / "input" / "data"
    for index in range(4):
        picture(data / f"{index}{'ü' * 60}" / "0.png", "red", index)

    assert evaluate(job, processing / "processing" / "output", "--split=" + "ü" * 900) == 1

    line = capsys.readouterr().err.rstrip("\n")
    message = (processing / "output" / "message").read_bytes()
    assert len(line.encode()) > 1024 >= len(message) > 1000
    assert line.startswith(message.decode())


def test_wrong_arguments_are_one_line_too(processing, capsys):
    assert main(["--splitt=test"]) == 1

    message = (processing / "output" / "message").read_text()
    assert message == "ConfigError: unrecognized arguments: --splitt=test; see evaluate --help"
    assert capsys.readouterr().err == message + "\n"


def test_without_such_a_tree_nothing_is_written_beside_the_output(tmp_path, capsys):
    assert main(["--model", str(tmp_path / "nothing"), "--output", str(tmp_path / "out")]) == 1

    assert sorted(path.name for path in tmp_path.iterdir()) == ["out"]
    assert capsys.readouterr().err.startswith("BundleError: there is no artifact")


def test_a_message_that_cannot_be_written_is_said(processing, capsys):
    (processing / "output").touch()

    assert main([]) == 1
    assert "the message file cannot be written" in capsys.readouterr().err


def test_a_bug_is_an_internal_error_with_a_traceback_in_the_log(job, processing, monkeypatch, capsys):
    def broken(*_, **__):
        raise KeyError("surprise")

    monkeypatch.setattr(evaluation, "artifact_folder", broken)

    assert evaluate(job, processing / "processing" / "output") == 1
    assert (processing / "output" / "message").read_text().startswith("InternalError: KeyError: 'surprise' at ")
    assert "Traceback" in capsys.readouterr().err


def test_help_needs_no_torch_and_names_the_places():
    code = "import sys; from sagemaker_monai.entrypoints.evaluate import main\ntry: main(['--help'])\n"
    code += "finally: print({'torch', 'monai'} & set(sys.modules))"
    environment = {name: value for name, value in os.environ.items() if name != "SAGEMAKER_BASE_DIR"}

    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment)

    assert result.stdout.endswith("set()\n"), result.stderr
    assert all(f"/opt/ml/processing/{place}" in result.stdout for place in ("input/model", "input/data", "output"))


# --- what is refused


def other_classes(folder):
    class_folders(folder, number=4)
    (folder / "red").rename(folder / "violet")


def fewer_classes(folder):
    class_folders(folder, number=4, classes=CLASSES[:2])


@pytest.mark.parametrize(
    ("lay_out", "arguments", "expected"),
    [
        (other_classes, [], r"classes are not the model's: 1 that the model does not know (violet), 1 .* lacks (red)"),
        (fewer_classes, [], None),
        (lambda folder: None, [], "channel training is missing"),
        (lambda folder: folder.mkdir(), [], "channel training is empty"),
        (lambda folder: class_folders(folder, splits=("train",)), ["--split=test"], None),
        (
            lambda folder: class_folders(folder, splits=("test",)),
            ["--split=validation"],
            "there is no validation split (images: 0 training, 0 validation, 30 test); choose another one with --split",
        ),
    ],
    ids=["other classes", "fewer classes", "missing", "empty", "drawn", "no such split"],
)
def test_data_that_does_not_suit_the_model_is_refused(job, tmp_path, capsys, lay_out, arguments, expected):
    lay_out(tmp_path / "data")

    code = evaluate(job, tmp_path / "out", *arguments, data=tmp_path / "data")

    errors = capsys.readouterr().err
    if expected is None:
        assert code == 0, errors
        return
    assert code == 1
    assert all(part in errors for part in expected.split(" .* "))
    assert errors.splitlines()[-1].startswith("DatasetError: ")
    assert str(tmp_path) not in errors
    assert list((tmp_path / "out").iterdir()) == []


def test_masks_of_a_model_without_masks_are_refused(job, tmp_path, capsys):
    assert evaluate(job, tmp_path / "out", "--save-masks", data=tmp_path) == 1

    line = capsys.readouterr().err.splitlines()[-1]
    assert line == "ConfigError: --save-masks is for models of masks, and this one's task is classification"


def test_empty_class_folders_declare_classes_that_the_data_lacks(job, tmp_path):
    fewer_classes(tmp_path / "data")
    (tmp_path / "data" / CLASSES[2]).mkdir()

    assert evaluate(job, tmp_path / "out", "--split=all", data=tmp_path / "data") == 0

    assert metrics_of(tmp_path / "out")["per_class"][CLASSES[2]]["sensitivity"] is None


def test_an_altered_artifact_is_refused(job, tmp_path, capsys):
    shutil.copytree(job / "model", tmp_path / "model")
    with (tmp_path / "model" / "configs" / "train.json").open("a") as file:
        file.write(" ")

    assert evaluate(job, tmp_path / "out", model=tmp_path / "model") == 1
    assert "BundleError: configs/train.json is not the file that training wrote" in capsys.readouterr().err


def test_an_artifact_that_does_not_say_how_it_was_trained_is_refused(job, tmp_path, capsys):
    write_small_bundle(tmp_path / "model", labels=CLASSES)

    assert evaluate(job, tmp_path / "out", model=tmp_path / "model") == 1
    assert "BundleError: configs/train.json does not say how the artifact was trained" in capsys.readouterr().err


def archive_with(*members):
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w:gz") as tar:
        for name, kind, body in members:
            info = tarfile.TarInfo(name)
            info.type, info.size, info.linkname = kind, len(body), "/etc/passwd"
            tar.addfile(info, io.BytesIO(body))
    return stream.getvalue()


FILE, LINK = tarfile.REGTYPE, tarfile.SYMTYPE


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"no archive", "the archive is damaged"),
        (gzip.compress(b"x" * 2000), "the archive is damaged"),
        (archive_with(("a" * 50, FILE, bytes(5000)))[:-30], "the archive is damaged"),
        (archive_with(("../x", FILE, b"1")), "outside the folder"),
        (archive_with(("x", LINK, b"")), "is a link"),
        (archive_with(("x", FILE, b"1"), ("x/y", FILE, b"1")), "it has a file and a folder of one name"),
    ],
    ids=["text", "packed text", "cut off", "outside", "link", "contradiction"],
)
def test_an_odd_archive_is_refused(job, tmp_path, capsys, content, expected):
    (tmp_path / "model.tar.gz").write_bytes(content)

    assert evaluate(job, tmp_path / "out", model=tmp_path / "model.tar.gz") == 1

    line = capsys.readouterr().err.splitlines()[-1]
    assert line.startswith("BundleError: model.tar.gz cannot be unpacked: ")
    assert expected in line
    assert not (tmp_path / "x").exists()


def test_an_archive_that_inflates_too_far_is_refused_without_filling_the_disk(job, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("sagemaker_monai.artifact.opening.MAX_BYTES", 1_000_000)
    (tmp_path / "model.tar.gz").write_bytes(archive_with(("bomb", FILE, bytes(1_000_001))))

    assert evaluate(job, tmp_path / "out", model=tmp_path / "model.tar.gz") == 1
    assert "unpacks to more than 1000000 bytes" in capsys.readouterr().err


def test_an_output_that_is_a_file_is_refused(job, tmp_path, capsys):
    (tmp_path / "out").touch()

    assert evaluate(job, tmp_path / "out") == 1
    assert "ConfigError: the output folder cannot be created (File exists): set" in capsys.readouterr().err


# --- stopping


def test_a_job_that_is_stopped_ends_with_one_line_and_no_half_results(job, processing, monkeypatch, capsys):
    real = evaluation.read_dataset_to_score

    def stop_the_job(*arguments, **named):
        os.kill(os.getpid(), signal.SIGTERM)
        return real(*arguments, **named)

    monkeypatch.setattr(evaluation, "read_dataset_to_score", stop_the_job)

    assert evaluate(job, processing / "processing" / "output") == 1

    expected = "TrainingStopped: the job was stopped while its files were read, so there is nothing to save"
    assert (processing / "output" / "message").read_text() == expected
    assert "SIGTERM: stopping ..." in capsys.readouterr().err
    assert list((processing / "processing" / "output").iterdir()) == []


def test_probabilities_are_those_of_the_table(job, tmp_path):
    assert evaluate(job, tmp_path / "out") == 0

    with (tmp_path / "out" / "test_predictions.csv").open() as file:
        rows = list(csv.DictReader(file))
    loss = -np.log([float(row[row["label"]]) for row in rows]).mean()
    assert metrics_of(tmp_path / "out")["loss"] == pytest.approx(loss)
    assert all(Path(row["image"]).parent.name == row["label"] for row in rows)


@pytest.mark.parametrize("split", ["training", "test"])
def test_of_an_artifact_of_an_older_age_nothing_is_claimed_about_its_data(job, tmp_path, caplog, monkeypatch, split):
    caplog.set_level(logging.INFO)
    known = evaluation._training_of(job / "model")
    monkeypatch.setattr(evaluation, "_training_of", lambda folder: replace(known, dataset_fingerprint="0" * 64))

    assert evaluate(job, tmp_path / "out", f"--split={split}") == 0

    assert "of a data set that may be that of the model's training" in caplog.text
    note = metrics_of(tmp_path / "out").get("note", "")
    assert ("so old an artifact does not tell: The model has learned" in note) == (split == "training")


def test_a_corrected_picture_makes_another_data_set_of_it(job, tmp_path, caplog):
    caplog.set_level(logging.INFO)
    data = tmp_path / "data"
    shutil.copytree(data_of(job), data)
    picture = max((path for path in data.rglob("*") if path.suffix in (".png", ".jpg")), key=str)
    picture.write_bytes(picture.read_bytes()[:-1] + b"\0")  # as large as before

    assert evaluate(job, tmp_path / "out", data=data) == 0

    assert "of another data set than that of the model's training" in caplog.text


# --- what is scored lacks a class


@pytest.mark.parametrize(
    ("task", "targets", "said"),
    [
        (Classification(("a", "b", "c")), [[1, 0, 0], [0, 1, 0]], "1 classes have no image here (c)"),
        (Classification(("a", "b")), [[1, 0], [1, 0]], "Every image has a: its specificity and AUC are undefined"),
        (MultiLabel(("a", "b")), [[1, 0], [0, 0]], "1 classes have no image here (b)"),
        (Regression(("x",)), [[2.0], [2.0]], "R2 is undefined"),
        (Classification(("a", "b")), [[1, 0], [0, 1]], ""),
        (Regression(("x",)), [[2.0], [3.0]], ""),
    ],
)
def test_scores_that_do_not_exist_are_named_with_the_reason(task, targets, said):
    text = scoring.absent_scores(task, np.array(targets, dtype=np.float64))

    assert said in text
    assert bool(said) == bool(text)


@pytest.mark.parametrize("task", [Classification(("a", "b")), Ordinal(("a", "b")), MultiLabel(("a", "b"))])
def test_a_set_of_one_class_has_null_for_what_does_not_exist(task):
    targets, answers = np.array([[1.0, 0.0]] * 4), np.array([[0.9, 0.1], [0.8, 0.2], [0.3, 0.7], [0.6, 0.4]])

    report = task.report(answers, targets, list("wxyz"), seed=0)

    assert json.loads(json.dumps(report, allow_nan=False))["auc"] is None
    assert report["accuracy"] == 0.75
    assert [report["per_class"]["b"][name] for name in ("sensitivity", "f1", "auc")] == [None, None, None]
    assert report.get("kappa") is None
