"""Search hyperparameters on SageMaker (`make tune`): one CreateHyperParameterTuningJob, followed to its best job.

The search space is checked against the package's own table first: both ends of every range, every choice, and every
pair of them, because a job that refuses its hyperparameters costs money too. Everything else is as in `make train`.

Sources: API reference, HyperParameterTuningJobConfig (Hyperband has an early stopping of its own), ParameterRange
(scaling); SageMaker Developer Guide, "How hyperparameter tuning works" (Grid takes categories only).
"""

import argparse
import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sagemaker_monai.hyperparameters import TrainConfig
from sagemaker_monai.tasks.metric_names import BEST, OBJECTIVES, VALIDATION
from sagemaker_monai.tasks.tasks import TASKS
from sagemaker_monai_aws.core import command, follow
from sagemaker_monai_aws.core.command import Context, say
from sagemaker_monai_aws.core.create import Job, run_job
from sagemaker_monai_aws.core.errors import CommandError, UnfinishedError
from sagemaker_monai_aws.core.names import tags
from sagemaker_monai_aws.core.places import contents, image_address, labels_of, place
from sagemaker_monai_aws.core.prices import cost_line, hourly
from sagemaker_monai_aws.jobs import launch_training
from sagemaker_monai_aws.jobs.launch_training import CHECKPOINTS, channels_of, hyperparameters_of, training_request

NAME = "tune"
STRATEGIES = ("Bayesian", "Random", "Hyperband", "Grid")
MAX_JOBS = 10
SCALES = {"": "Auto", "linear": "Linear", "log": "Logarithmic", "reverse-log": "ReverseLogarithmic"}
# Type of a hyperparameter -> list of ParameterRanges that it is in, if it is a range from LOW to HIGH.
NUMBERS: dict[Any, str] = {int: "IntegerParameterRanges", float: "ContinuousParameterRanges"}
CATEGORIES = "CategoricalParameterRanges"
# SageMaker does not take this of tuning jobs.
NOT_TUNED = ("EnableSageMakerMetricsTimeSeries",)


@dataclass(frozen=True)
class Range:
    """What is searched of one hyperparameter.

    Attributes:
        name: of the hyperparameter.
        kind: list of ParameterRanges that it goes into.
        values: low and high, or the choices, as text.
        scale: ScalingType of a range of numbers.
    """

    name: str
    kind: str
    values: tuple[str, ...]
    scale: str = ""

    def as_request(self) -> dict[str, Any]:
        """One entry of its list."""
        if self.kind == CATEGORIES:
            return {"Name": self.name, "Values": list(self.values)}
        low, high = self.values
        return {"Name": self.name, "MinValue": low, "MaxValue": high, "ScalingType": self.scale}


def parse_range(text: str) -> Range:
    """NAME=LOW:HIGH[:SCALE] or NAME=A,B,C.

    Raises:
        ArgumentTypeError: it is neither, the hyperparameter is unknown or not a number, or the scale does not fit.
    """
    name, equals, what = text.partition("=")
    name = name.strip().replace("-", "_")
    if not equals or not what:
        raise argparse.ArgumentTypeError(f"takes NAME=LOW:HIGH[:log] or NAME=A,B,C, got {text!r}")
    if name not in TrainConfig.model_fields:
        raise argparse.ArgumentTypeError(f"unknown hyperparameter {name!r}: `train --help` lists them")
    if ":" not in what:
        values = tuple(word.strip() for word in what.split(","))
        if len(values) != len(set(values)) or len(values) < 2:
            raise argparse.ArgumentTypeError(f"{name} takes two or more different choices A,B, got {what!r}")
        return Range(name, CATEGORIES, values)
    low, _, rest = what.partition(":")
    high, _, scale = rest.partition(":")
    kind = NUMBERS.get(TrainConfig.model_fields[name].annotation)
    if kind is None:
        raise argparse.ArgumentTypeError(f"{name} is not a number: give choices, {name}=A,B,C")
    if scale not in SCALES:
        raise argparse.ArgumentTypeError(f"the scale of {name} is linear, log or reverse-log, got {scale!r}")
    try:
        least, most = float(low), float(high)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{name} takes numbers LOW:HIGH, got {what!r}") from None
    if not (math.isfinite(least) and math.isfinite(most) and least < most):
        raise argparse.ArgumentTypeError(f"{name} takes LOW below HIGH, got {what!r}")
    if scale == "log" and least <= 0:
        raise argparse.ArgumentTypeError(f"the scale log of {name} needs LOW above 0, got {low}")
    if scale == "reverse-log" and not (kind == NUMBERS[float] and least >= 0 and most < 1):
        raise argparse.ArgumentTypeError(
            f"the scale reverse-log of {name} needs fractions from 0 to below 1, got {what!r}"
        )
    return Range(name, kind, (low, high), SCALES[scale])


def add_options(parser: argparse.ArgumentParser) -> None:
    """Options of the command."""
    add = parser.add_argument
    add("--ranges", nargs="+", type=parse_range, required=True, metavar="NAME=...",
        help="LOW:HIGH[:linear|log|reverse-log] of a number, or choices A,B,C")  # fmt: skip
    usual = ", ".join(f"{BEST}{row.best_metric} for {task}" for task, row in TASKS.items())
    add("--objective", choices=OBJECTIVES, metavar="METRIC",
        help=f"of the log (default by the data set's task: {usual})")  # fmt: skip
    add("--strategy", choices=STRATEGIES, default="Bayesian", help="(default: %(default)s)")
    add("--max-jobs", type=int, help=f"training jobs in all (default: {MAX_JOBS}; with Grid: all)")
    add("--parallel", type=int, default=2, help="training jobs at once (default: %(default)s)")
    add("--early-stopping", action=argparse.BooleanOptionalAction, default=False,
        help="stop jobs that will not become the best")  # fmt: skip
    add("--seed", type=int, default=0, help="of what is tried (default: %(default)s)")
    launch_training.add_job_options(parser)
    add("--again", action="store_true", help="search again even if the same search has completed")
    follow.add_wait(parser)


def check_ranges(ranges: Sequence[Range], given: list[str]) -> dict[str, str]:
    """The fixed hyperparameters, once all combinations of two values have been checked with them.

    Raises:
        CommandError: a combination that a training job would refuse, or a hyperparameter that is fixed and searched.
    """
    names = [each.name for each in ranges]
    if len(names) != len(set(names)):
        raise CommandError("a hyperparameter has two --ranges: leave one out")
    usual = {each.name: each.values[0] for each in ranges}
    fixed = hyperparameters_of(given, usual)
    both = sorted(set(names) & set(fixed))
    if both:
        raise CommandError(f"{', '.join(both)} cannot be fixed and searched: leave it out of one of the two")
    for one, other in itertools.combinations_with_replacement(ranges, 2):
        for first, second in itertools.product(one.values, other.values):
            hyperparameters_of(given, usual | {one.name: first, other.name: second})
    return fixed


def count_jobs(options: argparse.Namespace) -> int:
    """How many training jobs there are at most.

    Raises:
        CommandError: a strategy and what it does not take.
    """
    if options.early_stopping and options.strategy == "Hyperband":
        raise CommandError("Hyperband stops jobs early by itself: leave --early-stopping out")
    asked: int = options.max_jobs or MAX_JOBS
    if options.strategy == "Grid":
        if any(each.kind != CATEGORIES for each in options.ranges):
            raise CommandError("Grid takes choices NAME=A,B,C only: give choices, or another --strategy")
        points = math.prod(len(each.values) for each in options.ranges)
        if options.max_jobs not in (None, points):
            raise CommandError(f"Grid tries all {points} combinations: leave --max-jobs out")
        asked = points
    if asked < 1 or not 1 <= options.parallel <= asked:
        raise CommandError(f"--parallel must be from 1 to the {asked} of --max-jobs, got {options.parallel}")
    return asked


def objective_of(asked: str | None, task: str) -> dict[str, str]:
    """HyperParameterTuningJobObjective.

    Raises:
        CommandError: the data set's task has no such score.
    """
    name, goals = asked or BEST + TASKS[task].best_metric, TASKS[task].goals
    types = {prefix + score: goal for prefix in (BEST, VALIDATION) for score, goal in goals.items()}
    if name not in types:
        raise CommandError(f"a job of the task {task} has no {name}: its scores are {', '.join(goals)}")
    return {"Type": types[name], "MetricName": name}


def tuning_request(
    context: Context, channels: Mapping[str, str], fixed: Mapping[str, str], image: str
) -> dict[str, Any]:
    """CreateHyperParameterTuningJob without its name, tags and checkpoints."""
    options = context.options
    _, task = labels_of(context.account, channels.values())
    definition = training_request(context, channels, fixed, image)
    definition["StaticHyperParameters"] = definition.pop("HyperParameters")
    for name in NOT_TUNED:
        del definition["AlgorithmSpecification"][name]
    ranges: dict[str, list[Any]] = {}
    for each in options.ranges:
        ranges.setdefault(each.kind, []).append(each.as_request())
    config: dict[str, Any] = {
        "Strategy": options.strategy,
        "HyperParameterTuningJobObjective": objective_of(options.objective, task),
        "ResourceLimits": {"MaxNumberOfTrainingJobs": count_jobs(options), "MaxParallelTrainingJobs": options.parallel},
        "ParameterRanges": ranges,
        "TrainingJobEarlyStoppingType": "Auto" if options.early_stopping else "Off",
        "RandomSeed": options.seed,
    }
    if options.strategy == "Hyperband":
        if "hours" in {*fixed, *(each.name for each in options.ranges)}:
            raise CommandError("Hyperband counts epochs: leave hours out, or give another --strategy")
        epochs = int(fixed.get("epochs", TrainConfig.model_fields["epochs"].default))
        config["StrategyConfig"] = {"HyperbandStrategyConfig": {"MinResource": 1, "MaxResource": epochs}}
    return {"HyperParameterTuningJobConfig": config, "TrainingJobDefinition": definition}


def with_name(context: Context, request: Mapping[str, Any], name: str) -> dict[str, Any]:
    """The whole request; SageMaker gives each training job its own folder below the checkpoints' address."""
    account, options = context.account, context.options
    definition = dict(request["TrainingJobDefinition"])
    if options.checkpoints:
        uri = place(account, options, "checkpoints", name)
        definition["CheckpointConfig"] = {"S3Uri": uri, "LocalPath": CHECKPOINTS}
    return {"HyperParameterTuningJobName": name, **request, "TrainingJobDefinition": definition,
            "Tags": tags(options.project, options.tags)}  # fmt: skip


def costs(context: Context, jobs: int) -> list[str]:
    """What the search costs by the hour, and at most."""
    account, options = context.account, context.options
    count, hours = options.instance_count, options.max_runtime_s / 3600
    price = hourly(account.region, options.instance_type)
    most = f", {price * count * jobs * hours:.2f} USD on demand" if price is not None else ""
    return [
        cost_line(account.region, options.instance_type, count * options.parallel),
        f"at most {jobs} jobs x {hours:.1f} hours x {count} x {options.instance_type}{most}; most jobs end earlier",
    ]


def work(context: Context) -> int:
    """Start the search, follow it, print its best job."""
    account, options = context.account, context.options
    fixed = check_ranges(options.ranges, options.hyperparameters)
    jobs = count_jobs(options)
    channels = channels_of(context)
    request = tuning_request(context, channels, fixed, image_address(account, options))
    digested = {"request": request, "data": {name: contents(account, uri).digest for name, uri in channels.items()}}
    job = Job(NAME, "tuning", NAME, lambda name: with_name(context, request, name), digested, costs(context, jobs))
    return run_job(context, job, lambda name: finish(context, name))


def state_of(found: Mapping[str, Any], _kind: str) -> str:
    """One line: how far the search is and the best job so far."""
    counts = found.get("TrainingJobStatusCounters", {})
    failed = counts.get("RetryableError", 0) + counts.get("NonRetryableError", 0)
    words = [
        found.get("HyperParameterTuningJobStatus", "Unknown"),
        f"{counts.get('Completed', 0)} completed",
        f"{counts.get('InProgress', 0)} running",
        f"{counts.get('Stopped', 0)} stopped",
        f"{failed} failed",
    ]
    best = found.get("BestTrainingJob")
    score = (best or {}).get("FinalHyperParameterTuningJobObjectiveMetric")
    if best and score:
        words.append(f"best so far {score['MetricName']} {score['Value']:.4g} ({best['TrainingJobName']})")
    return ", ".join(words)


def finish(context: Context, name: str) -> int:
    """Follow a search to its end and print its best job; 0 if there is one."""
    found = follow.follow(context, NAME, "tuning", name, state_of)
    best = found.get("BestTrainingJob")
    if not best or "FinalHyperParameterTuningJobObjectiveMetric" not in best:
        reason = found.get("FailureReason") or "no training job has reported the objective"
        raise UnfinishedError(f"{name} {found['HyperParameterTuningJobStatus'].lower()}: {reason}; `make logs` of one "
                              "of its training jobs says more, and the same command searches again")  # fmt: skip
    score = best["FinalHyperParameterTuningJobObjectiveMetric"]
    command.result({
        "HyperParameterTuningJobName": name,
        "TrainingJobName": best["TrainingJobName"],
        "TunedHyperParameters": best["TunedHyperParameters"],
        "objective": {score["MetricName"]: score["Value"]},
    })  # fmt: skip
    say(NAME, f"make deploy MODEL={best['TrainingJobName']}")
    return 0
