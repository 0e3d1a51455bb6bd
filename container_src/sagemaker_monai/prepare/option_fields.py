"""Options of an importer as a frozen dataclass: a field has the default, range, flag and help in one place."""

import argparse
from dataclasses import field, fields
from typing import Any, TypeVar

from sagemaker_monai.errors import ConfigError

Made = TypeVar("Made")


def option(default: Any, text: str, **argument: Any) -> Any:
    """A field that is a flag of its name.

    Args:
        default: of the field and the flag; a number makes the flag take such numbers.
        text: help of the flag.
        argument: what else `add_argument` takes; `choices` are checked for callers without a command line too.
    """
    kind = {"type": type(default)} if isinstance(default, int | float) else {}
    return field(default=default, metadata={"help": text} | kind | argument)


def add_options(parser: argparse.ArgumentParser, options: type) -> None:
    """Add the flags of a dataclass, in the order of its fields; `add` of a field's metadata adds several."""
    for each in fields(options):
        if "add" in each.metadata:
            each.metadata["add"](parser)
        elif each.metadata:
            parser.add_argument(f"--{each.name.replace('_', '-')}", default=each.default, **each.metadata)


def options_of(given: argparse.Namespace, options: type[Made], **made: Any) -> Made:
    """The dataclass of what was given; `made` are the fields that are made of several flags."""
    names = [each.name for each in fields(options)]  # type: ignore[arg-type]
    return options(**{name: made[name] if name in made else getattr(given, name) for name in names})


def check_choices(options: Any) -> None:
    """Refuse values that are not among the choices of their field.

    Raises:
        ConfigError: with the choices.
    """
    for each in fields(options):
        value, allowed = getattr(options, each.name), each.metadata.get("choices")
        if allowed and value not in allowed:
            raise ConfigError(f"{each.name} must be {' or '.join(allowed)}, got {value!r}")
