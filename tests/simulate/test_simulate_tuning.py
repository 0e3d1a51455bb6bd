"""Tuning jobs of the offline SageMaker draw from their ranges, really train, and choose the best."""

import itertools
import json

import pytest
from botocore.exceptions import ClientError

from simulate.tuning import draw
from tests.support.simulated import simulation, training_request


@pytest.fixture(scope="module")
def aws(tmp_path_factory):
    with simulation(tmp_path_factory.mktemp("simulation")) as started:
        started.bucket("jobs")
        yield started


def tuning_request(name, *, behaviour="score", static=None, **config):
    request = training_request("unused", behaviour)
    definition = {key: request[key] for key in ("RoleArn", "OutputDataConfig", "ResourceConfig", "StoppingCondition",
                                                "Environment")}  # fmt: skip
    definition["AlgorithmSpecification"] = {
        "TrainingImage": "fake",
        "TrainingInputMode": "File",
        "MetricDefinitions": [{"Name": "score", "Regex": "score=([0-9.e-]+);"}],
    }
    definition["StaticHyperParameters"] = static or {"epochs": "1"}
    usual = {
        "Strategy": "Random",
        "ResourceLimits": {"MaxNumberOfTrainingJobs": 4, "MaxParallelTrainingJobs": 2},
        "HyperParameterTuningJobObjective": {"Type": "Minimize", "MetricName": "score"},
        "ParameterRanges": {
            "ContinuousParameterRanges": [{"Name": "learning_rate", "MinValue": "0.0001", "MaxValue": "0.1",
                                           "ScalingType": "Logarithmic"}],
            "IntegerParameterRanges": [{"Name": "batch_size", "MinValue": "8", "MaxValue": "64"}],
            "CategoricalParameterRanges": [{"Name": "optimizer", "Values": ["adamw", "sgd"]}],
        },
    }  # fmt: skip
    return {"HyperParameterTuningJobName": name, "HyperParameterTuningJobConfig": usual | config,
            "TrainingJobDefinition": definition}  # fmt: skip


def tune(aws, name, **changes):
    aws.sagemaker.create_hyper_parameter_tuning_job(**tuning_request(name, **changes))
    return aws.wait("hyper_parameter_tuning_job", "HyperParameterTuningJobStatus", HyperParameterTuningJobName=name)


def test_the_best_job_is_that_with_the_least_objective(aws):
    job = tune(aws, "search")
    rows = aws.sagemaker.list_training_jobs_for_hyper_parameter_tuning_job(
        HyperParameterTuningJobName="search", SortBy="FinalObjectiveMetricValue"
    )["TrainingJobSummaries"]

    assert job["HyperParameterTuningJobStatus"] == "Completed"
    assert job["TrainingJobStatusCounters"]["Completed"] == job["ObjectiveStatusCounters"]["Succeeded"] == 4
    rates = [float(row["TunedHyperParameters"]["learning_rate"]) for row in rows]
    assert rates == sorted(rates)
    assert len(set(rates)) == 4
    values = [row["FinalHyperParameterTuningJobObjectiveMetric"]["Value"] for row in rows]
    assert values == pytest.approx(rates)  # the objective of these jobs is their learning rate
    assert job["BestTrainingJob"]["TrainingJobName"] == rows[0]["TrainingJobName"]
    assert all(row["TrainingJobName"].startswith("search-00") for row in rows)

    best = aws.sagemaker.describe_training_job(TrainingJobName=rows[0]["TrainingJobName"])
    given = json.loads(aws.files(best["ModelArtifacts"]["S3ModelArtifacts"])["given.json"])
    assert given == rows[0]["TunedHyperParameters"] | {"epochs": "1", "_tuning_objective_metric": "score"}


def test_a_search_without_a_scored_job_fails(aws):
    job = tune(aws, "hopeless", behaviour="fail")

    assert job["HyperParameterTuningJobStatus"] == "Failed"
    assert job["TrainingJobStatusCounters"]["NonRetryableError"] == 4
    assert "BestTrainingJob" not in job


def test_a_stopped_search_stops_its_jobs(aws):
    aws.sagemaker.create_hyper_parameter_tuning_job(**tuning_request("halted", behaviour="polite"))
    while not aws.sagemaker.list_training_jobs(NameContains="halted", StatusEquals="InProgress")[
        "TrainingJobSummaries"
    ]:
        pass
    aws.sagemaker.stop_hyper_parameter_tuning_job(HyperParameterTuningJobName="halted")
    job = aws.wait("hyper_parameter_tuning_job", "HyperParameterTuningJobStatus", HyperParameterTuningJobName="halted")

    assert job["HyperParameterTuningJobStatus"] == "Stopped"
    assert job["TrainingJobStatusCounters"]["Stopped"] <= 2  # no further ones began


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"static": {"optimizer": "sgd"}}, "static and in a range: optimizer"),
        ({"HyperParameterTuningJobObjective": {"Type": "Minimize", "MetricName": "loss"}}, "loss is not in MetricDef"),
        ({"Strategy": "Grid"}, "CategoricalParameterRanges only"),
        ({"ParameterRanges": {"IntegerParameterRanges": [{"Name": "a", "MinValue": "x", "MaxValue": "2"}]}},
         "must be numbers"),
        ({"ResourceLimits": {"MaxParallelTrainingJobs": 1}}, "without MaxNumberOfTrainingJobs"),
    ],
)  # fmt: skip
def test_a_search_that_cannot_be_is_refused(aws, changes, message):
    with pytest.raises(ClientError, match=message):
        aws.sagemaker.create_hyper_parameter_tuning_job(**tuning_request("refused", **changes))


@pytest.mark.parametrize("scaling", ["Auto", "Linear", "Logarithmic", "ReverseLogarithmic"])
def test_values_lie_in_their_range_and_are_the_same_again(scaling):
    bounds = {"Name": "rate", "MinValue": "0.01", "MaxValue": "0.9", "ScalingType": scaling}
    config = {"Strategy": "Bayesian", "ParameterRanges": {"ContinuousParameterRanges": [bounds]}}

    first, again = (list(itertools.islice(draw(config, "seed"), 50)) for _ in range(2))

    assert first == again
    assert all(0.01 <= float(each["rate"]) <= 0.9 for each in first)
    assert first != list(itertools.islice(draw(config, "other"), 50))
    middle = sorted(float(each["rate"]) for each in first)[25]
    expected = {"Logarithmic": (0, 0.25), "ReverseLogarithmic": (0.55, 0.9)}.get(scaling, (0.25, 0.65))
    assert expected[0] < middle < expected[1]


def test_a_grid_has_every_combination_once():
    ranges = [{"Name": "a", "Values": ["1", "2"]}, {"Name": "b", "Values": ["x", "y", "z"]}]
    drawn = list(draw({"Strategy": "Grid", "ParameterRanges": {"CategoricalParameterRanges": ranges}}, ""))

    assert len(drawn) == 6
    assert {(each["a"], each["b"]) for each in drawn} == set(itertools.product("12", "xyz"))
