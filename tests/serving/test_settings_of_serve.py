import dataclasses
import math
import re
from pathlib import Path

import pytest
from sagemaker_inference import parameters

from sagemaker_monai.errors import ConfigError
from sagemaker_monai.serving.settings import VARIABLES, ServeConfig, usable_cpus, visible_gpus
from tests.support.places import ROOT

SOURCE = ROOT / "container_src/sagemaker_monai/serving/settings.py"


def test_the_defaults_are_those_of_a_sagemaker_endpoint():
    config = ServeConfig.from_env({})

    assert config.model_dir == Path("/opt/ml/model")
    assert (config.port, config.timeout_s, config.max_payload_mb, config.back_end) == (8080, 60.0, 100, "workers")
    assert not config.allow_bundle_code
    assert config.workers == usable_cpus() or visible_gpus({})
    assert config.max_waiting == 64 * config.workers


def test_an_empty_variable_counts_as_unset():
    assert ServeConfig.from_env({"SAGEMAKER_BIND_TO_PORT": " ", "MODEL_SERVER": ""}) == ServeConfig.from_env({})


@pytest.mark.parametrize(
    ("env", "seconds"),
    [
        ({"SAGEMAKER_MODEL_SERVER_TIMEOUT_SECONDS": "7"}, 7),
        ({"SAGEMAKER_MODEL_SERVER_TIMEOUT": "2"}, 120),
        ({"SAGEMAKER_MODEL_SERVER_TIMEOUT": "3600"}, 86_400),
        ({"SAGEMAKER_MODEL_SERVER_TIMEOUT": "2", "SAGEMAKER_MODEL_SERVER_TIMEOUT_SECONDS": "7"}, 7),
    ],
)
def test_the_older_timeout_is_in_minutes_and_gives_way_to_the_one_in_seconds(env, seconds):
    assert ServeConfig.from_env(env).timeout_s == seconds


def test_batch_transform_may_take_its_time_and_is_not_refused():
    config = ServeConfig.from_env({"SAGEMAKER_BATCH": "True"})  # as the SDK's local mode writes it

    assert config.timeout_s == 3_600  # the most that InvocationsTimeoutInSeconds may be
    assert config.max_waiting >= 1_000
    assert ServeConfig.from_env({"SAGEMAKER_BATCH": "true", "SAGEMAKER_MODEL_SERVER_TIMEOUT": "2"}).timeout_s == 120


def test_a_batch_transform_job_gets_no_more_workers_than_it_keeps_busy(monkeypatch):
    monkeypatch.setattr("sagemaker_monai.serving.settings.usable_cpus", lambda: 8)
    job = {"SAGEMAKER_BATCH": "true", "CUDA_VISIBLE_DEVICES": "-1"}

    one = ServeConfig.from_env(job | {"SAGEMAKER_MAX_CONCURRENT_TRANSFORMS": "1"})
    assert (one.workers, one.threads) == (1, 8)
    assert ServeConfig.from_env(job | {"SAGEMAKER_MAX_CONCURRENT_TRANSFORMS": "50"}).workers == 8
    assert ServeConfig.from_env(job | {"SAGEMAKER_MAX_CONCURRENT_TRANSFORMS": "0"}).workers == 8
    assert ServeConfig.from_env({"CUDA_VISIBLE_DEVICES": "-1", "SAGEMAKER_MAX_CONCURRENT_TRANSFORMS": "1"}).workers == 8


@pytest.mark.parametrize("workers", ["1", "3", "16", "100", "512"])
@pytest.mark.parametrize("payload", ["0", "1", "6", "100"])
def test_the_proposed_parameters_are_allowed_in_a_transform_job(workers, payload):
    env = {"SAGEMAKER_MODEL_SERVER_WORKERS": workers, "SAGEMAKER_MAX_PAYLOAD_IN_MB": payload}

    config = ServeConfig.from_env(env)

    at_once, megabytes = config.max_concurrent_transforms, config.max_transform_payload_mb
    assert 1 <= at_once <= int(workers)
    assert 1 <= megabytes <= (int(payload) or 100)
    assert at_once * megabytes <= 100


def test_a_payload_limit_of_zero_is_the_largest():
    assert ServeConfig.from_env({"SAGEMAKER_MAX_PAYLOAD_IN_MB": "0"}).max_payload_mb == 1_024


def test_the_places_of_the_artifact():
    assert ServeConfig.from_env({"SAGEMAKER_BASE_DIR": "/data/ml"}).model_dir == Path("/data/ml/model")
    both = {"SAGEMAKER_BASE_DIR": "/data/ml", "SM_MODEL_DIR": "/elsewhere"}
    assert ServeConfig.from_env(both).model_dir == Path("/elsewhere")


def test_the_safe_port_range_includes_both_ends():
    assert list(ServeConfig.from_env({"SAGEMAKER_SAFE_PORT_RANGE": "21000-21002"}).inner_ports) == [21000, 21001, 21002]


def test_answers_are_limited_where_deploy_says_so_and_never_in_batch_transform():
    assert ServeConfig.from_env({"MAX_ANSWER_IN_MB": "6"}).max_answer_bytes == 6_291_456
    assert ServeConfig.from_env({}).max_answer_bytes == math.inf
    assert ServeConfig.from_env({"MAX_ANSWER_IN_MB": "6", "SAGEMAKER_BATCH": "true"}).max_answer_bytes == math.inf


def test_the_log_level_may_be_pythons_number():
    assert ServeConfig.from_env({"SAGEMAKER_CONTAINER_LOG_LEVEL": "40"}).log_level == "ERROR"
    assert ServeConfig.from_env({"SAGEMAKER_CONTAINER_LOG_LEVEL": "debug"}).log_level == "DEBUG"


WRONG = {
    "SAGEMAKER_BIND_TO_PORT": ("http", "65536", "0"),
    "SAGEMAKER_MODEL_SERVER_WORKERS": ("0", "-1"),
    "SAGEMAKER_MODEL_SERVER_TIMEOUT_SECONDS": ("1.5",),
    "SAGEMAKER_MODEL_SERVER_TIMEOUT": ("x",),
    "SAGEMAKER_MAX_PAYLOAD_IN_MB": ("1e9",),
    "MAX_ANSWER_IN_MB": ("6MB", "-1", "2000"),
    "SAGEMAKER_SAFE_PORT_RANGE": ("21002-21000", "21000"),
    "SAGEMAKER_CONTAINER_LOG_LEVEL": ("LOUD", "41"),
    "SAGEMAKER_STARTUP_TIMEOUT": ("soon",),
    "SAGEMAKER_DEFAULT_INVOCATIONS_ACCEPT": ("csv",),
    "MODEL_SERVER": ("torchserve",),
    "MAX_BATCH_SIZE": ("0",),
    "OMP_NUM_THREADS": ("many",),
    **dict.fromkeys(("SAGEMAKER_BATCH", "ALLOW_BUNDLE_CODE", "SAGEMAKER_MULTI_MODEL"), ("yes",)),
}


@pytest.mark.parametrize(("name", "value"), [(name, value) for name, values in WRONG.items() for value in values])
def test_a_wrong_value_is_refused_with_its_name_and_value(name, value):
    with pytest.raises(ConfigError, match=name) as refusal:
        ServeConfig.from_env({name: value})

    assert value in str(refusal.value) or value == "41"


def test_many_models_have_one_process_each_on_the_multi_model_server():
    env = {"SAGEMAKER_MULTI_MODEL": "true", "SAGEMAKER_BASE_DIR": "/data/ml"}
    config = ServeConfig.from_env(env)

    assert (config.is_multi_model, config.models_dir) == (True, Path("/data/ml/models"))
    assert (config.workers, config.threads, config.back_end) == (1, usable_cpus(), "mms")
    chosen = ServeConfig.from_env(env | {"MODEL_SERVER": "workers", "SAGEMAKER_MODEL_SERVER_WORKERS": "2"})
    assert (chosen.workers, chosen.back_end) == (2, "workers")
    assert not ServeConfig.from_env({}).is_multi_model


def test_threads_and_workers_share_the_cpus():
    one = ServeConfig.from_env({"SAGEMAKER_MODEL_SERVER_WORKERS": "1"})
    many = ServeConfig.from_env({"SAGEMAKER_MODEL_SERVER_WORKERS": "300"})

    assert (one.threads, many.threads) == (usable_cpus(), 1)


@pytest.mark.parametrize(
    ("files", "most"),
    [
        ({"cpu.max": "50000 100000\n"}, 1),
        ({"cpu.max": "100000 100000\n"}, 1),
        ({"cpu.max": "max 100000\n"}, None),
        ({"cpu/cpu.cfs_quota_us": "100000\n", "cpu/cpu.cfs_period_us": "100000\n"}, 1),
        ({"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}, None),
        ({}, None),
    ],
)
def test_a_containers_quota_limits_the_cpus(tmp_path, files, most):
    (tmp_path / "cpu").mkdir()
    for name, text in files.items():
        (tmp_path / name).write_text(text)

    unlimited = usable_cpus(cgroup=tmp_path / "missing")

    assert usable_cpus(cgroup=tmp_path) == (most or unlimited)


def test_gpus_are_counted_by_their_device_files(tmp_path):
    for name in ("nvidia0", "nvidia1", "nvidia-uvm", "nvidiactl"):
        (tmp_path / name).touch()

    assert visible_gpus({}, devices=tmp_path) == 2
    assert visible_gpus({"CUDA_VISIBLE_DEVICES": "-1"}, devices=tmp_path) == 0


def test_every_variable_that_is_read_is_documented():
    text = SOURCE.read_text().partition("VARIABLES")[0]
    read = {name for name in VARIABLES if f'"{name}"' in text}
    read |= {getattr(parameters, name) for name in re.findall(r"parameters\.(\w+)", text)}

    assert read - {parameters.BASE_PATH_ENV} == set(VARIABLES)  # told beside SM_MODEL_DIR


def test_the_configuration_cannot_change():
    with pytest.raises(dataclasses.FrozenInstanceError):
        ServeConfig.from_env({}).port = 1
