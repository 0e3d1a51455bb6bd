"""The SageMaker Python SDK v2 in local mode with the image, in a Python of the SDK's own: SDK_PYTHON names it.

python3 -m venv .sdk && .sdk/bin/pip install --require-hashes --no-deps -r tests/image/requirements-sdk.txt
SDK_PYTHON=.sdk/bin/python make test-image
"""

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests import loopback
from tests.image.conftest import CLASSES, draw
from tests.image.containers import docker

PROGRAM = Path(__file__).with_name("sdk_local_mode.py")
WORKING_DIR = "com.docker.compose.project.working_dir"


def has_compose():
    return shutil.which("docker-compose") or docker("compose", "version", check=False).returncode == 0


def remove_what_compose_left(folder):
    """The SDK stops containers and leaves them."""
    form = f'{{{{.ID}}}} {{{{.Label "{WORKING_DIR}"}}}}'
    listed = docker("ps", "--all", "--filter", f"label={WORKING_DIR}", "--format", form).stdout.splitlines()
    left = [line.split()[0] for line in listed if line.split()[1].startswith(str(folder))]
    if left:
        docker("rm", "--force", *left)
    docker("network", "rm", "sagemaker-local", check=False)  # in use if another SDK is at work


@pytest.fixture(scope="module")
def answers(image, channel, tmp_path_factory):
    """What the SDK's program noted."""
    python = os.environ.get("SDK_PYTHON")
    if not python:
        pytest.skip("SDK_PYTHON names no Python with the SageMaker SDK")
    if not has_compose():
        pytest.skip("the SDK's local mode needs docker compose")
    folder = tmp_path_factory.mktemp("sdk")
    out, pictures = folder / "out", folder / "pictures"
    out.mkdir()
    pictures.mkdir()
    draw(folder / "drawn", per_class=1, seed=7)
    for path in (folder / "drawn").rglob("*.png"):
        shutil.copy(path, pictures)
    port = loopback.free_port()
    environment = {"PATH": os.environ["PATH"], "HOME": str(folder), "SAGEMAKER_SUPPRESS_V2_WARNING": "1"}
    command = [python, PROGRAM, image, channel, pictures, out, str(port)]
    try:
        run = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=600)
    finally:
        remove_what_compose_left(out)
    assert run.returncode == 0, (run.stdout + run.stderr)[-6000:]
    return json.loads((out / "answers.json").read_text())


def classes(answer):
    [prediction] = answer["predictions"]
    assert set(prediction["probabilities"]) == set(CLASSES)
    return prediction


def test_a_job_leaves_its_model_where_the_sdk_looks_for_it(answers):
    assert answers["model_data"].endswith("/model.tar.gz")


def test_an_endpoint_answers_for_every_picture(answers):
    assert len(answers["predictions"]) == len(CLASSES)
    for answer in answers["predictions"].values():
        assert sum(classes(answer)["probabilities"].values()) == pytest.approx(1)


def test_a_batch_transform_writes_what_the_endpoint_answers(answers):
    assert set(answers["transformed"]) == {f"{name}.out" for name in answers["predictions"]}
    for name, answer in answers["predictions"].items():
        transformed = classes(answers["transformed"][f"{name}.out"])
        assert transformed["predicted_class"] == classes(answer)["predicted_class"]
        assert transformed["probabilities"] == pytest.approx(classes(answer)["probabilities"], abs=1e-6)


def test_a_script_of_ones_own_runs_with_its_hyperparameters(answers):
    assert answers["own"] == f"ab {len(CLASSES)}"
