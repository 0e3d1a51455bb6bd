"""What every task has: how labels become targets, network outputs answers, and answers scores and predictions.

A task is a frozen value of its labels and the few numbers that belong to them (thresholds, a mean); the artifact stores
it as `postprocessing`, from which training, scoring and serving build it (`tasks.tasks`).
"""

from collections.abc import Callable, Sequence
from typing import Any, Protocol, Self

import numpy as np
import torch
from numpy.typing import NDArray

from sagemaker_monai.tasks.labels import Label

Floats = NDArray[np.float64]
Loss = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


class LossOptions(Protocol):
    """The hyperparameters of a loss, see `hyperparameters.TrainConfig`."""

    @property
    def imbalance(self) -> str: ...  # noqa: D102
    @property
    def focal_gamma(self) -> float: ...  # noqa: D102
    @property
    def logit_adjustment_tau(self) -> float: ...  # noqa: D102
    @property
    def label_smoothing(self) -> float: ...  # noqa: D102


class Prediction(Protocol):
    """The answer for one image."""

    def fields(self) -> dict[str, Any]:
        """For JSON."""

    def cells(self) -> dict[str, str | float]:
        """The same as one row of a table."""

    def findings(self) -> list[tuple[str, str, float, bool]]:
        """For a report: name, kind ("probability" or "value"), number, and whether it is the model's decision."""


class Task(Protocol):
    """See `classification`, `multilabel`, `ordinal` and `regression`.

    Attributes:
        name: a key of `tasks.TASKS`.
        labels: names in the order of the answers' columns.
        outputs: of the network.
    """

    @property
    def name(self) -> str: ...  # noqa: D102 - see above
    @property
    def labels(self) -> tuple[str, ...]: ...  # noqa: D102
    @property
    def outputs(self) -> int: ...  # noqa: D102

    def target(self, label: Label) -> tuple[float, ...]:
        """One label as numbers.

        Raises:
            ValueError: it is not a label of this task; the message says why, without the image.
        """

    def fitted(self, targets: Floats) -> Self:
        """The task with what it learns from the training split's targets (N, T)."""

    def tuned(self, answers: Floats, targets: Floats, groups: Sequence[str]) -> Self:
        """The task with what it learns from the chosen epoch's answers on the validation split of groups (N,)."""

    def training_targets(self, targets: Floats) -> np.ndarray:
        """What the loss takes, one row per image, from the targets (N, T)."""

    def build_loss(self, config: LossOptions, targets: torch.Tensor, device: torch.device) -> Loss:
        """The training loss: the mean over a batch, float32.

        Args:
            config: without `auto`.
            targets: of the training split, from `training_targets`.
            device: of the outputs.
        """

    def answers(self, outputs: torch.Tensor) -> torch.Tensor:
        """Network outputs (N, outputs) as answers, float64 on the CPU.

        Raises:
            BundleError: an output is not finite.
        """

    def score(self, answers: Floats, targets: Floats) -> dict[str, Any]:
        """Every score of the row's `metrics`, None where undefined.

        Raises:
            DatasetError: there are no images.
        """

    def report(self, answers: Floats, targets: Floats, groups: Sequence[str], *, seed: int) -> dict[str, Any]:
        """The scores in metrics.json, with 95 % intervals from resampling whole groups."""

    def predictions(self, answers: torch.Tensor) -> Sequence[Prediction]:
        """One prediction per row of answers."""

    def postprocessing(self) -> list[dict[str, Any]]:
        """The task as data for the artifact: a list of transforms."""
