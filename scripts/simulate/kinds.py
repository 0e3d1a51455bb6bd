"""The simulated kinds of resources, with AWS's names, and one resource."""

import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from simulate.world import ACCOUNT


@dataclass(frozen=True)
class Kind:
    """A kind of resource, with AWS's names.

    Attributes:
        name: as in CreateTrainingJob, TrainingJobName, TrainingJobArn.
        arn: its part of the ARN.
        items: the member of the List operation's answer.
        words: as in "Could not find model".
        is_job: has a status and can be stopped.
        is_ascending: how lists are ordered, where nothing is said.
    """

    name: str
    arn: str
    items: str
    words: str
    is_job: bool = False
    is_ascending: bool = False

    @property
    def status(self) -> str:
        """The member that holds its status."""
        return f"{self.name}Status"


KINDS = {
    kind.name: kind
    for kind in (
        Kind("TrainingJob", "training-job", "TrainingJobSummaries", "training job", True, True),
        Kind("HyperParameterTuningJob", "hyper-parameter-tuning-job", "HyperParameterTuningJobSummaries", "tuning job",
             True, True),
        Kind("ProcessingJob", "processing-job", "ProcessingJobSummaries", "processing job", True, True),
        Kind("TransformJob", "transform-job", "TransformJobSummaries", "transform job", True),
        Kind("Model", "model", "Models", "model"),
        Kind("EndpointConfig", "endpoint-config", "EndpointConfigs", "endpoint configuration"),
        Kind("Endpoint", "endpoint", "Endpoints", "endpoint"),
    )
}  # fmt: skip
TERMINAL = ("Completed", "Failed", "Stopped")
MISSING = {  # the others: Could not find KIND "ARN".
    "TrainingJob": "Requested resource not found.",
    "ProcessingJob": "Could not find requested job with name: {name}",
    "TransformJob": "Could not find requested job with name: {name}",
    "HyperParameterTuningJob": "Amazon SageMaker can't find a tuning job with the name {name} in account {account}.",
}
TAGGING = {"AddTags", "ListTags", "DeleteTags"}
PAGE = 100


@dataclass
class Resource:
    """One resource; `fields` is what Describe answers beside the request."""

    kind: Kind
    name: str
    arn: str
    region: str
    request: Mapping[str, Any]
    fields: dict[str, Any] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)
    stop: threading.Event = field(default_factory=threading.Event)
    lock: threading.RLock = field(default_factory=threading.RLock)

    def set(self, **fields: Any) -> None:
        """Change fields; None removes one."""
        with self.lock:
            self.fields |= {**fields, "LastModifiedTime": time.time()}

    @property
    def status(self) -> str:
        """Its status, empty where its kind has none."""
        return str(self.fields.get(self.kind.status, ""))

    def described(self) -> dict[str, Any]:
        """Everything known about it."""
        with self.lock:
            own = {f"{self.kind.name}Name": self.name, f"{self.kind.name}Arn": self.arn}
            return {**self.request, **self.fields, **own}


def arn(kind: Kind, name: str, region: str) -> str:
    """The ARN of a resource."""
    return f"arn:aws:sagemaker:{region}:{ACCOUNT}:{kind.arn}/{name.lower()}"
