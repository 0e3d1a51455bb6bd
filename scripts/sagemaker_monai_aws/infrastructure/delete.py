"""Delete what costs by the hour (`make delete ENDPOINT=name`), and what only exists for it.

What is deleted is listed first. Things that other commands or people have made are refused; so is a model that another
endpoint serves. Nothing that was made with work goes: data, artifacts, answers, images, registered models and logs
stay.

Order: what costs goes first, then what it leads to, and the configuration last, for from it the rest is found. So a run
that was stopped anywhere can be repeated, and finds what is left; nothing left is success.
"""

import argparse
import sys
from collections.abc import Callable

from botocore.exceptions import ClientError

from sagemaker_monai_aws.core import command
from sagemaker_monai_aws.core.account import Account
from sagemaker_monai_aws.core.command import Context, say
from sagemaker_monai_aws.core.errors import CommandError, code_of, is_missing
from sagemaker_monai_aws.core.places import place
from sagemaker_monai_aws.infrastructure.removal import Finder, Step, once

NAME = "delete"


def add_options(parser: argparse.ArgumentParser) -> None:
    """Options of the command."""
    parser.add_argument("--endpoint", help="with its scaling, alarms, schedules, configurations and models")
    parser.add_argument("--job", help="stop it, and give its warm pool back")
    parser.add_argument("--model", help="unless an endpoint serves it")
    parser.add_argument("--pipeline", help="with its executions that have not ended")
    parser.add_argument("--all", action="store_true", help="all of these that the project has")
    parser.add_argument("--force", action="store_true", help="also what these commands have not made")
    parser.add_argument("--yes", action="store_true", help="do not ask")


def steps_of(finder: Finder, options: argparse.Namespace) -> list[Step]:
    """What is to be done for what was asked.

    Raises:
        CommandError: nothing was asked for, or it may not go.
    """
    rows: dict[str, Callable[[str], list[Step]]] = {
        "endpoint": finder.endpoint,
        "job": finder.job,
        "model": finder.model,
        "pipeline": finder.pipeline,
    }
    asked = [(find, getattr(options, name)) for name, find in rows.items() if getattr(options, name)]
    if options.all == bool(asked):
        raise CommandError(
            "say what to delete: ENDPOINT=, JOB=, MODEL= or PIPELINE=, or else --all; `make status` lists it"
        )
    return finder.everything() if options.all else once(step for find, name in asked for step in find(name))


def work(context: Context) -> int:
    """List what goes, ask, and do it."""
    account, options = context.account, context.options
    finder = Finder(account, options.project, force=options.force)
    steps = steps_of(finder, options)
    stays = (f"data, artifacts and answers below {place(account, options)}, images in ECR, registered models, and logs "
             "in CloudWatch stay")  # fmt: skip
    if options.dry_run:
        return command.show_plan(context, NAME, [step.call for step in steps], [f"{len(steps)} calls; {stays}"])
    if not steps:
        say(NAME, f"nothing is left to delete; {stays}")
        return 0
    width = max(len(step.what) for step in steps)
    for step in steps:
        print(f"{step.verb:<6}  {step.what:<{width}}  {step.name}")
    _ask(options, len(steps))
    context.after_interrupt = "the same command deletes the rest"
    for step in steps:
        _do(account, step)
    say(NAME, f"done; {stays}")
    return 0


def _ask(options: argparse.Namespace, count: int) -> None:
    if options.yes:
        return
    if not sys.stdin.isatty():
        raise CommandError("nothing was deleted: there is no terminal for the question, add --yes")
    print(f"{count} calls; type yes to make them: ", end="", file=sys.stderr, flush=True)
    if sys.stdin.readline().strip().lower() != "yes":
        raise CommandError("nothing was deleted")


def _do(account: Account, step: Step) -> None:
    try:
        account.send(step.call)
    except ClientError as error:
        # It was deleted or ended in the meantime.
        has_ended = step.verb == "stop" and code_of(error) in ("ValidationException", "ResourceNotFound")
        if not is_missing(error) and not has_ended:
            raise
