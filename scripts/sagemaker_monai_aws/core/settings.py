"""Where settings come from: a flag, else `config.env`, else the default; boto3 finds credentials and region.

`config.env` has one `NAME=value` per line, as in a shell, and no secrets. Names are those of COMMON, which all commands
share, or `COMMAND_OPTION` for one command's own, as TRAIN_INSTANCE_TYPE. An unknown name is an error, so that a typing
mistake cannot start a job other than the intended one.
"""

import argparse
import difflib
import os
import re
import shlex
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sagemaker_monai_aws.core.errors import CommandError

CONFIG_ENV = "config.env"
LINE = re.compile(r"\s*(?:export\s+)?([A-Za-z_][A-Za-z0-9_]*)=(.*)")
SECRET = re.compile(r"SECRET|PASSWORD|TOKEN|ACCESS_KEY")
BOOLEANS = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}


@dataclass(frozen=True)
class Option:
    """A row of COMMON: what a setting is for, and how its text becomes a value."""

    help: str
    read: Callable[[str], Any] = str
    default: Any = None


def _words(text: str) -> list[str]:
    return [word for word in re.split(r"[,\s]+", text) if word]


def _project(text: str) -> str:
    # What is allowed in the name of a bucket, a role, a repository and an endpoint alike.
    if not re.fullmatch(r"[a-z0-9](-?[a-z0-9]){2,31}", text):
        raise argparse.ArgumentTypeError(f"takes 3 to 32 lower-case letters, digits and single dashes, got {text!r}")
    return text


def _tags(text: str) -> dict[str, str]:
    pairs = [word.partition("=") for word in _words(text)]
    if any(not name or not equals for name, equals, _ in pairs):
        raise argparse.ArgumentTypeError(f"takes NAME=VALUE,NAME=VALUE, got {text!r}")
    return {name: value for name, _, value in pairs}


COMMON: dict[str, Option] = {
    "PROJECT": Option(
        "prefix of the name of everything created, and value of its tag `project`", _project, "sagemaker-monai"
    ),
    "REGION": Option("AWS region; default: as boto3 finds it"),
    "PROFILE": Option("profile of the AWS configuration; default: as boto3 finds it"),
    "ROLE": Option("execution role of the job, name or ARN; default: the one of `make infra` for this kind of job"),
    "BUCKET": Option("S3 bucket; default: PROJECT-ACCOUNT-REGION, which `make infra` creates"),
    "PREFIX": Option("folder in the bucket for everything of the project", str, "monai"),
    "REPOSITORY": Option("repository in ECR; default: PROJECT"),
    "IMAGE": Option("image: a tag of REPOSITORY, or a full address; default: of the checked-out commit, else newest"),
    "KMS_KEY": Option("KMS key, ARN or id, that encrypts volumes and results; default: AWS's own keys"),
    "SUBNETS": Option("subnets of a VPC for the job", _words, []),
    "SECURITY_GROUPS": Option("security groups of a VPC for the job", _words, []),
    "TAGS": Option("further tags, NAME=VALUE,...", _tags, {}),
}


def add_common(parser: argparse.ArgumentParser) -> None:
    """Add the options that every command has."""
    group = parser.add_argument_group("settings of all commands (also in config.env, as PROJECT=...)")
    for name, option in COMMON.items():
        group.add_argument(flag(name), type=option.read, default=option.default, help=option.help)
    group.add_argument("--config", type=Path, help=f"file of settings (default: {CONFIG_ENV}, if it exists)")


def flag(name: str) -> str:
    """KMS_KEY -> --kms-key."""
    return "--" + name.lower().replace("_", "-")


def read_config_env(path: Path) -> dict[str, str]:
    """The settings of a file, in its order.

    Raises:
        CommandError: a line is not NAME=value, is given twice, or looks like a secret.
    """
    settings: dict[str, str] = {}
    for number, line in enumerate(path.read_text(encoding="utf-8-sig").splitlines(), start=1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        match = LINE.fullmatch(line)
        try:
            words = shlex.split(match[2], comments=True) if match else []
        except ValueError as error:
            raise CommandError(f"{path.name}, line {number}: {error}: close the quote") from error
        if match is None or len(words) > 1:
            raise CommandError(f"{path.name}, line {number}: write NAME=value, with quotes around a value with spaces")
        name, value = match[1], words[0] if words else ""
        if SECRET.search(name):
            raise CommandError(f"{path.name}, line {number}: {name} looks like a secret: remove it, boto3 finds "
                               "credentials by itself")  # fmt: skip
        if name in settings:
            raise CommandError(f"{path.name}, line {number}: {name} is given twice: leave one out")
        settings[name] = value
    return settings


def parse(parser: argparse.ArgumentParser, argv: list[str], commands: Iterable[str]) -> argparse.Namespace:
    """Read the command line over the file over the defaults.

    Args:
        parser: with `add_common`; the last word of its `prog` is the command's name.
        argv: the words after the command's name.
        commands: names of all commands, whose own settings may be in the same file.

    Raises:
        CommandError: the file is missing or has a fault.
    """
    before = type(parser)(prog=parser.prog, add_help=False, allow_abbrev=False)
    before.add_argument("--config", type=Path)
    named = before.parse_known_args(argv)[0].config
    path = named or Path(os.environ.get("CONFIG_ENV") or CONFIG_ENV)
    if path.is_file():
        parser.set_defaults(**_defaults(parser, read_config_env(path), path.name, commands))
    elif named is not None:
        raise CommandError(f"there is no file {path}: leave --config out, or name one")
    return parser.parse_args(argv)


def _defaults(
    parser: argparse.ArgumentParser, settings: Mapping[str, str], file: str, commands: Iterable[str]
) -> dict[str, Any]:
    """The file's settings for this command, as the parser's values."""
    prefix = parser.prog.split()[-1].upper().replace("-", "_") + "_"
    others = tuple(name.upper().replace("-", "_") + "_" for name in commands)
    own = {prefix + action.dest.upper(): action for action in parser._actions if action.option_strings}
    known = {**{name: action for action in parser._actions for name in COMMON if flag(name) in action.option_strings},
             **own}  # fmt: skip
    defaults: dict[str, Any] = {}
    for name, text in settings.items():
        if name in known:
            defaults[known[name].dest] = _value(known[name], name, text, file)
        elif name.startswith(prefix) or not name.startswith(others):
            close = difflib.get_close_matches(name, known, n=1)
            raise CommandError(f"{file}: nothing reads {name}" + (f", did you mean {close[0]}?" if close else ""))
    return defaults


def _value(action: argparse.Action, name: str, text: str, file: str) -> Any:
    if action.nargs == 0 or isinstance(action, argparse.BooleanOptionalAction):
        if text.lower() not in BOOLEANS:
            raise CommandError(f"{file}: {name} is true or false, got {text!r}")
        return BOOLEANS[text.lower()]
    read = action.type if callable(action.type) else str
    try:
        values = [read(word) for word in shlex.split(text)] if action.nargs in ("*", "+") else read(text)
    except (ValueError, argparse.ArgumentTypeError) as error:
        raise CommandError(f"{file}: {name}: {error}") from error
    for value in values if isinstance(values, list) else [values]:
        if action.choices is not None and value not in action.choices:
            raise CommandError(f"{file}: {name} is one of {', '.join(map(str, action.choices))}, got {value!r}")
    return values
