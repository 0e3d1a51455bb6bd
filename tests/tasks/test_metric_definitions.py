"""What SageMaker finds in the log of a real training, with nothing but the regular expressions that it is given."""

import csv
import gzip
import io
import json
import math
import re
import subprocess
import sys
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

import botocore
import pytest

from sagemaker_monai.entrypoints import train
from sagemaker_monai.tasks.metric_names import (
    MAX_DEFINITIONS,
    OBJECTIVES,
    epoch_line,
    logged_names,
    metric_definitions,
    row_names,
    scores_line,
)
from sagemaker_monai.tasks.tasks import TASKS
from tests.sagemaker.test_train_entrypoint import class_folders

LABELS = ("green spots", "red", "loss", "x-epoch")  # also names that could be taken for other metrics
EPOCHS = 3


@pytest.fixture(scope="module")
def log(tmp_path_factory):
    """All that a training prints, both streams, and its folder."""
    base = tmp_path_factory.mktemp("job")
    training = base / "input" / "data" / "training"
    class_folders(training, number=10, classes=("green spots", "red", "blue"))
    (training / "blue").rename(training / "loss")
    class_folders(training, number=10, classes=("blue",))
    (training / "blue").rename(training / "x-epoch")
    arguments = [f"--epochs={EPOCHS}", "--image_size=32", "--batch_size=16", "--num_workers=1", "--network=resnet10"]
    printed = io.StringIO()
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(printed), redirect_stderr(printed):
        patch.setenv("SAGEMAKER_BASE_DIR", str(base))
        assert train.main(arguments) == 0, printed.getvalue()
    return printed.getvalue().splitlines(), base


def found(lines, definition):
    return [float(value) for line in lines for value in re.findall(definition["Regex"], line)]


def definitions_by_name(labels=LABELS):
    return {definition["Name"]: definition for definition in metric_definitions(sorted(labels))}


def test_every_definition_finds_its_number_once_an_epoch_and_nothing_else(log):
    lines, base = log
    with (base / "output" / "data" / "history.csv").open() as file:
        history = list(csv.DictReader(file))
    metrics = json.loads((base / "output" / "data" / "metrics.json").read_text())

    for name, definition in definitions_by_name().items():
        if name.startswith("test_"):
            expected = [metrics[name.removeprefix("test_")]]
        else:
            expected = [float(row[name]) for row in history]
            assert len(expected) == EPOCHS
        assert found(lines, definition) == pytest.approx(expected, rel=1e-5), name


def test_every_number_of_the_log_is_found_by_one_definition(log):
    lines, _ = log
    printed = [line for line in lines if re.match(r"(epoch|test_loss)=", line)]
    assert len(printed) == EPOCHS + 1

    for line in printed:
        names = [part.partition("=")[0] for part in line.split("; ")]
        matching = [name for name, definition in definitions_by_name().items() if found([line], definition)]
        assert sorted(matching) == sorted(names)


@pytest.mark.parametrize("text", ["1e-05", "-2.5E+3", "0", "12", "0.283333", "1.", "+4"])
def test_numbers_are_found_whole(text):
    definition = definitions_by_name()["train_loss"]

    assert re.findall(definition["Regex"], f"epoch=1; train_loss={text}; seconds=3;") == [text]


@pytest.mark.parametrize("text", ["nan", "inf", "-inf", "", "12 ", "1e-", "abc"])
def test_what_cloudwatch_does_not_take_is_not_found(text):
    assert re.findall(definitions_by_name()["train_loss"]["Regex"], f"train_loss={text};") == []


def test_scores_that_do_not_exist_are_printed_as_nan_and_small_ones_with_their_exponent():
    row = dict.fromkeys(row_names(["a"]), 1e-05) | {"epoch": 7, "validation_auc": math.nan}

    line = epoch_line(row, ["a"])

    assert line.startswith("epoch=7; train_loss=1e-05; ")
    assert "validation_auc=nan;" in line
    scores = {"loss": 0.25, "accuracy": 1.0, "balanced_accuracy": 0.5, "auc": None}
    assert scores_line("test", scores) == "test_loss=0.25; test_accuracy=1; test_balanced_accuracy=0.5; test_auc=nan;"


@pytest.mark.parametrize("prefix", ["", "[default0]:", "[1,mpirank:0]<stdout>:", "2026-01-01T00:00:00Z "])
def test_a_line_may_have_something_before_it(prefix):
    assert found([f"{prefix}epoch=3; x=1;"], definitions_by_name()["epoch"]) == [3]


def test_class_names_become_metric_names_that_stay_different():
    names = logged_names(["a b", "a_b", "é", "ok-1"])

    assert list(names.values()) == [
        "validation_sensitivity_a_b",
        "validation_sensitivity_a_b_1",
        "validation_sensitivity__",
        "validation_sensitivity_ok-1",
    ]


@pytest.fixture(scope="module")
def shapes():
    """The shapes of SageMaker's own service model."""
    folder = Path(botocore.__file__).parent / "data" / "sagemaker" / "2017-07-24"
    packed, plain = folder / "service-2.json.gz", folder / "service-2.json"
    content = gzip.decompress(packed.read_bytes()) if packed.is_file() else plain.read_bytes()
    return json.loads(content)["shapes"]


@pytest.mark.parametrize("classes", [0, 1, 7, 23, 24, 25, 200])
def test_definitions_keep_to_the_limits_of_the_service_and_classes_are_what_is_left_out(classes, shapes):
    labels = [f"{index:03d} {'x-' * 48}" for index in range(classes)]  # as long as a class name may be

    definitions = metric_definitions(labels)

    limit = shapes["MetricDefinitionList"]["max"]
    assert limit == MAX_DEFINITIONS
    general = metric_definitions()
    assert len(definitions) == min(limit, len(general) + classes)
    assert definitions[: len(general)] == general
    assert all(len(definition["Name"]) <= shapes["MetricName"]["max"] for definition in definitions)
    assert all(len(definition["Regex"]) <= shapes["MetricRegex"]["max"] for definition in definitions)
    assert len({definition["Name"] for definition in definitions}) == len(definitions)


def test_every_objective_is_a_metric_that_is_found_and_has_a_type_of_the_service(shapes):
    names = {definition["Name"] for task in TASKS for definition in metric_definitions(task=task)}

    assert set(OBJECTIVES) <= names
    assert set(OBJECTIVES.values()) == set(shapes["HyperParameterTuningJobObjectiveType"]["enum"])
    assert next(iter(OBJECTIVES)) == f"best_epoch_{TASKS['classification'].best_metric}"
    assert {name for name, goal in OBJECTIVES.items() if goal == "Minimize"} == {
        f"{when}_{score}"
        for when in ("best_epoch", "validation")
        for score in ("loss", "mae", "rmse", "hd95", "assd", "volume_error")
    }


@pytest.mark.parametrize("task", TASKS)
def test_every_task_has_as_many_definitions_as_the_service_takes(task):
    names = [definition["Name"] for definition in metric_definitions([f"c{i}" for i in range(50)], task)]

    assert len(names) <= 40
    assert {f"{when}_{score}" for when in ("validation", "best_epoch", "test") for score in TASKS[task].goals} <= set(
        names
    )
    assert any(name.startswith("validation_sensitivity_") for name in names) == (TASKS[task].by_label == "sensitivity")


def test_the_table_is_read_without_torch_numpy_and_pydantic():
    code = (
        "import sys, sagemaker_monai.tasks.metric_names;"
        "print({'torch', 'numpy', 'pydantic', 'monai'} & set(sys.modules))"
    )

    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "set()\n"
