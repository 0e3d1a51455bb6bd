"""What segmentation takes from the shapes and spacings of its images: the grid, the patch, the levels of the network.

After nnU-Net (arXiv:1904.08128, supplementary note 3): the median spacing; the largest patch of about the images'
aspect that the memory allows, and no larger than the images; a network that halves it until little is left.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from sagemaker_monai.errors import ConfigError
from sagemaker_monai.hyperparameters import TrainConfig
from sagemaker_monai.networks.segmenters import SEGMENTERS, Levels, plan_levels
from sagemaker_monai.storage.machine import memory_bytes

# Bytes that a voxel of a patch costs in training, for each filter of the first level: activations and their gradients
# over all levels, measured with dynunet and unet in fp32 (about 60 and 45), and rounded up.
BYTES_A_FILTER = 64
MEMORY_SHARE = {"cpu": 0.25, "cuda": 0.5}  # of all memory, for the activations of one batch
MOST_ON_CPU = 96**3  # voxels of a patch: larger ones take minutes a step
SHORTEST_SIDE = 16  # of a patch, along axes that are halved
WIDTH = {"cpu": 16, "cuda": 32}  # filters of the first level
ANISOTROPY = 3.0  # of a spacing, from which the coarsest axis takes the 10th percentile and not the median


@dataclass(frozen=True)
class PatchPlan:
    """How images are cut, and what for.

    Attributes:
        spacing_mm: of the prepared grid; None leaves images as they are.
        patch: sides in voxels.
        levels: of the network.
    """

    spacing_mm: tuple[float, ...] | None
    patch: tuple[int, ...]
    levels: Levels


def common_spacing(spacings: Sequence[Sequence[float]]) -> tuple[float, ...]:
    """The spacing to bring volumes to, in mm: the median along each axis; of a coarse axis its finer end.

    Args:
        spacings: (W, H, D) of the training images.
    """
    table = np.asarray(spacings, np.float64)
    found = np.median(table, axis=0)
    coarsest = int(found.argmax())
    if found[coarsest] > ANISOTROPY * np.delete(found, coarsest).max():
        found[coarsest] = max(np.percentile(table[:, coarsest], 10), np.delete(found, coarsest).max())
    return tuple(round(float(mm), 6) for mm in found)


def plan_patch(
    shapes: Sequence[Sequence[int]],
    spacing_mm: Sequence[float],
    network: str,
    *,
    width: int,
    most_voxels: int,
    asked: Sequence[int] | None = None,
) -> tuple[tuple[int, ...], Levels]:
    """The patch and the network's levels.

    Args:
        shapes: of the prepared training images.
        spacing_mm: of their grid.
        network: a key of `SEGMENTERS`.
        width: filters of the first level.
        most_voxels: of a patch.
        asked: a patch that somebody asked for; it is rounded up to what the network can halve.

    Raises:
        ConfigError: the network cannot take such a patch.
    """
    patch = [int(side) for side in (np.median(np.asarray(shapes), axis=0) if asked is None else asked)]
    while True:
        levels = plan_levels([max(side, SHORTEST_SIDE // 2) for side in patch], spacing_mm, width)
        divisors = SEGMENTERS[network].divisors(levels)
        rounded = tuple(-(-side // step) * step for side, step in zip(patch, divisors, strict=True))
        possible = [axis for axis, side in enumerate(rounded) if side > divisors[axis]]
        if asked is not None or math.prod(rounded) <= most_voxels or not possible:
            return rounded, levels
        # The side that is longest in mm becomes shorter; few thick slices are kept while another side can give way.
        preferred = [axis for axis in possible if rounded[axis] > SHORTEST_SIDE] or possible
        shortened = max(preferred, key=lambda axis: rounded[axis] * spacing_mm[axis])
        patch[shortened] = rounded[shortened] - divisors[shortened]


def possible_sizes(side: int, network: str, width: int) -> str:
    """The nearest image sizes below and above that a network takes."""
    rules = TrainConfig.model_fields["image_size"].metadata
    least, most = (next(getattr(rule, name) for rule in rules if hasattr(rule, name)) for name in ("ge", "le"))

    def fits(other: int) -> bool:
        size = (other, other)
        return plan_patch([size], (1.0, 1.0), network, width=width, most_voxels=other**2, asked=size)[0] == size

    found = [next(filter(fits, sides), None) for sides in (range(side, least - 1, -1), range(side, most + 1))]
    return " or ".join(str(size) for size in found if size is not None)


def most_voxels(width: int, batch_size: int, device: torch.device) -> int:
    """Voxels of a patch that the memory allows.

    All memory counts, in whole GiB, not what is free just now: the processes of a job have to make the same plan, and a
    job that goes on after a stop the same one again.
    """
    total = torch.cuda.mem_get_info(device)[1] if device.type == "cuda" else memory_bytes()
    whole = total >> 30 << 30 or total
    voxels = int(MEMORY_SHARE[device.type] * whole / (BYTES_A_FILTER * width * batch_size))
    return max(SHORTEST_SIDE**3, voxels if device.type == "cuda" else min(voxels, MOST_ON_CPU))


def sides_of(text: str, dims: int) -> tuple[int, ...] | None:
    """The hyperparameter patch_size as numbers; None for auto.

    Raises:
        ConfigError: as many numbers as the images have axes are needed, or one for all.
    """
    if text == "auto":
        return None
    sides = [int(part) for part in text.split(",")]
    if len(sides) not in (1, dims) or min(sides) < 1:
        raise ConfigError(f"patch_size must be one number or {dims}, got {text}")
    return tuple(sides * dims if len(sides) == 1 else sides)
