"""Create what is not there yet, and find what a former start of the same command has created."""

from collections.abc import Callable, Mapping
from typing import Any

from botocore.exceptions import ClientError

from sagemaker_monai_aws.core.account import Account
from sagemaker_monai_aws.core.calls import Call
from sagemaker_monai_aws.core.command import Context, say
from sagemaker_monai_aws.core.errors import CommandError, code_of
from sagemaker_monai_aws.core.follow import KINDS, describe
from sagemaker_monai_aws.core.names import is_ours, name_of

ATTEMPTS = 50
UNSUCCESSFUL = frozenset({"Failed", "Stopped", "Stopping"})


def create_job(
    context: Context,
    command: str,
    kind: str,
    request_of: Callable[[str], Mapping[str, Any]],
    digested: Mapping[str, Any],
    *,
    again: bool,
) -> tuple[str, dict[str, Any] | None]:
    """Start a job, or find the one that was started with the same request.

    A job that failed or was stopped is not found but followed by another attempt, which has the same checkpoints.

    Args:
        context: of the command.
        command: whose lines these are; also the middle of the job's name.
        kind: of follow.KINDS.
        request_of: the whole request for a name.
        digested: what decides whether two starts are the same.
        again: start another attempt although one has completed.

    Returns:
        The job's name and, if it was there already, AWS's description of it.
    """
    account, options, row = context.account, context.options, KINDS[kind]
    for attempt in range(1, ATTEMPTS):
        name = name_of(options.project, command, digested, attempt, digits=row.digits, longest=row.longest)
        found = describe(account, kind, name)
        if found is None:
            call = Call("sagemaker", f"Create{KINDS[kind].noun}", request_of(name))
            context.after_interrupt = (
                f"{name} may have started: run the same command again to find it, or `make delete JOB={name}`"
            )
            try:
                account.send(call)
            except ClientError as error:
                if code_of(error) not in ("ResourceInUse", "ConflictException"):
                    raise
                found = describe(account, kind, name)  # somebody else was faster with the same request
            say(command, f"{'found' if found else 'started'} {name}")
            return name, found
        status = found[KINDS[kind].status]
        if status not in UNSUCCESSFUL and not (again and status in KINDS[kind].ended):
            say(command, f"found {name} ({status}): it was started with the same request")
            return name, found
    raise CommandError(f"{ATTEMPTS - 1} attempts at this job have failed: look at `make logs`, then change the request")


def ensure(account: Account, call: Call, operation: str, **request: Any) -> bool:
    """Create something that is named after its content, unless it is there; whether it was created.

    Args:
        account: where.
        call: the Create call.
        operation: that finds it, e.g. DescribeModel.
        **request: of that operation.
    """
    if account.read(call.service, operation, **request) is not None:
        return False
    try:
        account.send(call)
    except ClientError as error:
        # SageMaker has two ways to say that it is there already.
        if "already exist" not in str(error) and code_of(error) != "ResourceInUse":
            raise
        return False
    return True


def tags_of(account: Account, arn: str) -> list[dict[str, str]]:
    """The tags of something of SageMaker's, nothing where it is gone."""
    answer = account.read("sagemaker", "ListTags", ResourceArn=arn)
    return [] if answer is None else list(answer["Tags"])


def require_ours(account: Account, arn: str, project: str, *, force: bool) -> None:
    """Refuse what these commands have not made.

    Raises:
        CommandError: its tags do not name this project.
    """
    if not force and not is_ours(tags_of(account, arn), project):
        raise CommandError(f"{arn.rpartition('/')[2]} was not made by these commands for project {project!r}: it stays "
                           "as it is; --force takes it all the same")  # fmt: skip
