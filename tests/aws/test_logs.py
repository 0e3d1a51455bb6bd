"""`make logs`: whose log is printed, which lines of it, and until when."""

import argparse
import time
from datetime import UTC, datetime, timedelta

import pytest

from sagemaker_monai_aws.__main__ import main
from sagemaker_monai_aws.infrastructure import logs
from tests.support.cloud import PROJECT, not_refused
from tests.support.deployed import make_endpoint, make_training_job

JOB = f"{PROJECT}-train-1"
START = int(time.time() * 1000) - 3_600_000


def write(cloud, group, stream, *lines, start=START):
    client = cloud.client("logs")
    if not client.describe_log_groups(logGroupNamePrefix=group)["logGroups"]:
        client.create_log_group(logGroupName=group)
    client.create_log_stream(logGroupName=group, logStreamName=stream)
    events = [{"timestamp": start + 1000 * number, "message": line} for number, line in enumerate(lines)]
    client.put_log_events(logGroupName=group, logStreamName=stream, logEvents=events)


@pytest.fixture
def job(cloud):
    make_training_job(cloud.client("sagemaker"), JOB)
    write(cloud, "/aws/sagemaker/TrainingJobs", f"{JOB}/algo-1-1", "epoch 1", "epoch 2", "done")
    write(cloud, "/aws/sagemaker/TrainingJobs", f"{JOB}-2/algo-1-1", "of another job")
    return cloud


def printed(capsys, *arguments):
    assert main(["logs", *arguments]) == 0
    return capsys.readouterr().out.splitlines()


def test_without_a_name_it_is_the_newest_job_of_the_project(job, capsys):
    make_training_job(job.client("sagemaker"), f"{PROJECT}-x", tags=[])  # of others

    assert main(["logs"]) == 0

    out, err = capsys.readouterr()
    assert out.splitlines() == ["epoch 1", "epoch 2", "done"]
    assert f"the newest job is {JOB}" in err


def test_lines_are_chosen(job, capsys):
    for arguments, expected in (
        ([], ["epoch 1", "epoch 2", "done"]),
        (["--tail", "1"], ["done"]),
        (["--grep", "epoch [12]"], ["epoch 1", "epoch 2"]),
        (["--grep", "epoch", "--tail", "1"], ["epoch 2"]),
        (["--since", "1m"], []),
        (["--since", "2h"], ["epoch 1", "epoch 2", "done"]),
        (["--since", datetime.fromtimestamp((START + 1500) / 1000, UTC).isoformat()], ["done"]),
        (["--follow"], ["epoch 1", "epoch 2", "done"]),
        (["--follow", "--grep", "2"], ["epoch 2"]),
    ):
        assert printed(capsys, JOB, *arguments, "--poll-s", "0") == expected, arguments


def test_hosts_are_told_apart_in_the_order_of_time(job, capsys):
    write(job, "/aws/sagemaker/TrainingJobs", f"{JOB}/algo-2-1", "other host", start=START + 500)

    assert printed(capsys, JOB)[:2] == ["algo-1-1: epoch 1", "algo-2-1: other host"]


def test_an_endpoint_has_a_log_group_of_its_own(cloud, capsys):
    make_endpoint(cloud.client("sagemaker"), f"{PROJECT}-a")
    write(cloud, f"/aws/sagemaker/Endpoints/{PROJECT}-a", "AllTraffic/i-1", "200 /ping")
    write(cloud, f"/aws/sagemaker/Endpoints/{PROJECT}-a-2", "AllTraffic/i-1", "of another")

    assert printed(capsys, f"{PROJECT}-a") == ["200 /ping"]


def test_a_job_that_has_written_nothing_is_no_error(cloud, capsys):
    make_training_job(cloud.client("sagemaker"), JOB)

    assert printed(capsys, JOB) == []
    assert printed(capsys, JOB, "--follow", "--poll-s", "0") == []


def test_of_an_unknown_name_it_is_said_what_there_is(job, capsys):
    assert main(["logs", "nothing"]) == 2

    assert f"there is no job or endpoint 'nothing' in eu-central-1; there is: {JOB}" in capsys.readouterr().err


def test_what_is_wrong_is_said_with_the_remedy(cloud):
    assert not_refused("logs", [([], "`make train` starts one"), (["--tail", "0"], "--tail must be at least 1")]) == []


def test_a_tuning_job_names_the_jobs_that_have_logs(cloud, capsys, monkeypatch):
    monkeypatch.setattr(logs, "named", lambda *_: ("tuning", {"HyperParameterTuningJobStatus": "InProgress"}))
    pages = {"TrainingJobSummaries": [{"TrainingJobName": "t-001"}, {"TrainingJobName": "t-002"}]}
    monkeypatch.setattr(
        "sagemaker_monai_aws.core.account.Account.pages", lambda self, service, operation, key, **_: pages[key]
    )

    assert main(["logs", f"{PROJECT}-tune-1"]) == 2

    assert "its training jobs have: t-001, t-002" in capsys.readouterr().err


def test_moments_are_read():
    before, moment = datetime.now(UTC), logs.since("30m")

    assert before - timedelta(minutes=30) <= moment <= datetime.now(UTC) - timedelta(minutes=30)
    assert logs.since("2026-01-31T12:00+02:00") == datetime(2026, 1, 31, 10, tzinfo=UTC)
    assert logs.since("1d") < before - timedelta(hours=23)


@pytest.mark.parametrize(("read", "text"), [(logs.since, "yesterday"), (logs.since, "5"), (logs.pattern, "(")])
def test_what_cannot_be_read_is_told(read, text):
    with pytest.raises(argparse.ArgumentTypeError, match="takes"):
        read(text)
