"""A command's options as a frozen dataclass: each field holds its default, range, flag and help in one place."""

import argparse
from collections.abc import Callable, Sequence
from dataclasses import Field, field, fields
from typing import Any, TypeVar

Made = TypeVar("Made")


def option(
    default: Any, text: str, *, flag: str = "", read: Callable[[Any], Any] | None = None, **argument: Any
) -> Any:
    """Declare a field that is a flag.

    Args:
        default: of the field; if it is a number, the flag takes numbers of its type.
        text: the flag's help.
        flag: "" names it after the field.
        read: converts the flag's text, or list of texts if it may be repeated, to the field's value.
        argument: further arguments of `add_argument`; `choices` may be a function, for a table that gets rows later.
    """
    kind = {"type": type(default)} if type(default) in (int, float) else {}
    unread = default if read is None else [] if argument.get("action") == "append" else ""
    told = {"default": unread, "help": text} | kind | argument
    return field(default=default, metadata={"flag": flag, "read": read, "argument": told})


def borrowed(options: type, name: str) -> Any:
    """Copy the field of this name from another dataclass."""
    [lent] = [each for each in fields(options) if each.name == name]
    return field(default=lent.default, metadata=lent.metadata)


def parts_of(given: str | Sequence[str]) -> tuple[str, ...]:
    """Split one or several comma-separated texts."""
    text = given if isinstance(given, str) else ",".join(given)
    return tuple(part.strip() for part in text.split(",") if part.strip())


def add_options(parser: argparse.ArgumentParser, options: type, **defaults: Any) -> None:
    """Add the flags of a dataclass, in the order of its fields.

    Args:
        parser: receives them.
        options: a dataclass; a field with `add` in its metadata adds several flags, and its `make` combines them.
        defaults: overrides of the fields' defaults.
    """
    for each in fields(options):
        if "add" in each.metadata:
            each.metadata["add"](parser)
        elif each.metadata:
            told = _argument(each)
            told["default"] = defaults.get(each.name, told["default"])
            parser.add_argument(_flag(each), dest=each.name, **told)


def changed_flags(options: Any, defaults: Any) -> list[str]:
    """The flags of a dataclass's fields that differ from those of another one of its kind."""
    return [
        _flag(each)
        for each in fields(options)
        if "argument" in each.metadata and getattr(options, each.name) != getattr(defaults, each.name)
    ]


def _flag(each: "Field[Any]") -> str:
    flag: str = each.metadata["flag"] or f"--{each.name.replace('_', '-')}"
    return flag


def options_of(given: argparse.Namespace, options: type[Made]) -> Made:
    """Build the dataclass from parsed flags; fields without a flag keep their defaults."""
    return options(**{each.name: _value(given, each) for each in fields(options) if each.metadata})  # type: ignore[arg-type]


def _value(given: argparse.Namespace, each: "Field[Any]") -> Any:
    if "make" in each.metadata:
        return each.metadata["make"](given)
    value, read = getattr(given, each.name), each.metadata["read"]
    return value if read is None else read(value)


def choices_of(options: type) -> dict[str, tuple[str, ...]]:
    """The choices of each field that has any."""
    told = {each.name: _argument(each) for each in fields(options)}
    return {name: argument["choices"] for name, argument in told.items() if "choices" in argument}


def _argument(each: "Field[Any]") -> dict[str, Any]:
    told = dict(each.metadata.get("argument", {}))
    if callable(choices := told.get("choices")):
        told["choices"] = choices()
    return told
