"""What a project has in SageMaker: found by name prefix and confirmed by tags."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sagemaker_monai_aws.core.account import Account
from sagemaker_monai_aws.core.create import tags_of
from sagemaker_monai_aws.core.follow import describe
from sagemaker_monai_aws.core.names import is_ours

EPOCH = datetime.fromtimestamp(0).astimezone()


@dataclass(frozen=True)
class Listing:
    """A row of LISTINGS: how SageMaker lists one kind of thing."""

    noun: str
    items: str
    operation: str = ""
    status: str = ""
    filter: str = "NameContains"
    running: tuple[str, ...] = ()

    @property
    def list_operation(self) -> str:
        """The operation that lists it."""
        return self.operation or f"List{self.noun}s"


BUSY = ("InProgress", "Stopping")
LISTINGS = {
    "endpoint": Listing("Endpoint", "Endpoints", status="EndpointStatus"),
    "training": Listing("TrainingJob", "TrainingJobSummaries", status="TrainingJobStatus", running=BUSY),
    "tuning": Listing("HyperParameterTuningJob", "HyperParameterTuningJobSummaries",
                      status="HyperParameterTuningJobStatus", running=BUSY),
    "processing": Listing("ProcessingJob", "ProcessingJobSummaries", status="ProcessingJobStatus", running=BUSY),
    "transform": Listing("TransformJob", "TransformJobSummaries", status="TransformJobStatus", running=BUSY),
    "pipeline": Listing("Pipeline", "PipelineSummaries", filter="PipelineNamePrefix"),
    "configuration": Listing("EndpointConfig", "EndpointConfigs"),
    "model": Listing("Model", "Models"),
}  # fmt: skip
JOBS = ("training", "tuning", "processing", "transform")


@dataclass(frozen=True)
class Thing:
    """Something of a project.

    Attributes:
        kind: a key of LISTINGS.
        name: its name.
        arn: its ARN.
        status: in SageMaker's words, empty where its kind has none.
        created: when.
    """

    kind: str
    name: str
    arn: str
    status: str
    created: datetime


def candidates(account: Account, project: str, kind: str, **words: Any) -> list[Thing]:
    """Things whose name begins as the project's do, the newest first; whether they are its own the tags say.

    Args:
        account: where.
        project: its name.
        kind: of LISTINGS.
        **words: of the List operation, e.g. StatusEquals.
    """
    row = LISTINGS[kind]
    start = project if kind == "pipeline" else f"{project}-"
    found = account.pages("sagemaker", row.list_operation, row.items, **{row.filter: start}, **words)
    things = [
        Thing(kind, each[f"{row.noun}Name"], each[f"{row.noun}Arn"], each.get(row.status, ""),
              each.get("CreationTime", EPOCH))
        for each in found if each[f"{row.noun}Name"].startswith(start)
    ]  # fmt: skip
    return sorted(things, key=lambda thing: (thing.created, thing.name), reverse=True)


def ours(account: Account, project: str, things: list[Thing]) -> Iterator[Thing]:
    """Those that this project's commands have made, by their tags; asks for them one by one."""
    return (thing for thing in things if is_ours(tags_of(account, thing.arn), project))


def running_jobs(account: Account, project: str) -> list[Thing]:
    """Jobs of all kinds that have not ended."""
    return [thing for kind in JOBS for status in LISTINGS[kind].running
            for thing in ours(account, project, candidates(account, project, kind, StatusEquals=status))
            if thing.status in LISTINGS[kind].running]  # fmt: skip


def warm_pools(account: Account, project: str) -> list[Thing]:
    """Training jobs that have ended and whose instances are kept, which costs as much as if they ran."""
    found = candidates(account, project, "training", WarmPoolStatusEquals="Available")
    return [thing for thing in ours(account, project, found) if thing.status not in BUSY]


def executions(account: Account, pipeline: str) -> list[dict[str, Any]]:
    """Executions of a pipeline that have not ended."""
    found = account.pages("sagemaker", "ListPipelineExecutions", "PipelineExecutionSummaries", PipelineName=pipeline)
    return [each for each in found if each.get("PipelineExecutionStatus") in ("Executing", "Stopping")]


def named(account: Account, name: str) -> tuple[str, dict[str, Any]] | None:
    """Kind and description of a job or endpoint by its name; None if it does not exist."""
    for kind in ("training", "processing", "transform", "tuning", "endpoint"):
        found = describe(account, kind, name)
        if found is not None:
            return kind, found
    return None
