"""`train` and `evaluate` from medical files to a scored artifact: every kind of image and every task once."""

import csv
import json
import os
import re
import shutil

import numpy as np
import pytest
import torch

from sagemaker_monai.bundle import read_bundle
from sagemaker_monai.entrypoints import evaluate, train
from sagemaker_monai.entrypoints.documents import QUALITY_GROUP
from sagemaker_monai.log_metrics import SCORES, metric_definitions
from sagemaker_monai.predictor import Predictor
from sagemaker_monai.samples import Sample, Sequences
from tests import medical_sets

SMALL = {"epochs": 2, "batch_size": 8, "num_workers": 1, "image_size": 32}
VOLUME = {**SMALL, "image_size": 16, "network": "resnet10"}

# name -> what makes the data, hyperparameters, the task, and the preset's load half by its class, channels and kind
RUNS = {
    "ct slices": (medical_sets.ct_slices, SMALL, "classification", ("LoadSlice", 1, "window")),
    "ct series": (
        medical_sets.ct_series, {**VOLUME, "uneven_slices": "resample"}, "multilabel", ("LoadVolume", 1, "window"),
    ),
    "mr sequences": (
        medical_sets.mr_sequences, {**VOLUME, "fit": "pad", "spacing_mm": "1,1,1.5"}, "ordinal",
        ("LoadVolume", 2, "zscore"),
    ),
    "npy volumes": (
        medical_sets.npy_volumes, {**VOLUME, "network": "segresnet"}, "regression", ("LoadVolume", 1, "percentile"),
    ),
    "shared opinions": (
        medical_sets.shared_opinions, {**SMALL, "network": "densenet121", "epochs": 1}, "classification",
        ("LoadVolume", 1, "percentile"),
    ),
    "xrays": (medical_sets.xrays, SMALL, "regression", ("LoadSlice", 1, "header")),
    "colour photographs": (
        medical_sets.colour_photographs, {**SMALL, "preset": "photo"}, "classification", ("LoadPhotograph", 3, None),
    ),
    "pet slices": (
        medical_sets.pet_slices, {**SMALL, "window": "suv"}, "classification", ("LoadSlice", 1, "suv"),
    ),
}  # fmt: skip


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch, tmp_path):
    for name in list(os.environ):
        if name.startswith(("SM_", "SAGEMAKER_")):
            monkeypatch.delenv(name)
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


def json_of(path):
    return json.loads(path.read_text())


def rows_of(path):
    with path.open() as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize("name", RUNS)
def test_the_artifact_has_the_preprocessing_and_the_task_of_its_data(jobs, name):
    base, _ = jobs(name)
    _, _, task, (load_half, channels, intensity) = RUNS[name]

    bundle = read_bundle(base / "model")

    load = bundle.preprocessing.spec[0]
    assert load["_target_"].endswith(f".{load_half}")
    assert load["channels"] == channels
    assert load.get("intensity", {}).get("kind") == intensity
    assert bundle.task.name == task
