"""`make process`: prepare and evaluate as processing jobs of the image."""

import json
import sys

import pytest

from sagemaker_monai_aws.__main__ import main
from simulate.processes import ProcessRunner
from tests.support.cloud import BUCKET, PROJECT, not_refused, run_command, survives_deaths
from tests.support.simulated import simulation

ROLE_END = f"role/{PROJECT}-eu-central-1-"


@pytest.fixture
def ready(cloud):
    """An account with data, an image and a training job that has completed."""
    fill(cloud)
    return cloud


def fill(cloud):
    cloud.fill()
    cloud.job = train(cloud)


def train(cloud, *arguments, artifact=b"artifact"):
    """A training job with an artifact; its name."""
    known = {summary["TrainingJobName"] for summary in jobs(cloud)}
    assert main(["train", "--no-wait", *arguments]) == 0
    [job] = [summary["TrainingJobName"] for summary in jobs(cloud) if summary["TrainingJobName"] not in known]
    found = cloud.client("sagemaker").describe_training_job(TrainingJobName=job)
    cloud.put(found["ModelArtifacts"]["S3ModelArtifacts"].removeprefix(f"s3://{BUCKET}/"), artifact)
    return job


def jobs(cloud):
    return cloud.client("sagemaker").list_training_jobs()["TrainingJobSummaries"]


def processed(cloud):
    sagemaker = cloud.client("sagemaker")
    names = [each["ProcessingJobName"] for each in sagemaker.list_processing_jobs()["ProcessingJobSummaries"]]
    return [sagemaker.describe_processing_job(ProcessingJobName=name) for name in names]


def run(*arguments):
    return main(["process", *arguments, "--poll-s", "0"])


def requested(capsys, *arguments):
    capsys.readouterr()
    assert run(*arguments, "--dry-run") == 0
    [call] = json.loads(capsys.readouterr().out)
    assert (call["service"], call["operation"]) == ("sagemaker", "CreateProcessingJob")
    return call["request"]


def test_evaluate_takes_the_newest_artifact_and_writes_below_its_own_name(ready, capsys):
    request = requested(capsys, "evaluate")

    inputs = {item["InputName"]: item["S3Input"] for item in request["ProcessingInputs"]}
    assert inputs["model"]["S3Uri"].endswith(f"{ready.job}/output/model.tar.gz")
    assert inputs["model"]["LocalPath"] == "/opt/ml/processing/input/model"
    assert inputs["data"]["S3Uri"] == f"s3://{BUCKET}/monai/data/training/"
    assert inputs["data"]["LocalPath"] == "/opt/ml/processing/input/data"
    [output] = request["ProcessingOutputConfig"]["Outputs"]
    assert output["S3Output"] == {
        "S3Uri": f"s3://{BUCKET}/monai/processing/{request['ProcessingJobName']}",
        "LocalPath": "/opt/ml/processing/output",
        "S3UploadMode": "EndOfJob",
    }
    assert request["AppSpecification"] == {
        "ImageUri": ready.image,
        "ContainerEntrypoint": ["/usr/local/bin/entrypoint", "evaluate"],
    }
    assert request["NetworkConfig"] == {"EnableNetworkIsolation": True}
    assert request["RoleArn"].endswith(f"{ROLE_END}training")
    assert {"Key": "project", "Value": PROJECT} in request["Tags"]


def test_prepare_reads_the_download_and_writes_the_data_set(ready, capsys):
    request = requested(capsys, "prepare", "--data", f"s3://{BUCKET}/monai/data/raw", "--name", "skin",
                        "--arguments=--max-side 600 --title 'Skin lesions'")  # fmt: skip

    [source] = request["ProcessingInputs"]
    assert source["S3Input"]["S3Uri"] == f"s3://{BUCKET}/monai/data/raw/"
    assert request["ProcessingOutputConfig"]["Outputs"][0]["S3Output"]["S3Uri"] == f"s3://{BUCKET}/monai/data/skin"
    assert request["AppSpecification"]["ContainerEntrypoint"] == ["/usr/local/bin/entrypoint", "prepare"]
    assert request["AppSpecification"]["ContainerArguments"] == [
        "ham10000", "/opt/ml/processing/input/source", "/opt/ml/processing/output",
        "--max-side", "600", "--title", "Skin lesions",
    ]  # fmt: skip


def test_every_option_is_in_the_request(ready, capsys):
    request = requested(
        capsys, "evaluate", "--kms-key", "alias/mine", "--role", "mine", "--subnets", "subnet-1", "--security-groups",
        "sg-1", "--no-network-isolation", "--environment", "A=b", "--tags", "team=skin",
        "--processing-instance-type", "ml.m5.large", "--processing-volume-gb", "80",
        "--processing-max-runtime-s", "60",
    )  # fmt: skip

    assert request["ProcessingResources"]["ClusterConfig"] == {
        "InstanceCount": 1, "InstanceType": "ml.m5.large", "VolumeSizeInGB": 80, "VolumeKmsKeyId": "alias/mine",
    }  # fmt: skip
    assert request["ProcessingOutputConfig"]["KmsKeyId"] == "alias/mine"
    assert request["NetworkConfig"] == {
        "EnableNetworkIsolation": False,
        "VpcConfig": {"Subnets": ["subnet-1"], "SecurityGroupIds": ["sg-1"]},
    }
    assert request["StoppingCondition"] == {"MaxRuntimeInSeconds": 60}
    assert request["Environment"] == {"A": "b"}
    assert {"Key": "team", "Value": "skin"} in request["Tags"]


REFUSED = [
    (["prepare"], "prepare needs the address of a download"),
    (["prepare", "--data", f"s3://{BUCKET}/none"], "there is nothing below"),
    (["prepare", "--data", f"s3://{BUCKET}/monai/data/raw", "--name", "../x"], "--name takes"),
    (["evaluate", "--model", "no-such-job"], "there is no training job 'no-such-job'"),
    (["evaluate", "--model", f"s3://{BUCKET}/none/model.tar.gz"], "there is no s3://"),
    (["evaluate", "--processing-instance-type", "m5.large"], "ClusterConfig.InstanceType: 'm5.large'"),
]


def test_what_is_wrong_is_said_before_it_costs_anything(ready):
    assert not_refused("process", REFUSED) == []


def test_without_a_job_of_the_project_it_says_how_to_get_one(cloud, capsys):
    cloud.make_bucket()

    assert run("evaluate") == 2
    assert "no training job of project 'sagemaker-monai' has completed" in capsys.readouterr().err


def test_jobs_of_others_are_not_taken_for_ours(ready, capsys):
    request = dict(json.loads(dry_training(capsys))[0]["request"])
    ready.client("sagemaker").create_training_job(**request | {"TrainingJobName": f"{PROJECT}-by-hand", "Tags": []})

    inputs = requested(capsys, "evaluate")["ProcessingInputs"]
    assert ready.job in inputs[0]["S3Input"]["S3Uri"]


def dry_training(capsys):
    capsys.readouterr()
    assert main(["train", "--dry-run"]) == 0
    return capsys.readouterr().out


def test_the_metrics_of_an_evaluation_are_fetched(ready, capsys, tmp_path):
    name = requested(capsys, "evaluate")["ProcessingJobName"]
    metrics = {"model_version": "1", "split": "test", "balanced_accuracy": 0.5, "per_class": {}}
    ready.put(f"monai/processing/{name}/metrics.json", json.dumps(metrics).encode())

    assert run("evaluate", "--output", str(tmp_path)) == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer["metrics"] == {"model_version": "1", "split": "test", "balanced_accuracy": 0.5}
    assert json.loads((tmp_path / name / "metrics.json").read_text()) == metrics


def test_another_artifact_at_the_same_address_is_another_job(ready, capsys):
    before = requested(capsys, "evaluate")["ProcessingJobName"]
    found = ready.client("sagemaker").describe_training_job(TrainingJobName=ready.job)
    ready.put(found["ModelArtifacts"]["S3ModelArtifacts"].removeprefix(f"s3://{BUCKET}/"), b"another")

    assert requested(capsys, "evaluate")["ProcessingJobName"] != before


@pytest.mark.long
def test_a_start_that_is_killed_anywhere_and_repeated_leaves_one_job(ready):
    source = f"s3://{BUCKET}/monai/data/raw"

    def prepare():
        ready.make_bucket()
        ready.put("monai/data/raw/images.zip", b"zip")
        ready.push_image()

    def state():
        [job] = processed(ready)
        return {key: job[key] for key in ("ProcessingJobName", "ProcessingInputs", "ProcessingOutputConfig")}

    assert survives_deaths(ready, "process", ["prepare", "--data", source, "--no-wait"], prepare, state) >= 8


CONTAINER = """
import os, pathlib, sys
base = pathlib.Path(os.environ["SAGEMAKER_BASE_DIR"])
[source] = (base / "processing" / "input" / "source").iterdir()
(base / "processing" / "output" / "dataset.json").write_text(source.read_text())
print("arguments", *sys.argv[1:])
"""


def test_the_offline_sagemaker_prepares_a_data_set(tmp_path):
    container = tmp_path / "container.py"
    container.write_text(CONTAINER)
    runner = ProcessRunner({"prepare": [sys.executable, str(container)]})
    with simulation(tmp_path / "world", runner=runner) as aws:
        aws.bucket("data-and-jobs")
        aws.put("data-and-jobs", "raw/download.json", b'{"labels": {}}')
        made = run_command(
            "process",
            ["prepare", "--data", "s3://data-and-jobs/raw", "--bucket", "data-and-jobs", "--name", "skin",
             "--image", f"fake@sha256:{'0' * 64}", "--poll-s", "0.1", "--arguments=--seed 1"],
            aws.url,
        )  # fmt: skip
        assert made.returncode == 0, made.stderr
        assert aws.get("s3://data-and-jobs/monai/data/skin/dataset.json") == b'{"labels": {}}'
    assert "--seed 1" in made.stdout + made.stderr  # the job's log
