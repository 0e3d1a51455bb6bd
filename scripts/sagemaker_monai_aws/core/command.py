"""The frame of every command: options, dry run, errors in one line, and what Ctrl-C leaves.

Exit codes: 0 done, 1 what was asked for was tried and failed (a job that failed, a prediction that was wrong), 2 what
what the caller can correct, 130 Ctrl-C.
"""

import argparse
import json
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

from sagemaker_monai_aws.commands import COMMANDS
from sagemaker_monai_aws.core import settings
from sagemaker_monai_aws.core.account import Account
from sagemaker_monai_aws.core.calls import Call, as_text, check
from sagemaker_monai_aws.core.errors import CommandError, UnfinishedError, explain


@dataclass
class Context:
    """What a command works with.

    Attributes:
        account: clients of the account; they cannot write in a dry run.
        options: the command line over config.env over the defaults.
        after_interrupt: what Ctrl-C leaves and how to go on or remove it, one line; a command sets it as it goes.
    """

    account: Account
    options: argparse.Namespace
    after_interrupt: str = "nothing was created"


Work = Callable[[Context], int]


def run(
    name: str,
    description: str,
    add_options: Callable[[argparse.ArgumentParser], None],
    work: Work,
    argv: Sequence[str] | None = None,
) -> int:
    """Run a command; returns the exit code."""
    parser = argparse.ArgumentParser(prog=f"sagemaker-monai {name}", description=description,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)  # fmt: skip
    add_options(parser)
    settings.add_common(parser)
    context = None
    try:
        options = settings.parse(parser, None if argv is None else list(argv), COMMANDS)
        context = Context(Account(options), options)
        return work(context)
    except UnfinishedError as error:
        say(name, explain(error))
        return 1
    except (CommandError, BotoCoreError, ClientError) as error:
        say(name, explain(error))
        if (
            context is not None
            and isinstance(error, (BotoCoreError, ClientError))
            and context.after_interrupt != Context.after_interrupt
        ):
            say(name, context.after_interrupt)
        return 2
    except BrokenPipeError:  # the reader of the output has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except KeyboardInterrupt:
        say(name, f"stopped; {context.after_interrupt if context else Context.after_interrupt}")
        return 130


def add_dry_run(parser: argparse.ArgumentParser) -> None:
    """For what creates or changes something."""
    parser.add_argument("--dry-run", action=argparse.BooleanOptionalAction, default=False,
                        help="print the requests as JSON and the cost by the hour; changes nothing")  # fmt: skip


def say(name: str, text: str) -> None:
    """A line for people; results go to standard output, everything else here."""
    print(f"{name}: {text}", file=sys.stderr, flush=True)


def show_plan(context: Context, name: str, calls: list[Call], costs: Sequence[str]) -> int:
    """What `--dry-run` prints: the exact requests on standard output, what they cost beside it."""
    for call in calls:
        check(call)
    print(as_text(calls))
    if not context.account.is_known:
        say(name, "nobody is logged in: the account's number, and what would be looked up in it, are placeholders")
    for line in costs:
        say(name, line)
    return 0


def result(value: Mapping[str, Any]) -> None:
    """The result of a command, for programs: one JSON object on standard output."""
    print(json.dumps(value, indent=2, default=str))


def pair(text: str) -> tuple[str, str]:
    """NAME=VALUE of an option, as argparse's `type`."""
    name, equals, value = text.partition("=")
    if not name or not equals:
        raise argparse.ArgumentTypeError(f"takes NAME=VALUE, got {text!r}")
    return name, value
