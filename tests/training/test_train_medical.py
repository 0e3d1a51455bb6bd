"""`train` and `evaluate` from medical files to a scored artifact: every kind of image and every task once."""

import csv
import json
import os
import re
import shutil
import signal

import numpy as np
import pytest
import torch

from sagemaker_monai.artifact.bundle import read_bundle
from sagemaker_monai.artifact.predictor import Predictor
from sagemaker_monai.data.datasets import SPLITS, read_dataset
from sagemaker_monai.data.loading import LoadedDataset
from sagemaker_monai.entrypoints import evaluate, train
from sagemaker_monai.hyperparameters import TrainConfig
from sagemaker_monai.images.sample import Sample, Sequences
from sagemaker_monai.tasks.metric_names import metric_definitions
from sagemaker_monai.tasks.tasks import TASKS
from sagemaker_monai.training import feeds as train_steps
from sagemaker_monai.training.fit import job_key
from sagemaker_monai.training.preset_choice import choose_preprocessing
from tests.support import medical_sets
from tests.support.exhaustive import exhaustive

SMALL = {"epochs": 2, "batch_size": 8, "num_workers": 1, "image_size": 32, "network": "resnet10"}
VOLUME = {**SMALL, "image_size": 16, "network": "segresnet"}

# name -> what makes the data, hyperparameters, the task, and the preset's load half by its class, channels and kind
RUNS = {  # the first four, one of each task, are in the short form
    "xrays": (medical_sets.xrays, SMALL, "regression", ("LoadSlice", 1, "header")),
    "ct series": (
        medical_sets.ct_series, {**VOLUME, "uneven_slices": "resample"}, "multilabel", ("LoadVolume", 1, "window"),
    ),
    "mr sequences": (
        medical_sets.mr_sequences, {**VOLUME, "fit": "pad", "spacing_mm": "1,1,1.5"}, "ordinal",
        ("LoadVolume", 2, "zscore"),
    ),
    "pet slices": (
        medical_sets.pet_slices, {**SMALL, "window": "suv"}, "classification", ("LoadSlice", 1, "suv"),
    ),
    "ct slices": (medical_sets.ct_slices, SMALL, "classification", ("LoadSlice", 1, "window")),
    "npy volumes": (
        medical_sets.npy_volumes, {**VOLUME, "network": "resnet10"}, "regression", ("LoadVolume", 1, "percentile"),
    ),
    "shared opinions": (
        medical_sets.shared_opinions, {**SMALL, "network": "densenet121", "epochs": 1}, "classification",
        ("LoadVolume", 1, "percentile"),
    ),
    "colour photographs": (
        medical_sets.colour_photographs, {**SMALL, "preset": "photo"}, "classification", ("LoadPhotograph", 3, None),
    ),
}  # fmt: skip


@pytest.fixture(autouse=True)
def clean_environment(without_sagemaker, monkeypatch, tmp_path):
    monkeypatch.setenv("SAGEMAKER_BASE_DIR", str(tmp_path / "opt-ml"))


def train_on(base, make=None, **hyperparameters):
    """One job below `base`: its exit code and what it printed."""
    if make is not None:
        make(base / "input" / "data" / "training")
    lines = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SAGEMAKER_BASE_DIR", str(base))
        patch.setattr("builtins.print", lambda *text, **_: lines.append(" ".join(map(str, text))))
        code = train.main([f"--{name}={value}" for name, value in hyperparameters.items()])
    return code, lines


@pytest.fixture(scope="module")
def jobs(tmp_path_factory):
    """Folder and printed lines of a job, which is run when it is first asked for."""
    folder = tmp_path_factory.mktemp("jobs")
    done = {}

    def job(name):
        if name not in done:
            make, hyperparameters, _, _ = RUNS[name]
            base = folder / name.replace(" ", "-")
            code, lines = train_on(base, make, **hyperparameters)
            assert code == 0, lines
            done[name] = (base, lines)
        return done[name]

    return job


def evaluated(base, out, *options, data=None):
    """The exit code of `evaluate` for the artifact of a job, on its own data or others."""
    options = [*options, "--model", base / "model", "--data", data or base / "input" / "data" / "training"]
    return evaluate.main(list(map(str, [*options, "--output", out])))


def json_of(path):
    return json.loads(path.read_text())


def rows_of(path):
    with path.open() as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize("name", exhaustive(RUNS, short=4))
def test_the_artifact_has_the_preprocessing_and_the_task_of_its_data(jobs, name):
    base, _ = jobs(name)
    _, _, task, (load_half, channels, intensity) = RUNS[name]

    bundle = read_bundle(base / "model")

    load = bundle.preprocessing.spec[0]
    assert load["_target_"].endswith(f".{load_half}")
    assert load["channels"] == channels
    assert load.get("intensity", {}).get("kind") == intensity
    assert bundle.task.name == task


@pytest.mark.parametrize("name", exhaustive(RUNS, short=4))
def test_every_epoch_has_a_line_that_the_metrics_of_sagemaker_are_found_in(jobs, name):
    base, lines = jobs(name)
    _, hyperparameters, task, _ = RUNS[name]
    labels = read_bundle(base / "model").labels
    epochs = [line for line in lines if line.startswith("epoch=")]
    history = rows_of(base / "output" / "data" / "history.csv")

    assert len(epochs) == len(history) == hyperparameters["epochs"]
    definitions = {each["Name"]: each["Regex"] for each in metric_definitions(labels, task)}
    for line, row in zip(epochs, history, strict=True):
        for column, value in row.items():
            found = [float(number) for number in re.findall(definitions[column], line)]
            assert found == ([] if value == "nan" else [pytest.approx(float(value), rel=1e-4)])
    [scores] = [line for line in lines if line.startswith("test_loss=")]
    assert [re.match(r"test_(\w+)=", part)[1] for part in scores.split()] == list(TASKS[task].goals)
    assert list((base / "output" / "data" / "tensorboard").glob("events.*"))


@pytest.mark.parametrize("name", exhaustive(RUNS, short=4))
def test_metrics_name_the_artifact_and_have_the_scores_of_the_task(jobs, name):
    base, _ = jobs(name)
    task = RUNS[name][2]

    metrics = json_of(base / "model" / "docs" / "metrics.json")

    assert metrics == json_of(base / "output" / "data" / "metrics.json")
    assert metrics["model_version"] == read_bundle(base / "model").model_version
    assert metrics["task"] == task
    assert set(TASKS[task].goals) <= set(metrics)
    assert metrics["images"] == len(rows_of(base / "output" / "data" / "test_predictions.csv"))


def image_of(base, name):
    """The source that a name in the table of predictions means."""
    paths = tuple(base / "input" / "data" / "training" / part for part in name.split(" + "))
    return paths[0] if len(paths) == 1 else Sequences(paths)


@pytest.mark.parametrize("name", exhaustive(RUNS, short=4))
def test_what_was_scored_is_what_the_artifact_answers(jobs, name):
    base, _ = jobs(name)
    predictor = Predictor.read(base / "model")

    for row in rows_of(base / "output" / "data" / "test_predictions.csv"):
        [prediction] = predictor.predict([Sample(image_of(base, row["image"]))])
        numbers = prediction.fields().get("values") or prediction.probabilities
        assert numbers == pytest.approx({label: float(row[label]) for label in predictor.labels}, rel=1e-5, abs=1e-7)
        if "values" in prediction.fields():
            assert [float(number) for number in row["predicted"].split()] == pytest.approx(list(numbers.values()))
        else:
            first = next(iter(prediction.cells().values()))
            assert row["predicted"] == first


@pytest.mark.parametrize("name", exhaustive(RUNS, short=4))
def test_an_evaluation_repeats_the_scores_and_the_log_of_the_best_epoch(jobs, name, tmp_path, caplog):
    """Of the validation split it says what training logged: thresholds, too, are those that ship."""
    base, _ = jobs(name)
    task = RUNS[name][2]
    caplog.set_level("INFO")

    for split in ("test", "validation"):
        assert evaluated(base, tmp_path / split, "--split", split) == 0

    assert "of the data set of the model's training" in caplog.text
    reported = json_of(base / "output" / "data" / "metrics.json")
    assert json_of(tmp_path / "test" / "metrics.json") == reported | {"unreadable_images": {"test": []}}
    found = json_of(tmp_path / "validation" / "metrics.json")
    best = rows_of(base / "output" / "data" / "history.csv")[reported["best_epoch"] - 1]
    for score in TASKS[task].goals:
        logged = float(best[f"validation_{score}"])
        assert (found[score] is None and np.isnan(logged)) or found[score] == pytest.approx(logged, rel=1e-4)
    quality = json_of(tmp_path / "test" / "evaluation.json")
    assert list(quality) == [TASKS[task].quality_group]
    assert quality[TASKS[task].quality_group]["loss"]["value"] == reported["loss"]


def test_other_data_of_the_same_kind_is_scored_without_the_notes_of_training(jobs, tmp_path, caplog):
    base, _ = jobs("mr sequences")
    medical_sets.mr_sequences(tmp_path / "data", count=6)
    caplog.set_level("INFO")

    assert evaluated(base, tmp_path / "out", "--split", "all", data=tmp_path / "data") == 0

    assert "another data set than that of the model's training" in caplog.text
    metrics = json_of(tmp_path / "out" / "metrics.json")
    assert (metrics["images"], metrics["note"]) == (6, "")


def test_data_of_another_kind_is_refused_with_its_cause(jobs, tmp_path, capsys):
    base, _ = jobs("mr sequences")
    shutil.copytree(base / "input" / "data" / "training", tmp_path / "data")
    content = json_of(tmp_path / "data" / "dataset.json")
    for split in ("training", "validation", "test"):
        for item in content[split]:
            item["image"] = item["image"][0]
    (tmp_path / "data" / "dataset.json").write_text(json.dumps(content))

    assert evaluated(base, tmp_path / "out", data=tmp_path / "data") == 1

    assert "this model takes images of 2 channels, this one has 1" in capsys.readouterr().err


def test_thresholds_are_the_youden_points_of_the_validation_answers(jobs, tmp_path):
    """By hand: of all thresholds between two answers the one with the largest sensitivity + specificity."""
    base, _ = jobs("ct series")
    assert evaluated(base, tmp_path, "--split", "validation") == 0
    rows = rows_of(tmp_path / "validation_predictions.csv")
    thresholds = json_of(base / "model" / "configs" / "inference.json")["postprocessing"]["transforms"][1]["thresholds"]

    for label, threshold in zip(medical_sets.FINDINGS, thresholds, strict=True):
        answers = np.array([float(row[label]) for row in rows])
        is_true = np.array([label in row["label"].split("|") for row in rows])
        if is_true.all() or not is_true.any():
            assert threshold == 0.5
            continue

        def youden(at, answers=answers, is_true=is_true):
            return (answers[is_true] >= at).mean() + (answers[~is_true] < at).mean()

        assert youden(threshold) == max(youden(at) for at in [*answers, 0.0, 1.0])
        assert np.abs(answers - threshold).min() > 1e-9 or threshold == answers.min()
    shown = [row["threshold"] for row in json_of(base / "model" / "docs" / "metrics.json")["per_class"].values()]
    assert shown == thresholds


CARDS = {
    "xrays": ("regressor from images to 2 numbers", "| dose_mGy | 0.001875 | 0.002 | 0.0025 |", "may have other units"),
    "ct series": ("images by 3 findings, any number", "| striped | 4 | 2 | 2 |", "| finding | images | threshold |"),
    "mr sequences": ("into 3 grades in order", "| none | 6 | 2 | 0 |", "| grade | images | sensitivity |"),
    "ct slices": ("classifier of images into 2 classes", "| water | 8 | 2 | 2 |", "| class | images | sensitivity |"),
    "npy volumes": ("regressor from images to 1 number (resnet10", "| volume_ml | 40 | 45 | 65 |", "| number |"),
    "shared opinions": ("into 2 classes", "| left | 4 | 1 | 1 |", "calibrated"),
}  # fmt: skip


@pytest.mark.parametrize("name", exhaustive(CARDS, short=3))
def test_the_model_card_speaks_of_the_task_and_of_its_data(jobs, name):
    base, _ = jobs(name)
    card = (base / "model" / "docs" / "README.md").read_text()

    for text in CARDS[name]:
        assert text in card
    tables = [line.count("|") for line in card.splitlines() if line.startswith("|")]
    assert len(set(tables)) <= 2
    assert "0.000 (0.000 to 0.0" not in card.partition("MAE")[2]


# --- repeated, interrupted, and told apart


def weights_of(base):
    return torch.load(base / "model" / "models" / "model.pt", weights_only=True)


def same_files(first, second):
    names = ("configs/inference.json", "configs/train.json", "configs/metadata.json")
    are_equal = all((first / "model" / name).read_bytes() == (second / "model" / name).read_bytes() for name in names)
    weights, others = weights_of(first), weights_of(second)
    return are_equal and all(torch.equal(weights[name], others[name]) for name in weights)


@pytest.mark.long
def test_a_job_that_was_stopped_and_goes_on_ships_what_an_uninterrupted_one_ships(jobs, tmp_path, monkeypatch):
    """Volumes and findings: weights and thresholds bit by bit; also a repetition of the same job."""
    base, _ = jobs("ct series")
    _, hyperparameters, _, _ = RUNS["ct series"]
    shutil.copytree(base / "input", tmp_path / "input")
    real, steps = train_steps.augment, []

    def stop_the_job(*arguments, **named):
        steps.append(1)
        if len(steps) == 3:  # in the middle of the second epoch
            os.kill(os.getpid(), signal.SIGTERM)
        return real(*arguments, **named)

    with monkeypatch.context() as patch:
        patch.setattr(train_steps, "augment", stop_the_job)
        code, lines = train_on(tmp_path, **hyperparameters)
    assert code == 0
    assert len([line for line in lines if line.startswith("epoch=")]) == 1
    assert json_of(tmp_path / "model" / "configs" / "train.json")["stopped"] == "asked to stop in epoch 2"

    code, lines = train_on(tmp_path, **hyperparameters)

    assert code == 0
    assert same_files(base, tmp_path)


def test_jobs_of_other_presets_windows_and_spacings_have_checkpoints_of_their_own(tmp_path):
    """What decides the pixels decides the folder, or a job would go on with weights for other images."""
    medical_sets.mr_sequences(tmp_path / "data", count=12)
    config = TrainConfig(image_size=16, network="resnet10", num_workers=1)
    keys = []
    for changes in (
        {},
        {"preset": "volume"},
        {"window": "percentile"},
        {"fit": "pad", "spacing_mm": "2"},
        {"fit": "pad", "spacing_mm": "3"},
        {"uneven_slices": "resample"},
        {"non_finite": "zero"},
        {"task": "classification"},
    ):
        chosen = config.model_copy(update=changes)
        dataset = read_dataset(
            {"training": tmp_path / "data"}, task=chosen.task, validation_fraction=0.1, test_fraction=0.1, seed=0
        )
        spec = choose_preprocessing(chosen, dataset)
        data = LoadedDataset(dataset, np.zeros(0), {}, dict.fromkeys(SPLITS, ()))
        keys.append(job_key(chosen, data, spec, None))

    assert len(set(keys)) == len(keys)


# --- tables: the task is a hyperparameter


def table_of_slices(folder, label_of):
    medical_sets.ct_slices(folder)
    (folder / "dataset.json").unlink()
    rows = [f"images/{index}.dcm,{label_of(index)},P{index}" for index in range(medical_sets.COUNT)]
    (folder / "labels.csv").write_text("\n".join(["image,label,group", *rows]) + "\n")


@pytest.mark.parametrize(
    ("task", "label_of", "labels"),
    exhaustive(
        [
            ("multilabel", lambda index: ["dry", "wet", "dry|wet", "wet | cold"][index % 4], ("cold", "dry", "wet")),
            ("regression", lambda index: f"{0.5 * (index % 5)}", ("value",)),
            ("ordinal", lambda index: f"grade {index % 2}", ("grade 0", "grade 1")),
        ]
    ),
    ids=["multilabel", "regression", "ordinal"],
)
def test_a_table_of_labels_is_for_any_task_that_is_asked_for(task, label_of, labels, tmp_path):
    def lay_out(folder):
        table_of_slices(folder, label_of)

    code, lines = train_on(tmp_path, lay_out, **{**SMALL, "epochs": 1, "task": task})

    assert code == 0, lines
    bundle = read_bundle(tmp_path / "model")
    assert (bundle.task.name, bundle.labels) == (task, labels)
    options = ["--model", tmp_path / "model", "--data", tmp_path / "input" / "data" / "training", "--output"]
    assert evaluate.main(list(map(str, [*options, tmp_path / "out"]))) == 0
    reported = json_of(tmp_path / "output" / "data" / "metrics.json")
    assert json_of(tmp_path / "out" / "metrics.json") == reported | {"unreadable_images": {"test": []}}
