"""The output of a labeling job, as images with their answers: the whole folder, its manifest, or one file.

The folder, as it is copied from S3, has the output manifest (manifests/output/), every annotator's answers
(annotations/worker-response/iteration-1/N/*.json, N the line of the manifest from 0), and the same in the form for a
consolidation Lambda (annotations/consolidated-annotation/consolidation-request/iteration-1/*.json). Annotators' answers
go before the job's own label. An annotator who answers twice counts once, with the last answer.

Source: Amazon SageMaker AI Developer Guide, "Labeling job output data" (output directories), "Post-annotation Lambda".
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sagemaker_monai.errors import DatasetError
from sagemaker_monai.messages.shortened import some_of
from sagemaker_monai.prepare.ground_truth.annotations import (
    MASKS,
    MULTILABEL_TYPES,
    TYPES,
    Answer,
    Names,
    read_custom,
    read_workers,
    type_of,
)
from sagemaker_monai.prepare.ground_truth.answers import MAX_DEPTH, parse_json
from sagemaker_monai.prepare.ground_truth.manifest import (
    MAX_REFERENCE_LENGTH,
    Item,
    choose_attributes,
    read_item,
    read_lines,
)
from sagemaker_monai.storage.files import children, plain_files

MAX_JSON_BYTES = 1 << 28  # of a consolidation request; a batch of them has some thousand images
MAX_FILES = 1_000_000
REQUESTS = "annotations/consolidated-annotation/consolidation-request"
RESPONSES = "annotations/worker-response"
_ITERATION = re.compile(r"iteration-(\d{1,6})")


@dataclass(frozen=True)
class Job:
    """What was read.

    Attributes:
        items: the images in the order of the manifest or file.
        names: class numbers, if the job has them, and other classes on offer.
        is_multilabel: the task allows several classes.
        superseded: number of answers that the same annotator replaced.
        has_masks: the answers are masks.
        annotators: names that are known beforehand, in the order of their numbers.
    """

    items: Sequence[Item]
    names: Names
    is_multilabel: bool
    superseded: int
    has_masks: bool = False
    annotators: tuple[str, ...] = ()


@dataclass(frozen=True)
class JobFiles:
    """The files of a job; `responses` with the number of the manifest's line."""

    manifest: Path | None
    requests: tuple[Path, ...] = ()
    responses: tuple[tuple[str, Path], ...] = ()

    def all(self) -> list[Path]:
        """All of them, in a fixed order."""
        return [*([self.manifest] if self.manifest else []), *self.requests, *(path for _, path in self.responses)]


def _iteration(path: Path) -> int:
    match = _ITERATION.fullmatch(path.name)
    return int(match[1]) if match else -1


def _iterations(folder: Path) -> list[Path]:
    """The folders iteration-1, iteration-2, ... by their numbers."""
    if not folder.is_dir():
        return []
    return sorted((path for path in children(folder) if path.is_dir() and _iteration(path) >= 0), key=_iteration)


def _is_file_with(path: Path, suffix: str) -> bool:
    return path.suffix.lower() == suffix and path.is_file()


def find_files(source: Path) -> JobFiles:
    """The files of a job in its output folder, or the one file that is given.

    Raises:
        DatasetError: there is none, or there are several candidates.
    """
    if source.is_file():
        with source.open("rb") as file:
            head = file.read(4096).removeprefix(b"\xef\xbb\xbf").lstrip()
        return JobFiles(None, (source,)) if head.startswith(b"[") else JobFiles(source)
    if not source.is_dir():
        raise DatasetError(f"{source.name} is neither a file nor a folder; name a manifest or a job's output folder")
    folders = [path for path in children(source) if path.is_dir()]
    if len(folders) == 1 and not (source / "annotations").is_dir() and (folders[0] / "manifests").is_dir():
        source = folders[0]  # in S3 the job's folder has the job's name
    inner = source / "manifests" / "output"
    place = inner if inner.is_dir() else source
    manifests = sorted(path for path in children(place) if _is_file_with(path, ".manifest"))
    if len(manifests) > 1:
        raise DatasetError(
            f"the folder has several manifests ({some_of([path.name for path in manifests])}); name the one to read"
        )
    requests = [
        path
        for iteration in _iterations(source / REQUESTS)
        for path in sorted(plain_files(iteration))
        if path.suffix == ".json"
    ]
    loose = [path for path in children(source) if _is_file_with(path, ".json")]
    responses = [
        (folder.name, path)
        for iteration in _iterations(source / RESPONSES)
        for folder in children(iteration)
        if folder.is_dir() and folder.name.isdecimal()
        for path in children(folder)
        if _is_file_with(path, ".json")
    ]
    files = JobFiles(manifests[0] if manifests else None, tuple(requests or loose), tuple(responses))
    if not files.manifest and not files.requests:
        raise DatasetError(
            f"{source.name} has no output manifest and no consolidation request; give the folder that has manifests/ "
            "and annotations/, or name a manifest"
        )
    if len(files.responses) > MAX_FILES:
        raise DatasetError(f"the folder has more than {MAX_FILES} worker responses; give the output of one job")
    return files


def _read_json(path: Path, what: str) -> Any:
    if path.stat().st_size > MAX_JSON_BYTES:
        raise DatasetError(f"{what} is larger than {MAX_JSON_BYTES >> 20} MiB; give the output of a labeling job")
    return parse_json(path.read_bytes(), what)


def _shown_image(value: Any, depth: int = 0) -> str | None:
    """The address that the DICOM task's page repeats in its answer (`imageurl`)."""
    if isinstance(value, str) and depth < MAX_DEPTH and "imageurl" in value:
        try:
            return _shown_image(parse_json(value, "an answer"), depth + 1)
        except DatasetError:
            return None
    if isinstance(value, Mapping) and depth < MAX_DEPTH:
        if isinstance(value.get("imageurl"), str):
            return str(value["imageurl"])
        return next((found for inner in value.values() if (found := _shown_image(inner, depth + 1))), None)
    if isinstance(value, list) and depth < MAX_DEPTH:
        return next((found for inner in value if (found := _shown_image(inner, depth + 1))), None)
    return None


def _reference(entry: Mapping[str, Any]) -> str | None:
    """The reference to its image in an entry of a consolidation request, if there is one."""
    data = entry.get("dataObject")
    if isinstance(data, Mapping):
        for key in ("s3Uri", "source-ref", "source", "content"):
            if isinstance(data.get(key), str) and data[key].strip():
                return str(data[key]).strip()
    return _shown_image(entry.get("annotations")) or _shown_image(entry.get("consolidatedAnnotation"))


def _entry_answers(entry: Mapping[str, Any], attribute: str | None, names: Names, path: Sequence[str]) -> list[Answer]:
    """The answers in an entry of a consolidation request, or of a Lambda's response."""
    if "annotations" in entry:
        return read_workers(entry["annotations"], names, path)
    verdict = entry.get("consolidatedAnnotation")
    content = verdict.get("content") if isinstance(verdict, Mapping) else None
    if not isinstance(content, Mapping):
        raise DatasetError("an entry has neither annotations nor consolidatedAnnotation; give a consolidation request")
    labels = [key for key in content if not str(key).endswith("-metadata")]
    if attribute is None and len(labels) != 1:
        raise DatasetError(f"an entry has several labels ({some_of(labels)}); choose one with --label-attribute")
    name = labels[0] if attribute is None else attribute
    metadata = content.get(f"{name}-metadata")
    if isinstance(metadata, Mapping) and type_of(metadata) == MASKS:
        return TYPES[MASKS](content.get(name), metadata, names, path)
    return read_custom(content.get(name), {}, names, path)


def _add_request(
    file: Path, items: dict[str, Item], attribute: str | None, names: Names, path: Sequence[str], *, has_manifest: bool
) -> None:
    entries = _read_json(file, "a consolidation request")
    if not isinstance(entries, list):
        raise DatasetError("a consolidation request must be a JSON list; give the files of the job's output")
    for position, entry in enumerate(entries):
        place = f"entry {position} of a consolidation request"
        if not isinstance(entry, Mapping):
            raise DatasetError(f"{place} is not a JSON object; download it again")
        number, reference = str(entry.get("datasetObjectId", position))[:40], _reference(entry)
        if has_manifest and number not in items:
            raise DatasetError(f"{place} is of an image that is not in the manifest; give the output of one job")
        if number not in items:
            if not reference or len(reference) > MAX_REFERENCE_LENGTH:
                raise DatasetError(f"{place} names no image; give the folder with the job's whole output")
            items[number] = Item(reference)
        if reference and reference != items[number].reference and _image_known(entry):
            raise DatasetError(f"{place} is of another image than line {number} of the manifest; give one job's output")
        try:
            items[number].answers += _entry_answers(entry, attribute, names, path)
        except DatasetError as error:
            raise DatasetError(f"{place}: {error}") from error


def _image_known(entry: Mapping[str, Any]) -> bool:
    """Whether the service itself names the image; the page may know it by another address."""
    data = entry.get("dataObject")
    return isinstance(data, Mapping) and isinstance(data.get("s3Uri"), str)


def keep_last_answers(item: Item) -> int:
    """Keep the last answer of each annotator, or else the job's own label; returns how many were replaced."""
    last: dict[str, Answer] = {}
    own = [answer for answer in item.answers if answer.annotator is not None]
    for answer in own:
        before = last.get(answer.annotator or "")
        if before is None or answer.submitted >= before.submitted:
            last[answer.annotator or ""] = answer
    if own:
        item.answers = list(last.values())
    distinct = {
        (answer.annotator, answer.content.classes, answer.content.mask and answer.content.mask.source) for answer in own
    }
    return len(distinct) - len(last)


def read_job(files: JobFiles, *, attribute: str | None = None, path: Sequence[str] = ()) -> Job:
    """Read the output of a job.

    Args:
        files: of `find_files`.
        attribute: the label attribute, or several of masks; None takes the only one.
        path: to the classes in an answer of a custom task; if empty, they are searched.

    Raises:
        DatasetError: with the number of the line or entry.
    """
    names = Names()
    items: dict[str, Item] = {}
    kind, attributes = "", tuple(filter(None, (attribute,)))
    if files.manifest is not None:
        lines = read_lines(files.manifest)
        attributes, kind = choose_attributes(lines, attribute)
        for position, (line_number, line) in enumerate(lines):
            items[str(position)] = read_item(line_number, line, attributes, names, path)
    # Several attributes are told to be the annotators; those of the last job, which the folder has, are not others.
    is_alone = len(attributes) > 1
    for file in () if is_alone else files.requests:
        _add_request(
            file, items, attributes[0] if attributes else None, names, path, has_manifest=files.manifest is not None
        )
    for number, file in () if is_alone else files.responses:
        content = _read_json(file, "a worker response")
        item = items.get(str(int(number)))
        if item is None:
            raise DatasetError(
                f"worker response {number} is of an image that is not in the manifest; give one job's output"
            )
        try:
            item.answers += read_workers(content.get("answers") if isinstance(content, dict) else None, names, path)
        except DatasetError as error:
            raise DatasetError(f"worker response {number}: {error}") from error
    superseded = sum(keep_last_answers(item) for item in items.values())
    return Job(
        list(items.values()), names, kind in MULTILABEL_TYPES, superseded, has_masks=_have_masks(items.values()),
        annotators=attributes if len(attributes) > 1 else (),
    )  # fmt: skip


def _have_masks(items: Iterable[Item]) -> bool:
    """Whether the answers are masks; a DatasetError if only some are."""
    kinds = {answer.content.mask is not None for item in items for answer in item.answers}
    if len(kinds) > 1:
        raise DatasetError("some answers are masks and others are classes; give the output of one job")
    return kinds == {True}
