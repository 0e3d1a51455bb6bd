"""Probabilities of structures: collected block by block on the prepared grid, then turned back one by one.

They are bytes from the first block on, in units of 1 / 255, so no float ever has the size of an image. They are the
network's: what is decided on the label map afterwards does not change them.
"""

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from sagemaker_monai.budget import lent, spend_bytes, spend_work
from sagemaker_monai.preprocessing.ways import Way, fractions_back, interpolation_bytes, rounded
from sagemaker_monai.tasks.label_maps import FULL
from sagemaker_monai.tasks.segmentation import Segmentation

_FILE_COPIES = 2  # on the image's grid, of the smallest file and its parts; the encoders count what they take
_NS_A_VALUE = 15  # to decide one and turn it to the image's grid


@dataclass(frozen=True)
class ProbabilityCosts:
    """What probabilities take; nothing if they are not asked for.

    Attributes:
        own_bytes, own_ns: for each voxel of the image, until it is answered.
        file_bytes: for each voxel of the image, at least, while the answer is written.
        prepared_bytes: for each prepared voxel.
        block_bytes: for each voxel of a block, while it is collected.
    """

    own_bytes: int = 0
    own_ns: int = 0
    file_bytes: int = 0
    prepared_bytes: int = 0
    block_bytes: int = 0

    def bytes_back(self, extents: Sequence[int], shape: Sequence[int]) -> int:
        """What `Collected.back` takes beside the result."""
        return interpolation_bytes(extents, shape) if self.own_bytes else 0


def probability_costs(task: Segmentation, *, is_asked: bool) -> ProbabilityCosts:
    """What the probabilities of a task take."""
    if not is_asked:
        return ProbabilityCosts()
    count = len(task.labels)
    return ProbabilityCosts(count, _NS_A_VALUE * count, _FILE_COPIES * count, count, 4 * task.outputs + 5 * count)


class Collected:
    """The probabilities of one image.

    Args:
        task: of the network.
        extents: of the prepared image.
    """

    def __init__(self, task: Segmentation, extents: Sequence[int]) -> None:
        self._task = task
        self._values = np.zeros((len(task.labels), *extents), np.uint8)

    def keep(self, place: tuple[slice, ...], logits: torch.Tensor) -> None:
        """Take the logits of a block, as `on_block` of `sliding_window.label_map`."""
        fractions = self._task.probabilities(logits)
        fractions *= FULL
        self._values[(slice(None), *place)] = rounded(fractions.numpy())

    def back(self, way: Way, shape: Sequence[int]) -> NDArray[np.uint8]:
        """On the image's own grid: (K, *shape)."""
        back = np.empty((len(self._values), *shape), np.uint8)
        with lent(interpolation_bytes(self._values.shape[1:], shape), "interpolating probabilities"):
            for prepared, own in zip(self._values, back, strict=True):
                fractions_back(prepared, way, shape, own)
        return back


@contextmanager
def collecting(
    task: Segmentation, costs: ProbabilityCosts, extents: Sequence[int], shape: Sequence[int]
) -> Iterator[Collected | None]:
    """Collect the probabilities of one image; None unless they are asked for.

    Args:
        task: of the network.
        costs: of the probabilities.
        extents: of the prepared image.
        shape: of the image.

    Raises:
        PayloadTooLarge: they exceed the request's budget; before anything is allocated.
    """
    if costs == ProbabilityCosts():
        yield None
        return
    voxels = math.prod(shape)
    what = f"the probabilities of {len(task.labels)} structures in {voxels} voxels"
    spend_bytes(costs.own_bytes * voxels, what)
    spend_work(costs.own_ns * voxels, what)
    with lent(costs.prepared_bytes * math.prod(extents), what):
        yield Collected(task, extents)
