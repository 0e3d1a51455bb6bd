"""The whole life around the real `train` and `serve` of .venv: a spot job that is interrupted, and every way to ask."""

import json

import pytest
from botocore.exceptions import ClientError

from simulate.limits import Limits
from simulate.processes import ProcessRunner
from tests.image.conftest import draw
from tests.support import simulated_life as life
from tests.support.simulated import simulation

pytestmark = pytest.mark.long


@pytest.fixture(scope="module")
def aws(tmp_path_factory):
    pictures = tmp_path_factory.mktemp("pictures")
    for seed, (split, per_class) in enumerate({"train": 16, "val": 4, "test": 2}.items()):
        draw(pictures / split, per_class=per_class, seed=seed)
    with simulation(
        tmp_path_factory.mktemp("simulation"), limits=Limits(spot_wait_s=0.1, sync_s=0.2), runner=ProcessRunner()
    ) as aws:
        life.upload(aws, pictures)
        yield aws


@pytest.fixture(scope="module")
def job(aws):
    """A spot job that was interrupted once and is complete."""
    return life.train_with_interruption(aws, "spot")


@pytest.fixture(scope="module")
def expected(aws, job):
    return life.evaluation(aws, job)


@pytest.fixture(scope="module")
def model(aws, job):
    """The name of a model of the job's artifact."""
    life.model(aws, "one", job["ModelArtifacts"]["S3ModelArtifacts"])
    return "one"


def test_an_interrupted_job_goes_on_where_it_stopped(aws, job, expected):
    life.check_that_it_went_on(aws, job)
    assert len(expected) == 6


def test_an_endpoint_answers_as_the_evaluation_did(aws, model, expected):
    life.deploy(aws, "endpoint", model)
    life.check_endpoint(aws, "endpoint", expected)
    with pytest.raises(ClientError) as error:
        aws.invoke("endpoint", b"no picture", ContentType="image/png")
    assert error.value.response["OriginalStatusCode"] == 400
    assert json.loads(error.value.response["OriginalMessage"])["error"]["code"] == "UndecodableImage"
    life.delete(aws, "endpoint")


def test_a_queue_answers_as_the_evaluation_did(aws, model, expected):
    output = {"S3OutputPath": f"s3://{life.BUCKET}/async", "S3FailurePath": f"s3://{life.BUCKET}/failure"}
    life.deploy(aws, "queue", model, AsyncInferenceConfig={"OutputConfig": output})
    life.check_queue(aws, "queue", expected)
    life.delete(aws, "queue")


def test_a_batch_answers_as_the_evaluation_did(aws, model, expected):
    life.check_batch(aws, "batch", model, expected)


def test_one_of_many_models_answers_as_the_evaluation_did(aws, job, expected):
    aws.put(life.BUCKET, "models/one.tar.gz", aws.get(job["ModelArtifacts"]["S3ModelArtifacts"]))
    life.model(aws, "many", f"s3://{life.BUCKET}/models/", Mode="MultiModel", Environment={"MODEL_SERVER": "workers"})
    life.deploy(aws, "many", "many")
    life.check_endpoint(aws, "many", expected, TargetModel="one.tar.gz")


def test_wrong_hyperparameters_fail_with_the_containers_own_words(aws):
    wrong = {**life.HYPERPARAMETERS, "epochs": "none"}
    aws.sagemaker.create_training_job(**life.training_job("wrong", HyperParameters=wrong))

    failed = life.wait_for_job(aws, "wrong")

    assert failed["FailureReason"].startswith("AlgorithmError: ConfigError: epochs")
    assert failed["FailureReason"].endswith(", exit code: 1")
