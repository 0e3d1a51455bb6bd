"""Records of a batch transform: split, filtered, joined with their answers and assembled.

Source: "Associate Prediction Results with Input Records" and the documentation of DataProcessing and TransformInput in
botocore's model. JSONPath is what that page lists: `$`, `$.name`, `$['a','b']`, `$[2]`, `$[1:]`, `$[0,5:]`.
"""

import csv
import io
import json
import re
from collections.abc import Iterator, Sequence
from typing import Any

from simulate.faults import JobError

STEP = re.compile(r"\.([A-Za-z_][\w-]*)|\[((?:'[^']*'(?:\s*,\s*'[^']*')*)|(?:[-\d:]+(?:\s*,\s*[-\d:]+)*))\]")
FORMATS = ("text/csv", "application/json", "application/jsonlines")


def steps(path: str) -> list[list[str] | list[slice | int]]:
    """A JSONPath as the keys or the places that each step takes.

    Raises:
        ValueError: it is none that batch transform knows.
    """
    if not path.startswith("$"):
        raise ValueError(f"{path!r} does not begin with $")
    found: list[list[str] | list[slice | int]] = []
    position = 1
    while position < len(path):
        match = STEP.match(path, position)
        if match is None:
            raise ValueError(f"{path!r} cannot be read at {path[position:]!r}")
        position = match.end()
        name, inside = match.groups()
        if name is not None:
            found.append([name])
        elif inside.startswith("'"):
            found.append(re.findall(r"'([^']*)'", inside))
        else:
            found.append([_place(part.strip()) for part in inside.split(",")])
    return found


def _place(text: str) -> slice | int:
    if ":" not in text:
        return int(text)
    low, _, high = text.partition(":")
    return slice(int(low) if low else None, int(high) if high else None)


def select(path: str, value: Any) -> Any:
    """The part of a value that a JSONPath names.

    Raises:
        JobError: there is no such part.
    """
    try:
        for step in steps(path):
            if all(isinstance(key, str) for key in step):
                value = {key: value[key] for key in step} if len(step) > 1 else value[step[0]]
            elif len(step) == 1 and isinstance(step[0], int):
                value = value[step[0]]
            else:
                value = [item for key in step for item in (value[key] if isinstance(key, slice) else [value[key]])]
    except (KeyError, IndexError, TypeError) as error:
        raise JobError(f"ClientError: {path} does not fit a record of the data set") from error
    return value


def records(body: bytes, split_type: str) -> list[bytes]:
    """The records of an object, without their line ends."""
    return [line for line in body.splitlines() if line] if split_type == "Line" else [body]


def batches(found: Sequence[bytes], *, is_single: bool, split_type: str, payload_bytes: int) -> Iterator[list[bytes]]:
    """Records that go together into one request.

    Raises:
        JobError: a record alone is too large.
    """
    batch: list[bytes] = []
    size = 0
    for record in found:
        length = len(record) + (split_type == "Line")
        if length > payload_bytes:
            raise JobError(f"ClientError: a record of {length} bytes is larger than MaxPayloadInMB")
        if batch and (is_single or split_type == "None" or size + length > payload_bytes):
            yield batch
            batch, size = [], 0
        batch.append(record)
        size += length
    if batch:
        yield batch


def parse(text: bytes, kind: str) -> Any:
    """A record as values.

    Raises:
        JobError: it is not of its kind.
    """
    try:
        if kind == "text/csv":
            return next(csv.reader(io.StringIO(text.decode())), [])
        return json.loads(text)
    except (ValueError, csv.Error) as error:
        raise JobError(f"ClientError: a record is not {kind}: {error}") from error


def render(value: Any, kind: str) -> bytes:
    """Values as a record."""
    if kind != "text/csv":
        return json.dumps(value).encode()
    line = io.StringIO()
    csv.writer(line, lineterminator="").writerow(value if isinstance(value, list) else [value])
    return line.getvalue().encode()


def filtered(record: bytes, path: str, kind: str) -> bytes:
    """What of a record the model sees."""
    return record if path == "$" else render(select(path, parse(record, kind)), kind)


def joined(record: bytes, answer: bytes, kind: str, *, is_joined: bool, path: str) -> bytes:
    """What of a record and its answer is written.

    A JSON object gets the answer as SageMakerOutput; other JSON becomes SageMakerInput of a new object; to a CSV row
    the answer's columns are added.
    """
    if not is_joined and path == "$":
        return answer
    value = parse(answer, kind)
    if is_joined:
        given = parse(record, kind)
        if kind == "text/csv":
            value = given + value
        elif isinstance(given, dict):
            value = {**given, "SageMakerOutput": value}
        else:
            value = {"SageMakerInput": given, "SageMakerOutput": value}
    return render(select(path, value), kind)
