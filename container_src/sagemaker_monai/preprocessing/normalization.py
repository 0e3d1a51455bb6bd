"""The arithmetic of both scale halves: `(values - mean) / std` for each channel, in float32 and in this order.

Each value is computed alone, so that one image, the same in a batch, and its values as float give the same bits. torch
is imported where it is used, as in `preprocessing`.
"""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


def check_scale(mean: Sequence[float], std: Sequence[float], *, counts: range | Sequence[int], described: str) -> None:
    """Refuse what is no mean and standard deviation of each channel.

    Args:
        mean, std: plain data, possibly from a file that is not trusted.
        counts: how many channels there may be.
        described: the same in words.

    Raises:
        ValueError: not lists of as many finite numbers, or a standard deviation that is not above 0.
    """
    for name, values in (("mean", mean), ("std", std)):
        if not isinstance(values, list | tuple) or len(values) not in counts:
            raise ValueError(f"{name} must be a list of {described} numbers, got {values!r}")
        if not all(type(value) in (int, float) and math.isfinite(value) for value in values):
            raise ValueError(f"{name} must hold finite numbers, got {values!r}")
    if len(mean) != len(std):
        raise ValueError(f"mean and std must be equally long, got {len(mean)} and {len(std)}")
    if min(std) <= 0:
        raise ValueError(f"std must be above 0, got {std!r}")


def standardize(
    values: "torch.Tensor", mean: Sequence[float], std: Sequence[float], *, spatial_dims: int, unit: float | None = None
) -> "torch.Tensor":
    """Scale values (..., C, W, H[, D]) to float32 of the same shape and device.

    Args:
        values: any type; not changed.
        mean, std: one number a channel.
        spatial_dims: axes behind the channel.
        unit: what values are divided by first.
    """
    import torch

    shape = (len(mean), *[1] * spatial_dims)
    means = torch.tensor(mean, dtype=torch.float32, device=values.device).reshape(shape)
    deviations = torch.tensor(std, dtype=torch.float32, device=values.device).reshape(shape)
    scaled = values.to(torch.float32, copy=True)
    if unit is not None:
        scaled.div_(unit)
    return scaled.sub_(means).div_(deviations)
