"""The requests that host a model, as plain values: model, endpoint configuration, endpoint and its update.

The order of the requests is in deploy.py; numbers of instances and alarms are in scaling.py.

Network isolation is on wherever AWS has it. That is in multi-model mode, too: SageMaker itself fetches the archives
and tells the container only the folder, so the container needs no network. Serverless endpoints have none, nor has a
container that fetches objects named in requests (--allow-prefix): it reaches S3, and what else the VPC permits.

Sources: botocore's model of sagemaker (limits, "Currently you cannot use ModelDataSource in conjunction with SageMaker
batch transform, SageMaker serverless endpoints, SageMaker multi-model endpoints", table of InferenceAmiVersion);
SageMaker Developer Guide, "Deploy models with Amazon SageMaker Serverless Inference" (feature exclusions: GPUs, VPC,
network isolation, data capture) and "Host instance storage volumes" (types with local storage).
"""

import argparse
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from sagemaker_monai.errors import ConfigError
from sagemaker_monai.serving.references import parse_prefixes
from sagemaker_monai_aws.client.endpoints import LIMITS, MIB
from sagemaker_monai_aws.core.account import Account
from sagemaker_monai_aws.core.calls import Call, network_of, output_key
from sagemaker_monai_aws.core.errors import CommandError
from sagemaker_monai_aws.core.instances import has_own_disks
from sagemaker_monai_aws.core.names import name_of, tags
from sagemaker_monai_aws.core.places import Contents, place
from sagemaker_monai_aws.core.trained import Trained

VARIANT = "AllTraffic"
SHORTEST_S, LONGEST_S = 60, 3600  # of both time-outs
PREFIXES = "ALLOWED_S3_PREFIXES"  # variable of the container
SERVERLESS_MB = (1024, 2048, 3072, 4096, 5120, 6144)


@dataclass(frozen=True)
class Mode:
    """A row of MODES: what one way of hosting has.

    Attributes:
        role: kind of the execution role.
        takes_folder: whether an artifact need not be compressed.
        is_isolated: whether the container can be without a network, and in a VPC.
        has_instances: whether one chooses instances; else memory.
        environment: of the container, unless one says otherwise.
    """

    role: str = "hosting"
    takes_folder: bool = False
    is_isolated: bool = True
    has_instances: bool = True
    environment: Mapping[str, str] = field(default_factory=dict)


def _most_of(mode: str) -> dict[str, str]:
    """What tells the container how large an answer SageMaker passes on."""
    return {"MAX_ANSWER_IN_MB": str(LIMITS[mode] // MIB)}


MODES = {
    "realtime": Mode(takes_folder=True, environment=_most_of("realtime")),
    "serverless": Mode(is_isolated=False, has_instances=False, environment=_most_of("serverless")),
    # An asynchronous request may take an hour, the container's own limit is that of a synchronous one.
    "async": Mode(takes_folder=True, environment={"SAGEMAKER_MODEL_SERVER_TIMEOUT_SECONDS": str(LONGEST_S)}),
    "batch": Mode(role="batch"),
    "multi-model": Mode(environment=_most_of("multi-model")),
}


# Newest CUDA of an AMI's driver -> AMI, from botocore's documentation of ProductionVariant.InferenceAmiVersion; drivers
# 535, 550 and 580.
AMIS = {
    (12, 2): "al2-ami-sagemaker-inference-gpu-2",
    (12, 4): "al2-ami-sagemaker-inference-gpu-3-1",
    (13, 0): "al2023-ami-sagemaker-inference-gpu-4-1",
}


def ami_for(cuda: str) -> str:
    """The AMI with the oldest driver that has the CUDA of an image.

    A driver runs every older CUDA and, within a major version, newer ones too, so the last AMI takes all of CUDA 13
    (CUDA Compatibility, "Minor Version Compatibility").

    Args:
        cuda: for example "12.4" or "12.4.1".

    Raises:
        CommandError: it is no version, or too new for all.
    """
    match = re.match(r"(\d+)\.(\d+)", cuda)
    if match is None:
        raise CommandError(f"a version of CUDA is like 12.4, got {cuda!r}")
    wanted = (int(match[1]), int(match[2]))
    for newest, name in AMIS.items():
        if wanted <= newest or wanted[0] == newest[0] == max(AMIS)[0]:
            return name
    raise CommandError(f"no AMI of SageMaker is known to have a driver for CUDA {cuda}: name a newer one with "
                       "--inference-ami, or take an image with CUDA 13 or older")  # fmt: skip


def timeouts(size_bytes: int, *, with_download: bool = True) -> dict[str, int]:
    """How long an instance may take to fetch the artifact and to start, from the artifact's size.

    120 s and 1 s for each 10 MiB to fetch and unpack; 300 s and 1 s for each 20 MiB to start (Python and torch first,
    then the weights once for each worker); both within 60 s and 3600 s. The rates are guesses on the safe side: a
    time-out that is too long costs nothing, one that is too short costs the deployment.

    Args:
        size_bytes: of the artifact.
        with_download: whether SageMaker fetches it before the container starts.
    """

    def within(seconds: int) -> int:
        return max(SHORTEST_S, min(LONGEST_S, seconds))

    start = {"ContainerStartupHealthCheckTimeoutInSeconds": within(300 + size_bytes // (20 * MIB))}
    fetch = {"ModelDataDownloadTimeoutInSeconds": within(120 + size_bytes // (10 * MIB))} if with_download else {}
    return {**fetch, **start}


def check_options(options: argparse.Namespace, trained: Trained) -> None:
    """Refuse options that a mode does not support.

    Raises:
        CommandError: with the remedy.
    """
    mode = MODES[options.mode]
    if trained.is_folder and not mode.takes_folder:
        raise CommandError(f"{options.mode} needs a compressed artifact: name a model.tar.gz (`make train` with "
                           "--output-compression GZIP), or deploy with MODE=realtime or MODE=async")  # fmt: skip
    if not mode.is_isolated and options.subnets:
        raise CommandError(f"{options.mode} endpoints cannot be in a VPC: leave SUBNETS out, or take MODE=realtime")
    if options.capture and options.mode in ("serverless", "batch"):
        raise CommandError(f"data capture is not for {options.mode}: leave --capture out, or take MODE=realtime")
    if options.capture is not None and not 1 <= options.capture <= 100:
        raise CommandError(f"--capture is 1 to 100 percent of the requests, got {options.capture}")
    if options.volume_gb and (not mode.has_instances or has_own_disks(options.instance_type)):
        where = options.instance_type if mode.has_instances else "a serverless endpoint"
        raise CommandError(f"{where} has storage of a fixed size: leave --volume-gb out")
    if mode.has_instances and options.instance_count < 1:
        raise CommandError(f"--instance-count is at least 1, got {options.instance_count}")
    if options.provisioned_concurrency and options.provisioned_concurrency > options.max_concurrency:
        raise CommandError(f"--provisioned-concurrency is at most --max-concurrency ({options.max_concurrency})")


def prefixes_of(options: argparse.Namespace) -> dict[str, str]:
    """The container's variable with the folders whose objects requests may name.

    Raises:
        CommandError: one is no folder in S3, or the variable is given twice.
    """
    if not options.allow_prefix:
        return {}
    if PREFIXES in dict(options.environment):
        raise CommandError(f"--allow-prefix and --environment {PREFIXES} are the same: leave one out")
    text = " ".join(options.allow_prefix)
    try:
        parse_prefixes(text)
    except ConfigError as error:
        raise CommandError(f"--allow-prefix: {error}") from error
    return {PREFIXES: text}


def models_folder(account: Account, options: argparse.Namespace, endpoint: str) -> str:
    """Folder of a multi-model endpoint's archives."""
    return place(account, options, "models", endpoint) + "/"


def model_call(
    account: Account, options: argparse.Namespace, endpoint: str, trained: Trained, image: str, found: Contents
) -> Call:
    """CreateModel; the name is of image, artifact with its content, and environment.

    Args:
        account: where.
        options: of the command.
        endpoint: name, for the folder of a multi-model endpoint.
        trained: the artifact.
        image: address by digest.
        found: what the artifact is in S3.
    """
    mode = MODES[options.mode]
    is_multi = options.mode == "multi-model"
    folder = {"ModelDataUrl": models_folder(account, options, endpoint), "Mode": "MultiModel"}
    data = folder if is_multi else trained.model_data()
    request: dict[str, Any] = {
        "PrimaryContainer": {
            "Image": image,
            **data,
            "Environment": {**mode.environment, **prefixes_of(options), **dict(options.environment)},
        },
        "ExecutionRoleArn": account.role(options.role, options.project, mode.role),
        "EnableNetworkIsolation": mode.is_isolated and not options.allow_prefix,
        **network_of(options),
    }
    # The models of a multi-model endpoint come and go, its model stays.
    content = "" if is_multi else found.digest
    name = name_of(options.project, "model", {"request": request, "artifact": content})
    return Call("sagemaker", "CreateModel", {"ModelName": name, **request, "Tags": tags(options.project, options.tags)})


def config_call(
    account: Account, options: argparse.Namespace, endpoint: str, model: str, size_bytes: int, ami: str | None
) -> Call:
    """CreateEndpointConfig, named after all that is in it.

    Args:
        account: where.
        options: of the command.
        endpoint: name, for the folders of what it writes.
        model: name.
        size_bytes: of the artifact.
        ami: of GPU instances; None leaves it to SageMaker.
    """
    variant: dict[str, Any] = {"VariantName": VARIANT, "ModelName": model}
    key = output_key(options)
    request: dict[str, Any] = {"ProductionVariants": [variant]}
    if MODES[options.mode].has_instances:
        variant |= {"InitialInstanceCount": options.instance_count, "InstanceType": options.instance_type}
        variant |= timeouts(size_bytes, with_download=options.mode != "multi-model")
        variant |= {"InferenceAmiVersion": ami} if ami else {}
        variant |= {"VolumeSizeInGB": options.volume_gb} if options.volume_gb else {}
        if not has_own_disks(options.instance_type):
            request |= key
    else:
        provisioned = options.provisioned_concurrency
        variant["ServerlessConfig"] = {
            "MemorySizeInMB": options.memory_mb,
            "MaxConcurrency": options.max_concurrency,
            **({"ProvisionedConcurrency": provisioned} if provisioned else {}),
        }
    if options.mode == "async":
        answers, failures = (place(account, options, "async", endpoint, name) for name in ("output", "failure"))
        request["AsyncInferenceConfig"] = {
            "ClientConfig": {"MaxConcurrentInvocationsPerInstance": options.max_concurrency},
            "OutputConfig": {"S3OutputPath": answers, "S3FailurePath": failures, **key},
        }
    if options.capture:
        request["DataCaptureConfig"] = {
            "EnableCapture": True,
            "InitialSamplingPercentage": options.capture,
            "DestinationS3Uri": place(account, options, "capture", endpoint),
            "CaptureOptions": [{"CaptureMode": "Input"}, {"CaptureMode": "Output"}],
            **key,
        }
    name = name_of(options.project, "config", request)
    return Call("sagemaker", "CreateEndpointConfig",
                {"EndpointConfigName": name, **request, "Tags": tags(options.project, options.tags)})  # fmt: skip


def endpoint_call(options: argparse.Namespace, endpoint: str, config: str) -> Call:
    """CreateEndpoint."""
    return Call("sagemaker", "CreateEndpoint", {"EndpointName": endpoint, "EndpointConfigName": config,
                                                "Tags": tags(options.project, options.tags)})  # fmt: skip


def update_call(
    options: argparse.Namespace, endpoint: str, config: str, alarms: list[str], *, keep_count: bool
) -> Call:
    """UpdateEndpoint: blue/green with a part of the traffic first, and back when an alarm rings.

    A canary is at most half of the variant's instances (botocore, CanarySize), so one instance, and what has none,
    gets all traffic at once; both fleets are kept for as long as the alarms are watched.

    Args:
        options: of the command.
        endpoint: name.
        config: name of the new configuration.
        alarms: names of the alarms that roll it back.
        keep_count: whether there stay as many instances as autoscaling has made of them.
    """
    has_halves = MODES[options.mode].has_instances and options.instance_count > 1
    is_canary = options.update == "canary" and has_halves
    routing: dict[str, Any] = {"Type": "ALL_AT_ONCE", "WaitIntervalInSeconds": options.bake_s}
    if is_canary:
        routing |= {"Type": "CANARY", "CanarySize": {"Type": "CAPACITY_PERCENT", "Value": min(50, options.canary)}}
    request: dict[str, Any] = {
        "EndpointName": endpoint,
        "EndpointConfigName": config,
        "DeploymentConfig": {
            "BlueGreenUpdatePolicy": {
                "TrafficRoutingConfiguration": routing,
                "TerminationWaitInSeconds": options.bake_s,
                # Both waits, starting instances twice, and room.
                "MaximumExecutionTimeoutInSeconds": min(28_800, 2 * options.bake_s + 2 * LONGEST_S),
            },
            "AutoRollbackConfiguration": {"Alarms": [{"AlarmName": name} for name in alarms]},
        },
    }
    if keep_count:
        kept = [{"VariantPropertyType": name} for name in ("DesiredWeight", "DataCaptureConfig")]
        request |= {"RetainAllVariantProperties": True, "ExcludeRetainedVariantProperties": kept}
    return Call("sagemaker", "UpdateEndpoint", request)
