import json
import os
import re

import pytest

from sagemaker_monai.errors import ConfigError
from sagemaker_monai.hyperparameters import TrainConfig
from sagemaker_monai.sagemaker.inputs import PLACES, Places, read_channels, read_hyperparameters


@pytest.fixture
def places(tmp_path):
    (tmp_path / "input" / "config").mkdir(parents=True)
    return Places.from_environment({"SAGEMAKER_BASE_DIR": str(tmp_path)})


def parse(places, **hyperparameters):
    """As SageMaker gives them: a JSON file of strings."""
    (places.base / "input" / "config" / "hyperparameters.json").write_text(json.dumps(hyperparameters))
    return TrainConfig.parse(read_hyperparameters([], places, {}))


def test_strings_and_json_in_strings_are_values(places):
    config = parse(
        places,
        learning_rate='"0.003"',
        epochs=" 7 ",
        deterministic='"true"',
        network='"densenet121"',
        sagemaker_job_name='"é-中文"',
    )

    assert (config.learning_rate, config.epochs, config.deterministic, config.network) == (
        0.003,
        7,
        True,
        "densenet121",
    )


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("epochs", "", "epochs is empty: give a value or leave it out"),
        ("epochs", '""', "epochs is empty: give a value or leave it out"),
        ("epochs", "[1,2]", r"epochs must be a whole number from 1 to 10000, got '\[1,2\]'"),
        ("epochs", '{"a": 1}', "epochs must be a whole number"),
        ("epochs", "true", "epochs must be a whole number"),
        ("epochs", "3٣", r"epochs must be a whole number .* got '3\\u0663'"),
        ("deterministic", "[true]", "deterministic must be true or false"),
        ("network", "résnet", r"network must be one of .* got 'r\\xe9snet'"),
        ("épochs", "3", r"unknown hyperparameter '\\xe9pochs', did you mean epochs\?"),
    ],
)
def test_other_values_are_refused_by_name(name, value, message, places):
    with pytest.raises(ConfigError, match=message):
        parse(places, **{name: value})


def test_a_channel_in_pipe_mode_is_refused_with_the_modes_that_work(places):
    channels = {
        "training": {"TrainingInputMode": "Pipe", "S3DistributionType": "FullyReplicated"},
        "pretrained": {"TrainingInputMode": "File"},
    }
    (places.base / "input" / "config" / "inputdataconfig.json").write_text(json.dumps(channels))

    with pytest.raises(ConfigError, match="Pipe mode: training; set TrainingInputMode to File or FastFile"):
        read_channels(places, {})


def test_a_pipe_among_the_channels_is_refused(places):
    (places.base / "input" / "data" / "validation").mkdir(parents=True)
    os.mkfifo(places.base / "input" / "data" / "train_set_0")
    os.mkfifo(places.base / "input" / "data" / "train_set_1")

    with pytest.raises(ConfigError, match="Pipe mode: train_set; set"):
        read_channels(places, {})


@pytest.mark.parametrize("mode", ["File", "FastFile"])
def test_channels_of_files_are_read(mode, places):
    (places.base / "input" / "data" / "training").mkdir(parents=True)
    (places.base / "input" / "config" / "inputdataconfig.json").write_text(
        json.dumps({"training": {"TrainingInputMode": mode}})
    )

    assert list(read_channels(places, {})) == ["training"]


@pytest.mark.parametrize("text", ["{", "\x00"])
def test_a_broken_list_of_channels_is_refused(text, places):
    (places.base / "input" / "config" / "inputdataconfig.json").write_text(text)

    with pytest.raises(ConfigError, match=re.escape("inputdataconfig.json is not JSON")):
        read_channels(places, {})


def test_every_place_is_documented_once():
    assert {"SM_CHECKPOINT_DIR", "SM_HOSTS", "SM_CURRENT_HOST", "HOSTS_TIMEOUT_SECONDS", "MASTER_PORT"} <= set(PLACES)
