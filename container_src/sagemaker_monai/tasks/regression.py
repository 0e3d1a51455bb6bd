"""Numbers per image, such as an age or a volume: standardised for the network, answered in their own unit."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar, Self

from sagemaker_monai.tasks.postprocessing import Rescale
from sagemaker_monai.tasks.row import OF_IMAGE, Example, TakesNothing, TaskRow, named, numbers

if TYPE_CHECKING:
    import numpy as np
    import torch
    from numpy.typing import NDArray

    from sagemaker_monai.tasks.labels import Label
    from sagemaker_monai.tasks.task import Floats, Loss, LossOptions

SCORES = ("mae", "rmse", "r2")
STRATA = 4  # by quartile: a split has numbers of every size


@dataclass(frozen=True)
class RegressionPrediction:
    """The numbers of one image by name, in the unit of the labels."""

    values: dict[str, float]

    def fields(self) -> dict[str, Any]:
        """For JSON."""
        return {"values": self.values}

    def cells(self) -> dict[str, str | float]:
        """The same as one row of a table."""
        return dict(self.values)

    def findings(self) -> list[tuple[str, str, float, bool]]:
        """Every number."""
        return [(name, "value", value, False) for name, value in self.values.items()]


@dataclass(frozen=True)
class Regression(TakesNothing):
    """See `task.Task`. Targets and answers (N, K) are numbers in the unit of the labels.

    Attributes:
        mean, std: of the training split's targets; what the network answers is (value - mean) / std.
    """

    labels: tuple[str, ...]
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    name: ClassVar[str] = "regression"

    @property
    def outputs(self) -> int:
        """One per number."""
        return len(self.labels)

    def target(self, label: Label) -> tuple[float, ...]:
        """Take a number, also as text, or an object of names and numbers if there are several.

        Raises:
            ValueError: it is not a finite number, or the names are not those of labels.
        """
        if isinstance(label, dict):
            if set(label) != set(self.labels):
                raise ValueError(f"the label must have a number for each of {', '.join(self.labels)[:200]}")
            values = [label[name] for name in self.labels]
        else:
            try:
                values = [float(label)]  # type: ignore[arg-type]
            except (TypeError, ValueError):
                raise ValueError("the label must be a number") from None
        if len(values) != len(self.labels) or not all(math.isfinite(number) for number in values):
            raise ValueError("the label must be one finite number")
        return tuple(float(number) for number in values)

    def fitted(self, targets: Floats) -> Self:
        """With the training split's mean and standard deviation; a constant target is only centred."""
        mean, std = targets.mean(axis=0).tolist(), targets.std(axis=0).tolist()
        return replace(self, mean=tuple(mean), std=tuple(value or 1.0 for value in std))

    def training_targets(self, targets: Floats) -> np.ndarray:
        """float32 (N, K), standardised."""
        return ((targets - self.mean) / self.std).astype("float32")

    def build_loss(self, config: LossOptions, targets: torch.Tensor, device: torch.device) -> Loss:  # noqa: ARG002
        """Smooth L1 of the standardised numbers: quadratic only near 0, so that outliers do not dominate."""
        from torch.nn import functional

        return lambda outputs, wanted: functional.smooth_l1_loss(outputs.float(), wanted)

    def answers(self, outputs: torch.Tensor) -> torch.Tensor:
        """Numbers (N, K) in the unit of the labels."""
        return Rescale(self.mean, self.std)(outputs)

    def score(self, answers: Floats, targets: Floats) -> dict[str, Any]:
        """The loss of the standardised numbers; MAE, RMSE and R2, as means over the labels."""
        import torch
        from torch.nn import functional

        from sagemaker_monai.tasks import metrics

        metrics.refuse_nothing(targets)
        each = _each(answers, targets, metrics.once(targets))
        standardised = torch.from_numpy((answers - targets) / self.std)
        return {
            "loss": float(functional.smooth_l1_loss(standardised, torch.zeros_like(standardised))),
            **{name: metrics.number(metrics.mean(each[name])[0]) for name in SCORES},
        }

    def report(self, answers: Floats, targets: Floats, groups: Sequence[str], *, seed: int) -> dict[str, Any]:
        """See `metrics.report_by_label`."""
        from sagemaker_monai.tasks import metrics

        return metrics.report_by_label(
            lambda weights: _each(answers, targets, weights),
            self.score(answers, targets),
            self.labels,
            groups,
            facts=[{"mean": float(column.mean())} for column in targets.T],
            seed=seed,
        )

    def predictions(self, answers: torch.Tensor) -> list[RegressionPrediction]:
        """The numbers of each image."""
        return [RegressionPrediction(dict(zip(self.labels, row, strict=True))) for row in answers.tolist()]

    def postprocessing(self) -> list[dict[str, Any]]:
        """value = output * std + mean."""
        return [{"_target_": "sagemaker_monai.tasks.Rescale", "mean": list(self.mean), "std": list(self.std)}]


def _each(answers: Floats, targets: Floats, weights: Floats) -> dict[str, Floats]:
    """Scores of every label (R, K) under weights (R, N)."""
    import numpy as np

    from sagemaker_monai.tasks import metrics

    total = weights.sum(axis=1, keepdims=True)
    errors = answers - targets
    squares = weights @ errors**2
    centred = targets - targets.mean(axis=0)  # avoids the difference of two large numbers below
    spread = weights @ centred**2 - (weights @ centred) ** 2 / total
    return {
        "mae": (weights @ np.abs(errors)) / total,
        "rmse": np.sqrt(squares / total),
        "r2": 1 - metrics.divide(squares, np.where(spread > 1e-12, spread, 0.0)),
    }


def _quartiles(targets: Floats) -> NDArray[np.int64]:
    """Quartiles of the first number, (N,)."""
    import numpy as np

    edges = np.quantile(targets[:, 0], np.linspace(0, 1, STRATA + 1)[1:-1])
    strata: NDArray[np.int64] = np.searchsorted(edges, targets[:, 0], side="right")
    return strata


def _read(steps: Any, labels: tuple[str, ...]) -> Regression:
    mean, std = (numbers(steps[0][name], len(labels)) for name in ("mean", "std"))
    if min(std) <= 0:
        raise ValueError("std must be above 0")
    return Regression(labels, mean=mean, std=std)


ROW = TaskRow(
    name=Regression.name,
    build=Regression,
    read=_read,
    form="number",
    labels_are="numbers",
    label_type=float,
    fewest_labels=1,
    strata=_quartiles,
    presence=None,
    imbalance=("none",),
    metrics=named("loss", "mae", "rmse", "r2"),
    best_metric="mae",
    by_label="",
    schema=("regression", {"type": "values", "format": "values", "value_range": [], **OF_IMAGE}),
    heads=(),
    numbers="values",
    quality_group="regression_metrics",
    model="regressor",
    sentence="regressor from images to {}",
    noun="number",
    amounts="Means of the numbers",
    caution="Its numbers do not show how certain they are.",
    loss="smooth L1 of standardised numbers",
    example=lambda: Example(Regression(("age",), mean=(60.0,), std=(12.0,)), (40.0, 50.0, 90.0), (71.5,)),
)
