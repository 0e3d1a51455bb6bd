"""From labels and groups to the sides of a split."""

import math
from collections.abc import Mapping, Sequence

from sagemaker_monai.data.splitting import SPLITS, split_by_group
from sagemaker_monai.errors import DatasetError
from sagemaker_monai.prepare.import_report import NO_CLASS
from sagemaker_monai.prepare.leaks import count_by_class
from sagemaker_monai.tasks.labels import Label
from sagemaker_monai.tasks.tasks import TASKS

BINS = 5  # of numbers, to stratify a split (a guess)


def classes_of(label: Label, task: str, classes: Sequence[str]) -> list[str]:
    """The classes in which a label counts."""
    if TASKS[task].form == "number":
        return [classes[0]]
    return [label] if isinstance(label, str) else list(label) if isinstance(label, tuple) else []


def split_images(
    classes: Sequence[Sequence[int]], groups: Sequence[str], *, fractions: tuple[float, float, float], seed: int
) -> list[str]:
    """Choose a split for each image, stratified by all of its classes.

    Args:
        classes: of each image, any number; images without any are stratified as one more class.
        groups: of each image.
        fractions, seed: as for `splitting.split_by_group`, which gets an image once for each of its classes.
    """
    without = 1 + max((label for labels in classes for label in labels), default=-1)
    told = [(label, group) for labels, group in zip(classes, groups, strict=True) for label in (labels or [without])]
    drawn = split_by_group([label for label, _ in told], [group for _, group in told], fractions=fractions, seed=seed)
    side = {group: split for (_, group), split in zip(told, drawn, strict=True)}
    return [side[group] for group in groups]


def draw_split(
    labels: Sequence[Label],
    groups: Sequence[str],
    *,
    task: str,
    classes: Sequence[str],
    fractions: tuple[float, float, float],
    seed: int,
) -> list[str]:
    """Choose a side for each image: whole groups, stratified by class, findings or size of the number.

    Raises:
        DatasetError: all images are one group, so nothing can be held out.
    """
    if len(set(groups)) == 1 and fractions[0] < 1:
        raise DatasetError(
            "all images are of one group (patient), so none can be held out; tell patients apart with --group-by, or "
            "give --train 1 --validation 0 --test 0"
        )
    if TASKS[task].form == "number":
        numbers = [float(label) for label in labels if isinstance(label, int | float)]
        ranks = {value: rank for rank, value in enumerate(sorted(set(numbers)))}
        told = [[BINS * ranks[value] // len(ranks)] for value in numbers]
    else:
        place = {name: index for index, name in enumerate(classes)}
        told = [[place[name] for name in classes_of(label, task, classes)] for label in labels]
    return split_images(told, groups, fractions=fractions, seed=seed)


def refuse_torn(groups: Sequence[str], splits: Sequence[str | None]) -> None:
    """Refuse a given split that has images of one group on two sides.

    Raises:
        DatasetError: with the counts; groups may be patients and are not named.
    """
    sides: dict[str, set[str]] = {}
    for group, split in zip(groups, splits, strict=True):
        sides.setdefault(group, set()).add(split or "none")
    if torn := [group for group, seen in sides.items() if len(seen) > 1]:
        images = sum(group in set(torn) for group in groups)
        raise DatasetError(
            f"the given split has {len(torn)} of {len(sides)} groups (patients, or images with the same pixels) on "
            f"two sides, {images} images; correct it, or leave the column out to have the split drawn"
        )


def count_images(
    labels: Sequence[Label], splits: Sequence[str], *, task: str, classes: Sequence[str]
) -> Mapping[str, Mapping[str, int]]:
    """Images by class and side, in the order of the classes."""
    told = [
        (name, split)
        for label, split in zip(labels, splits, strict=True)
        for name in (classes_of(label, task, classes) or [NO_CLASS])
    ]
    counts = count_by_class([name for name, _ in told], [split for _, split in told])
    order = {name: index for index, name in enumerate(classes)}
    none = dict.fromkeys(SPLITS, 0)
    return {
        name: counts.get(name, none) for name in sorted({*order, *counts}, key=lambda name: order.get(name, math.inf))
    }


def missing_sides(counts: Mapping[str, Mapping[str, int]], fractions: tuple[float, float, float] | None) -> list[str]:
    """Warnings about sides without an image, and classes that training does not have."""
    warnings = []
    for split, share in zip(SPLITS, fractions or (1, 1, 1), strict=True):
        if share and not any(row[split] for row in counts.values()):
            warnings.append(f"no image is for {split}")
    if absent := [name for name, row in counts.items() if not row["training"]]:
        warnings.append(f"training has no image of {len(absent)} of {len(counts)} classes")
    return warnings
