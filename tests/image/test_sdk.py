"""The SageMaker Python SDK v2 in local mode with the image, in the SDK's own Python: SDK_PYTHON names it.

python3 -m venv .sdk && .sdk/bin/pip install --require-hashes --no-deps -r tests/image/requirements-sdk.txt
SDK_PYTHON=.sdk/bin/python make test-image
"""

from pathlib import Path

import pytest

from tests.image import sdk
from tests.image.conftest import CLASSES

PROGRAM = Path(__file__).with_name("sdk_local_mode.py")


@pytest.fixture(scope="module")
def answers(image, channel, tmp_path_factory):
    """What the SDK's program recorded."""
    folder = tmp_path_factory.mktemp("sdk")
    return sdk.local_mode_answers("SDK_PYTHON", PROGRAM, image, channel, folder, SAGEMAKER_SUPPRESS_V2_WARNING="1")


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


def test_the_users_own_script_runs_with_its_hyperparameters(answers):
    assert answers["own"] == f"ab {len(CLASSES)}"
