"""`make delete`: what goes, in which order, what stays, and what a second or a killed start does."""

import json

import pytest
from botocore.client import BaseClient

from sagemaker_monai_aws.__main__ import main
from sagemaker_monai_aws.core.calls import check
from sagemaker_monai_aws.infrastructure.removal import once, sagemaker
from tests.support.cloud import BUCKET, PROJECT, REGION, not_refused
from tests.support.deployed import TAGS, make_endpoint, make_model, make_training_job

ENDPOINT = f"{PROJECT}-realtime"
TARGET = {"ServiceNamespace": "sagemaker", "ResourceId": f"endpoint/{ENDPOINT}/variant/AllTraffic",
          "ScalableDimension": "sagemaker:variant:DesiredInstanceCount"}  # fmt: skip


def fill(cloud):
    """An endpoint with all that one may have."""
    make_endpoint(cloud.client("sagemaker"), ENDPOINT)
    cloud.client("application-autoscaling").register_scalable_target(**TARGET, MinCapacity=1, MaxCapacity=2)
    make_alarm(cloud, f"{ENDPOINT}-5xx", ENDPOINT)
    make_alarm(cloud, f"{ENDPOINT}-2-5xx", f"{ENDPOINT}-2")


def make_alarm(cloud, name, endpoint):
    cloud.client("cloudwatch").put_metric_alarm(
        AlarmName=name, MetricName="Invocation5XXErrors", Namespace="AWS/SageMaker", Statistic="Sum", Period=60,
        EvaluationPeriods=1, Threshold=1, ComparisonOperator="GreaterThanThreshold",
        Dimensions=[{"Name": "EndpointName", "Value": endpoint}],
    )  # fmt: skip


def left(cloud):
    client = cloud.client("sagemaker")
    return {
        "endpoints": [each["EndpointName"] for each in client.list_endpoints()["Endpoints"]],
        "configurations": [each["EndpointConfigName"] for each in client.list_endpoint_configs()["EndpointConfigs"]],
        "models": [each["ModelName"] for each in client.list_models()["Models"]],
        "scaling": cloud.client("application-autoscaling").describe_scalable_targets(ServiceNamespace="sagemaker")[
            "ScalableTargets"],
        "alarms": [each["AlarmName"] for each in cloud.client("cloudwatch").describe_alarms()["MetricAlarms"]],
    }  # fmt: skip


NOTHING = {"endpoints": [], "configurations": [], "models": [], "scaling": []}


@pytest.mark.parametrize("what", [["--endpoint", ENDPOINT], ["--all"]])
def test_an_endpoint_goes_with_all_that_exists_only_for_it(cloud, capsys, what):
    fill(cloud)

    assert main(["delete", *what, "--yes"]) == 0

    others = [] if what == ["--all"] else [f"{ENDPOINT}-2-5xx"]  # of an endpoint whose name only begins so
    assert left(cloud) == {**NOTHING, "alarms": others}
    printed = capsys.readouterr()
    assert [line.split()[1] for line in printed.out.splitlines()[:3]] == ["endpoint", "scaling", "alarm"]
    assert f"below s3://{BUCKET}/monai" in printed.err


def test_a_second_time_nothing_is_left_and_that_is_well(cloud, capsys):
    fill(cloud)
    main(["delete", "--endpoint", ENDPOINT, "--yes"])

    assert main(["delete", "--endpoint", ENDPOINT, "--yes"]) == 0

    assert "nothing is left to delete" in capsys.readouterr().err


def test_what_was_left_by_an_endpoint_that_is_gone_goes(cloud):
    fill(cloud)
    make_endpoint(cloud.client("sagemaker"), f"{ENDPOINT}-2")
    cloud.client("sagemaker").delete_endpoint(EndpointName=ENDPOINT)

    main(["delete", "--endpoint", ENDPOINT, "--yes"])

    assert left(cloud) == {"endpoints": [f"{ENDPOINT}-2"], "configurations": [f"{ENDPOINT}-2-1"], "scaling": [],
                           "models": [f"{ENDPOINT}-2-model"], "alarms": [f"{ENDPOINT}-2-5xx"]}  # fmt: skip


def test_a_configuration_with_the_endpoints_tag_is_the_endpoints_whatever_its_name(cloud):
    client = cloud.client("sagemaker")
    make_model(client, f"{PROJECT}-m")
    variant = {"VariantName": "a", "ModelName": f"{PROJECT}-m", "InstanceType": "ml.m5.large",
               "InitialInstanceCount": 1}  # fmt: skip
    for name, tags in (("mine", [{"Key": "endpoint", "Value": ENDPOINT}]), ("other", [])):
        client.create_endpoint_config(EndpointConfigName=f"{PROJECT}-{name}", ProductionVariants=[variant],
                                      Tags=TAGS + tags)  # fmt: skip

    main(["delete", "--endpoint", ENDPOINT, "--yes"])

    assert left(cloud)["configurations"] == [f"{PROJECT}-other"]
    assert left(cloud)["models"] == [f"{PROJECT}-m"]  # which the other has too


def test_a_model_that_another_endpoint_serves_stays(cloud, capsys):
    client = cloud.client("sagemaker")
    make_model(client, f"{PROJECT}-m")
    make_endpoint(client, ENDPOINT, model=f"{PROJECT}-m")
    make_endpoint(client, f"{PROJECT}-other", model=f"{PROJECT}-m")

    main(["delete", "--endpoint", ENDPOINT, "--yes"])

    assert left(cloud)["models"] == [f"{PROJECT}-m"]
    assert main(["delete", "--model", f"{PROJECT}-m", "--yes"]) == 2
    assert f"in use by {PROJECT}-other-1" in capsys.readouterr().err


def test_a_model_that_nothing_serves_goes(cloud):
    make_model(cloud.client("sagemaker"), f"{PROJECT}-m")

    assert main(["delete", "--model", f"{PROJECT}-m", "--yes"]) == 0
    assert main(["delete", "--model", f"{PROJECT}-m", "--yes"]) == 0

    assert left(cloud)["models"] == []


def test_what_others_have_made_stays_unless_forced(cloud, capsys):
    make_endpoint(cloud.client("sagemaker"), ENDPOINT, tags=[{"Key": "project", "Value": "another"}])

    assert main(["delete", "--endpoint", ENDPOINT, "--yes"]) == 2
    assert "was not made by these commands" in capsys.readouterr().err
    assert main(["delete", "--all", "--yes"]) == 0
    assert left(cloud)["endpoints"] == [ENDPOINT]

    assert main(["delete", "--endpoint", ENDPOINT, "--yes", "--force"]) == 0
    assert left(cloud) == {**NOTHING, "alarms": []}


def test_without_a_yes_nothing_goes(cloud, capsys, monkeypatch):
    fill(cloud)

    assert main(["delete", "--endpoint", ENDPOINT]) == 2
    assert "add --yes" in capsys.readouterr().err

    monkeypatch.setattr("sys.stdin.isatty", lambda: True, raising=False)
    for answer, code, count in (("no", 2, 1), ("", 2, 1), ("yes", 0, 0)):
        monkeypatch.setattr("sys.stdin", Terminal(answer))
        assert main(["delete", "--endpoint", ENDPOINT]) == code
        assert len(left(cloud)["endpoints"]) == count


class Terminal:
    def __init__(self, line):
        self.line = line

    def isatty(self):
        return True

    def readline(self):
        return self.line + "\n"


def test_a_dry_run_prints_the_calls_and_makes_none(cloud, capsys):
    fill(cloud)
    before = left(cloud)

    assert main(["delete", "--endpoint", ENDPOINT, "--dry-run"]) == 0

    calls = [call["operation"] for call in json.loads(capsys.readouterr().out)]
    assert calls == [
        "DeleteEndpoint",
        "DeregisterScalableTarget",
        "DeleteAlarms",
        "DeleteModel",
        "DeleteEndpointConfig",
    ]
    assert left(cloud) == before


def test_one_has_to_say_what(cloud):
    rows = [([], "say what to delete"), (["--all", "--endpoint", "x"], "say what to delete"),
            (["--job", "nothing", "--yes"], "there is no job 'nothing'")]  # fmt: skip
    assert not_refused("delete", rows) == []


def test_a_job_that_has_ended_is_left_alone(cloud, capsys):
    make_training_job(cloud.client("sagemaker"), f"{PROJECT}-train-1")

    assert main(["delete", "--job", f"{PROJECT}-train-1", "--yes"]) == 0
    assert "nothing is left" in capsys.readouterr().err


@pytest.fixture
def answers(monkeypatch):
    """What AWS answers to calls that moto lacks, by operation; `asked` has those that were made."""
    known, asked, send = {}, [], BaseClient._make_api_call

    def answer(self, operation, words):
        asked.append((operation, words))
        return known[operation] if operation in known else send(self, operation, words)

    monkeypatch.setattr(BaseClient, "_make_api_call", answer)
    known["asked"] = asked
    return known


@pytest.mark.parametrize(
    ("noun", "status", "change", "call"),
    [
        ("TrainingJob", "InProgress", {}, "StopTrainingJob"),
        ("TrainingJob", "Completed", {"WarmPoolStatus": {"Status": "Available"}}, "UpdateTrainingJob"),
        ("TransformJob", "InProgress", {}, "StopTransformJob"),
        ("ProcessingJob", "InProgress", {}, "StopProcessingJob"),
        ("HyperParameterTuningJob", "InProgress", {}, "StopHyperParameterTuningJob"),
        ("TrainingJob", "Stopping", {}, None),
    ],
)
def test_a_job_is_stopped_and_its_warm_pool_given_back(cloud, answers, noun, status, change, call):
    name = f"{PROJECT}-x-1"
    answers[f"Describe{noun}"] = {f"{noun}Arn": f"arn:aws:sagemaker:{REGION}:1:x/{name}", f"{noun}Status": status,
                                  f"{noun}Name": name, **change}  # fmt: skip
    answers["ListTags"] = {"Tags": TAGS}
    if call:
        answers[call] = {}

    assert main(["delete", "--job", name, "--yes"]) == 0

    changing = [(each, words) for each, words in answers["asked"] if not each.startswith(("Describe", "List", "Get"))]
    pool = {"ResourceConfig": {"KeepAlivePeriodInSeconds": 0}} if call == "UpdateTrainingJob" else {}
    assert changing == ([(call, {f"{noun}Name": name, **pool})] if call else [])


def test_schedules_go_before_the_endpoint_whose_data_they_look_at(cloud, answers):
    fill(cloud)
    found = cloud.client("sagemaker").describe_endpoint(EndpointName=ENDPOINT)
    answers["DescribeEndpoint"] = {**found, "DataCaptureConfig": {"CaptureStatus": "Started"}}
    answers["ListMonitoringSchedules"] = {"MonitoringScheduleSummaries": [{"MonitoringScheduleName": "drift"}]}
    answers["DeleteMonitoringSchedule"] = {}

    main(["delete", "--endpoint", ENDPOINT, "--yes"])

    deleted = [operation for operation, _ in answers["asked"] if operation.startswith("Delete")]
    assert deleted[:2] == ["DeleteMonitoringSchedule", "DeleteEndpoint"]


def test_a_pipeline_goes_with_its_executions(cloud, answers):
    arn = f"arn:aws:sagemaker:{REGION}:123456789012:pipeline/{PROJECT}"
    answers["DescribePipeline"] = {"PipelineArn": arn}
    answers["ListTags"] = {"Tags": TAGS}
    executions = [{"PipelineExecutionArn": f"{arn}/execution/{name}", "PipelineExecutionStatus": status}
                  for name, status in (("abcdefghijkl", "Executing"), ("bbcdefghijkl", "Failed"))]  # fmt: skip
    answers["ListPipelineExecutions"] = {"PipelineExecutionSummaries": executions}
    answers["StopPipelineExecution"] = answers["DeletePipeline"] = {}

    assert main(["delete", "--pipeline", PROJECT, "--yes"]) == 0

    changing = [(each, words) for each, words in answers["asked"] if each.startswith(("Stop", "Delete"))]
    assert [each for each, _ in changing] == ["StopPipelineExecution", "DeletePipeline"]
    assert changing[0][1]["PipelineExecutionArn"] == executions[0]["PipelineExecutionArn"]


@pytest.mark.parametrize("noun", ["Endpoint", "EndpointConfig", "Model", "MonitoringSchedule"])
def test_every_call_passes_the_services_own_model(noun):
    check(sagemaker("Delete", noun, "name", "x").call)


def test_a_step_is_done_once_where_it_comes_first():
    a, b = sagemaker("Delete", "Model", "a", "model"), sagemaker("Delete", "Model", "b", "model")

    assert once([a, b, a]) == [a, b]


@pytest.mark.parametrize("is_after", [False, True])
@pytest.mark.parametrize("at", range(4))
def test_a_deletion_that_is_broken_off_at_any_change_and_repeated_leaves_nothing(cloud, monkeypatch, at, is_after):
    make_endpoint(cloud.client("sagemaker"), ENDPOINT)
    cloud.client("application-autoscaling").register_scalable_target(**TARGET, MinCapacity=1, MaxCapacity=2)
    changes, send = [], BaseClient._make_api_call

    def interrupt(self, operation, words):
        changes.extend([operation] if operation.startswith("De") and not operation.startswith("Describe") else [])
        is_due = len(changes) == at + 1 and operation == changes[-1]
        if is_due and not is_after:
            raise KeyboardInterrupt
        answer = send(self, operation, words)
        if is_due:
            raise KeyboardInterrupt
        return answer

    with monkeypatch.context() as patch:
        patch.setattr(BaseClient, "_make_api_call", interrupt)
        assert main(["delete", "--endpoint", ENDPOINT, "--yes"]) == 130
    assert changes[0] == "DeleteEndpoint"  # what costs goes first

    assert main(["delete", "--endpoint", ENDPOINT, "--yes"]) == 0

    assert left(cloud) == {**NOTHING, "alarms": []}
