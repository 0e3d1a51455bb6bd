"""Prepare a data set or evaluate an artifact on SageMaker (`make process`): one CreateProcessingJob of the same image.

`prepare` turns a download in S3 into a data set below PREFIX/data; `evaluate` scores an artifact on a data set, as a
server would answer. By default the container has no network, and its role can read and write nothing else.
"""

import argparse
import re
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sagemaker_monai_aws.core import command, follow
from sagemaker_monai_aws.core.calls import network_of, output_key, volume_key
from sagemaker_monai_aws.core.command import Context, pair, say
from sagemaker_monai_aws.core.create import Job, run_job
from sagemaker_monai_aws.core.errors import CommandError, UnfinishedError
from sagemaker_monai_aws.core.names import folder_uri, split_s3, tags
from sagemaker_monai_aws.core.places import contents, image_address, place, read_object
from sagemaker_monai_aws.core.prices import cost_line, hourly
from sagemaker_monai_aws.core.trained import MOST_REPORT_BYTES, REPORT, find_trained
from sagemaker_monai_aws.jobs.launch_training import SCORES, keep_report

NAME = "process"
KINDS = ("evaluate", "prepare")
ENTRYPOINT = "/usr/local/bin/entrypoint"  # of the Dockerfile
INPUT, OUTPUT = "/opt/ml/processing/input", "/opt/ml/processing/output"
SOURCE = f"{INPUT}/source"
DATA_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")
ROLES = {"evaluate": "training", "prepare": "prepare"}  # of `make infra`
OUTPUTS = {"evaluate": "evaluation", "prepare": "data"}  # OutputName of each kind


def add_options(parser: argparse.ArgumentParser) -> None:
    """Options of the command."""
    add = parser.add_argument
    add("kind", choices=KINDS, help="what to do")
    add("--data", metavar="S3URI", help="data set to evaluate on (default: PREFIX/data/training), or the download to "
        "prepare")  # fmt: skip
    add("--model", help="evaluate: training job or address of the artifact (default: the newest)")
    add("--source-kind", default="ham10000", help="prepare: what the download is (default: %(default)s)")
    add("--name", default="training", help="prepare: folder below PREFIX/data (default: %(default)s)")
    add("--arguments", type=shlex.split, default=[], metavar="TEXT",
        help='further arguments of the container\'s command: --arguments="--seed 1"')  # fmt: skip
    add_machine_options(parser)
    add("--network-isolation", action=argparse.BooleanOptionalAction, default=True,
        help="no network in the container (default)")  # fmt: skip
    add("--environment", nargs="*", default=[], type=pair, metavar="NAME=VALUE", help="of the container; no secrets")
    add("--again", action="store_true", help="start another job even if the same one has completed")
    add("--output", type=Path, default=Path("ml/processing"),
        help="folder for the metrics.json of an evaluation (default: %(default)s)")  # fmt: skip
    follow.add_wait(parser)


def add_machine_options(parser: argparse.ArgumentParser) -> None:
    """The machine of a processing job, which the pipeline has too."""
    parser.add_argument("--processing-instance-type", default="ml.m5.2xlarge", help="(default: %(default)s)")
    parser.add_argument("--processing-volume-gb", type=int, default=50, help="storage (default: %(default)s)")
    parser.add_argument("--processing-max-runtime-s", type=int, default=14_400, help="(default: %(default)s)")


def processing_request(
    context: Context, kind: str, inputs: Mapping[str, Any], output: Any, arguments: list[str], image: str
) -> dict[str, Any]:
    """CreateProcessingJob without its name and tags.

    Args:
        context: machine, network and key are of its options.
        kind: of KINDS.
        inputs: folder below /opt/ml/processing/input -> address, or what a pipeline puts in its place.
        output: address of what is written, or what a pipeline puts in its place.
        arguments: of the container's command.
        image: address by digest.
    """
    account, options = context.account, context.options
    result = {"S3Uri": output, "LocalPath": OUTPUT, "S3UploadMode": "EndOfJob"}
    return {
        "ProcessingInputs": [
            {
                "InputName": name,
                "S3Input": {
                    "S3Uri": uri,
                    "LocalPath": f"{INPUT}/{name}",
                    "S3DataType": "S3Prefix",
                    "S3InputMode": "File",
                    "S3DataDistributionType": "FullyReplicated",
                    "S3CompressionType": "None",
                },
            }
            for name, uri in inputs.items()
        ],
        "ProcessingOutputConfig": {
            "Outputs": [{"OutputName": OUTPUTS[kind], "S3Output": result}],
            **output_key(options),
        },
        "ProcessingResources": {
            "ClusterConfig": {
                "InstanceCount": 1,
                "InstanceType": options.processing_instance_type,
                "VolumeSizeInGB": options.processing_volume_gb,
                **volume_key(options, options.processing_instance_type),
            }
        },
        "StoppingCondition": {"MaxRuntimeInSeconds": options.processing_max_runtime_s},
        "AppSpecification": {
            "ImageUri": image,
            "ContainerEntrypoint": [ENTRYPOINT, kind],
            **({"ContainerArguments": arguments} if arguments else {}),
        },
        "Environment": dict(options.environment),
        "NetworkConfig": {"EnableNetworkIsolation": options.network_isolation, **network_of(options)},
        "RoleArn": account.role(options.role, options.project, ROLES[kind]),
    }


def prepare_arguments(source_kind: str, further: list[str]) -> list[str]:
    """Arguments of `prepare` in the container."""
    return [source_kind, SOURCE, OUTPUT, *further]


def check_name(name: str) -> str:
    """The name of a data set, as a folder in S3.

    Raises:
        CommandError: it has other characters than letters, digits, dot, dash and underscore.
    """
    if not DATA_NAME.fullmatch(name):
        raise CommandError(f"--name takes up to 63 letters, digits, dots, dashes and underscores, got {name!r}")
    return name


def inputs_of(context: Context) -> dict[str, str]:
    """Name and address of each input."""
    account, options = context.account, context.options
    if options.kind == "prepare":
        if not options.data:
            raise CommandError("prepare needs the address of a download in S3: DATA=s3://...")
        return {"source": folder_uri(options.data)}
    data = folder_uri(options.data or place(account, options, "data", "training"))
    return {"model": find_trained(account, options.project, options.model).artifact, "data": data}


def _fingerprint(context: Context, uri: str) -> str:
    """A digest of what is at an address, so that other content is another job."""
    if uri.endswith("/"):
        return contents(context.account, uri).digest
    if not context.account.is_known:
        return "not-known"
    bucket, key = split_s3(uri)
    head = context.account.read("s3", "HeadObject", Bucket=bucket, Key=key)
    if head is None:
        raise CommandError(f"there is no {uri}: `make status` lists the jobs that made one")
    return str(head["ETag"])


def work(context: Context) -> int:
    """Start the job, follow it, and fetch the metrics of an evaluation."""
    account, options = context.account, context.options
    kind, inputs = options.kind, inputs_of(context)
    arguments = options.arguments
    if kind == "prepare":
        arguments = prepare_arguments(options.source_kind, arguments)
    image = image_address(account, options)

    def output(name: str) -> str:
        parts = ("data", check_name(options.name)) if kind == "prepare" else ("processing", name)
        return place(account, options, *parts)

    def request(name: str) -> dict[str, Any]:
        return processing_request(context, kind, inputs, output(name), arguments, image)

    def request_of(name: str) -> dict[str, Any]:
        return {"ProcessingJobName": name, **request(name), "Tags": tags(options.project, options.tags)}

    # Other content at the same address is another job.
    digested = {"request": request(""), "inputs": {name: _fingerprint(context, uri) for name, uri in inputs.items()}}
    costs = [cost_line(account.region, options.processing_instance_type),
             f"the job is stopped after {options.processing_max_runtime_s / 3600:.1f} hours at the latest"]  # fmt: skip
    job = Job(NAME, "processing", kind, request_of, digested, costs)
    return run_job(context, job, lambda name: finish(context, name, output(name)))


def finish(context: Context, name: str, output: str) -> int:
    """Follow a job to its end and print its result; 0 if it completed."""
    account, options = context.account, context.options
    found = follow.follow(context, NAME, "processing", name)
    say(NAME, _billed(found, account.region, options.processing_instance_type))
    status = found["ProcessingJobStatus"]
    if status != "Completed":
        reason = found.get("ExitMessage") or found.get("FailureReason") or "AWS gives no reason"
        raise UnfinishedError(f"{name} {status.lower()}: {reason}; the same command starts it again")
    answer: dict[str, Any] = {"ProcessingJobName": name, "output": output}
    is_evaluation = options.kind == "evaluate"
    text = read_object(account, f"{output}/{REPORT}", most_bytes=MOST_REPORT_BYTES) if is_evaluation else None
    if text is not None:
        answer["metrics"] = keep_report(text, options.output / name, ("model_version", "split", "images", *SCORES))
    command.result(answer)
    return 0


def _billed(found: Mapping[str, Any], region: str, instance_type: str) -> str:
    """One line: seconds of the job, and the price if the table has it."""
    if "ProcessingStartTime" not in found or "ProcessingEndTime" not in found:
        return follow.UNKNOWN_SECONDS
    seconds = (found["ProcessingEndTime"] - found["ProcessingStartTime"]).total_seconds()
    price = hourly(region, instance_type)
    cost = f", about {price * seconds / 3600:.2f} USD" if price is not None else ""
    return f"{seconds:.0f} s of 1 x {instance_type}{cost}"
