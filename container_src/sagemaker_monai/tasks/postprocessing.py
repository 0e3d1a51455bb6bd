"""The last steps of an artifact, as transforms that MONAI's tools can build: from a network's outputs to answers.

The tasks answer with these very classes, so that MONAI and `serve` give the same numbers to the bit (MONAI's own
`Activations`, which artifacts from before name, computes in float32). Artifacts know them by
their names in `sagemaker_monai.tasks`. Each takes the outputs of one image (K,) or of a batch (N, K). torch is imported
where it is used, since the tables of tasks are read where it is not installed.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from sagemaker_monai.errors import BundleError

if TYPE_CHECKING:
    import torch


def finite(outputs: torch.Tensor) -> torch.Tensor:
    """Outputs in float64 on the CPU.

    Raises:
        BundleError: one is not finite, so no answer can be given.
    """
    outputs = outputs.detach().cpu().double()
    if not outputs.isfinite().all():
        raise BundleError("the network answers with values that are not finite: its weights are damaged")
    return outputs


class Softmax:
    """Probabilities of classes, of their logits."""

    def __call__(self, outputs: torch.Tensor) -> torch.Tensor:
        """From (..., K) to float64 of the same shape on the CPU, which sum to 1.

        Raises:
            BundleError: an output is not finite.
        """
        return finite(outputs).softmax(dim=-1)


class Sigmoid:
    """The probability of each finding by itself, of its logit."""

    def __call__(self, outputs: torch.Tensor) -> torch.Tensor:
        """From (..., K) to float64 of the same shape on the CPU.

        Raises:
            BundleError: an output is not finite.
        """
        return finite(outputs).sigmoid()


class Thresholds:
    """Findings of their probabilities.

    Args:
        thresholds: one a finding, from 0 to 1; a finding is there if its probability is not below.
    """

    def __init__(self, thresholds: Sequence[float]) -> None:
        self.thresholds = list(thresholds)

    def __call__(self, probabilities: torch.Tensor) -> dict[str, Any]:
        """Decide about each finding.

        Args:
            probabilities: (..., K).

        Returns:
            `probabilities`, the same as nested lists, and `is_predicted`, as many truth values.
        """
        thresholds = probabilities.new_tensor(self.thresholds)
        return {"probabilities": probabilities.tolist(), "is_predicted": (probabilities >= thresholds).tolist()}


class Rescale:
    """Standardised outputs as numbers in the unit of the labels: `output * std + mean`.

    Args:
        mean, std: one a number, in its unit.
    """

    def __init__(self, mean: Sequence[float], std: Sequence[float]) -> None:
        self.mean, self.std = list(mean), list(std)

    def __call__(self, outputs: torch.Tensor) -> torch.Tensor:
        """From (..., K) to float64 on the CPU of the same shape.

        Raises:
            BundleError: an output is not finite.
        """
        values = finite(outputs)
        return values * values.new_tensor(self.std) + values.new_tensor(self.mean)


class ConditionalOrdinal:
    """Probabilities of grades, of the logits of "above grade k, given that it is above grade k - 1".

    Source: arXiv:2111.08851.
    """

    def __call__(self, outputs: torch.Tensor) -> torch.Tensor:
        """From (..., K - 1) to float64 (..., K) on the CPU, which sum to 1.

        Raises:
            BundleError: an output is not finite.
        """
        import torch

        above = finite(outputs).sigmoid().cumprod(dim=-1)  # falling
        ones, zeros = torch.ones_like(above[..., :1]), torch.zeros_like(above[..., :1])
        return torch.cat([ones, above], dim=-1) - torch.cat([above, zeros], dim=-1)
