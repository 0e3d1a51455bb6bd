"""AWS on loopback for tests of the commands: a moto server, and a proxy that can kill the process that sends requests.

The fixture `cloud` (conftest) gives each test an empty account. Tests that need more than moto use botocore's Stubber.
"""

import io
import json
import os
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Callable
from contextlib import contextmanager, redirect_stderr, redirect_stdout, suppress
from functools import cache
from types import SimpleNamespace

import boto3
import pytest
from botocore.client import BaseClient

from sagemaker_monai_aws.__main__ import main
from sagemaker_monai_aws.core.account import Account
from tests.support import loopback
from tests.support.places import ROOT

ACCOUNT = "123456789012"
REGION = "eu-central-1"
PROJECT = "sagemaker-monai"
BUCKET = f"{PROJECT}-{ACCOUNT}-{REGION}"
READS = ("Get", "List", "Describe", "Head", "BatchGet")  # beginnings of the names of operations that change nothing
DIGEST = "sha256:" + "d" * 64
REGISTRY = f"{ACCOUNT}.dkr.ecr.{REGION}.amazonaws.com"
MANIFEST = {
    "schemaVersion": 2,
    "mediaType": "application/vnd.docker.distribution.manifest.v2+json",
    "config": {"mediaType": "application/vnd.docker.container.image.v1+json", "size": 2, "digest": DIGEST},
    "layers": [],
}


def environment(endpoint):
    """Variables that point boto3 to an endpoint and nowhere else."""
    return {
        "AWS_ENDPOINT_URL": endpoint,
        "AWS_ACCESS_KEY_ID": "key",
        "AWS_SECRET_ACCESS_KEY": "secret",
        "AWS_DEFAULT_REGION": REGION,
        "AWS_CONFIG_FILE": "/nowhere",
        "AWS_SHARED_CREDENTIALS_FILE": "/nowhere",
        "AWS_EC2_METADATA_DISABLED": "true",
        "AWS_MAX_ATTEMPTS": "1",
        "CONFIG_ENV": "/nowhere",
    }


@cache
def client_of(endpoint, service):
    """A client of a test's own; to make one takes longer than most requests."""
    return boto3.client(service, endpoint_url=endpoint, region_name=REGION,
                        aws_access_key_id="key", aws_secret_access_key="secret")  # fmt: skip


class Cloud:
    """An account: its clients, and contents that most tests need."""

    def __init__(self, endpoint):
        self.endpoint = endpoint

    def client(self, service):
        return client_of(self.endpoint, service)

    def reset(self):
        urllib.request.urlopen(urllib.request.Request(f"{self.endpoint}/moto-api/reset", method="POST")).read()

    def make_bucket(self, name=BUCKET):
        self.client("s3").create_bucket(Bucket=name, CreateBucketConfiguration={"LocationConstraint": REGION})
        return name

    def put(self, key, body=b"x", bucket=BUCKET):
        self.client("s3").put_object(Bucket=bucket, Key=key, Body=body)

    def get(self, key, bucket=BUCKET):
        return self.client("s3").get_object(Bucket=bucket, Key=key)["Body"].read()

    def keys(self, prefix="", bucket=BUCKET):
        pages = self.client("s3").get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix)
        return [item["Key"] for page in pages for item in page.get("Contents", [])]

    def fill(self):
        """Add a data set, a download and an image, as a training job needs them."""
        self.make_bucket()
        self.put("monai/data/training/dataset.json", b'{"labels": {"0": "a", "1": "b"}}')
        self.put("monai/data/raw/images.zip", b"zip")
        self.image = self.push_image()

    def push_image(self, tag="1", repository=PROJECT):
        """Push an image to ECR; returns its address by digest."""
        ecr = self.client("ecr")
        with suppress(ecr.exceptions.RepositoryAlreadyExistsException):
            ecr.create_repository(repositoryName=repository)
        manifest = json.dumps(MANIFEST | {"layers": [{"digest": f"sha256:{tag}", "size": 1}]})
        answer = ecr.put_image(repositoryName=repository, imageTag=tag, imageManifest=manifest)
        return f"{REGISTRY}/{repository}@{answer['image']['imageId']['imageDigest']}"


class Proxy(loopback.Handler):
    """Passes requests on, and kills the process before or after request number `kill_at`."""

    def pass_on(self):
        length = int(self.headers.get("Content-Length") or 0)
        body = self.rfile.read(length) if length else None
        with self.server.lock:
            self.server.count += 1
            number = self.server.count
        self.server.asked.append(self.headers.get("X-Amz-Target") or f"{self.command} {self.path}")
        if number == self.server.kill_at and not self.server.is_after:
            return self.kill()
        headers = {name: value for name, value in self.headers.items() if name.lower() not in ("connection",)}
        status, answered, content = loopback.request(*self.server.behind, self.command, self.path, body, headers)
        if number == self.server.kill_at:
            return self.kill()
        self.send_response(status)
        for name, value in answered.items():
            if name.lower() not in ("connection", "content-length", "transfer-encoding", "server", "date"):
                self.send_header(name, value)
        length = answered.get("Content-Length", "0") if self.command == "HEAD" else str(len(content))
        self.send_header("Content-Length", length)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)
        return None

    def kill(self):
        self.close_connection = True
        self.server.kill()

    post = get = head = pass_on


for method in ("PUT", "DELETE", "PATCH"):
    setattr(Proxy, f"do_{method}", Proxy.pass_on)


def run_command(name, arguments, endpoint, *, timeout_s=60, **extra):
    """Run a command in its own process, as a user does."""
    variables = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT / "scripts"), **environment(endpoint), **extra}
    command = [sys.executable, "-m", "sagemaker_monai_aws", name, *map(str, arguments)]
    return subprocess.run(command, env=variables, cwd=ROOT, capture_output=True, text=True, timeout=timeout_s)


def run_here(name, arguments=(), endpoint=None, **variables):
    """A command in this process, which takes a fraction of the time; what it returned and printed."""
    with (
        pytest.MonkeyPatch.context() as patch,
        redirect_stdout(io.StringIO()) as out,
        redirect_stderr(io.StringIO()) as errors,
    ):
        for variable, value in {**(environment(endpoint) if endpoint else {}), **variables}.items():
            patch.setenv(variable, value)
        try:
            code = main([name, *map(str, arguments)])
        except SystemExit as ended:
            code = ended.code
    return SimpleNamespace(returncode=code, stdout=out.getvalue(), stderr=errors.getvalue())


@contextmanager
def recorded():
    """The requests that clients of this process send meanwhile: service, operation, members."""
    asked, usual = [], BaseClient._make_api_call

    def noted(self, operation, request):
        asked.append((self.meta.service_model.service_name, operation, request))
        return usual(self, operation, request)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(BaseClient, "_make_api_call", noted)
        yield asked


def not_refused(name, rows, **places):
    """Those of some command lines that a command does not refuse as it should: before it writes anything, with exit
    code 2, and with a text in its last line.

    Args:
        name: of the command.
        rows: words of a command line, and the text.
        **places: what stands for {name} in a word.
    """
    wrong = []
    for words, message in rows:
        with recorded() as asked:
            run = run_here(name, [word.format(**places) for word in words])
        writes = [operation for _, operation, _ in asked if not operation.startswith(READS)]
        last = (run.stderr.splitlines() or [""])[-1]
        is_said = last.startswith(f"{name}: ") and message in last
        if (run.returncode, run.stdout, writes, is_said) != (2, "", [], True):
            wrong.append((words, message, run, writes))
    return wrong


@contextmanager
def killing(cloud, at=0, *, is_after=False):
    """A proxy in front of the account.

    Args:
        cloud: the account.
        at: number of the request, from 1, at which the process is killed; 0: none.
        is_after: kill after the account has carried out the request, not before.
    """
    host, port = cloud.endpoint.removeprefix("http://").split(":")
    attributes = {"behind": (host, int(port)), "kill_at": at, "is_after": is_after, "count": 0, "asked": [],
                  "lock": threading.Lock(), "kill": lambda: None}  # fmt: skip
    with loopback.listening(Proxy, **attributes) as server:
        server.url = f"http://127.0.0.1:{server.server_port}"
        yield server


def run_and_kill(cloud, name, arguments, at, *, is_after):
    """Run a command and kill it (SIGKILL) at a request; returns whether it got that far."""
    with killing(cloud, at, is_after=is_after) as proxy:
        variables = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT / "scripts"), **environment(proxy.url)}
        command = [sys.executable, "-m", "sagemaker_monai_aws", name, *map(str, arguments)]
        silent = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        with subprocess.Popen(command, env=variables, cwd=ROOT, **silent) as process:
            proxy.kill = process.kill
            try:
                code = process.wait(60)
            finally:
                process.kill()
    return code == -9


def survives(cloud, run, prepare: Callable[[], None], state: Callable[[], object]):
    """Check that a command killed at any of its requests and run again leaves the same state as one run.

    Args:
        cloud: the account; emptied before each try.
        run: runs the command and asserts that it succeeds; returns the number of its requests. With the number of a
            request and `is_after` it kills the command there instead, and returns whether it got that far.
        prepare: what the account has before.
        state: what the account has afterwards, comparable.

    Returns:
        How many times it was killed.
    """

    def in_a_new_account(*arguments, **options):
        cloud.reset()
        prepare()
        return run(*arguments, **options)

    requests = in_a_new_account()
    expected = state()
    kills = 0
    for at in range(1, requests + 1):
        for is_after in (False, True):
            kills += in_a_new_account(at, is_after=is_after)
            run()
            assert state() == expected, (at, is_after)
    assert kills >= requests  # threads may change the order, and skip the last requests
    return kills


def survives_kills(cloud, name, arguments, prepare, state):
    """`survives` for the arguments of a command in a process of its own."""

    def run(at=0, *, is_after=False):
        if at:
            return run_and_kill(cloud, name, arguments, at, is_after=is_after)
        with killing(cloud) as proxy:
            whole = run_command(name, arguments, proxy.url)
        assert whole.returncode == 0, whole.stderr
        return proxy.count

    return survives(cloud, run, prepare, state)


class Death(BaseException):
    """Stands for the kill of a command that runs in this process."""


def survives_deaths(cloud, name, arguments, prepare, state):
    """`survives` in this process, ten times as fast, for commands with many requests.

    The command must not clean up on its way out, as a killed process does not.
    """

    def run(at=0, *, is_after=False):
        count = 0

        def before(**_):
            nonlocal count
            count += 1
            if count == at and not is_after:
                raise Death

        def after(**_):
            if count == at and is_after:
                raise Death

        def client(self, service, **settings):
            made = usual(self, service, **settings)
            if not hasattr(made, "is_watched"):
                made.is_watched = True
                made.meta.events.register("before-call", before)
                made.meta.events.register("after-call", after)
            return made

        usual = Account.client
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Account, "client", client)
            if at:
                with pytest.raises(Death):
                    main([name, *arguments])
                return True
            assert main([name, *arguments]) == 0
        return count

    return survives(cloud, run, prepare, state)
