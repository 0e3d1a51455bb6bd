"""Processing jobs of the offline SageMaker: inputs, command, outputs, message."""

import json
import sys

import pytest
from botocore.exceptions import ClientError

from simulate.processes import ProcessRunner
from tests.support.simulated import ROLE, simulation

COPY = """
import json, os, pathlib, sys, time
base, mode = pathlib.Path(sys.argv[1]), sys.argv[2]
(base.parent / "output").mkdir(exist_ok=True)
(base.parent / "output" / "message").write_text(mode + "!" * 2000)
out = base / "out"
for path in sorted(base.glob("in/**/*")):
    if path.is_file():
        (out / path.name).write_text(path.read_text().upper())
(out / "seen").write_text(json.dumps({"config": {path.name: json.loads(path.read_text())
    for path in (base.parent / "config").iterdir()}, "name": os.environ["PROCESSING_JOB_NAME"]}))
print(mode, flush=True)
time.sleep(30 if mode == "slow" else 0)
sys.exit(4 if mode == "fail" else 0)
"""


@pytest.fixture(scope="module")
def aws(tmp_path_factory):
    with simulation(tmp_path_factory.mktemp("simulation")) as started:
        started.bucket("data", in__one=b"one", in__deep__two=b"two")
        yield started


@pytest.fixture(scope="module")
def program(tmp_path_factory):
    file = tmp_path_factory.mktemp("program") / "copy.py"
    file.write_text(COPY)
    return str(file)


def job_request(name, program, mode, *, upload="EndOfJob", local="/opt/ml/processing/in", **changes):
    return {
        "ProcessingJobName": name,
        "RoleArn": ROLE,
        "AppSpecification": {"ImageUri": "fake", "ContainerEntrypoint": ["python", program],
                             "ContainerArguments": ["/opt/ml/processing", mode]},
        "ProcessingResources": {"ClusterConfig": {"InstanceType": "ml.m5.large", "InstanceCount": 1,
                                                  "VolumeSizeInGB": 1}},
        "ProcessingInputs": [{"InputName": "in", "S3Input": {"S3Uri": "s3://data/in", "S3DataType": "S3Prefix",
                                                             "S3InputMode": "File", "LocalPath": local}}],
        "ProcessingOutputConfig": {"Outputs": [{"OutputName": "out", "S3Output": {
            "S3Uri": f"s3://data/out/{name}", "LocalPath": "/opt/ml/processing/out", "S3UploadMode": upload}}]},
    } | changes  # fmt: skip


def process(aws, *arguments, **changes):
    aws.sagemaker.create_processing_job(**job_request(*arguments, **changes))
    return aws.wait("processing_job", "ProcessingJobStatus", ProcessingJobName=arguments[0])


def test_a_job_reads_its_inputs_and_its_outputs_are_uploaded(aws, program):
    job = process(aws, "copy", program, "done")

    assert job["ProcessingJobStatus"] == "Completed"
    assert job["ExitMessage"] == ("done" + "!" * 2000)[:1024]
    assert {key: aws.get(f"s3://data/{key}") for key in aws.keys("data", "out/copy/") if "seen" not in key} == {
        "out/copy/one": b"ONE",
        "out/copy/two": b"TWO",
    }
    seen = json.loads(aws.get("s3://data/out/copy/seen"))
    assert seen["name"] == "copy"
    assert seen["config"]["resourceconfig.json"] == {"current_host": "algo-1", "hosts": ["algo-1"]}
    config = seen["config"]["processingjobconfig.json"]
    assert config["ProcessingJobName"] == "copy"
    assert config["ProcessingInputs"][0]["S3Input"]["LocalPath"] == "/opt/ml/processing/in"
    assert aws.log("/aws/sagemaker/ProcessingJobs", "copy/").popitem()[1] == ["done"]


def test_a_job_that_fails_says_so_and_uploads_nothing(aws, program):
    job = process(aws, "failing", program, "fail")

    assert job["ProcessingJobStatus"] == "Failed"
    assert job["FailureReason"] == "AlgorithmError: See job logs for more information, exit code: 4"
    assert job["ExitMessage"].startswith("fail!")
    assert aws.keys("data", "out/failing/") == []


def test_a_continuous_output_is_there_before_the_end_and_time_is_limited(aws, program):
    request = job_request("slow", program, "slow", upload="Continuous", StoppingCondition={"MaxRuntimeInSeconds": 2})
    aws.sagemaker.create_processing_job(**request)
    while len(aws.keys("data", "out/slow/")) < 3:
        pass
    assert aws.sagemaker.describe_processing_job(ProcessingJobName="slow")["ProcessingJobStatus"] == "InProgress"
    job = aws.wait("processing_job", "ProcessingJobStatus", ProcessingJobName="slow")

    assert job["ProcessingJobStatus"] == "Stopped"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"local": "/tmp/in"}, "LocalPath must begin with /opt/ml/processing/, got '/tmp/in'"),
        ({"local": "/opt/ml/processing/../model"}, "LocalPath must begin"),
        ({"ProcessingInputs": [{"InputName": "a"}]}, "not simulated offline"),
        ({"ProcessingResources": {"ClusterConfig": {"InstanceType": "ml.m5.large", "InstanceCount": 2,
                                                    "VolumeSizeInGB": 1}}}, "on several hosts is not simulated"),
    ],
)  # fmt: skip
def test_a_job_that_cannot_be_is_refused(aws, program, changes, message):
    with pytest.raises(ClientError, match=message):
        aws.sagemaker.create_processing_job(**job_request("refused", program, "done", **changes))


def test_a_command_that_is_not_there_fails_the_job(aws):
    app = {"ImageUri": "fake", "ContainerEntrypoint": ["no-such-command"]}
    job = process(aws, "absent", "", "done", AppSpecification=app)

    assert job["FailureReason"] == "ClientError: no-such-command cannot be started (No such file or directory)"

    job = process(aws, "pointless", "", "done", AppSpecification={"ImageUri": "fake"})
    assert "give ContainerEntrypoint, or use the docker back end" in job["FailureReason"]


def test_the_images_entry_point_is_known(tmp_path):
    program = tmp_path / "program.py"
    program.write_text("import sys; sys.exit(0 if sys.argv[1:] == ['ours', '--a', 'b'] else 5)")
    runner = ProcessRunner({"evaluate": [sys.executable, str(program), "ours"]})
    with simulation(tmp_path / "simulation", runner=runner) as aws:
        aws.bucket("data", **{"in": b""})
        command = {"ImageUri": "fake", "ContainerEntrypoint": ["/usr/local/bin/entrypoint", "evaluate"],
                   "ContainerArguments": ["--a", "b"]}  # fmt: skip
        found = process(aws, "job", "", "", AppSpecification=command)

    assert found["ProcessingJobStatus"] == "Completed", found
