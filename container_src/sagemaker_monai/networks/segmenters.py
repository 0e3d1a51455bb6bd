"""The networks that segment: one row each, from a name and a plan of levels to plain data.

As in `networks`, an artifact's network_def is built only if a row would have written exactly that. What a row needs
beside the data's channels is a `Levels`: how often and along which axes the patch is halved, and how wide the first
level is. It is made from patch size and spacing (`plan_levels`), as nnU-Net does it.
"""

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sagemaker_monai.errors import BundleError, ConfigError

MAX_LEVELS = 6
SHORTEST = 4  # voxels of an axis at the lowest level
ANISOTROPIC = 2.0  # an axis whose voxels are this much longer than the shortest is not halved, nor convolved along
WIDEST = {2: 512, 3: 320}  # filters of a level (arXiv:1904.08128)
WIDTHS = range(4, 129)


@dataclass(frozen=True)
class Levels:
    """How a patch becomes smaller from level to level.

    Attributes:
        strides: one tuple a level with 1 or 2 for each axis; the first level's are all 1.
        kernels: one tuple a level with 1 or 3 for each axis.
        width: filters of the first level; each next one has twice as many, up to `WIDEST`.
    """

    strides: tuple[tuple[int, ...], ...]
    kernels: tuple[tuple[int, ...], ...]
    width: int

    @property
    def filters(self) -> tuple[int, ...]:
        """Of each level."""
        most = WIDEST[len(self.strides[0])]
        return tuple(min(self.width << level, most) for level in range(len(self.strides)))

    @property
    def divisors(self) -> tuple[int, ...]:
        """What the sides of a patch must be multiples of."""
        return tuple(math.prod(axis) for axis in zip(*self.strides, strict=True))


def plan_levels(patch: Sequence[int], spacing_mm: Sequence[float], width: int) -> Levels:
    """Halve the patch where its voxels are finest, until nothing is left to halve.

    Args:
        patch: sides in voxels.
        spacing_mm: distance of voxels along the same axes.
        width: filters of the first level.

    Source: Isensee et al., arXiv:1904.08128, supplementary note 3.
    """
    sides, spacing = list(patch), list(spacing_mm)
    strides, kernels = [(1,) * len(sides)], [_kernel(spacing)]
    while len(strides) < MAX_LEVELS:
        finest = min(mm for mm, side in zip(spacing, sides, strict=True) if side >= 2 * SHORTEST or mm == min(spacing))
        stride = tuple(
            2 if side >= 2 * SHORTEST and mm < ANISOTROPIC * finest else 1
            for side, mm in zip(sides, spacing, strict=True)
        )
        if 2 not in stride:
            break
        sides = [side // step for side, step in zip(sides, stride, strict=True)]
        spacing = [mm * step for mm, step in zip(spacing, stride, strict=True)]
        strides.append(stride)
        kernels.append(_kernel(spacing))
    return Levels(tuple(strides), tuple(kernels), width)


def _kernel(spacing_mm: Sequence[float]) -> tuple[int, ...]:
    return tuple(3 if mm < ANISOTROPIC * min(spacing_mm) else 1 for mm in spacing_mm)


def _dynunet(levels: Levels) -> dict[str, Any]:
    if len(levels.strides) < 3:
        raise ConfigError("dynunet needs a patch that can be halved twice: set network to unet, or patch_size to 16")
    strides, kernels = ([list(each) for each in table] for table in (levels.strides, levels.kernels))
    return {
        "kernel_size": kernels,
        "strides": strides,
        "upsample_kernel_size": strides[1:],
        "filters": list(levels.filters),
        "norm_name": "INSTANCE",
        "deep_supervision": len(strides) > 3,
        "deep_supr_num": max(1, min(2, len(strides) - 2)),
    }


def _unet(levels: Levels) -> dict[str, Any]:
    return {
        "channels": list(levels.filters),
        "strides": [list(each) for each in levels.strides[1:]],
        "num_res_units": 2,
        "norm": "INSTANCE",
    }


def _segresnet(levels: Levels) -> dict[str, Any]:
    halvings = min(len(levels.strides) - 1, 3)
    return {
        "init_filters": max(8, levels.width // 8 * 8),  # group normalization has eight groups
        "blocks_down": [1, 2, 2, 4][: halvings + 1],
        "blocks_up": [1] * halvings,
    }


def _flexible(_levels: Levels) -> dict[str, Any]:
    return {"backbone": "efficientnet-b0", "pretrained": False}  # pretrained would download


@dataclass(frozen=True)
class Segmenter:
    """One row of `SEGMENTERS`.

    Attributes:
        target: in MONAI.
        head: prefix of the last layer's weights.
        arguments: from the levels to what is neither dimension nor channels.
        dims: of images it is for.
        unused: prefixes of weights that no output depends on; they are not trained.
        halvings: how often all axes are halved together, whatever the levels say; None where the levels say it.
    """

    target: str
    head: str
    arguments: Callable[[Levels], dict[str, Any]]
    dims: tuple[int, ...] = (2, 3)
    halvings: Callable[[Levels], int] | None = None
    other_names: tuple[tuple[tuple[str, str], ...], ...] = ()
    unused: tuple[str, ...] = ()

    def divisors(self, levels: Levels) -> tuple[int, ...]:
        """What the sides of a patch must be multiples of."""
        if self.halvings is None:
            return levels.divisors
        return (2 ** self.halvings(levels),) * len(levels.divisors)


SEGMENTERS: dict[str, Segmenter] = {
    "dynunet": Segmenter("monai.networks.nets.DynUNet", "output_block.", _dynunet),
    "unet": Segmenter("monai.networks.nets.UNet", "model.2.", _unet),
    "segresnet": Segmenter(
        "monai.networks.nets.SegResNet",
        "conv_final.",
        _segresnet,
        halvings=lambda levels: min(len(levels.strides) - 1, 3),
    ),
    "flexible-unet": Segmenter(
        "monai.networks.nets.FlexibleUNet",
        "segmentation_head.",
        _flexible,
        dims=(2,),
        halvings=lambda _levels: 5,
        unused=("encoder._conv_head.", "encoder._bn1.", "encoder._fc."),
    ),
}


def segmenter_def(name: str, levels: Levels, *, in_channels: int, out_channels: int) -> dict[str, Any]:
    """Describe a network that segments as plain data, ready for JSON.

    Args:
        name: a key of `SEGMENTERS`.
        levels: from `plan_levels`.
        in_channels: colours or sequences of an image, 1 to 16.
        out_channels: structures and the background, 2 to 256.

    Raises:
        ConfigError: an unknown name, or something that the network cannot take.
    """
    dims = len(levels.divisors)
    if name not in SEGMENTERS:
        raise ConfigError(f"network must be one of {', '.join(SEGMENTERS)} for segmentation, got {name!r}")
    if dims not in SEGMENTERS[name].dims:
        able = ", ".join(key for key, row in SEGMENTERS.items() if dims in row.dims)
        raise ConfigError(f"{name} does not segment {dims}-D images: set network to one of {able}")
    return {
        "_target_": SEGMENTERS[name].target,
        "spatial_dims": dims,
        "in_channels": in_channels,
        "out_channels": out_channels,
        **SEGMENTERS[name].arguments(levels),
    }


def segmenter_name(definition: Mapping[str, Any]) -> str | None:
    """The row of `SEGMENTERS` that wrote a network_def; None where none did.

    Raises:
        BundleError: its target is of a row, which would have written something else.
    """
    named = [name for name, row in SEGMENTERS.items() if row.target == definition.get("_target_")]
    if not named:
        return None
    [name] = named
    try:
        dims, inputs, outputs = (definition[key] for key in ("spatial_dims", "in_channels", "out_channels"))
        if not type(dims) is type(inputs) is type(outputs) is int or not 1 <= inputs <= 16 or not 2 <= outputs <= 256:
            raise ValueError
        for levels in _candidates(definition, dims):
            if segmenter_def(name, levels, in_channels=inputs, out_channels=outputs) == definition:
                return name
    except (KeyError, TypeError, ValueError, ConfigError, IndexError):
        pass
    raise BundleError(
        f"network_def is not one that this version writes (target {str(definition.get('_target_'))[:80]!r}): "
        "train again, or serve it with the version that wrote it"
    )


def unused_weights(definition: Mapping[str, Any]) -> tuple[str, ...]:
    """Prefixes of the weights of a network_def that no output depends on."""
    return next((row.unused for row in SEGMENTERS.values() if row.target == definition["_target_"]), ())


def _candidates(definition: Mapping[str, Any], dims: int) -> list[Levels]:
    """Levels that may have led to a definition."""
    if dims not in WIDEST:
        return []
    plain = (1,) * dims
    if "blocks_down" in definition:
        count = len(definition["blocks_down"])
        levels = [plain, *itertools.repeat((2,) * dims, min(count, MAX_LEVELS) - 1)]
        return [Levels(tuple(levels), tuple(levels), _width(definition["init_filters"]))]
    if "backbone" in definition:
        return [Levels((plain,), (plain,), WIDTHS[0])]
    strides = definition["strides"]
    strides = strides if "filters" in definition else [plain, *strides]
    kernels = definition.get("kernel_size", strides)
    width = _width(definition.get("filters", definition.get("channels"))[0])
    if not 1 <= len(strides) <= MAX_LEVELS or len(kernels) != len(strides):
        return []
    return [Levels(_tuples(strides, dims, (1, 2)), _tuples(kernels, dims, (1, 2, 3)), width)]


def _width(value: Any) -> int:
    if type(value) is not int or value not in WIDTHS:
        raise ValueError("not a width")
    return value


def _tuples(table: Any, dims: int, allowed: tuple[int, ...]) -> tuple[tuple[int, ...], ...]:
    rows = tuple(tuple(row) for row in table)
    if any(len(row) != dims or any(type(each) is not int or each not in allowed for each in row) for row in rows):
        raise ValueError("not levels")
    return rows
