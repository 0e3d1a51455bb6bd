"""Endpoints for clients: how to invoke them, their limits, and their answers.

The output and the command are in predict.py. Bodies and names of files never reach a log or an address in S3: an
asynchronous input is called by its digest.

Sources of the limits: botocore's model of sagemaker-runtime (BodyBlob, 6,291,456 bytes); SageMaker Developer Guide,
"Invoke a serverless endpoint" (4 MB) and "Asynchronous inference" (1 GB).
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from botocore.exceptions import ClientError

from sagemaker_monai_aws.core.account import Account
from sagemaker_monai_aws.core.create import tags_of
from sagemaker_monai_aws.core.errors import CommandError
from sagemaker_monai_aws.core.listing import below
from sagemaker_monai_aws.core.names import is_ours

MIB = 1 << 20
LIMITS = {"realtime": 6_291_456, "multi-model": 6_291_456, "serverless": 4 * MIB, "async": 1 << 30}
SERVING = ("InService", "Updating", "RollingBack", "SystemUpdating")  # all answer, the old fleet while a new one starts
# Refusals of one request; any other refusal would be that of all of them.
OF_ONE_REQUEST = frozenset((
    "ModelError", "ModelNotReadyException", "ServiceUnavailable", "InternalFailure", "InternalDependencyException",
    "ThrottlingException", "NoSuchKey", "404",  # the last two: an input in S3 that is gone meanwhile
))  # fmt: skip
STATUS = re.compile(r"\b([45]\d\d)\b")


@dataclass(frozen=True)
class Endpoint:
    """An endpoint that answers.

    Attributes:
        name: its name.
        mode: a key of LIMITS.
        models: where a multi-model endpoint's archives lie, s3://.../.
    """

    name: str
    mode: str
    models: str = ""


@dataclass(frozen=True)
class Answer:
    """What came back for one input: either content or a code with a message."""

    content_type: str = ""
    body: bytes = b""
    code: str = ""
    message: str = ""


def find_endpoint(account: Account, project: str, asked: str | None) -> Endpoint:
    """The named endpoint, else the project's only one in service.

    Raises:
        CommandError: there is none, there are several, or it does not answer.
    """
    if not account.is_known:
        return Endpoint(asked or f"{project}-realtime", "realtime")
    name = asked or _only_one(account, project)
    found = account.read("sagemaker", "DescribeEndpoint", EndpointName=name)
    if found is None:
        raise CommandError(f"there is no endpoint {name!r} in {account.region}: `make status` lists those that there "
                           "are, `make deploy` creates one")  # fmt: skip
    if found["EndpointStatus"] not in SERVING:
        reason = found.get("FailureReason")
        raise CommandError(f"the endpoint {name} is {found['EndpointStatus']}" + (f" ({reason})" if reason else "")
                           + ": `make status` shows when it is InService")  # fmt: skip
    config = account.read("sagemaker", "DescribeEndpointConfig", EndpointConfigName=found["EndpointConfigName"])
    if config is None:
        raise CommandError(f"the configuration of the endpoint {name} was deleted: `make deploy` creates both again")
    model = account.read("sagemaker", "DescribeModel", ModelName=config["ProductionVariants"][0]["ModelName"]) or {}
    mode = mode_of(config, model)
    return Endpoint(name, mode, container_of(model)["ModelDataUrl"] if mode == "multi-model" else "")


def container_of(model: Mapping[str, Any]) -> Mapping[str, Any]:
    """The first container of a model; empty if there is no such model."""
    return dict(model.get("PrimaryContainer") or next(iter(model.get("Containers") or [{}])))


def mode_of(config: Mapping[str, Any], model: Mapping[str, Any]) -> str:
    """How an endpoint serves, a key of LIMITS.

    Args:
        config: of DescribeEndpointConfig.
        model: of DescribeModel, of its first variant.
    """
    if config.get("AsyncInferenceConfig"):
        return "async"
    if any(variant.get("ServerlessConfig") for variant in config.get("ProductionVariants", [])):
        return "serverless"
    return "multi-model" if container_of(model).get("Mode") == "MultiModel" else "realtime"


def _only_one(account: Account, project: str) -> str:
    listed = account.pages(
        "sagemaker", "ListEndpoints", "Endpoints", NameContains=f"{project}-", StatusEquals="InService"
    )
    ours = sorted(each["EndpointName"] for each in listed if is_ours(tags_of(account, each["EndpointArn"]), project))
    if not ours:
        raise CommandError(f"project {project!r} has no endpoint in service in {account.region}: `make deploy` creates "
                           "one, `make status` shows those that are on their way")  # fmt: skip
    if len(ours) > 1:
        raise CommandError(f"there are several endpoints, name one with ENDPOINT=: {', '.join(ours)}")
    return str(ours[0])


def find_target(account: Account, endpoint: Endpoint, target: str | None) -> str | None:
    """Check which of a multi-model endpoint's models is asked.

    Raises:
        CommandError: it is missing, unknown, or the endpoint has one model only.
    """
    if endpoint.mode != "multi-model":
        if target:
            raise CommandError(f"{endpoint.name} has only one model ({endpoint.mode}): leave --target out")
        return None
    models = [item.name for item in below(account, endpoint.models) if item.name.endswith(".tar.gz")]
    if target in models or (target is None and len(models) == 1):
        return target or models[0]
    there = ", ".join(models) or f"none yet, they are {endpoint.models}NAME.tar.gz"
    what = f"has no model {target!r}" if target else "has many models, name one with --target"
    raise CommandError(f"{endpoint.name} {what}; there are: {there}")


def refused(error: ClientError) -> Answer:
    """A refusal of one request, in the container's own words where it has said something.

    Raises:
        ClientError: any other request would be refused as well.
    """
    code = str(error.response["Error"]["Code"])
    if code not in OF_ONE_REQUEST:
        raise error
    response: dict[str, Any] = dict(error.response)
    if "OriginalMessage" not in response:
        return Answer(code=code, message=str(error.response["Error"]["Message"]))
    return in_own_words(str(response["OriginalMessage"]), str(response.get("OriginalStatusCode", code)))


def in_own_words(text: str, status: str = "") -> Answer:
    """The code and message that the container put into a text of SageMaker's, else the HTTP status and the text.

    Args:
        text: the container's answer, or a sentence of SageMaker's with it inside.
        status: where it is known; else the first in the text.
    """
    start = text.find('{"error"')
    if start >= 0:
        try:
            error = json.JSONDecoder().raw_decode(text[start:])[0]["error"]
            return Answer(code=str(error["code"]), message=str(error["message"]))
        except (ValueError, KeyError, TypeError):
            pass  # some other service's JSON: shown as it is
    found = STATUS.search(text)
    return Answer(code=status or (found[1] if found else "failed"), message=" ".join(text.split())[:500])
