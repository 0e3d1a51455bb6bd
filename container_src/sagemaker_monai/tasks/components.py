"""The rule that only the largest component of a structure is one, which validation keeps where it helps."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

# To find the components of a box, for each of its voxels: whether it is the structure's and of which component (bytes),
# and the time.
BYTES_A_VOXEL, NS_A_VOXEL = 5, 25


def keep_largest(
    labels: NDArray[np.uint8],
    numbers: Sequence[int],
    counted: Callable[[int], AbstractContextManager[None]] = lambda _voxels: nullcontext(),
) -> None:
    """Make all components of structures background but the largest, in place.

    Args:
        labels: label map (W, H) or (W, H, D). Voxels that touch by faces, edges or corners are of one component; of
            components of one size, the first in memory order stays.
        numbers: of the structures.
        counted: gets the number of voxels of a structure's box, before its components are found, and is entered
            while that takes memory, see `BYTES_A_VOXEL`.
    """
    import numpy as np
    from scipy import ndimage

    boxes = ndimage.find_objects(labels, max_label=max(numbers, default=0)) if numbers else []
    for number in numbers:
        box = boxes[number - 1]
        if box is None:
            continue
        with counted(math.prod(part.stop - part.start for part in box)):
            part = labels[box]
            components, count = ndimage.label(part == number, structure=np.ones((3,) * labels.ndim))
            if count < 2:
                continue
            sizes = np.zeros(count + 1, np.int64)
            for each in components:  # slice by slice: bincount makes 64 bits of each voxel
                sizes += np.bincount(each.ravel(), minlength=count + 1)
            largest = sizes[1:].argmax() + 1
            for own, each in zip(part, components, strict=True):
                own[(each != 0) & (each != largest)] = 0
