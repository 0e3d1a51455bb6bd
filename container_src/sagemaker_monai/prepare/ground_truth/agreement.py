"""Agreement of annotators beyond chance: Cohen's kappa of two, Fleiss' kappa and Krippendorff's alpha of any number.

Categories are unordered. An image with one annotator says nothing about agreement, but its answer counts for chance.
A figure is None if it is not defined: no two annotators share an image, or all answers are the same.
"""

import operator
from collections import Counter, defaultdict
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

Ratings = Sequence[Mapping[int, Hashable]]  # one mapping an image: annotator -> category
Counts = Sequence[Mapping[Hashable, int]]  # one mapping an image: category -> annotators who chose it


@dataclass(frozen=True)
class Pair:
    """Two annotators: on how many images both answered, the share of equal answers, and Cohen's kappa."""

    first: int
    second: int
    images: int
    observed: float
    cohen_kappa: float | None


@dataclass(frozen=True)
class Agreement:
    """How far all annotators agree.

    Attributes:
        images: with at least two answers.
        observed: share of equal answers among all pairs of answers to one image, averaged over images.
        fleiss_kappa, krippendorff_alpha: the same beyond chance; at most 1, 0 is chance.
        mean_cohen_kappa: of all pairs with a kappa, weighted by their images (Light's kappa is not weighted).
        pairs: of annotators, those with most images in common first.
    """

    images: int
    observed: float | None
    fleiss_kappa: float | None
    krippendorff_alpha: float | None
    mean_cohen_kappa: float | None
    pairs: Sequence[Pair]


def cohen_kappa(first: Sequence[Hashable], second: Sequence[Hashable]) -> float | None:
    """Agreement of two annotators beyond chance.

    Args:
        first, second: their answers to the same images, in the same order.

    Source: J. Cohen, Educational and Psychological Measurement 20, 37-46 (1960).
    """
    assert len(first) == len(second)
    total = len(first)
    if not total:
        return None
    # Whole numbers up to the last division, so that equal answers throughout give None and not 0 / 1e-17.
    equal = sum(one == other for one, other in zip(first, second, strict=True))
    left, right = Counter(first), Counter(second)
    by_chance = sum(left[category] * right[category] for category in left)  # times total squared
    if by_chance == total * total:
        return None
    return (equal * total - by_chance) / (total * total - by_chance)


def observed_agreement(counts: Counts) -> float | None:
    """The share of equal pairs of answers to an image, averaged over the images with at least two answers."""
    shares = []
    for image in counts:
        raters = sum(image.values())
        if raters > 1:
            shares.append(sum(count * (count - 1) for count in image.values()) / (raters * (raters - 1)))
    return sum(shares) / len(shares) if shares else None


def fleiss_kappa(counts: Counts) -> float | None:
    """Agreement of many annotators beyond chance, also where images have different numbers of answers.

    With one number of answers for all images this is Fleiss' own formula. Otherwise agreement is averaged over images
    with at least two answers, and the share of a category by chance is the mean over all images of its share there.

    Source: J. L. Fleiss, Psychological Bulletin 76, 378-382 (1971); with missing answers K. L. Gwet, Handbook of
    Inter-Rater Reliability, 4th ed. (2014), chapter 2 (fleiss.kappa.raw of its R package irrCAC).
    """
    observed = observed_agreement(counts)
    answered = [image for image in counts if sum(image.values())]
    if observed is None or len(_categories(answered)) < 2:
        return None
    shares: dict[Hashable, float] = defaultdict(float)
    for image in answered:
        raters = sum(image.values())
        for category, count in image.items():
            shares[category] += count / raters / len(answered)
    by_chance = sum(share * share for share in shares.values())
    return (observed - by_chance) / (1 - by_chance)


def krippendorff_alpha(counts: Counts) -> float | None:
    """One minus observed over expected disagreement, over the images with at least two answers.

    Source: K. Krippendorff, Computing Krippendorff's Alpha-Reliability (2011), section D, nominal data.
    """
    pairable = [image for image in counts if sum(image.values()) > 1]
    if len(_categories(pairable)) < 2:
        return None
    totals: Counter[Hashable] = Counter()
    disagreement = 0.0
    for image in pairable:
        raters = sum(image.values())
        disagreement += (raters * raters - sum(count * count for count in image.values())) / (raters - 1)
        totals.update(image)
    answers = totals.total()
    expected = (answers * answers - sum(count * count for count in totals.values())) / (answers - 1)
    return 1 - disagreement / expected


def _categories(counts: Counts) -> set[Hashable]:
    return {category for image in counts for category, count in image.items() if count}


def cohen_by_pair(ratings: Ratings) -> list[Pair]:
    """Cohen's kappa of every two annotators, on the images that both answered; pairs with most images first."""
    shared: dict[tuple[int, int], tuple[list[Hashable], list[Hashable]]] = defaultdict(lambda: ([], []))
    for image in ratings:
        for first, second in combinations(sorted(image), 2):
            left, right = shared[first, second]
            left.append(image[first])
            right.append(image[second])
    pairs = [
        Pair(first, second, len(left), sum(map(operator.eq, left, right)) / len(left), cohen_kappa(left, right))
        for (first, second), (left, right) in shared.items()
    ]
    return sorted(pairs, key=lambda pair: (-pair.images, pair.first, pair.second))


def measure_agreement(ratings: Ratings) -> Agreement:
    """All figures for one question about every image."""
    counts = [Counter(image.values()) for image in ratings]
    pairs = cohen_by_pair(ratings)
    defined = [(pair.cohen_kappa, pair.images) for pair in pairs if pair.cohen_kappa is not None]
    weight = sum(images for _, images in defined)
    return Agreement(
        images=sum(len(image) > 1 for image in ratings),
        observed=observed_agreement(counts),
        fleiss_kappa=fleiss_kappa(counts),
        krippendorff_alpha=krippendorff_alpha(counts),
        mean_cohen_kappa=sum(kappa * images for kappa, images in defined) / weight if weight else None,
        pairs=pairs,
    )
