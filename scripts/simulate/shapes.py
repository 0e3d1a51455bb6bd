"""Requests and answers against botocore's model of SageMaker: types, required members, enumerations, patterns, bounds.

botocore itself checks less before it sends (no enumerations, patterns and maxima), AWS all of it; the messages are
those of AWS.
"""

import re
from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any

import botocore.session

from simulate.faults import ApiError, invalid

# Java's classes that Python lacks; inside square brackets in all of these patterns.
JAVA_CLASSES = {
    r"\p{L}": r"\w", r"\p{N}": r"\d", r"\p{Z}": r"\s", r"\p{Alnum}": "a-zA-Z0-9",
    r"\uD800\uDC00-\uDBFF\uDFFF": r"\U00010000-\U0010ffff",
}  # fmt: skip
TYPES: dict[str, tuple[type, ...]] = {
    "structure": (dict,), "map": (dict,), "list": (list,), "string": (str,), "blob": (str,), "boolean": (bool,),
    "integer": (int,), "long": (int,), "float": (int, float), "double": (int, float), "timestamp": (int, float),
}  # fmt: skip


@cache
def service() -> Any:
    """botocore's model of the control plane."""
    return botocore.session.Session().get_service_model("sagemaker")


def check(operation: str, request: Mapping[str, Any]) -> None:
    """Compare a request with the operation's input.

    Raises:
        ApiError: SerializationException for a wrong type, ValidationException with all other faults at once.
    """
    shape = service().operation_model(operation).input_shape
    faults = list(_faults(shape, request, ""))
    if faults:
        errors = f"{len(faults)} validation error{'s' if len(faults) > 1 else ''} detected"
        raise invalid(f"{errors}: {'; '.join(faults)}")


def _faults(shape: Any, value: Any, path: str) -> Iterator[str]:
    allowed: Any = TYPES[shape.type_name]
    if not isinstance(value, allowed) or (isinstance(value, bool) and bool not in allowed):
        kind = type(value).__name__
        raise ApiError("SerializationException", f"{path or 'the request'}: {kind} can not be converted to "
                       f"{shape.type_name}")  # fmt: skip
    for constraint in _constraints(shape, value):
        shown = str(value)[:200]
        yield f"Value '{shown}' at '{path}' failed to satisfy constraint: Member must {constraint}"
    if shape.type_name == "structure":
        for name in shape.required_members:
            if name not in value:
                yield f"Value null at '{_join(path, name)}' failed to satisfy constraint: Member must not be null"
        for name, member in shape.members.items():
            if name in value:
                yield from _faults(member, value[name], _join(path, name))
    elif shape.type_name == "list":
        for index, item in enumerate(value, 1):
            yield from _faults(shape.member, item, f"{path}.{index}.member")
    elif shape.type_name == "map":
        for key, item in value.items():
            yield from _faults(shape.key, key, f"{path}.key")
            yield from _faults(shape.value, item, f"{path}.{key}.member")


def _join(path: str, name: str) -> str:
    camel = name[0].lower() + name[1:]
    return f"{path}.{camel}" if path else camel


def _constraints(shape: Any, value: Any) -> Iterator[str]:
    rules = shape.metadata
    has_length = isinstance(value, str | list | dict)
    size, what = (len(value), "have length") if has_length else (value, "have value")
    if "min" in rules and size < rules["min"]:
        yield f"{what} greater than or equal to {rules['min']}"
    if "max" in rules and size > rules["max"]:
        yield f"{what} less than or equal to {rules['max']}"
    elif "enum" in rules and value not in rules["enum"]:
        yield f"satisfy enum value set: [{', '.join(rules['enum'])}]"
    elif "pattern" in rules and isinstance(value, str) and not pattern(rules["pattern"]).fullmatch(value):
        yield f"satisfy regular expression pattern: {rules['pattern']}"


@cache
def pattern(text: str) -> re.Pattern[str]:
    """A pattern of the model, which is Java's, for the whole of a text."""
    for java, python in JAVA_CLASSES.items():
        text = text.replace(java, python)
    return re.compile(text)


def answer(operation: str, value: Mapping[str, Any]) -> dict[str, Any]:
    """What of a value the operation's output has; timestamps are seconds since 1970 already."""
    shape = service().operation_model(operation).output_shape
    picked: dict[str, Any] = pick(shape, value) if shape else {}
    return picked


def pick(shape: Any, value: Any) -> Any:
    """A value without members that its shape does not know."""
    if shape.type_name == "structure":
        return {name: pick(member, value[name]) for name, member in shape.members.items()
                if value.get(name) is not None}  # fmt: skip
    if shape.type_name == "list":
        return [pick(shape.member, item) for item in value]
    return value
