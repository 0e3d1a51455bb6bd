"""docker/compose.yml with the image: its server answers, its two hosts train one model."""

import json
import os
import subprocess
import time
import urllib.request
import uuid

import pytest

from tests.image.bodies import PNG
from tests.image.containers import IMAGE, QUICK
from tests.support.compose import compose_command
from tests.support.places import ROOT


@pytest.fixture
def compose():
    """Calls Compose in a separate project, which is taken down after the test."""
    command = compose_command()
    if not command:
        pytest.skip("needs Docker Compose")
    command += ["-p", f"monai{uuid.uuid4().hex[:8]}", "-f", str(ROOT / "docker" / "compose.yml")]
    environment = {**os.environ, "IMAGE": IMAGE, "HYPERPARAMETERS": json.dumps(QUICK)}

    def call(*words, **variables):
        environment.update(variables)
        result = subprocess.run([*command, *words], env=environment, capture_output=True, text=True, timeout=300)
        return result.returncode, result.stdout + result.stderr

    yield call
    call("--profile", "train", "--profile", "serve", "down", "--volumes")


def test_the_server_answers_on_this_machine(compose, model):
    code, log = compose("--profile", "serve", "up", "-d", MODEL=str(model), PORT="0")
    assert code == 0, log
    address = compose("--profile", "serve", "port", "serve", "8080")[1].strip()
    request = urllib.request.Request(f"http://{address}/invocations", PNG, {"Content-Type": "image/png"})
    deadline = time.monotonic() + 180
    while True:
        try:
            with urllib.request.urlopen(request, timeout=30) as response:
                answer = json.load(response)
            break
        except OSError:
            assert time.monotonic() < deadline, compose("--profile", "serve", "logs")[1]
            time.sleep(0.2)

    assert address.startswith("127.0.0.1:")
    assert len(answer["predictions"]) == 1


def test_two_hosts_train_one_model(compose, channel, tmp_path):
    code, log = compose("--profile", "train", "up", DATA=str(channel), OUTPUT=str(tmp_path))

    assert code == 0, log
    assert (tmp_path / "algo-1" / "model" / "models" / "model.pt").is_file(), log
    assert not (tmp_path / "algo-2" / "model" / "models").exists()
    assert not list(tmp_path.glob("*/output/failure"))
