"""The SageMaker Python SDK v3 on this machine with the image, in the SDK's own Python: SDK3_PYTHON names it.

python3 -m venv .sdk3 && .sdk3/bin/pip install --require-hashes --no-deps -r tests/image/requirements-sdk3.txt
SDK3_PYTHON=.sdk3/bin/python make test-image
"""

from pathlib import Path

import pytest

from tests.image import sdk
from tests.image.conftest import CLASSES

PROGRAM = Path(__file__).with_name("sdk3_local_mode.py")


@pytest.fixture(scope="module")
def answers(image, channel, tmp_path_factory):
    """What the SDK's program recorded."""
    folder = tmp_path_factory.mktemp("sdk3")
    return sdk.local_mode_answers("SDK3_PYTHON", PROGRAM, image, channel, folder)


def test_a_job_trains_with_the_hyperparameters_that_the_sdk_wrote(answers):
    written = answers["training"]["hyperparameters"]
    expected = {"epochs": 1, "image_size": 32, "network": "resnet18", "num_workers": 1, "batch_size": 8}
    assert {name: written[name] for name in expected} == expected


def test_an_endpoint_serves_the_artifact_that_the_sdk_packed(answers):
    assert len(answers["predictions"]) == len(CLASSES)
    for answer in answers["predictions"].values():
        [prediction] = answer["predictions"]
        assert set(prediction["probabilities"]) == set(CLASSES)
        assert sum(prediction["probabilities"].values()) == pytest.approx(1)


def test_the_users_own_script_runs_with_its_hyperparameters(answers):
    assert answers["own"] == f"ab {len(CLASSES)}"
