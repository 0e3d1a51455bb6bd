"""Images posted to a server on this machine (`make predict-local`); standard library only.

A folder of DICOM files is as many images as files, or with `--series` one: its files go as a zip. Answers are shown as
a table or as JSON; with `--save` each is written into a file, DICOM reports as .dcm.
"""

import argparse
import http.client
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sagemaker_monai.tasks.row import TaskRow
from sagemaker_monai_aws.client.content_types import (
    FOLDER_MARK,
    KNOWN,
    content_of,
    files_below,
    type_of_file,
    with_series,
)
from sagemaker_monai_aws.client.saving import SavingError, save_parts
from sagemaker_monai_aws.client.tasks import Prediction, cells, task_of

JSON = "application/json"
NO_CLASS = "-"  # nothing was found, of several labels


class LocalError(Exception):
    """What the caller can correct; the message says how."""


@dataclass(frozen=True)
class Image:
    """What is posted: a file, or the folder of a series; `name` is below the folder that was asked for."""

    path: Path
    name: str
    content_type: str


def add_options(parser: argparse.ArgumentParser) -> None:
    """Options of `predict`."""
    add = parser.add_argument
    add("pictures", type=Path, nargs="+", help="files, or folders of them: pictures, DICOM, volumes, archives")
    add("--port", type=int, default=8080, help="of the server (default: %(default)s)")
    add("--series", action="store_true", help="the DICOM files of each folder are one image, a series: one request")
    add(
        "--accept",
        default=JSON,
        help="type of the answers; application/dicom: reports, SEG; application/x-nifti: masks (default: %(default)s)",
    )
    add("--save", type=Path, metavar="FOLDER", help="write every answer into a file")
    add("--json", action="store_true", help="print the answers as they came")


def predict(options: argparse.Namespace) -> int:
    """Post every image; 0 when all were answered."""
    answers = [
        (image, *post(image, options.port, options.accept))
        for image in find_images(options.pictures, by_series=options.series)
    ]
    shown = [
        (image, _shown(image, status, content_type, body, options)) for image, status, content_type, body in answers
    ]
    if options.json:
        print(json.dumps([{"picture": str(image.path), **answer} for image, answer in shown], indent=2))
    else:
        print(as_table([(image.name, answer) for image, answer in shown]))
    return 0 if all(status == 200 for _, status, _, _ in answers) else 1


def find_images(paths: Sequence[Path], *, by_series: bool) -> list[Image]:
    """The files named, and those of known types in the folders named; with `by_series` folders of DICOM files whole.

    Raises:
        LocalError: nothing is found, or a file cannot be read.
    """
    images: list[Image] = []
    for path in paths:
        is_folder = path.is_dir()
        files = files_below(path) if is_folder else [path] if path.is_file() else []
        try:
            typed = with_series(files) if by_series and is_folder else ((file, type_of_file(file)) for file in files)
            found = [Image(file, _name(file, path), content_type) for file, content_type in typed if content_type]
        except OSError as error:
            raise LocalError(f"{path} cannot be read: {error.strerror}") from error
        if not found:
            raise LocalError(
                f"{path} is not an image and contains none: name files or folders ({KNOWN}, DICOM without suffix)"
            )
        images += found
    return images


def _name(file: Path, asked: Path) -> str:
    mark = FOLDER_MARK if file.is_dir() else ""
    if file == asked:
        return file.name + mark
    return (file.name if not mark else file.relative_to(asked).as_posix()) + mark


def post(image: Image, port: int, accept: str) -> tuple[int, str, bytes]:
    """Status, content type and body of the answer to one image.

    Raises:
        LocalError: there is no server, or the file cannot be read.
    """
    try:
        body = content_of(image.path)
    except OSError as error:
        raise LocalError(f"{image.path} cannot be read: {error.strerror}") from error
    headers = {"Content-Type": image.content_type, "Accept": accept}
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=120)
    try:
        connection.request("POST", "/invocations", body, headers)
        response = connection.getresponse()
        return response.status, response.headers.get("Content-Type", JSON), response.read()
    except (OSError, http.client.HTTPException) as error:
        raise LocalError(f"nothing answers on port {port} ({error}): start it with `make serve-local`") from error
    finally:
        connection.close()


def _shown(image: Image, status: int, content_type: str, body: bytes, options: argparse.Namespace) -> dict[str, Any]:
    """What a row or the JSON says of an answer."""
    answer = _document(body)
    if status != 200 or options.save is None:
        if answer is not None:
            return answer
        kind = content_type.partition(";")[0]
        code = kind if status == 200 else str(status)
        return {"error": {"code": code, "message": f"{len(body)} bytes, --save FOLDER writes them"}}
    try:
        saved = save_parts(options.save, image.name.rstrip(FOLDER_MARK), content_type, body)
    except SavingError as error:
        raise LocalError(str(error)) from error
    return (answer or {}) | {"saved": ", ".join(map(str, saved))}


def _document(body: bytes) -> dict[str, Any] | None:
    try:
        answer = json.loads(body)
    except ValueError:
        return None
    return answer if isinstance(answer, dict) else None


def as_table(answers: Sequence[tuple[str, dict[str, Any]]]) -> str:
    """One line a prediction with the number of every label, or the refusal."""
    rows: list[list[str]] = []
    heads: dict[str, None] = {}
    cells: list[tuple[str, dict[str, str]]] = []
    for name, answer in answers:
        if "error" in answer:
            rows.append([name, f"{answer['error']['code']}: {answer['error']['message']}"])
            continue
        predictions = [] if "saved" in answer else answer.get("predictions", [])
        if not predictions:
            rows.append([name, f"saved as {answer['saved']}" if "saved" in answer else "no prediction"])
        for prediction in predictions:
            found = _cells(prediction)
            heads |= dict.fromkeys(found)
            cells.append((name, found))
            rows.append([])
    placed = iter(cells)
    table = [row if row else _row(*next(placed), list(heads)) for row in rows]
    table.insert(0, ["picture", *(heads or {"predicted": None})])
    widths = [
        max(len(row[column]) for row in table if len(row) == len(table[0]) or column == 0)
        for column in range(len(table[0]))
    ]
    return "\n".join(
        "  ".join(f"{cell:{width}}" for cell, width in zip(row, widths, strict=False)).rstrip() for row in table
    )


def _row(name: str, found: Mapping[str, str], heads: Sequence[str]) -> list[str]:
    return [name, *(found.get(head, "") for head in heads)]


def _cells(prediction: Prediction) -> dict[str, str]:
    """Cells of the table for people: what is predicted, and each label's number with three digits behind the point.

    A mask has the size of each structure, and the unit of the sizes.
    """
    task = task_of(prediction)
    if task is None:
        return {"predicted": json.dumps(prediction)}
    said = cells(prediction, task)
    if task.has_masks:  # sizes and their unit; what is predicted is a picture
        return {**{head: str(value) for head, value in said.items()}, **_numbers(prediction, task)}
    shown = {"predicted": str(next(iter(said.values()))) or NO_CLASS} if said else {}
    if "expected_grade" in said:
        shown["expected grade"] = f"{said['expected_grade']:.2f}"
    return shown | _numbers(prediction, task)


def _numbers(prediction: Prediction, task: TaskRow) -> dict[str, str]:
    return {name: _short(value) for name, value in prediction[task.numbers].items()}


def _short(number: float) -> str:
    """Three digits behind the point, or four in all of a number that is not a probability."""
    return f"{number:.3f}" if abs(number) < 10 else f"{number:.4g}"
