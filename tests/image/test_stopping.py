"""Stopped jobs save what they have; killed jobs resume from their checkpoint."""

import csv
import re
import time
from datetime import datetime, timedelta

import pytest

from tests.image.containers import QUICK, container, docker, job_flags, run_train

ENDLESS = QUICK | {"epochs": "1000"}


def time_of(line):
    """The engine's timestamp of a log line."""
    return datetime.fromisoformat(re.sub(r"(\.\d{6})\d*Z.*", r"\1+00:00", line.split()[0]))


def checkpoints(base):
    return sorted(path for path in (base / "checkpoints").rglob("*") if path.is_file())


def epochs(base):
    with (base / "output" / "data" / "history.csv").open(newline="") as file:
        return [int(row["epoch"]) for row in csv.DictReader(file)]


@pytest.fixture(scope="module")
def stopped(channel, tmp_path_factory):
    """A job that `docker stop` ended during an epoch: /opt/ml, exit code, log with times, time of the stop."""
    base = tmp_path_factory.mktemp("stopped")
    (base / "checkpoints").mkdir()
    with container("train", flags=job_flags(base, {"training": channel}, ENDLESS)) as job:
        job.wait_for("epoch=2;")
        at = datetime.now().astimezone()
        code, _ = job.stop(120)
        return base, code, docker("logs", "--timestamps", job.id), at


def test_a_stop_is_heard_at_once(stopped):
    _, _, log, at = stopped
    [line] = [line for line in log.stderr.splitlines() if "SIGTERM: stopping" in line]

    assert time_of(line) - at < timedelta(seconds=10)


def test_a_stop_ends_with_0_a_checkpoint_and_the_model(stopped):
    base, code, log, _ = stopped

    assert code == 0, log.stderr
    assert checkpoints(base)
    assert (base / "model" / "models" / "model.pt").is_file()
    assert (base / "model" / "docs" / "metrics.json").is_file()
    assert not (base / "output" / "failure").exists()
    assert "Warning" not in log.stderr + log.stdout


def test_a_job_that_was_killed_goes_on_from_its_checkpoint_and_ends_like_one_that_was_not(channel, tmp_path):
    settings = QUICK | {"epochs": "4", "deterministic": "true"}
    for name in ("killed", "whole"):
        (tmp_path / name / "checkpoints").mkdir(parents=True)
    flags = job_flags(tmp_path / "killed", {"training": channel}, settings)
    with container("train", flags=flags) as job:
        job.wait_for("epoch=2;")
        docker("kill", job.id)
        assert job.wait() == 137
    assert not (tmp_path / "killed" / "model" / "models").exists()

    second = run_train(tmp_path / "killed", {"training": channel}, settings)
    whole = run_train(tmp_path / "whole", {"training": channel}, settings)

    assert (second.code, whole.code) == (0, 0), second.log
    [start] = re.findall(r"resuming from epoch (\d+) of 4", second.log)
    assert 2 <= int(start) <= 4
    assert epochs(second.base) == epochs(whole.base) == [1, 2, 3, 4]
    result = [(job.base / "model" / "models" / "model.pt").read_bytes() for job in (second, whole)]
    assert result[0] == result[1]
    assert not [path for path in checkpoints(second.base) if path.name.endswith(".part")]


def test_a_torn_checkpoint_is_not_taken(channel, tmp_path):
    (tmp_path / "checkpoints").mkdir()
    settings = QUICK | {"epochs": "3"}
    with container("train", flags=job_flags(tmp_path, {"training": channel}, settings)) as job:
        job.wait_for("epoch=2;")
        docker("kill", job.id)
        job.wait()
    for path in checkpoints(tmp_path):
        path.write_bytes(path.read_bytes()[:-100])

    again = run_train(tmp_path, {"training": channel}, settings)

    assert again.code == 0, again.log
    assert "resuming from" not in again.log
    assert epochs(tmp_path) == [1, 2, 3]


def test_a_stop_while_hosts_are_waited_for_is_a_failure_that_says_so(channel, tmp_path):
    flags = job_flags(tmp_path, {"training": channel}, QUICK, hosts=("algo-1", "algo-2"))
    with container("train", flags=flags) as job:
        time.sleep(3)  # now it waits for algo-2, which never comes
        code, seconds = job.stop(120)

    assert code != 0
    assert seconds < 60
    assert (tmp_path / "output" / "failure").read_text().startswith("TrainingStopped: ")


def test_hosts_that_do_not_resolve_are_named_after_the_time_that_was_set(channel, tmp_path):
    base = tmp_path / "job"
    flags = job_flags(base, {"training": channel}, QUICK, hosts=("algo-1", "algo-2"))
    with container("train", flags=[*flags, "--env", "HOSTS_TIMEOUT_SECONDS=2"]) as job:
        assert job.wait(60) != 0
        log = job.log()

    failure = (base / "output" / "failure").read_text()
    assert failure.startswith("ConfigError: ")
    assert "algo-2" in failure
    assert failure in log
