"""Pictures posted to a server on this machine (`make predict-local`); standard library only."""

import argparse
import http.client
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

CONTENT_TYPES = {
    ".jpg": "image/jpeg",
    ".jpeg": "image/jpeg",
    ".png": "image/png",
    ".bmp": "image/bmp",
    ".tif": "image/tiff",
    ".tiff": "image/tiff",
    ".webp": "image/webp",
    ".npy": "application/x-npy",
    ".json": "application/json",
    ".zip": "application/zip",
}


class LocalError(Exception):
    """What whoever called can correct; the message says how."""


def predict(options: argparse.Namespace) -> int:
    """Post every picture; 0 when all were answered."""
    answers = [(picture, *post(picture, options.port)) for picture in find_pictures(options.pictures)]
    if options.json:
        print(json.dumps([{"picture": str(picture), **answer} for picture, _, answer in answers], indent=2))
    else:
        print(as_table([(picture.name, answer) for picture, _, answer in answers]))
    return 0 if all(status == 200 for _, status, _ in answers) else 1


def find_pictures(paths: Sequence[Path]) -> list[Path]:
    """The files named, and those of known suffixes in the folders named."""
    pictures: list[Path] = []
    for path in paths:
        found = sorted(path.rglob("*")) if path.is_dir() else [path]
        found = [file for file in found if file.is_file() and file.suffix.lower() in CONTENT_TYPES]
        if not found:
            kinds = ", ".join(CONTENT_TYPES)
            raise LocalError(f"{path} is no picture and has none: name a file, or a folder of them ({kinds})")
        pictures += found
    return pictures


def post(picture: Path, port: int) -> tuple[int, dict[str, Any]]:
    """Status and answer to one file."""
    headers = {"Content-Type": CONTENT_TYPES[picture.suffix.lower()], "Accept": "application/json"}
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=120)
    try:
        connection.request("POST", "/invocations", picture.read_bytes(), headers)
        response = connection.getresponse()
        answer: dict[str, Any] = json.loads(response.read())
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise LocalError(f"nothing answers on port {port} ({error}): start it with `make serve-local`") from error
    finally:
        connection.close()
    return response.status, answer


def as_table(answers: Sequence[tuple[str, dict[str, Any]]]) -> str:
    """One line a prediction with the probability of every class, or the refusal."""
    rows: list[list[str]] = []
    labels: list[str] = []
    for name, answer in answers:
        if "error" in answer:
            rows.append([name, f"{answer['error']['code']}: {answer['error']['message']}"])
        for prediction in answer.get("predictions", []):
            labels = list(prediction["probabilities"])
            rows.append(
                [name, prediction["predicted_class"], *(f"{prediction['probabilities'][n]:.3f}" for n in labels)]
            )
    rows.insert(0, ["picture", "predicted", *labels])
    widths = [max(len(row[column]) for row in rows if len(row) == len(rows[0]) or column == 0)
              for column in range(len(rows[0]))]  # fmt: skip
    return "\n".join(
        "  ".join(f"{cell:{width}}" for cell, width in zip(row, widths, strict=False)).rstrip() for row in rows
    )
