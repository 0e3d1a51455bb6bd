"""MONAI's own tools build and run an artifact, to the numbers that `serve` answers."""

import json
import runpy
import shutil
import sys
import tarfile
from contextlib import suppress
from itertools import product
from pathlib import Path

import nibabel
import numpy as np
import pytest
from monai.bundle import ConfigParser
from PIL import Image
from scipy import ndimage

from sagemaker_monai.artifact.bundle import INFERENCE, METADATA, RUN_SECTION
from sagemaker_monai.artifact.mask_predictor import read_predictor
from sagemaker_monai.artifact.predictor import Predictor
from sagemaker_monai.errors import ConfigError
from sagemaker_monai.images.sample import Sample, Sequences
from sagemaker_monai.networks.networks import NETWORKS
from sagemaker_monai.preprocessing.presets import PRESETS
from sagemaker_monai.tasks.regions import Regions
from tests.support.bundles import IMAGE_SIZE, TASKS, write_small_bundle, write_small_segmenter
from tests.support.dicom_series import make_slice, to_bytes

CHEAP = "resnet10"
BEFORE = Path(__file__).parents[1] / "fixtures" / "before"


def write_image(folder, preset, seed=0):
    """A file that the preset is for."""
    values = np.random.default_rng(seed).integers(300, 900, (24, 20, 12)).astype(np.int16)
    if PRESETS[preset].spatial_dims == 3:
        nibabel.save(nibabel.Nifti1Image(values, np.eye(4)), path := folder / f"{seed}.nii.gz")
    elif preset == "photo":
        Image.fromarray((values[..., :3] // 4).astype(np.uint8)).save(path := folder / f"{seed}.png")
    elif preset == "deep":
        Image.fromarray(values[..., 0].astype(np.uint16)).save(path := folder / f"{seed}.png")
    else:
        (path := folder / f"{seed}.dcm").write_bytes(to_bytes(make_slice(values[..., 0])))
    return path


def served(folder, source):
    """Every number that `serve` says of the image, by its label; of findings also whether each is there."""
    [prediction] = Predictor.read(folder).predict([Sample(source)])
    fields = prediction.fields()
    if "predicted_classes" in fields:
        probabilities = fields["probabilities"]
        return {
            "probabilities": probabilities,
            "is_predicted": {name: name in fields["predicted_classes"] for name in probabilities},
        }
    return fields.get("probabilities") or fields["values"]


def run_by_monai(folder, image):
    """What the artifact's configuration comes to, which MONAI builds."""
    parser = ConfigParser()
    parser.read_config(folder / INFERENCE)
    parser.read_meta(folder / METADATA)
    parser.update({**RUN_SECTION, "bundle_root": str(folder), "image": image})
    parser.parse()
    return parser.get_parsed_content("run")


def artifacts():
    """Every preset with every network that it fits, and both with every task: a task knows outputs only, so that pairs
    suffice. All but the cheap network's are long.
    """
    tasks, found = list(TASKS), []
    for preset, (j, network) in product(PRESETS, enumerate(NETWORKS)):
        spatial_dims = PRESETS[preset].spatial_dims
        alike = [name for name, row in PRESETS.items() if row.spatial_dims == spatial_dims]
        if NETWORKS[network].arguments(spatial_dims):
            task = tasks[(alike.index(preset) + j) % len(tasks)]
            marks = [] if network == CHEAP else [pytest.mark.long]
            found.append(pytest.param(preset, task, network, marks=marks))
    return found


def test_each_two_of_preset_task_and_network_that_fit_are_tried_together():
    tried = [param.values for param in artifacts()]

    assert {(preset, task) for preset, task, _ in tried} == set(product(PRESETS, TASKS))
    assert {(task, network) for _, task, network in tried} == set(product(TASKS, NETWORKS))


@pytest.mark.parametrize(("preset", "task", "network"), artifacts())
def test_monai_builds_an_artifact_and_runs_it_to_the_numbers_of_serve(preset, task, network, tmp_path, capsys):
    channels = 3 if preset == "photo" else 1
    folder = tmp_path / "model"
    size = 0 if network == CHEAP else IMAGE_SIZE
    write_small_bundle(folder, channels=channels, preset=preset, task=TASKS[task], network=network, image_size=size)
    image = write_image(tmp_path, preset)

    answer = run_by_monai(folder, str(image))

    assert answer == served(folder, image)
    assert json.loads(capsys.readouterr().out) == answer
    shutil.rmtree(folder)  # pytest would keep some GB


@pytest.mark.parametrize("preset", ["photo", "deep", "mr_slice", "xray"])  # a task each
def test_monai_builds_the_parts_of_an_artifact_of_before(preset, tmp_path):
    with tarfile.open(BEFORE / preset / "model.tar.xz") as archive:
        archive.extractall(tmp_path, filter="data")
    image = BEFORE / preset / "request"

    answer = run_by_monai(tmp_path, str(image))

    # They name MONAI's own steps, which compute in float32.
    expected = served(tmp_path, image)
    assert answer.pop("is_predicted", None) == expected.pop("is_predicted", None)
    assert answer.pop("probabilities", answer) == pytest.approx(expected.pop("probabilities", expected), rel=1e-6)


def test_monai_runs_an_image_of_several_sequences(tmp_path):
    write_small_bundle(tmp_path / "model", channels=2, preset="mr_volume")
    paths = tuple(write_image(tmp_path, "mr_volume", seed) for seed in (1, 2))

    answer = run_by_monai(tmp_path / "model", [str(path) for path in paths])

    assert answer == served(tmp_path / "model", Sequences(paths))


@pytest.mark.parametrize(("shape", "regions", "largest", "axes"), [
    ((24, 20, 12), None, (), ()), ((9, 20, 5), None, (), ()), ((24, 20, 12), None, (2,), ()),
    ((24, 20, 12), None, (2,), (0, 2)), ((24, 20, 12), Regions(((1, 2), (2,)), (1, 2), (1, 3)), (), (1,)),
    ((24, 20, 12), Regions(((1, 2), (2,)), (1, 2), (1, 3)), (), ()),
])  # fmt: skip
def test_monai_counts_the_voxels_of_structures_that_serve_finds(shape, regions, largest, axes, tmp_path, capsys):
    write_small_segmenter(tmp_path / "model", regions=regions, largest=largest, seed=4, mirrored_axes=axes)
    values = np.random.default_rng(0).integers(0, 900, shape).astype(np.int16)
    nibabel.save(nibabel.Nifti1Image(values, np.eye(4)), image := tmp_path / "image.nii")

    answer = run_by_monai(tmp_path / "model", str(image))

    predictor = read_predictor(tmp_path / "model")
    labels = predictor.prepared_labels(predictor.load(Sample(image)))
    liver = labels == 1 if regions is None else labels > 0
    assert answer == {"voxels": {"liver": int(liver.sum()), "spleen": int((labels == 2).sum())}}
    assert min(answer["voxels"].values()) > 0
    components = [ndimage.label(labels == value, np.ones((3, 3, 3)))[1] for value in (1, 2)]
    assert regions is not None or [count > 1 for count in components] == [True, not largest]
    assert json.loads(capsys.readouterr().out) == answer


def test_a_run_without_an_image_says_how_to_name_one(small_bundle):
    with pytest.raises(RuntimeError, match="Failed to instantiate") as caught:
        run_by_monai(small_bundle, "")

    assert isinstance(caught.value.__cause__, ConfigError)
    assert "--image scan.png" in str(caught.value.__cause__)


@pytest.mark.filterwarnings("ignore:parsing config_file:UserWarning")
def test_the_command_of_monai_runs_an_artifact(small_bundle, tmp_path, monkeypatch, capsys):
    image = write_image(tmp_path, "photo")
    command = ["monai.bundle", "run", "--config_file", "configs/inference.json"]
    monkeypatch.chdir(small_bundle)
    monkeypatch.setattr(sys, "argv", [*command, "--image", str(image)])

    with suppress(SystemExit):
        runpy.run_module("monai.bundle", run_name="__main__")

    assert json.loads(capsys.readouterr().out.splitlines()[-1]) == served(small_bundle, image)
