"""Structures laid over each other into one map, which has room for one number a voxel.

Where two structures share a voxel, the map cannot hold both. Whichever won, the other would be smaller than it was
drawn, so overlaps are refused, by name.
"""

from collections import Counter
from collections.abc import Mapping

import numpy as np

from sagemaker_monai.errors import UnsuitableImage
from sagemaker_monai.messages.shortened import some_of

Overlaps = Counter[tuple[int, int]]
_MOST_PAIRS = 1_000  # that are counted: one is enough to refuse


def lay(target: np.ndarray, values: np.ndarray, overlaps: Overlaps) -> None:
    """Write the values that are not 0 into the target, and count voxels in which another one stood.

    Args:
        target: uint16, changed.
        values: uint16 of the same shape.
        overlaps: changed: voxels by the two values.
    """
    is_there = values != 0
    is_twice = is_there & (target != 0)
    if len(overlaps) < _MOST_PAIRS and is_twice.any():
        pairs = target[is_twice].astype(np.uint32) << 16 | values[is_twice]
        for pair, count in zip(*np.unique(pairs, return_counts=True), strict=True):
            overlaps[int(pair) >> 16, int(pair) & 0xFFFF] += int(count)
    np.copyto(target, values, where=is_there)


def refuse_overlaps(overlaps: Overlaps, names: Mapping[int, str]) -> None:
    """Refuse what was counted.

    Raises:
        UnsuitableImage: names the pairs and how many voxels each has in common.
    """
    if overlaps:
        pairs = [
            f"{names.get(first) or first} and {names.get(second) or second} ({count} voxels)"
            for (first, second), count in overlaps.most_common()
        ]
        raise UnsuitableImage(
            f"structures of the mask overlap, and one map cannot hold both: {some_of(pairs)}; choose the structures "
            "that are wanted, or export them so that each voxel has one"
        )
