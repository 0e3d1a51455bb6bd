"""Shared by the tests of the SageMaker Python SDK: a Python that has it, runs of programs, removal of containers."""

import json
import os
import shutil
import subprocess
from contextlib import contextmanager

import pytest

from tests.image.conftest import draw
from tests.image.containers import docker
from tests.support import loopback
from tests.support.compose import compose_command

WORKING_DIR = "com.docker.compose.project.working_dir"


def sdk_python(variable):
    """The Python named by the variable."""
    python = os.environ.get(variable)
    if not python:
        pytest.skip(f"{variable} names no Python with the SageMaker SDK")
    return python


@contextmanager
def containers_removed(folder):
    """Finally remove the containers of compose files below the folder, which the SDK only stops."""
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


def local_mode_answers(variable, program, image, channel, folder, **environment):
    """The answers of a program that uses local mode, with the Python named by the variable."""
    python = sdk_python(variable)
    if not compose_command():
        pytest.skip("the SDK's local mode needs docker compose")
    out = folder / "out"
    out.mkdir()
    arguments = image, channel, pictures_to_ask_for(folder), out, loopback.free_port()
    with containers_removed(out):
        return run_program(python, program, *arguments, out=out, **environment)


def run_program(python, program, *arguments, out, **environment):
    """Run a program; returns what it wrote to answers.json."""
    environment = {"PATH": os.environ["PATH"], "HOME": str(out), **environment}
    command = [python, program, *map(str, arguments)]
    run = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=600)
    assert run.returncode == 0, (run.stdout + run.stderr)[-6000:]
    return json.loads((out / "answers.json").read_text())
