"""Writes the predictions of any task as JSON, JSON lines or CSV."""

import csv
import io
import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from sagemaker_inference import content_types

from sagemaker_monai.storage.tables import spreadsheet_safe
from sagemaker_monai.tasks.task import Prediction

CSV_TYPE = content_types.CSV
Origin = Mapping[str, Any]  # the source of a prediction; empty unless the client asked for it
About = Mapping[str, Any]  # the image of a prediction and findings about it; empty for a picture without findings


def _rows(
    predictions: Sequence[Prediction], model_version: str, origins: Sequence[Origin], about: Sequence[About]
) -> list[dict[str, Any]]:
    nothing: list[Mapping[str, Any]] = [{}] * len(predictions)
    told = zip(predictions, origins or nothing, about or nothing, strict=True)
    return [{**origin, **row.fields(), "model_version": model_version, **more} for row, origin, more in told]


def encode_json(
    predictions: Sequence[Prediction],
    model_version: str,
    origins: Sequence[Origin] = (),
    about: Sequence[About] = (),
) -> bytes:
    """`{"predictions": [{...the task's fields, "model_version", ...}]}`."""
    return _json({"predictions": _rows(predictions, model_version, origins, about)}) + b"\n"


def encode_jsonlines(
    predictions: Sequence[Prediction],
    model_version: str,
    origins: Sequence[Origin] = (),
    about: Sequence[About] = (),
) -> bytes:
    """One object per line, without the outer list."""
    return b"".join(_json(row) + b"\n" for row in _rows(predictions, model_version, origins, about))


def encode_csv(
    predictions: Sequence[Prediction],
    model_version: str,
    origins: Sequence[Origin] = (),
    about: Sequence[About] = (),
    *,
    has_header: bool = True,
) -> bytes:
    """One row per prediction, after a header unless `has_header` is False.

    The columns are the origin, the task's cells, model_version and what the row is about, empty where a row has less.
    Numbers have all their digits. A name that a spreadsheet would run as a formula gets an apostrophe in front.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\r\n")  # RFC 4180
    names = list(dict.fromkeys(name for each in about for name in each))
    for index, prediction in enumerate(predictions):
        origin = {name: _cell(value) for name, value in (origins[index] if origins else {}).items()}
        more = {name: _cell(about[index].get(name)) for name in names}
        cells = {**origin, **prediction.cells(), "model_version": model_version, **more}
        if index == 0 and has_header:
            writer.writerow([spreadsheet_safe(name) for name in cells])
        writer.writerow([spreadsheet_safe(cell) if isinstance(cell, str) else repr(cell) for cell in cells.values()])
    return text.getvalue().encode("utf-8", errors="backslashreplace")


def _cell(value: Any) -> str:
    return " ".join(value) if isinstance(value, list | tuple) else "" if value is None else str(value)


def _json(value: Any) -> bytes:
    return json.dumps(value, allow_nan=False).encode("ascii")


ENCODERS: dict[str, Callable[[Sequence[Prediction], str, Sequence[Origin], Sequence[About]], bytes]] = {
    content_types.JSON: encode_json,
    CSV_TYPE: encode_csv,
    "application/jsonlines": encode_jsonlines,
}
