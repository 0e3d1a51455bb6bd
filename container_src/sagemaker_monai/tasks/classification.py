"""One class for each image: what a prediction is, and how it is written for a client.

Losses are in `losses`, scores in `metrics`.
"""

import csv
import io
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from sagemaker_monai.errors import BundleError

FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r")


@dataclass(frozen=True)
class Prediction:
    """The answer for one image.

    `probability` is that of `predicted_class`; `probabilities` has every class in the model's order and sums to 1.
    """

    predicted_class: str
    probability: float
    probabilities: dict[str, float]


def class_probabilities(logits: torch.Tensor) -> torch.Tensor:
    """Softmax in float64, the one place where logits become probabilities.

    Args:
        logits: (N, K), any floating type and device.

    Returns:
        float64 (N, K) on the CPU, each row summing to 1.

    Raises:
        BundleError: a logit is not finite, so no answer can be given.
    """
    logits = logits.detach().to("cpu", torch.float64)
    if not torch.isfinite(logits).all():
        raise BundleError("the network answers with values that are not finite: its weights are damaged")
    return torch.softmax(logits, dim=1)


def predictions_from_probabilities(probabilities: torch.Tensor, labels: Sequence[str]) -> list[Prediction]:
    """Name the classes of rows of probabilities.

    Args:
        probabilities: float64 (N, K).
        labels: K class names, in the order of the outputs; of two equal probabilities the first class wins.

    Raises:
        BundleError: the number of outputs is not the number of labels.
    """
    if probabilities.shape[1] != len(labels):
        raise BundleError(f"the network has {probabilities.shape[1]} outputs for {len(labels)} labels")
    predictions = []
    for row in probabilities.tolist():
        best = max(range(len(row)), key=row.__getitem__)
        predictions.append(Prediction(labels[best], row[best], dict(zip(labels, row, strict=True))))
    return predictions


def make_predictions(logits: torch.Tensor, labels: Sequence[str]) -> list[Prediction]:
    """Name the most probable class of each image.

    Args:
        logits: (N, K).
        labels: K class names, in the order of the outputs.

    Raises:
        BundleError: a logit is not finite, or K is not the number of labels.
    """
    return predictions_from_probabilities(class_probabilities(logits), labels)


def _as_dict(prediction: Prediction, model_version: str) -> dict[str, Any]:
    return {
        "predicted_class": prediction.predicted_class,
        "probability": prediction.probability,
        "probabilities": prediction.probabilities,
        "model_version": model_version,
    }


def encode_json(predictions: Sequence[Prediction], model_version: str) -> bytes:
    """`{"predictions": [{"predicted_class", "probability", "probabilities", "model_version"}]}`."""
    return _json({"predictions": [_as_dict(prediction, model_version) for prediction in predictions]}) + b"\n"


def encode_jsonlines(predictions: Sequence[Prediction], model_version: str) -> bytes:
    """One object a line, without the outer list."""
    return b"".join(_json(_as_dict(prediction, model_version)) + b"\n" for prediction in predictions)


def encode_csv(predictions: Sequence[Prediction], model_version: str) -> bytes:
    """A header and one row for each prediction: predicted_class, probability, every class, model_version.

    Probabilities have all their digits. A name that a spreadsheet would run as a formula gets an apostrophe in front.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\r\n")  # RFC 4180
    classes = list(predictions[0].probabilities) if predictions else []
    writer.writerow(["predicted_class", "probability", *map(spreadsheet_safe, classes), "model_version"])
    for prediction in predictions:
        writer.writerow(
            [
                spreadsheet_safe(prediction.predicted_class),
                repr(prediction.probability),
                *map(repr, prediction.probabilities.values()),
                spreadsheet_safe(model_version),
            ]
        )
    return text.getvalue().encode("utf-8", errors="backslashreplace")


def spreadsheet_safe(cell: str) -> str:
    """Put an apostrophe before a cell that spreadsheets would take for a formula.

    Source: OWASP, CSV Injection.
    """
    return "'" + cell if cell.startswith(FORMULA_STARTS) else cell


def _json(value: Any) -> bytes:
    return json.dumps(value, allow_nan=False).encode("ascii")


ENCODERS: dict[str, Callable[[Sequence[Prediction], str], bytes]] = {
    "application/json": encode_json,
    "text/csv": encode_csv,
    "application/jsonlines": encode_jsonlines,
}
