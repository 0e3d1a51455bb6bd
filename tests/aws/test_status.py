"""`make status`: what is found, what it costs, and what is said of prices that are not known."""

import json
from datetime import UTC, datetime, timedelta

import pytest

from sagemaker_monai_aws.__main__ import main
from sagemaker_monai_aws.core import prices
from sagemaker_monai_aws.infrastructure import status
from sagemaker_monai_aws.infrastructure.status import Row, mode_of, resources_of, seconds_of, table, total
from tests.support.cloud import PROJECT, REGION
from tests.support.deployed import TAGS, make_endpoint, make_model, make_training_job

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


@pytest.fixture(autouse=True)
def known_prices(monkeypatch):
    known = {"collected": "2026-01-01", "regions": {REGION: {"instances": {"ml.m5.large": 0.5, "ml.g5.xlarge": 2.0}}}}
    monkeypatch.setattr(prices, "table", lambda: known)


def as_json(capsys, *arguments):
    assert main(["status", "--json", *arguments]) == 0
    return json.loads(capsys.readouterr().out)


def test_nothing_is_said_to_be_nothing(cloud, capsys):
    assert main(["status"]) == 0

    printed = capsys.readouterr()
    assert "nothing of project" in printed.err
    assert printed.out.startswith("0.000 USD an hour")


def test_endpoints_are_listed_with_mode_instances_and_price(cloud, capsys):
    client = cloud.client("sagemaker")
    make_endpoint(client, f"{PROJECT}-a", count=3)
    make_endpoint(client, f"{PROJECT}-b", variant={"ServerlessConfig": {"MemorySizeInMB": 2048, "MaxConcurrency": 1}})
    make_model(client, f"{PROJECT}-many", Mode="MultiModel", ModelDataUrl="s3://some-bucket/models/")
    make_endpoint(client, f"{PROJECT}-c", model=f"{PROJECT}-many", instance="ml.c5.xlarge")

    found = as_json(capsys)

    rows = {row["name"]: row for row in found["rows"]}
    counts = {each["EndpointName"]: client.describe_endpoint(EndpointName=each["EndpointName"])["ProductionVariants"][0]
              for each in client.list_endpoints()["Endpoints"]}  # fmt: skip
    now = counts[f"{PROJECT}-a"]["CurrentInstanceCount"]
    assert rows[f"{PROJECT}-a"]["what"].startswith(f"realtime: {now} of ")
    assert rows[f"{PROJECT}-a"]["usd_per_hour"] == 0.5 * now
    assert rows[f"{PROJECT}-b"]["what"] == "serverless: 2048 MB, paid by request"
    assert rows[f"{PROJECT}-c"]["what"].startswith("multi-model")
    assert rows[f"{PROJECT}-c"]["usd_per_hour"] is None  # and never 0
    assert (found["usd_per_hour"], found["unknown_prices"], found["models"]) == (0.5 * now, 1, 3)


def test_an_unknown_price_is_said_to_be_unknown(cloud, capsys):
    make_endpoint(cloud.client("sagemaker"), f"{PROJECT}-c", instance="ml.c5.xlarge")

    main(["status"])

    lines = capsys.readouterr().out.splitlines()
    assert lines[1].split()[-1] == "unknown"
    assert "and 1 of unknown price" in lines[-1]


def test_what_others_have_made_is_not_listed(cloud, capsys):
    client = cloud.client("sagemaker")
    make_endpoint(client, f"{PROJECT}-a", tags=[{"Key": "project", "Value": PROJECT}])
    make_endpoint(client, f"other-{PROJECT}-a")

    assert as_json(capsys)["rows"] == []


def test_jobs_that_have_ended_are_listed_when_asked(cloud, capsys):
    for number in range(3):
        make_training_job(cloud.client("sagemaker"), f"{PROJECT}-train-{number}", instance="ml.g5.xlarge")

    assert as_json(capsys)["rows"] == []
    rows = as_json(capsys, "--all", "2")["rows"]

    assert len(rows) == 2
    assert {(row["kind"], row["status"], row["usd_per_hour"]) for row in rows} == {("training", "Completed", 0.0)}


class FakeAccount:
    """Answers by operation."""

    region = REGION

    def __init__(self, **answers):
        self.answers = answers

    def read(self, service, operation, **request):
        return self.answers.get(operation)

    def pages(self, service, operation, key, **request):
        found = self.answers.get(operation, {}).get(key, [])
        wanted = request.get("StatusEquals")
        return [each for each in found if wanted in (None, each.get("TrainingJobStatus"))]


def test_running_jobs_and_warm_pools_cost_and_ended_ones_do_not():
    name = f"{PROJECT}-train-1"
    summary = {"TrainingJobName": name, "TrainingJobArn": "arn", "TrainingJobStatus": "InProgress", "CreationTime": NOW}
    job = {"TrainingJobStatus": "InProgress", "ResourceConfig": {"InstanceType": "ml.g5.xlarge", "InstanceCount": 2},
           "TrainingStartTime": NOW - timedelta(seconds=90), "EnableManagedSpotTraining": True}  # fmt: skip
    account = FakeAccount(ListTrainingJobs={"TrainingJobSummaries": [summary]}, ListTags={"Tags": TAGS},
                          DescribeTrainingJob=job)  # fmt: skip

    [running] = [status.job_row(account, thing, NOW) for thing in status.running_jobs(account, PROJECT)]
    assert running == Row("training", name, "InProgress", "2 x ml.g5.xlarge, spot: less than that", 4.0, 90)

    kept = {"Status": "Available", "ResourceRetainedBillableTimeInSeconds": 7}
    job |= {"TrainingJobStatus": "Completed", "WarmPoolStatus": kept}
    summary["TrainingJobStatus"] = "Completed"
    [pool] = [status.pool_row(account, thing) for thing in status.warm_pools(account, PROJECT)]
    assert pool == Row("warm pool", name, "Available", "2 x ml.g5.xlarge", 4.0, 7)
    job["WarmPoolStatus"] = {"Status": "Terminated"}
    assert status.pool_row(account, status.warm_pools(account, PROJECT)[0]) is None


@pytest.mark.parametrize(
    ("config", "model", "mode"),
    [
        ({"AsyncInferenceConfig": {"OutputConfig": {}}}, {}, "async"),
        ({"ProductionVariants": [{"ServerlessConfig": {"MemorySizeInMB": 1024}}]}, {}, "serverless"),
        ({"ProductionVariants": [{}]}, {"PrimaryContainer": {"Mode": "MultiModel"}}, "multi-model"),
        ({"ProductionVariants": [{}]}, {"PrimaryContainer": {"Mode": "SingleModel"}}, "realtime"),
    ],
)
def test_the_mode_is_told_by_configuration_and_model(config, model, mode):
    assert mode_of(config, model) == mode


def test_resources_lie_where_each_kind_has_them():
    one = {"InstanceType": "ml.c5.xlarge", "InstanceCount": 4}

    assert resources_of("training", {"ResourceConfig": one}) == ("ml.c5.xlarge", 4)
    assert resources_of("processing", {"ProcessingResources": {"ClusterConfig": one}}) == ("ml.c5.xlarge", 4)
    assert resources_of("transform", {"TransformResources": one}) == ("ml.c5.xlarge", 4)


def test_billed_seconds_are_awss_own_where_there_are_some():
    start = NOW - timedelta(seconds=100)

    assert seconds_of("training", {"TrainingStartTime": start, "BillableTimeInSeconds": 30}, NOW) == 30
    assert seconds_of("processing", {"ProcessingStartTime": start}, NOW) == 100
    assert (
        seconds_of("transform", {"TransformStartTime": start, "TransformEndTime": NOW - timedelta(seconds=60)}, NOW)
        == 40
    )
    assert seconds_of("training", {}, NOW) is None


def test_a_sum_with_something_unknown_is_unknown():
    assert total([1.0, 2.0]) == 3.0
    assert total([1.0, None]) is None
    assert total([]) == 0.0


def test_columns_are_aligned():
    lines = table(
        [Row("endpoint", "a", "InService", "x", 1.0), Row("training", "long-name", "InProgress", "y", None, 5)]
    )

    assert [line.index(cell) for line, cell in zip(lines, ("STATUS", "InService", "InProgress"), strict=True)] == [
        21
    ] * 3
    assert lines[2].endswith("5 s  unknown")
