"""Random transforms of a whole batch of slices or volumes, on the batch's device, for training only.

The steps, in the order of `GREY_STEPS`: mirror, affine (rotation, zoom and shift as one matrix and one `grid_sample`),
intensity, noise. Outside the image its border is repeated: a mirrored rib would be a finding, and a value not in the
image would reveal the angle to the network. Strengths are relative to each image's own standard deviation, so that they
mean the same for windows, z-scores and HU; nothing is clipped.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from sagemaker_monai.training.affine import drawn_zoom, identity, turn, warp, warp_labels

Step = Mapping[str, Any]

# Columns of each step's random numbers, which are always all drawn.
_COLUMNS = {"mirror": slice(0, 3), "affine": slice(3, 13), "intensity": slice(13, 16), "noise": slice(16, 18)}
_DRAWS = 18
GREY_STEPS = tuple(_COLUMNS)


def augment_grey(
    batch: torch.Tensor,
    labels: torch.Tensor | None,
    steps: Sequence[Step],
    generator: torch.Generator,
    *,
    skipped: int,
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Transform a batch as `augmentation.augment` does, of any type and range.

    A CPU generator gives the same transforms on any device, except for the noise, which a GPU draws itself.
    """
    by_name = {step["step"]: step for step in steps}
    draws = torch.rand((skipped + len(batch), _DRAWS), generator=generator, device=generator.device)[skipped:]
    # Where they were drawn, so that reading the seeds does not wait for a GPU.
    seeds = draws[:, _COLUMNS["noise"]].double()
    draws = draws.to(batch.device)
    if "mirror" in by_name:
        axes = [axis for axis in by_name["mirror"]["axes"] if axis < batch.ndim - 2]
        is_mirrored = draws[:, _COLUMNS["mirror"]] < by_name["mirror"]["probability"]
        for axis in axes:
            batch = _mirror(batch, axis + 2, is_mirrored[:, axis])
            labels = None if labels is None else _mirror(labels, axis + 2, is_mirrored[:, axis])
    values = batch.to(torch.float32)
    if "affine" in by_name:
        matrices = affine_matrices(by_name["affine"], draws[:, _COLUMNS["affine"]], values.shape[2:])
        values, labels = warp(values, matrices, "border"), warp_labels(labels, matrices, "border")
    if "intensity" in by_name:
        values = _change_intensity(values, by_name["intensity"], draws[:, _COLUMNS["intensity"]])
    if "noise" in by_name:
        values = _add_noise(values, by_name["noise"], seeds)
    return values, labels


def _mirror(batch: torch.Tensor, axis: int, is_mirrored: torch.Tensor) -> torch.Tensor:
    # Gathers each image once; making both variants of a batch of volumes would take twice the memory.
    extent = batch.shape[axis]
    forward = torch.arange(extent, device=batch.device)
    index = torch.where(is_mirrored[:, None], extent - 1 - forward, forward)  # (N, extent)
    shape = [len(batch)] + [1] * (batch.ndim - 1)
    shape[axis] = extent
    return batch.gather(axis, index.reshape(shape).expand_as(batch))


def affine_matrices(step: Step, draws: torch.Tensor, size: Sequence[int]) -> torch.Tensor:
    """Turn random numbers into a rotation, zoom and shift for each image.

    Args:
        step: `max_angle_rad` in the plane of W and H, `max_tilt_rad` about W and about H (volumes only), `smallest` and
            `largest` zoom, `max_fraction` of each side to shift by; `spacing_mm` of voxels, all alike without it.
        draws: (N, 10) from 0 to 1.
        size: (W, H) or (W, H, D).

    Returns:
        float32 (N, d + 1, d + 1) as in `affine`.
    """
    dims = len(size)
    spread = draws * 2 - 1
    matrix = identity(len(draws), dims, draws.device)
    planes = [(0, 1, "max_angle_rad"), (1, 2, "max_tilt_rad"), (0, 2, "max_tilt_rad")]
    for column, (first, second, name) in enumerate(planes[: 1 if dims == 2 else 3]):
        matrix = matrix @ turn(spread[:, column] * step[name], dims, first, second)
    if "spacing_mm" in step:
        spacing = torch.tensor(step["spacing_mm"], device=draws.device)
        matrix[:, :dims, :dims] *= spacing / spacing[:, None]  # voxels to mm, turned, and back to voxels
    matrix[:, :dims, :dims] *= drawn_zoom(step, draws[:, 3]).reshape(-1, 1, 1)
    matrix[:, :dims, dims] = spread[:, 4 : 4 + dims] * step["max_fraction"] * draws.new_tensor(list(size))
    return matrix


def _change_intensity(values: torch.Tensor, step: Step, draws: torch.Tensor) -> torch.Tensor:
    """Gamma between the image's minimum and maximum, contrast about its mean, brightness in standard deviations."""
    flat = values.flatten(2)  # (N, C, P); each channel is a sequence with a range of its own
    spread = (draws * 2 - 1).reshape(-1, 3, 1, 1)
    low, high = flat.amin(dim=2, keepdim=True), flat.amax(dim=2, keepdim=True)
    extent = (high - low).clamp_min(torch.finfo(torch.float32).tiny)
    gamma = torch.exp(spread[:, 2] * math.log1p(step["gamma"]))
    flat = ((flat - low) / extent).clamp_(0, 1).pow_(gamma).mul_(extent).add_(low)
    std, mean = torch.std_mean(flat, dim=2, keepdim=True, correction=0)
    contrast = 1 + spread[:, 1] * step["contrast"]
    shift = spread[:, 0] * step["brightness"] * std
    return flat.sub_(mean).mul_(contrast).add_(mean + shift).reshape(values.shape)


def _add_noise(values: torch.Tensor, step: Step, seeds: torch.Tensor) -> torch.Tensor:
    """Gaussian noise with a standard deviation drawn from 0 to `largest` times the image's own."""
    std = values.flatten(2).std(dim=2, correction=0)  # (N, C)
    generator = torch.Generator(device=values.device)
    noisy = torch.empty_like(values)
    for index, (amount, seed) in enumerate(seeds.tolist()):
        # One seed per image, so that it gets the same noise in whichever process.
        generator.manual_seed(int(seed * 2**24))
        noise = torch.randn(values.shape[1:], generator=generator, device=values.device)
        scale = (amount * step["largest"] * std[index]).reshape(-1, *[1] * (values.ndim - 2))
        noisy[index] = torch.addcmul(values[index], noise, scale)
    return noisy
