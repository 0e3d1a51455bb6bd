"""Requests to the offline SageMaker are checked as AWS checks them, and resources are kept, listed and tagged."""

import re
import time

import pytest
from botocore.exceptions import ClientError

from simulate import shapes
from simulate.kinds import KINDS
from tests.support.simulated import ROLE, simulation, training_request


@pytest.fixture(scope="module")
def aws(tmp_path_factory):
    with simulation(tmp_path_factory.mktemp("simulation")) as started:
        started.bucket("jobs")
        yield started


def code_of(error):
    return error.value.response["Error"]["Code"]


def test_every_pattern_of_the_simulated_operations_can_be_read():
    seen, waiting = set(), []
    for kind in KINDS:
        names = [f"{verb}{kind}" for verb in ("Create", "Describe", "Delete", "Stop", "Update")] + [f"List{kind}s"]
        known = [name for name in names if name in shapes.service().operation_names]
        waiting += [shapes.service().operation_model(name).input_shape for name in known]
    patterns = set()
    while waiting:
        shape = waiting.pop()
        if shape.name in seen:
            continue
        seen.add(shape.name)
        patterns.add(shape.metadata.get("pattern", ""))
        waiting += getattr(shape, "members", {}).values()
        waiting += [part for part in (getattr(shape, name, None) for name in ("member", "key", "value")) if part]

    assert len(patterns) > 40
    assert {type(shapes.pattern(text)) for text in patterns} == {re.Pattern}
    assert not [text for text in patterns if r"\p" in shapes.pattern(text).pattern]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"TrainingJobName": "my_job"}, "'my_job' at 'trainingJobName' failed to satisfy constraint: Member must "
         "satisfy regular expression pattern"),
        ({"TrainingJobName": "a" * 64}, "Member must have length less than or equal to 63"),
        ({"RoleArn": "somebody"}, "at 'roleArn' failed to satisfy constraint: Member must have length greater than"),
        ({"RoleArn": "x" * 30}, "at 'roleArn' failed to satisfy constraint: Member must satisfy regular expression"),
        ({"StoppingCondition": {"MaxRuntimeInSeconds": 0}}, "at 'stoppingCondition.maxRuntimeInSeconds' failed"),
        ({"ResourceConfig": {"InstanceType": "ml.nothing", "InstanceCount": 1}}, "Member must satisfy enum value set"),
        ({"OutputDataConfig": {"S3OutputPath": "/tmp"}}, "'outputDataConfig.s3OutputPath'"),
        ({"OutputDataConfig": {}}, "Value null at 'outputDataConfig.s3OutputPath' failed to satisfy constraint: Member "
         "must not be null"),
        ({"Tags": [{"Key": "a;b", "Value": ""}]}, "'tags.1.member.key'"),
        ({"EnableManagedSpotTraining": True}, "Invalid MaxWaitTimeInSeconds. It must be present"),
        ({"StoppingCondition": {"MaxRuntimeInSeconds": 9, "MaxWaitTimeInSeconds": 9}}, "It must not be present"),
        ({"AlgorithmSpecification": {"TrainingInputMode": "File"}}, "without TrainingImage is not simulated offline"),
        ({"CheckpointConfig": {"S3Uri": "s3://a/b", "LocalPath": "/opt/ml/model/x"}}, "must not be a reserved path"),
        ({"CheckpointConfig": {"S3Uri": "s3://a/b", "LocalPath": "/opt/ml/../x"}}, "not simulated"),
        ({"InputDataConfig": [{"ChannelName": "a", "InputMode": "Pipe", "DataSource": {"S3DataSource": {
            "S3DataType": "S3Prefix", "S3Uri": "s3://a/b"}}}]}, "Pipe mode is not simulated"),
    ],
)  # fmt: skip
def test_a_request_that_aws_refuses_is_refused_in_its_words(aws, change, message):
    status, body = aws.raw("CreateTrainingJob", training_request("refused", "report", **change))

    assert status == 400
    assert body["__type"] == "ValidationException"
    assert message in body["message"]
    assert aws.sagemaker.list_training_jobs(NameContains="refused")["TrainingJobSummaries"] == []


def test_all_faults_are_told_at_once(aws):
    _, body = aws.raw("CreateTrainingJob", {"TrainingJobName": "_", "RoleArn": "x" * 30})

    assert body["message"].startswith("3 validation errors detected: ")
    assert body["message"].count("failed to satisfy constraint") == 3


@pytest.mark.parametrize("value", [3, 0.1, True, None, ["3"]])
def test_hyperparameters_are_strings_and_nothing_else(aws, value):
    request = training_request("numbers", "report", HyperParameters={"epochs": value})

    status, body = aws.raw("CreateTrainingJob", request)

    assert (status, body["__type"]) == (400, "SerializationException")
    assert "hyperParameters.epochs.member" in body["message"]


@pytest.mark.parametrize("body", [b"{", b"[]", b"[" * 100_000])
def test_what_is_no_json_object_is_refused(aws, body):
    status, answer = aws.raw("CreateModel", body)

    assert (status, answer["__type"]) == (400, "SerializationException")


def test_a_request_larger_than_a_mebibyte_is_refused(aws):
    status, body = aws.raw("CreateModel", b" " * (1 << 20) + b"{}")

    assert status == 413
    assert "exceeded 1048576 bytes" in body["message"]


@pytest.mark.parametrize(
    ("operation", "name", "code", "message"),
    [
        ("describe_training_job", "TrainingJobName", "ValidationException", "Requested resource not found."),
        ("stop_training_job", "TrainingJobName", "ValidationException", "Requested resource not found."),
        ("describe_processing_job", "ProcessingJobName", "ValidationException", "Could not find requested job"),
        ("describe_transform_job", "TransformJobName", "ValidationException", "Could not find requested job"),
        ("describe_hyper_parameter_tuning_job", "HyperParameterTuningJobName", "ResourceNotFound", "nobody"),
        ("describe_model", "ModelName", "ValidationException", 'Could not find model "arn:aws:sagemaker:eu-central-1:'
         '123456789012:model/nobody".'),
        ("delete_endpoint_config", "EndpointConfigName", "ValidationException", "Could not find endpoint config"),
        ("delete_endpoint", "EndpointName", "ValidationException", 'Could not find endpoint "arn:aws:'),
    ],
)  # fmt: skip
def test_what_is_not_there_is_told_in_aws_words(aws, operation, name, code, message):
    with pytest.raises(ClientError) as error:
        getattr(aws.sagemaker, operation)(**{name: "nobody"})

    assert code_of(error) == code
    assert message in str(error.value)


def test_a_name_is_taken_once(aws):
    model = {"ModelName": "once", "ExecutionRoleArn": ROLE, "PrimaryContainer": {"Image": "fake"}}
    aws.sagemaker.create_model(**model)
    with pytest.raises(ClientError, match="Cannot create already existing model") as error:
        aws.sagemaker.create_model(**model)
    assert code_of(error) == "ValidationException"

    job = training_request("twice", "report")
    aws.sagemaker.create_training_job(**job)
    with pytest.raises(ClientError, match="must be unique") as error:
        aws.sagemaker.create_training_job(**job)
    assert code_of(error) == "ResourceInUse"


def test_lists_are_filtered_sorted_and_paged(aws):
    for name in ("list-b", "list-a", "list-c"):
        container = {"Image": "fake"}
        aws.sagemaker.create_model(ModelName=name, ExecutionRoleArn=ROLE, PrimaryContainer=container)

    def names(**options):
        return [each["ModelName"] for each in aws.sagemaker.list_models(NameContains="list-", **options)["Models"]]

    assert names() == ["list-c", "list-a", "list-b"]  # the newest first
    assert names(SortBy="Name", SortOrder="Ascending") == ["list-a", "list-b", "list-c"]
    assert names(CreationTimeAfter=time.time() + 60) == []
    pages = aws.sagemaker.get_paginator("list_models").paginate(
        NameContains="list-", PaginationConfig={"PageSize": 2}, SortBy="Name"
    )
    assert [[each["ModelName"] for each in page["Models"]] for page in pages] == [["list-c", "list-b"], ["list-a"]]
    with pytest.raises(ClientError, match="Invalid NextToken"):
        names(NextToken="x")


def test_tags_are_kept_added_and_removed(aws):
    made = aws.sagemaker.create_model(ModelName="tagged", ExecutionRoleArn=ROLE, PrimaryContainer={"Image": "fake"},
                                      Tags=[{"Key": "project", "Value": "p"}])  # fmt: skip
    arn = made["ModelArn"]
    aws.sagemaker.add_tags(ResourceArn=arn, Tags=[{"Key": "a", "Value": "1"}])
    aws.sagemaker.delete_tags(ResourceArn=arn, TagKeys=["project"])

    assert aws.sagemaker.list_tags(ResourceArn=arn)["Tags"] == [{"Key": "a", "Value": "1"}]


def test_the_region_of_a_resource_is_that_of_its_request(aws):
    client = aws.client("sagemaker", region="us-west-2")
    made = client.create_model(ModelName="Here", ExecutionRoleArn=ROLE, PrimaryContainer={"Image": "fake"})

    assert made["ModelArn"] == "arn:aws:sagemaker:us-west-2:123456789012:model/here"


def test_what_is_not_simulated_here_is_motos(aws):
    aws.sagemaker.create_model_package_group(ModelPackageGroupName="group")
    found = aws.sagemaker.describe_model_package_group(ModelPackageGroupName="group")
    aws.sagemaker.add_tags(ResourceArn=found["ModelPackageGroupArn"], Tags=[{"Key": "a", "Value": "1"}])

    assert found["ModelPackageGroupStatus"] == "Completed"
    assert aws.client("sts").get_caller_identity()["Account"] == "123456789012"
    aws.client("ecr").create_repository(repositoryName="thing")
    assert aws.client("iam").list_roles()["Roles"] == []


def test_what_neither_knows_is_refused(aws):
    with pytest.raises(ClientError, match="ListLabelingJobs is not simulated offline") as error:
        aws.sagemaker.list_labeling_jobs()

    assert code_of(error) == "UnknownOperationException"


@pytest.mark.parametrize(
    ("container", "message"),
    [
        ({"Image": "fake", "ModelDataUrl": "s3://jobs/none.tar.gz"}, "Could not find model data at s3://jobs/none"),
        ({"Image": "fake", "ModelDataUrl": "s3://nowhere/m.tar.gz"}, "Could not find model data at s3://nowhere"),
        ({"Image": "fake", "Mode": "MultiModel", "ModelDataUrl": "s3://jobs/m"}, "an S3 prefix"),
        ({"ModelDataUrl": "s3://jobs/none.tar.gz"}, "without Image"),
    ],
)
def test_a_model_needs_its_data(aws, container, message):
    with pytest.raises(ClientError, match=message):
        aws.sagemaker.create_model(ModelName="none", ExecutionRoleArn=ROLE, PrimaryContainer=container)
