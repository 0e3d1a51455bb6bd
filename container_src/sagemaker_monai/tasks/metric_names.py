"""Names of the metrics in training's log: the one table behind its rows, its lines and SageMaker's metrics.

SageMaker extracts each metric from the log with a regular expression (`metric_definitions`). Training takes the names
of its rows from here too, so that what is printed and what is searched for always match. Nothing heavy is imported: the
commands that start jobs read this table on machines without torch.

A tuning job takes the last value of its objective, which is the last epoch's and not that of the one that ships. So
every line also has the scores of the best epoch so far, which are the ones to tune (`OBJECTIVES`).
"""

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

from sagemaker_monai.tasks.tasks import DEFAULT_TASK, TASKS, metric_goals

VALIDATION, BEST, TEST = "validation_", "best_epoch_", "test_"
WHOLE_NUMBERS = ("epoch",)

# Name of a metric -> Type of HyperParameterTuningJobObjective. The first is the default.
OBJECTIVES = {f"{prefix}{score}": goal for prefix in (BEST, VALIDATION) for score, goal in metric_goals().items()}

MAX_DEFINITIONS = 40  # MetricDefinitionList, SageMaker API 2017-07-24
# No character of a name may precede it, so that `loss` is not found inside `validation_loss`.
BEFORE = "(?:^|[^A-Za-z0-9_-])"
# Not nan, which CloudWatch does not accept: an epoch without a value has no data point.
NUMBER = r"([-+]?[0-9]+\.?[0-9]*(?:[eE][-+]?[0-9]+)?)"

Row = dict[str, float]


def row_names(labels: Sequence[str], task: str = DEFAULT_TASK) -> list[str]:
    """The names in the row of an epoch, in the order of the log, with the score of each label if the task has one."""
    return [
        "epoch",
        "train_loss",
        *(VALIDATION + score for score in TASKS[task].goals),
        *(BEST + score for score in TASKS[task].goals),
        *logged_names(labels, task),
        "learning_rate",
        "seconds",
    ]


def epoch_row(
    values: Mapping[str, float], best: Mapping[str, float], labels: Sequence[str], task: str = DEFAULT_TASK
) -> Row:
    """The row of an epoch, from its values of `row_names` and those of the best epoch so far, which may be this one."""
    known = {**values, **{BEST + score: best[VALIDATION + score] for score in TASKS[task].goals}}
    names = row_names(labels, task)
    assert len(known) == len(names)
    return {name: known[name] for name in names}


def validation_values(scores: Mapping[str, Any], task: str = DEFAULT_TASK) -> Row:
    """The part of a row that `Task.score` computes; NaN where a score is undefined."""
    values = {VALIDATION + score: scores[score] for score in TASKS[task].goals}
    if by_label := TASKS[task].by_label:
        values |= {f"{VALIDATION}{by_label}_{label}": value for label, value in scores[by_label].items()}
    return {name: math.nan if value is None else value for name, value in values.items()}


def logged_names(labels: Sequence[str], task: str = DEFAULT_TASK) -> dict[str, str]:
    """Map the name of each label's score to a name that a regular expression of SageMaker can find.

    Other characters than letters, digits, dash and underscore are replaced; names that become equal get their index.
    """
    names: dict[str, str] = {}
    prefix = f"{VALIDATION}{TASKS[task].by_label}_"
    for index, label in enumerate(labels if TASKS[task].by_label else ()):
        name = prefix + re.sub(r"[^A-Za-z0-9_-]", "_", label)
        names[prefix + label] = f"{name}_{index}" if name in names.values() else name
    return names


def epoch_line(row: Mapping[str, float], labels: Sequence[str], task: str = DEFAULT_TASK) -> str:
    """One epoch as `name=value; name=value;`, names and their order the same in every epoch."""
    names = logged_names(labels, task)
    return _line({names.get(name, name): value for name, value in row.items()})


def scores_line(split: str, metrics: Mapping[str, Any], task: str = DEFAULT_TASK) -> str:
    """The scores of the artifact on a split as `test_loss=value; test_accuracy=value; ...`, nan where undefined."""
    return _line(
        {f"{split}_{name}": math.nan if metrics[name] is None else metrics[name] for name in TASKS[task].goals}
    )


def _line(values: Mapping[str, float]) -> str:
    return " ".join(
        f"{name}={int(value) if name in WHOLE_NUMBERS else format(value, '.6g')};" for name, value in values.items()
    )


def metric_definitions(labels: Sequence[str] = (), task: str = DEFAULT_TASK) -> list[dict[str, str]]:
    """MetricDefinitions of CreateTrainingJob and CreateHyperParameterTuningJob for the log of `train`.

    Args:
        labels: class names in the model's order, for the score of each class; none if empty.
        task: a key of `tasks.TASKS`.

    Returns:
        Every number in an epoch's line and the scores of the test split, each found once per line, at most the 40 that
        SageMaker takes; classes beyond that are left out. The names are those of the log.

    Source: API reference, MetricDefinition (Name up to 255 characters, Regex up to 500).
    """
    always = [*row_names((), task), *(TEST + score for score in TASKS[task].goals)]
    names = [*always, *logged_names(labels, task).values()][:MAX_DEFINITIONS]
    return [{"Name": name, "Regex": f"{BEFORE}{name}={NUMBER};"} for name in names]
