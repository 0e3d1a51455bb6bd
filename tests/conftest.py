"""Settings and fixtures for all tests."""

import json
import logging
import os
from pathlib import Path

from tests.support.places import ROOT, SHARED_DATA

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch is imported: two spinning threads on busy cores cost 10x

import pytest
import torch
from hypothesis import HealthCheck, settings

from tests.support import loopback

# No deadline: how long an example takes depends on the machine's load. Every run has the same examples, so that only a
# change of the code makes a test fail; `python -m tests.attacks` draws new ones each time.
settings.register_profile(
    "untimed",
    deadline=None,
    derandomize="RANDOM_EXAMPLES" not in os.environ,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("untimed")

# Folders of quick tests, which run first: a newcomer soon sees that something passes.
QUICK = ("messages", "requests", "outputs", "preprocessing", "storage")


def pytest_collection_modifyitems(items):
    """Quick folders first, all else in its order: the sort is stable, so the tests of a module stay together."""
    ranks = {ROOT / "tests" / folder: rank for rank, folder in enumerate(QUICK)}
    items.sort(key=lambda item: ranks.get(item.path.parent, len(QUICK)))


def pytest_make_parametrize_id(config, val, argname):
    """Name bytes by their argument: archives contain the time of packing, and xdist's processes must all collect the
    same names.
    """
    return argname if isinstance(val, bytes) else None


@pytest.fixture(scope="session", autouse=True)
def one_thread():
    torch.set_num_threads(1)


@pytest.fixture
def without_sagemaker(monkeypatch):
    """An environment without the variables that SageMaker sets for jobs and endpoints."""
    for name in [name for name in os.environ if name.startswith(("SM_", "SAGEMAKER_"))]:
        monkeypatch.delenv(name)


@pytest.fixture(scope="session")
def small_bundle(tmp_path_factory) -> Path:
    """A small artifact, shared: copy it before changing it."""
    from tests.support.bundles import write_small_bundle

    folder = tmp_path_factory.mktemp("artifact") / "model"
    write_small_bundle(folder)
    return folder


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real data, which CI has."""
    folder = SHARED_DATA
    if not (folder / "ham10000" / "HAM10000_metadata").is_file():
        pytest.skip("needs the real data set (SHARED_DATA)")
    return folder


@pytest.fixture(scope="session")
def moto_endpoint():
    """A moto server in a thread of this process, for all its tests."""
    from moto.server import ThreadedMotoServer

    from tests.support.models import shared_models

    logging.getLogger("werkzeug").setLevel(logging.ERROR)  # its line for each request is noise
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    with shared_models():
        yield "http://{}:{}".format(*server.get_host_and_port())
    server.stop()


@pytest.fixture
def cloud(moto_endpoint, monkeypatch):
    """An empty AWS account, which boto3 finds in the environment."""
    import boto3

    from tests.support.cloud import Cloud, environment

    for name, value in environment(moto_endpoint).items():
        monkeypatch.setenv(name, value)
    for name in ("AWS_REGION", "AWS_PROFILE", "AWS_SESSION_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(boto3, "DEFAULT_SESSION", None)  # it keeps the previous test's credentials
    account = Cloud(moto_endpoint)
    account.reset()
    return account


class Advisories(loopback.Handler):
    """An OSV service that knows one vulnerability, in Pillow below 12."""

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
    """A running OSV service; `asked` records the packages of the requests."""
    with loopback.listening(Advisories, asked=[]) as server:
        server.url = f"http://127.0.0.1:{server.server_port}/v1/query"
        yield server
