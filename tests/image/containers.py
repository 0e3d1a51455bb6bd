"""Containers of the image under test, with SageMaker's layout; always removed, logs kept for failures."""

import http.client
import json
import os
import subprocess
import time
import uuid
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.support import loopback

IMAGE = os.environ.get("IMAGE", "")
START_S = 180
CONFIG = "input/config"
# The smallest possible job.
QUICK = {"epochs": "1", "image_size": "32", "network": "resnet18", "num_workers": "1", "batch_size": "8"}

running = []  # containers of this test, whose logs a failure shows


def docker(*arguments, check=True, timeout_s=600):
    """Run the Docker client; its output is text."""
    result = subprocess.run(["docker", *map(str, arguments)], capture_output=True, text=True, timeout=timeout_s)
    assert result.returncode == 0 or not check, result.stderr
    return result


def image_output(*command, image=IMAGE, flags=()):
    """The output of a command in the image, without its entry point."""
    flags = ("--rm", "--network", "none", "--entrypoint", command[0], *flags)
    return docker("run", *flags, image, *command[1:]).stdout


class Container:
    """A started container."""

    def __init__(self, number):
        self.id = number

    def state(self):
        return json.loads(docker("inspect", "--format", "{{json .State}}", self.id).stdout)

    def is_running(self):
        return self.state()["Running"]

    def log(self, *flags):
        """Its standard output, then its standard error."""
        result = docker("logs", *flags, self.id)
        return result.stdout + result.stderr

    def exec(self, *command, user="0"):
        return docker("exec", "--user", user, self.id, *command).stdout

    def wait(self, timeout_s=600):
        """Its exit code."""
        return int(docker("wait", self.id, timeout_s=timeout_s).stdout)

    def wait_for(self, text, timeout_s=180):
        """Wait until its log has a text."""
        deadline = time.monotonic() + timeout_s
        while text not in self.log():
            assert self.is_running(), f"it ended before {text!r}"
            assert time.monotonic() < deadline, f"no {text!r} in the log"
            time.sleep(0.1)

    def stop(self, timeout_s=120):
        """Run `docker stop`; returns the exit code and the seconds that it took."""
        started = time.monotonic()
        docker("stop", "--time", timeout_s, self.id, timeout_s=timeout_s + 30)
        return self.state()["ExitCode"], time.monotonic() - started


@contextmanager
def container(*flags_and_command, flags=()):
    """Run a container in the background until the block ends.

    Args:
        flags_and_command: what follows the image.
        flags: of `docker run`.
    """
    name = f"sagemaker-monai-test-{uuid.uuid4().hex[:12]}"
    docker("run", "--detach", "--name", name, *flags, IMAGE, *flags_and_command)
    started = Container(name)
    running.append(started)
    try:
        yield started
    except BaseException:
        print(f"log of the container:\n{started.log()[-6000:]}")
        raise
    finally:
        running.remove(started)
        docker("rm", "--force", "--volumes", name)


def bind(source, target, *, readonly=True):
    return ["--mount", f"type=bind,source={source},target={target}" + (",readonly" if readonly else "")]


def variables(**environment):
    return [word for name, value in environment.items() for word in ("--env", f"{name}={value}")]


# Training


@dataclass(frozen=True)
class Job:
    """A finished job."""

    code: int
    log: str
    base: Path

    @property
    def failure(self):
        """The text of the failure file, None without one."""
        file = self.base / "output" / "failure"
        return file.read_text(encoding="utf-8") if file.exists() else None


def job_flags(base, channels, hyperparameters, *, hosts=("algo-1",), host="algo-1", network="none"):
    """Lay out /opt/ml below `base`; returns the flags of `docker run` for it."""
    for folder in (CONFIG, "input/data", "model", "output"):
        (base / folder).mkdir(parents=True, exist_ok=True)
    mode = {"TrainingInputMode": "File", "S3DistributionType": "FullyReplicated", "RecordWrapperType": "None"}
    resources = {
        "current_host": host,
        "current_instance_type": "ml.m5.large",
        "current_group_name": "homogeneousCluster",
        "hosts": list(hosts),
        "instance_groups": [
            {"instance_group_name": "homogeneousCluster", "instance_type": "ml.m5.large", "hosts": list(hosts)}
        ],
        "network_interface_name": "eth0",
    }
    for name, value in {
        "hyperparameters": hyperparameters,
        "inputdataconfig": dict.fromkeys(channels, mode),
        "resourceconfig": resources,
    }.items():
        text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
        (base / CONFIG / f"{name}.json").write_text(text, encoding="utf-8")
    for name in channels:
        (base / "input" / "data" / name).mkdir(exist_ok=True)
    addresses = [] if network != "none" else ["--add-host", f"{host}:127.0.0.1"]
    return [
        *("--hostname", host, "--network", network, *addresses, "--shm-size", "64m"),
        *bind(base, "/opt/ml", readonly=False),
        *(word for name, folder in channels.items() for word in bind(folder, f"/opt/ml/input/data/{name}")),
    ]


def run_train(base, channels, hyperparameters=QUICK, *, flags=(), timeout_s=600, **environment):
    """Run a job on one host, without a network."""
    all_flags = [*job_flags(base, channels, hyperparameters), *variables(**environment), *flags]
    with container("train", flags=all_flags) as job:
        return Job(job.wait(timeout_s), job.log(), base)


# Serving


class Server:
    """A container that serves, and a client for it."""

    def __init__(self, started, port):
        self.container = started
        self.address, self.port = docker("port", started.id, f"{port}/tcp").stdout.split()[0].rsplit(":", 1)

    def request(self, method, path, body=None, headers=None, timeout_s=120):
        return loopback.request(self.address, int(self.port), method, path, body, headers, timeout_s)

    def invoke(self, body, content_type, accept=None, timeout_s=120):
        headers = {"Content-Type": content_type} | ({} if accept is None else {"Accept": accept})
        return self.request("POST", "/invocations", body, headers, timeout_s)

    def ping(self):
        """The status of /ping; None without an answer in the 2 s that SageMaker waits."""
        try:
            return self.request("GET", "/ping", timeout_s=20)[0]
        except (OSError, http.client.HTTPException):
            return None

    def wait_until_healthy(self):
        deadline = time.monotonic() + START_S
        while self.ping() != 200:
            assert self.container.is_running(), "it ended"
            assert time.monotonic() < deadline, "not healthy in time"
            time.sleep(0.05)
        return self


@contextmanager
def started_server(model, *, flags=(), **environment):
    """A started server, not necessarily healthy; `model` is a folder, read-only in the container."""
    port = environment.get("SAGEMAKER_BIND_TO_PORT", "8080")
    all_flags = ["--publish", f"127.0.0.1::{port}", *bind(model, "/opt/ml/model"), *variables(**environment), *flags]
    with container("serve", flags=all_flags) as started:
        yield Server(started, port)


@contextmanager
def served(model, *, flags=(), **environment):
    """A healthy server."""
    with started_server(model, flags=flags, **environment) as server:
        yield server.wait_until_healthy()


def code_of(body):
    """The code in a refusal, whose format is checked."""
    [(key, error)] = json.loads(body).items()
    assert key == "error"
    assert set(error) == {"code", "message"}
    return error["code"]
