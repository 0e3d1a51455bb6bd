"""Turns, zooms and shifts of a batch as one affine matrix an image, and the one resampling by it, for pictures and
volumes.

A matrix maps where a pixel goes to where it comes from, (w, h[, d], 1), in pixels from the image's centre: equal in all
directions, also when the sides are not. This is the convention of `monai.transforms.Affine(affine=...)`, against which
the tests check it.
"""

import math
from collections.abc import Mapping
from typing import Any, Literal

import torch
from torch.nn import functional


def identity(count: int, dims: int, device: torch.device) -> torch.Tensor:
    """Matrices that change nothing, float32 (count, dims + 1, dims + 1)."""
    return torch.eye(dims + 1, device=device).repeat(count, 1, 1)


def turn(angle_rad: torch.Tensor, dims: int, first: int = 0, second: int = 1) -> torch.Tensor:
    """A rotation in the plane of two axes, (N, dims + 1, dims + 1) for angles (N,)."""
    matrix = identity(len(angle_rad), dims, angle_rad.device)
    matrix[:, first, first] = matrix[:, second, second] = angle_rad.cos()
    matrix[:, second, first] = angle_rad.sin()
    matrix[:, first, second] = -matrix[:, second, first]
    return matrix


def drawn_zoom(step: Mapping[str, Any], draws: torch.Tensor) -> torch.Tensor:
    """The factor of a matrix for a zoom between `smallest` and `largest`, (N,) for draws (N,) from 0 to 1."""
    # Even in the logarithm: half as large is as likely as twice as large.
    low, high = math.log(step["smallest"]), math.log(step["largest"])
    return torch.exp(-(low + draws * (high - low)))


def warp(
    values: torch.Tensor, matrices: torch.Tensor, padding_mode: Literal["reflection", "border"] = "reflection"
) -> torch.Tensor:
    """Resample every image by its own matrix, linear.

    Args:
        values: float32 (N, C, W, H) or (N, C, W, H, D).
        matrices: float32 (N, d + 1, d + 1).
        padding_mode: what is outside: the image's mirror image, or its border repeated.

    Returns:
        float32 of the same shape.
    """
    size = values.shape[2:]
    dims = len(size)
    # Not affine_grid: its product of (W * H, 3) and (3, 2) matrices takes longer than the sampling itself.
    # grid_sample counts from -1 to 1, and names the last axis first.
    halves = values.new_tensor([[side / 2] for side in size])
    matrices = (matrices[:, :dims] / halves).flip(1)  # (N, dims, dims + 1)
    grid = matrices[:, :, dims].reshape(-1, dims, *[1] * dims)
    for axis, side in enumerate(size):
        along = torch.arange(side, device=values.device) - (side - 1) / 2
        shape = [1] * dims
        shape[axis] = side
        grid = grid + matrices[:, :, axis].reshape(-1, dims, *[1] * dims) * along.reshape(shape)
    grid = grid.movedim(1, -1)  # (N, W, H[, D], dims)
    return functional.grid_sample(values, grid, mode="bilinear", padding_mode=padding_mode, align_corners=False)
