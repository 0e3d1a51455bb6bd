"""What many tests share."""

import json
import logging
import os
from pathlib import Path

from tests.support.places import SHARED_DATA

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch is imported: two spinning threads on busy cores cost 10x

import pytest
import torch
from hypothesis import HealthCheck, settings

from tests.support import loopback

# How long an example takes says how busy the machine is, and nothing of the code. The examples are the same in every
# run: a change fails by what it changed. `python -m tests.attacks` draws others each time.
settings.register_profile(
    "untimed",
    deadline=None,
    derandomize="RANDOM_EXAMPLES" not in os.environ,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("untimed")


def pytest_make_parametrize_id(config, val, argname):
    """Bytes by the argument's name and a number: packed ones hold the second in which they were packed, and processes
    that collect the tests at the same time must give them the same names.
    """
    return argname if isinstance(val, bytes) else None


@pytest.fixture(scope="session", autouse=True)
def one_thread():
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def small_bundle(tmp_path_factory) -> Path:
    """A small artifact to read; to change one, copy it first."""
    from tests.support.bundles import write_small_bundle

    folder = tmp_path_factory.mktemp("artifact") / "model"
    write_small_bundle(folder)
    return folder


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real data; users do not have it, CI does."""
    folder = SHARED_DATA
    if not (folder / "ham10000" / "HAM10000_metadata").is_file():
        pytest.skip("needs the real data set (SHARED_DATA)")
    return folder


@pytest.fixture(scope="session")
def moto_endpoint():
    """moto as a server of its own process's thread, for all tests."""
    from moto.server import ThreadedMotoServer

    logging.getLogger("werkzeug").setLevel(logging.ERROR)  # a line for each request says nothing of a failed test
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    yield "http://{}:{}".format(*server.get_host_and_port())
    server.stop()


@pytest.fixture(scope="session")
def service_models():
    """botocore's reader of the services' models, with what it has read."""
    from botocore.loaders import create_loader

    return create_loader()


@pytest.fixture
def shared_models(service_models, monkeypatch):
    """Every session of botocore has what is read already: to read a model takes longer than what is asked."""
    monkeypatch.setattr("botocore.loaders.create_loader", lambda *_: service_models)


@pytest.fixture
def cloud(moto_endpoint, shared_models, monkeypatch):
    """An empty AWS account, which boto3 finds in the environment."""
    import boto3

    from tests.support.cloud import Cloud, environment

    for name, value in environment(moto_endpoint).items():
        monkeypatch.setenv(name, value)
    for name in ("AWS_REGION", "AWS_PROFILE", "AWS_SESSION_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(boto3, "DEFAULT_SESSION", None)  # it would remember the credentials of the test before
    account = Cloud(moto_endpoint)
    account.reset()
    return account


class Advisories(loopback.Handler):
    """Knows one vulnerability, of Pillow before 12."""

    def post(self):
        asked = json.loads(self.read())
        self.server.asked.append((asked["package"]["name"], asked["version"]))
        ranges = [{"type": "ECOSYSTEM", "events": [{"introduced": "0"}, {"fixed": "12.0"}]}]
        known = {
            "id": "PYSEC-2026-1",
            "aliases": ["CVE-2026-1"],
            "details": "A picture can do harm.",
            "affected": [{"package": {"name": "pillow", "ecosystem": "PyPI"}, "ranges": ranges}],
        }
        text = json.dumps({"vulns": [known]} if self.server.asked[-1] == ("pillow", "11.0") else {}).encode()
        self.answer(200, text)


@pytest.fixture
def advisories():
    """An OSV service; `asked` has the packages that it was asked about."""
    with loopback.listening(Advisories, asked=[]) as server:
        server.url = f"http://127.0.0.1:{server.server_port}/v1/query"
        yield server
