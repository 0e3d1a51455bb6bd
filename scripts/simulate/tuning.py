"""CreateHyperParameterTuningJob: training jobs with hyperparameters drawn from the ranges, the best by its objective.

Every strategy but Grid is a random search here, and no job is stopped early; what is chosen is the same in every run.
"""

import itertools
import math
import random
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from simulate import shapes, training_request
from simulate.control import ControlPlane, Life
from simulate.faults import ApiError, JobError, invalid, not_simulated
from simulate.kinds import KINDS, TERMINAL, Resource

COPIED = (
    "AlgorithmSpecification", "RoleArn", "InputDataConfig", "OutputDataConfig", "VpcConfig", "ResourceConfig",
    "StoppingCondition", "EnableNetworkIsolation", "EnableInterContainerTrafficEncryption",
    "EnableManagedSpotTraining", "CheckpointConfig", "RetryStrategy", "Environment",
)  # fmt: skip
# Status of a training job -> counter of the tuning job.
COUNTERS = {"Completed": "Completed", "InProgress": "InProgress", "Stopping": "InProgress", "Stopped": "Stopped",
            "Failed": "NonRetryableError"}  # fmt: skip
OBJECTIVE = "FinalHyperParameterTuningJobObjectiveMetric"


def life(plane: ControlPlane) -> Life:
    """The life of tuning jobs."""
    return Life(check, first_fields, run=lambda job: run(plane, job))


def first_fields(_: Mapping[str, Any]) -> dict[str, Any]:
    """Fields of a new job."""
    return {"HyperParameterTuningJobStatus": "InProgress", **_counters([])}


def check(plane: ControlPlane, request: Mapping[str, Any], region: str) -> None:
    """Refuse invalid requests, and those that are not simulated."""
    for name in ("TrainingJobDefinitions", "WarmStartConfig", "Autotune"):
        if name in request:
            raise not_simulated(name)
    config = request["HyperParameterTuningJobConfig"]
    if "TrainingJobDefinition" not in request or "ParameterRanges" not in config:
        raise invalid("TrainingJobDefinition and HyperParameterTuningJobConfig.ParameterRanges are required")
    if "HyperParameterTuningJobObjective" not in config:
        raise invalid("HyperParameterTuningJobConfig.HyperParameterTuningJobObjective is required")
    if "MaxNumberOfTrainingJobs" not in config["ResourceLimits"]:
        raise not_simulated("ResourceLimits without MaxNumberOfTrainingJobs")
    definition = request["TrainingJobDefinition"]
    wanted = config["HyperParameterTuningJobObjective"]["MetricName"]
    named = [each["Name"] for each in definition["AlgorithmSpecification"].get("MetricDefinitions", [])]
    if wanted not in named:
        raise invalid(f"The objective metric {wanted} is not in MetricDefinitions: {', '.join(named) or 'none'}")
    first = next(draw(config, request["HyperParameterTuningJobName"]))
    twice = set(first) & set(definition.get("StaticHyperParameters", {}))
    if twice:
        raise invalid(f"Hyperparameters are static and in a range: {', '.join(sorted(twice))}")
    shapes.check("CreateTrainingJob", job_request(request, "a", first))
    training_request.check(plane, job_request(request, "a", first), region)


def job_request(request: Mapping[str, Any], name: str, drawn: Mapping[str, str]) -> dict[str, Any]:
    """The request of one training job."""
    definition = request["TrainingJobDefinition"]
    copied = {key: definition[key] for key in COPIED if key in definition}
    if "HyperParameterTuningResourceConfig" in definition:
        copied["ResourceConfig"] = definition["HyperParameterTuningResourceConfig"]
    objective = request["HyperParameterTuningJobConfig"]["HyperParameterTuningJobObjective"]["MetricName"]
    named = {"_tuning_objective_metric": objective}  # as SageMaker adds it
    hyperparameters = {**definition.get("StaticHyperParameters", {}), **drawn, **named}
    return {"TrainingJobName": name, "HyperParameters": hyperparameters, **copied}


def draw(config: Mapping[str, Any], seed: str) -> Iterator[dict[str, str]]:
    """Hyperparameters of the first job, the second, ...; Grid ends when all were there."""
    ranges = config["ParameterRanges"]
    if config["Strategy"] == "Grid":
        categories = ranges.get("CategoricalParameterRanges", [])
        if not categories or ranges.get("IntegerParameterRanges") or ranges.get("ContinuousParameterRanges"):
            raise invalid("Grid takes CategoricalParameterRanges only")
        names = [each["Name"] for each in categories]
        for values in itertools.product(*(each["Values"] for each in categories)):
            yield dict(zip(names, values, strict=True))
        return
    dice = random.Random(str(config.get("RandomSeed", seed)))  # noqa: S311 - chance, no secret
    while True:
        yield {
            **{each["Name"]: dice.choice(each["Values"]) for each in ranges.get("CategoricalParameterRanges", [])},
            **{each["Name"]: str(round(_between(dice, each))) for each in ranges.get("IntegerParameterRanges", [])},
            **{each["Name"]: f"{_between(dice, each):.8g}" for each in ranges.get("ContinuousParameterRanges", [])},
        }


def _between(dice: random.Random, bounds: Mapping[str, str]) -> float:
    try:
        low, high = float(bounds["MinValue"]), float(bounds["MaxValue"])
    except ValueError as error:
        raise invalid(f"{bounds['Name']}: MinValue and MaxValue must be numbers") from error
    scaling = bounds.get("ScalingType", "Auto")
    if low > high:
        raise invalid(f"{bounds['Name']}: MinValue is above MaxValue")
    if scaling == "Logarithmic":
        if low <= 0:
            raise invalid(f"{bounds['Name']}: Logarithmic needs a MinValue above 0")
        return math.exp(dice.uniform(math.log(low), math.log(high)))
    if scaling == "ReverseLogarithmic":
        if not 0 <= low <= high < 1:
            raise invalid(f"{bounds['Name']}: ReverseLogarithmic needs values from 0 to below 1")
        return 1 - math.exp(dice.uniform(math.log(1 - high), math.log(1 - low)))
    return dice.uniform(low, high)


def run(plane: ControlPlane, tuning: Resource) -> None:
    """Run the training jobs, so many at once, and choose the best."""
    config = tuning.request["HyperParameterTuningJobConfig"]
    limits = config["ResourceLimits"]
    ends = time.monotonic() + limits.get("MaxRuntimeInSeconds", float("inf"))
    drawn = itertools.islice(draw(config, tuning.name), limits["MaxNumberOfTrainingJobs"])
    with ThreadPoolExecutor(limits["MaxParallelTrainingJobs"]) as pool:
        list(pool.map(lambda item: _train(plane, tuning, ends, *item), enumerate(drawn, 1)))
    jobs = [each for each in plane.all("TrainingJob") if each.fields.get("TuningJobArn") == tuning.arn]
    if plane.world.closing.is_set():
        raise JobError("InternalServerError: the simulation ended")
    fields = {**_counters(jobs), "HyperParameterTuningEndTime": time.time()}
    scored = [job for job in jobs if OBJECTIVE in job.fields]
    if scored:
        sign = 1 if config["HyperParameterTuningJobObjective"]["Type"] == "Maximize" else -1
        best = max(scored, key=lambda job: sign * float(job.fields[OBJECTIVE]["Value"]))
        fields["BestTrainingJob"] = best.described()
    if tuning.stop.is_set():
        fields["HyperParameterTuningJobStatus"] = "Stopped"
    elif scored:
        fields["HyperParameterTuningJobStatus"] = "Completed"
    else:
        fields |= {"HyperParameterTuningJobStatus": "Failed", "FailureReason": "All training jobs failed. Please take "
                   "a look at the training jobs failures to get more details."}  # fmt: skip
    tuning.set(**fields)


def _train(plane: ControlPlane, tuning: Resource, ends: float, number: int, drawn: Mapping[str, str]) -> None:
    if tuning.stop.is_set() or plane.world.closing.is_set() or time.monotonic() >= ends:
        return
    suffix = f"-{number:03d}-{random.Random(f'{tuning.name}{number}').getrandbits(32):08x}"  # noqa: S311 - a name
    request = job_request(tuning.request, tuning.name[: 63 - len(suffix)] + suffix, drawn)
    objective = tuning.request["HyperParameterTuningJobConfig"]["HyperParameterTuningJobObjective"]
    try:
        shapes.check("CreateTrainingJob", request)
        job = plane.create(KINDS["TrainingJob"], request, tuning.region, TuningJobArn=tuning.arn,
                           TuningJobName=tuning.name, TunedHyperParameters=dict(drawn))  # fmt: skip
    except ApiError as fault:
        plane.world.note(f"tuning job {tuning.name}: {fault.message}")
        return
    while job.status not in TERMINAL:
        if tuning.stop.is_set() or time.monotonic() >= ends:
            job.set(TrainingJobStatus="Stopping")
            job.stop.set()
        time.sleep(plane.world.limits.poll_s)
    for metric in job.fields.get("FinalMetricDataList", []):
        if metric["MetricName"] == objective["MetricName"] and job.status == "Completed":
            job.set(**{OBJECTIVE: {**objective, "Value": metric["Value"]}, "ObjectiveStatus": "Succeeded"})
    jobs = [each for each in plane.all("TrainingJob") if each.fields.get("TuningJobArn") == tuning.arn]
    tuning.set(**_counters(jobs))


def _counters(jobs: list[Resource]) -> dict[str, Any]:
    training_counts = dict.fromkeys(("Completed", "InProgress", "RetryableError", "NonRetryableError", "Stopped"), 0)
    objective_counts = dict.fromkeys(("Succeeded", "Pending", "Failed"), 0)
    for job in jobs:
        training_counts[COUNTERS[job.status]] += 1
        state = "Succeeded" if OBJECTIVE in job.fields else "Failed" if job.status in TERMINAL else "Pending"
        objective_counts[state] += 1
    return {"TrainingJobStatusCounters": training_counts, "ObjectiveStatusCounters": objective_counts}
