"""What the tests of the SageMaker Python SDK share: a Python that has it, a run of a program, and no container left."""

import json
import os
import shutil
import subprocess
from contextlib import contextmanager

import pytest

from tests.image.conftest import draw
from tests.image.containers import docker

WORKING_DIR = "com.docker.compose.project.working_dir"


def has_compose():
    return shutil.which("docker-compose") or docker("compose", "version", check=False).returncode == 0


def sdk_python(variable):
    """The Python that the variable names."""
    python = os.environ.get(variable)
    if not python:
        pytest.skip(f"{variable} names no Python with the SageMaker SDK")
    return python


def local_mode_python(variable):
    """The same, where local mode can run."""
    python = sdk_python(variable)
    if not has_compose():
        pytest.skip("the SDK's local mode needs docker compose")
    return python


@contextmanager
def containers_removed(folder):
    """Afterwards remove what compose started from files below the folder: the SDK stops containers and leaves them."""
    try:
        yield
    finally:
        form = f'{{{{.ID}}}} {{{{.Label "{WORKING_DIR}"}}}}'
        listed = docker("ps", "--all", "--filter", f"label={WORKING_DIR}", "--format", form).stdout.splitlines()
        left = [line.split()[0] for line in listed if line.split()[1].startswith(str(folder))]
        if left:
            docker("rm", "--force", *left)
        docker("network", "rm", "sagemaker-local", check=False)  # in use if another SDK is at work


def pictures_to_ask_for(folder):
    """One picture of each class, in one folder."""
    pictures = folder / "pictures"
    pictures.mkdir()
    draw(folder / "drawn", per_class=1, seed=7)
    for path in (folder / "drawn").rglob("*.png"):
        shutil.copy(path, pictures)
    return pictures


def run_program(python, program, *arguments, out, **environment):
    """What the program wrote into answers.json."""
    environment = {"PATH": os.environ["PATH"], "HOME": str(out), **environment}
    command = [python, program, *map(str, arguments)]
    run = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=600)
    assert run.returncode == 0, (run.stdout + run.stderr)[-6000:]
    return json.loads((out / "answers.json").read_text())
