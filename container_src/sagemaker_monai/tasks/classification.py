"""One class per image, of two (a binary task) or more: softmax.

Losses are in `losses`, scores in `metrics`. An image may have shares of several classes, from several annotators: it is
trained with all of them and scored by the largest.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from sagemaker_monai.tasks.postprocessing import Softmax
from sagemaker_monai.tasks.row import PROBABILITIES, Example, TakesNothing, TaskRow, largest, named, only_largest

if TYPE_CHECKING:
    import numpy as np
    import torch

    from sagemaker_monai.tasks.labels import Label
    from sagemaker_monai.tasks.task import Floats, Loss, LossOptions


@dataclass(frozen=True)
class Prediction:
    """The answer for one image.

    `probability` is that of `predicted_class`; `probabilities` has every class in the model's order and sums to 1.
    """

    predicted_class: str
    probability: float
    probabilities: dict[str, float]

    def fields(self) -> dict[str, Any]:
        """For JSON."""
        return {"predicted_class": self.predicted_class, "probability": self.probability} | {
            "probabilities": self.probabilities
        }

    def cells(self) -> dict[str, str | float]:
        """The same as one row of a table."""
        return {"predicted_class": self.predicted_class, "probability": self.probability, **self.probabilities}

    def findings(self) -> list[tuple[str, str, float, bool]]:
        """Every class with its probability."""
        return [(label, "probability", p, label == self.predicted_class) for label, p in self.probabilities.items()]


def class_target(label: Label, labels: Sequence[str]) -> tuple[float, ...]:
    """Turn a class name, or shares of classes, into K shares that sum to 1.

    Raises:
        ValueError: it is neither, or a class is not in `labels`.
    """
    if isinstance(label, str):
        if label not in labels:
            raise ValueError(f"class {label[:60]!r} is not in labels")
        return tuple(float(name == label) for name in labels)
    if not isinstance(label, dict):
        raise ValueError("the label must be a class name, or an object of classes and their shares")  # noqa: TRY004 - of data
    if unknown := [name for name in label if name not in labels]:
        raise ValueError(f"class {unknown[0][:60]!r} is not in labels")
    total = sum(label.values())
    if not total > 0 or min(label.values()) < 0:
        raise ValueError("shares of classes must be at least 0 and not all 0")
    return tuple(label.get(name, 0.0) / total for name in labels)


@dataclass(frozen=True)
class Classification(TakesNothing):
    """See `task.Task`. Targets (N, K) are shares of the classes, answers (N, K) probabilities."""

    labels: tuple[str, ...]
    name: ClassVar[str] = "classification"

    @property
    def outputs(self) -> int:
        """One per class."""
        return len(self.labels)

    def target(self, label: Label) -> tuple[float, ...]:
        """See `class_target`."""
        return class_target(label, self.labels)

    def training_targets(self, targets: Floats) -> np.ndarray:
        """Class indices (N,) if every image has one class, else the shares (N, K)."""
        if (targets.max(axis=1, initial=0.0) == 1.0).all():
            return largest(targets)
        return targets.astype("float32")

    def build_loss(self, config: LossOptions, targets: torch.Tensor, device: torch.device) -> Loss:
        """See `losses.build_loss`."""
        import torch

        from sagemaker_monai.tasks.losses import build_loss

        if targets.dim() == 2:
            return build_loss(config, targets.sum(dim=0), device)
        return build_loss(config, torch.bincount(targets, minlength=len(self.labels)), device)

    def answers(self, outputs: torch.Tensor) -> torch.Tensor:
        """Probabilities (N, K), rows sum to 1."""
        return Softmax()(outputs)

    def score(self, answers: Floats, targets: Floats) -> dict[str, Any]:
        """See `metrics.score`."""
        from sagemaker_monai.tasks import metrics

        return metrics.score(answers, targets.argmax(axis=1), self.labels)

    def report(self, answers: Floats, targets: Floats, groups: Sequence[str], *, seed: int) -> dict[str, Any]:
        """See `metrics.report`."""
        from sagemaker_monai.tasks import metrics

        return metrics.report(answers, targets.argmax(axis=1), groups, self.labels, seed=seed)

    def predictions(self, answers: torch.Tensor) -> list[Prediction]:
        """The most probable class of each image; the first one if several are equal."""
        rows = [dict(zip(self.labels, row, strict=True)) for row in answers.tolist()]
        return [Prediction(best := max(row, key=row.__getitem__), row[best], row) for row in rows]

    def postprocessing(self) -> list[dict[str, Any]]:
        """Softmax, without arguments."""
        return [{"_target_": "sagemaker_monai.tasks.Softmax"}]


ROW = TaskRow(
    name=Classification.name,
    build=Classification,
    read=lambda _steps, labels: Classification(labels),
    form="class",
    labels_are="one class an image",
    fewest_labels=2,
    strata=largest,
    presence=only_largest,
    imbalance=("logit_adjusted", "none", "balanced_sampler", "class_weighted", "focal"),
    metrics=named("loss", "accuracy", "balanced_accuracy", "auc"),
    best_metric="balanced_accuracy",
    good_enough=0.5,
    schema=("classification", PROBABILITIES),
    heads=("predicted_class", "probability"),
    quality_group="multiclass_classification_metrics",
    sentence="classifier of images into {}",
    noun="class",
    amounts="Images by class",
    caution="Its probabilities are not calibrated.",
    loss="cross-entropy of a softmax",
    example=lambda: Example(
        Classification(("without", "with")), ("with", "without", {"without": 0.5, "with": 0.5}), (0.0625, 0.9375)
    ),
)
