"""Training jobs of the offline SageMaker obey its rules: what they are given, how they are stopped, what they leave."""

import json
import time
from itertools import pairwise

import pytest
from botocore.exceptions import ClientError

from simulate.faults import InternalError
from simulate.processes import ProcessRunner
from tests.support.simulated import FAKE, channel, simulation, training_request

GROUP = "/aws/sagemaker/TrainingJobs"
SPOT = {
    "EnableManagedSpotTraining": True,
    "StoppingCondition": {"MaxRuntimeInSeconds": 60, "MaxWaitTimeInSeconds": 60},
}
METRICS = {
    "TrainingImage": "fake",
    "TrainingInputMode": "File",
    "MetricDefinitions": [{"Name": "score", "Regex": "score=([0-9.]+);"}, {"Name": "other", "Regex": "other=(.*)"}],
}


class Unreliable(ProcessRunner):
    """Fails to start the first containers of a job, as a platform does now and then."""

    def __init__(self):
        super().__init__({name: [*FAKE, name] for name in ("train", "serve")})
        self.failures = 0

    def start(self, orders):
        if self.failures:
            self.failures -= 1
            raise InternalError("the instance is gone")
        return super().start(orders)


@pytest.fixture(scope="module")
def runner():
    return Unreliable()


@pytest.fixture(scope="module")
def aws(tmp_path_factory, runner):
    with simulation(tmp_path_factory.mktemp("simulation"), runner=runner) as started:
        started.bucket("jobs")
        started.bucket("input", a__one=b"1", a__deep__two=b"2", ab__three=b"3", **{"a/": b""})
        started.put("input", "manifest", json.dumps([{"prefix": "s3://input/a/"}, "deep/two", "one"]).encode())
        yield started


def train(aws, name, behaviour, **changes):
    aws.sagemaker.create_training_job(**training_request(name, behaviour, **changes))
    return aws.wait("training_job", "TrainingJobStatus", TrainingJobName=name)


def interrupt(aws, name, is_time, **changes):
    """Run a spot job and take its first instance away."""
    aws.sagemaker.create_training_job(**training_request(name, "count", **changes, **SPOT))
    aws.wait("training_job", "SecondaryStatus", until=["Training"], TrainingJobName=name)
    deadline = time.monotonic() + 90
    while not is_time():
        assert time.monotonic() < deadline, "timed out"
        time.sleep(0.02)
    aws.simulation.world.interrupt_after_s = 0
    try:
        return aws.wait("training_job", "TrainingJobStatus", TrainingJobName=name)
    finally:
        aws.simulation.world.interrupt_after_s = None


def statuses(job):
    return [each["Status"] for each in job["SecondaryStatusTransitions"]]


def report_of(aws, job):
    return json.loads(aws.files(job["ModelArtifacts"]["S3ModelArtifacts"])["report.json"])


def test_a_job_sees_what_sagemaker_lays_out(aws):
    job = train(aws, "layout", "report", HyperParameters={"epochs": "3", "text": '"a"'},
                InputDataConfig=[channel("training", "s3://input/a/", ContentType="image/png"),
                                 channel("other", "s3://input/a/one", InputMode="FastFile")])  # fmt: skip
    seen = report_of(aws, job)
    files = {name.removeprefix("input/"): text for name, text in seen["files"].items()}
    config = {name: json.loads(text) for name, text in files.items() if name.startswith("config/")}

    assert {name: text for name, text in files.items() if name.startswith("data/")} == {
        "data/training/one": "1",
        "data/training/deep/two": "2",
        "data/other/one": "1",
    }
    assert config["config/hyperparameters.json"] == {"epochs": "3", "text": '"a"'}
    assert config["config/inputdataconfig.json"] == {
        "training": {"ContentType": "image/png", "TrainingInputMode": "File", "S3DistributionType": "FullyReplicated",
                     "RecordWrapperType": "None"},
        "other": {"TrainingInputMode": "FastFile", "S3DistributionType": "FullyReplicated",
                  "RecordWrapperType": "None"},
    }  # fmt: skip
    assert config["config/resourceconfig.json"]["hosts"] == ["algo-1"]
    assert config["config/resourceconfig.json"]["current_instance_type"] == "ml.m5.large"
    assert seen["words"] == ["train"]
    assert all(int(mode, 8) & 0o222 == 0 for name, mode in seen["modes"].items())
    assert seen["environment"]["TRAINING_JOB_NAME"] == "layout"
    assert seen["environment"]["TRAINING_JOB_ARN"] == job["TrainingJobArn"]
    assert not [name for name in seen["environment"] if name.startswith(("AWS_ACCESS", "AWS_SECRET", "PYTEST"))]


@pytest.mark.parametrize(
    ("name", "uri", "data_type", "names"),
    [
        ("half", "s3://input/a", "S3Prefix", ["ab/three", "deep/two", "one"]),  # not only where a name ends
        ("deep", "s3://input/a/deep", "S3Prefix", ["two"]),
        ("listed", "s3://input/manifest", "ManifestFile", ["deep/two", "one"]),
    ],
)
def test_a_channel_has_all_objects_of_its_prefix_or_manifest(aws, name, uri, data_type, names):
    seen = report_of(aws, train(aws, name, "report", InputDataConfig=[channel("c", uri, data_type=data_type)]))

    found = [name.removeprefix("input/data/c/") for name in seen["files"] if name.startswith("input/data/")]
    assert sorted(found) == names


def test_a_channel_without_objects_fails_the_job(aws):
    job = train(aws, "empty", "report", InputDataConfig=[channel("c", "s3://input/nothing")])

    assert job["TrainingJobStatus"] == "Failed"
    assert job["FailureReason"].startswith("ClientError: Data download failed:No objects found.")
    assert job["BillableTimeInSeconds"] == 0
    assert statuses(job) == ["Starting", "Downloading", "Failed"]


def test_an_object_cannot_leave_its_channel(aws):
    aws.bucket("evil")
    aws.put("evil", "a/../../../x", b"")

    job = train(aws, "evil", "report", InputDataConfig=[channel("c", "s3://evil/a/")])

    assert "is not a path below the channel" in job["FailureReason"]


def test_a_job_leaves_model_output_metrics_and_log(aws):
    job = train(aws, "results", "report", AlgorithmSpecification=METRICS)

    assert job["TrainingJobStatus"] == job["SecondaryStatus"] == "Completed"
    assert statuses(job) == ["Starting", "Downloading", "Training", "Uploading", "Completed"]
    assert all("EndTime" in each for each in job["SecondaryStatusTransitions"][:-1])
    assert job["ModelArtifacts"]["S3ModelArtifacts"] == "s3://jobs/out/results/output/model.tar.gz"
    assert aws.files("s3://jobs/out/results/output/output.tar.gz") == {"note": b"a note"}
    assert "FinalMetricDataList" not in job
    assert job["TrainingTimeInSeconds"] == job["BillableTimeInSeconds"] >= 1
    assert "Tags" not in job


def test_an_uncompressed_model_is_a_prefix(aws):
    output = {"S3OutputPath": "s3://jobs/plain/", "CompressionType": "NONE"}
    job = train(aws, "plain", "report", OutputDataConfig=output)

    assert job["ModelArtifacts"]["S3ModelArtifacts"] == "s3://jobs/plain/plain/output/model/"
    assert aws.keys("jobs", "plain/") == ["plain/plain/output/model/report.json", "plain/plain/output/output.tar.gz"]


def test_what_is_uploaded_is_encrypted_with_the_key_of_the_job(aws):
    output = {"S3OutputPath": "s3://jobs/secret", "KmsKeyId": "alias/mine"}
    train(aws, "secret", "report", OutputDataConfig=output)

    heads = [aws.s3.head_object(Bucket="jobs", Key=key) for key in aws.keys("jobs", "secret/")]
    assert [head["ServerSideEncryption"] for head in heads] == ["aws:kms", "aws:kms"]


def test_the_failure_file_is_the_reason_cut_at_1024_characters(aws):
    job = train(aws, "failing", "fail")

    assert job["TrainingJobStatus"] == "Failed"
    text = "The data is wrong. " + "x" * 2000
    assert job["FailureReason"] == f"AlgorithmError: {text[:1024]}, exit code: 3"
    assert "ModelArtifacts" not in job
    assert aws.keys("jobs", "out/failing/") == ["out/failing/output/output.tar.gz"]


def test_a_stopped_job_has_two_minutes_to_save_its_model(aws):
    aws.sagemaker.create_training_job(**training_request("stopped", "polite"))
    aws.wait("training_job", "SecondaryStatus", until=["Training"], TrainingJobName="stopped")
    time.sleep(0.3)
    aws.sagemaker.stop_training_job(TrainingJobName="stopped")
    job = aws.wait("training_job", "TrainingJobStatus", TrainingJobName="stopped")

    assert job["TrainingJobStatus"] == job["SecondaryStatus"] == "Stopped"
    assert aws.files(job["ModelArtifacts"]["S3ModelArtifacts"]) == {"stopped": b"in time"}
    with pytest.raises(ClientError, match="job is in status Stopped"):
        aws.sagemaker.stop_training_job(TrainingJobName="stopped")


def test_who_does_not_hear_sigterm_is_killed(aws):
    began = time.monotonic()
    job = train(aws, "deaf", "stubborn", StoppingCondition={"MaxRuntimeInSeconds": 2})

    assert time.monotonic() - began >= 3  # the seconds of the job, and the grace
    assert (job["TrainingJobStatus"], job["SecondaryStatus"]) == ("Stopped", "MaxRuntimeExceeded")
    assert aws.files(job["ModelArtifacts"]["S3ModelArtifacts"]) == {"begun": b""}
    [lines] = aws.log(GROUP, "deaf/").values()
    assert lines == ["deaf"]


def test_an_interrupted_spot_job_goes_on_from_the_checkpoints_in_s3(aws):
    job = interrupt(aws, "spot", lambda: aws.keys("jobs", "checkpoints/spot/"), AlgorithmSpecification=METRICS,
                    CheckpointConfig={"S3Uri": "s3://jobs/checkpoints/spot"})  # fmt: skip

    assert job["TrainingJobStatus"] == "Completed"
    assert statuses(job) == ["Starting", "Downloading", "Training", "Interrupted", "Starting", "Downloading",
                             "Training", "Uploading", "Completed"]  # fmt: skip
    lines = [line for stream in aws.log(GROUP, "spot/").values() for line in stream]
    starts = [int(line.removeprefix("from=")) for line in lines if line.startswith("from=")]
    numbers = [int(line.split(";")[0].removeprefix("number=")) for line in lines if line.startswith("number=")]
    assert starts[0] == 0
    assert 0 < starts[1] <= 20
    # Nothing is done twice but what the upload before the kill did not reach, and nothing is left out.
    assert all(after <= before + 1 for before, after in pairwise(numbers))
    assert numbers[-1] == 20
    assert aws.files(job["ModelArtifacts"]["S3ModelArtifacts"]) == {"number": b"20"}
    assert aws.get("s3://jobs/checkpoints/spot/deep/number") == b"20"
    [metric] = job["FinalMetricDataList"]
    assert (metric["MetricName"], metric["Value"]) == ("score", pytest.approx(2))
    assert 1 <= job["BillableTimeInSeconds"] <= job["TrainingTimeInSeconds"]


def test_a_job_on_demand_is_not_interrupted(aws, monkeypatch):
    monkeypatch.setattr(aws.simulation.world, "interrupt_after_s", 0)
    job = train(aws, "demand", "report", CheckpointConfig={"S3Uri": "s3://jobs/checkpoints/demand"})

    assert "Interrupted" not in statuses(job)


def test_without_checkpoints_nothing_outlives_an_interruption(aws):
    def has_begun():
        return aws.log(GROUP, "forgetful/") and sum(map(len, aws.log(GROUP, "forgetful/").values()))

    spot = interrupt(aws, "forgetful", has_begun)
    starts = [line for lines in aws.log(GROUP, "forgetful/").values() for line in lines if "from=" in line]
    assert "Interrupted" in statuses(spot)
    assert starts == ["from=0", "from=0"]


def test_a_job_starts_with_the_checkpoints_that_are_there(aws):
    aws.put("jobs", "checkpoints/old/deep/number", b"19")

    train(aws, "second", "count", CheckpointConfig={"S3Uri": "s3://jobs/checkpoints/old"})

    [lines] = aws.log(GROUP, "second/").values()
    assert lines[:2] == ["from=19", "number=20; score=2.0;"]


def test_a_fault_of_the_platform_is_retried_as_often_as_asked(aws, runner):
    runner.failures = 2
    job = train(aws, "retried", "report", RetryStrategy={"MaximumRetryAttempts": 2})
    assert job["TrainingJobStatus"] == "Completed"

    runner.failures = 2
    job = train(aws, "given-up", "report", RetryStrategy={"MaximumRetryAttempts": 1})
    assert job["FailureReason"] == "InternalServerError: the instance is gone"


def test_processes_cannot_be_several_hosts(aws):
    resources = {"InstanceType": "ml.m5.large", "InstanceCount": 2, "VolumeSizeInGB": 1}
    job = train(aws, "two", "report", ResourceConfig=resources)

    assert (
        job["FailureReason"] == "ClientError: several hosts are not simulated with processes: use the docker back end"
    )


def test_a_command_of_the_jobs_own_replaces_train(aws):
    algorithm = {"TrainingImage": "fake", "TrainingInputMode": "File", "ContainerEntrypoint": ["python", "-c"],
                 "ContainerArguments": ["import sys; print(sys.argv[1:])", "/opt/ml/model"]}  # fmt: skip
    job = train(aws, "own", "report", AlgorithmSpecification=algorithm)

    assert job["TrainingJobStatus"] == "Completed"
    [[line]] = aws.log(GROUP, "own/").values()
    assert line.endswith("/algo-1/model']")


def test_a_job_that_ended_can_be_deleted(aws):
    train(aws, "gone", "report")
    aws.sagemaker.delete_training_job(TrainingJobName="gone")

    with pytest.raises(ClientError, match="not found"):
        aws.sagemaker.describe_training_job(TrainingJobName="gone")
