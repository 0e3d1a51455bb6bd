"""Names, addresses in S3, and how a project recognises its own resources.

A name ends in a digest of its request, so the same request has the same name: a second run finds the first instead of
paying twice.
"""

import hashlib
import json
import re
from collections.abc import Mapping
from typing import Any

from sagemaker_monai_aws.core.errors import CommandError

CREATED_BY = "sagemaker-monai"
LONGEST = 63  # characters, of SageMaker's names
S3_URI = re.compile(r"s3://([a-z0-9][a-z0-9.-]{1,61}[a-z0-9])(?:/(.*))?", re.S)


def digest(value: Any, length: int = 10) -> str:
    """Hexadecimal digits that are equal for equal requests."""
    text = json.dumps(value, sort_keys=True, ensure_ascii=False, separators=(",", ":"), default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:length]


def name_of(
    project: str, kind: str, request: Mapping[str, Any], attempt: int = 1, *, digits: int = 10, longest: int = LONGEST
) -> str:
    """PROJECT-KIND-DIGEST, from the second attempt on with -ATTEMPT behind.

    Args:
        project: prefix of the name; policies match it, so it is never shortened.
        kind: of what is named.
        request: what the digest is of.
        attempt: from 1.
        digits: of the digest.
        longest: characters that the service takes.

    Raises:
        CommandError: the project's name leaves no room.
    """
    end = f"-{kind}-{digest(request, digits)}" + (f"-{attempt}" if attempt > 1 else "")
    if len(project) + len(end) > longest:
        raise CommandError(f"{project + end} has more than the {longest} characters that SageMaker takes here: PROJECT "
                           f"may have {longest - len(end)}")  # fmt: skip
    return project + end


def default_bucket(project: str, account: str, region: str) -> str:
    """Of `make infra`; at most 63 characters, lower case."""
    return f"{project}-{account}-{region}"


def tags(project: str, further: Mapping[str, str]) -> list[dict[str, str]]:
    """Tags in SageMaker's form, ours first."""
    own = {"project": project, "created-by": CREATED_BY}
    return [{"Key": name, "Value": value} for name, value in {**further, **own}.items()]


def is_ours(found: list[dict[str, str]], project: str) -> bool:
    """Whether the tags of something say that this project's commands made it."""
    values = {tag["Key"]: tag["Value"] for tag in found}
    return values.get("created-by") == CREATED_BY and values.get("project") == project


def split_s3(uri: str) -> tuple[str, str]:
    """Bucket and key of s3://bucket/key; the key may be empty.

    Raises:
        CommandError: it is not such an address.
    """
    match = S3_URI.fullmatch(uri)
    if match is None:
        raise CommandError(f"an address s3://bucket/key is needed, got {uri!r}: `make prepare-s3` uploads a folder")
    return match[1], match[2] or ""


def folder_uri(uri: str) -> str:
    """The same address with one slash at its end, so that `data` is not also `data-old`."""
    split_s3(uri)
    return uri.rstrip("/") + "/"
