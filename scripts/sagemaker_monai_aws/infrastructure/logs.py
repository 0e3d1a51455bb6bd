"""The log of a job or an endpoint (`make logs JOB=name`), of the newest job of the project without a name.

CloudWatch keeps what containers write. `--follow` prints new lines until the job ends; an endpoint's log ends only with
the endpoint.

Source: SageMaker Developer Guide, "Logging with CloudWatch" (names of groups and streams).
"""

import argparse
import re
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

from botocore.exceptions import ClientError

from sagemaker_monai_aws.core.account import Account
from sagemaker_monai_aws.core.command import Context, say
from sagemaker_monai_aws.core.errors import CommandError, is_missing
from sagemaker_monai_aws.core.follow import KINDS, describe, log_of, log_place
from sagemaker_monai_aws.core.inventory import JOBS, Thing, candidates, named, ours

NAME = "logs"
UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}
SHOWN = 10  # names in a message
ENDPOINT_ENDED = ("Deleting", "Failed", "")


def since(text: str) -> datetime:
    """A moment from 30m, 2h, 1d before now, or from an ISO date or time, which without a zone is this machine's."""
    if match := re.fullmatch(r"(\d{1,6})([smhd])", text):
        return datetime.now(UTC) - timedelta(**{UNITS[match[2]]: int(match[1])})
    try:
        return datetime.fromisoformat(text).astimezone(UTC)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"takes 30m, 2h, 1d or a date and time like 2026-01-31T12:00, got {text!r}"
                                         ) from error  # fmt: skip


def pattern(text: str) -> re.Pattern[str]:
    """A regular expression."""
    try:
        return re.compile(text)
    except re.error as error:
        raise argparse.ArgumentTypeError(f"takes a regular expression, got {text!r}: {error}") from error


def add_options(parser: argparse.ArgumentParser) -> None:
    """Options of the command."""
    add = parser.add_argument
    add("job", nargs="?", help="name of a job or an endpoint (default: the newest job of the project)")
    add("--follow", action=argparse.BooleanOptionalAction, default=False, help="until it ends")
    add("--since", type=since, help="only what is newer: 30m, 2h, 1d, or a date and time")
    add("--grep", type=pattern, help="only lines in which this regular expression is found")
    add("--tail", type=int, help="only the last so many lines; with --follow all that come after them")
    add("--poll-s", type=float, default=5.0, help="seconds between two questions (default: %(default)s)")


def _newest(account: Account, project: str) -> str:
    things = [thing for kind in JOBS if kind != "tuning" for thing in candidates(account, project, kind)]
    newest: Thing | None = next(
        ours(account, project, sorted(things, key=lambda thing: thing.created, reverse=True)), None
    )
    if newest is None:
        raise CommandError(f"project {project!r} has no job in {account.region} yet: `make train` starts one")
    return newest.name


def _find(account: Account, project: str, name: str) -> str:
    """The kind of what is named.

    Raises:
        CommandError: it does not exist (the message lists what does), or it has no log.
    """
    found = named(account, name)
    if found is None:
        kinds = (*JOBS, "endpoint")
        there = sorted((thing for kind in kinds for thing in candidates(account, project, kind)),
                       key=lambda thing: thing.created, reverse=True)  # fmt: skip
        names = ", ".join(thing.name for thing in there[:SHOWN]) or "nothing"
        raise CommandError(f"there is no job or endpoint {name!r} in {account.region}; there is: {names}")
    kind, description = found
    if kind == "tuning":
        jobs = account.pages("sagemaker", "ListTrainingJobsForHyperParameterTuningJob", "TrainingJobSummaries",
                             HyperParameterTuningJobName=name)  # fmt: skip
        names = ", ".join(job["TrainingJobName"] for job in jobs[:SHOWN]) or "none yet"
        status = description["HyperParameterTuningJobStatus"]
        raise CommandError(f"the tuning job {name} ({status}) has no log, its training jobs have: {names}")
    return kind


def lines(account: Account, kind: str, name: str, since_ms: int | None) -> Iterator[tuple[str, str]]:
    """Stream and line of all that has been written, in the order of time."""
    group, prefix = log_place(kind, name)
    words = {"logStreamNamePrefix": prefix} if prefix else {}
    times = {"startTime": since_ms} if since_ms is not None else {}
    pages = account.client("logs").get_paginator("filter_log_events").paginate(logGroupName=group, **words, **times)
    try:
        events = [event for page in pages for event in page["events"] if event["logStreamName"].startswith(prefix)]
        for event in sorted(events, key=lambda event: int(event["timestamp"])):
            yield event["logStreamName"].removeprefix(prefix), event["message"]
    except ClientError as error:
        if not is_missing(error):  # a group is there from the first line on
            raise


def work(context: Context) -> int:
    """Print the log."""
    account, options = context.account, context.options
    if options.tail is not None and options.tail < 1:
        raise CommandError(f"--tail must be at least 1, got {options.tail}")
    name = options.job or _newest(account, options.project)
    kind = _find(account, options.project, name)
    if not options.job:
        say(NAME, f"the newest job is {name}")
    since_ms = None if options.since is None else int(options.since.timestamp() * 1000)
    if options.follow:
        return _follow(context, kind, name, since_ms)
    found = [(stream, line) for stream, line in lines(account, kind, name, since_ms) if _is_wanted(options, line)]
    many = len({stream for stream, _ in found}) > 1
    for stream, line in found[-options.tail :] if options.tail else found:
        print(f"{stream}: {line}" if many else line)
    if not found:
        status = (describe(account, kind, name) or {}).get(KINDS[kind].status, "gone")
        say(NAME, f"nothing to print of {name} ({status})")
    return 0


def _is_wanted(options: argparse.Namespace, line: str) -> bool:
    return options.grep is None or options.grep.search(line) is not None


def _follow(context: Context, kind: str, name: str, since_ms: int | None) -> int:
    account, options = context.account, context.options
    context.after_interrupt = f"{name} continues and costs money: `make delete` stops it"
    log = log_of(account, kind, name, since_ms)
    if options.tail is not None:
        before = [f"{stream}: {line}" for stream, line in log.new() if _is_wanted(options, line)]
        print("".join(f"{line}\n" for line in before[-options.tail :]), end="", flush=True)
    hosts: set[str] = set()
    ended = ENDPOINT_ENDED if kind == "endpoint" else KINDS[kind].ended
    while True:
        # Asked before the log is read, so that the last lines are not missed.
        status = (describe(account, kind, name) or {}).get(KINDS[kind].status, "")
        for stream, line in log.new():
            hosts.add(stream)
            if _is_wanted(options, line):
                print(f"{stream}: {line}" if len(hosts) > 1 else line, flush=True)
        if status in ended:
            say(NAME, f"{name}: {status or 'gone'}")
            return 0
        time.sleep(options.poll_s)
