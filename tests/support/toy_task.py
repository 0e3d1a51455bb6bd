"""A complete fifth task in one file: whether one thing is there, by one output and a sigmoid."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from sagemaker_monai.tasks.classification import class_target
from sagemaker_monai.tasks.row import (
    METRICS,
    PROBABILITIES,
    Example,
    Metric,
    TakesNothing,
    TaskRow,
    largest,
    only_largest,
)

if TYPE_CHECKING:
    import numpy as np
    import torch

    from sagemaker_monai.tasks.labels import Label
    from sagemaker_monai.tasks.task import Floats, Loss, LossOptions


@dataclass(frozen=True)
class ThingPrediction:
    """The chance that the thing is there."""

    is_there: bool
    chances: dict[str, float]

    def fields(self) -> dict[str, Any]:
        return {"is_there": self.is_there, "chances": self.chances}

    def cells(self) -> dict[str, str | float]:
        return {"is_there": str(self.is_there), **self.chances}

    def findings(self) -> list[tuple[str, str, float, bool]]:
        return [(label, "probability", chance, chance >= 0.5) for label, chance in self.chances.items()]


@dataclass(frozen=True)
class Thing(TakesNothing):
    """Targets (N, 2) are one-hot, answers (N, 2) the chances of absence and presence."""

    labels: tuple[str, ...]
    name: ClassVar[str] = "thing"

    @property
    def outputs(self) -> int:
        return 1

    def target(self, label: Label) -> tuple[float, ...]:
        return class_target(label, self.labels)

    def training_targets(self, targets: Floats) -> np.ndarray:
        return targets[:, 1:].astype("float32")

    def build_loss(self, config: LossOptions, targets: torch.Tensor, device: torch.device) -> Loss:
        from torch.nn import functional

        return lambda outputs, wanted: functional.binary_cross_entropy_with_logits(outputs.float(), wanted)

    def answers(self, outputs: torch.Tensor) -> torch.Tensor:
        import torch

        from sagemaker_monai.tasks.postprocessing import finite

        chance = torch.sigmoid(finite(outputs))
        return torch.cat([1 - chance, chance], dim=1)

    def score(self, answers: Floats, targets: Floats) -> dict[str, Any]:
        import numpy as np

        from sagemaker_monai.tasks import metrics

        metrics.refuse_nothing(targets)
        brier = float(((answers - targets)[:, 1] ** 2).mean())
        right = (answers * targets).sum(axis=1).clip(metrics.SMALLEST_PROBABILITY)
        return {"loss": float(-np.log(right).mean()), "brier": brier, "recall": self._recalls(answers, targets)}

    def _recalls(self, answers: Floats, targets: Floats) -> dict[str, float | None]:
        is_right = answers.round() == targets
        return {label: float(is_right[targets[:, i] == 1, i].mean()) for i, label in enumerate(self.labels)}

    def report(self, answers: Floats, targets: Floats, groups: Sequence[str], *, seed: int) -> dict[str, Any]:
        from sagemaker_monai.tasks import metrics

        squares, scores = (answers - targets) ** 2, self.score(answers, targets)
        return metrics.report_by_label(
            lambda weights: {"brier": weights @ squares / weights.sum(axis=1, keepdims=True)},
            {name: scores[name] for name in ("loss", "brier")},
            self.labels,
            groups,
            facts=[{"images": count} for count in targets.sum(axis=0).astype(int).tolist()],
            seed=seed,
        )

    def predictions(self, answers: torch.Tensor) -> list[ThingPrediction]:
        return [ThingPrediction(row[1] >= 0.5, dict(zip(self.labels, row, strict=True))) for row in answers.tolist()]

    def postprocessing(self) -> list[dict[str, Any]]:
        return [{"_target_": "monai.transforms.Activations", "sigmoid": True}]


ROW = TaskRow(
    name=Thing.name,
    build=Thing,
    read=lambda _steps, labels: Thing(labels),
    form="class",
    labels_are="one of two states",
    fewest_labels=2,
    strata=largest,
    presence=only_largest,
    imbalance=("none",),
    metrics=(METRICS["loss"], Metric("brier", "Minimize", "Brier score", is_always_there=True)),
    best_metric="brier",
    by_label="recall",
    good_enough=0.25,
    schema=("detection of one thing", PROBABILITIES),
    heads=("is_there",),
    numbers="chances",
    quality_group="binary_classification_metrics",
    model="detector",
    sentence="detector of a thing by {}",
    noun="state",
    amounts="Images by state",
    caution="It knows one thing only.",
    loss="binary cross-entropy of a sigmoid",
    example=lambda: Example(Thing(("absent", "present")), ("absent", "present"), (0.25, 0.75)),
)
