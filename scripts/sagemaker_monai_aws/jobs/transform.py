"""Batch transform (`make transform`): one CreateTransformJob over objects in S3, and a table of the results.

The job reads a prefix or a manifest and writes below PREFIX/transform/JOB. When it has ended, results.csv is written
beside its outputs and to this machine: source, class and probabilities of each object, or why there are none. The same
request over the same objects finds the same job and only rewrites the table.
"""

import argparse
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sagemaker_monai.storage.files import write_text
from sagemaker_monai_aws.client.answers import JSON_TYPES, plain_type
from sagemaker_monai_aws.client.endpoints import container_of
from sagemaker_monai_aws.core import command, follow
from sagemaker_monai_aws.core.account import Account
from sagemaker_monai_aws.core.calls import Call, output_key, volume_key
from sagemaker_monai_aws.core.command import Context, say
from sagemaker_monai_aws.core.create import Job, run_job, tags_of
from sagemaker_monai_aws.core.errors import CommandError, UnfinishedError
from sagemaker_monai_aws.core.instances import has_gpu
from sagemaker_monai_aws.core.listing import encryption
from sagemaker_monai_aws.core.names import is_ours, split_s3, tags
from sagemaker_monai_aws.core.places import place
from sagemaker_monai_aws.core.prices import cost_line
from sagemaker_monai_aws.jobs.transform_input import Batch, find_batch
from sagemaker_monai_aws.jobs.transform_results import NO_OUTPUT, UNREADABLE, as_csv, collect

NAME = "transform"
MIB = 1 << 20
# Of MaxConcurrentTransforms and MaxPayloadInMB, and of the latter alone: botocore's model, CreateTransformJob.
MOST_MB = 100
MOST_AT_ONCE = 8  # a guess: enough to keep a GPU and the decoding of pictures busy at the same time
# Types that SageMaker joins with their input (Developer Guide, "Associate Prediction Results with Input Records").
JOINED = ("text/csv", "application/json", "application/jsonlines")
# The newest of those that AWS lists for batch transform; the image brings the libraries for a newer CUDA.
GPU_AMI = "al2-ami-sagemaker-batch-gpu-535"
RESULTS = "results.csv"
MANIFEST = "input.manifest"


def add_options(parser: argparse.ArgumentParser) -> None:
    """Options of a batch transform job."""
    add = parser.add_argument
    add("--input", required=True, metavar="S3URI|FILE",
        help="prefix in S3, or a manifest there or on this machine")  # fmt: skip
    add("--model", help="name (default: the newest of `make deploy MODE=batch`, else of the project)")
    add("--content-type", help="of the objects; where there are several types, which are taken (default: by suffix)")
    add("--accept", default="application/json", help="type of the answers (default: %(default)s)")
    add("--instance-type", default="ml.g4dn.xlarge", help="(default: %(default)s)")
    add("--instance-count", type=int, default=1, help="hosts (default: %(default)s)")
    add("--max-payload-mb", type=int, help="1 to 100 (default: what the largest object needs)")
    add("--max-concurrent", type=int, help="requests at once and host; times --max-payload-mb at most 100")
    add("--timeout-s", type=int, default=600, help="of one request, 1 to 3600 (default: %(default)s)")
    add("--retries", type=int, default=3, help="of one request, 0 to 3 (default: %(default)s)")
    add("--split-lines", action="store_true", help="every line of an object is a request, as in JSON lines")
    add("--join-source", action="store_true", help="SageMaker joins answers with their input; CSV and JSON only")
    add("--ami-version", help=f"TransformAmiVersion (default: {GPU_AMI} where there is a GPU)")
    add("--again", action="store_true", help="start another job even if the same one has completed")
    add("--output", type=Path, default=Path("ml/jobs"), help=f"folder for JOB/{RESULTS} (default: %(default)s)")
    follow.add_wait(parser)


def find_model(account: Account, project: str, asked: str | None) -> str:
    """The model asked for, else the project's newest whose role is that of batch jobs, else its newest.

    Raises:
        CommandError: there is none, or it has several archives.
    """
    if not account.is_known:
        return asked or f"{project}-model"
    if asked is not None:
        found = account.read("sagemaker", "DescribeModel", ModelName=asked)
        if found is None:
            raise CommandError(f"there is no model {asked!r} in {account.region}: `make deploy MODE=batch` makes one")
        if _is_multi_model(found):
            raise CommandError(f"{asked} is a multi-model container, not for batch transform: `make deploy "
                               "MODE=batch` makes a model of one archive")  # fmt: skip
        return asked
    listed = account.pages("sagemaker", "ListModels", "Models", NameContains=f"{project}-", SortBy="CreationTime",
                           SortOrder="Descending")  # fmt: skip
    usable: list[str] = []
    for summary in sorted(listed, key=lambda each: each["CreationTime"], reverse=True):
        if not is_ours(tags_of(account, summary["ModelArn"]), project):
            continue
        found = account.read("sagemaker", "DescribeModel", ModelName=summary["ModelName"])
        if found is None or _is_multi_model(found):
            continue
        if str(found.get("ExecutionRoleArn", "")).endswith("-batch"):
            return str(summary["ModelName"])
        usable.append(str(summary["ModelName"]))
    if not usable:
        raise CommandError(f"project {project!r} has no model for batch transform in {account.region}: `make deploy "
                           "MODE=batch` makes one of the newest training job")  # fmt: skip
    say(
        NAME, f"{usable[0]} was not created for batch jobs: its role must allow reading the objects and writing results"
    )
    return usable[0]


def _is_multi_model(model: Mapping[str, Any]) -> bool:
    return container_of(model).get("Mode") == "MultiModel"


def payload_of(batch: Batch, max_payload_mb: int | None, max_concurrent: int | None) -> tuple[int, int]:
    """MaxPayloadInMB and MaxConcurrentTransforms, whose product is at most 100.

    Raises:
        CommandError: an object is too large, or what was given cannot be.
    """
    needed = max(1, math.ceil(batch.largest_bytes / MIB))
    if needed > MOST_MB:
        raise CommandError(f"the largest object has {batch.largest_bytes} bytes and a batch takes {MOST_MB} MB: "
                           "`make deploy MODE=async` takes 1 GB")  # fmt: skip
    payload = needed if max_payload_mb is None else max_payload_mb
    if not 1 <= payload <= MOST_MB:
        raise CommandError(f"--max-payload-mb is 1 to {MOST_MB}, got {payload}")
    if payload < needed:
        raise CommandError(f"--max-payload-mb {payload} is less than the {needed} that the largest object needs")
    at_once = min(MOST_AT_ONCE, MOST_MB // payload) if max_concurrent is None else max_concurrent
    if at_once < 1 or at_once * payload > MOST_MB:
        raise CommandError(f"--max-concurrent {at_once} times --max-payload-mb {payload} must be 1 to {MOST_MB}: "
                           f"with this payload at most {MOST_MB // payload}")  # fmt: skip
    return payload, at_once


def transform_request(context: Context, batch: Batch, model: str) -> dict[str, Any]:
    """CreateTransformJob without what depends on its name: name, tags, places of output and of our manifest.

    Raises:
        CommandError: something cannot be joined.
    """
    options = context.options
    if options.join_source and not {plain_type(batch.content_type), plain_type(options.accept)} <= set(JOINED):
        raise CommandError(f"SageMaker joins {', '.join(JOINED)} only, and this is {batch.content_type} answered by "
                           f"{options.accept}: leave --join-source out, {RESULTS} names every source")  # fmt: skip
    payload, at_once = payload_of(batch, options.max_payload_mb, options.max_concurrent)
    ami = options.ami_version or (GPU_AMI if has_gpu(options.instance_type) else None)
    request: dict[str, Any] = {
        "ModelName": model,
        "MaxConcurrentTransforms": at_once,
        "MaxPayloadInMB": payload,
        "BatchStrategy": "SingleRecord",
        "ModelClientConfig": {
            "InvocationsTimeoutInSeconds": options.timeout_s,
            "InvocationsMaxRetries": options.retries,
        },
        "TransformInput": {
            "DataSource": {
                "S3DataSource": {"S3DataType": "S3Prefix" if batch.is_prefix else "ManifestFile", "S3Uri": batch.uri}
            },
            "ContentType": batch.content_type,
            "CompressionType": "None",
            "SplitType": "Line" if options.split_lines else "None",
        },
        "TransformOutput": {
            "Accept": options.accept,
            "AssembleWith": "Line" if options.split_lines else "None",
            **output_key(options),
        },
        "TransformResources": {
            "InstanceType": options.instance_type,
            "InstanceCount": options.instance_count,
            **volume_key(options, options.instance_type),
            **({"TransformAmiVersion": ami} if ami else {}),
        },
    }
    if options.join_source:
        request["DataProcessing"] = {"JoinSource": "Input"}
    return request


def with_name(context: Context, request: Mapping[str, Any], batch: Batch, name: str) -> dict[str, Any]:
    """The whole request."""
    account, options = context.account, context.options
    folder = place(account, options, "transform", name)
    whole = {"TransformJobName": name, **request, "Tags": tags(options.project, options.tags)}
    whole["TransformOutput"] = {"S3OutputPath": folder, **request["TransformOutput"]}
    if batch.manifest is not None:
        source = {"S3DataType": "ManifestFile", "S3Uri": f"{folder}/{MANIFEST}"}
        whole["TransformInput"] = {**request["TransformInput"], "DataSource": {"S3DataSource": source}}
    return whole


def work(context: Context) -> int:
    """Start the job, follow it, write the table."""
    account, options = context.account, context.options
    batch = find_batch(account, options.input, options.content_type)
    model = find_model(account, options.project, options.model)
    request = transform_request(context, batch, model)
    digested = {"request": request, "prefix": place(account, options, "transform"), "data": batch.digest}
    count = len(batch.items) if account.is_known else "unknown"
    cost = [
        cost_line(account.region, options.instance_type, options.instance_count),
        f"objects of {batch.content_type}: {count}; the job has no time limit of its own",
    ]
    if batch.passed_over:
        cost.append(f"{batch.passed_over} objects that operating systems create (.DS_Store, ._a.jpg) are not part of "
                    "the job")  # fmt: skip
    job = Job(NAME, "transform", NAME, lambda name: with_name(context, request, batch, name), digested, cost,
              lambda name: _uploads(context, batch, name))  # fmt: skip
    return run_job(context, job, lambda name: finish(context, batch, name))


def _uploads(context: Context, batch: Batch, name: str) -> list[Call]:
    """A manifest that is not in S3 yet, beside the job's outputs."""
    if batch.manifest is None:
        return []
    bucket, key = split_s3(place(context.account, context.options, "transform", name, MANIFEST))
    return [_put(bucket, key, batch.manifest, "application/json", context.options.kms_key)]


def _put(bucket: str, key: str, text: str, content_type: str, kms_key: str | None) -> Call:
    body = {"Body": text.encode("utf-8", errors="backslashreplace"), "ContentType": content_type}
    return Call("s3", "PutObject", {"Bucket": bucket, "Key": key, **body, **encryption(kms_key)})


def finish(context: Context, batch: Batch, name: str) -> int:
    """Follow a job, write its table; 0 if every object has its predictions."""
    account, options = context.account, context.options
    found = follow.follow(context, NAME, "transform", name)
    status, output = found["TransformJobStatus"], found["TransformOutput"]["S3OutputPath"]
    reason = f"{name} {status.lower()}: {found.get('FailureReason') or 'AWS gives no reason'}"
    answer: dict[str, Any] = {"TransformJobName": name, "S3OutputPath": output}
    if plain_type(options.accept) not in JSON_TYPES:
        if status != "Completed":
            raise UnfinishedError(f"{reason}; what was answered is at {output}/")
        say(NAME, f"the answers are {options.accept}: {RESULTS} is made of JSON only")
        command.result(answer)
        return 0
    log = [line for _, line in follow.Log(account, follow.KINDS["transform"].log_group, name).new()]
    results = collect(account, batch.items, output, options.accept, log)
    text = as_csv(results)
    bucket, key = split_s3(f"{output}/{RESULTS}")
    account.send(_put(bucket, key, text, "text/csv", options.kms_key))
    local = options.output / name / RESULTS
    local.parent.mkdir(parents=True, exist_ok=True)
    write_text(local, text)
    failed = [result for result in results if result.error]
    first = f", the first is {failed[0].source} ({failed[0].error})" if failed else ""
    counts = f"{len(results) - len(failed)} of {len(results)} objects have predictions"
    say(NAME, f"{counts}: {local}")
    if status != "Completed":
        # An object that was not reached has no line in the log; the one that was refused has.
        refused = [result for result in failed if result.error not in (NO_OUTPUT, UNREADABLE)]
        named = f"; refused: {refused[0].source} ({refused[0].error})" if refused else ""
        raise UnfinishedError(f"{reason}{named}; {counts}, see {local}; the same command tries again")
    if failed:
        raise UnfinishedError(f"{name} completed, but {len(failed)} of {len(results)} objects have none{first}")
    command.result({**answer, "objects": len(results), "results": f"{output}/{RESULTS}"})
    return 0
