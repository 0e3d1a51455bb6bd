"""A job with its own script runs it as on the base image."""

import io
import json
import tarfile
import zipfile
from email.utils import formatdate

import pytest

from tests.image.containers import container, job_flags, run_train, variables
from tests.support import loopback

SCRIPT = """
import argparse, json, os, signal, sys, time
import vendored
from parts.answer import ANSWER

parser = argparse.ArgumentParser()
parser.add_argument("--epochs", type=int)
parser.add_argument("--name")
parser.add_argument("--exit", type=int, default=0)
parser.add_argument("--wait", type=int, default=0)
options = parser.parse_args()

def stop(*_):
    print("the script hears SIGTERM", flush=True)
    sys.exit(0)

signal.signal(signal.SIGTERM, stop)
with open(os.path.join(os.environ["SM_MODEL_DIR"], "result.json"), "w") as file:
    json.dump({"answer": ANSWER, "vendored": vendored.VALUE, "epochs": options.epochs, "name": options.name,
               "hosts": os.environ["SM_HOSTS"], "channel": sorted(os.listdir(os.environ["SM_CHANNEL_TRAINING"])),
               "cwd": os.getcwd()}, file)
print("the script runs", flush=True)
time.sleep(options.wait)
sys.exit(options.exit)
"""


def wheel():
    """A package that pip installs without a network."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr("vendored.py", "VALUE = 'installed'\n")
        archive.writestr("vendored-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: vendored\nVersion: 1.0\n")
        archive.writestr(
            "vendored-1.0.dist-info/WHEEL",
            "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        )
        archive.writestr(
            "vendored-1.0.dist-info/RECORD",
            "vendored.py,,\nvendored-1.0.dist-info/METADATA,,\n"
            "vendored-1.0.dist-info/WHEEL,,\nvendored-1.0.dist-info/RECORD,,\n",
        )
    return stream.getvalue()


def source_archive():
    """The SDK's archive of a source directory: several modules and requirements."""
    files = {
        "main.py": SCRIPT.encode(),
        "parts/__init__.py": b"",
        "parts/answer.py": b"ANSWER = 42\n",
        "requirements.txt": b"./vendored-1.0-py3-none-any.whl\n",
        "vendored-1.0-py3-none-any.whl": wheel(),
    }
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w:gz") as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size, member.mode = len(content), 0o644
            archive.addfile(member, io.BytesIO(content))
    return stream.getvalue()


@pytest.fixture
def channels(channel, tmp_path):
    """The training data, and the source as a local archive in another channel."""
    (tmp_path / "code").mkdir()
    (tmp_path / "code" / "sourcedir.tar.gz").write_bytes(source_archive())
    return {"training": channel, "code": tmp_path / "code"}


def hyperparameters(**own):
    given = {
        "sagemaker_program": "main.py",
        "sagemaker_submit_directory": "/opt/ml/input/data/code/sourcedir.tar.gz",
        "sagemaker_region": "us-east-1",
        **own,
    }
    return {name: json.dumps(value) for name, value in given.items()}


def result(base):
    return json.loads((base / "model" / "result.json").read_text())


def test_a_script_from_a_local_archive_runs_with_its_modules_its_requirements_and_its_arguments(channels, tmp_path):
    job = run_train(tmp_path / "job", channels, hyperparameters(epochs=3, name="größe"))

    assert job.code == 0, job.log
    assert job.failure is None
    found = result(job.base)
    assert (found["answer"], found["vendored"], found["epochs"], found["name"]) == (42, "installed", 3, "größe")
    assert json.loads(found["hosts"]) == ["algo-1"]
    assert found["channel"] == ["test", "train", "val"]
    assert found["cwd"] == "/opt/ml/code"


def test_a_script_that_fails_fails_the_job_and_its_exit_code_is_in_the_failure_file(channels, tmp_path):
    job = run_train(tmp_path / "job", channels, hyperparameters(exit=3))

    assert job.code == 1  # from the toolkit, as on the base image
    assert "ExitCode 3" in job.failure
    assert len(job.failure) <= 1024


def test_a_script_that_is_not_there_is_a_failure(channels, tmp_path):
    job = run_train(tmp_path / "job", channels, hyperparameters(sagemaker_program="missing.py"))

    assert job.code != 0
    assert job.failure
    assert len(job.failure) <= 1024


def test_a_script_hears_docker_stop(channels, tmp_path):
    with container("train", flags=job_flags(tmp_path / "job", channels, hyperparameters(wait=60))) as job:
        job.wait_for("the script runs")
        code, seconds = job.stop(120)

        assert "the script hears SIGTERM" in job.log()
        assert code == 0
        assert seconds < 60


class Bucket(loopback.Handler):
    """One object of S3."""

    body = source_archive()

    def head(self):
        self.give(b"")

    def get(self):
        self.give(self.body)

    def give(self, body):
        is_object = self.path.partition("?")[0] == "/some-bucket/job/sourcedir.tar.gz"
        described = {"Content_Length": str(len(self.body) if is_object else 0), "ETag": '"0"'}
        described["Last_Modified"] = formatdate(0, usegmt=True)
        self.answer(200 if is_object else 404, body if is_object else b"", **described)


def test_a_script_from_s3_runs(channel, tmp_path):
    given = hyperparameters(sagemaker_submit_directory="s3://some-bucket/job/sourcedir.tar.gz", epochs=1)
    with loopback.listening(Bucket, address="0.0.0.0") as bucket:
        flags = job_flags(tmp_path, {"training": channel}, given, network="bridge")
        flags += ["--add-host", "s3.test:host-gateway"]
        flags += variables(
            AWS_ENDPOINT_URL_S3=f"http://s3.test:{bucket.server_port}",
            AWS_ACCESS_KEY_ID="none",
            AWS_SECRET_ACCESS_KEY="none",
            AWS_REGION="us-east-1",
        )
        with container("train", flags=flags) as job:
            assert job.wait() == 0, job.log()

    assert result(tmp_path)["vendored"] == "installed"
