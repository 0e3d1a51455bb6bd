"""Options of a command as a frozen dataclass: a field has the default, range, flag and help in one place."""

import argparse
from collections.abc import Callable, Sequence
from dataclasses import Field, field, fields
from typing import Any, TypeVar

Made = TypeVar("Made")


def option(
    default: Any, text: str, *, flag: str = "", read: Callable[[Any], Any] | None = None, **argument: Any
) -> Any:
    """A field that is a flag.

    Args:
        default: of the field; a number makes the flag take such numbers.
        text: help of the flag.
        flag: "" names it like the field.
        read: makes the field's value of the flag's: of a text, or of a list of texts where the flag may be repeated.
        argument: what else `add_argument` takes; `choices` may be a function, of a table that gets rows later.
    """
    kind = {"type": type(default)} if type(default) in (int, float) else {}
    unread = default if read is None else [] if argument.get("action") == "append" else ""
    told = {"default": unread, "help": text} | kind | argument
    return field(default=default, metadata={"flag": flag, "read": read, "argument": told})


def borrowed(options: type, name: str) -> Any:
    """A field like the one of this name in another dataclass."""
    [lent] = [each for each in fields(options) if each.name == name]
    return field(default=lent.default, metadata=lent.metadata)


def parts_of(given: str | Sequence[str]) -> tuple[str, ...]:
    """The parts of a text with commas between them, or of several."""
    text = given if isinstance(given, str) else ",".join(given)
    return tuple(part.strip() for part in text.split(",") if part.strip())


def add_options(parser: argparse.ArgumentParser, options: type, **defaults: Any) -> None:
    """Add the flags of a dataclass, in the order of its fields.

    Args:
        parser: gets them.
        options: a dataclass; `add` of a field's metadata adds several flags, of which `make` makes the field.
        defaults: of flags, where they are not those of the fields.
    """
    for each in fields(options):
        if "add" in each.metadata:
            each.metadata["add"](parser)
        elif each.metadata:
            told = _argument(each)
            told["default"] = defaults.get(each.name, told["default"])
            flag = each.metadata["flag"] or f"--{each.name.replace('_', '-')}"
            parser.add_argument(flag, dest=each.name, **told)


def options_of(given: argparse.Namespace, options: type[Made]) -> Made:
    """The dataclass of what was given; fields that are no flags have their defaults."""
    return options(**{each.name: _value(given, each) for each in fields(options) if each.metadata})  # type: ignore[arg-type]


def _value(given: argparse.Namespace, each: "Field[Any]") -> Any:
    if "make" in each.metadata:
        return each.metadata["make"](given)
    value, read = getattr(given, each.name), each.metadata["read"]
    return value if read is None else read(value)


def choices_of(options: type) -> dict[str, tuple[str, ...]]:
    """The choices of those fields that have some."""
    told = {each.name: _argument(each) for each in fields(options)}
    return {name: argument["choices"] for name, argument in told.items() if "choices" in argument}


def _argument(each: "Field[Any]") -> dict[str, Any]:
    told = dict(each.metadata.get("argument", {}))
    if callable(choices := told.get("choices")):
        told["choices"] = choices()
    return told
