"""Grades in order, such as the stages of a disease: the network says whether the grade is above each one but the last.

Output k is the logit of "above grade k, given that it is above grade k - 1", so the probabilities of being above never
rise with the grade, whatever the network's output (CORN, arXiv:2111.08851). The predicted grade is the median: the
number of grades that are more likely exceeded than not. So, unlike with softmax, a mistake by one grade is smaller than
one by three.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from sagemaker_monai.tasks.classification import class_target
from sagemaker_monai.tasks.postprocessing import ConditionalOrdinal
from sagemaker_monai.tasks.row import PROBABILITIES, Example, TakesNothing, TaskRow, largest, named, only_largest

if TYPE_CHECKING:
    import numpy as np
    import torch
    from numpy.typing import NDArray

    from sagemaker_monai.tasks.labels import Label
    from sagemaker_monai.tasks.task import Floats, Loss, LossOptions


@dataclass(frozen=True)
class OrdinalPrediction:
    """The grade of one image: its name, the mean grade from 0, and the probability of every grade."""

    predicted_class: str
    grade: int
    expected_grade: float
    probabilities: dict[str, float]

    def fields(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "predicted_class": self.predicted_class,
            "probability": self.probabilities[self.predicted_class],
            "grade": self.grade,
            "expected_grade": self.expected_grade,
            "probabilities": self.probabilities,
        }

    def cells(self) -> dict[str, str | float]:
        """The same as one row of a table."""
        fields = self.fields()
        return {**{name: fields[name] for name in list(fields)[:-1]}, **self.probabilities}

    def findings(self) -> list[tuple[str, str, float, bool]]:
        """Every grade with its probability, and the mean grade."""
        rows = [(label, "probability", p, label == self.predicted_class) for label, p in self.probabilities.items()]
        return [*rows, ("expected grade", "value", self.expected_grade, False)]


@dataclass(frozen=True)
class Ordinal(TakesNothing):
    """See `task.Task`. Targets (N, K) are 1 for the grade, answers (N, K) probabilities of the grades."""

    labels: tuple[str, ...]
    name: ClassVar[str] = "ordinal"

    @property
    def outputs(self) -> int:
        """One for each step from a grade to the next."""
        return len(self.labels) - 1

    def target(self, label: Label) -> tuple[float, ...]:
        """A grade by its name; see `classification.class_target`."""
        return class_target(label, self.labels)

    def training_targets(self, targets: Floats) -> np.ndarray:
        """Grades (N,) from 0."""
        return largest(targets)

    def build_loss(self, config: LossOptions, targets: torch.Tensor, device: torch.device) -> Loss:
        """Mean over the images of the binary cross-entropies of the steps up to their grade.

        Source: arXiv:2111.08851, equation 7; averaged over images and not over all steps, so that an image's loss does
        not depend on the rest of its batch. With class_weighted every grade has the same sum of weights.
        """
        import torch
        from torch.nn import functional

        steps = torch.arange(self.outputs, device=device)
        counts = torch.bincount(targets, minlength=len(self.labels)).float()
        is_weighted = config.imbalance == "class_weighted"
        weights = (counts.sum() / (len(counts) * counts) if is_weighted else torch.ones_like(counts)).to(device)

        def loss(outputs: torch.Tensor, grades: torch.Tensor) -> torch.Tensor:
            is_above = (grades[:, None] > steps).float()
            concerns = (grades[:, None] >= steps).float()
            smoothed = is_above * (1 - config.label_smoothing) + config.label_smoothing / 2
            each = functional.binary_cross_entropy_with_logits(outputs.float(), smoothed, reduction="none")
            return ((each * concerns).sum(dim=1) * weights[grades]).mean()

        return loss

    def answers(self, outputs: torch.Tensor) -> torch.Tensor:
        """Probabilities of the grades, rows sum to 1."""
        return ConditionalOrdinal()(outputs)

    def score(self, answers: Floats, targets: Floats) -> dict[str, Any]:
        """The scores of a classifier, the mean absolute error in grades, and kappa with quadratic weights."""
        from sagemaker_monai.tasks import metrics

        grades, predicted = targets.argmax(axis=1), median_grades(answers)
        scores = metrics.score(answers, grades, self.labels, predicted)
        matrix = metrics.confusion_matrices(predicted, grades, len(self.labels), metrics.once(targets))
        return {**scores, **{name: metrics.number(values[0]) for name, values in _of_grades(matrix).items()}}

    def report(self, answers: Floats, targets: Floats, groups: Sequence[str], *, seed: int) -> dict[str, Any]:
        """See `metrics.report`, with the scores of grades."""
        from sagemaker_monai.tasks import metrics

        grades, predicted = targets.argmax(axis=1), median_grades(answers)
        report = metrics.report(answers, grades, groups, self.labels, seed=seed, predicted=predicted)
        scores = self.score(answers, targets)
        drawn = metrics.bootstrap(
            lambda weights: _of_grades(metrics.confusion_matrices(predicted, grades, len(self.labels), weights)),
            groups,
            seed=seed,
        )
        report |= {name: scores[name] for name in drawn}
        report["intervals_95"] |= {name: metrics.interval(values) for name, values in drawn.items()}
        return report

    def predictions(self, answers: torch.Tensor) -> list[OrdinalPrediction]:
        """The median grade of each image."""
        import numpy as np

        rows = answers.numpy()
        means = rows @ np.arange(len(self.labels))
        return [
            OrdinalPrediction(self.labels[grade], int(grade), float(mean), dict(zip(self.labels, row, strict=True)))
            for grade, mean, row in zip(median_grades(rows), means, rows.tolist(), strict=True)
        ]

    def postprocessing(self) -> list[dict[str, Any]]:
        """One step without arguments."""
        return [{"_target_": "sagemaker_monai.tasks.ConditionalOrdinal"}]


def median_grades(probabilities: Floats) -> NDArray[np.int64]:
    """How many grades each image exceeds with a probability of more than a half, (N,)."""
    above = 1.0 - probabilities.cumsum(axis=1)[:, :-1]
    grades: NDArray[np.int64] = (above > 0.5).sum(axis=1)
    return grades


def _of_grades(matrices: Floats) -> dict[str, Floats]:
    """Scores from confusion matrices (R, K, K) of ordered classes, each (R,); kappa is NaN with one true class only.

    Source of kappa: Cohen, Psychological Bulletin 70 (1968), 213-220, with weights (i - j)**2.
    """
    import numpy as np

    from sagemaker_monai.tasks import metrics

    grades = np.arange(matrices.shape[1])
    distance = np.abs(grades[:, None] - grades)
    total = matrices.sum(axis=(1, 2))
    is_one = (matrices.sum(axis=2) > 0).sum(axis=1) < 2  # kappa would be 0 for any answers
    expected = matrices.sum(axis=2)[:, :, None] * matrices.sum(axis=1)[:, None, :] / total[:, None, None]
    observed_cost = (matrices * distance**2).sum(axis=(1, 2))
    return {
        "kappa": np.where(is_one, np.nan, 1 - metrics.divide(observed_cost, (expected * distance**2).sum(axis=(1, 2)))),
        "mae": metrics.divide((matrices * distance).sum(axis=(1, 2)), total),
    }


ROW = TaskRow(
    name=Ordinal.name,
    build=Ordinal,
    read=lambda _steps, labels: Ordinal(labels),
    form="class",
    labels_are="grades in order",
    has_order=True,
    fewest_labels=2,
    strata=largest,
    presence=only_largest,
    imbalance=("none", "balanced_sampler", "class_weighted"),
    metrics=named("loss", "accuracy", "balanced_accuracy", "auc", "kappa", "mae"),
    best_metric="kappa",
    schema=("ordinal classification", PROBABILITIES),
    heads=("predicted_class", "probability", "grade", "expected_grade"),
    quality_group="multiclass_classification_metrics",
    sentence="classifier of images into {} in order",
    noun="grade",
    amounts="Images by grade",
    caution="Its probabilities are not calibrated.",
    loss="binary cross-entropy for each step from a grade to the next (CORN)",
    example=lambda: Example(Ordinal(("0", "1", "2", "3")), ("0", "3", "1"), (0.125, 0.125, 0.5, 0.25)),
)
