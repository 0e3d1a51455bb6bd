"""Structures of several values each, as `labels` of dataset.json has them: nnU-Net's regions, which may overlap.

`{"whole tumour": [1, 2, 3], "tumour core": [2, 3], "enhancing tumour": 3}` are regions of each other;
`{"hippocampus": [17, 53], "amygdala": [18, 54]}` only put two values together. Lists of names instead of values are for
masks that name their structures. `regions_class_order` says which value an answer gets where only a region is, and
in which order they are painted; without it, larger regions come first, if each lies in or beside the others.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sagemaker_monai.data.label_names import alike_key
from sagemaker_monai.errors import DatasetError
from sagemaker_monai.messages.shortened import some_of
from sagemaker_monai.tasks.label_maps import MAX_STRUCTURES
from sagemaker_monai.tasks.regions import MAX_VALUE, Regions, painting_fault

ORDER = "regions_class_order"


@dataclass(frozen=True)
class LabelSets:
    """Structures and their values.

    Attributes:
        names: of the structures, in the order of the model.
        values: of masks.
        parts: of each value, its number in a label map, from 1.
        regions: of the structures, if they overlap; else their numbers are 1, 2, 3, ...
        terms: of each value, the name that masks give it; () where `labels` has values.
    """

    names: tuple[str, ...]
    values: tuple[int, ...]
    parts: tuple[int, ...]
    regions: Regions | None
    terms: tuple[str, ...] = ()


def read_label_sets(labels: Mapping[str, Any], order: Any) -> LabelSets:
    """Structures with a value, several, or names.

    Args:
        labels: structure -> value, list of values, name or list of names; without the background and what is ignored.
        order: `regions_class_order`, or None.

    Raises:
        DatasetError: no values or names, two structures with the same, or regions that cannot be told apart in one map.
    """
    sets, terms = _sets_of(labels)
    names = tuple(sets)
    if not 1 <= len(names) <= MAX_STRUCTURES:
        raise DatasetError(
            f"dataset.json: labels names {len(names)} structures beside the background; 1 to {MAX_STRUCTURES} are read"
        )
    if twice := [f"{first} and {second}" for place, first in enumerate(names) for second in names[place + 1 :]
                 if sets[first] == sets[second]]:  # fmt: skip
        raise DatasetError(
            f"dataset.json: labels has something twice: the same values are {some_of(twice)}; keep one of each"
        )
    if sum(map(len, sets.values())) == len(frozenset[int]().union(*sets.values())):
        names = tuple(sorted(names, key=lambda name: min(sets[name])))
        pairs = sorted((value, place) for place, name in enumerate(names, start=1) for value in sets[name])
        return LabelSets(names, tuple(value for value, _ in pairs), tuple(part for _, part in pairs), None, terms)
    painted = _told(sets, order, has_terms=bool(terms)) if order is not None else _by_size(sets)
    return _parts_of({name: sets[name] for name in painted}, painted, terms)


def _sets_of(labels: Mapping[str, Any]) -> tuple[dict[str, frozenset[int]], tuple[str, ...]]:
    """The values of each structure; names as values from 1 on in the order in which they come."""
    lists = {name.strip(): told if isinstance(told, list) else [told] for name, told in labels.items()}
    every = [value for told in lists.values() for value in told]
    are_values = all(type(value) is int and 1 <= value <= MAX_VALUE for value in every)
    are_names = all(isinstance(value, str) and value.strip() for value in every)
    if not (are_values or are_names) or not all(lists.values()) or not all(lists) or len(lists) < len(labels):
        raise DatasetError(
            f"dataset.json: labels with lists must give each structure whole numbers from 1 to {MAX_VALUE}, or names "
            'that the masks have, like {"background": 0, "whole tumour": [1, 2, 3], "tumour core": [2, 3]}'
        )
    if are_values:
        return {name: frozenset(told) for name, told in lists.items()}, ()
    terms: dict[str, str] = {}
    for term in every:
        terms.setdefault(alike_key(term), term.strip())
    number = {key: place for place, key in enumerate(terms, start=1)}
    return {name: frozenset(number[alike_key(term)] for term in told) for name, told in lists.items()}, tuple(
        terms.values()
    )


def _by_size(sets: Mapping[str, frozenset[int]]) -> dict[str, int]:
    """The structures, larger ones first, each with the smallest of the values that no smaller one has."""
    names = sorted(sets, key=lambda name: (-len(sets[name]), min(sets[name])))
    painted = {}
    for place, name in enumerate(names):
        own = set(sets[name])
        for smaller in names[place + 1 :]:
            if sets[smaller] & sets[name] and not sets[smaller] < sets[name]:
                raise DatasetError(
                    f"dataset.json: labels has regions {name} and {smaller} that overlap, and neither lies in the "
                    f"other: say in {ORDER} which value each is written with, later ones over those before them"
                )
            own -= sets[smaller]
        if not own:
            raise DatasetError(
                f"dataset.json: labels has no value in {name} that is not of a smaller region, so that one map cannot "
                "show where only it is; leave it out: it is the smaller regions together"
            )
        painted[name] = min(own)
    return painted


def _told(sets: Mapping[str, frozenset[int]], order: Any, *, has_terms: bool) -> dict[str, int]:
    """The structures in their order, each with its value of `regions_class_order`."""
    if has_terms:
        raise DatasetError(f"dataset.json: {ORDER} is of values, and labels has names of structures; leave it out")
    if not isinstance(order, list) or len(order) != len(sets) or not all(type(value) is int for value in order):
        raise DatasetError(
            f"dataset.json: {ORDER} must be a list with one value for each of the {len(sets)} regions, in the order of "
            "labels, without the background"
        )
    painted = dict(zip(sets, order, strict=True))
    for name, value in painted.items():
        if value not in sets[name]:
            raise DatasetError(f"dataset.json: {ORDER} gives {name} the value {value}, which it does not have")
    return painted


def _parts_of(sets: Mapping[str, frozenset[int]], painted: Mapping[str, int], terms: tuple[str, ...]) -> LabelSets:
    """The label map's numbers: values that are in the same structures are one part."""
    names = tuple(sets)
    values = sorted(frozenset[int]().union(*sets.values()))
    of_value = {value: tuple(place for place, name in enumerate(names) if value in sets[name]) for value in values}
    written = {of_value[value]: value for value in reversed(values)}  # the smallest of each
    written |= {of_value[value]: value for value in painted.values()}
    numbers = {places: number for number, places in enumerate(sorted(written, key=written.__getitem__), start=1)}
    if len(numbers) > MAX_STRUCTURES:
        raise DatasetError(
            f"dataset.json: labels has regions that cut each other into {len(numbers)} parts; at most {MAX_STRUCTURES} "
            "are read"
        )
    members = tuple(
        tuple(sorted(number for places, number in numbers.items() if place in places)) for place in range(len(names))
    )
    parts = tuple(numbers[of_value[painted[name]]] for name in names)
    if fault := painting_fault(members, parts):
        first, second = (names[place] for place in fault)
        raise DatasetError(
            f"dataset.json: {ORDER} writes {first} so that it is lost in {second} or counts as it: name larger regions "
            "first, and give each a value that is in no region which does not hold all of it"
        )
    regions = Regions(members, parts, tuple(sorted(written.values())))
    return LabelSets(names, tuple(values), tuple(numbers[of_value[value]] for value in values), regions, terms)
