"""Structures that overlap, as nnU-Net's regions, and the label maps in which they are kept.

A label map has one number a voxel, so it cannot hold a tumour and its core. It holds parts: what some structures have
in common and no other has. The oedema is part of the whole tumour alone, the enhancing tumour is part of three
structures. A structure is where one of its parts is.

A network answers for each structure by itself, which says more than parts can hold (a core outside of the tumour). As
in nnU-Net, structures are painted one over the other, each with one of its parts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sagemaker_monai.tasks.label_maps import MAX_STRUCTURES

if TYPE_CHECKING:
    import numpy as np
    import torch
    from numpy.typing import NDArray

MAX_VALUE = 65_535  # of a mask's voxel


@dataclass(frozen=True)
class Regions:
    """Structures that overlap, in the order in which they are painted.

    Attributes:
        members: the parts of each structure, numbers from 1, ascending.
        painted: the part that each structure is painted with. It is in no structure that does not lie around this one,
            and no later structure covers all of this one.
        values: of each part in files, from part 1 on, 1 to `MAX_VALUE`.

    Raises:
        ValueError: they are not so.
    """

    members: tuple[tuple[int, ...], ...]
    painted: tuple[int, ...]
    values: tuple[int, ...]

    def __post_init__(self) -> None:
        """Check it, as it may come from an untrusted file."""
        parts = range(1, len(self.values) + 1)
        for numbers in (*self.members, self.values, self.painted):
            if not numbers or not all(type(number) is int for number in numbers):
                raise ValueError("regions have whole numbers")
        if not len(self.members) == len(self.painted) <= MAX_STRUCTURES or len(parts) > MAX_STRUCTURES:
            raise ValueError("too many regions or parts, or not one painted part for each region")
        if not all(0 < value <= MAX_VALUE for value in self.values) or len(set(self.values)) < len(parts):
            raise ValueError("parts have different values")
        if set(parts) != {number for numbers in self.members for number in numbers}:
            raise ValueError("every part is of a region")
        if len(set(self.members)) < len(self.members) or any(
            list(numbers) != sorted(set(numbers)) for numbers in self.members
        ):
            raise ValueError("regions are different")
        if fault := painting_fault(self.members, self.painted):
            raise ValueError(f"region {fault[0]} cannot be painted beside {fault[1]}")


def painting_fault(members: Sequence[Sequence[int]], painted: Sequence[int]) -> tuple[int, int] | None:
    """Two structures of which the first is painted so that it is lost in the second, or read as it; None if none.

    If they are one, it is painted with a part that it does not have.

    Args:
        members, painted: as of `Regions`.
    """
    sets = [frozenset(numbers) for numbers in members]
    for place, part in enumerate(painted):
        if part not in sets[place]:
            return place, place
        for other, numbers in enumerate(sets):
            is_around = sets[place] < numbers
            if other != place and ((part in numbers and not is_around) or (is_around and other > place)):
                return place, other
    return None


def numbers_of_structures(count: int, regions: Regions | None) -> tuple[tuple[int, ...], ...]:
    """The numbers of a label map that make each of its structures."""
    return tuple((number,) for number in range(1, count + 1)) if regions is None else regions.members


def paint(logits: torch.Tensor, regions: Regions) -> torch.Tensor:
    """The part of each voxel, uint8 (...), of the logits (K, ...) of structures: each over those before it.

    A structure is where its probability is above 0.5, as nnU-Net has it.
    """
    import torch

    parts = torch.zeros(logits.shape[1:], dtype=torch.uint8)
    for each, part in zip(logits, regions.painted, strict=True):
        parts[each > 0] = part
    return parts


def is_inside(labels: NDArray[np.integer], numbers: Sequence[int]) -> NDArray[np.bool_]:
    """Where a label map has one of some numbers, bool of its shape."""
    inside: NDArray[np.bool_] = labels == numbers[0]
    for number in numbers[1:]:
        inside |= labels == number
    return inside
