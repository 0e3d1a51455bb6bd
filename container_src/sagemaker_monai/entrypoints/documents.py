"""What training writes for people: tables, TensorBoard files, and the model card."""

import csv
import io
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from sagemaker_monai.datasets import SPLITS, Dataset, Record
from sagemaker_monai.log_metrics import WHOLE_NUMBERS, logged_names
from sagemaker_monai.tasks.classification import spreadsheet_safe

Row = Mapping[str, float]


def history_csv(history: Sequence[Row], labels: Sequence[str]) -> str:
    """One line an epoch."""
    names = logged_names(labels)
    return _csv(
        [names.get(name, name) for name in history[0]],
        ([int(value) if name in WHOLE_NUMBERS else value for name, value in row.items()] for row in history),
    )


def predictions_csv(records: Sequence[Record], probabilities: np.ndarray, labels: Sequence[str]) -> str:
    """One line an image: its name, true class, predicted class, and the probability of every class with all digits."""
    predicted = probabilities.argmax(axis=1)
    return _csv(
        ["image", "label", "predicted", *map(spreadsheet_safe, labels)],
        (
            [
                spreadsheet_safe(record.name),
                spreadsheet_safe(labels[record.label]),
                spreadsheet_safe(labels[best]),
                *map(repr, row),
            ]
            for record, best, row in zip(records, predicted, probabilities.tolist(), strict=True)
        ),
    )


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

    Source: SageMaker developer guide, "Model quality metrics" (multiclass); balanced_accuracy, auc and loss are ours.
    """
    labels = metrics["labels"]
    matrix = np.array(metrics["confusion_matrix"], dtype=np.float64)  # rows true, columns predicted
    values = {name: metrics[name] for name in ("accuracy", "balanced_accuracy", "auc", "loss")} | _weighted(matrix)
    return {
        "multiclass_classification_metrics": {
            "confusion_matrix": {
                true: {predicted: int(count) for predicted, count in zip(labels, row, strict=True)}
                for true, row in zip(labels, matrix, strict=True)
            },
            **{
                name: {"value": float(value), "standard_deviation": "NaN"}
                for name, value in values.items()
                if value is not None
            },
        }
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
    labels = dataset.labels
    counts = {split: np.bincount([r.label for r in dataset.split(split)], minlength=len(labels)) for split in SPLITS}
    lines = [
        "# Model card",
        "",
        f"A classifier of photographs into {len(labels)} classes ({hyperparameters['network']} of MONAI "
        f"{provenance['monai_version']}, {hyperparameters['image_size']} x {hyperparameters['image_size']} pixels), "
        f"model version {metrics['model_version']}.",
        "",
        "**Not a medical device.** For research. It has not been examined for any clinical use, it always names one of "
        "its classes, also for an image of something else, and its probabilities are not calibrated.",
        "",
        "## Data",
        "",
        *([f"{_cell(dataset.title)}.", ""] if dataset.title else []),
        f"Fingerprint {dataset.fingerprint}. Images by class:",
        "",
        "| class | training | validation | test |",
        "|---|---|---|---|",
        *(
            f"| {_cell(label)} | " + " | ".join(str(counts[split][index]) for split in SPLITS) + " |"
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
            f"- {name.replace('_', ' ')}: {_with_interval(metrics[name], metrics['intervals_95'][name])}"
            for name in ("accuracy", "balanced_accuracy", "auc")
        ),
        "",
        "| class | images | sensitivity | specificity | precision | F1 | AUC |",
        "|---|---|---|---|---|---|---|",
        *(
            f"| {_cell(label)} | {row['images']} | "
            + " | ".join(
                _with_interval(row[name], row["intervals_95"][name])
                for name in ("sensitivity", "specificity", "precision", "f1", "auc")
            )
            + " |"
            for label, row in metrics["per_class"].items()
        ),
        "",
        "The confusion matrix is in metrics.json, every hyperparameter in configs/train.json.",
        "",
    ]
    return "\n".join(lines)


def _with_interval(value: float | None, interval: Sequence[float] | None) -> str:
    if value is None:
        return "-"
    return f"{value:.3f}" + (f" ({interval[0]:.3f} to {interval[1]:.3f})" if interval else "")


def _cell(text: str) -> str:
    return text.replace("\\", "\\\\").replace("|", "\\|")
