"""What training writes for people: tables, TensorBoard files and the model card."""

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
from sagemaker_monai.tasks.mask_scores import MEASURES
from sagemaker_monai.tasks.metric_names import WHOLE_NUMBERS, logged_names
from sagemaker_monai.tasks.row import Metric, TaskRow
from sagemaker_monai.tasks.task import Floats, Prediction, Task
from sagemaker_monai.tasks.tasks import DEFAULT_TASK, TASKS

Row = Mapping[str, float]


def history_csv(history: Sequence[Row], labels: Sequence[str], task: str) -> str:
    """One line per epoch."""
    names = logged_names(labels, task)
    return _csv(
        [names.get(name, name) for name in history[0]],
        ([int(value) if name in WHOLE_NUMBERS else value for name, value in row.items()] for row in history),
    )


def predictions_csv(records: Sequence[Record], answers: Floats, task: Task) -> str:
    """One line per image: its name, the true and the predicted label, and every number of the answer in full."""
    truths, of_task = targets_of(records, task.labels), TASKS[task.name]
    if of_task.has_masks:
        return _measures_csv(records, answers, task)
    rows = zip(records, truths, task.predictions(torch.from_numpy(answers)), answers.tolist(), strict=True)
    return _csv(
        ["image", "label", "predicted", *map(spreadsheet_safe, task.labels)],
        (
            [
                spreadsheet_safe(record.name),
                spreadsheet_safe(_truth(truth, task.labels, of_task)),
                spreadsheet_safe(_predicted(prediction, of_task)),
                *map(repr, row),
            ]
            for record, truth, prediction, row in rows
        ),
    )


def _measures_csv(records: Sequence[Record], answers: Floats, task: Task) -> str:
    """One line an image and structure: what was measured of its mask."""
    rows = answers[:, 1:].reshape(len(records), len(task.labels), len(MEASURES))
    return _csv(
        ["image", "label", *MEASURES],
        (
            [spreadsheet_safe(record.name), spreadsheet_safe(label), *map(repr, measured.tolist())]
            for record, of_image in zip(records, rows, strict=True)
            for label, measured in zip(task.labels, of_image, strict=True)
        ),
    )


def _truth(target: np.ndarray, labels: Sequence[str], row: TaskRow) -> str:
    """The class or classes of a target (T,), or its numbers."""
    if row.presence is None:
        return " ".join(map(repr, target.tolist()))
    return "|".join(label for label, is_there in zip(labels, row.presence(target[None])[0], strict=True) if is_there)


def _predicted(prediction: Prediction, row: TaskRow) -> str:
    """The same for an answer."""
    if row.presence is None:
        return " ".join(map(repr, prediction.fields()[row.numbers].values()))
    return str(prediction.cells()[row.heads[0]])


def _csv(header: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(rows)
    return text.getvalue()


def model_quality(metrics: Mapping[str, Any]) -> dict[str, Any]:
    """Metrics in the form of SageMaker's model quality, for a model package's ModelMetrics and pipelines' JsonGet.

    Undefined scores are left out, so that a condition on them fails. Weighted scores are means over the classes,
    weighted by their images. There are no standard deviations: they would not be of whole groups, as the intervals in
    metrics.json are.

    Source: SageMaker developer guide, "Model quality metrics" (multiclass, regression); balanced_accuracy, auc, loss,
    kappa and the group multilabel_classification_metrics are ours.
    """
    row = TASKS[metrics.get("task", DEFAULT_TASK)]
    values = {name: metrics[name] for name in row.goals}
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
    return {row.quality_group: found}


def _weighted(matrix: np.ndarray) -> dict[str, float]:
    """Means over the classes, weighted by their true images; a class without predictions has precision 0."""
    hits, true, predicted = matrix.diagonal(), matrix.sum(axis=1), matrix.sum(axis=0)
    weights = true / true.sum()

    def mean(above: np.ndarray, below: np.ndarray) -> float:
        return float(weights @ np.divide(above, below, out=np.zeros_like(above), where=below > 0))

    scores = {"weighted_recall": mean(hits, true), "weighted_precision": mean(hits, predicted)}
    for name, beta in (("weighted_f0_5", 0.5), ("weighted_f1", 1.0), ("weighted_f2", 2.0)):
        scores[name] = mean((1 + beta**2) * hits, beta**2 * true + predicted)
    return scores


def as_json(value: Mapping[str, Any]) -> str:
    """JSON for people to read, without NaN, which JSON does not have."""
    return json.dumps(value, indent=2, allow_nan=False) + "\n"


def tensorboard_writer(
    folder: Path, labels: Sequence[str], task: str
) -> tuple[Callable[[Row], None], Callable[[], None]] | None:
    """A function that writes an epoch's row and one that closes the file; None if TensorBoard is not installed."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        return None
    writer = SummaryWriter(str(folder))
    names = logged_names(labels, task)

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
    """The artifact's docs/README.md: what the model is, its data, its scores and its limits."""
    labels, of_task = dataset.labels, TASKS[dataset.task]
    size = " x ".join(map(str, provenance["input_size"]))
    first = next(iter(metrics["per_class"].values()))
    columns, has_thresholds = [of_task.metric(name) for name in first["intervals_95"]], "threshold" in first
    lines = [
        "# Model card",
        "",
        f"A {of_task.sentence.format(_counted(len(labels), of_task.noun))} ({hyperparameters['network']} of MONAI "
        f"{provenance['monai_version']}, input {size}), model version {metrics['model_version']}.",
        "",
        "**Not a medical device.** For research. It has not been examined for any clinical use, and it always answers, "
        f"even for an image of something else. {of_task.caution}",
        "",
        "## Data",
        "",
        *([f"{_cell(dataset.title)}.", ""] if dataset.title else []),
        f"Fingerprint {dataset.fingerprint}. {of_task.amounts}:",
        "",
        f"| {of_task.noun} | training | validation | test |",
        "|---|---|---|---|",
        *(
            f"| {_cell(label)} | " + " | ".join(_amount(dataset, split, index) for split in SPLITS) + " |"
            for index, label in enumerate(labels)
        ),
        "",
        f"## Scores on the {metrics['split']} split",
        "",
        f"{metrics['images']} images of {metrics['groups']} groups, by this artifact, loaded as a server loads it. "
        f"{metrics['note']}95 % intervals in brackets: percentiles of {metrics['bootstrap']['resamples']} resamples of "
        "whole groups.",
        "",
        *(
            f"- {metric.name.replace('_', ' ')}: {_with_interval(metric, metrics, metrics['intervals_95'])}"
            + _mixed(metric, labels, of_task)
            for metric in of_task.metrics
            if metric.name in metrics["intervals_95"]
        ),
        "",
        f"| {of_task.noun} | images | "
        + "threshold | " * has_thresholds
        + " | ".join(metric.heading or metric.name.replace("_", " ") for metric in columns)
        + " |",
        "|---|---" + "|---" * (len(columns) + has_thresholds) + "|",
        *(
            f"| {_cell(label)} | {row.get('images', metrics['images'])} | "
            + (f"{row['threshold']:.3f} | " if has_thresholds else "")
            + " | ".join(_with_interval(metric, row, row["intervals_95"]) for metric in columns)
            + " |"
            for label, row in metrics["per_class"].items()
        ),
        "",
        f"{'The confusion matrix is' if 'confusion_matrix' in metrics else 'More is'} in metrics.json, every "
        "hyperparameter in configs/train.json.",
        "",
    ]
    return "\n".join(lines)


def _counted(count: int, noun: str) -> str:
    return f"{count} {noun}" if count == 1 else f"{count} {noun}{'es' * noun.endswith('s') or 's'}"


def _amount(dataset: Dataset, split: str, index: int) -> str:
    """How many images of a split have a label (by half of several annotators), or a number's mean."""
    records = dataset.split(split)
    if not records or TASKS[dataset.task].has_masks:
        return str(len(records))
    targets, presence = targets_of(records, dataset.labels), TASKS[dataset.task].presence
    if presence is None:
        return f"{targets[:, index].mean():.4g}"
    return str(int(presence(targets)[:, index].sum()))


def _with_interval(metric: Metric, scores: Mapping[str, Any], intervals: Mapping[str, Sequence[float] | None]) -> str:
    value, interval, digits = scores[metric.name], intervals[metric.name], metric.digits
    if value is None:
        return "-"
    return f"{value:{digits}}" + (f" ({interval[0]:{digits}} to {interval[1]:{digits}})" if interval else "")


def _mixed(metric: Metric, labels: Sequence[str], row: TaskRow) -> str:
    is_mixed = not row.has_classes and len(labels) > 1 and metric.is_in_unit
    return ", the mean over numbers that may have other units" * is_mixed


def _cell(text: str) -> str:
    return text.replace("\\", "\\\\").replace("|", "\\|")
