"""How far the masks that several annotators drew of one image agree: Dice of every two of them, structure by structure.

Few combinations of answers occur in an image, however many pixels it has. They are counted once; everything that only
depends on what the annotators said of a pixel is computed of the combinations.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from sagemaker_monai.data.mask_reading import MaskOf, labels_on_grid
from sagemaker_monai.errors import CallerError
from sagemaker_monai.masks.mask import Grid
from sagemaker_monai.tasks.label_maps import IGNORED

PairsDice = Mapping[tuple[int, int], float]  # of one structure in one image: two annotators -> their Dice


@dataclass(frozen=True)
class Combinations:
    """What several annotators said of the pixels of an image.

    Attributes:
        said: uint8 (P, J), for each combination that occurs the label of each annotator, or IGNORED.
        counts: int64 (P,), of pixels.
        place: the combination of each pixel, of the image's shape.
    """

    said: NDArray[np.uint8]
    counts: NDArray[np.int64]
    place: NDArray[np.intp]


@dataclass(frozen=True)
class PairAgreement:
    """Two annotators: in how many images at least one of them drew the structure, and their mean Dice there."""

    first: int
    second: int
    images: int
    dice: float


@dataclass(frozen=True)
class DiceAgreement:
    """Of one structure: the images in which two annotators can be compared, the mean Dice of all pairs in all of them,
    and every pair, that of lowest Dice first."""

    images: int
    dice: float
    pairs: tuple[PairAgreement, ...]


def combinations_of(maps: Sequence[NDArray[np.uint8]]) -> Combinations:
    """Count the combinations of labels.

    Args:
        maps: label maps of one shape, one an annotator.
    """
    place = np.zeros(maps[0].shape, np.intp)
    said = np.zeros((1, 0), np.uint8)
    for labels in maps:
        codes = place * (IGNORED + 1) + labels
        there = np.flatnonzero(np.bincount(codes.ravel(), minlength=1))
        place = np.searchsorted(there, codes)
        said = np.column_stack([said[there // (IGNORED + 1)], (there % (IGNORED + 1)).astype(np.uint8)])
    return Combinations(said, np.bincount(place.ravel(), minlength=len(said)).astype(np.int64), place)


def dice_of(
    said: NDArray[np.uint8], counts: NDArray[np.int64], label: int | Sequence[int], pair: tuple[int, int]
) -> float | None:
    """Dice of two columns, without pixels that either ignores; None if neither has the label, which says nothing.

    Args:
        said, counts: of `Combinations`.
        label: of the structure; several if it has parts.
        pair: two columns.
    """
    told = (said[:, pair] != IGNORED).all(axis=1)
    first, second = (told & np.isin(said[:, column], label) for column in pair)
    common = int(counts[first & second].sum())
    both = int(counts[first].sum() + counts[second].sum())
    return 2 * common / both if both else None


def dice_by_pair(found: Combinations, annotators: Sequence[int], label: int | Sequence[int]) -> PairsDice:
    """Dice of a structure by every two annotators, by their numbers, without pairs of which neither drew it.

    Args:
        found: of one image.
        annotators: the number of each column.
        label: of the structure; several if it has parts.
    """
    pairs = {}
    for columns in combinations(range(len(annotators)), 2):
        if (dice := dice_of(found.said, found.counts, label, columns)) is not None:
            low, high = sorted(annotators[column] for column in columns)
            pairs[low, high] = dice
    return pairs


def agreement_by_structure(images: Sequence[Mapping[str, PairsDice]]) -> dict[str, DiceAgreement]:
    """The agreement on each structure in a data set.

    Args:
        images: for each the Dice of pairs by structure.
    """
    values: dict[str, dict[tuple[int, int], list[float]]] = defaultdict(lambda: defaultdict(list))
    compared: dict[str, int] = defaultdict(int)
    for image in images:
        for structure, pairs in image.items():
            compared[structure] += bool(pairs)
            for pair, dice in pairs.items():
                values[structure][pair].append(dice)
    return {
        structure: DiceAgreement(
            compared[structure],
            float(np.mean([dice for own in pairs.values() for dice in own])),
            tuple(
                sorted(
                    (PairAgreement(*pair, len(own), float(np.mean(own))) for pair, own in pairs.items()),
                    key=lambda pair: (pair.dice, pair.first, pair.second),
                )
            ),
        )
        for structure, pairs in sorted(values.items())
    }


def compare_annotators(task: MaskOf, grid: Grid) -> tuple[tuple[PairsDice, ...], int]:
    """Compare what several annotators drew of an image.

    Args:
        task: names their masks.
        grid: of the image.

    Returns:
        The Dice of every two annotators for each structure, in the order of the legend, empty if there are no two masks
        to compare; and how many of their masks are missing or cannot be used.
    """
    maps = {}
    for who, path in task.annotators.items():
        try:
            maps[who] = labels_on_grid(path, grid, task.legend)[0]
        except (CallerError, OSError, MemoryError):
            continue
    refused = len(task.annotators) - len(maps)
    if len(maps) < 2:
        return (), refused
    said = combinations_of(list(maps.values()))
    return tuple(dice_by_pair(said, list(maps), numbers) for numbers in task.legend.members), refused
