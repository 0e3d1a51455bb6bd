"""The output manifest of a Ground Truth job: one JSON object a line, and what its label attribute says of each image.

A line names an image (`source-ref`, or `source` if the page fetched it in another way). For each job it has a label
attribute `X` with `X-metadata`; chained jobs have several. The form of a label depends on the task type in the
metadata: see `annotations`. Nothing that a line names is fetched.

Source: Amazon SageMaker AI Developer Guide, "Labeling job output data".
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from sagemaker_monai.errors import DatasetError
from sagemaker_monai.messages.shortened import some_of
from sagemaker_monai.prepare.ground_truth.annotations import MASKS, TYPES, VERIFICATION, Answer, Names, type_of
from sagemaker_monai.prepare.ground_truth.answers import parse_json

MAX_LINE_BYTES = 1 << 23  # of a line; the service allows an input line 100,000 characters
MAX_LINES = 1_000_000
MAX_REFERENCE_LENGTH = 2048  # of an object's name S3 allows 1,024 bytes
METADATA = "-metadata"


@dataclass
class Item:
    """An image of the job: its reference, its answers, and other text and numbers of its line."""

    reference: str
    answers: list[Answer] = field(default_factory=list)
    columns: dict[str, str | float] = field(default_factory=dict)
    failure: str | None = None
    confidence: float | None = None


def read_lines(path: Path) -> list[tuple[int, dict[str, Any]]]:
    """The objects of a manifest with the numbers of their lines, from 1; empty lines are left out.

    Raises:
        DatasetError: a line is not a JSON object, or the manifest is too large.
    """
    lines: list[tuple[int, dict[str, Any]]] = []
    with path.open("rb") as file:
        for number in range(1, MAX_LINES + 2):
            line = file.readline(MAX_LINE_BYTES + 1)
            if not line:
                break
            if len(line) > MAX_LINE_BYTES or number > MAX_LINES:
                raise DatasetError(
                    f"the manifest has more than {MAX_LINES} lines or a line of more than {MAX_LINE_BYTES >> 20} MiB; "
                    "give the output manifest of a labeling job"
                )
            if text := line.removeprefix(b"\xef\xbb\xbf").strip():
                content = parse_json(text, f"line {number} of the manifest")
                if not isinstance(content, dict):
                    raise DatasetError(f"line {number} of the manifest is not a JSON object; download it again")
                lines.append((number, content))
    return lines


def choose_attributes(lines: Sequence[tuple[int, Mapping[str, Any]]], asked: str | None) -> tuple[tuple[str, ...], str]:
    """The label attributes to read, and their task type.

    Args:
        lines: the manifest.
        asked: a name, or several of masks, separated by commas, as the answers of several annotators; None takes the
            only one that is not a verification of other labels.

    Raises:
        DatasetError: there is none or several, its type differs between lines, or it cannot be read.
    """
    types: dict[str, set[str]] = {}
    for _, line in lines:
        for key, metadata in line.items():
            if key.endswith(METADATA) and isinstance(metadata, Mapping):
                kinds = types.setdefault(key.removesuffix(METADATA), set())
                if "type" in metadata or "failure-reason" not in metadata:  # a failed line may have nothing else
                    kinds.add(type_of(metadata))
    labels = sorted(name for name, kinds in types.items() if kinds != {VERIFICATION})
    if asked is None and len(labels) != 1:
        several = ", or several of masks as a,b" if any(MASKS in types[name] for name in labels) else ""
        choose = f" ({some_of(labels)}); choose one with --label-attribute{several}"
        raise DatasetError(
            f"the manifest has {'several label attributes' if labels else 'no label attribute with its -metadata'}"
            f"{choose if labels else '; give an output manifest'}"
        )
    names = tuple(labels if asked is None else dict.fromkeys(map(str.strip, asked.split(","))))
    kinds = {_kind_of(name, types) for name in names}
    if len(names) > 1 and kinds != {MASKS}:
        raise DatasetError(
            f"several label attributes ({some_of(names)}) are read together only if all of them are masks; choose one "
            "with --label-attribute"
        )
    return names, kinds.pop()


def _kind_of(name: str, types: Mapping[str, set[str]]) -> str:
    """The task type of a label attribute."""
    if name not in types:
        raise DatasetError(f"the manifest has no label attribute {some_of([name])}; it has {some_of(sorted(types))}")
    if len(types[name]) > 1:
        raise DatasetError(
            f"{some_of([name])} has several task types ({some_of(sorted(types[name]))}); split the manifest"
        )
    kind = next(iter(types[name]), "groundtruth/custom")
    if kind not in TYPES:
        raise DatasetError(
            f"{some_of([name])} is a label of type {some_of([kind])}, which gives no class to an image; supported are "
            + ", ".join(TYPES)
        )
    return kind


def reference_of(line: Mapping[str, Any], place: str) -> str:
    """The reference to its image that a line has; a DatasetError if there is none."""
    reference = line.get("source-ref", line.get("source"))
    if not isinstance(reference, str) or not reference.strip() or len(reference) > MAX_REFERENCE_LENGTH:
        raise DatasetError(f"{place} names no image by source-ref or source; correct the manifest")
    return reference.strip()


def _columns(line: Mapping[str, Any]) -> dict[str, str | float]:
    """Text and numbers of the input manifest beside the image."""
    return {
        key: value
        for key, value in line.items()
        if key not in ("source-ref", "source", "image", "label", "group", "rois")
        and f"{key}{METADATA}" not in line
        and f"{key.removesuffix('-ref')}{METADATA}" not in line
        and (isinstance(value, str) or (isinstance(value, int | float) and not isinstance(value, bool)))
        and not (isinstance(value, float) and not math.isfinite(value))  # 1e999
    }


def read_item(
    number: int, line: Mapping[str, Any], attributes: Sequence[str], names: Names, path: Sequence[str]
) -> Item:
    """The image of one line; a DatasetError has the number of the line. Each of several attributes is an annotator."""
    item = Item(reference_of(line, f"line {number} of the manifest"), columns=_columns(line))
    for attribute in attributes:
        answers = _read_label(number, line, attribute, item, names, path)
        if len(attributes) > 1:
            answers = [replace(answer, annotator=answer.annotator or attribute) for answer in answers]
        item.answers += answers
    return item


def _read_label(
    number: int, line: Mapping[str, Any], attribute: str, item: Item, names: Names, path: Sequence[str]
) -> list[Answer]:
    """The answers of one attribute; changes failure and confidence of the item."""
    metadata = line.get(f"{attribute}{METADATA}")
    metadata = metadata if isinstance(metadata, Mapping) else {}
    failure = metadata.get("failure-reason", line.get("failure-reason"))
    if failure is not None:
        item.failure = " ".join(str(failure)[:200].split())
        return []
    confidence = metadata.get("confidence")
    if isinstance(confidence, int | float) and not isinstance(confidence, bool) and 0 <= confidence <= 1:
        item.confidence = float(confidence)
    # Of a mask, the attribute is called X-ref; its metadata X-ref-metadata, or X-metadata in manifests of other tools.
    key = next((key for key in (attribute, f"{attribute}-ref") if key in line), None)
    if key is None:
        return []
    try:
        return TYPES[type_of(metadata)](line[key], metadata, names, path)
    except DatasetError as error:
        raise DatasetError(f"line {number} of the manifest: {error}") from error
