"""A network over an image of any size: windows that overlap, weighted towards their centres.

MONAI's `sliding_window_inference` holds the outputs of the whole image; here windows go along the longest axis, and
what no later window reaches is handed on and forgotten. So memory is bounded by one window's length of the image:
`needed_bytes` says how much, before any of it is allocated.
"""

import itertools
import math
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch
from numpy.typing import NDArray

WINDOWS_AT_ONCE, VOXELS_AT_ONCE = 4, 1 << 20  # that the network gets; at least one window
SLAB_VOXELS = 1 << 20  # that are decided at once
SIGMA = 0.125  # of the weights, in sides of the window; as nnU-Net (arXiv:1904.08128) and MONAI have it
SMALLEST_WEIGHT = 1e-3

Network = Callable[[torch.Tensor], torch.Tensor]


def mirrorings(axes: Sequence[int]) -> list[tuple[int, ...]]:
    """Every choice of axes to mirror an image along, the first of none; twice as many for each axis."""
    return [some for count in range(len(axes) + 1) for some in itertools.combinations(axes, count)]


def mirrored(network: Network, axes: Sequence[int]) -> Network:
    """A network whose outputs are the mean over all mirror images of its inputs, each mirrored back.

    Args:
        network: from (N, C, ...) to (N, K, ...).
        axes: of the image, without batch and channels; of none, the network as it is.
    """
    if not axes:
        return network
    choices = mirrorings(axes)

    def mean(inputs: torch.Tensor) -> torch.Tensor:
        total = network(inputs).clone()
        for some in choices[1:]:
            dims = [axis + 2 for axis in some]
            total += network(inputs.flip(dims)).flip(dims)
        return total / len(choices)

    return mean


def weights_of(window: Sequence[int]) -> torch.Tensor:
    """The weight of each voxel of a window, float32 (*window): a Gaussian about its centre, at most 1."""
    weights = torch.ones(())
    for side in window:
        along = torch.arange(side, dtype=torch.float32) - (side - 1) / 2
        weights = weights[..., None] * torch.exp(-0.5 * (along / (SIGMA * side)) ** 2)
    return weights.clamp_min(SMALLEST_WEIGHT)


def starts_of(extent: int, side: int, overlap: float) -> list[int]:
    """Where windows begin along one axis: evenly, the last one at the edge.

    Args:
        extent: of the image, at least `side`.
        side: of the window.
        overlap: share of a window that the next one covers too, 0 to below 1.
    """
    step = max(1, int(side * (1 - overlap)))
    return [min(index * step, extent - side) for index in range(_count_along(extent, side, overlap))]


def _count_along(extent: int, side: int, overlap: float) -> int:
    return math.ceil((extent - side) / max(1, int(side * (1 - overlap)))) + 1


def count_windows(extents: Sequence[int], window: Sequence[int], overlap: float) -> int:
    """How many windows cover an image; arguments as for `each_block`."""
    sides = zip(extents, window, strict=True)
    return math.prod(_count_along(max(extent, side), side, overlap) for extent, side in sides)


def padded_to(image: torch.Tensor, window: Sequence[int]) -> tuple[torch.Tensor, tuple[int, ...]]:
    """An image (C, ...) at least as large as the window, with its lowest value around it; and how far it is moved."""
    extents = image.shape[1:]
    if all(extent >= side for extent, side in zip(extents, window, strict=True)):
        return image, (0,) * len(window)
    before = tuple(max(0, side - extent) // 2 for extent, side in zip(extents, window, strict=True))
    shape = [max(extent, side) for extent, side in zip(extents, window, strict=True)]
    padded = image.new_full((len(image), *shape), float(image.min()))
    inside = tuple(slice(start, start + extent) for start, extent in zip(before, extents, strict=True))
    padded[(slice(None), *inside)] = image
    return padded, before


def each_block(
    network: Network,
    image: torch.Tensor,
    window: Sequence[int],
    *,
    overlap: float,
    outputs: int,
    axis: int,
) -> Iterator[tuple[int, torch.Tensor]]:
    """Run a network over an image, block by block along one axis.

    Args:
        network: from float or integer windows (N, C, *window) as the load half makes them to logits (N, K, *window),
            both on the CPU.
        image: (C, ...), at least as large as the window.
        window: sides.
        overlap: of windows.
        outputs: K.
        axis: of the image, without channels, along which blocks follow each other.

    Yields:
        Where a block begins along `axis`, and its mean logits, float32 (K, ...); a block has about `SLAB_VOXELS`.
    """
    shape = list(image.shape[1:])
    starts = [starts_of(extent, side, overlap) for extent, side in zip(shape, window, strict=True)]
    weights = weights_of(window)
    shape[axis] = window[axis]
    sums, total = torch.zeros(outputs, *shape), torch.zeros(shape)
    others = [starts[other] for other in range(len(shape)) if other != axis]
    for position, start in enumerate(starts[axis]):
        places = [[*rest[:axis], 0, *rest[axis:]] for rest in itertools.product(*others)]
        for some in _batched(places, window):
            inside = [tuple(slice(first, first + side) for first, side in zip(place, window, strict=True))
                      for place in some]  # fmt: skip
            moved = [tuple(slice(each.start + start * (other == axis), each.stop + start * (other == axis))
                           for other, each in enumerate(part)) for part in inside]  # fmt: skip
            logits = network(torch.stack([image[(slice(None), *part)] for part in moved]))
            for part, output in zip(inside, logits, strict=True):
                sums[(slice(None), *part)] += output * weights
                total[part] += weights
        is_last = position == len(starts[axis]) - 1
        done = window[axis] if is_last else starts[axis][position + 1] - start
        slab = max(1, SLAB_VOXELS * window[axis] // total.numel())
        for first in range(0, done, slab):
            count = min(slab, done - first)
            yield start + first, sums.narrow(axis + 1, first, count) / total.narrow(axis, first, count)
        if not is_last:
            _move_on(sums, axis + 1, done)
            _move_on(total, axis, done)


def _batched(places: Sequence[list[int]], window: Sequence[int]) -> Iterator[Sequence[list[int]]]:
    step = windows_at_once(window)  # itertools has it from Python 3.12 on
    for first in range(0, len(places), step):
        yield places[first : first + step]


def windows_at_once(window: Sequence[int]) -> int:
    """How many windows the network gets at once, at most."""
    return max(1, min(WINDOWS_AT_ONCE, VOXELS_AT_ONCE // math.prod(window)))


def _move_on(values: torch.Tensor, axis: int, by: int) -> None:
    """Drop the first `by` along an axis, in place, and put as many zeros behind."""
    kept = values.shape[axis] - by
    for first in range(0, kept, by):  # no piece overlaps the one that it is copied from
        count = min(by, kept - first)
        values.narrow(axis, first, count).copy_(values.narrow(axis, first + by, count))
    values.narrow(axis, kept, by).zero_()


def needed_bytes(
    channels: int,
    extents: Sequence[int],
    window: Sequence[int],
    outputs: int,
    value_bytes: int,
    bytes_on_block: int = 0,
    *,
    is_mirrored: bool = False,
) -> int:
    """The most memory that `label_map` holds beside the image, without what is inside of the network.

    Args:
        channels, extents: of the image.
        window, outputs: as for `each_block`.
        value_bytes: of one of the image's values.
        bytes_on_block: that `on_block` takes for each voxel.
        is_mirrored: the network is one of `mirrored`.
    """
    padded = [max(extent, side) for extent, side in zip(extents, window, strict=True)]
    longest = int(np.argmax(padded))
    sums = math.prod(padded) // padded[longest] * window[longest]
    windows = windows_at_once(window) * math.prod(window)
    slab = min(sums, SLAB_VOXELS + sums // window[longest])
    return (
        math.prod(extents)  # the label map
        + (0 if padded == list(extents) else channels * value_bytes * math.prod(padded))
        + 4 * (outputs + 1) * sums
        + windows * (channels * (value_bytes + 8) + 8 * outputs)  # as loaded and scaled; logits, and weighted ones
        + is_mirrored * windows * (4 * channels + 8 * outputs)  # a mirror image; its logits, and mirrored back
        # Logits, and whether they are finite; the labels as 64 bits and 8, then what `on_block` takes.
        + slab * (5 * outputs + max(9, bytes_on_block))
    )


def label_map(
    network: Network,
    image: torch.Tensor,
    window: Sequence[int],
    decide: Callable[[torch.Tensor], torch.Tensor],
    *,
    overlap: float,
    outputs: int,
    on_block: Callable[[tuple[slice, ...], torch.Tensor], None] = lambda _place, _logits: None,
) -> NDArray[np.uint8]:
    """The label of each voxel of an image.

    Args:
        network, window, overlap, outputs: as for `each_block`.
        image: (C, ...), of any size.
        decide: from logits (K, ...) to labels (...), uint8.
        on_block: gets the place of each block in the image and its logits.

    Returns:
        uint8 (...) of the image's shape.
    """
    extents = image.shape[1:]
    padded, before = padded_to(image, window)
    labels = np.zeros(tuple(extents), np.uint8)
    axis = int(np.argmax(padded.shape[1:]))
    for start, logits in each_block(network, padded, window, overlap=overlap, outputs=outputs, axis=axis):
        source, place = [], []
        for other, (extent, moved) in enumerate(zip(extents, before, strict=True)):
            first = start if other == axis else 0
            low, high = max(first, moved), min(first + logits.shape[other + 1], moved + extent)
            source.append(slice(low - first, max(high, low) - first))
            place.append(slice(low - moved, max(high, low) - moved))
        inner = logits[(slice(None), *source)]
        if inner.numel():
            labels[tuple(place)] = decide(inner).numpy()
            on_block(tuple(place), inner)
    return labels
