"""What training writes for people: tables, TensorBoard files, and the model card."""

import csv
import io
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from sagemaker_monai.data.datasets import SPLITS, Dataset, Record, targets_of
from sagemaker_monai.storage.tables import spreadsheet_safe
from sagemaker_monai.tasks.metric_names import CLASSIFICATION, SCORES, WHOLE_NUMBERS, logged_names
from sagemaker_monai.tasks.task import Floats, Prediction, Task

Row = Mapping[str, float]
MAJORITY = 0.5  # share of annotators that makes a finding true


def history_csv(history: Sequence[Row], labels: Sequence[str]) -> str:
    """One line an epoch."""
    names = logged_names(labels)
    return _csv(
        [names.get(name, name) for name in history[0]],
        ([int(value) if name in WHOLE_NUMBERS else value for name, value in row.items()] for row in history),
    )


def predictions_csv(records: Sequence[Record], answers: Floats, task: Task) -> str:
    """One line an image: its name, what is true, what is predicted, and every number of the answer with all digits."""
    truths = targets_of(records, task.labels)
    rows = zip(records, truths, task.predictions(torch.from_numpy(answers)), answers.tolist(), strict=True)
    return _csv(
        ["image", "label", "predicted", *map(spreadsheet_safe, task.labels)],
        (
            [
                spreadsheet_safe(record.name),
                spreadsheet_safe(TRUE_LABEL[task.name](truth, task.labels)),
                spreadsheet_safe(_predicted(prediction)),
                *map(repr, row),
            ]
            for record, truth, prediction, row in rows
        ),
    )


def _predicted(prediction: Prediction) -> str:
    """The class or classes; numbers in the form in which the column `label` has them."""
    values = prediction.fields().get("values")
    return str(next(iter(prediction.cells().values()))) if values is None else " ".join(map(repr, values.values()))


def _class_name(truth: np.ndarray, labels: Sequence[str]) -> str:
    return labels[int(truth.argmax())]


# What stands in the column `label`, of a target.
TRUE_LABEL: dict[str, Callable[[np.ndarray, Sequence[str]], str]] = {
    "classification": _class_name,
    "ordinal": _class_name,
    "multilabel": lambda truth, labels: "|".join(
        label for label, share in zip(labels, truth, strict=True) if share >= MAJORITY
    ),
    "regression": lambda truth, _labels: " ".join(map(repr, truth.tolist())),
}


def _csv(header: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(rows)
    return text.getvalue()


def model_quality(metrics: Mapping[str, Any]) -> dict[str, Any]:
    """Metrics in the form of SageMaker's model quality, for ModelMetrics of a model package and pipelines' JsonGet.

    A score that does not exist is left out: a condition on it then fails and does not compare with nothing. Weighted
    scores are means over the classes, each counted by its images. No standard deviations: the intervals of metrics.json
    are of whole groups, which those would not be.

    Source: SageMaker developer guide, "Model quality metrics" (multiclass, regression); balanced_accuracy, auc, loss,
    kappa and the group multilabel_classification_metrics are ours.
    """
    task = metrics.get("task", CLASSIFICATION)
    values = {name: metrics[name] for name in SCORES[task]}
    found: dict[str, Any] = {}
    if "confusion_matrix" in metrics:
        labels = metrics["labels"]
        matrix = np.array(metrics["confusion_matrix"], dtype=np.float64)  # rows true, columns predicted
        values |= _weighted(matrix)
        found["confusion_matrix"] = {
            true: {predicted: int(count) for predicted, count in zip(labels, row, strict=True)}
            for true, row in zip(labels, matrix, strict=True)
        }
    found |= {
        name: {"value": float(value), "standard_deviation": "NaN"}
        for name, value in values.items()
        if value is not None
    }
    return {QUALITY_GROUP[task]: found}


QUALITY_GROUP = {
    "classification": "multiclass_classification_metrics",
    "ordinal": "multiclass_classification_metrics",
    "multilabel": "multilabel_classification_metrics",
    "regression": "regression_metrics",
}


def _weighted(matrix: np.ndarray) -> dict[str, float]:
    """Means over the classes, weighted by their true images; a class that is never predicted has precision 0."""
    hits, true, predicted = matrix.diagonal(), matrix.sum(axis=1), matrix.sum(axis=0)
    weights = true / true.sum()

    def mean(above: np.ndarray, below: np.ndarray) -> float:
        return float(weights @ np.divide(above, below, out=np.zeros_like(above), where=below > 0))

    scores = {"weighted_recall": mean(hits, true), "weighted_precision": mean(hits, predicted)}
    for name, beta in (("weighted_f0_5", 0.5), ("weighted_f1", 1.0), ("weighted_f2", 2.0)):
        scores[name] = mean((1 + beta**2) * hits, beta**2 * true + predicted)
    return scores


def as_json(value: Mapping[str, Any]) -> str:
    """JSON for people to read; no NaN, which JSON does not have."""
    return json.dumps(value, indent=2, allow_nan=False) + "\n"


def tensorboard_writer(folder: Path, labels: Sequence[str]) -> tuple[Callable[[Row], None], Callable[[], None]] | None:
    """A function for the row of each epoch and one to close, or None where TensorBoard is not installed."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        return None
    writer = SummaryWriter(str(folder))
    names = logged_names(labels)

    def write(row: Row) -> None:
        for name, value in row.items():
            if name not in WHOLE_NUMBERS and value == value:  # not NaN
                split, _, rest = names.get(name, name).partition("_")
                tag = f"{split}/{rest}" if split in ("train", "validation") else f"run/{names.get(name, name)}"
                writer.add_scalar(tag, value, int(row["epoch"]))
        writer.flush()

    return write, writer.close


def model_card(
    dataset: Dataset, metrics: Mapping[str, Any], hyperparameters: Mapping[str, Any], provenance: Mapping[str, Any]
) -> str:
    """The artifact's docs/README.md: what it is, what it learned from, how good it is, what it is not for."""
    labels, task = dataset.labels, dataset.task
    size = " x ".join(map(str, provenance["input_size"]))
    first = next(iter(metrics["per_class"].values()))
    columns, has_thresholds = list(first["intervals_95"]), "threshold" in first
    lines = [
        "# Model card",
        "",
        f"A {WHAT_IT_IS[task].format(_counted(len(labels), task))} ({hyperparameters['network']} of MONAI "
        f"{provenance['monai_version']}, input {size}), model version {metrics['model_version']}.",
        "",
        "**Not a medical device.** For research. It has not been examined for any clinical use, and it always answers, "
        f"also for an image of something else. {CAUTION[task]}",
        "",
        "## Data",
        "",
        *([f"{_cell(dataset.title)}.", ""] if dataset.title else []),
        f"Fingerprint {dataset.fingerprint}. {IMAGES_BY[task]}:",
        "",
        f"| {KIND_OF_LABEL[task]} | training | validation | test |",
        "|---|---|---|---|",
        *(
            f"| {_cell(label)} | " + " | ".join(_amount(dataset, split, index) for split in SPLITS) + " |"
            for index, label in enumerate(labels)
        ),
        "",
        f"## Scores on the {metrics['split']} split",
        "",
        f"{metrics['images']} images of {metrics['groups']} groups, by this artifact, loaded as a server loads it. "
        f"{metrics['note']}In brackets 95 % intervals: percentiles of {metrics['bootstrap']['resamples']} resamples of "
        "whole groups.",
        "",
        *(
            f"- {name.replace('_', ' ')}: {_with_interval(name, metrics, metrics['intervals_95'])}"
            + _mixed(name, labels, task)
            for name in SCORES[task]
            if name in metrics["intervals_95"]
        ),
        "",
        f"| {KIND_OF_LABEL[task]} | images | "
        + "threshold | " * has_thresholds
        + " | ".join(HEADINGS.get(name, name.replace("_", " ")) for name in columns)
        + " |",
        "|---|---" + "|---" * (len(columns) + has_thresholds) + "|",
        *(
            f"| {_cell(label)} | {row.get('images', metrics['images'])} | "
            + (f"{row['threshold']:.3f} | " if has_thresholds else "")
            + " | ".join(_with_interval(name, row, row["intervals_95"]) for name in columns)
            + " |"
            for label, row in metrics["per_class"].items()
        ),
        "",
        f"{'The confusion matrix is' if 'confusion_matrix' in metrics else 'More is'} in metrics.json, every "
        "hyperparameter in configs/train.json.",
        "",
    ]
    return "\n".join(lines)


def _counted(count: int, task: str) -> str:
    noun = KIND_OF_LABEL[task]
    return f"{count} {noun}" if count == 1 else f"{count} {noun}{'es' * noun.endswith('s') or 's'}"


WHAT_IT_IS = {
    "classification": "classifier of images into {}",
    "multilabel": "classifier of images by {}, any number of which may be there",
    "ordinal": "classifier of images into {} in order",
    "regression": "regressor from images to {}",
}
KIND_OF_LABEL = {"classification": "class", "multilabel": "finding", "ordinal": "grade", "regression": "number"}
CAUTION = {
    "classification": "Its probabilities are not calibrated.",
    "multilabel": "Its probabilities are not calibrated; a finding is answered from its threshold on, which was chosen "
    "on the validation split.",
    "ordinal": "Its probabilities are not calibrated.",
    "regression": "Its numbers say nothing of how sure they are.",
}
IMAGES_BY = {
    "classification": "Images by class",
    "multilabel": "Images by finding",
    "ordinal": "Images by grade",
    "regression": "Means of the numbers",
}
IN_UNIT_OF_LABELS = frozenset({"mae", "rmse"})
HEADINGS = {"f1": "F1", "auc": "AUC", "r2": "R2", "mae": "MAE", "rmse": "RMSE"}


def _amount(dataset: Dataset, split: str, index: int) -> str:
    """How many images of a split have a label (several annotators: by half of them), or a number's mean."""
    records = dataset.split(split)
    if not records:
        return "0"
    column = targets_of(records, dataset.labels)[:, index]
    if dataset.task == "regression":
        return f"{column.mean():.4g}"
    if dataset.task == "multilabel":
        return str(int((column >= MAJORITY).sum()))
    return str(sum(record.label == index for record in records))


def _with_interval(name: str, scores: Mapping[str, Any], intervals: Mapping[str, Sequence[float] | None]) -> str:
    value, interval = scores[name], intervals[name]
    if value is None:
        return "-"
    digits = ".4g" if name in IN_UNIT_OF_LABELS else ".3f"
    return f"{value:{digits}}" + (f" ({interval[0]:{digits}} to {interval[1]:{digits}})" if interval else "")


def _mixed(name: str, labels: Sequence[str], task: str) -> str:
    is_mixed = task == "regression" and len(labels) > 1 and name in IN_UNIT_OF_LABELS
    return ", the mean over numbers that may have other units" * is_mixed


def _cell(text: str) -> str:
    return text.replace("\\", "\\\\").replace("|", "\\|")
