"""An AWS account in one region: its number, and clients that cannot write in a dry run."""

import argparse
import os
from functools import cached_property
from typing import Any

import boto3
from botocore.config import Config
from botocore.exceptions import ClientError, NoCredentialsError, NoRegionError, PartialCredentialsError
from botocore.session import get_session

from sagemaker_monai_aws.core.calls import Call, check
from sagemaker_monai_aws.core.errors import is_missing

READING = ("Get", "List", "Describe", "Head", "BatchGet", "Search", "Simulate", "AssumeRole")
UNKNOWN_ACCOUNT = "000000000000"  # in a dry run without credentials
# Five attempts with growing pauses, as AWS recommends, but a short time-out for connecting.
CLIENT_CONFIG = Config(
    retries={"mode": "standard", "max_attempts": 5}, connect_timeout=10, user_agent_extra="sagemaker-monai"
)


class Account:
    """Clients of one session.

    Args:
        options: `region`, `profile`, `dry_run` of a command.

    Raises:
        NoRegionError, ProfileNotFound: on first use.
    """

    def __init__(self, options: argparse.Namespace) -> None:
        self.is_dry_run: bool = getattr(options, "dry_run", False)
        self._options = options
        self._clients: dict[str, Any] = {}

    @cached_property
    def session(self) -> boto3.Session:
        """boto3's session, with the given profile and region, else as boto3 finds them."""
        region = self._options.region or os.environ.get("AWS_REGION")
        return boto3.Session(profile_name=self._options.profile or None, region_name=region or None)

    @cached_property
    def region(self) -> str:
        """Name of the region."""
        # Without a region, the client of a global service would have aws-global.
        if not self.session.region_name:
            raise NoRegionError
        return str(self.session.region_name)

    @cached_property
    def partition(self) -> str:
        """`aws`, `aws-cn`, ..."""
        return str(self.session.get_partition_for_region(self.region))

    @cached_property
    def dns_suffix(self) -> str:
        """End of the partition's addresses: amazonaws.com, amazonaws.com.cn, ..."""
        partitions = get_session().get_component("data_loader").load_data("partitions")["partitions"]
        [suffix] = [each["outputs"]["dnsSuffix"] for each in partitions if each["id"] == self.partition]
        return str(suffix)

    @cached_property
    def number(self) -> str:
        """The account's twelve digits; zeros in a dry run without credentials."""
        try:
            return str(self.client("sts").get_caller_identity()["Account"])
        except (NoCredentialsError, PartialCredentialsError):
            if not self.is_dry_run:
                raise
            return UNKNOWN_ACCOUNT

    @property
    def is_known(self) -> bool:
        """Whether there are credentials; only a dry run works without."""
        return self.number != UNKNOWN_ACCOUNT

    def client(self, service: str, **settings: Any) -> Any:
        """A client of the service; in a dry run it refuses every operation that is not for reading.

        Args:
            service: boto3's name of it.
            **settings: of botocore's Config; `region_name` for another region.
        """
        key = service + repr(sorted(settings.items()))
        if key not in self._clients:
            region = settings.pop("region_name", None) or self.region
            client = self.session.client(service, region, config=CLIENT_CONFIG.merge(Config(**settings)))
            if self.is_dry_run:
                client.meta.events.register_first("before-parameter-build.*.*", _refuse_to_write)
            self._clients[key] = client
        return self._clients[key]

    def send(self, call: Call, **settings: Any) -> Any:
        """Check and send one call; AWS's answer."""
        check(call)
        client = self.client(call.service, **settings)
        return getattr(client, _method(client, call.operation))(**call.request)

    def read(self, service: str, operation: str, **request: Any) -> Any | None:
        """AWS's answer; None if AWS says that it does not exist."""
        client = self.client(service)
        try:
            return getattr(client, _method(client, operation))(**request)
        except ClientError as error:
            if is_missing(error):
                return None
            raise

    def pages(self, service: str, operation: str, key: str, **request: Any) -> list[Any]:
        """All items of a list, from all pages."""
        client = self.client(service)
        method = _method(client, operation)
        if not client.can_paginate(method):
            return list(getattr(client, method)(**request)[key])
        return [item for page in client.get_paginator(method).paginate(**request) for item in page.get(key, [])]

    def role(self, asked: str | None, project: str, kind: str) -> str:
        """ARN of an execution role.

        Args:
            asked: name or ARN; None takes the role of `make infra`.
            project: prefix of the role's name.
            kind: training, hosting, batch, pipeline or build.
        """
        if asked and asked.startswith("arn:"):
            return asked
        return f"arn:{self.partition}:iam::{self.number}:role/{asked or f'{project}-{self.region}-{kind}'}"


def _method(client: Any, operation: str) -> str:
    names: dict[str, str] = {name: method for method, name in client.meta.method_to_api_mapping.items()}
    return names[operation]


def _refuse_to_write(model: Any, **_: Any) -> None:
    if not model.name.startswith(READING):
        raise AssertionError(f"a dry run must not call {model.name}")
