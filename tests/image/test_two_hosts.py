"""Two containers on one network are two hosts of one job."""

import uuid
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager

import pytest

from tests.image.containers import QUICK, Job, bind, container, docker, job_flags, variables

HOSTS = ("algo-1", "algo-2")
# Python imports this at start: it records the digest of a process's weights before each training step.
PROBE = """
import hashlib, importlib.abc, importlib.util, os, sys

class AfterImport(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name != "torch.nn.parallel.distributed":
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(name)
        run = spec.loader.exec_module
        def exec_module(module):
            run(module)
            watch(module.DistributedDataParallel)
        spec.loader.exec_module = exec_module
        return spec

def watch(kind):
    forward = kind.forward
    def noting(self, *inputs, **options):
        if self.training:
            state = self.module.state_dict()
            digest = hashlib.sha256(b"".join(value.cpu().numpy().tobytes() for value in state.values())).hexdigest()
            with open("/probe/steps", "a") as file:
                file.write(digest + "\\n")
        return forward(self, *inputs, **options)
    kind.forward = noting

sys.meta_path.insert(0, AfterImport())
"""


@contextmanager
def network():
    """An internal Docker network, until the block ends."""
    name = f"sagemaker-monai-test-{uuid.uuid4().hex[:12]}"
    docker("network", "create", "--internal", name)
    try:
        yield name
    finally:
        docker("network", "rm", name)


@contextmanager
def cluster(base, channels, hyperparameters, *, hosts=HOSTS, flags=lambda host: (), **environment):
    """All hosts of a job as running containers, each with its own /opt/ml below `base`."""
    with network() as name, ExitStack() as stack:
        yield [
            stack.enter_context(
                container(
                    "train",
                    flags=[
                        *job_flags(base / host, channels, hyperparameters, hosts=HOSTS, host=host, network=name),
                        *("--network-alias", host, *variables(**environment), *flags(host)),
                    ],
                )
            )
            for host in hosts
        ]


def jobs(base, containers, *, timeout_s=600):
    with ThreadPoolExecutor(len(containers)) as waiting:
        codes = list(waiting.map(lambda each: each.wait(timeout_s), containers))
    return [Job(code, each.log(), base / host) for code, each, host in zip(codes, containers, HOSTS, strict=False)]


@pytest.fixture(scope="module")
def trained_by_two(channel, tmp_path_factory):
    """The two finished jobs of a cluster, and the digests that each host recorded."""
    base = tmp_path_factory.mktemp("cluster")
    probes = {host: base / f"probe-{host}" for host in HOSTS}
    for probe in probes.values():
        probe.mkdir()
        (probe / "sitecustomize.py").write_text(PROBE)
    settings = QUICK | {"epochs": "2"}
    with cluster(
        base, {"training": channel}, settings, PYTHONPATH="/probe",
        flags=lambda host: bind(probes[host], "/probe", readonly=False),
    ) as containers:  # fmt: skip
        ended = jobs(base, containers)
        assert [job.code for job in ended] == [0, 0], "\n".join(job.log for job in ended)
    return ended, [(probes[host] / "steps").read_text().split() for host in HOSTS]


def test_both_hosts_have_the_same_weights_at_every_step(trained_by_two):
    _, (first, second) = trained_by_two

    assert len(set(first)) == 2 * 48 // 8  # epochs, images, images per step; and every step changed the weights
    assert first == second


def test_only_the_first_host_writes_the_model_and_reports(trained_by_two):
    (first, second), _ = trained_by_two

    assert (first.base / "model" / "models" / "model.pt").is_file()
    assert not list((second.base / "model").iterdir())
    assert "validation_loss=" in first.log
    assert "validation_loss=" not in second.log


def test_no_host_warns_or_fails(trained_by_two):
    for job in trained_by_two[0]:
        assert job.failure is None
        assert "Warning" not in job.log
        assert "PATIENT" not in job.log


def test_a_failure_of_one_host_ends_both_with_its_cause(channel, tmp_path):
    with cluster(tmp_path, {"training": channel}, QUICK | {"epochs": "none"}) as containers:
        for job in jobs(tmp_path, containers):
            assert job.code != 0
            assert job.failure.startswith("ConfigError: epochs must be")


def test_a_host_that_is_killed_ends_the_other_with_a_cause(channel, tmp_path):
    with cluster(tmp_path, {"training": channel}, QUICK | {"epochs": "1000"}) as containers:
        containers[0].wait_for("epoch=1;")
        docker("kill", containers[1].id)

        first = jobs(tmp_path, containers, timeout_s=300)[0]

    assert first.code != 0
    assert first.failure
    assert len(first.failure) <= 1024


def test_docker_stop_of_both_ends_with_one_model(channel, tmp_path):
    with cluster(tmp_path, {"training": channel}, QUICK | {"epochs": "1000"}) as containers:
        containers[0].wait_for("epoch=2;")
        with ThreadPoolExecutor(2) as stopping:
            ended = list(stopping.map(lambda each: each.stop(), containers))

    assert [code for code, _ in ended] == [0, 0]
    assert (tmp_path / "algo-1" / "model" / "models" / "model.pt").is_file()
    assert not list((tmp_path / "algo-2" / "model").iterdir())
