import json

import pytest

from sagemaker_monai.errors import ConfigError, TrainingStopped, failure_line
from sagemaker_monai.sagemaker import cluster
from sagemaker_monai.sagemaker.cluster import Cluster, read_cluster, read_limits, wait_for_hosts
from tests.support.refusals import not_refused


def write(base, text):
    folder = base / "input" / "config"
    folder.mkdir(parents=True)
    (folder / "resourceconfig.json").write_text(text)


def test_the_file_of_sagemaker_says_who_the_hosts_are(tmp_path):
    write(
        tmp_path,
        '{"current_host": "algo-2", "hosts": ["algo-2", "algo-1"], "network_interface_name": "eth0",'
        '"current_instance_type": "ml.m5.large", "instance_groups": []}',
    )

    found = read_cluster(tmp_path, {})

    assert found == Cluster(("algo-1", "algo-2"), "algo-2", "eth0")
    assert found.index == 1


def test_the_environment_wins_over_the_file(tmp_path):
    write(tmp_path, '{"current_host": "algo-2", "hosts": ["algo-2", "algo-1"]}')
    environment = {"SM_HOSTS": '["a", "b", "c"]', "SM_CURRENT_HOST": "b", "SM_NETWORK_INTERFACE_NAME": "ens5"}

    assert read_cluster(tmp_path, environment) == Cluster(("a", "b", "c"), "b", "ens5")


def test_without_both_a_host_is_alone(tmp_path):
    assert len(read_cluster(tmp_path, {}).hosts) == 1


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "not JSON"),
        ("[]", "not JSON"),
        ('{"hosts": "algo-1", "current_host": "algo-1"}', "must be a list of names"),
        ('{"hosts": [1, 2], "current_host": "algo-1"}', "must be a list of names"),
        (
            '{"hosts": ["algo-1", "algo-2"], "current_host": "algo-3"}',
            "'algo-3' is not one of the hosts algo-1",
        ),
        ('{"hosts": ["algo-1", "algo-2"]}', "is not one of the hosts"),
    ],
)
def test_a_file_that_is_not_sagemakers_is_refused(text, message, tmp_path):
    write(tmp_path, text)

    with pytest.raises(ConfigError, match=message):
        read_cluster(tmp_path, {})


def test_a_host_that_never_resolves_is_named(monkeypatch):
    monkeypatch.setattr(cluster, "POLL_S", 0.01)

    with pytest.raises(ConfigError, match=r"do not resolve after 0.05 s: 1 \(algo-2.invalid\); put all containers"):
        wait_for_hosts(["127.0.0.1", "algo-2.invalid"], timeout_s=0.05, is_stopping=lambda: False)


def test_many_hosts_that_never_resolve_fit_into_the_failure_file(monkeypatch):
    names = ["x" * 60 + f"{index}.invalid" for index in range(100)]
    monkeypatch.setattr(cluster, "_resolves", lambda host: False)

    with pytest.raises(ConfigError) as caught:
        wait_for_hosts(names, timeout_s=0, is_stopping=lambda: False)
    assert "put all containers" in failure_line(caught.value)


def test_a_host_that_resolves_later_is_waited_for(monkeypatch):
    answers = iter([False, True])
    monkeypatch.setattr(cluster, "POLL_S", 0)
    monkeypatch.setattr(cluster, "_resolves", lambda host: next(answers))

    wait_for_hosts(["algo-2"], timeout_s=60, is_stopping=lambda: False)

    assert list(answers) == []


def test_waiting_can_be_stopped():
    with pytest.raises(TrainingStopped, match="waited for the other hosts"):
        wait_for_hosts(["algo-2.invalid"], timeout_s=60, is_stopping=lambda: True)


def test_the_limits_have_defaults():
    assert read_limits({}) == (300.0, 29500)
    assert read_limits({"HOSTS_TIMEOUT_SECONDS": "7.5", "MASTER_PORT": "1025"}) == (7.5, 1025)


def test_limits_out_of_range_are_refused():
    for name in ("HOSTS_TIMEOUT_SECONDS", "MASTER_PORT"):
        wrong = [{name: value} for value in ("x", "0", "-1", "nan", "inf", "99999999", "²")]
        assert not_refused(wrong, read_limits, ConfigError, f"{name} must be from") == []


def test_unresolved_hosts_end_a_job_of_several_hosts_in_its_first_minute(tmp_path, monkeypatch):
    from sagemaker_monai.entrypoints.train import main

    write(tmp_path, json.dumps({"current_host": "algo-1", "hosts": ["algo-1.invalid", "algo-1"]}))
    monkeypatch.setenv("SAGEMAKER_BASE_DIR", str(tmp_path))
    monkeypatch.setenv("HOSTS_TIMEOUT_SECONDS", "1")

    assert main(["--processes-per-host=1"]) == 1
    assert "algo-1.invalid" in (tmp_path / "output" / "failure").read_text()
