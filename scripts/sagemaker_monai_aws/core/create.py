"""Create what does not exist yet, and find what an earlier run of the same command created."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from botocore.exceptions import ClientError

from sagemaker_monai_aws.core.account import Account
from sagemaker_monai_aws.core.calls import Call
from sagemaker_monai_aws.core.command import Context, say, show_plan
from sagemaker_monai_aws.core.errors import CommandError, code_of
from sagemaker_monai_aws.core.follow import KINDS, describe
from sagemaker_monai_aws.core.names import is_ours, name_of

ATTEMPTS = 50
UNSUCCESSFUL = frozenset({"Failed", "Stopped", "Stopping"})


@dataclass(frozen=True)
class Job:
    """A job to start.

    Attributes:
        command: for the lines on standard error.
        kind: of follow.KINDS.
        part: middle of the job's name.
        request_of: the whole request for a name.
        digested: what makes two runs the same job.
        costs: lines about what it costs.
        uploads_of: for a name, what is sent before the request.
    """

    command: str
    kind: str
    part: str
    request_of: Callable[[str], Mapping[str, Any]]
    digested: Mapping[str, Any]
    costs: Sequence[str]
    uploads_of: Callable[[str], list[Call]] = lambda _: []

    def calls(self, name: str) -> list[Call]:
        """All requests that start it, in their order."""
        return [*self.uploads_of(name), Call("sagemaker", f"Create{KINDS[self.kind].noun}", self.request_of(name))]

    def name(self, project: str, attempt: int) -> str:
        """Its name in an attempt, counted from 1."""
        row = KINDS[self.kind]
        return name_of(project, self.part, self.digested, attempt, digits=row.digits, longest=row.longest)


def run_job(context: Context, job: Job, finish: Callable[[str], int]) -> int:
    """Show what a job would be in a dry run; else start or find it, and follow it unless told not to.

    Args:
        context: of the command; `again`, `wait` and `dry_run` are of its options.
        job: the job.
        finish: follows the job of a name to its end.

    Returns:
        The exit code.
    """
    options = context.options
    if options.dry_run:
        return show_plan(context, job.command, job.calls(job.name(options.project, 1)), job.costs)
    for line in job.costs:
        say(job.command, line)
    name = start_job(context, job)
    if options.wait:
        return finish(name)
    print(name)
    return 0


def start_job(context: Context, job: Job) -> str:
    """Start a job, or find the one that was started with the same request; its name.

    A job that failed or was stopped is followed by another attempt, which has the same checkpoints; with --again, so is
    one that completed.
    """
    account, options, row = context.account, context.options, KINDS[job.kind]
    for attempt in range(1, ATTEMPTS):
        name = job.name(options.project, attempt)
        found = describe(account, job.kind, name)
        if found is None:
            context.after_interrupt = (
                f"{name} may have started: run the same command again to find it, or `make delete JOB={name}`"
            )
            try:
                for call in job.calls(name):
                    account.send(call)
            except ClientError as error:
                if code_of(error) not in ("ResourceInUse", "ConflictException"):
                    raise
                found = describe(account, job.kind, name)  # another process was faster with the same request
            say(job.command, f"{'found' if found else 'started'} {name}")
            return name
        status = found[row.status]
        if status not in UNSUCCESSFUL and not (options.again and status in row.ended):
            say(job.command, f"found {name} ({status}): it was started with the same request")
            return name
    raise CommandError(f"{ATTEMPTS - 1} attempts at this job have failed: see `make logs`, then change the request")


def ensure(account: Account, call: Call, operation: str, **request: Any) -> bool:
    """Create something that is named after its content, unless it exists; whether it was created.

    Args:
        account: where.
        call: the Create call.
        operation: finds it, e.g. DescribeModel.
        **request: of that operation.
    """
    if account.read(call.service, operation, **request) is not None:
        return False
    try:
        account.send(call)
    except ClientError as error:
        # SageMaker has two ways to say that it exists.
        if "already exist" not in str(error) and code_of(error) != "ResourceInUse":
            raise
        return False
    return True


def tags_of(account: Account, arn: str) -> list[dict[str, str]]:
    """The tags of a SageMaker resource; none if it is gone."""
    answer = account.read("sagemaker", "ListTags", ResourceArn=arn)
    return [] if answer is None else list(answer["Tags"])


def require_ours(account: Account, arn: str, project: str, *, force: bool) -> None:
    """Refuse what these commands did not create.

    Raises:
        CommandError: its tags do not name this project.
    """
    if not force and not is_ours(tags_of(account, arn), project):
        raise CommandError(f"{arn.rpartition('/')[2]} was not made by these commands for project {project!r}, so "
                           "it stays: --force includes it")  # fmt: skip
