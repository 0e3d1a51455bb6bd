import re
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sagemaker_monai.errors import ConfigError, failure_line
from sagemaker_monai.hyperparameters import TrainConfig, hyperparameter_rows, hyperparameter_table, network_names
from sagemaker_monai.networks.networks import MIN_IMAGE_SIZE, NETWORKS
from sagemaker_monai.preprocessing.fits import FITS
from sagemaker_monai.preprocessing.intensity import WINDOWS
from sagemaker_monai.preprocessing.presets import _NAMED_INTENSITIES, PRESETS
from sagemaker_monai.tasks.losses import IMBALANCE
from sagemaker_monai.tasks.tasks import TASKS, metric_goals
from sagemaker_monai.training.augmentation import AUGMENTATIONS
from sagemaker_monai.training.optimizers import build_optimizer

FIELDS = TrainConfig.model_fields


def choices(name):
    return set(get_args(FIELDS[name].annotation))


def fault(**hyperparameters):
    with pytest.raises(ConfigError) as caught:
        TrainConfig.parse(hyperparameters)
    return str(caught.value)


def test_the_choices_of_a_hyperparameter_are_the_rows_of_its_table():
    tables = {"augmentation": AUGMENTATIONS, "imbalance": IMBALANCE, "fit": FITS, "preset": PRESETS}

    assert {field: choices(field) - {"auto"} for field in tables} == {
        field: set(table) for field, table in tables.items()
    }


@pytest.mark.parametrize(
    ("field", "names"),
    [("task", ["auto", *TASKS]), ("best_metric", ["auto", *metric_goals()]), ("network", ["auto", *network_names()])],
)
def test_the_choices_that_are_rows_of_a_table_are_looked_up_there(field, names):
    for value in names:
        assert getattr(TrainConfig.parse({field: value}), field) == value
    assert f"{field} must be one of {', '.join(names)}, got 'x'" in fault(**{field: "x"})


def test_every_window_that_a_preset_knows_may_be_asked_for_and_no_other():
    allowed = dict(TrainConfig.model_fields["window"].json_schema_extra)["allowed"]
    for window in ("preset", *_NAMED_INTENSITIES, *WINDOWS):
        assert TrainConfig.parse({"window": window}).window == window
        assert window in allowed
    for window in ("-600/1500", "40/400", "0.5/1.5"):
        assert TrainConfig.parse({"window": window}).window == window
    for window in ("", "lungs", "40", "40/", "/400", "a/b"):
        assert "window" in fault(window=window)


def test_the_smallest_image_is_that_of_some_network():
    smallest = min(MIN_IMAGE_SIZE, *(row.smallest_3d for row in NETWORKS.values()))

    assert TrainConfig.parse({"image_size": str(smallest)}).image_size == smallest
    assert f"image_size must be a whole number from {smallest}" in fault(image_size=str(smallest - 1))


@pytest.mark.parametrize(
    ("field", "value", "ways"),
    [
        ("epochs", 8, ["8", '"8"', ' " 8 " ', "+8", 8]),
        ("learning_rate", 0.001, ["1e-3", 0.001]),
        ("learning_rate", 0.5, [".5"]),
        ("learning_rate", 1.0, ["1", 1]),
        ("deterministic", True, ["true", "True", "1", True]),
        ("deterministic", False, ["false", "0", '"false"']),
        ("network", "resnet50", ['"resnet50"', " resnet50\n"]),
    ],
)
def test_values_are_read_as_sagemaker_and_shells_write_them(field, value, ways):
    read = [getattr(TrainConfig.parse({field: way}), field) for way in ways]

    assert read == [value] * len(ways)
    assert {type(each) for each in read} == {type(value)}


WHOLE_NUMBERS_NOT_TAKEN = [
    "8.5", "8.0", 8.0, "1_000", "٣", "0x10", "1e3", "0", "-1", "10001", "9" * 5000, True, None, [8],
]  # fmt: skip


@pytest.mark.parametrize(
    ("field", "values"),
    [
        ("epochs", WHOLE_NUMBERS_NOT_TAKEN),
        ("batch_size", ["1"]),
        ("learning_rate", ["nan", "inf", "1e999", "-inf", "0", "1,5", "1.5.2"]),
        ("deterministic", ["yes", "2", 2]),
        ("network", ["ResNet18", "résnet18", '"resnet18', {"a": 1}]),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_value_of_another_type_or_range_is_refused_by_name_with_what_is_allowed(field, values):
    for value in values:
        message = fault(**{field: value})

        assert message.startswith(f"{field} must be "), value
        assert "got" in message
        assert len(message) < 400


def test_an_empty_value_is_refused_and_does_not_mean_the_default():
    for empty in ("", "  ", '""', '" "'):
        assert fault(network=empty) == "network is empty: give a value or leave it out"


def test_an_unknown_name_is_answered_with_the_nearest_known():
    nearest = {
        "epoch": "epochs", "batchsize": "batch_size", "learning-rates": "learning_rate", "Optimizer": "optimizer",
        "ema": "ema_decay", "lr": "learning_rate", "wd": "weight_decay", "BS": "batch_size",
    }  # fmt: skip
    for name, meant in nearest.items():
        assert f"did you mean {meant}?" in fault(**{name: "1"})


def test_a_name_without_any_similar_one_points_to_the_help():
    assert fault(qqqq="1") == "unknown hyperparameter 'qqqq', see train --help"


def test_dashes_in_names_are_underscores():
    assert TrainConfig.parse({"batch-size": "4"}).batch_size == 4


def test_the_same_hyperparameter_with_dash_and_underscore_is_refused():
    assert "given twice" in fault(**{"batch-size": "4", "batch_size": "8"})


def test_all_faults_are_reported_at_once():
    message = fault(epochs="0", network="alexnet", epoch="3", learning_rate="", seed="-1")

    for part in ("epochs must", "'alexnet'", "did you mean epochs?", "learning_rate is empty", "seed must"):
        assert part in message


@given(st.dictionaries(st.text(max_size=60), st.text(max_size=2000), min_size=1, max_size=60))
def test_whatever_is_given_the_answer_is_a_configuration_or_one_short_printable_line(hyperparameters):
    error = None
    try:
        TrainConfig.parse(hyperparameters)
    except ConfigError as caught:
        error = caught
    if error is not None:
        assert len(str(error)) < 1011  # the failure file has 1,024 for this and "ConfigError: "
        assert str(error).isprintable()
        assert failure_line(error) == " ".join(f"ConfigError: {error}".split())


def test_many_faults_are_cut_at_whole_faults_and_the_rest_is_counted():
    message = fault(**{f"unknown_hyperparameter_{index}": "x" for index in range(100)})

    shown = message.count("unknown hyperparameter ")
    assert re.search(rf"; and {100 - shown} more faults$", message)
    assert shown >= 10
    assert len(message) <= 1000


def test_what_sagemaker_adds_for_itself_is_ignored():
    names = ("sagemaker_program", "sagemaker_region", "_tuning_objective_metric", "sagemaker_submit_directory")

    assert TrainConfig.parse(dict.fromkeys(names, '"anything"') | {"epochs": "3"}) == TrainConfig(epochs=3)


def test_fractions_that_leave_nothing_to_train_on_are_refused():
    assert "0.5 + 0.5" in fault(validation_fraction="0.5", test_fraction="0.5")


@pytest.mark.parametrize(
    ("given", "condition"),
    [
        ({"momentum": "0.5"}, "optimizer=sgd"),
        ({"focal_gamma": "1"}, "imbalance=focal"),
        ({"logit_adjustment_tau": "2", "imbalance": "none"}, "imbalance=logit_adjusted"),
    ],
)
def test_a_value_that_can_have_no_effect_is_refused(given, condition):
    [name] = set(given) - {"imbalance"}
    assert f"{name} has an effect only with {condition}" in fault(**given)


def test_a_dumped_configuration_can_be_given_again():
    config = TrainConfig(epochs=3, imbalance="focal", focal_gamma=1.5)

    assert TrainConfig.parse(config.model_dump()) == config
    assert TrainConfig.parse({name: str(value) for name, value in config.model_dump().items()}) == config


def test_a_configuration_cannot_be_changed():
    with pytest.raises(ValueError, match="frozen"):
        TrainConfig().epochs = 3


@pytest.mark.parametrize("optimizer", sorted(choices("optimizer")))
def test_every_optimizer_is_made(optimizer):
    import torch

    made = build_optimizer(TrainConfig(optimizer=optimizer), torch.nn.Linear(2, 2))

    assert type(made).__name__.lower() == optimizer


def test_every_hyperparameter_has_help_and_a_default_inside_its_own_range():
    assert TrainConfig.parse({name: str(field.default) for name, field in FIELDS.items()}) == TrainConfig()
    assert all(field.description for field in FIELDS.values())


def test_the_table_has_one_markdown_row_for_each_hyperparameter():
    lines = hyperparameter_table().splitlines()

    assert len(lines) == len(FIELDS) + 2
    assert {line.count("|") for line in lines} == {5}
    assert "| `seed` | a whole number from 0 to 4294967295 | `0` |" in lines[2 + list(FIELDS).index("seed")]
    assert [row[0] for row in hyperparameter_rows()] == list(FIELDS)
