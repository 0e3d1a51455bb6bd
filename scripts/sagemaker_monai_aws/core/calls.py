"""One request to AWS as a value: checked, printed, sent; and members that several requests have.

botocore itself checks types and required members. The service's model also has patterns, choices and lengths; they are
checked here, so that `--dry-run` finds what AWS would refuse.
"""

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import botocore.session
from botocore.model import OperationModel, ServiceModel, Shape
from botocore.validate import ParamValidator

from sagemaker_monai_aws.core.errors import CommandError
from sagemaker_monai_aws.core.instances import has_own_disks


@dataclass(frozen=True)
class Call:
    """An operation of an AWS service with its request, e.g. sagemaker, CreateModel."""

    service: str
    operation: str
    request: Mapping[str, Any] = field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        """For `--dry-run`, and for `make simulate` to read."""
        return {"service": self.service, "operation": self.operation, "request": dict(self.request)}


@cache
def model_of(service: str) -> ServiceModel:
    """boto3's description of a service."""
    return botocore.session.get_session().get_service_model(service)


def operation_model(call: Call) -> OperationModel:
    """The description of an operation."""
    return model_of(call.service).operation_model(call.operation)


def check(call: Call) -> None:
    """Check a request against the service's model.

    Raises:
        CommandError: with all faults and where they are.
    """
    shape = operation_model(call).input_shape
    report = ParamValidator().validate(dict(call.request), shape)
    faults = [report.generate_report()] if report.has_errors() else list(_faults(call.request, shape, ""))
    if faults:
        text = "; ".join(" ".join(fault.split()) for fault in faults)
        raise CommandError(f"AWS would refuse the request {call.operation}: {text}")


def _faults(value: Any, shape: Shape, place: str) -> Iterator[str]:
    """Faults that botocore does not check for; it has checked the types."""
    limits = shape.metadata
    if shape.type_name == "structure":
        for name, part in value.items():
            yield from _faults(part, shape.members[name], f"{place}.{name}".lstrip("."))
    elif shape.type_name == "list":
        for index, part in enumerate(value):
            yield from _faults(part, shape.member, f"{place}[{index}]")
    elif shape.type_name == "map":
        for name, part in value.items():
            yield from _faults(name, shape.key, f"{place} (key {name!r})")
            yield from _faults(part, shape.value, f"{place}.{name}")
    elif shape.type_name == "string":
        choices = limits.get("enum")
        if choices and value not in choices:
            yield f"{place}: {value!r} is not one of {', '.join(choices) if len(choices) < 12 else 'the known values'}"
        if "pattern" in limits and not _matches(limits["pattern"], value):
            yield f"{place}: {value[:80]!r} does not match {limits['pattern']}"
    most = limits.get("max")
    size = value if isinstance(value, (int, float)) else len(value) if hasattr(value, "__len__") else None
    if most is not None and size is not None and size > float(most):
        yield f"{place}: {size} is more than {most}"


@cache
def _pattern(text: str) -> re.Pattern[str] | None:
    # AWS's patterns are Java's. Those that Python cannot read (\p{...}) are left to AWS.
    try:
        return re.compile(text)
    except re.error:
        return None


def _matches(pattern: str, value: str) -> bool:
    compiled = _pattern(pattern)
    return compiled is None or compiled.fullmatch(value) is not None


def as_text(calls: list[Call]) -> str:
    """The calls as one JSON document."""
    return json.dumps([call.as_json() for call in calls], indent=2, ensure_ascii=False, default=_plain)


def _plain(value: Any) -> Any:
    return value.decode("utf-8", errors="replace") if isinstance(value, bytes) else str(value)


def output_key(options: Any) -> dict[str, str]:
    """The KMS key of what is written, if one was given."""
    return {"KmsKeyId": options.kms_key} if options.kms_key else {}


def volume_key(options: Any, instance_type: str) -> dict[str, str]:
    """The KMS key of an instance's volume, if one was given and the instance takes one."""
    return {"VolumeKmsKeyId": options.kms_key} if options.kms_key and not has_own_disks(instance_type) else {}


def network_of(options: Any) -> dict[str, Any]:
    """The VPC, if subnets were given."""
    config = {"Subnets": options.subnets, "SecurityGroupIds": options.security_groups}
    return {"VpcConfig": config} if options.subnets else {}
