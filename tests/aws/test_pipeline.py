"""`make pipeline`: a definition that holds together, and a pipeline that is created, updated and run once."""

import json
import re
from argparse import Namespace

import pytest
from botocore.stub import Stubber

from sagemaker_monai.tasks.tasks import TASKS
from sagemaker_monai_aws.__main__ import main
from sagemaker_monai_aws.core.account import Account
from sagemaker_monai_aws.core.calls import Call, check
from sagemaker_monai_aws.core.command import Context
from sagemaker_monai_aws.core.errors import CommandError, UnfinishedError
from sagemaker_monai_aws.jobs import pipeline
from sagemaker_monai_aws.jobs.pipeline_definition import Threshold
from tests.support.cloud import ACCOUNT, BUCKET, PROJECT, REGION, not_refused, survives_deaths

OPERATIONS = {"Training": ("CreateTrainingJob", "TrainingJobName"), "Processing": ("CreateProcessingJob",
              "ProcessingJobName"), "RegisterModel": ("CreateModelPackage", None)}  # fmt: skip
# What a reference to a step's result stands for when the pipeline runs.
RESULTS = {
    "ModelArtifacts.S3ModelArtifacts": "s3://bucket/jobs/pipelines-1-Train/output/model.tar.gz",
    "TrainingJobName": "pipelines-1-Train",
}
OUTPUT = re.compile(r"ProcessingOutputConfig\.Outputs\['([^']+)'\]\.S3Output\.S3Uri")
SOURCE = ["--source", f"s3://{BUCKET}/monai/data/raw"]


@pytest.fixture
def ready(cloud, monkeypatch):
    """An account with data and an image; executions have steps, which moto does not list."""
    monkeypatch.setattr(pipeline, "steps_of", lambda account, arn: {"Train": ("Succeeded", "")})
    cloud.fill()
    return cloud


def run(*arguments):
    return main(["pipeline", *arguments, "--poll-s", "0"])


def defined(capsys, *arguments):
    capsys.readouterr()
    assert run("--print", *arguments) == 0
    return json.loads(capsys.readouterr().out)


def existing(cloud):
    return cloud.client("sagemaker").describe_pipeline(PipelineName=PROJECT)


def executions(cloud):
    return cloud.client("sagemaker").list_pipeline_executions(PipelineName=PROJECT)["PipelineExecutionSummaries"]


class Reader:
    """Goes through a definition as SageMaker would, and resolves every reference from what is before it."""

    def __init__(self, definition):
        self.parameters = {entry["Name"]: entry for entry in definition["Parameters"]}
        self.used, self.steps, self.checked = set(), {}, []
        assert definition["Version"] == "2020-12-01"
        assert set(definition) <= {"Version", "Metadata", "Parameters", "PipelineExperimentConfig", "Steps"}
        for entry in definition["Parameters"]:
            kind = {"String": str, "Float": float, "Integer": int, "Boolean": bool}[entry["Type"]]
            assert isinstance(entry["DefaultValue"], kind)
            assert re.fullmatch(r"[A-Za-z0-9\-_]{1,256}", entry["Name"])
        self.read(definition["Steps"])

    def read(self, steps):
        for step in steps:
            assert re.fullmatch(r"[A-Za-z0-9\-_]{1,64}", step["Name"])
            assert step["Name"] not in self.steps
            if step["Type"] == "Condition":
                self.read_condition(step)
            elif step["Type"] == "Fail":
                assert 0 < len(self.resolve(step["Arguments"]["ErrorMessage"])) <= 3072
            else:
                operation, name = OPERATIONS[step["Type"]]
                request = self.resolve(step["Arguments"])
                check(Call("sagemaker", operation, request | ({name: "a"} if name else {})))
                self.checked.append(operation)
                for file in step.get("PropertyFiles", []):
                    outputs = [each["OutputName"] for each in request["ProcessingOutputConfig"]["Outputs"]]
                    assert file["OutputName"] in outputs
                    assert file["FilePath"]
            self.steps[step["Name"]] = step

    def read_condition(self, step):
        self.steps[step["Name"]] = step
        for condition in step["Arguments"]["Conditions"]:
            assert condition["Type"] == "GreaterThanOrEqualTo"
            asked = condition["LeftValue"]["Std:JsonGet"]
            [_, name, _, file] = asked["PropertyFile"]["Get"].split(".")
            assert file in [each["PropertyFileName"] for each in self.steps[name]["PropertyFiles"]]
            assert asked["Path"]
            assert isinstance(self.resolve(condition["RightValue"]), float)
        self.read(step["Arguments"]["IfSteps"])
        self.read(step["Arguments"]["ElseSteps"])

    def resolve(self, value):
        if isinstance(value, list):
            return [self.resolve(each) for each in value]
        if not isinstance(value, dict):
            return value
        if set(value) == {"Get"}:
            return self.get(value["Get"])
        if set(value) == {"Std:Join"}:
            return value["Std:Join"]["On"].join(str(self.resolve(each)) for each in value["Std:Join"]["Values"])
        assert not [name for name in value if name.startswith("Std:")]
        return {name: self.resolve(each) for name, each in value.items()}

    def get(self, reference):
        where, name, *rest = reference.split(".", 2)
        if where == "Parameters":
            self.used.add(name)
            return self.parameters[name]["DefaultValue"]
        if where == "Execution":
            assert name == "PipelineExecutionId"
            return "abcdefghijkl"
        assert where == "Steps"
        step = self.steps[name]  # an earlier one
        if match := OUTPUT.fullmatch(rest[0]):
            outputs = {each["OutputName"]: each for each in step["Arguments"]["ProcessingOutputConfig"]["Outputs"]}
            return self.resolve(outputs[match[1]]["S3Output"]["S3Uri"])
        assert step["Type"] == "Training"
        return RESULTS[rest[0]]


@pytest.mark.parametrize(
    "arguments", [[], SOURCE, ["--output-compression", "NONE"], ["--no-spot", "--no-checkpoints", "--kms-key", "k"]]
)
def test_every_reference_resolves_and_every_request_passes_the_services_own_model(ready, capsys, arguments):
    reader = Reader(defined(capsys, "--hyperparameters", "epochs=3", "learning_rate=0.01", *arguments))

    jobs = ["CreateProcessingJob"] if "--source" in arguments else []
    assert reader.checked == [*jobs, "CreateTrainingJob", "CreateProcessingJob", "CreateModelPackage"]
    assert reader.used == set(reader.parameters)  # none has no effect


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("Parameters.MinBalancedAccuracy", "Parameters.MinAccuracy"),
        ("Steps.Train.ModelArtifacts", "Steps.Fit.ModelArtifacts"),
        ("PropertyFiles.EvaluationReport", "PropertyFiles.Report"),
        ("Outputs['evaluation']", "Outputs['report']"),
        ('"TrainingImage"', '"Image"'),
        ('"Name": "Evaluate"', '"Name": "Evaluate it"'),
    ],
)
def test_the_check_of_definitions_can_fail(ready, capsys, old, new):
    text = json.dumps(defined(capsys))
    assert old in text

    with pytest.raises((KeyError, AssertionError, CommandError)):  # whatever way it falls
        Reader(json.loads(text.replace(old, new)))


def test_what_is_registered_is_what_was_evaluated_and_jobs_have_our_tags(ready, capsys):
    definition = defined(capsys, *SOURCE, "--min-balanced-accuracy", "0.6")

    prepare, train, evaluate, condition = definition["Steps"]
    for step in (prepare, train, evaluate):
        assert {"Key": "project", "Value": PROJECT} in step["Arguments"]["Tags"]
    [package] = condition["Arguments"]["IfSteps"]
    artifact = {"Get": "Steps.Train.ModelArtifacts.S3ModelArtifacts"}
    assert evaluate["Arguments"]["ProcessingInputs"][0]["S3Input"]["S3Uri"] == artifact
    assert package["Arguments"]["InferenceSpecification"]["Containers"] == [
        {"Image": ready.image, "ModelDataUrl": artifact}
    ]
    assert package["Arguments"]["ModelApprovalStatus"] == "PendingManualApproval"
    prepared = {"Get": "Steps.Prepare.ProcessingOutputConfig.Outputs['data'].S3Output.S3Uri"}
    [channel] = train["Arguments"]["InputDataConfig"]
    assert channel["DataSource"]["S3DataSource"]["S3Uri"] == prepared
    assert evaluate["Arguments"]["ProcessingInputs"][1]["S3Input"]["S3Uri"] == prepared
    [fail] = condition["Arguments"]["ElseSteps"]
    assert fail["Type"] == "Fail"
    defaults = {entry["Name"]: entry["DefaultValue"] for entry in definition["Parameters"]}
    assert defaults["MinBalancedAccuracy"] == 0.6
    assert defaults["SourceUri"] == f"s3://{BUCKET}/monai/data/raw/"


@pytest.mark.parametrize("task", TASKS)
def test_every_score_of_a_condition_is_in_what_evaluate_writes(task):
    from sagemaker_monai.evaluation.documents import model_quality

    for number, score in enumerate(TASKS[task].goals, start=1):
        metrics = {name: place / 8 for place, name in enumerate(TASKS[task].goals, start=1)} | {"task": task}
        found = model_quality(metrics)
        for name in Threshold(task, score, 0.5).path.split("."):
            found = found[name]
        assert found == number / 8


@pytest.mark.parametrize(("task", "words", "parameter", "kind"), [
    ("regression", ["--register-if", "mae=4.5"], {"MaxMae": 4.5}, "LessThanOrEqualTo"),
    ("multilabel", ["--register-if", "auc=0.8"], {"MinAuc": 0.8}, "GreaterThanOrEqualTo"),
    ("ordinal", ["--min-balanced-accuracy", "0.25"], {"MinBalancedAccuracy": 0.25}, "GreaterThanOrEqualTo"),
    ("segmentation", [], {"MinDice": 0.5}, "GreaterThanOrEqualTo"),
])  # fmt: skip
def test_a_model_of_another_task_is_registered_by_a_score_of_its_own(ready, capsys, task, words, parameter, kind):
    content = {"task": task, "labels": {"0": "background", "1": "b"}}
    ready.put("monai/data/training/dataset.json", json.dumps(content).encode())

    definition = defined(capsys, *words)

    [(name, value)] = parameter.items()
    known = {each["Name"]: each["DefaultValue"] for each in definition["Parameters"]}
    [condition] = definition["Steps"][-1]["Arguments"]["Conditions"]
    assert known[name] == value
    assert condition["Type"] == kind
    assert condition["RightValue"] == {"Get": f"Parameters.{name}"}


def test_labels_that_are_named_as_files_are_masks(ready, capsys):
    item = {"image": "./imagesTr/a.nii.gz", "label": "./labelsTr/a.nii.gz"}
    content = {"labels": {"0": "background", "1": "liver"}, "training": [item]}
    ready.put("monai/data/training/dataset.json", json.dumps(content).encode())

    definition = defined(capsys)

    defaults = {entry["Name"]: entry["DefaultValue"] for entry in definition["Parameters"]}
    training = definition["Steps"][0]["Arguments"]["AlgorithmSpecification"]["MetricDefinitions"]
    package = definition["Steps"][-1]["Arguments"]["IfSteps"][0]["Arguments"]
    assert "MinDice" in defaults
    assert "validation_structure_dice_liver" in [each["Name"] for each in training]
    assert "image/png" in package["InferenceSpecification"]["SupportedResponseMIMETypes"]


@pytest.mark.parametrize(("words", "said"), [
    ([], "--register-if mae=NUMBER"),
    (["--register-if", "auc=0.5"], "regression has no auc"),
    (["--register-if", "mae=much"], "takes SCORE=NUMBER"),
])  # fmt: skip
def test_another_task_without_a_score_of_its_own_is_refused(ready, capsys, words, said):
    ready.put("monai/data/training/dataset.json", b'{"task": "regression", "labels": {"0": "mm"}}')

    assert run(*words) == 2
    assert said in capsys.readouterr().err


def test_the_pipeline_is_created_left_alone_and_updated(ready, capsys):
    assert run() == 0
    first = existing(ready)
    assert json.loads(first["PipelineDefinition"]) == defined(capsys)
    assert first["RoleArn"] == f"arn:aws:iam::{ACCOUNT}:role/{PROJECT}-{REGION}-pipeline"
    tags = ready.client("sagemaker").list_tags(ResourceArn=first["PipelineArn"])["Tags"]
    assert {"Key": "created-by", "Value": "sagemaker-monai"} in tags

    assert run() == 0
    assert "is up to date" in capsys.readouterr().err
    assert run("--hyperparameters", "epochs=2") == 0
    assert "updated" in capsys.readouterr().err
    assert json.loads(existing(ready)["PipelineDefinition"]) == defined(capsys, "--hyperparameters", "epochs=2")
    assert executions(ready) == []  # nothing runs without --start


def test_a_pipeline_of_others_is_left_alone(ready, capsys):
    ready.client("sagemaker").create_pipeline(
        PipelineName=PROJECT,
        PipelineDefinition="{}",
        ClientRequestToken="t" * 32,
        RoleArn="arn:aws:iam::123456789012:role/x",
    )

    assert run() == 2
    assert "was not made by these commands" in capsys.readouterr().err
    assert existing(ready)["PipelineDefinition"] == "{}"


def test_an_execution_is_started_once_and_again_when_asked_or_changed(ready, capsys):
    arguments = ["--start", "--hyperparameters", "epochs=2"]
    assert run(*arguments) == 0
    assert json.loads(capsys.readouterr().out)["PipelineExecutionStatus"] == "Succeeded"
    assert run(*arguments) == 0
    assert len(executions(ready)) == 1
    assert run(*arguments, "--parameters", "epochs=4") == 0
    assert len(executions(ready)) == 2
    assert run(*arguments, "--again") == 0
    assert len(executions(ready)) == 3
    given = [
        ready.client("sagemaker").list_pipeline_parameters_for_execution(
            PipelineExecutionArn=each["PipelineExecutionArn"]
        )["PipelineParameters"]
        for each in executions(ready)
    ]
    assert given == [[], [{"Name": "epochs", "Value": "4"}], []]


REFUSED = [
    (["--min-balanced-accuracy", "60"], "is from 0 to 1, got 60"),
    ([*SOURCE, "--data", f"s3://{BUCKET}/x"], "leave --data out"),
    (["--data", f"training=s3://{BUCKET}/x", f"more=s3://{BUCKET}/y"], "one channel, training, got training, more"),
    (["--hyperparameters", "epochs=0"], "epochs must be a whole number from 1"),
    (["--start", "--parameters", "epochs=3"], "the pipeline has no parameter 'epochs'"),
    (["--start", "--hyperparameters", "epochs=3", "--parameters", "epochs=0"], "epochs must be a whole number"),
    (["--start", "--data", f"s3://{BUCKET}/nothing"], "there is nothing below"),
    (["--processing-instance-type", "m5.large"], "AWS would refuse the request CreateProcessingJob"),
]


def test_what_is_wrong_is_said_before_anything_is_created(ready):
    assert not_refused("pipeline", REFUSED) == []


def test_each_step_is_followed_and_the_reason_of_a_failure_is_said(cloud, capsys):
    arn = f"arn:aws:sagemaker:{REGION}:{ACCOUNT}:pipeline/{PROJECT}/execution/abcdefghijkl"
    account = Account(Namespace(region=None, profile=None))
    steps = [{"StepName": "Train", "StepStatus": "Executing"}]
    ended = [{"StepName": "Train", "StepStatus": "Succeeded"},
             {"StepName": "NotGoodEnough", "StepStatus": "Failed", "FailureReason": "below 0.5"}]  # fmt: skip
    with Stubber(account.client("sagemaker")) as stub:
        for status, found in (("Executing", steps), ("Failed", ended)):
            stub.add_response("describe_pipeline_execution", {"PipelineExecutionStatus": status},
                              {"PipelineExecutionArn": arn})  # fmt: skip
            stub.add_response("list_pipeline_execution_steps", {"PipelineExecutionSteps": found},
                              {"PipelineExecutionArn": arn, "SortOrder": "Ascending"})  # fmt: skip
        with pytest.raises(UnfinishedError, match=r"the execution failed: NotGoodEnough: below 0\.5"):
            pipeline.finish(Context(account, Namespace(poll_s=0)), arn)

    assert capsys.readouterr().err.splitlines() == [
        "pipeline: Train: Executing", "pipeline: Train: Succeeded", "pipeline: NotGoodEnough: Failed: below 0.5",
    ]  # fmt: skip


@pytest.mark.long
def test_a_start_that_is_killed_anywhere_and_repeated_leaves_one_execution(cloud):
    def state():
        [execution] = executions(cloud)
        found = existing(cloud)
        groups = cloud.client("sagemaker").list_model_package_groups()["ModelPackageGroupSummaryList"]
        return found["PipelineDefinition"], execution["PipelineExecutionDisplayName"], len(groups)

    assert survives_deaths(cloud, "pipeline", ["--start", "--no-wait"], cloud.fill, state) >= 16
