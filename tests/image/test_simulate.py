"""The life cycle of `tests.simulate.test_simulate_life` in containers of the image, and a job of two hosts."""

import pytest

from simulate.containers import DockerRunner
from simulate.limits import Limits
from tests.image.containers import docker
from tests.support import simulated_life as life
from tests.support.simulated import simulation


@pytest.fixture(scope="module")
def aws(image, channel, tmp_path_factory):
    runner = DockerRunner(image)
    with simulation(
        tmp_path_factory.mktemp("simulation"), limits=Limits(spot_wait_s=0.1, sync_s=0.2), runner=runner
    ) as aws:
        life.upload(aws, channel)
        yield aws
    assert docker("ps", "--all", "--quiet", "--filter", "name=simulated-").stdout == ""
    assert "simulated-" not in docker("network", "ls").stdout


@pytest.fixture(scope="module")
def job(aws):
    """A finished spot job that was interrupted once."""
    return life.train_with_interruption(aws, "spot")


@pytest.fixture(scope="module")
def expected(aws, job):
    return life.evaluation(aws, job)


@pytest.fixture(scope="module")
def model(aws, job):
    """The name of a model with the job's artifact."""
    life.model(aws, "one", job["ModelArtifacts"]["S3ModelArtifacts"])
    return "one"


def test_an_interrupted_job_goes_on_where_it_stopped(aws, job):
    life.check_that_it_went_on(aws, job)


def test_an_endpoint_answers_as_the_evaluation_did(aws, model, expected):
    life.deploy(aws, "endpoint", model)
    life.check_endpoint(aws, "endpoint", expected)
    life.delete(aws, "endpoint")


def test_a_serverless_endpoint_fits_into_its_memory(aws, model, expected):
    variant = {"VariantName": "AllTraffic", "ModelName": model,
               "ServerlessConfig": {"MemorySizeInMB": 2048, "MaxConcurrency": 2}}  # fmt: skip
    aws.sagemaker.create_endpoint_config(EndpointConfigName="serverless", ProductionVariants=[variant])
    aws.sagemaker.create_endpoint(EndpointName="serverless", EndpointConfigName="serverless")
    found = aws.wait("endpoint", "EndpointStatus", seconds=300, EndpointName="serverless")

    assert found["EndpointStatus"] == "InService"
    life.check_endpoint(aws, "serverless", expected)
    life.delete(aws, "serverless")


def test_a_queue_answers_as_the_evaluation_did(aws, model, expected):
    life.deploy(
        aws, "queue", model, AsyncInferenceConfig={"OutputConfig": {"S3OutputPath": f"s3://{life.BUCKET}/async"}}
    )
    life.check_queue(aws, "queue", expected)
    life.delete(aws, "queue")


def test_a_batch_answers_as_the_evaluation_did(aws, model, expected):
    life.check_batch(aws, "batch", model, expected)


@pytest.mark.parametrize("back_end", ["mms", "workers"])
def test_one_of_many_models_answers_as_the_evaluation_did(aws, job, expected, back_end):
    aws.put(life.BUCKET, "models/one.tar.gz", aws.get(job["ModelArtifacts"]["S3ModelArtifacts"]))
    place = f"s3://{life.BUCKET}/models/"
    life.model(aws, f"many-{back_end}", place, Mode="MultiModel", Environment={"MODEL_SERVER": back_end})
    life.deploy(aws, f"many-{back_end}", f"many-{back_end}")
    life.check_endpoint(aws, f"many-{back_end}", expected, TargetModel="one.tar.gz")
    life.delete(aws, f"many-{back_end}")


def test_two_hosts_train_one_model(aws):
    hyperparameters = {**life.HYPERPARAMETERS, "epochs": "1"}
    aws.sagemaker.create_training_job(**life.training_job("two", hosts=2, HyperParameters=hyperparameters))
    job = life.wait_for_job(aws, "two")

    assert job["TrainingJobStatus"] == "Completed", job["FailureReason"]
    assert sorted(name.split("/")[1][:6] for name in aws.log(life.GROUP, "two/")) == ["algo-1", "algo-2"]
    assert "models/model.pt" in aws.files(job["ModelArtifacts"]["S3ModelArtifacts"])


def test_prepare_runs_as_a_processing_job(aws):
    app = {"ImageUri": "registry/thing@sha256:0",
           "ContainerEntrypoint": ["python", "-m", "sagemaker_monai.entrypoints.prepare"],
           "ContainerArguments": ["ham10000", "/opt/ml/processing/in", "/opt/ml/processing/out"]}  # fmt: skip
    place = {"S3Uri": f"s3://{life.BUCKET}/data/", "S3DataType": "S3Prefix", "S3InputMode": "File",
             "LocalPath": "/opt/ml/processing/in"}  # fmt: skip
    aws.sagemaker.create_processing_job(
        ProcessingJobName="prepare",
        RoleArn=life.ROLE,
        AppSpecification=app,
        ProcessingResources={"ClusterConfig": {"InstanceType": "ml.m5.large", "InstanceCount": 1, "VolumeSizeInGB": 1}},
        ProcessingInputs=[{"InputName": "in", "S3Input": place}],
        NetworkConfig={"EnableNetworkIsolation": True},
    )
    job = aws.wait("processing_job", "ProcessingJobStatus", seconds=300, ProcessingJobName="prepare")

    # These pictures are not a HAM10000 download, and the command says so.
    assert job["FailureReason"] == "AlgorithmError: See job logs for more information, exit code: 1"
    [lines] = aws.log("/aws/sagemaker/ProcessingJobs", "prepare/").values()
    assert "HAM10000" in " ".join(lines)
