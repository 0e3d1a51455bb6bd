"""Split a data set: whole groups (patients, lesions), stratified by class, seeded.

The order of groups comes from a hash of seed and group name, not from a shuffled list, so the split is the same on
every platform and does not depend on the order of rows or files. (If a data set grows, groups may change sides.)

Two alternatives lost. Filling the split that lacks most images first sends every large group to training, so the test
images would come only from lesions photographed once. A plain random choice per group leaves a class of five groups
without a test image one time in three.
"""

import hashlib
import math
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence

from sagemaker_monai.errors import ConfigError

SPLITS = ("training", "validation", "test")
Counts = dict[str, "Counter[int]"]  # split -> images (or groups) of each class


def check_fractions(fractions: Sequence[float]) -> None:
    """Raise a ConfigError unless there are three numbers from 0 to 1 with sum 1, the first above 0."""
    sound = len(fractions) == len(SPLITS) and all(math.isfinite(share) and 0 <= share <= 1 for share in fractions)
    if not sound or fractions[0] == 0 or abs(sum(fractions) - 1) > 1e-6:
        shown = ", ".join(f"{share:g}" for share in fractions)
        raise ConfigError(
            f"training, validation and test fractions must be from 0 to 1 with sum 1, training above 0; got {shown}"
        )


def _hash_order(seed: int, group: str) -> str:
    return hashlib.sha256(f"{seed}:{group}".encode("utf-8", "surrogatepass")).hexdigest()


def _next_split(counts: Counter[str], size: int, shares: Mapping[str, float]) -> str:
    """The split furthest behind its share once half of the group is added (Sainte-Laguë's divisor rule)."""
    return min(shares, key=lambda split: ((counts[split] + size / 2) / shares[split], SPLITS.index(split)))


def _fill_missing(chosen: dict[str, str], classes: dict[str, Counter[int]], shares: Mapping[str, float]) -> None:
    """Move single groups until every class is in training and, if it has enough groups, in every split.

    Except into training, a group moves only if none of its classes vanishes from the split that it leaves.
    """
    held: Counts = {split: Counter() for split in shares}  # groups that contain the class
    members: dict[int, list[str]] = defaultdict(list)
    for group, split in chosen.items():
        held[split].update(classes[group].keys())
        for label in classes[group]:
            members[label].append(group)
    for label in sorted(members, key=lambda label: (len(members[label]), label)):
        for split in sorted(shares, key=lambda split: (split != SPLITS[0], -shares[split], SPLITS.index(split))):
            if held[split][label]:
                continue

            def vanishing(group: str) -> int:
                """How many classes the group's current split would lose with it."""
                return sum(held[chosen[group]][other] == 1 for other in classes[group])

            # Training takes even the last group of another split; the others take only what can be spared.
            movable = [group for group in members[label] if split == SPLITS[0] or not vanishing(group)]
            if not movable:
                continue
            group = min(
                movable, key=lambda name: (vanishing(name), -held[chosen[name]][label], classes[name].total(), name)
            )
            held[chosen[group]].subtract(classes[group].keys())
            held[split].update(classes[group].keys())
            chosen[group] = split


def split_by_group(
    labels: Sequence[int], groups: Sequence[str], *, fractions: tuple[float, float, float], seed: int
) -> list[str]:
    """Choose a split for every image so that each group is in one split and classes keep their shares.

    Classes are assigned from the one with fewest groups to the one with most, within a class large groups first, each
    to the split furthest behind its share. So every class follows the fractions to about one group, and groups of every
    size are in every split. A class with at least as many groups as there are non-empty splits is in each of them; with
    fewer it is in training first. If the images of a group have different classes, this holds as far as possible.

    Args:
        labels: class index of each image, from 0.
        groups: group of each image, same length.
        fractions: shares of training, validation and test among the images, sum 1; 0 leaves a split empty.
        seed: any integer; the same seed and (label, group) pairs, in any order, give the same split.

    Returns:
        One of SPLITS for each image.

    Raises:
        ConfigError: the fractions are not valid.

    Source: the order of classes is that of iterative stratification (Sechidis et al., ECML PKDD 2011).
    """
    check_fractions(fractions)
    assert len(labels) == len(groups)
    shares = {split: share for split, share in zip(SPLITS, fractions, strict=True) if share > 0}
    classes: dict[str, Counter[int]] = defaultdict(Counter)  # group -> images of each class
    for label, group in zip(labels, groups, strict=True):
        classes[group][label] += 1
    members: dict[int, list[str]] = defaultdict(list)
    for group, counter in classes.items():
        for label in counter:
            members[label].append(group)

    chosen: dict[str, str] = {}
    images: dict[int, Counter[str]] = defaultdict(Counter)  # class -> images in each split
    for label in sorted(members, key=lambda label: (len(members[label]), label)):
        ordered = sorted(members[label], key=lambda group: (-classes[group].total(), _hash_order(seed, group), group))
        for group in ordered:
            if group in chosen:
                continue
            chosen[group] = _next_split(images[label], classes[group][label], shares)
            for other, count in classes[group].items():
                images[other][chosen[group]] += count
    _fill_missing(chosen, classes, shares)
    return [chosen[group] for group in groups]
