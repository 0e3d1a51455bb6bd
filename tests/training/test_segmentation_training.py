"""Training of segmentation from dataset.json to a scored artifact that a server answers with."""

import csv
import io
import json
import math
import re
import shutil
from dataclasses import replace

import nibabel
import numpy as np
import pydicom
import pytest
import torch
from PIL import Image

from sagemaker_monai.artifact.bundle import read_bundle
from sagemaker_monai.budget import Budget, spending
from sagemaker_monai.data.datasets import Record
from sagemaker_monai.entrypoints import evaluate, train
from sagemaker_monai.errors import PayloadTooLarge
from sagemaker_monai.images.read import read_volumes_of
from sagemaker_monai.images.sample import Instances, Sample
from sagemaker_monai.images.volumes import Traits
from sagemaker_monai.masks.mask import Grid
from sagemaker_monai.masks.read_mask import read_mask
from sagemaker_monai.serving.inference import input_fn, model_fn, output_fn, predict_fn
from sagemaker_monai.tasks.metric_names import metric_definitions
from sagemaker_monai.tasks.segmentation import MaskPrediction
from sagemaker_monai_aws.client.asking import Source
from sagemaker_monai_aws.client.endpoints import Answer
from sagemaker_monai_aws.hosting import smoke
from tests.support.dicom_bodies import zip_of
from tests.support.dicom_series import SAGITTAL, make_series, to_bytes
from tests.support.mask_sets import ball_volume, write_balls, write_discs

VOLUMES = {
    "epochs": 12,
    "network": "unet",
    "network_width": 4,
    "learning_rate": 0.01,
    "num_workers": 1,
    "ema_decay": 0.5,
}


def run(base, channel_name="training", **arguments):
    printed = io.StringIO()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SAGEMAKER_BASE_DIR", str(base))
        patch.setattr("sys.stdout", printed)
        code = train.main([f"--{name}={value}" for name, value in arguments.items()])
    return code, printed.getvalue()


@pytest.fixture(scope="module")
def job(tmp_path_factory):
    """The folder of a training on volumes, and what it printed."""
    base = tmp_path_factory.mktemp("job")
    codes = {
        "dark": {"category": "SCT^49755003^Morphologically Abnormal Structure", "type": ["SCT", "4147007", "Mass"]}
    }
    write_balls(base / "input" / "data" / "training", 8, {"training": 5, "validation": 1, "test": 2}, codes=codes)
    code, printed = run(base, **VOLUMES)
    assert code == 0
    return base, printed


def test_it_learns_and_scores_its_artifact_on_each_image_s_own_grid(job):
    base, _ = job
    metrics = json.loads((base / "output" / "data" / "metrics.json").read_text())

    assert metrics["dice"] > 0.6
    assert metrics["images"] == 2
    assert set(metrics["per_class"]) == {"bright", "dark"}
    assert metrics["per_class"]["dark"]["missed"] == 0
    rows = list(csv.DictReader(io.StringIO((base / "output" / "data" / "test_predictions.csv").read_text())))
    assert [(row["image"], row["label"]) for row in rows] == [
        (f"imagesTr/case_0{index}.nii.gz", label) for index in (6, 7) for label in ("bright", "dark")
    ]
    assert np.isclose(np.mean([float(row["dice"]) for row in rows]), metrics["dice"])


def test_the_artifact_says_how_it_is_run(job):
    base, _ = job
    bundle = read_bundle(base / "model")
    inference = json.loads((base / "model" / "configs" / "inference.json").read_text())
    config = json.loads((base / "model" / "configs" / "train.json").read_text())["hyperparameters"]

    assert bundle.labels == ("bright", "dark")
    assert bundle.metadata["task"] == "image segmentation"
    assert inference["inferer"]["roi_size"] == list(bundle.preprocessing.size)
    assert config["patch_size"] == ",".join(map(str, bundle.preprocessing.size))
    assert (config["network"], config["batch_size"]) == ("unet", 2)
    assert "A segmenter of images into 2 structures" in (base / "model" / "docs" / "README.md").read_text()


def test_a_server_s_mask_is_the_one_that_was_scored(job):
    base, _ = job
    model = model_fn(str(base / "model"))
    image = base / "input" / "data" / "training" / "imagesTr" / "case_07.nii.gz"
    answer = predict_fn(input_fn(image.read_bytes(), "application/x-nifti+gzip"), model)

    body, content_type = output_fn(answer, "application/x-nifti")
    [prediction] = json.loads(output_fn(answer, "application/json")[0])["predictions"]

    assert content_type == "application/x-nifti"
    written = nibabel.Nifti1Image.from_bytes(body)
    mask = np.asarray(written.dataobj)
    truth = np.asarray(nibabel.load(str(image).replace("images", "labels")).dataobj)
    assert np.array_equal(written.affine, nibabel.load(image).affine)
    rows = csv.DictReader(io.StringIO((base / "output" / "data" / "test_predictions.csv").read_text()))
    for row, value in zip([row for row in rows if "case_07" in row["image"]], (1, 2), strict=True):
        common, total = ((mask == value) & (truth == value)).sum(), (mask == value).sum() + (truth == value).sum()
        assert float(row["dice"]) == pytest.approx(2 * common / total)
        assert prediction["sizes"][row["label"]] == pytest.approx((mask == value).sum() / 1000)
        assert prediction["structures"][row["label"]]["voxels"] == float(row["answered_voxels"])
        assert prediction["sizes"][row["label"]] == float(row["predicted_size"])


def test_the_check_after_a_deployment_compares_the_answer_with_the_job_s_table(job):
    base, _ = job
    image = base / "input" / "data" / "training" / "imagesTr" / "case_06.nii.gz"
    model = model_fn(str(base / "model"))
    body = output_fn(predict_fn(input_fn(image.read_bytes(), "application/x-nifti+gzip"), model), "application/json")[0]
    rows = csv.DictReader(io.StringIO((base / "output" / "data" / "test_predictions.csv").read_text()))
    voxels = {row["label"]: float(row[smoke.VOXELS]) for row in rows if "case_06" in row["image"]}
    probe = smoke.Probe(Source("", "", "", 0, image), frozenset(voxels), voxels, tolerance=0.0)
    answer = Answer("application/json", body if isinstance(body, bytes) else body.encode())

    assert smoke.fault_of(probe, answer) is None
    other = replace(probe, numbers=voxels | {"dark": voxels["dark"] + smoke.FEW_VOXELS + 1})
    assert "voxels of dark were expected within 8" in smoke.fault_of(other, answer)


def test_a_volume_stored_in_another_way_gets_the_same_mask_in_the_world(job):
    base, _ = job
    model = model_fn(str(base / "model"))
    values, _, affine = ball_volume(7, (36, 40, 32))
    turn = np.eye(4)
    turn[:2, :2] = [[math.cos(0.4), -math.sin(0.4)], [math.sin(0.4), math.cos(0.4)]]

    def masked(stored: np.ndarray, affine: np.ndarray) -> np.ndarray:
        body = nibabel.Nifti1Image(stored, affine).to_bytes()
        answer = output_fn(predict_fn(input_fn(body, "application/x-nifti"), model), "application/x-nifti")[0]
        written = nibabel.Nifti1Image.from_bytes(answer)
        assert np.allclose(written.affine, affine, atol=1e-5)
        return np.asarray(written.dataobj)

    own = masked(values, affine)
    mirror = np.diag([-1.0, 1, 1, 1])
    mirror[0, 3] = values.shape[0] - 1
    permuted = np.eye(4)[[1, 2, 0, 3]]

    assert set(np.unique(own)) == {0, 1, 2}
    assert np.array_equal(masked(values[::-1].copy(), affine @ mirror)[::-1], own)
    assert np.array_equal(masked(values.transpose(2, 0, 1), affine @ permuted).transpose(1, 2, 0), own)
    assert np.array_equal(masked(values, turn @ affine), own)

    halves = np.diag([1.0, 1, 0.5, 1])  # each slice as two of half its thickness
    halves[2, 3] = -0.25
    # What does not change from slice to slice is not blurred when their number is halved again.
    tubes = np.repeat(values[:, :, [10]], values.shape[2], axis=2)
    for volume, tolerance in ((tubes, 0), (values, 0.05)):
        whole = masked(volume, affine)
        stored = np.repeat(volume, 2, axis=2).transpose(2, 0, 1)
        thin = masked(stored, turn @ affine @ halves @ permuted).transpose(1, 2, 0)
        assert np.array_equal(thin[..., ::2], thin[..., 1::2])
        assert np.mean(thin[..., ::2] != whole) <= tolerance
        centres = [np.argwhere(mask == 1).mean(axis=0) for mask in (thin[..., ::2], whole)]
        assert np.abs(centres[0] - centres[1]).max() < 0.5


def test_a_dicom_series_gets_the_same_mask_as_a_segmentation_and_as_structures(job, tmp_path):
    base, _ = job
    values, _, _ = ball_volume(7)
    files = [to_bytes(file) for file in make_series(values.T.astype(np.int16), SAGITTAL)]
    body = zip_of(*((f"{index}.dcm", file) for index, file in enumerate(files)))
    answer = predict_fn(input_fn(body, "application/zip"), model_fn(str(base / "model")))

    mask = np.asarray(nibabel.Nifti1Image.from_bytes(output_fn(answer, "application/x-nifti")[0]).dataobj)

    assert set(np.unique(mask)) == {0, 1, 2}
    grid = Grid.of(read_volumes_of(Sample(Instances(tuple(files))))[0])
    for kind in ("binary", "labelmap", "rtstruct"):
        (tmp_path / kind).write_bytes(output_fn(answer, f"application/dicom; type={kind}")[0])
        assert np.array_equal(read_mask(tmp_path / kind, grid).values, mask)
        read = pydicom.dcmread(tmp_path / kind)
        values = [element.value for element in read.iterall() if element.keyword == "CodeValue"]
        assert values.count("4147007") == 1  # as dataset.json says of the dark one


def test_an_image_whose_windows_exceed_the_budget_is_refused_before_they_are_run(job, monkeypatch):
    base, _ = job
    model = model_fn(str(base / "model"))
    limits = Budget(1 << 30, 1 << 40), Budget(1 << 30, 1 << 20), Budget(4 << 20, 1 << 40)
    runs = []
    monkeypatch.setattr(
        model, "_logits", lambda windows: runs.append(1) or torch.zeros(len(windows), 3, *windows.shape[2:])
    )
    image, traits = torch.zeros(1, 60, 60, 60), Traits(size=(60, 60, 60), spacing_mm=(1, 1, 1), affine=np.eye(4))

    with spending(limits[0]):
        assert model.segment(image, traits).mask.shape == (60, 60, 60)
    runs.clear()
    for budget in limits[1:]:
        with spending(budget), pytest.raises(PayloadTooLarge, match="would take this request beyond"):
            model.segment(image, traits)

    assert not runs
    assert limits[2].most_bytes < 4 << 20


@pytest.mark.parametrize(("order", "flips", "degrees"), [
    ((0, 1, 2), (), 0), ((0, 1, 2), (0, 1), 30), ((2, 0, 1), (2,), 0), ((1, 0, 2), (0, 1, 2), 10), ((2, 1, 0), (), 44),
])  # fmt: skip
def test_a_volume_stored_in_another_order_or_oblique_has_its_mask_in_the_same_place(job, order, flips, degrees):
    base, _ = job
    model = model_fn(str(base / "model"))
    image = nibabel.load(base / "input" / "data" / "training" / "imagesTr" / "case_07.nii.gz")
    values = np.asarray(image.dataobj)
    moved = np.flip(values.transpose(order), flips)
    turn = np.eye(4)[:, [*order, 3]]  # from voxels of the moved volume to those of the first
    for axis in flips:
        turn[:3, 3] += turn[:3, axis] * (moved.shape[axis] - 1)
        turn[:3, axis] *= -1
    cosine, sine = np.cos(np.deg2rad(degrees)), np.sin(np.deg2rad(degrees))
    oblique = np.array([[cosine, -sine, 0, 5], [sine, cosine, 0, -7], [0, 0, 1, 9], [0, 0, 0, 1]])

    def ask(values, affine):
        body = nibabel.Nifti1Image(np.ascontiguousarray(values), affine).to_bytes()
        [prediction] = predict_fn(input_fn(body, "application/x-nifti"), model).predictions
        return prediction

    expected, found = ask(values, image.affine), ask(moved, oblique @ image.affine @ turn)

    assert np.array_equal(np.flip(found.mask, flips).transpose(np.argsort(order)), expected.mask)
    for label, structure in expected.structures.items():
        place = (oblique @ [*structure.centroid, 1])[:3]
        assert found.structures[label].centroid == pytest.approx(place, abs=1e-3)
        assert found.structures[label].size == pytest.approx(structure.size)


def test_evaluate_finds_the_scores_of_training(job, tmp_path):
    base, _ = job
    data = base / "input" / "data" / "training"

    given = ["--model", str(base / "model"), "--data", str(data), "--output", str(tmp_path), "--save-masks"]
    assert evaluate.main(given) == 0

    trained = json.loads((base / "output" / "data" / "metrics.json").read_text())
    assert json.loads((tmp_path / "metrics.json").read_text())["dice"] == trained["dice"]
    found = json.loads((tmp_path / "evaluation.json").read_text())["segmentation_metrics"]
    assert found["hd95"]["value"] == trained["hd95"]
    assert (tmp_path / "test_predictions.csv").read_text() == (base / "output/data/test_predictions.csv").read_text()
    rows = list(csv.DictReader(io.StringIO((tmp_path / "test_predictions.csv").read_text())))
    assert sorted(path.name for path in (tmp_path / "masks" / "imagesTr").iterdir()) == [
        "case_06.nii.gz", "case_07.nii.gz"
    ]  # fmt: skip
    for row in rows:
        mask, image = (nibabel.load(folder / row["image"]) for folder in (tmp_path / "masks", data))
        assert np.array_equal(mask.affine, image.affine)
        value = 1 + ["bright", "dark"].index(row["label"])
        assert (np.asarray(mask.dataobj) == value).sum() == float(row["answered_voxels"]) > 0


def test_saved_masks_lie_below_their_folder_and_none_is_overwritten(tmp_path):
    save = evaluate._saver(tmp_path / "out" / "masks")
    names = ["../../a.png", "/a.jpg", "x/../a.tif", "s/1", "i/b_0000.nii.gz + i/b_0001.nii.gz"]
    for number, name in enumerate(names):
        record = Record(tmp_path, name, number, "", {})
        save(record, MaskPrediction(np.full((2, 3), number, np.uint8), {}, "px", None))

    found = {str(path.relative_to(tmp_path)): np.asarray(Image.open(path)) for path in tmp_path.rglob("*.png")}

    assert {name: int(mask[0, 0]) for name, mask in found.items()} == {
        "out/masks/a.png": 0, "out/masks/a-2.png": 1, "out/masks/x/a.png": 2, "out/masks/s/1.png": 3,
        "out/masks/i/b_0000.png": 4,
    }  # fmt: skip
    assert found["out/masks/a.png"].shape == (3, 2)


def test_the_definitions_of_a_job_find_every_number_that_it_prints(job):
    _, printed = job
    line = next(line for line in printed.splitlines() if line.startswith("epoch=12;"))

    for definition in metric_definitions(("bright", "dark"), "segmentation"):
        found = re.findall(definition["Regex"], line)
        is_of_surfaces = any(word in definition["Name"] for word in ("hd95", "assd", "surface_dice"))
        assert len(found) == (0 if definition["Name"].startswith("test_") or is_of_surfaces else 1), definition["Name"]


def test_going_on_after_a_stop_ends_with_the_same_weights(tmp_path):
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    settings = VOLUMES | {"epochs": 3}
    for base in (whole, stopped):
        write_balls(base / "input" / "data" / "training", 5, {"training": 3, "validation": 1, "test": 1})
    assert run(whole, **settings)[0] == 0
    with pytest.MonkeyPatch.context() as patch:
        from sagemaker_monai.training.run import Run

        steps, real = [], Run._step

        def step(self, *arguments):
            steps.append(1)
            if len(steps) == 3:
                raise KeyboardInterrupt
            return real(self, *arguments)

        patch.setattr(Run, "_step", step)
        with pytest.raises(KeyboardInterrupt):
            run(stopped, **settings)
    assert run(stopped, **settings)[0] == 0

    files = ("models/model.pt", "configs/inference.json", "configs/metadata.json")
    assert all((whole / "model" / name).read_bytes() == (stopped / "model" / name).read_bytes() for name in files)


def test_photographs_are_segmented_at_their_own_size(tmp_path):
    write_discs(tmp_path / "input" / "data" / "training", 10)
    settings = {"epochs": 8, "image_size": 32, "network_width": 4, "batch_size": 4, "learning_rate": 0.01}
    assert run(tmp_path, **settings, num_workers=1, ema_decay=0.5)[0] == 0

    metrics = json.loads((tmp_path / "output" / "data" / "metrics.json").read_text())
    model = model_fn(str(tmp_path / "model"))
    image = tmp_path / "input" / "data" / "training" / "images" / "3.png"
    answer = predict_fn(input_fn(image.read_bytes(), "image/png"), model)
    body, content_type = output_fn(answer, "image/png")

    mask = np.asarray(Image.open(io.BytesIO(body)))
    truth = np.asarray(Image.open(str(image).replace("images", "masks"))) > 0
    assert content_type == "image/png"
    assert mask.shape == truth.shape == (40, 48)
    assert 2 * ((mask == 1) & truth).sum() / ((mask == 1).sum() + truth.sum()) > 0.8
    assert metrics["iou"] > 0.6


def test_arrays_without_geometry_are_segmented_voxel_by_voxel(tmp_path):
    root = write_balls(tmp_path / "input" / "data" / "training", 4, {"training": 2, "validation": 1, "test": 1})
    for path in [*root.glob("*/*.nii.gz")]:
        np.save(path.with_name(path.name.replace(".nii.gz", ".npy")), np.asarray(nibabel.load(path).dataobj))
        path.unlink()
    (root / "dataset.json").write_text((root / "dataset.json").read_text().replace(".nii.gz", ".npy"))

    assert run(tmp_path, **VOLUMES | {"epochs": 1})[0] == 0

    inference = json.loads((tmp_path / "model" / "configs" / "inference.json").read_text())
    model = model_fn(str(tmp_path / "model"))
    answer = predict_fn(input_fn((root / "imagesTr" / "case_03.npy").read_bytes(), "application/x-npy"), model)
    [prediction] = json.loads(output_fn(answer, "application/json")[0])["predictions"]
    assert inference["preprocessing"]["transforms"][0]["spacing_mm"] is None
    assert prediction["unit"] == "px"
    assert answer.predictions[0].mask.shape == (18, 20, 16)


def test_evaluate_knows_structures_by_their_names(job, tmp_path):
    base, _ = job
    data = tmp_path / "data"
    shutil.copytree(base / "input" / "data" / "training", data)
    for path in (data / "labelsTr").iterdir():
        image = nibabel.load(path)
        swapped = np.array([0, 300, 7], np.uint16)[np.asarray(image.dataobj)]
        nibabel.save(nibabel.Nifti1Image(swapped, image.affine), path)
    content = json.loads((data / "dataset.json").read_text())

    def evaluate_with(labels):
        (data / "dataset.json").write_text(json.dumps(content | {"labels": labels}))
        return evaluate.main(["--model", str(base / "model"), "--data", str(data), "--output", str(tmp_path / "out")])

    assert evaluate_with({"background": 0, "dark": 7, "bright": 300}) == 0
    trained = json.loads((base / "output" / "data" / "metrics.json").read_text())
    assert json.loads((tmp_path / "out" / "metrics.json").read_text())["per_class"] == trained["per_class"]
    assert evaluate_with({"background": 0, "dark": 7}) != 0


def test_a_segmenter_starts_from_the_weights_of_another(job, tmp_path):
    base, _ = job
    write_balls(tmp_path / "input" / "data" / "training", 4, {"training": 2, "validation": 1, "test": 1})
    (tmp_path / "input" / "data" / "pretrained").mkdir()
    shutil.copy(base / "model" / "models" / "model.pt", tmp_path / "input" / "data" / "pretrained")
    settings = VOLUMES | {"epochs": 1, "learning_rate": 1e-9, "patch_size": "16", "early_stop_patience": 1}

    code, _ = run(tmp_path, **settings, best_metric="hd95", imbalance="focal")

    assert code == 0
    metrics = json.loads((tmp_path / "output" / "data" / "metrics.json").read_text())
    assert metrics["dice"] > 0.5
