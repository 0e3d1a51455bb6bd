"""Any number of findings per image: a sigmoid and a threshold for each.

Thresholds are chosen on the validation split with the epoch that ships: where sensitivity plus specificity is largest
(Youden, Cancer 3 (1950), 32-35). Answers include the probabilities, so that a client may choose its own thresholds.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import compress
from typing import TYPE_CHECKING, Any, ClassVar, Self

from sagemaker_monai.tasks.postprocessing import Sigmoid, Thresholds
from sagemaker_monai.tasks.row import PROBABILITIES, Example, TakesNothing, TaskRow, named, numbers

if TYPE_CHECKING:
    import numpy as np
    import torch
    from numpy.typing import NDArray

    from sagemaker_monai.tasks.labels import Label
    from sagemaker_monai.tasks.task import Floats, Loss, LossOptions

MAJORITY = 0.5  # share of the annotators from which on a finding is there
DEFAULT_THRESHOLD = 0.5
LARGEST_WEIGHT = 100.0  # of a rare finding in the loss; above it one image would dominate a step (a guess)
OF_ALL = ("auc", "average_precision", "f1")  # scores that are means over the labels


@dataclass(frozen=True)
class MultiLabelPrediction:
    """The findings of one image: those at or above their thresholds, and the probability of each."""

    predicted_classes: tuple[str, ...]
    probabilities: dict[str, float]
    thresholds: dict[str, float]

    def fields(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "predicted_classes": list(self.predicted_classes),
            "probabilities": self.probabilities,
            "thresholds": self.thresholds,
        }

    def cells(self) -> dict[str, str | float]:
        """The same as one row of a table; names of classes are separated by |."""
        return {"predicted_classes": "|".join(self.predicted_classes), **self.probabilities}

    def findings(self) -> list[tuple[str, str, float, bool]]:
        """Every finding with its probability."""
        return [(label, "probability", p, label in self.predicted_classes) for label, p in self.probabilities.items()]


@dataclass(frozen=True)
class MultiLabel(TakesNothing):
    """See `task.Task`. Targets (N, K) are 0, 1 or shares of annotators; answers (N, K) are probabilities."""

    labels: tuple[str, ...]
    thresholds: tuple[float, ...] = ()
    name: ClassVar[str] = "multilabel"

    @property
    def outputs(self) -> int:
        """One per finding."""
        return len(self.labels)

    @property
    def _thresholds(self) -> np.ndarray:
        import numpy as np

        return np.array(self.thresholds or [DEFAULT_THRESHOLD] * len(self.labels))

    def target(self, label: Label) -> tuple[float, ...]:
        """Take a list of findings, perhaps empty, one finding, or an object of findings and shares from 0 to 1.

        Raises:
            ValueError: it is none of these, or a finding is not in labels.
        """
        if isinstance(label, str):
            label = (label,)
        shares = label if isinstance(label, dict) else dict.fromkeys(label, 1.0) if isinstance(label, tuple) else None
        if shares is None:
            raise ValueError("the label must be a list of classes, or an object of classes and their shares")
        if unknown := [name for name in shares if name not in self.labels]:
            raise ValueError(f"class {unknown[0][:60]!r} is not in labels")
        if not all(0 <= share <= 1 for share in shares.values()):
            raise ValueError("shares of classes must be from 0 to 1")
        return tuple(float(shares.get(name, 0.0)) for name in self.labels)

    def tuned(self, answers: Floats, targets: Floats, groups: Sequence[str]) -> Self:  # noqa: ARG002
        """With the best thresholds for these answers; 0.5 for a finding that all or no images have."""
        chosen = map(_best_threshold, answers.T, _is_there(targets).T)
        return replace(self, thresholds=tuple(chosen))

    def training_targets(self, targets: Floats) -> np.ndarray:
        """float32 (N, K)."""
        return targets.astype("float32")

    def build_loss(self, config: LossOptions, targets: torch.Tensor, device: torch.device) -> Loss:
        """Mean binary cross-entropy, with rare findings weighted more, or the focal loss."""
        import torch
        from torch.nn import functional

        positive = targets.sum(dim=0)
        weight = ((len(targets) - positive) / positive.clamp_min(1e-6)).clamp(1 / LARGEST_WEIGHT, LARGEST_WEIGHT)
        weight = (weight if config.imbalance == "class_weighted" else torch.ones_like(weight)).to(device)
        gamma = config.focal_gamma if config.imbalance == "focal" else 0.0

        def loss(outputs: torch.Tensor, shares: torch.Tensor) -> torch.Tensor:
            outputs = outputs.float()
            smoothed = shares * (1 - config.label_smoothing) + config.label_smoothing / 2
            each = functional.binary_cross_entropy_with_logits(outputs, smoothed, pos_weight=weight, reduction="none")
            if gamma:
                p = torch.sigmoid(outputs)
                each = each * (shares * (1 - p) + (1 - shares) * p).clamp_min(1e-12) ** gamma
            return each.mean()

        return loss

    def answers(self, outputs: torch.Tensor) -> torch.Tensor:
        """Probabilities (N, K)."""
        return Sigmoid()(outputs)

    def score(self, answers: Floats, targets: Floats) -> dict[str, Any]:
        """Binary log loss, and means over the labels of AUC, average precision, and F1 at the thresholds."""
        import numpy as np

        from sagemaker_monai.tasks import metrics

        metrics.refuse_nothing(targets)
        is_true = _is_there(targets)
        each = self._each(answers, is_true, metrics.once(targets))
        clipped = np.clip(answers, metrics.SMALLEST_PROBABILITY, 1 - metrics.SMALLEST_PROBABILITY)
        return {
            "loss": float(-np.where(is_true, np.log(clipped), np.log(1 - clipped)).mean()),
            "accuracy": float(((answers >= self._thresholds) == is_true).mean()),
            **{name: metrics.number(metrics.mean(each[name])[0]) for name in OF_ALL},
            "sensitivity": dict(zip(self.labels, each["sensitivity"][0].tolist(), strict=True)),
        }

    def report(self, answers: Floats, targets: Floats, groups: Sequence[str], *, seed: int) -> dict[str, Any]:
        """See `metrics.report_by_label`."""
        from sagemaker_monai.tasks import metrics

        scores, is_true = self.score(answers, targets), _is_there(targets)
        counts, thresholds = is_true.sum(axis=0).tolist(), self._thresholds.tolist()
        report = metrics.report_by_label(
            lambda weights: self._each(answers, is_true, weights),
            {name: scores[name] for name in ("loss", "accuracy", *OF_ALL)},
            self.labels,
            groups,
            facts=[{"images": count, "threshold": each} for count, each in zip(counts, thresholds, strict=True)],
            seed=seed,
        )
        return report | {"classes_without_auc": [k for k, row in report["per_class"].items() if row["auc"] is None]}

    def predictions(self, answers: torch.Tensor) -> list[MultiLabelPrediction]:
        """The findings of each image."""
        thresholds = self._thresholds.tolist()
        decided = Thresholds(thresholds)(answers)
        return [
            MultiLabelPrediction(
                tuple(compress(self.labels, is_predicted)),
                dict(zip(self.labels, probabilities, strict=True)),
                dict(zip(self.labels, thresholds, strict=True)),
            )
            for probabilities, is_predicted in zip(decided["probabilities"], decided["is_predicted"], strict=True)
        ]

    def postprocessing(self) -> list[dict[str, Any]]:
        """Sigmoid, then the thresholds."""
        return [
            {"_target_": "sagemaker_monai.tasks.Sigmoid"},
            {"_target_": "sagemaker_monai.tasks.Thresholds", "thresholds": self._thresholds.tolist()},
        ]

    def _each(self, answers: Floats, is_true: np.ndarray, weights: Floats) -> dict[str, Floats]:
        """Scores of every label (R, K) under weights (R, N), NaN where undefined."""
        import numpy as np

        from sagemaker_monai.tasks import metrics

        is_predicted = answers >= self._thresholds
        hits, true = weights @ (is_predicted & is_true), weights @ is_true
        predicted, total = weights @ is_predicted, weights.sum(axis=1, keepdims=True)
        columns = range(answers.shape[1])
        return {
            "sensitivity": metrics.divide(hits, true),
            "specificity": metrics.divide(total - true - (predicted - hits), total - true),
            "precision": metrics.divide(hits, predicted),
            "f1": np.where(true > 0, metrics.divide(2 * hits, true + predicted), np.nan),
            "auc": np.stack([metrics.area(answers[:, i], is_true[:, i], weights) for i in columns], axis=1),
            "average_precision": np.stack(
                [_average_precisions(answers[:, i], is_true[:, i], weights) for i in columns], axis=1
            ),
        }


def _average_precisions(scores: Floats, is_true: np.ndarray, weights: Floats) -> Floats:
    """Mean precision over the positives, (R,); tied scores count as one threshold. NaN without positives.

    Source: scikit-learn's definition, sum of (R_n - R_(n-1)) P_n over falling thresholds.
    """
    import numpy as np

    from sagemaker_monai.tasks import metrics

    order = np.argsort(-scores, kind="stable")
    ends = np.append(np.flatnonzero(np.diff(scores[order])), len(scores) - 1)  # the last image of each threshold
    ordered = weights[:, order]
    hits = np.cumsum(ordered * is_true[order], axis=1)[:, ends]
    precision = np.nan_to_num(metrics.divide(hits, np.cumsum(ordered, axis=1)[:, ends]))
    gained = np.diff(hits, axis=1, prepend=0.0)
    return metrics.divide((gained * precision).sum(axis=1), hits[:, -1])


def _best_threshold(scores: Floats, is_true: np.ndarray) -> float:
    """The middle of the gap with the largest sensitivity plus specificity; of several, the one nearest 0.5."""
    import numpy as np

    if is_true.all() or not is_true.any():
        return DEFAULT_THRESHOLD
    values = np.unique(scores)
    candidates = np.concatenate([[values[0]], (values[:-1] + values[1:]) / 2])
    positives, negatives = np.sort(scores[is_true]), np.sort(scores[~is_true])
    sensitivity = 1 - np.searchsorted(positives, candidates, side="left") / len(positives)
    specificity = np.searchsorted(negatives, candidates, side="left") / len(negatives)
    youden = sensitivity + specificity
    best = candidates[youden >= youden.max() - 1e-12]
    return float(best[np.argmin(np.abs(best - DEFAULT_THRESHOLD))])


def _rarest(targets: Floats) -> NDArray[np.int64]:
    """The rarest finding of each image, (N,); K for images without findings."""
    import numpy as np

    is_there = _is_there(targets)
    rank = np.where(is_there, is_there.sum(axis=0), len(targets) + 1)
    strata: NDArray[np.int64] = np.where(is_there.any(axis=1), rank.argmin(axis=1), targets.shape[1])
    return strata


def _is_there(targets: Floats) -> NDArray[np.bool_]:
    is_there: NDArray[np.bool_] = targets >= MAJORITY
    return is_there


ROW = TaskRow(
    name=MultiLabel.name,
    build=MultiLabel,
    read=lambda steps, labels: MultiLabel(labels, thresholds=numbers(steps[1]["thresholds"], len(labels))),
    form="findings",
    labels_are="any number of findings",
    label_type=tuple,
    fewest_labels=1,
    strata=_rarest,
    presence=_is_there,
    imbalance=("class_weighted", "none", "focal"),
    metrics=named("loss", "accuracy", "auc", "average_precision", "f1"),
    best_metric="auc",
    schema=("multi-label classification", PROBABILITIES),
    heads=("predicted_classes",),
    quality_group="multilabel_classification_metrics",
    sentence="classifier of images by {}, any number of which may be there",
    noun="finding",
    amounts="Images by finding",
    caution="Its probabilities are not calibrated; a finding is answered from its threshold on, which was chosen on "
    "the validation split.",
    loss="binary cross-entropy of a sigmoid for each finding",
    example=lambda: Example(
        MultiLabel(("effusion", "nodule", "cardiomegaly"), thresholds=(0.5, 0.25, 0.375)),
        (("effusion",), (), ("effusion", "nodule", "cardiomegaly")),
        (0.75, 0.125, 0.4375),
    ),
)
