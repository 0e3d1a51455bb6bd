"""The frame of every command: options, dry run, errors in one line, and what Ctrl-C leaves.

Exit codes: 0 done; 1 the command ran and its outcome is a failure (a job that failed, a wrong prediction); 2 an error
that the caller can correct; 130 Ctrl-C.
"""

import argparse
import json
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import Any, NoReturn

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
        options: command line over config.env over defaults.
        after_interrupt: what Ctrl-C leaves behind, and how to resume or remove it, in one line; commands update it.
    """

    account: Account
    options: argparse.Namespace
    after_interrupt: str = "nothing was created"


class Parser(argparse.ArgumentParser):
    """Says what is wrong with the command line as every other error is said: in one line with the remedy."""

    def error(self, message: str) -> NoReturn:
        """Refuse the command line.

        Raises:
            CommandError: always.
        """
        raise CommandError(f"{message}; `{self.prog} --help` lists the options")


def parser_of(name: str, module: ModuleType) -> Parser:
    """The parser of a command: its own options and those of all."""
    parser = Parser(prog=f"sagemaker-monai {name}", description=module.__doc__,
                    formatter_class=argparse.RawDescriptionHelpFormatter)  # fmt: skip
    module.add_options(parser)
    if COMMANDS[name].has_dry_run:
        parser.add_argument("--dry-run", action=argparse.BooleanOptionalAction, default=False,
                            help="print the requests as JSON and the cost by the hour; changes nothing")  # fmt: skip
    settings.add_common(parser)
    return parser


def run(name: str, module: ModuleType, argv: Sequence[str]) -> int:
    """Run a command of COMMANDS; returns the exit code."""
    context = None
    try:
        options = settings.parse(parser_of(name, module), list(argv), COMMANDS)
        context = Context(Account(options), options)
        return int(module.work(context))
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


def say(name: str, text: str) -> None:
    """Print a line for people on standard error; standard output is for results."""
    print(f"{name}: {text}", file=sys.stderr, flush=True)


def show_plan(context: Context, name: str, calls: list[Call], costs: Sequence[str]) -> int:
    """Print the exact requests on standard output and their cost on standard error, for `--dry-run`."""
    for call in calls:
        check(call)
    print(as_text(calls))
    if not context.account.is_known:
        say(name, "no credentials: the account's number and everything looked up in it are placeholders")
    for line in costs:
        say(name, line)
    return 0


def result(value: Mapping[str, Any]) -> None:
    """Print a command's result for programs: one JSON object on standard output."""
    print(json.dumps(value, indent=2, default=str))


def pair(text: str) -> tuple[str, str]:
    """NAME=VALUE of an option, as argparse's `type`."""
    name, equals, value = text.partition("=")
    if not name or not equals:
        raise argparse.ArgumentTypeError(f"takes NAME=VALUE, got {text!r}")
    return name, value
