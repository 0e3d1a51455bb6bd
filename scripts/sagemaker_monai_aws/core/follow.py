"""Follow a job until it ends: its status, its log as it is written, and what it cost.

Ctrl-C stops following; the job continues.
"""

import argparse
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from sagemaker_monai_aws.core.account import Account
from sagemaker_monai_aws.core.command import Context, say
from sagemaker_monai_aws.core.names import LONGEST
from sagemaker_monai_aws.core.prices import hourly

UNKNOWN_SECONDS = "AWS does not say how many seconds it bills"


@dataclass(frozen=True)
class Kind:
    """A row of KINDS: SageMaker's names for one kind of job or resource."""

    noun: str  # TrainingJob of CreateTrainingJob
    status: str  # member of the Describe answer
    log_group: str = ""
    ended: frozenset[str] = frozenset({"Completed", "Failed", "Stopped"})
    name: str = ""
    digits: int = 10  # of the digest in its name
    longest: int = LONGEST  # characters of its name

    @property
    def name_key(self) -> str:
        """The member that holds the name."""
        return self.name or f"{self.noun}Name"


KINDS = {
    "training": Kind("TrainingJob", "TrainingJobStatus", "/aws/sagemaker/TrainingJobs"),
    "processing": Kind("ProcessingJob", "ProcessingJobStatus", "/aws/sagemaker/ProcessingJobs"),
    "transform": Kind("TransformJob", "TransformJobStatus", "/aws/sagemaker/TransformJobs"),
    "tuning": Kind("HyperParameterTuningJob", "HyperParameterTuningJobStatus", digits=8, longest=32),
    "endpoint": Kind("Endpoint", "EndpointStatus", "/aws/sagemaker/Endpoints",
                     frozenset({"InService", "Failed", "OutOfService", "UpdateRollbackFailed"})),
    "execution": Kind("PipelineExecution", "PipelineExecutionStatus", "",
                      frozenset({"Succeeded", "Failed", "Stopped"}), "PipelineExecutionArn"),
}  # fmt: skip


def describe(account: Account, kind: str, name: str) -> dict[str, Any] | None:
    """AWS's description; None if it does not exist."""
    row = KINDS[kind]
    found = account.read("sagemaker", f"Describe{row.noun}", **{row.name_key: name})
    return None if found is None else dict(found)


def state_of(found: Mapping[str, Any], kind: str) -> str:
    """Status and secondary status of a job."""
    status = str(found.get(KINDS[kind].status, "Unknown"))
    detail = found.get("SecondaryStatus") or ""
    return f"{status}, {detail}" if detail and detail != status else status


def follow(
    context: Context, command: str, kind: str, name: str, state: Callable[[Mapping[str, Any], str], str] = state_of
) -> dict[str, Any]:
    """Wait until a job ends, printing each change of its state and, where its kind has one, its log.

    Args:
        context: `poll_s` of its options is the pause between two requests.
        command: for the lines on standard error.
        kind: of KINDS.
        name: of the job.
        state: the job's state in one line, from AWS's description and the kind.

    Returns:
        AWS's last description.
    """
    row, account = KINDS[kind], context.account
    follower = f"`make logs JOB={name}`" if row.log_group else "the same command"
    context.after_interrupt = (
        f"{name} continues and costs money: {follower} follows it, `make delete JOB={name}` stops it"
    )
    log = log_of(account, kind, name) if row.log_group else None
    last = ""
    while True:
        # Asked before the log is read, so that the last lines are not missed.
        found = describe(account, kind, name) or {}
        if (line := state(found, kind)) != last:
            say(command, f"{name}: {line}")
            last = line
        if log is not None:
            log.print_new()
        if found.get(row.status) in row.ended:
            return found
        time.sleep(context.options.poll_s)


class Log:
    """New lines in the log streams of a job or an endpoint.

    Args:
        account: where.
        group: of the log.
        prefix: of the streams' names; empty takes the whole group.
        since_ms: skip what is older, in milliseconds since 1970; None takes all.
    """

    def __init__(self, account: Account, group: str, prefix: str, since_ms: int | None = None) -> None:
        self._client = account.client("logs")
        self._group, self._prefix, self._since_ms = group, prefix, since_ms
        self._tokens: dict[str, str] = {}

    def new(self) -> Iterator[tuple[str, str]]:
        """Stream and line of what is new since the last call, in the order of each stream."""
        for stream in self._streams():
            while True:
                asked: dict[str, Any] = {"logGroupName": self._group, "logStreamName": stream, "startFromHead": True}
                if self._since_ms is not None:
                    asked["startTime"] = self._since_ms
                if stream in self._tokens:
                    asked["nextToken"] = self._tokens[stream]
                answer = self._client.get_log_events(**asked)
                for event in answer["events"]:
                    yield stream.removeprefix(self._prefix), event["message"]
                is_end = answer["nextForwardToken"] == self._tokens.get(stream) or not answer["events"]
                self._tokens[stream] = answer["nextForwardToken"]
                if is_end:
                    break

    def _streams(self) -> list[str]:
        try:
            words = {"logStreamNamePrefix": self._prefix} if self._prefix else {}
            pages = self._client.get_paginator("describe_log_streams").paginate(logGroupName=self._group, **words)
            return [stream["logStreamName"] for page in pages for stream in page["logStreams"]]
        except self._client.exceptions.ResourceNotFoundException:
            return []  # nothing was logged yet

    def print_new(self) -> None:
        """Print what is new; with several hosts, each line begins with its host."""
        many = len(self._tokens) > 1
        for stream, line in self.new():
            print(f"{stream}: {line}" if many else line, file=sys.stderr, flush=True)


def log_place(kind: str, name: str) -> tuple[str, str]:
    """Log group and prefix of the streams' names: an endpoint has its own group, a job has streams in its kind's."""
    group = KINDS[kind].log_group
    return (f"{group}/{name}", "") if kind == "endpoint" else (group, f"{name}/")


def log_of(account: Account, kind: str, name: str, since_ms: int | None = None) -> Log:
    """The log of a job or an endpoint."""
    return Log(account, *log_place(kind, name), since_ms)


def billed(found: dict[str, Any], region: str) -> str:
    """One line: seconds, billed seconds, what spot saved, and the price if the table has it."""
    trained, paid = found.get("TrainingTimeInSeconds"), found.get("BillableTimeInSeconds")
    if trained is None or paid is None:
        return UNKNOWN_SECONDS
    saved = f", {100 * (1 - paid / trained):.0f} % saved by spot" if paid < trained else ""
    resources = found.get("ResourceConfig", {})
    count, kind = resources.get("InstanceCount", 1), resources.get("InstanceType", "")
    price = hourly(region, kind)
    # AWS counts the seconds of one instance; each of several is billed as long.
    cost = f", about {price * paid * count / 3600:.2f} USD" if price is not None else ""
    return f"{trained} s of {count} x {kind}, {paid} s billed{saved}{cost}"


def add_wait(parser: argparse.ArgumentParser) -> None:
    """Options of commands that follow a job."""
    add = parser.add_argument
    add("--wait", action=argparse.BooleanOptionalAction, default=True, help="follow until it ends (default)")
    add("--poll-s", type=float, default=10.0, help="seconds between two requests for its state (default: %(default)s)")
