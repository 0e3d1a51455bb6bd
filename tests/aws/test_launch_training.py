"""`make train`: the request, what is checked before it costs anything, and what a second or a killed start does."""

import io
import json
import tarfile

import pytest

from sagemaker_monai_aws.__main__ import main
from sagemaker_monai_aws.core import create, follow
from sagemaker_monai_aws.jobs import launch_training
from tests.support.cloud import ACCOUNT, BUCKET, PROJECT, REGION, not_refused, survives_kills

DATASET = {"labels": {"0": "akiec", "1": "bcc"}, "training": [], "validation": [], "test": []}


@pytest.fixture
def ready(cloud):
    """An account with data and an image."""
    fill(cloud)
    return cloud


def fill(cloud):
    cloud.make_bucket()
    cloud.put("monai/data/training/dataset.json", json.dumps(DATASET).encode())
    cloud.put("monai/data/training/images/a.jpg", b"picture")
    cloud.image = cloud.push_image()


def train(*arguments):
    return main(["train", "--poll-s", "0", *arguments])


def only_job(cloud):
    [summary] = cloud.client("sagemaker").list_training_jobs()["TrainingJobSummaries"]
    return cloud.client("sagemaker").describe_training_job(TrainingJobName=summary["TrainingJobName"])


def requested(capsys, *arguments):
    assert train("--dry-run", *arguments) == 0
    [call] = json.loads(capsys.readouterr().out)
    assert (call["service"], call["operation"]) == ("sagemaker", "CreateTrainingJob")
    return call["request"]


def test_the_defaults_are_spot_with_checkpoints_without_a_network(ready, capsys):
    request = requested(capsys, "--hyperparameters", "epochs=3", "image_size=64")

    assert request["HyperParameters"] == {"epochs": "3", "image_size": "64"}
    assert request["AlgorithmSpecification"]["TrainingImage"] == ready.image
    assert request["RoleArn"] == f"arn:aws:iam::{ACCOUNT}:role/{PROJECT}-{REGION}-training"
    [channel] = request["InputDataConfig"]
    assert channel["ChannelName"] == "training"
    assert channel["DataSource"]["S3DataSource"]["S3Uri"] == f"s3://{BUCKET}/monai/data/training/"
    assert request["EnableManagedSpotTraining"] is True
    assert request["EnableNetworkIsolation"] is True
    assert request["EnableInterContainerTrafficEncryption"] is False
    assert request["StoppingCondition"] == {"MaxRuntimeInSeconds": 86400, "MaxWaitTimeInSeconds": 172800}
    assert request["CheckpointConfig"]["S3Uri"].startswith(f"s3://{BUCKET}/monai/checkpoints/{PROJECT}-train-")
    assert {"Key": "project", "Value": PROJECT} in request["Tags"]
    names = [definition["Name"] for definition in request["AlgorithmSpecification"]["MetricDefinitions"]]
    assert "validation_sensitivity_akiec" in names  # of the data set's own classes


def test_every_option_is_in_the_request(ready, capsys):
    cloud_uri = f"s3://{BUCKET}/monai/data/training"
    request = requested(
        capsys,
        *(
            "--data",
            cloud_uri,
            f"pretrained={cloud_uri}",
            "--input-mode",
            "FastFile",
            "--instance-type",
            "ml.p3.2xlarge",
        ),
        *("--instance-count", "2", "--no-spot", "--warm-pool-s", "600", "--kms-key", "alias/mine", "--role", "mine"),
        *("--subnets", "subnet-1,subnet-2", "--security-groups", "sg-1", "--no-network-isolation", "--retries", "0"),
        *("--environment", "A=b", "--tags", "team=skin", "--output-compression", "NONE", "--volume-gb", "80"),
    )

    assert [channel["ChannelName"] for channel in request["InputDataConfig"]] == ["training", "pretrained"]
    assert {channel["InputMode"] for channel in request["InputDataConfig"]} == {"FastFile"}
    assert request["ResourceConfig"] == {
        "InstanceType": "ml.p3.2xlarge",
        "InstanceCount": 2,
        "VolumeSizeInGB": 80,
        "VolumeKmsKeyId": "alias/mine",
        "KeepAlivePeriodInSeconds": 600,
    }
    assert request["OutputDataConfig"]["KmsKeyId"] == "alias/mine"
    assert request["OutputDataConfig"]["CompressionType"] == "NONE"
    assert request["EnableInterContainerTrafficEncryption"] is True  # several hosts
    assert request["VpcConfig"] == {"Subnets": ["subnet-1", "subnet-2"], "SecurityGroupIds": ["sg-1"]}
    assert request["RoleArn"].endswith(":role/mine")
    assert request["Environment"] == {"A": "b"}
    assert "RetryStrategy" not in request
    assert "MaxWaitTimeInSeconds" not in request["StoppingCondition"]
    assert {"Key": "team", "Value": "skin"} in request["Tags"]


@pytest.mark.parametrize(("instance_type", "has_key"), [("ml.g4dn.xlarge", False), ("ml.m5.xlarge", True)])
def test_disks_in_the_host_take_no_key(ready, capsys, instance_type, has_key):
    request = requested(capsys, "--kms-key", "alias/mine", "--instance-type", instance_type)

    assert ("VolumeKmsKeyId" in request["ResourceConfig"]) is has_key
    assert request["OutputDataConfig"]["KmsKeyId"] == "alias/mine"


REFUSED = [
    (["--hyperparameters", "epoch=3"], "unknown hyperparameter 'epoch', did you mean epochs?"),
    (["--hyperparameters", "epochs=0"], "epochs must be a whole number from 1"),
    (["--hyperparameters", "hours=2", "--max-runtime-s", "7000"], "more than --max-runtime-s allows, 1.94 hours"),
    (["--hyperparameters", "epochs"], "takes NAME=VALUE, got 'epochs'"),
    (["--hyperparameters", "epochs=1", "epochs=2"], "given twice"),
    (["--data", "folder"], "s3://bucket/key is needed, got 'folder'"),
    (["--data", f"s3://{BUCKET}/monai/data/nothing"], "there is nothing below"),
    (["--data", "s3://no-such-bucket-here/x"], "`make infra` creates the bucket"),
    (["--image", "gone"], "there is no image sagemaker-monai:gone"),
    (["--repository", "other"], "there is no repository 'other'"),
    (["--warm-pool-s", "60"], "add --no-spot"),
    (["--no-checkpoints"], "without checkpoints loses everything"),
    (["--instance-type", "m5.large"], "ResourceConfig.InstanceType: 'm5.large'"),
    (["--retries", "31"], "RetryStrategy.MaximumRetryAttempts: 31 is more than 30"),
]


def test_what_is_wrong_is_said_before_it_costs_anything(ready):
    assert not_refused("train", REFUSED) == []


def test_a_name_that_no_bucket_could_have_is_refused(ready, capsys):
    assert train("--project", "a_b") == 2

    assert "takes 3 to 32 lower-case letters, digits and single dashes" in capsys.readouterr().err


def test_the_job_is_followed_to_its_end_and_its_metrics_are_fetched(ready, capsys, tmp_path):
    put_report(ready, {"split": "test", "accuracy": 0.5, "balanced_accuracy": 0.25, "auc": 0.75, "best_epoch": 1})

    assert train("--output", str(tmp_path), "--hyperparameters", "epochs=1") == 0

    printed = capsys.readouterr()
    answer = json.loads(printed.out)
    job = only_job(ready)
    assert answer["TrainingJobName"] == job["TrainingJobName"]
    assert answer["S3ModelArtifacts"] == job["ModelArtifacts"]["S3ModelArtifacts"]
    assert answer["metrics"] == {"split": "test", "accuracy": 0.5, "balanced_accuracy": 0.25, "auc": 0.75}
    assert json.loads((tmp_path / job["TrainingJobName"] / "metrics.json").read_text())["best_epoch"] == 1
    assert f"{job['TrainingJobName']}: Completed" in printed.err


def put_report(cloud, metrics):
    """What the job that is started next leaves: moto runs nothing."""
    text, stream = json.dumps(metrics).encode(), io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w:gz") as tar:
        member = tarfile.TarInfo("metrics.json")
        member.size = len(text)
        tar.addfile(member, io.BytesIO(text))
    out = io.StringIO()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.stdout", out)
        assert train("--dry-run", "--hyperparameters", "epochs=1") == 0
    name = json.loads(out.getvalue())[0]["request"]["TrainingJobName"]
    cloud.put(f"monai/jobs/{name}/output/output.tar.gz", stream.getvalue())


@pytest.mark.parametrize("change", ["hyperparameters", "data", "image"])
def test_another_request_is_another_job(ready, change):
    ready.push_image(tag="2")
    train("--no-wait", "--image", "1", "--hyperparameters", "epochs=1")
    if change == "data":
        ready.put("monai/data/training/images/a.jpg", b"another picture")
    epochs, image = 2 if change == "hyperparameters" else 1, "2" if change == "image" else "1"
    train("--no-wait", "--image", image, "--hyperparameters", f"epochs={epochs}")

    assert len(ready.client("sagemaker").list_training_jobs()["TrainingJobSummaries"]) == 2


def test_a_completed_job_runs_again_only_when_asked_and_has_the_same_checkpoints(ready):
    train("--no-wait")
    train("--no-wait", "--again")

    sagemaker = ready.client("sagemaker")
    jobs = [sagemaker.describe_training_job(TrainingJobName=summary["TrainingJobName"])
            for summary in sagemaker.list_training_jobs()["TrainingJobSummaries"]]  # fmt: skip
    first, second = sorted(job["TrainingJobName"] for job in jobs)
    assert second == f"{first}-2"
    assert len({job["CheckpointConfig"]["S3Uri"] for job in jobs}) == 1


@pytest.mark.long
def test_a_start_that_is_killed_anywhere_and_repeated_leaves_one_job(cloud):
    def state():
        job = only_job(cloud)
        return {key: job[key] for key in ("TrainingJobName", "HyperParameters", "CheckpointConfig", "InputDataConfig")}

    arguments = ["--no-wait", "--hyperparameters", "epochs=1"]
    assert survives_kills(cloud, "train", arguments, lambda: fill(cloud), state) >= 6


def describing(monkeypatch, **changes):
    """What moto, whose jobs complete at once, says of a job, except for some of it."""
    real = follow.describe

    def describe(account, kind, name):
        found = real(account, kind, name)
        return None if found is None else found | changes

    monkeypatch.setattr(follow, "describe", describe)


def test_ctrl_c_leaves_the_job_and_says_how_to_find_and_stop_it(ready, monkeypatch, capsys):
    def interrupt(_):
        raise KeyboardInterrupt

    describing(monkeypatch, TrainingJobStatus="InProgress")
    monkeypatch.setattr(follow.time, "sleep", interrupt)

    assert train() == 130

    name = only_job(ready)["TrainingJobName"]
    last = capsys.readouterr().err.splitlines()[-1]
    assert last.startswith(f"train: stopped; {name} continues")
    assert f"`make logs JOB={name}`" in last
    assert f"`make delete JOB={name}`" in last


def test_ctrl_c_before_anything_was_started_says_so(ready, monkeypatch, capsys):
    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(launch_training, "contents", interrupt)

    assert train() == 130
    assert capsys.readouterr().err.splitlines()[-1] == "train: stopped; nothing was created"


def test_a_failed_job_is_a_failure_with_its_reason(ready, monkeypatch, capsys):
    describing(monkeypatch, TrainingJobStatus="Failed", FailureReason="AlgorithmError: DatasetError: no images")

    assert train() == 1

    assert (
        "failed: AlgorithmError: DatasetError: no images; the same command starts it again, from its last"
        in (capsys.readouterr().err.splitlines()[-1])
    )


def test_a_job_that_failed_is_followed_by_another_attempt_with_the_same_checkpoints(ready, monkeypatch, capsys):
    train("--no-wait")
    first = only_job(ready)
    real = follow.describe
    failed = {first["TrainingJobName"]: {"TrainingJobStatus": "Failed"}}
    monkeypatch.setattr(create, "describe", lambda account, kind, name: (found := real(account, kind, name)) and {
        **found, **failed.get(name, {})})  # fmt: skip

    train("--no-wait")

    second = ready.client("sagemaker").describe_training_job(TrainingJobName=f"{first['TrainingJobName']}-2")
    assert second["CheckpointConfig"] == first["CheckpointConfig"]


def test_what_spot_saved_is_printed_in_seconds_and_dollars(ready, monkeypatch, capsys):
    resources = {"InstanceType": "ml.g4dn.xlarge", "InstanceCount": 2, "VolumeSizeInGB": 50}
    describing(monkeypatch, TrainingTimeInSeconds=1000, BillableTimeInSeconds=250, ResourceConfig=resources)
    monkeypatch.setattr(follow, "hourly", lambda region, instance_type: 0.72)

    assert train() == 0

    # 250 s of each of 2 hosts at 0.72 USD an hour
    assert "1000 s of 2 x ml.g4dn.xlarge, 250 s billed, 75 % saved by spot, about 0.10 USD" in capsys.readouterr().err
