"""Rotations, zooms and shifts of a batch: one affine matrix per image, and one resampling, for pictures and volumes.

A matrix maps output positions to input positions, (w, h[, d], 1), in pixels from the image's centre, isotropic even if
the sides differ. This is the convention of `monai.transforms.Affine(affine=...)`, which the tests compare against.
"""

import math
from collections.abc import Mapping
from typing import Any, Literal

import torch
from torch.nn import functional


def identity(count: int, dims: int, device: torch.device) -> torch.Tensor:
    """Identity matrices, float32 (count, dims + 1, dims + 1)."""
    return torch.eye(dims + 1, device=device).repeat(count, 1, 1)


def turn(angle_rad: torch.Tensor, dims: int, first: int = 0, second: int = 1) -> torch.Tensor:
    """A rotation in the plane of two axes, (N, dims + 1, dims + 1) for angles (N,)."""
    matrix = identity(len(angle_rad), dims, angle_rad.device)
    matrix[:, first, first] = matrix[:, second, second] = angle_rad.cos()
    matrix[:, second, first] = angle_rad.sin()
    matrix[:, first, second] = -matrix[:, second, first]
    return matrix


def drawn_zoom(step: Mapping[str, Any], draws: torch.Tensor) -> torch.Tensor:
    """Matrix factors for zooms between `smallest` and `largest`, (N,) from draws (N,) in [0, 1]."""
    # Uniform in the logarithm: half as large is as likely as twice as large.
    low, high = math.log(step["smallest"]), math.log(step["largest"])
    return torch.exp(-(low + draws * (high - low)))


Padding = Literal["reflection", "border"]


def warp_labels(
    labels: torch.Tensor | None, matrices: torch.Tensor, padding_mode: Padding = "reflection"
) -> torch.Tensor | None:
    """Resample label maps (N, 1, W, H[, D]) as `warp` does, each voxel with the nearest label; None for none."""
    if labels is None:
        return None
    return warp(labels.to(torch.float32), matrices, padding_mode, mode="nearest").to(labels.dtype)


def warp(
    values: torch.Tensor,
    matrices: torch.Tensor,
    padding_mode: Padding = "reflection",
    *,
    mode: Literal["bilinear", "nearest"] = "bilinear",
) -> torch.Tensor:
    """Resample every image by its own matrix, with linear interpolation or, by `mode`, of the nearest value.

    Args:
        values: float32 (N, C, W, H) or (N, C, W, H, D).
        matrices: float32 (N, d + 1, d + 1).
        padding_mode: how to fill in from outside the image: mirrored, or with the border repeated.

    Returns:
        float32 of the same shape.
    """
    size = values.shape[2:]
    dims = len(size)
    # Not affine_grid: its product of (W * H, 3) and (3, 2) matrices takes longer than the sampling itself.
    # grid_sample's coordinates run from -1 to 1, last axis first.
    halves = values.new_tensor([[side / 2] for side in size])
    matrices = (matrices[:, :dims] / halves).flip(1)  # (N, dims, dims + 1)
    grid = matrices[:, :, dims].reshape(-1, dims, *[1] * dims)
    for axis, side in enumerate(size):
        along = torch.arange(side, device=values.device) - (side - 1) / 2
        shape = [1] * dims
        shape[axis] = side
        grid = grid + matrices[:, :, axis].reshape(-1, dims, *[1] * dims) * along.reshape(shape)
    grid = grid.movedim(1, -1)  # (N, W, H[, D], dims)
    return functional.grid_sample(values, grid, mode=mode, padding_mode=padding_mode, align_corners=False)
