"""Training under the contract: the layout of /opt/ml, channels, artifact, exit code and failure file."""

import csv
import hashlib
import json
import os
import re
import shutil
from pathlib import Path

import pytest

from tests.image.bodies import series
from tests.image.containers import QUICK, bind, container, job_flags, run_train

FAILURE_LIMIT = 1024
ARTIFACT = {
    "configs/inference.json",
    "configs/metadata.json",
    "configs/train.json",
    "models/model.pt",
    "docs/metrics.json",
    "docs/README.md",
}


def files(folder):
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def content(folder):
    """Name -> digest, mode and time of everything in a folder."""
    return {
        str(path.relative_to(folder)): (
            hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else "",
            path.lstat().st_mode,
            path.lstat().st_mtime_ns,
        )
        for path in folder.rglob("*")
    }


def test_one_host_ends_with_0_and_the_artifact(trained):
    assert trained.code == 0
    assert files(trained.base / "model") >= ARTIFACT
    assert files(trained.base / "output" / "data") >= {"history.csv", "metrics.json", "test_predictions.csv"}
    assert trained.failure is None
    assert not [name for name in files(trained.base / "model") if name.endswith(".part")]


def test_metrics_are_lines_that_sagemakers_expressions_find(trained):
    [loss] = re.findall(r"^epoch=1; .*?validation_loss=(\d[\d.e-]*);", trained.log, re.M)
    with (trained.base / "output" / "data" / "history.csv").open(newline="") as file:
        [row] = csv.DictReader(file)

    assert float(loss) == pytest.approx(float(row["validation_loss"]), rel=1e-5)


def test_the_log_has_no_name_of_a_picture_and_no_warning(trained):
    assert "PATIENT" not in trained.log
    assert "Warning" not in trained.log
    assert "Traceback" not in trained.log


def test_hyperparameters_are_strings_as_the_sdk_writes_them(channel, tmp_path):
    given = {
        "epochs": '"1"',
        "image-size": " 32 ",
        "network": '"resnet18"',
        "batch_size": "8",
        "deterministic": '"true"',
        "learning_rate": "1e-3",
        "num_workers": "1",
        "sagemaker_container_log_level": "20",
        "sagemaker_job_name": '"größe-1"',
        "sagemaker_region": '"eu-central-1"',
    }

    job = run_train(tmp_path, {"training": channel}, given)

    assert job.code == 0, job.log
    used = json.loads((tmp_path / "model" / "configs" / "train.json").read_text())["hyperparameters"]
    assert (used["epochs"], used["image_size"], used["network"], used["deterministic"]) == (1, 32, "resnet18", True)
    assert used["learning_rate"] == 0.001


def weights(base):
    return hashlib.sha256((base / "model" / "models" / "model.pt").read_bytes()).hexdigest()


def copied(channel, folder, *, folder_mode, file_mode):
    """A read-only copy of a channel in which every time is 1970, as on some file systems."""
    shutil.copytree(channel, folder)
    for path in [*folder.rglob("*"), folder]:
        path.chmod(folder_mode if path.is_dir() else file_mode)
        os.utime(path, (0, 0))
    return folder


def test_a_fast_file_channel_gives_the_same_model_and_stays_as_it_is(channel, trained, tmp_path):
    fast_file = copied(channel, tmp_path / "fast_file", folder_mode=0o555, file_mode=0o444)
    before = content(fast_file)

    job = run_train(tmp_path / "job", {"training": fast_file})

    assert job.code == 0, job.log
    assert content(fast_file) == before
    assert weights(job.base) == weights(trained.base)


def test_a_shared_folder_of_another_owner_is_read_without_the_rights_of_root(channel, trained, tmp_path):
    efs = copied(channel, tmp_path / "efs", folder_mode=0o555, file_mode=0o444)
    for path in [*efs.rglob("*"), efs]:
        os.chown(path, 5000, 5000)
    rights = [word for name in ("DAC_OVERRIDE", "DAC_READ_SEARCH", "FOWNER") for word in ("--cap-drop", name)]

    job = run_train(tmp_path / "job", {"training": efs}, flags=rights)

    assert job.code == 0, job.log
    assert weights(job.base) == weights(trained.base)


def test_two_channels_are_two_splits(channel, tmp_path):
    channels = {"train": channel / "train", "validation": channel / "val"}

    job = run_train(tmp_path, channels)

    assert job.code == 0, job.log
    assert re.search(r"12 validation", job.log)


def test_series_with_several_findings_become_a_model_of_volumes(tmp_path):
    data = tmp_path / "data"
    findings = [[], ["nodule"], ["effusion"], ["effusion", "nodule"]]
    items = {"training": range(12), "validation": range(12, 16), "test": range(16, 20)}
    for number in range(20):
        for index, content in enumerate(series(100 * (number % 4) + number)):
            (data / f"PATIENT-{number}").mkdir(parents=True, exist_ok=True)
            (data / f"PATIENT-{number}" / f"{index}.dcm").write_bytes(content)
    records = {
        split: [
            {"image": f"./PATIENT-{number}/", "label": findings[number % 4], "group": f"PATIENT-{number}"}
            for number in numbers
        ]
        for split, numbers in items.items()
    }
    described = {"task": "multilabel", "tensorImageSize": "3D", "modality": {"0": "CT"}}
    labels = {"labels": {"0": "effusion", "1": "nodule"}}
    (data / "dataset.json").write_text(json.dumps(described | labels | records))
    small = {"epochs": "1", "image_size": "16", "network": "resnet10", "num_workers": "2", "batch_size": "4"}

    job = run_train(tmp_path / "job", {"training": data}, small)

    assert job.code == 0, job.log
    assert files(job.base / "model") >= ARTIFACT
    inference = json.loads((job.base / "model" / "configs" / "inference.json").read_text())
    assert inference["network_def"]["spatial_dims"] == 3
    assert inference["preprocessing"]["transforms"][0]["_target_"].endswith(".LoadVolume")
    assert "PATIENT" not in job.log
    assert "Warning" not in job.log
    metrics = json.loads((job.base / "model" / "docs" / "metrics.json").read_text())
    assert "effusion" in json.dumps(metrics)


def test_train_is_process_1(channel, tmp_path):
    flags = job_flags(tmp_path, {"training": channel}, QUICK | {"epochs": "1000"})
    with container("train", flags=flags) as job:
        job.wait_for("epoch=1;")

        command = job.exec("cat", "/proc/1/cmdline").split("\0")

    assert Path(command[0]).name.startswith("python")
    assert "sagemaker_monai.entrypoints.train" in command


def test_no_place_for_decoded_pictures_is_no_failure(channel, tmp_path):
    job = run_train(tmp_path, {"training": channel}, flags=("--tmpfs", "/tmp:size=16k"))

    assert job.code == 0
    assert "in memory" in job.log
    assert "Warning" not in job.log


NO_PLACE = ("--tmpfs", "/opt/ml/model:size=1m")
FAILURES = {
    "a wrong value": ({"epochs": "none"}, {}, (), "ConfigError: epochs must be a whole number"),
    "a value outside ASCII": ({"network": "größe-🫁"}, {}, (), "ConfigError: network must be one of"),
    "an empty value": ({"epochs": ""}, {}, (), "ConfigError: epochs is empty"),
    "an unknown name": ({"epoch": "1"}, {}, (), "unknown hyperparameter 'epoch', did you mean epochs?"),
    "a thousand faults": ({f"unknown_{i}": "x" * 99 for i in range(1000)}, {}, (), "more faults"),
    "no JSON": ("{", {}, (), "ConfigError: hyperparameters.json is not JSON"),
    "no channel": (QUICK, None, (), "DatasetError: "),
    "an empty channel": (QUICK, {"training": "empty"}, (), "DatasetError: "),
    "files that are not pictures": (QUICK, {"training": "junk"}, (), "DatasetError: "),
    "a full disk": (QUICK, {}, NO_PLACE, "No space left on device"),
    "a folder for the model that cannot be written": (QUICK, {}, "readonly", "Read-only file system"),
}


@pytest.mark.parametrize("name", FAILURES)
def test_every_failure_has_an_exit_code_and_one_short_line_with_its_cause(name, channel, tmp_path):
    hyperparameters, channels, flags, cause = FAILURES[name]
    (tmp_path / "empty").mkdir()
    shutil.copytree(channel, tmp_path / "junk")
    for path in (tmp_path / "junk").rglob("*.png"):
        path.write_bytes(b"no picture")
    (tmp_path / "readonly").mkdir()
    if flags == "readonly":
        flags = bind(tmp_path / "readonly", "/opt/ml/model")
    if channels is not None:
        channels = {key: tmp_path / folder for key, folder in channels.items()} or {"training": channel}

    job = run_train(tmp_path / "job", channels or {}, hyperparameters, flags=flags)

    assert job.code != 0
    assert cause in job.failure
    assert len(job.failure) <= FAILURE_LIMIT
    assert len(job.failure.splitlines()) == 1
    assert job.failure in job.log
    assert "PATIENT" not in job.failure or name == "files that are not pictures"  # named, to be replaced
    assert "/opt/ml" not in job.failure
    assert "Traceback" not in job.log or "No space left" in job.failure
    assert not (tmp_path / "job" / "model" / "models").exists()
