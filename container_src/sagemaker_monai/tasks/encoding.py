"""How predictions of any task are written for a client: JSON, JSON lines, CSV."""

import csv
import io
import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from sagemaker_monai.tables import spreadsheet_safe
from sagemaker_monai.tasks.task import Prediction

CSV_TYPE = "text/csv"
Origin = Mapping[str, Any]  # of a prediction: what is said of its source, empty unless it was asked for


def _as_dict(prediction: Prediction, model_version: str, origin: Origin) -> dict[str, Any]:
    return {**origin, **prediction.fields(), "model_version": model_version}


def encode_json(predictions: Sequence[Prediction], model_version: str, origins: Sequence[Origin] = ()) -> bytes:
    """`{"predictions": [{...the task's fields, "model_version"}]}`."""
    rows = zip(predictions, origins or [{}] * len(predictions), strict=True)
    return _json({"predictions": [_as_dict(row, model_version, origin) for row, origin in rows]}) + b"\n"


def encode_jsonlines(predictions: Sequence[Prediction], model_version: str, origins: Sequence[Origin] = ()) -> bytes:
    """One object a line, without the outer list."""
    rows = zip(predictions, origins or [{}] * len(predictions), strict=True)
    return b"".join(_json(_as_dict(row, model_version, origin)) + b"\n" for row, origin in rows)


def encode_csv(
    predictions: Sequence[Prediction], model_version: str, origins: Sequence[Origin] = (), *, has_header: bool = True
) -> bytes:
    """A header, unless there is to be none, and one row for each prediction: the task's cells, then model_version.

    Numbers have all their digits. A name that a spreadsheet would run as a formula gets an apostrophe in front.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\r\n")  # RFC 4180
    for index, prediction in enumerate(predictions):
        origin = {name: _cell(value) for name, value in (origins[index] if origins else {}).items()}
        cells = {**origin, **prediction.cells(), "model_version": model_version}
        if index == 0 and has_header:
            writer.writerow([spreadsheet_safe(name) for name in cells])
        writer.writerow([spreadsheet_safe(cell) if isinstance(cell, str) else repr(cell) for cell in cells.values()])
    return text.getvalue().encode("utf-8", errors="backslashreplace")


def _cell(value: Any) -> str:
    return " ".join(value) if isinstance(value, list | tuple) else "" if value is None else str(value)


def _json(value: Any) -> bytes:
    return json.dumps(value, allow_nan=False).encode("ascii")


ENCODERS: dict[str, Callable[[Sequence[Prediction], str, Sequence[Origin]], bytes]] = {
    "application/json": encode_json,
    CSV_TYPE: encode_csv,
    "application/jsonlines": encode_jsonlines,
}
