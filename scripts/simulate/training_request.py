"""CreateTrainingJob's request: what of it is refused, and the files that SageMaker makes of it below /opt/ml."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from simulate.control import ControlPlane
from simulate.faults import invalid, not_simulated
from simulate.runners import ML

RESERVED = ("input", "model", "output", "code")  # a checkpoint folder is none of these


def check(_: ControlPlane, request: Mapping[str, Any], __: str) -> None:
    """Refuse invalid requests, and those that are not simulated."""
    for name in ("AlgorithmSpecification", "ResourceConfig", "StoppingCondition"):
        if name not in request:
            raise invalid(f"{name} is required")
    if not request["AlgorithmSpecification"].get("TrainingImage"):
        raise not_simulated("a training job without TrainingImage")
    resources = request["ResourceConfig"]
    if "InstanceGroups" in resources:
        raise not_simulated("ResourceConfig.InstanceGroups")
    if resources.get("InstanceCount", 0) < 1 or "InstanceType" not in resources:
        raise invalid("ResourceConfig needs InstanceType and an InstanceCount of at least 1")
    _check_times(request)
    names = [channel["ChannelName"] for channel in request.get("InputDataConfig", [])]
    if len(set(names)) < len(names):
        raise invalid("Channel names must be unique")
    for channel in request.get("InputDataConfig", []):
        _check_channel(channel, request["AlgorithmSpecification"]["TrainingInputMode"])
    if "CheckpointConfig" in request:
        checkpoint_folder(request["CheckpointConfig"])


def _check_times(request: Mapping[str, Any]) -> None:
    condition = request["StoppingCondition"]
    wait, run = condition.get("MaxWaitTimeInSeconds"), condition.get("MaxRuntimeInSeconds", 86_400)
    is_spot = request.get("EnableManagedSpotTraining", False)
    if is_spot and (wait is None or wait < run):
        raise invalid("Invalid MaxWaitTimeInSeconds. It must be present and be greater than or equal to "
                      "MaxRuntimeInSeconds")  # fmt: skip
    if not is_spot and wait is not None:
        raise invalid("Invalid MaxWaitTimeInSeconds. It must not be present when EnableManagedSpotTraining is false")
    if is_spot and request["ResourceConfig"].get("KeepAlivePeriodInSeconds"):
        raise invalid("KeepAlivePeriodInSeconds is not supported with EnableManagedSpotTraining")


def _check_channel(channel: Mapping[str, Any], mode: str) -> None:
    source = channel["DataSource"].get("S3DataSource")
    if source is None or source["S3DataType"] not in ("S3Prefix", "ManifestFile"):
        raise not_simulated(f"channel {channel['ChannelName']}: a source other than S3Prefix and ManifestFile")
    if channel.get("InputMode", mode) == "Pipe":
        raise not_simulated(f"channel {channel['ChannelName']}: Pipe mode")
    if channel.get("CompressionType", "None") != "None" or channel.get("RecordWrapperType", "None") != "None":
        raise invalid(f"channel {channel['ChannelName']}: CompressionType and RecordWrapperType need Pipe mode")


def checkpoint_folder(config: Mapping[str, Any]) -> str:
    """The checkpoint folder's path below /opt/ml."""
    path = Path(config.get("LocalPath", f"{ML}/checkpoints"))
    if not path.is_relative_to(ML) or ".." in path.parts or path == Path(ML):
        raise not_simulated(f"CheckpointConfig.LocalPath outside {ML}")
    below = path.relative_to(ML)
    if below.parts[0] in RESERVED:
        raise invalid(f"CheckpointConfig.LocalPath must not be a reserved path, got {path}")
    return below.as_posix()


def lay_out(base: Path, request: Mapping[str, Any], hosts: tuple[str, ...], index: int) -> None:
    """The folders of one host and the files that SageMaker writes into input/config."""
    channels = request.get("InputDataConfig", [])
    instance = request["ResourceConfig"]["InstanceType"]
    group = {"instance_group_name": "homogeneousCluster", "instance_type": instance, "hosts": list(hosts)}
    mode = request["AlgorithmSpecification"]["TrainingInputMode"]
    files = {
        "hyperparameters": request.get("HyperParameters", {}),
        "inputdataconfig": {
            channel["ChannelName"]: {
                **({"ContentType": channel["ContentType"]} if "ContentType" in channel else {}),
                "TrainingInputMode": channel.get("InputMode", mode),
                "S3DistributionType": channel["DataSource"]["S3DataSource"].get(
                    "S3DataDistributionType", "FullyReplicated"
                ),
                "RecordWrapperType": channel.get("RecordWrapperType", "None"),
            }
            for channel in channels
        },
        "resourceconfig": {
            "current_host": hosts[index],
            "current_instance_type": instance,
            "current_group_name": "homogeneousCluster",
            "hosts": list(hosts),
            "instance_groups": [group],
            "network_interface_name": "eth0",
        },
    }
    for folder in ("input/config", "model", "output/data", *(f"input/data/{each['ChannelName']}" for each in channels)):
        (base / folder).mkdir(parents=True, exist_ok=True)
    for name, value in files.items():
        (base / "input" / "config" / f"{name}.json").write_text(json.dumps(value), encoding="utf-8")
