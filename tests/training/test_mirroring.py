"""Test-time mirroring: when it is chosen, what ships then, and what is refused."""

import csv
import json
import logging
import shutil

import numpy as np
import pytest
import torch
from scipy import ndimage

from sagemaker_monai.artifact.bundle import read_bundle
from sagemaker_monai.artifact.mask_predictor import read_predictor
from sagemaker_monai.entrypoints import evaluate
from sagemaker_monai.errors import BundleError, ConfigError
from sagemaker_monai.hyperparameters import TrainConfig
from sagemaker_monai.images.sample import Sample
from sagemaker_monai.storage.files import sha256_of
from sagemaker_monai.tasks.segmentation import Segmentation
from sagemaker_monai.training.augmentation import AUGMENTATIONS, mirrored_axes, without_swaps
from sagemaker_monai.training.job_time import Pace, epochs_of
from sagemaker_monai.training.mirroring import choose_mirroring
from sagemaker_monai.training.plan import resolve
from tests.support.mask_sets import write_balls
from tests.training.test_segmentation_training import VOLUMES, run

AXES = (0, 1, 2)


def test_the_axes_are_those_that_augmentation_mirrors():
    found = {name: mirrored_axes(steps) for name, steps in AUGMENTATIONS.items()}

    assert found == {"none": (), "light": (0, 1), "photo": (0, 1), "grey": (), "volume": AXES, "strong": AXES}
    assert mirrored_axes(without_swaps(AUGMENTATIONS["volume"], {0})) == (1, 2)
    assert mirrored_axes(without_swaps(AUGMENTATIONS["photo"], {0})) == (1,)
    assert mirrored_axes(without_swaps(AUGMENTATIONS["photo"], {1})) == ()


class Answering:
    """A run whose validation is drawn: images with a larger and a smaller part of the structure found."""

    def __init__(self, gains, groups=None):
        self.task = Segmentation(("liver",))
        self.validation_groups = groups or [str(index) for index in range(len(gains))]
        self.gains, self.asked = gains, []

    def answers(self, axes):
        self.asked.append(tuple(axes))
        true = np.zeros((10, 10, 4), np.uint8)
        true[2:8] = 1
        rows = []
        for gain in self.gains:
            predicted = true.copy()
            predicted[2, : 5 - (gain if axes else 0)] = 0
            rows.append(self.task.measure_both(predicted, true, (1, 1, 1), loss=0.1, has_surfaces=False))
        return np.stack(rows)

    def tuned(self, answers):
        return self.task.tuned(answers, np.zeros((len(answers), 0)), self.validation_groups)


@pytest.mark.parametrize(
    ("gains", "is_used"),
    [
        ([1] * 5, True),
        ([1] * 4, False),
        ([0] * 20, False),
        ([-1] * 9, False),
        ([2] * 9 + [-1], True),
        ([1, -1] * 9, False),
    ],
)
def test_mirroring_is_used_only_where_validation_gains_by_it(gains, is_used, caplog):
    caplog.set_level(logging.INFO)
    compared = Answering(gains)

    assert choose_mirroring(compared, AXES, is_asked=False)[0] == (AXES if is_used else ())
    assert compared.asked == [(), AXES]
    assert caplog.messages[-1].startswith("test-time mirroring, the mean of 8 answers: validation Dice 0.")
    assert caplog.messages[-1].endswith(": used" if is_used else ": not used")
    assert choose_mirroring(compared, AXES, is_asked=True)[0] == AXES


def test_images_of_one_patient_are_one_voice():
    assert choose_mirroring(Answering([1] * 12, list("aaaabbbbcccc")), AXES, is_asked=False)[0] == ()


SETTINGS = VOLUMES | {"epochs": 2, "test_time_mirroring": "yes"}


@pytest.fixture(scope="module")
def job(tmp_path_factory):
    """A training whose answers are mirrored."""
    base = tmp_path_factory.mktemp("mirrored")
    write_balls(base / "input" / "data" / "training", 4, {"training": 2, "validation": 1, "test": 1})
    code, _ = run(base, **SETTINGS)
    assert code == 0
    return base


def test_what_is_served_is_the_mean_over_mirror_images_and_was_scored(job, tmp_path):
    """The patch is the volume, so that one window is the whole image."""
    data = job / "input" / "data" / "training"
    predictor = read_predictor(job / "model")
    image = predictor.load(Sample(data / "imagesTr" / "case_03.nii.gz"))
    window = predictor.bundle.preprocessing.size
    assert all(side >= extent for side, extent in zip(window, image.shape[1:], strict=True))
    logits = {}

    labels = predictor.prepared_labels(image, lambda place, values: logits.__setitem__("all", values))

    padded, before = torch.full((1, *window), float(image.min())), []
    for side, extent in zip(window, image.shape[1:], strict=True):
        before.append(slice((side - extent) // 2, (side - extent) // 2 + extent))
    padded[(slice(None), *before)] = image
    network, scale = predictor.bundle.network, predictor.bundle.preprocessing.scale
    with torch.inference_mode():
        means = np.mean([
            np.flip(network(scale(padded[None].flip(flip))).numpy(), flip)
            for flip in ([], [2], [3], [4], [2, 3], [2, 4], [3, 4], [2, 3, 4])
        ], axis=0)[0][(slice(None), *before)]  # fmt: skip
    assert predictor.bundle.mirrored_axes == AXES
    assert np.allclose(logits["all"], means, atol=1e-4)
    assert np.array_equal(labels, logits["all"].argmax(0))
    inferer = json.loads((job / "model" / "configs" / "inference.json").read_text())["inferer"]
    assert inferer["mirrored_axes"] == [0, 1, 2]
    assert json.loads((job / "model" / "configs" / "train.json").read_text())["mirrored_axes"] == [0, 1, 2]
    assert evaluate.main(["--model", str(job / "model"), "--data", str(data), "--output", str(tmp_path)]) == 0
    trained = json.loads((job / "output" / "data" / "metrics.json").read_text())
    assert json.loads((tmp_path / "metrics.json").read_text())["dice"] == trained["dice"]
    assert "Answers are means over 8 mirror images. " in trained["note"]
    assert trained["note"] in (job / "model" / "docs" / "README.md").read_text()


def test_a_finished_job_writes_the_same_artifact_again_without_asking_twice(job, monkeypatch):
    files = ("models/model.pt", "configs/inference.json", "configs/train.json")
    before = {name: (job / "model" / name).read_bytes() for name in files}
    monkeypatch.setattr("sagemaker_monai.training.fit.choose_mirroring", lambda *_, **__: 1 / 0)

    assert run(job, **SETTINGS)[0] == 0
    assert {name: (job / "model" / name).read_bytes() for name in files} == before


@pytest.mark.parametrize(("mirroring", "axes"), [("no", ()), ("auto", AXES)])
def test_what_validation_chose_and_scored_is_what_the_artifact_answers(mirroring, axes, tmp_path, caplog):
    """The spine: the rules and the mirroring of the epoch that ships, by its weights, on each image's own grid."""
    caplog.set_level(logging.INFO)
    data = write_balls(tmp_path / "input" / "data" / "training", 8, {"training": 2, "validation": 6})
    code, _ = run(tmp_path, **VOLUMES | {"epochs": 1, "test_fraction": 0, "test_time_mirroring": mirroring})
    assert code == 0

    inference = json.loads((tmp_path / "model" / "configs" / "inference.json").read_text())
    metrics = json.loads((tmp_path / "output" / "data" / "metrics.json").read_text())
    [row] = csv.DictReader((tmp_path / "output" / "data" / "history.csv").read_text().splitlines())
    rules = [step["structures"] for step in inference["postprocessing"]["transforms"] if "structures" in step]

    assert read_bundle(tmp_path / "model").mirrored_axes == axes
    assert len(rules) == 1, "an untrained network leaves specks, so that there is a rule to test with"
    alone = [facts["largest_component_only"] for facts in metrics["per_class"].values()]
    assert alone == [number in rules[0] for number in (1, 2)]
    assert "only the largest component counts" in metrics["note"]
    if axes:
        assert f"validation Dice {metrics['dice']:.4f} instead of {float(row['validation_dice']):.4f}" in caplog.text
    else:
        assert metrics["dice"] == pytest.approx(float(row["validation_dice"]), rel=1e-12)
        for name in ("iou", "lesion_precision", "volume_error"):
            assert metrics[name] == pytest.approx(float(row[f"validation_{name}"]), rel=1e-12)
    for path in (data / "imagesTr").iterdir():
        labels = read_predictor(tmp_path / "model").predict([Sample(path)])[0].mask
        assert all(ndimage.label(labels == number, np.ones((3, 3, 3)))[1] <= 1 for number in rules[0])


@pytest.mark.parametrize("axes", [[2, 0], [0, 0], [3], [-1], [True], [0.0], [], "0", None, {"0": 1}])
def test_axes_that_training_would_not_write_are_refused(axes, job, tmp_path):
    folder = tmp_path / "model"
    shutil.copytree(job / "model", folder)
    shutil.rmtree(folder / "docs")
    inference = json.loads((folder / "configs" / "inference.json").read_text())
    inference["inferer"]["mirrored_axes"] = axes
    (folder / "configs" / "inference.json").write_text(json.dumps(inference))
    sums = json.loads((folder / "configs" / "checksums.json").read_text())
    sums["configs/inference.json"] = sha256_of(folder / "configs" / "inference.json")
    (folder / "configs" / "checksums.json").write_text(json.dumps(sums))

    with pytest.raises(BundleError, match="is not what this program writes"):
        read_bundle(folder)


def test_it_is_refused_where_nothing_is_mirrored(tmp_path):
    root = write_balls(tmp_path / "input" / "data" / "training", 4, {"training": 2, "validation": 1, "test": 1})
    assert run(tmp_path, **SETTINGS | {"augmentation": "none"})[0] != 0
    failure = (tmp_path / "output" / "failure").read_text()

    assert "test_time_mirroring=yes is for images that augmentation mirrors: leave it out" in failure
    assert str(root) not in failure
    with pytest.raises(ConfigError, match="test_time_mirroring is for segmentation"):
        resolve(TrainConfig(test_time_mirroring="auto"), task="classification", spatial_dims=2, is_photograph=True)


def test_hours_keep_time_for_the_comparison_and_for_slower_answers():
    pace = Pace(step_s=1.0, validation_s=10.0, saving_s=0.0, reading_s=1.0, used_s=0.0)
    sizes = {"steps_per_epoch": 10, "validated": 10, "scored": 20}

    _, plain = epochs_of(pace, TrainConfig(hours=1), **sizes)
    _, slower = epochs_of(pace, TrainConfig(hours=1), **sizes, network_runs=8)

    assert plain == pytest.approx(3600 - 10 - 20 * (1 + 2 * 1))
    assert slower == pytest.approx(3600 - 10 - 10 * 9 - 20 * (1 + 2 * 8))
