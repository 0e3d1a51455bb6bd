"""`train` with several processes and hosts: two loopback addresses stand for two hosts, each with its own /opt/ml."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from sagemaker_monai.artifact.bundle import read_bundle
from tests.sagemaker.test_train_entrypoint import CLASSES, class_folders, failure

HOSTS = ("127.0.0.1", "127.0.0.2")
QUICK = {"image_size": "32", "batch_size": "8", "num_workers": "1", "augmentation": "light",
         "network": "resnet10"}  # fmt: skip
LIMIT_S = 150


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pictures")
    class_folders(folder, number=12)
    return folder


class Host:
    """One host of a job and its `train`."""

    def __init__(self, base, pictures, *, name="127.0.0.1", hosts=("127.0.0.1",), port=None, **hyperparameters):
        self.base = base
        config = base / "input" / "config"
        config.mkdir(parents=True, exist_ok=True)
        resources = {"current_host": name, "hosts": list(hosts), "network_interface_name": "lo"}
        (config / "resourceconfig.json").write_text(json.dumps(resources))
        (config / "hyperparameters.json").write_text(json.dumps(QUICK | hyperparameters))
        environment = {key: value for key, value in os.environ.items() if not key.startswith(("SM_", "SAGEMAKER_"))}
        environment |= {"SAGEMAKER_BASE_DIR": str(base), "SM_CHANNEL_TRAINING": str(pictures)}
        environment |= {"OMP_NUM_THREADS": "1", "HOSTS_TIMEOUT_SECONDS": "60", "PYTHONUNBUFFERED": "1"}
        environment |= {"MASTER_PORT": str(port)} if port else {}
        (base / "tmp").mkdir(exist_ok=True)
        environment["TMPDIR"] = str(base / "tmp")  # what a killed job leaves behind goes with the test
        self._log = base / "log"
        with self._log.open("wb") as log:
            command = [sys.executable, "-m", "sagemaker_monai.entrypoints.train"]
            self.process = subprocess.Popen(command, env=environment, stdout=log, stderr=subprocess.STDOUT)

    @property
    def log(self):
        return self._log.read_text()

    def wait(self):
        return self.process.wait(LIMIT_S)

    def wait_for(self, pattern):
        end = time.monotonic() + LIMIT_S
        while not re.search(pattern, self.log):
            assert self.process.poll() is None, self.log
            assert time.monotonic() < end, self.log
            time.sleep(0.02)

    def workers(self):
        """Numbers of the processes that train, of this host."""
        found = []
        for entry in Path("/proc").glob("[0-9]*"):
            try:
                command = (entry / "cmdline").read_bytes().split(b"\0")
                environment = (entry / "environ").read_bytes().split(b"\0")
            except OSError:
                continue
            is_ours = f"SAGEMAKER_BASE_DIR={self.base}".encode() in environment
            if is_ours and b"-u" in command and b"sagemaker_monai.entrypoints.rank" in command:
                found.append(int(entry.name))
        return found


@pytest.fixture
def start(tmp_path):
    started = []

    def start(folder, *arguments, **options):
        started.append(Host(tmp_path / folder, *arguments, **options))
        return started[-1]

    yield start
    for host in started:
        host.process.kill()
        host.process.wait()


@pytest.fixture
def start_two(start, unused_port):
    def start_two(*pictures, **hyperparameters):
        return [
            start(f"host{index}", pictures[index % len(pictures)], name=HOSTS[index], hosts=HOSTS, port=unused_port,
                  **hyperparameters)
            for index in range(2)
        ]  # fmt: skip

    return start_two


@pytest.fixture
def unused_port():
    with socket.socket() as free:
        free.bind((HOSTS[0], 0))
        return free.getsockname()[1]


def artifact_files(host):
    return [path for path in (host.base / "model").rglob("*") if path.is_file()]


@pytest.mark.long
def test_two_hosts_train_one_model_and_the_first_one_writes_it(start_two, pictures):
    first, second = start_two(pictures, epochs="2", processes_per_host="1")

    assert (first.wait(), second.wait()) == (0, 0), first.log + second.log
    assert read_bundle(first.base / "model").labels == CLASSES
    assert json.loads((first.base / "output" / "data" / "metrics.json").read_text())["best_epoch"] in (1, 2)
    assert len(list((first.base / "checkpoints").rglob("*.pt"))) == 2
    for folder in ("model", "checkpoints", "output/data"):
        assert [path for path in (second.base / folder).rglob("*") if path.is_file()] == []
    assert first.log.count("epoch=1; ") == 1
    assert "epoch=" not in second.log
    assert "Warning" not in first.log + second.log


@pytest.mark.long
def test_several_processes_of_one_host_train_one_model(start, pictures):
    host = start("host", pictures, epochs="1", processes_per_host="2")

    assert host.wait() == 0, host.log
    assert read_bundle(host.base / "model").labels == CLASSES
    assert host.log.count("test_accuracy=") == 1


@pytest.mark.long
def test_sigterm_to_one_host_ends_all_of_them_well(start_two, pictures):
    first, second = start_two(pictures, epochs="500", processes_per_host="1")
    first.wait_for("epoch=1; ")

    second.process.send_signal(signal.SIGTERM)

    assert (first.wait(), second.wait()) == (0, 0), first.log + second.log
    assert "SIGTERM: stopping after this step" in second.log
    written = json.loads((first.base / "model" / "configs" / "train.json").read_text())
    assert re.fullmatch(r"asked to stop in epoch \d+", written["stopped"])


@pytest.mark.long
def test_a_process_that_is_killed_ends_all_hosts_with_the_cause(start_two, pictures):
    first, second = start_two(pictures, epochs="500", processes_per_host="1")
    first.wait_for("epoch=1; ")

    [worker] = second.workers()
    os.kill(worker, signal.SIGKILL)

    assert (first.wait(), second.wait()) == (1, 1)
    assert failure(second.base).startswith("InternalError: a training process was killed by SIGKILL")
    assert failure(first.base) == failure(second.base)


@pytest.mark.long
def test_a_host_that_vanishes_ends_the_other_one(start_two, pictures):
    first, second = start_two(pictures, epochs="500", processes_per_host="1")
    first.wait_for("epoch=1; ")

    for process in [*first.workers(), first.process.pid]:
        os.kill(process, signal.SIGKILL)

    assert second.wait() == 1
    assert failure(second.base).startswith("InternalError: ")


@pytest.mark.long
def test_hosts_with_different_data_are_refused_on_both(start_two, pictures, tmp_path):
    class_folders(tmp_path / "shard", number=11)
    first, second = start_two(pictures, tmp_path / "shard", epochs="1", processes_per_host="1")

    assert (first.wait(), second.wait()) == (1, 1)
    for host in (first, second):
        assert re.match("ConfigError: the hosts have different data sets: .*FullyReplicated", failure(host.base))
        assert artifact_files(host) == []


@pytest.mark.long
def test_a_fault_of_one_host_is_the_failure_of_all(start_two, pictures, tmp_path):
    class_folders(tmp_path / "broken", number=12)
    (tmp_path / "broken" / "red" / "0.png").write_bytes(b"no picture")
    first, second = start_two(pictures, tmp_path / "broken", epochs="1", max_unreadable_fraction="0")

    assert (first.wait(), second.wait()) == (1, 1)
    assert failure(first.base) == failure(second.base)


@pytest.mark.long
def test_a_killed_job_goes_on_and_gives_the_model_of_one_that_was_not(start, pictures):
    settings = {"epochs": "4", "network": "resnet18"}
    whole = start("whole", pictures, **settings)
    assert whole.wait() == 0, whole.log

    killed = start("killed", pictures, **settings)
    killed.wait_for("epoch=2; ")
    killed.process.kill()
    killed.process.wait()
    again = start("killed", pictures, **settings)
    assert again.wait() == 0, again.log

    assert "resuming from epoch" in again.log
    assert read_bundle(again.base / "model").model_version == read_bundle(whole.base / "model").model_version
    history = [
        [line.rsplit(",", 1)[0] for line in (host.base / "output" / "data" / "history.csv").read_text().splitlines()]
        for host in (again, whole)
    ]
    assert history[0] == history[1]

    shipped = start("killed", pictures, **settings)
    assert shipped.wait() == 0
    assert "this job was already trained (4 epochs)" in shipped.log
    assert "epoch=" not in shipped.log
    other = start("killed", pictures, **settings, seed="5")
    assert other.wait() == 0
    assert "checkpoints of 1 other jobs" in other.log
