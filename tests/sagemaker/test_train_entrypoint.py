import csv
import errno
import json
import os
import re
import shutil
import signal
import sys
import types

import numpy as np
import pytest
import torch
from PIL import Image

from sagemaker_monai.artifact.bundle import read_bundle
from sagemaker_monai.artifact.predictor import Predictor
from sagemaker_monai.entrypoints import train
from sagemaker_monai.entrypoints.train import PLACES, help_text, main
from sagemaker_monai.evaluation import documents
from sagemaker_monai.hyperparameters import TrainConfig
from sagemaker_monai.images.sample import Sample
from sagemaker_monai.tasks.classification import Classification
from sagemaker_monai.training import feeds as steps
from sagemaker_monai.training import job
from tests.support.exhaustive import exhaustive

CLASSES = ("blue", "green spots", "red")
QUICK = ["--epochs=1", "--image-size", "32", "--batch_size=16", "--num-workers=1", "--network=resnet10"]


def picture(path, label, number):
    """A small picture whose colour belongs to its class."""
    path.parent.mkdir(parents=True, exist_ok=True)
    values = np.random.default_rng(number).integers(0, 150, (36, 40, 3))
    values[..., CLASSES.index(label)] += 90
    Image.fromarray(values.astype(np.uint8)).save(path)


def class_folders(channel, *, number=10, classes=CLASSES, splits=("",)):
    for split in splits:
        for label in classes:
            for index in range(number):
                picture(channel / split / label / f"{split}{index}.png", label, index)


def csv_layout(channel):
    rows = ["image,label,group,split"]
    for label in CLASSES:
        for index in range(10):
            picture(channel / "images" / f"{label}{index}.png", label, index)
            split = "validation" if index < 2 else "test" if index < 4 else "training"
            rows.append(f"images/{label}{index}.png,{label},{label}{index // 2},{split}")
    (channel / "table.csv").write_text("\n".join(rows) + "\n")


def dataset_json(channel):
    records = {"training": [], "validation": [], "test": []}
    for label in CLASSES:
        for index in range(8):
            picture(channel / "images" / f"{label}{index}.png", label, index)
            split = ["training", "validation", "test"][max(0, index - 5)]
            records[split].append({"image": f"./images/{label}{index}.png", "label": label, "group": f"{label}{index}"})
    labels = {str(index): label for index, label in enumerate(CLASSES)}
    (channel / "dataset.json").write_text(json.dumps({"name": "x", "labels": labels, **records}))


@pytest.fixture(autouse=True)
def clean_environment(without_sagemaker, tmp_path, monkeypatch):
    monkeypatch.setenv("SAGEMAKER_BASE_DIR", str(tmp_path))


def failure(base):
    text = (base / "output" / "failure").read_text()
    assert "\n" not in text
    assert 0 < len(text) <= 1024
    return text


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """One whole job: class folders, two epochs."""
    base = tmp_path_factory.mktemp("job")
    class_folders(base / "input" / "data" / "training")
    (base / "input" / "config").mkdir()
    (base / "input" / "config" / "hyperparameters.json").write_text(
        json.dumps({"epochs": '"2"', "seed": "3", "network": '"resnet10"', "sagemaker_region": "eu-west-1"})
    )
    lines = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SAGEMAKER_BASE_DIR", str(base))
        patch.setattr("builtins.print", lambda *text, **_: lines.append(" ".join(map(str, text))))
        code = main(["--image_size=32", "--batch-size", "16", "--num-workers=1"])
    assert code == 0, lines
    return base, lines


def test_a_job_leaves_an_artifact_and_a_report(trained):
    base, _ = trained

    assert {path.relative_to(base).as_posix() for path in (base / "model").rglob("*.*") if path.is_file()} == {
        f"model/{name}"
        for name in (
            "configs/checksums.json",
            "configs/inference.json",
            "configs/metadata.json",
            "configs/train.json",
            "docs/README.md",
            "docs/metrics.json",
            "models/model.pt",
        )
    }
    assert read_bundle(base / "model").labels == CLASSES
    assert not (base / "output" / "failure").exists()
    assert list((base / "output" / "data" / "tensorboard").glob("events.*"))


def test_the_command_line_wins_over_the_file_and_both_are_in_the_artifact(trained):
    base, _ = trained
    written = json.loads((base / "model" / "configs" / "train.json").read_text())["hyperparameters"]

    given = {"epochs": 2, "seed": 3, "network": "resnet10", "image_size": 32, "batch_size": 16, "num_workers": 1}
    chosen = {
        "task": "classification",
        "imbalance": "logit_adjusted",
        "best_metric": "balanced_accuracy",
        "augmentation": "photo",
    }
    assert TrainConfig(**written) == TrainConfig(**given, **chosen)


def test_one_stable_line_of_metrics_is_printed_each_epoch(trained):
    _, lines = trained
    epochs = [line for line in lines if line.startswith("epoch=")]

    assert len(epochs) == 2
    names = [re.findall(r"(\S+?)=", line) for line in epochs]
    assert names[0] == names[1]
    assert "validation_sensitivity_green_spots" in names[0]
    for line in epochs:
        assert re.fullmatch(r"(\w+=[-+.0-9einaf]+; ?)+", line)
        # The form that a SageMaker MetricDefinition uses.
        assert 0 <= float(re.search(r"validation_balanced_accuracy=(.*?);", line)[1]) <= 1
    assert [line for line in lines if re.match(r"test_loss=\S+; test_accuracy=\S+; ", line)]


def test_the_history_has_one_line_an_epoch(trained):
    base, lines = trained
    with (base / "output" / "data" / "history.csv").open() as file:
        rows = list(csv.DictReader(file))

    assert [row["epoch"] for row in rows] == ["1", "2"]
    printed = [line for line in lines if line.startswith("epoch=")][1]
    assert f"train_loss={float(rows[1]['train_loss']):.6g};" in printed


def test_metrics_name_the_artifact_that_they_were_measured_on(trained):
    base, _ = trained
    beside = json.loads((base / "model" / "docs" / "metrics.json").read_text())

    assert beside == json.loads((base / "output" / "data" / "metrics.json").read_text())
    assert beside["model_version"] == read_bundle(base / "model").model_version
    assert beside["split"] == "test"
    assert beside["images"] == sum(map(sum, beside["confusion_matrix"]))
    assert beside["labels"] == list(CLASSES)


def test_a_server_answers_what_the_report_says(trained):
    """From the bytes of each file, one by one, as requests would bring them."""
    base, _ = trained
    predictor = Predictor.read(base / "model")
    with (base / "output" / "data" / "test_predictions.csv").open() as file:
        rows = list(csv.DictReader(file))
    metrics = json.loads((base / "model" / "docs" / "metrics.json").read_text())

    for row in rows:
        body = (base / "input" / "data" / "training" / row["image"]).read_bytes()
        [answer] = predictor.predict([Sample(body, ("PNG",))])
        assert answer.probabilities == pytest.approx({label: float(row[label]) for label in CLASSES}, abs=1e-6)
        assert answer.predicted_class == row["predicted"]
        assert row["image"].startswith(row["label"])
    assert metrics["accuracy"] == pytest.approx(np.mean([row["label"] == row["predicted"] for row in rows]))


def test_the_model_card_says_what_the_model_is_not_for_and_how_good_it_is(trained):
    base, _ = trained
    card = (base / "model" / "docs" / "README.md").read_text()
    metrics = json.loads((base / "model" / "docs" / "metrics.json").read_text())

    assert "Not a medical device" in card
    assert f"balanced accuracy: {metrics['balanced_accuracy']:.3f} (" in card
    for label in CLASSES:
        assert card.count(f"| {label} |") == 2


@pytest.mark.parametrize(
    ("lay_out", "split"),
    exhaustive(
        [
            (csv_layout, "test"),
            (dataset_json, "test"),
            (lambda channel: class_folders(channel, number=5, splits=("train", "val")), "validation"),
        ],
        short=0,  # `trained` is one of class folders
    ),
    ids=["csv", "dataset.json", "folders without test"],
)
def test_every_layout_trains(lay_out, split, tmp_path):
    lay_out(tmp_path / "input" / "data" / "training")

    assert main([*QUICK, *(["--test_fraction=0"] if split == "validation" else [])]) == 0

    metrics = json.loads((tmp_path / "output" / "data" / "metrics.json").read_text())
    assert metrics["split"] == split
    assert ("no test split" in metrics["note"]) == (split == "validation")
    assert (tmp_path / "output" / "data" / f"{split}_predictions.csv").is_file()


def test_every_place_can_be_set_and_the_toolkit_hears_of_success_by_a_plain_return(toolkit, tmp_path, monkeypatch):
    class_folders(tmp_path / "pictures", number=6)
    monkeypatch.setenv("SM_CHANNEL_TRAIN", str(tmp_path / "pictures"))
    monkeypatch.setenv("SM_MODEL_DIR", str(tmp_path / "m"))
    monkeypatch.setenv("SM_OUTPUT_DIR", str(tmp_path / "o"))
    monkeypatch.setenv("SM_OUTPUT_DATA_DIR", str(tmp_path / "d"))
    monkeypatch.setenv("SM_CHECKPOINT_DIR", str(tmp_path / "c"))
    given = {"epochs": 1, "image-size": 40, "batch_size": 16, "num_workers": 1, "network": "resnet10"}
    monkeypatch.setenv("SM_HPS", json.dumps(given))
    monkeypatch.setenv("SAGEMAKER_BASE_DIR", str(tmp_path / "not-used"))

    train.run_in_toolkit()

    assert read_bundle(tmp_path / "m").preprocessing.size == (40, 40)
    assert (tmp_path / "d" / "metrics.json").is_file()
    assert list((tmp_path / "c").rglob("*.pt"))
    assert not (tmp_path / "not-used").exists()


def nothing(channel):
    pass


def one_class(channel):
    class_folders(channel, classes=("red",))


def no_training_image_of_a_class(channel):
    class_folders(channel / "train", classes=("red", "blue"), number=4)
    class_folders(channel / "val", number=2)


def label_not_listed(channel):
    dataset_json(channel)
    content = json.loads((channel / "dataset.json").read_text())
    content["training"][0]["label"] = "purple"
    (channel / "dataset.json").write_text(json.dumps(content))


def broken_dataset_json(channel):
    channel.mkdir(parents=True)
    (channel / "dataset.json").write_text("{")


def unreadable_images(channel):
    class_folders(channel)
    for index in range(3):
        (channel / "red" / f"{index}.png").write_bytes(b"not a picture")


def one_unreadable_image_with_a_long_name(channel):
    class_folders(channel, number=4)
    (channel / "red" / "0.png").rename(channel / "red" / ("x" * 200 + ".png"))
    (channel / "red" / ("x" * 200 + ".png")).write_bytes(b"broken")


@pytest.mark.parametrize(
    ("lay_out", "arguments", "expected"),
    [
        (class_folders, ["--epoch=3"], r"^ConfigError: .*'epoch', did you mean epochs\?"),
        (class_folders, ["--epochs=0", "--network=alexnet"], r"network must .*'alexnet'; epochs must .* 0$"),
        (class_folders, ["--epochs"], "--epochs has no value"),
        (class_folders, ["epochs=3"], "unexpected argument 'epochs=3': write --name value"),
        (class_folders, ["--precision=fp16"], "precision fp16 needs a GPU"),
        (class_folders, ["--dropout=0.2"], "resnet18 has no dropout"),
        (nothing, [], "^DatasetError: "),
        (lambda channel: channel.mkdir(parents=True), [], "^DatasetError: "),
        (one_class, [], r"^DatasetError: .*only one class \(red\)"),
        (no_training_image_of_a_class, [], r"^DatasetError: .*training image.*\(green spots\)"),
        (label_not_listed, [], "^DatasetError: .*purple"),
        (broken_dataset_json, [], "^DatasetError: .*dataset.json"),
        (
            unreadable_images,
            [],
            r"^DatasetError: 3 of 30 images cannot be read \(file \d+, .*max_unreadable_fraction",
        ),
        (one_unreadable_image_with_a_long_name, [], "^DatasetError: 1 of 12 images cannot be read"),
    ],
)
def test_bad_input_ends_the_job_with_one_line_and_exit_code_1(
    lay_out, arguments, expected, tmp_path, monkeypatch, capsys
):
    base = tmp_path / "job"  # not there yet
    monkeypatch.setenv("SAGEMAKER_BASE_DIR", str(base))
    lay_out(base / "input" / "data" / "training")

    assert main([*arguments, "--num-workers=1"]) == 1

    assert re.search(expected, failure(base))
    assert str(tmp_path) not in failure(base)
    errors = capsys.readouterr().err
    assert failure(base) in errors.splitlines()
    assert "Traceback" not in errors
    assert list(base.rglob("*.pt")) == []  # no model, no checkpoint


@pytest.mark.parametrize("channel", ["training", "pretrained"])
def test_a_channel_that_is_not_there_is_refused(channel, tmp_path, monkeypatch):
    monkeypatch.setenv(f"SM_CHANNEL_{channel.upper()}", str(tmp_path / "nowhere"))

    assert main([]) == 1
    assert re.search("^(DatasetError|ConfigError): .*channel", failure(tmp_path))
    assert str(tmp_path) not in failure(tmp_path)


@pytest.mark.parametrize("text", ["{", "[1]", '"x"', "3"])
def test_hyperparameters_that_are_no_json_object_are_refused(text, tmp_path, monkeypatch):
    monkeypatch.setenv("SM_HPS", text)

    assert main([]) == 1
    assert re.search("^ConfigError: SM_HPS (is not JSON|must be a JSON object)", failure(tmp_path))


def test_a_failed_job_leaves_the_earlier_artifact_alone_and_one_from_pretrained_weights_replaces_both(
    trained, tmp_path, monkeypatch
):
    base, _ = trained
    first = read_bundle(base / "model")
    shutil.copytree(base / "model", tmp_path / "model")
    (tmp_path / "weights").mkdir()
    torch.save({"state_dict": first.network.state_dict()}, tmp_path / "weights" / "w.pt")
    monkeypatch.setenv("SM_CHANNEL_TRAINING", str(base / "input" / "data" / "training"))
    monkeypatch.setenv("SM_CHANNEL_PRETRAINED", str(tmp_path / "weights"))

    assert main([*QUICK, "--learning-rate=oops"]) == 1
    assert read_bundle(tmp_path / "model").model_version == first.model_version
    assert "learning_rate" in failure(tmp_path)

    assert main(QUICK) == 0
    assert read_bundle(tmp_path / "model").model_version != first.model_version
    assert not (tmp_path / "output" / "failure").exists()
    written = json.loads((tmp_path / "model" / "configs" / "train.json").read_text())
    assert re.fullmatch(r"\d+ tensors loaded", written["pretrained"])


def test_a_place_that_cannot_be_made_is_one_clear_line(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("SM_MODEL_DIR", str(tmp_path / "file" / "model"))

    assert main([]) == 1
    assert "a folder cannot be written (Not a directory): set SM_MODEL_DIR" in failure(tmp_path)


def test_a_failure_file_that_cannot_be_written_is_said_and_changes_nothing_else(tmp_path, monkeypatch, capsys):
    (tmp_path / "file").touch()
    monkeypatch.setenv("SM_OUTPUT_DIR", str(tmp_path / "file" / "output"))

    assert main(["--epochs=0"]) == 1
    assert "the failure file cannot be written (Not a directory)" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (KeyError("surprise"), "InternalError: KeyError: 'surprise' at .*broken:"),
        (torch.OutOfMemoryError("CUDA"), "ConfigError: the GPU has too little memory: lower batch_size"),
        (
            OSError(errno.ENOSPC, "No space left on device", "/somewhere/history.csv"),
            r"ConfigError: a file cannot be read or written \(No space left on device\): make room",
        ),
    ],
)
def test_a_bug_is_an_internal_error_with_a_traceback_and_the_rest_is_for_the_caller_to_change(
    error, expected, tmp_path, monkeypatch, capsys
):
    def broken(*_):
        raise error

    monkeypatch.setattr(train, "read_hyperparameters", broken)

    assert main([]) == 1
    assert re.match(expected, failure(tmp_path))
    assert "somewhere" not in failure(tmp_path)
    assert "Traceback" in capsys.readouterr().err


def test_a_byte_order_mark_before_the_hyperparameters_is_passed_over(tmp_path):
    config = tmp_path / "input" / "config"
    config.mkdir(parents=True)
    (config / "hyperparameters.json").write_text('{"epochs": "3"}', encoding="utf-8-sig")

    places = train.Places.from_environment({"SAGEMAKER_BASE_DIR": str(tmp_path)})

    assert train.read_hyperparameters([], places, {}) == {"epochs": "3"}


@pytest.mark.parametrize("number", exhaustive([signal.SIGTERM, signal.SIGINT]))
def test_a_job_that_is_stopped_ends_well_with_its_best_epoch(trained, tmp_path, monkeypatch, number):
    base, _ = trained
    monkeypatch.setenv("SM_CHANNEL_TRAINING", str(base / "input" / "data" / "training"))
    real = job.epoch_line

    def stop_the_job(*arguments):
        os.kill(os.getpid(), number)
        return real(*arguments)

    monkeypatch.setattr(job, "epoch_line", stop_the_job)
    before = signal.getsignal(number)

    assert main([*QUICK, "--epochs=500"]) == 0

    assert signal.getsignal(number) is before
    assert json.loads((tmp_path / "model" / "configs" / "train.json").read_text())["stopped"] == (
        "asked to stop in epoch 2"
    )
    assert json.loads((tmp_path / "output" / "data" / "metrics.json").read_text())["best_epoch"] == 1


def test_a_job_that_is_stopped_in_its_first_epoch_ships_what_it_has_unless_that_replaced_something_better(
    trained, tmp_path, monkeypatch
):
    base, _ = trained
    monkeypatch.setenv("SM_CHANNEL_TRAINING", str(base / "input" / "data" / "training"))
    real = steps.augment

    def stop_the_job(*arguments, **named):
        os.kill(os.getpid(), signal.SIGTERM)
        return real(*arguments, **named)

    with monkeypatch.context() as patch:
        patch.setattr(steps, "augment", stop_the_job)
        assert main([*QUICK, "--batch-size=4"]) == 0
        card = (tmp_path / "model" / "docs" / "README.md").read_text()
        assert "Training was stopped in its first epoch, so these weights were never validated." in card
        assert len(list((tmp_path / "checkpoints").rglob("*.pt"))) == 1

        assert main([*QUICK, "--batch-size=4", "--seed=5"]) == 1
        assert "the artifact that is already there is kept" in failure(tmp_path)
        assert (tmp_path / "model" / "docs" / "README.md").read_text() == card

    assert main([*QUICK, "--batch-size=4"]) == 0  # goes on
    assert json.loads((tmp_path / "output" / "data" / "metrics.json").read_text())["best_epoch"] == 1


def test_help_lists_every_hyperparameter_and_every_environment_variable(capsys, tmp_path):
    assert main(["--help"]) == 0

    text = capsys.readouterr().out
    for name in TrainConfig.model_fields:
        assert f"\n  --{name.replace('_', '-')} (default " in text
    assert all(f"\n  {name}\n" in text for name in PLACES)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("width", [20, 60, 200])
def test_help_keeps_to_the_width_of_the_terminal(width):
    assert max(map(len, help_text(width).splitlines())) <= max(width, 64)


def test_without_arguments_those_of_the_process_are_read(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["train", "--epochs=none"])

    assert main() == 1
    assert "got 'none'" in capsys.readouterr().err


@pytest.fixture
def toolkit(monkeypatch):
    """The one class of sagemaker-training that matters; the package itself compiles C when it is installed."""
    package, errors = types.ModuleType("sagemaker_training"), types.ModuleType("sagemaker_training.errors")
    errors.ClientError = type("ClientError", (Exception,), {})
    monkeypatch.setitem(sys.modules, "sagemaker_training", package)
    monkeypatch.setitem(sys.modules, "sagemaker_training.errors", errors)
    return errors


def test_the_toolkit_hears_of_a_failure_by_its_own_exception_with_the_same_line(toolkit, tmp_path, monkeypatch):
    monkeypatch.setenv("SM_HPS", '{"epochs": "0"}')

    with pytest.raises(toolkit.ClientError) as caught:
        train.run_in_toolkit()
    assert str(caught.value) == failure(tmp_path)


def test_predictions_in_the_table_are_safe_for_spreadsheets():
    from sagemaker_monai.data.datasets import Record

    record = Record(None, "=cmd.png", 0, "g", {})
    text = documents.predictions_csv([record], np.array([[0.25, 0.75]]), Classification(("-a", "b")))

    assert text == "image,label,predicted,'-a,b\n'=cmd.png,'-a,b,0.25,0.75\n"


def test_without_tensorboard_there_are_no_files_of_it(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)

    assert documents.tensorboard_writer(tmp_path, CLASSES, "classification") is None
