"""What would be on two sides of a split: images of one group, and near-identical images of different groups.

Groups that share a near-identical image are joined into one before anything is split, so there is one rule for both.
"""

import hashlib
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from sagemaker_monai.data.splitting import SPLITS


@dataclass(frozen=True)
class Move:
    """An image that a given split had on another side than the rest of its group."""

    image: str
    group: str
    old: str
    new: str


def digest_of(values: np.ndarray) -> bytes | None:
    """SHA-256 of an array, its shape and type; None where all values are the same, which is equal for many."""
    if values.min() == values.max():
        return None
    digest = hashlib.sha256(repr((values.shape, values.dtype.str)).encode())
    digest.update(np.ascontiguousarray(values).data)
    return digest.digest()


def same_pictures(pictures: Sequence[Sequence[bytes | None]]) -> list[tuple[int, int]]:
    """Pairs of images that share a picture, each with the first image that had it."""
    first: dict[bytes, int] = {}
    pairs: dict[tuple[int, int], None] = {}
    for place, digests in enumerate(pictures):
        for digest in digests:
            if digest is not None and (other := first.setdefault(digest, place)) != place:
                pairs[other, place] = None
    return list(pairs)


def join_groups(groups: Sequence[str], pairs: Sequence[tuple[int, int]]) -> list[str]:
    """Join the groups of each pair of images.

    Args:
        groups: group of each image.
        pairs: indices of images that must not be separated.

    Returns:
        A group for each image; joined groups carry the first of their names in alphabetical order.
    """
    parent = {group: group for group in groups}

    def root(group: str) -> str:
        while parent[group] != group:
            parent[group] = parent[parent[group]]  # halves the path, so that long chains stay cheap
            group = parent[group]
        return group

    for first, second in pairs:
        low, high = sorted((root(groups[first]), root(groups[second])))
        parent[high] = low
    return [root(group) for group in groups]


def gather_groups(images: Sequence[str], groups: Sequence[str], splits: Sequence[str]) -> tuple[list[str], list[Move]]:
    """Bring every group of a given split to the side where most of its images are.

    A tie goes to test, then to validation: training loses an image more easily than they do.

    Args:
        images, groups, splits: id, group and given split of each image.

    Returns:
        The split of each image, and what was moved.
    """
    sides: dict[str, Counter[str]] = defaultdict(Counter)
    for group, split in zip(groups, splits, strict=True):
        sides[group][split] += 1
    home = {
        group: max(counts, key=lambda split: (counts[split], SPLITS.index(split))) for group, counts in sides.items()
    }
    moves = [
        Move(image, group, split, home[group])
        for image, group, split in zip(images, groups, splits, strict=True)
        if home[group] != split
    ]
    return [home[group] for group in groups], moves


def separated(pairs: Sequence[tuple[int, int]], splits: Sequence[str]) -> list[tuple[int, int]]:
    """The pairs whose images are in different splits."""
    return [(first, second) for first, second in pairs if splits[first] != splits[second]]


def count_by_class(labels: Sequence[str], splits: Sequence[str]) -> Mapping[str, Mapping[str, int]]:
    """Images of each class in each split."""
    counted = Counter(zip(labels, splits, strict=True))
    return {label: {split: counted[label, split] for split in SPLITS} for label in sorted(set(labels))}
