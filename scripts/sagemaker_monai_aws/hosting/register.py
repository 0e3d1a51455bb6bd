"""Put a model into the model registry (`make register`): a model package with metrics, card and approval.

The package group is the project's; every version says which artifact, which image by digest, which metrics and which
data it stands for, and waits for a person's approval (`--approve`). The same model is registered once.

Sources: API reference, CreateModelPackage; SageMaker Developer Guide, "Model package model card schema" (what the card
may have; it is smaller than that of other model cards).
"""

import argparse
import json
from collections.abc import Mapping
from typing import Any

from sagemaker_monai.tasks.tasks import DEFAULT_TASK, TASKS
from sagemaker_monai_aws.core import command
from sagemaker_monai_aws.core.calls import Call, check
from sagemaker_monai_aws.core.command import Context, say
from sagemaker_monai_aws.core.create import ensure, require_ours
from sagemaker_monai_aws.core.errors import CommandError
from sagemaker_monai_aws.core.listing import encryption
from sagemaker_monai_aws.core.names import digest, tags
from sagemaker_monai_aws.core.places import image_address, place, read_object
from sagemaker_monai_aws.core.trained import (
    MOST_REPORT_BYTES,
    REPORT,
    Trained,
    find_trained,
    output_folder,
    read_output,
)

NAME = "register"
EVALUATION = "evaluation.json"
# What the container takes and answers. `requests.media_types`, `serving.inference` and `outputs.label_map_files` say it
# too, but need torch or much else; a test compares them.
CONTENT_TYPES = ("image/jpeg", "image/png", "image/bmp", "image/tiff", "image/webp", "application/dicom",
                 "application/x-nifti", "application/x-nifti+gzip", "application/x-nrrd", "application/x-metaimage",
                 "application/x-npy", "application/json", "multipart/form-data", "multipart/related",
                 "application/zip", "application/x-tar", "application/gzip", "application/x-gzip",
                 "application/x-image", "application/octet-stream")  # fmt: skip
ANSWER_TYPES = ("application/json", "text/csv", "application/jsonlines", "application/dicom")
MASK_TYPES = ("application/x-nifti", "application/x-nifti+gzip", "image/png")  # of segmentation beside them
PENDING, APPROVED = "PendingManualApproval", "Approved"
MOST_VERSIONS = 200  # of the group's newest that are compared
PURPOSE = "Answer medical images, with the probability of every class or the number that was asked for."
MASKS_PURPOSE = "Mark structures in medical images, voxel by voxel, and tell their sizes."
CAVEATS = ("Not a medical device. Scores hold for images like those of the test split: check the model on images of "
           "the place where it shall be used.")  # fmt: skip


def add_options(parser: argparse.ArgumentParser) -> None:
    """Options of the command."""
    add = parser.add_argument
    add("--model", help="training job or address of the artifact (default: the newest)")
    add("--evaluation", metavar="JOB", help="job of `make process KIND=evaluate` whose metrics are "
        "registered (default: the training job's own)")  # fmt: skip
    add("--approve", action=argparse.BooleanOptionalAction, default=False,
        help="approve the version, so that others may deploy it")  # fmt: skip
    add_package_options(parser)


def add_package_options(parser: argparse.ArgumentParser) -> None:
    """What the pipeline's registration has too."""
    parser.add_argument("--group", help="model package group (default: PROJECT)")
    parser.add_argument("--realtime-types", nargs="+", default=["ml.m5.xlarge", "ml.g4dn.xlarge"], metavar="TYPE",
                        help="instances of endpoints (default: %(default)s)")  # fmt: skip
    parser.add_argument("--transform-types", nargs="+", default=["ml.m5.xlarge", "ml.g4dn.xlarge"], metavar="TYPE",
                        help="instances of batch transform (default: %(default)s)")  # fmt: skip


def package_request(
    options: argparse.Namespace, *, model_data: Mapping[str, Any], image: str, statistics: Any, card: Mapping[str, Any],
    properties: Mapping[str, Any], has_masks: bool,
) -> dict[str, Any]:  # fmt: skip
    """CreateModelPackage.

    Args:
        options: of `add_package_options`.
        model_data: of the container, as `Trained.model_data`.
        image: address by digest.
        statistics: address of the metrics, or what a pipeline puts in its place.
        card: from `model_card`.
        properties: CustomerMetadataProperties.
        has_masks: the model segments.
    """
    return {
        "ModelPackageGroupName": options.group or options.project,
        "ModelPackageDescription": MASKS_PURPOSE if has_masks else PURPOSE,
        "InferenceSpecification": {
            "Containers": [{"Image": image, **model_data}],
            "SupportedContentTypes": list(CONTENT_TYPES),
            "SupportedResponseMIMETypes": [*ANSWER_TYPES, *(MASK_TYPES if has_masks else ())],
            "SupportedRealtimeInferenceInstanceTypes": options.realtime_types,
            "SupportedTransformInstanceTypes": options.transform_types,
        },
        "ModelApprovalStatus": PENDING,
        "ModelMetrics": {"ModelQuality": {"Statistics": {"ContentType": "application/json", "S3Uri": statistics}}},
        "ModelCard": {"ModelCardContent": json.dumps(card, sort_keys=True), "ModelCardStatus": "Draft"},
        "CustomerMetadataProperties": dict(properties),
    }


def group_call(options: argparse.Namespace) -> Call:
    """CreateModelPackageGroup."""
    return Call("sagemaker", "CreateModelPackageGroup", {
        "ModelPackageGroupName": options.group or options.project,
        "ModelPackageGroupDescription": f"Models of {options.project}",
        "Tags": tags(options.project, options.tags),
    })  # fmt: skip


def ensure_group(context: Context) -> None:
    """Create the group unless it is there and ours.

    Raises:
        CommandError: a group of that name was not made by these commands.
    """
    call = group_call(context.options)
    name = call.request["ModelPackageGroupName"]
    if ensure(context.account, call, "DescribeModelPackageGroup", ModelPackageGroupName=name):
        return
    found = context.account.read("sagemaker", "DescribeModelPackageGroup", ModelPackageGroupName=name)
    if found is not None:
        require_ours(context.account, found["ModelPackageGroupArn"], context.options.project, force=False)


def model_card(
    trained: Trained | None, metrics: Mapping[str, Any], image: str, *, has_masks: bool = False
) -> dict[str, Any]:
    """The card of a version, within what a model package's card may have.

    Args:
        trained: the artifact and its job; None where a pipeline will make it.
        metrics: of metrics.json; empty where a pipeline will make it.
        image: address by digest.
        has_masks: the model segments.
    """
    card: dict[str, Any] = {
        "intended_uses": {"purpose_of_model": MASKS_PURPOSE if has_masks else PURPOSE, "risk_rating": "Unknown",
                          "explanations_for_risk_rating": "Nobody has rated it for its use."},
        "additional_information": {"caveats_and_recommendations": CAVEATS},
    }  # fmt: skip
    details: dict[str, Any] = {"training_environment": {"container_image": [image]}}
    if trained is not None:
        card["model_overview"] = {"model_artifact": [trained.artifact]}
        job = trained.job
        channels = [channel["DataSource"]["S3DataSource"]["S3Uri"] for channel in job.get("InputDataConfig", [])
                    if "S3DataSource" in channel["DataSource"]]  # fmt: skip
        given = sorted(job.get("HyperParameters", {}).items())[:100]
        details |= {
            **({"training_arn": job["TrainingJobArn"]} if "TrainingJobArn" in job else {}),
            "training_datasets": channels[:15],
            "hyper_parameters": [{"name": name[:255], "value": value[:255]} for name, value in given if value],
        }
    card["training_details"] = {"training_job_details": details}
    if metrics:
        card["evaluation_details"] = [_evaluation(metrics)]
    return card


def _evaluation(metrics: Mapping[str, Any]) -> dict[str, Any]:
    """The card's part for one evaluation; scores that do not exist are left out."""
    intervals = metrics.get("intervals_95", {})
    # An artifact of a later version may have a task that this one does not know: its common scores are still told.
    of_task = TASKS.get(str(metrics.get("task")), TASKS[DEFAULT_TASK])

    def notes(name: str) -> dict[str, str]:
        interval = intervals.get(name)
        return {"notes": f"95 % interval {interval[0]:.4g} to {interval[1]:.4g}"} if interval else {}

    whole = [{"name": name, "type": "number", "value": metrics[name], **notes(name)}
             for name in of_task.goals if isinstance(metrics.get(name), (int, float))]  # fmt: skip
    by_label = of_task.best_metric if of_task.has_masks else of_task.by_label
    classes = [{"name": f"{by_label} of {label}"[:255], "type": "number", "value": row[by_label]}
               for label, row in metrics.get("per_class", {}).items()
               if isinstance(row.get(by_label), (int, float))]  # fmt: skip
    groups = [{"name": name, "metric_data": data} for name, data in (("scores", whole), ("classes", classes)) if data]
    facts = {key: str(metrics[key])[:1024] for key in ("images", "groups", "dataset_fingerprint", "model_version")
             if key in metrics}  # fmt: skip
    observation = {"evaluation_observation": metrics["note"][:2096]} if metrics.get("note") else {}
    return {"name": f"{metrics.get('split', 'data')} split"[:63], "metadata": facts, "metric_groups": groups,
            **observation}  # fmt: skip


def read_metrics(context: Context, trained: Trained) -> tuple[str, bytes | None, dict[str, Any]]:
    """Address of the metrics, what is still to be written there, and the metrics.

    Raises:
        CommandError: there are none.
    """
    account, options = context.account, context.options
    if not account.is_known:
        return place(account, options, "processing", trained.name or "evaluation", REPORT), None, {}
    if options.evaluation:
        folder = place(account, options, "processing", options.evaluation)
        text = read_object(account, f"{folder}/{REPORT}", most_bytes=MOST_REPORT_BYTES)
        if text is None:
            raise CommandError(f"there is no {folder}/{REPORT}: `make process KIND=evaluate` prints the job's name")
        has_evaluation = read_object(account, f"{folder}/{EVALUATION}", most_bytes=MOST_REPORT_BYTES) is not None
        return f"{folder}/{EVALUATION if has_evaluation else REPORT}", None, json.loads(text)
    if not trained.job:
        raise CommandError(f"no training job of this account has made {trained.artifact}, so there are no metrics: "
                           "`make process KIND=evaluate MODEL=...`, then --evaluation JOB")  # fmt: skip
    text = read_output(account, trained.job, REPORT)
    if text is None:
        raise CommandError(f"{trained.name} left no {REPORT}: `make process KIND=evaluate MODEL={trained.name}`, then "
                           "--evaluation JOB")  # fmt: skip
    if trained.is_folder:
        return f"{output_folder(trained.job)}/data/{REPORT}", None, json.loads(text)
    return place(account, options, "processing", trained.name, REPORT), text, json.loads(text)


def properties_of(trained: Trained, metrics: Mapping[str, Any], request: Mapping[str, Any]) -> dict[str, str]:
    """Properties that identify a version; `request` is the same for the same request."""
    values = {
        "model_version": metrics.get("model_version"),
        "dataset_fingerprint": metrics.get("dataset_fingerprint"),
        "training_job": trained.name,
        "request": digest(request, 32),
    }
    return {name: str(value) for name, value in values.items() if value}


def find_package(context: Context, properties: Mapping[str, str]) -> dict[str, Any] | None:
    """The version of the group that was registered with the same request."""
    account, group = context.account, context.options.group or context.options.project
    pages = account.client("sagemaker").get_paginator("list_model_packages").paginate(
        ModelPackageGroupName=group, SortBy="CreationTime", SortOrder="Descending",
        PaginationConfig={"MaxItems": MOST_VERSIONS},
    )  # fmt: skip
    for page in pages:
        for summary in page["ModelPackageSummaryList"]:
            found = account.read("sagemaker", "DescribeModelPackage", ModelPackageName=summary["ModelPackageArn"])
            if found and found.get("CustomerMetadataProperties", {}).get("request") == properties["request"]:
                return dict(found)
    return None


def work(context: Context) -> int:
    """Upload the metrics, create group and version unless they are there, and approve it if asked."""
    account, options = context.account, context.options
    trained = find_trained(account, options.project, options.model)
    statistics, missing, metrics = read_metrics(context, trained)
    made_with = trained.job.get("AlgorithmSpecification", {}).get("TrainingImage")
    image = image_address(account, options) if options.image or not made_with else str(made_with)
    has_masks = metrics.get("task") in TASKS and TASKS[metrics["task"]].has_masks
    card = model_card(trained, metrics, image, has_masks=has_masks)
    request = package_request(options, model_data=trained.model_data(), image=image, statistics=statistics, card=card,
                              properties={}, has_masks=has_masks)  # fmt: skip
    properties = properties_of(trained, metrics, request)
    create = Call("sagemaker", "CreateModelPackage", {**request, "CustomerMetadataProperties": properties})
    check(create)
    bucket, _, key = statistics.removeprefix("s3://").partition("/")
    upload = [Call("s3", "PutObject", {"Bucket": bucket, "Key": key, "Body": missing, "ContentType": "application/json",
                                       **encryption(options.kms_key)})] if missing is not None else []  # fmt: skip
    if options.dry_run:
        costs = ["the registry costs nothing; deployments from it do"]
        return command.show_plan(context, NAME, [*upload, group_call(options), create], costs)
    for call in upload:
        account.send(call)
        context.after_interrupt = f"{statistics} is written; run the same command again"
    ensure_group(context)
    found = find_package(context, properties)
    if found is None:
        context.after_interrupt = "the version may be registered: the same command finds it"
        arn = account.send(create)["ModelPackageArn"]
        status = PENDING
    else:
        arn, status = found["ModelPackageArn"], found.get("ModelApprovalStatus", PENDING)
    say(NAME, f"{'found' if found else 'registered'} {arn}")
    if options.approve and status != APPROVED:
        account.send(Call("sagemaker", "UpdateModelPackage", {
            "ModelPackageArn": arn, "ModelApprovalStatus": APPROVED, "CustomerMetadataProperties": properties,
        }))  # fmt: skip
        status = APPROVED
    command.result({"ModelPackageArn": arn, "ModelApprovalStatus": status, "metrics": statistics})
    if status != APPROVED:
        say(NAME, "it waits for approval: run the same command with --approve")
    return 0
