"""The front of the offline SageMaker and its command."""

import json
import os
import re
import signal
import subprocess
import sys
import urllib.request
from itertools import pairwise

import boto3
import pytest

from simulate import __main__ as command
from simulate.containers import DockerRunner
from simulate.faults import JobError
from simulate.runners import Order
from tests.support.exhaustive import exhaustive
from tests.support.places import ROOT
from tests.support.simulated import ROLE, simulation, training_request


def test_one_address_serves_every_api(tmp_path, monkeypatch):
    with simulation(tmp_path) as aws:
        with monkeypatch.context() as patch:
            for name, value in aws.simulation.environment.items():
                patch.setenv(name, value)
            session = boto3.Session()
            session.client("s3").create_bucket(
                Bucket="models", CreateBucketConfiguration={"LocationConstraint": session.region_name}
            )
            session.client("sagemaker").create_model(
                ModelName="m", ExecutionRoleArn=ROLE, PrimaryContainer={"Image": "fake"}
            )
            assert session.client("sts").get_caller_identity()["Account"] == "123456789012"
        assert aws.sagemaker.describe_model(ModelName="m")["ModelName"] == "m"
        aws.put("models", "endpoints/a/invocations", b"an object")  # and no invocation
        assert aws.get("s3://models/endpoints/a/invocations") == b"an object"
    with pytest.raises(OSError, match="refused"):
        urllib.request.urlopen(aws.url, timeout=2)


def test_the_end_stops_jobs_at_once_and_removes_the_folder(tmp_path):
    with simulation(tmp_path) as aws:
        aws.bucket("jobs")
        aws.sagemaker.create_training_job(**training_request("endless", "stubborn"))
        aws.wait("training_job", "SecondaryStatus", until=["Training"], TrainingJobName="endless")

    job = aws.simulation.plane.find("TrainingJob", "endless", "eu-central-1")
    assert job.fields["FailureReason"] == "InternalServerError: the simulation ended"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("number", exhaustive([signal.SIGTERM, signal.SIGINT]))
def test_the_command_prints_what_to_set_and_ends_with_a_signal(tmp_path, number):
    words = [sys.executable, "-m", "simulate", "serve", "--folder", str(tmp_path / "simulate")]
    process = subprocess.Popen(words, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                               env={**os.environ, "PYTHONUNBUFFERED": "1"})  # fmt: skip
    try:
        lines = [process.stdout.readline().strip() for _ in range(5)]
        settings = dict(re.fullmatch(r"export (\w+)=(\S+)", line).groups() for line in lines)
        with urllib.request.urlopen(f"{settings['AWS_ENDPOINT_URL']}/moto-api/", timeout=5) as response:
            assert response.status == 200
        process.send_signal(number)
        out, errors = process.communicate(timeout=20)
    finally:
        process.kill()

    assert process.returncode == 0, errors
    assert settings["AWS_ENDPOINT_URL"].startswith("http://127.0.0.1:")
    assert set(settings) == {"AWS_ENDPOINT_URL", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_REGION",
                             "AWS_DEFAULT_REGION"}  # fmt: skip
    assert (out, list((tmp_path / "simulate").iterdir())) == ("", [])


def test_without_docker_the_command_says_what_to_do(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("PATH", str(tmp_path))

    assert command.main(["serve", "--back-end", "docker", "--folder", str(tmp_path)]) == 2

    assert capsys.readouterr().err == ("simulate: no Docker engine answers: start Docker, or use --back-end venv\n")


# Notes what it is asked, and answers as for the one image local:1.
DOCKER = """#!{python}
import json, sys
from pathlib import Path
with (Path(sys.argv[0]).parent / "calls").open("a") as calls:
    calls.write(json.dumps(sys.argv[1:]) + "\\n")
answers = {{"image": "sha256:1" if sys.argv[-1] == "local:1" else "", "port": "127.0.0.1:4711",
           "inspect": '{{"Running": false, "ExitCode": 3}}' if "Exit" not in sys.argv[3] else "3"}}
print(answers.get(sys.argv[1], ""))
"""


@pytest.fixture
def calls(tmp_path, monkeypatch):
    """A `docker` that runs nothing; a function that gives what it was asked."""
    folder = tmp_path / "bin"
    folder.mkdir()
    (folder / "docker").write_text(DOCKER.format(python=sys.executable))
    (folder / "docker").chmod(0o755)
    monkeypatch.setenv("PATH", str(folder))
    return lambda verb: [
        words for line in (folder / "calls").read_text().splitlines() if (words := json.loads(line))[0] == verb
    ]


def orders(folder, hosts, **changes):
    made = []
    for host in hosts:
        (folder / host).mkdir()
        made.append(Order("registry/thing@sha256:2", ("train",), folder / host, host=host, hosts=hosts, **changes))
    return made


def options(words):
    """The flags of `docker run` that have a value."""
    pairs = [(flag, value) for flag, value in pairwise(words) if flag.startswith("--")]
    return {flag: [value for name, value in pairs if name == flag] for flag, _ in pairs}


def test_a_training_container_has_sagemakers_limits(calls, tmp_path):
    runner = DockerRunner("local:1")
    given = {"readonly": ("input/config", "input/data/a"), "environment": {"A": "b=c"}, "is_isolated": True}
    [container] = runner.start(orders(tmp_path, ("algo-1",), **given))
    container.remove()
    runner.close()

    [words, *_] = calls("run")
    flags = options(words)
    assert words[-2:] == ["local:1", "train"]  # the image of the registry is not on this machine
    assert flags["--shm-size"] == ["67108864"]
    assert flags["--hostname"] == ["algo-1"]
    assert flags["--network"] == ["none"]
    assert flags["--env"] == ["A=b=c"]
    assert flags["--mount"] == [
        f"type=bind,source={tmp_path}/algo-1,target=/opt/ml",
        f"type=bind,source={tmp_path}/algo-1/input/config,target=/opt/ml/input/config,readonly",
        f"type=bind,source={tmp_path}/algo-1/input/data/a,target=/opt/ml/input/data/a,readonly",
    ]
    assert "--publish" not in flags
    assert container.code() == 3
    assert ["rm", "--force", "--volumes", container.name] in calls("rm")


def test_a_serving_container_sees_its_model_only(calls, tmp_path):
    runner = DockerRunner("local:1")
    [container] = runner.start(orders(tmp_path, ("model",), only=("model",), serves=True, memory_mb=2048))
    runner.close()

    flags = options(calls("run")[0])
    assert flags["--mount"] == [f"type=bind,source={tmp_path}/model/model,target=/opt/ml/model,readonly"]
    assert flags["--memory"] == ["2048m"]
    assert flags["--publish"] == ["127.0.0.1::8080"]
    assert container.address == ("127.0.0.1", 4711)


def test_several_hosts_have_a_network_of_their_own(calls, tmp_path):
    runner = DockerRunner("local:1")
    hosts = ("algo-1", "algo-2")
    runner.start(orders(tmp_path, hosts, is_isolated=True))
    runner.close()

    made, removed = calls("network")
    assert made[:2] == ["network", "create"]
    assert "--internal" in made
    assert removed == ["network", "rm", made[-1]]
    flags = [options(words) for words in calls("run")]
    assert [each["--network"] for each in flags[:2]] == [[made[-1]]] * 2
    assert [each["--network-alias"] for each in flags[:2]] == [["algo-1"], ["algo-2"]]


def test_an_image_that_is_not_here_is_told(calls, tmp_path):
    with pytest.raises(JobError, match="Cannot find the image registry/thing@sha256:2: name one of this machine"):
        DockerRunner().start(orders(tmp_path, ("algo-1",)))


def test_the_second_of_the_interruption_is_an_option(tmp_path):
    with simulation(tmp_path, interrupt_after_s=0) as aws:
        aws.bucket("jobs")
        aws.sagemaker.create_training_job(
            **training_request(
                "spot",
                "count",
                EnableManagedSpotTraining=True,
                StoppingCondition={"MaxRuntimeInSeconds": 60, "MaxWaitTimeInSeconds": 60},
                CheckpointConfig={"S3Uri": "s3://jobs/checkpoints"},
            )
        )
        job = aws.wait("training_job", "TrainingJobStatus", TrainingJobName="spot")

    assert job["TrainingJobStatus"] == "Completed"
    assert [each["Status"] for each in job["SecondaryStatusTransitions"]].count("Interrupted") == 1
