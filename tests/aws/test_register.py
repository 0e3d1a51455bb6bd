"""`make register`: one version for one model, with what makes it known, and a person's approval."""

import io
import json
import tarfile

import jsonschema
import pytest

from sagemaker_monai.requests.media_types import MEDIA_TYPES
from sagemaker_monai.serving.inference import ANSWER_TYPES, types_of
from sagemaker_monai_aws.__main__ import main
from sagemaker_monai_aws.core.trained import Trained
from sagemaker_monai_aws.hosting import register
from tests.support.cloud import BUCKET, PROJECT, not_refused, survives_deaths

JOB = f"{PROJECT}-train-made"
METRICS = {
    "model_version": "1f3a", "split": "test", "note": "", "images": 20, "groups": 10,
    "loss": None, "accuracy": 0.75, "balanced_accuracy": 0.5, "auc": 0.875,
    "intervals_95": {"accuracy": [0.5, 1.0], "balanced_accuracy": None, "auc": [0.75, 1.0]},
    "per_class": {"nevus": {"sensitivity": 0.25}, "melanoma": {"sensitivity": None}},
    "dataset_fingerprint": "ab12",
}  # fmt: skip


def text(longest):
    return {"type": "string", "maxLength": longest}


def part(**properties):
    return {"type": "object", "additionalProperties": False, "properties": properties}


NUMBER = part(name=text(255), notes=text(1024), type={"enum": ["number"]}, value={"type": "number"})
PAIR = part(name={**text(255), "minLength": 1}, value={**text(255), "minLength": 1})
# SageMaker Developer Guide, "Model package model card schema": the parts that ours has, in our words.
CARD = part(
    model_overview=part(model_creator=text(1024), model_artifact={"items": text(1024), "maxItems": 15}),
    intended_uses=part(
        purpose_of_model=text(2048),
        risk_rating={"enum": ["High", "Medium", "Low", "Unknown"]},
        explanations_for_risk_rating=text(2048),
    ),
    training_details=part(
        training_job_details=part(
            training_arn=text(1024),
            training_datasets={"items": text(1024), "maxItems": 15},
            training_environment=part(container_image={"items": text(1024), "maxItems": 15}),
            hyper_parameters={"items": PAIR, "maxItems": 100},
        )
    ),
    evaluation_details={
        "items": part(
            name={**text(63), "minLength": 1},
            evaluation_observation=text(2096),
            metadata={"type": "object", "additionalProperties": text(1024)},
            metric_groups={"items": part(name={**text(63), "minLength": 1}, metric_data={"items": NUMBER})},
        )
    },
    additional_information=part(caveats_and_recommendations=text(2048)),
)


@pytest.fixture
def ready(cloud):
    """An account with a training job that has left metrics."""
    fill(cloud)
    return cloud


def fill(cloud, job=JOB, **changes):
    if job == JOB:
        cloud.make_bucket()
        cloud.image = cloud.push_image()
    cloud.client("sagemaker").create_training_job(**{
        "TrainingJobName": job,
        "RoleArn": "arn:aws:iam::123456789012:role/somebody",
        "HyperParameters": {"epochs": "3"},
        "AlgorithmSpecification": {"TrainingImage": cloud.image, "TrainingInputMode": "File"},
        "InputDataConfig": [{"ChannelName": "training", "DataSource": {
            "S3DataSource": {"S3DataType": "S3Prefix", "S3Uri": f"s3://{BUCKET}/monai/data/training/"}}}],
        "OutputDataConfig": {"S3OutputPath": f"s3://{BUCKET}/monai/jobs"},
        "ResourceConfig": {"InstanceType": "ml.m5.large", "InstanceCount": 1, "VolumeSizeInGB": 1},
        "StoppingCondition": {"MaxRuntimeInSeconds": 60},
        "Tags": [{"Key": "project", "Value": PROJECT}, {"Key": "created-by", "Value": "sagemaker-monai"}],
        **changes,
    })  # fmt: skip
    body, stream = json.dumps(METRICS).encode(), io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w:gz") as tar:
        member = tarfile.TarInfo("metrics.json")
        member.size = len(body)
        tar.addfile(member, io.BytesIO(body))
    cloud.put(f"monai/jobs/{job}/output/output.tar.gz", stream.getvalue())


def packages(cloud):
    sagemaker = cloud.client("sagemaker")
    listed = sagemaker.list_model_packages(ModelPackageGroupName=PROJECT)["ModelPackageSummaryList"]
    return [sagemaker.describe_model_package(ModelPackageName=each["ModelPackageArn"]) for each in listed]


def planned(capsys, *arguments):
    capsys.readouterr()
    assert main(["register", "--dry-run", *arguments]) == 0
    return {call["operation"]: call["request"] for call in json.loads(capsys.readouterr().out)}


def test_what_the_container_takes_and_answers_is_what_the_package_says():
    assert set(register.CONTENT_TYPES) == set(MEDIA_TYPES)
    assert set(register.ANSWER_TYPES) == set(ANSWER_TYPES)
    plain = {each.partition(";")[0] for each in types_of(has_masks=True)}  # SageMaker's have no parameters
    assert set(register.ANSWER_TYPES + register.MASK_TYPES) == plain


def test_a_version_names_artifact_image_metrics_and_data(ready, capsys):
    assert main(["register"]) == 0

    [package] = packages(ready)
    [container] = package["InferenceSpecification"]["Containers"]
    job = ready.client("sagemaker").describe_training_job(TrainingJobName=JOB)
    assert container == {"Image": ready.image, "ModelDataUrl": job["ModelArtifacts"]["S3ModelArtifacts"]}
    assert package["ModelApprovalStatus"] == "PendingManualApproval"
    assert package["ModelMetrics"]["ModelQuality"]["Statistics"] == {
        "ContentType": "application/json",
        "S3Uri": f"s3://{BUCKET}/monai/processing/{JOB}/metrics.json",
    }
    assert json.loads(ready.get(f"monai/processing/{JOB}/metrics.json")) == METRICS
    properties = package["CustomerMetadataProperties"]
    assert properties.pop("request")
    assert properties == {"model_version": "1f3a", "dataset_fingerprint": "ab12", "training_job": JOB}
    group = ready.client("sagemaker").describe_model_package_group(ModelPackageGroupName=PROJECT)
    tags = ready.client("sagemaker").list_tags(ResourceArn=group["ModelPackageGroupArn"])["Tags"]
    assert {"Key": "project", "Value": PROJECT} in tags


def test_the_card_is_within_what_a_model_packages_card_may_have(ready, capsys):
    request = planned(capsys)["CreateModelPackage"]

    card = json.loads(request["ModelCard"]["ModelCardContent"])
    jsonschema.validate(card, CARD)
    details = card["training_details"]["training_job_details"]
    assert details["hyper_parameters"] == [{"name": "epochs", "value": "3"}]
    assert details["training_datasets"] == [f"s3://{BUCKET}/monai/data/training/"]
    scores, classes = card["evaluation_details"][0]["metric_groups"]
    assert [(score["name"], score["value"]) for score in scores["metric_data"]] == [
        ("accuracy", 0.75), ("balanced_accuracy", 0.5), ("auc", 0.875),  # a loss that does not exist is left out
    ]  # fmt: skip
    assert scores["metric_data"][0]["notes"] == "95 % interval 0.5 to 1"
    assert [row["name"] for row in classes["metric_data"]] == ["sensitivity of nevus"]


def test_the_card_of_a_task_that_this_version_does_not_know_has_the_scores_that_it_does():
    card = register.model_card(None, {"task": "a later one", "accuracy": 0.5}, "image")

    [scores] = card["evaluation_details"][0]["metric_groups"]
    assert [(data["name"], data["value"]) for data in scores["metric_data"]] == [("accuracy", 0.5)]


def test_the_card_of_masks_has_the_dice_of_each_structure():
    metrics = {"task": "segmentation", "dice": 0.75, "per_class": {"liver": {"dice": 0.5}}}

    [evaluation] = register.model_card(None, metrics, "image", has_masks=True)["evaluation_details"]

    found = [[(row["name"], row["value"]) for row in group["metric_data"]] for group in evaluation["metric_groups"]]
    assert found == [[("dice", 0.75)], [("dice of liver", 0.5)]]


def test_the_longest_names_still_make_a_card(capsys):
    metrics = METRICS | {"split": "s" * 99, "note": "n" * 9999, "per_class": {"c" * 999: {"sensitivity": 1.0}}}
    job = {"HyperParameters": {f"h{index}": "v" * 999 for index in range(150)}}

    jsonschema.validate(register.model_card(Trained("s3://bucket/model.tar.gz", job), metrics, "image"), CARD)


@pytest.mark.parametrize("content", [{"model_overview": {"model_name": "x"}}, {"training_details": {"seconds": 1}}])
def test_the_check_of_cards_can_fail(content):
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(content, CARD)


def test_the_same_model_is_registered_once_and_approval_is_kept(ready, capsys):
    assert main(["register"]) == 0
    assert main(["register"]) == 0
    assert [package["ModelApprovalStatus"] for package in packages(ready)] == ["PendingManualApproval"]
    assert main(["register", "--approve"]) == 0
    assert [package["ModelApprovalStatus"] for package in packages(ready)] == ["Approved"]
    capsys.readouterr()
    assert main(["register"]) == 0
    assert json.loads(capsys.readouterr().out)["ModelApprovalStatus"] == "Approved"
    assert len(packages(ready)) == 1


def test_another_job_is_another_version(ready):
    main(["register"])
    fill(ready, f"{PROJECT}-train-later")
    main(["register", "--model", f"{PROJECT}-train-later"])

    assert {package["CustomerMetadataProperties"]["training_job"] for package in packages(ready)} == {
        JOB, f"{PROJECT}-train-later",
    }  # fmt: skip


def test_an_evaluations_metrics_are_registered_where_they_lie(ready, capsys):
    for name in ("metrics.json", "evaluation.json"):
        ready.put(f"monai/processing/{PROJECT}-evaluate-1/{name}", json.dumps(METRICS | {"auc": 0.5}).encode())

    plan = planned(capsys, "--evaluation", f"{PROJECT}-evaluate-1")

    assert "PutObject" not in plan
    statistics = plan["CreateModelPackage"]["ModelMetrics"]["ModelQuality"]["Statistics"]
    assert statistics["S3Uri"] == f"s3://{BUCKET}/monai/processing/{PROJECT}-evaluate-1/evaluation.json"
    assert '"value": 0.5' in plan["CreateModelPackage"]["ModelCard"]["ModelCardContent"]


def test_an_artifact_that_is_a_folder_is_a_data_source():
    trained = Trained("s3://bucket/job/output/model/")

    assert trained.model_data() == {"ModelDataSource": {"S3DataSource": {
        "S3Uri": "s3://bucket/job/output/model/", "S3DataType": "S3Prefix", "CompressionType": "None"}}}  # fmt: skip


REFUSED = [
    (["--model", "none"], "there is no training job 'none'"),
    (["--model", f"s3://{BUCKET}/elsewhere/model.tar.gz"], "there are no metrics: `make process"),
    (["--evaluation", "none"], "`make process KIND=evaluate` prints the job's name"),
    (["--realtime-types", "m5.large"], "SupportedRealtimeInferenceInstanceTypes[0]: 'm5.large'"),
    (["--group", "a_b"], "ModelPackageGroupName"),
]


def test_what_is_wrong_is_said_before_anything_is_created(ready):
    assert not_refused("register", REFUSED) == []


def test_a_group_of_others_is_left_alone(ready, capsys):
    ready.client("sagemaker").create_model_package_group(ModelPackageGroupName=PROJECT)

    assert main(["register"]) == 2
    assert "was not made by these commands" in capsys.readouterr().err
    assert packages(ready) == []


@pytest.mark.long
def test_registering_that_is_killed_anywhere_and_repeated_leaves_one_approved_version(cloud):
    def state():
        [package] = packages(cloud)
        names = ("ModelApprovalStatus", "CustomerMetadataProperties", "InferenceSpecification", "ModelMetrics")
        return {name: package[name] for name in names}, cloud.keys()

    assert survives_deaths(cloud, "register", ["--approve"], lambda: fill(cloud), state) >= 20
