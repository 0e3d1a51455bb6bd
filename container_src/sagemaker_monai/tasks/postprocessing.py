"""The last steps of an artifact, from a network's outputs to answers, as transforms that MONAI's tools can build.

The tasks use these classes too, so that MONAI and `serve` give the same numbers, bit for bit (MONAI's own
`Activations`, which artifacts from earlier versions name, computes in float32). Artifacts name them as members of
`sagemaker_monai.tasks`. Each takes the outputs of one image (K,) or of a batch (N, K). torch is imported where it is
used, because the tables of tasks are read where it is not installed.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from sagemaker_monai.errors import BundleError
from sagemaker_monai.tasks.components import keep_largest
from sagemaker_monai.tasks.regions import Regions, paint

if TYPE_CHECKING:
    import torch


def finite(outputs: torch.Tensor) -> torch.Tensor:
    """Outputs in float64 on the CPU; raises a BundleError if one is not finite, as the classes below do."""
    outputs = outputs.detach().cpu().double()
    if not outputs.isfinite().all():
        raise BundleError("the network's outputs are not finite: its weights are damaged")
    return outputs


class Softmax:
    """Probabilities of classes from their logits."""

    def __call__(self, outputs: torch.Tensor) -> torch.Tensor:
        """From (..., K) to float64 of the same shape on the CPU, which sum to 1."""
        return finite(outputs).softmax(dim=-1)


class Sigmoid:
    """The probability of each finding from its logit."""

    def __call__(self, outputs: torch.Tensor) -> torch.Tensor:
        """From (..., K) to float64 of the same shape on the CPU."""
        return finite(outputs).sigmoid()


class Thresholds:
    """Findings from their probabilities.

    Args:
        thresholds: one per finding, from 0 to 1; a finding is present if its probability is not below.
    """

    def __init__(self, thresholds: Sequence[float]) -> None:
        self.thresholds = list(thresholds)

    def __call__(self, probabilities: torch.Tensor) -> dict[str, Any]:
        """From (..., K) to nested lists: `probabilities`, the same, and `is_predicted`, as many truth values."""
        thresholds = probabilities.new_tensor(self.thresholds)
        return {"probabilities": probabilities.tolist(), "is_predicted": (probabilities >= thresholds).tolist()}


class Rescale:
    """Numbers in the unit of the labels from standardised outputs: `output * std + mean`.

    Args:
        mean, std: one per number, in its unit.
    """

    def __init__(self, mean: Sequence[float], std: Sequence[float]) -> None:
        self.mean, self.std = list(mean), list(std)

    def __call__(self, outputs: torch.Tensor) -> torch.Tensor:
        """From (..., K) to float64 of the same shape on the CPU."""
        values = finite(outputs)
        return values * values.new_tensor(self.std) + values.new_tensor(self.mean)


class ConditionalOrdinal:
    """Probabilities of grades from the logits of "above grade k, given that it is above grade k - 1".

    Source: arXiv:2111.08851.
    """

    def __call__(self, outputs: torch.Tensor) -> torch.Tensor:
        """From (..., K - 1) to float64 (..., K) on the CPU, which sum to 1."""
        import torch

        above = finite(outputs).sigmoid().cumprod(dim=-1)  # falling
        ones, zeros = torch.ones_like(above[..., :1]), torch.zeros_like(above[..., :1])
        return torch.cat([ones, above], dim=-1) - torch.cat([above, zeros], dim=-1)


class LabelMap:
    """The label of each voxel, of the logits of the background and the structures: the first of the largest."""

    target: ClassVar[str] = "sagemaker_monai.tasks.LabelMap"

    def __call__(self, outputs: torch.Tensor) -> torch.Tensor:
        """From (K + 1, ...) to uint8 (...) on the CPU.

        Raises:
            BundleError: an output is not finite.
        """
        import torch

        first, *others = _finite_logits(outputs)
        # What `argmax` gives, in less memory and time: 28 times as fast for 2 outputs, 8 times for 4, twice for 105
        # (one core of a Xeon), because `argmax` goes from plane to plane for each voxel.
        largest, labels = first.clone(), torch.zeros(first.shape, dtype=torch.uint8)
        for label, logits in enumerate(others, start=1):
            labels.masked_fill_(logits > largest, label)
            torch.maximum(largest, logits, out=largest)
        return labels

    def step(self) -> dict[str, Any]:
        """Itself as data for an artifact."""
        return {"_target_": self.target}


class RegionMap:
    """The part of each voxel, of the logits of structures that overlap, see `regions.paint`.

    Args:
        regions, painted, values: `members`, `painted` and `values` of `regions.Regions`.

    Raises:
        ValueError: as of `regions.Regions`.
    """

    target: ClassVar[str] = "sagemaker_monai.tasks.RegionMap"

    def __init__(self, regions: Sequence[Sequence[int]], painted: Sequence[int], values: Sequence[int]) -> None:
        self.regions = Regions(tuple(map(tuple, regions)), tuple(painted), tuple(values))

    def __call__(self, outputs: torch.Tensor) -> torch.Tensor:
        """From (K, ...) to uint8 (...) on the CPU, 0 for the background.

        Raises:
            BundleError: an output is not finite.
        """
        return paint(_finite_logits(outputs), self.regions)

    def step(self) -> dict[str, Any]:
        """Itself as data for an artifact."""
        regions = self.regions
        return {
            "_target_": self.target,
            "regions": [list(numbers) for numbers in regions.members],
            "painted": list(regions.painted),
            "values": list(regions.values),
        }


class LargestComponents:
    """Only the largest component of some structures, see `components.keep_largest`.

    Args:
        structures: their numbers in the label map.

    Raises:
        ValueError: they are not whole numbers from 1 on, ascending.
    """

    target: ClassVar[str] = "sagemaker_monai.tasks.LargestComponents"

    def __init__(self, structures: Sequence[int]) -> None:
        self.structures = tuple(structures)
        is_whole = all(type(number) is int and number > 0 for number in self.structures)
        if not (is_whole and list(self.structures) == sorted(set(self.structures))):
            raise ValueError("structures are whole numbers from 1 on, ascending")

    def __call__(self, labels: torch.Tensor) -> torch.Tensor:
        """From a label map uint8 (...) on the CPU to another one."""
        import torch

        kept = labels.numpy().copy()
        keep_largest(kept, self.structures)
        return torch.from_numpy(kept)

    def step(self) -> dict[str, Any]:
        """Itself as data for an artifact."""
        return {"_target_": self.target, "structures": list(self.structures)}


def _finite_logits(outputs: torch.Tensor) -> torch.Tensor:
    """Outputs on the CPU, as they are; raises a BundleError if one is not finite."""
    outputs = outputs.detach().cpu()
    if not outputs.isfinite().all():
        raise BundleError("the network answers with values that are not finite: its weights are damaged")
    return outputs
