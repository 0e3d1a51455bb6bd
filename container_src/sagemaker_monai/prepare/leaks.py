"""Leaks between the sides of a split: images of one group, and equal or near-identical images of different groups.

Groups that share such an image become one before anything is split, so one rule covers both.
"""

import hashlib
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from sagemaker_monai.data.splitting import SPLITS


@dataclass(frozen=True)
class Move:
    """An image that a given split had on another side than most of its group."""

    image: str
    group: str
    old: str
    new: str


def digest_of(values: np.ndarray) -> bytes | None:
    """SHA-256 of an array, its shape and type; None for a blank array, which many images have."""
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
    """Join the groups of pairs of images that must not be separated.

    Args:
        groups: group of each image.
        pairs: indices of the images.

    Returns:
        A group for each image; joined groups have the alphabetically first of their names.
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
    """Bring every group of a given split to the side where most of its images are; returns all splits, and the moves.

    A tie goes to test, then to validation: training can spare an image more easily.

    Args:
        images, groups, splits: id, group and given split of each image.
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


def count_by_class(labels: Sequence[str], splits: Sequence[str]) -> Mapping[str, Mapping[str, int]]:
    """Images of each class in each split."""
    counted = Counter(zip(labels, splits, strict=True))
    return {label: {split: counted[label, split] for split in SPLITS} for label in sorted(set(labels))}
