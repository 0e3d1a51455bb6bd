"""The scale halves: `(values - mean) / std` for each channel, in float32 and in this order.

Each value is computed alone, so that one image, the same image in a batch, and its values as floats give the same bits.
torch is imported on use, as in `preprocessing`.
"""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


class Normalize:
    """The scale half.

    Args:
        mean: one number per channel, in the unit of the load half, or of `unit` if there is one.
        std: same, above 0.
    """

    possible_channels: Sequence[int]
    spatial_dims: int | None = None  # None: all axes but the first
    unit: float | None = None  # that values are divided by first

    def __init__(self, mean: Sequence[float], std: Sequence[float]) -> None:
        for name, values in (("mean", mean), ("std", std)):
            if not isinstance(values, list | tuple) or len(values) not in self.possible_channels:
                counts = ", ".join(map(str, self.possible_channels))
                raise ValueError(f"{name} must be a list of {counts} numbers, got {values!r}")
            if not all(type(value) in (int, float) and math.isfinite(value) for value in values):
                raise ValueError(f"{name} must hold finite numbers, got {values!r}")
        if len(mean) != len(std):
            raise ValueError(f"mean and std must be equally long, got {len(mean)} and {len(std)}")
        if min(std) <= 0:
            raise ValueError(f"std must be above 0, got {std!r}")
        self.mean = [float(value) for value in mean]
        self.std = [float(value) for value in std]

    def __call__(self, values: "torch.Tensor", spatial_dims: int | None = None) -> "torch.Tensor":
        """Scale to float32 of the same shape and device.

        Args:
            values: of any type, not changed: (C, W, H[, D]), one image as MONAI's transforms take it; or any
                (..., C, W, H[, D]).
            spatial_dims: axes after the channel, needed unless `values` are one image.
        """
        import torch

        axes = spatial_dims or self.spatial_dims or values.ndim - 1
        means, deviations = (
            torch.tensor(each, dtype=torch.float32, device=values.device).reshape(-1, *[1] * axes)
            for each in (self.mean, self.std)
        )
        scaled = values.to(torch.float32, copy=True)
        if self.unit is not None:
            scaled.div_(self.unit)
        return scaled.sub_(means).div_(deviations)
