"""What the values of masks mean: `labels` of dataset.json where an item's label is a mask.

People write it in three ways: value to name (the Decathlon: `{"0": "background", "1": "liver"}`), name to value
(nnU-Net: `{"background": 0, "liver": 1, "ignore": 2}`), or a list of names, whose places are the values. A structure
may have several values, see `label_sets`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sagemaker_monai.data.label_names import alike_key
from sagemaker_monai.data.label_sets import ORDER, read_label_sets
from sagemaker_monai.errors import DatasetError
from sagemaker_monai.masks.mask import Mask
from sagemaker_monai.messages.shortened import some_of
from sagemaker_monai.tasks.label_maps import IGNORED, MAX_STRUCTURES
from sagemaker_monai.tasks.regions import MAX_VALUE, Regions, numbers_of_structures

BACKGROUND = frozenset({"background", "bg", "back ground", "hintergrund", "unlabeled", "unlabelled", "none"})
IGNORE = "ignore"  # of nnU-Net: voxels that nobody annotated
WHITE = 255


@dataclass(frozen=True)
class Legend:
    """Values of masks and what they stand for.

    Attributes:
        values: of the structures.
        names: of the structures; the labels of the model.
        ignored: the value of voxels that nobody annotated; None where there is none.
        parts: of each value, its number in a label map, from 1; () where they are 1, 2, 3, ... and those of the names.
        regions: which of these numbers make each structure, if structures overlap.
        terms: of each value, the name that masks give it, where `labels` has names in place of values; else ().
    """

    values: tuple[int, ...]
    names: tuple[str, ...]
    ignored: int | None = None
    parts: tuple[int, ...] = ()
    regions: Regions | None = None
    terms: tuple[str, ...] = ()

    @classmethod
    def of(cls, told: Mapping[str, Any]) -> "Legend":
        """One from its fields as JSON has them, as `dataclasses.asdict` gives them."""
        several = {key: tuple(told[key]) for key in ("values", "names", "parts", "terms")}
        regions = told["regions"]
        if regions is not None:
            members = tuple(map(tuple, regions["members"]))
            regions = Regions(members, tuple(regions["painted"]), tuple(regions["values"]))
        return cls(**several, ignored=told["ignored"], regions=regions)

    @property
    def numbers(self) -> tuple[int, ...]:
        """Every value that has a name."""
        return self.values if self.ignored is None else (*self.values, self.ignored)

    @property
    def members(self) -> tuple[tuple[int, ...], ...]:
        """The numbers of a label map that make each structure."""
        return numbers_of_structures(len(self.names), self.regions)

    def among(self, labels: Sequence[str], regions: Regions | None = None) -> "Legend":
        """The same with the structures in the order of a model's labels.

        A structure that only one of them has is refused: the voxels of it are something else in the other, so that no
        score of any structure would be right. So is a value that is in some structures together which the model never
        has together.

        Args:
            labels: of the model.
            regions: of the model.

        Raises:
            DatasetError: a structure that the model does not have, or one that the masks do not have; or other regions.
        """
        if set(labels) != set(self.names):
            raise DatasetError(_otherwise(self.names, labels))
        if not self.parts and regions is None:
            value_of = dict(zip(self.names, self.values, strict=True))
            return replace(self, values=tuple(value_of[label] for label in labels), names=tuple(labels))
        of_model = _structures_of(labels, numbers_of_structures(len(labels), regions))
        known = {inside: number for number, inside in of_model.items()}
        own = self.parts_by_structures()
        parts = []
        for value, number in zip(self.values, self._parts, strict=True):
            inside = own[number]
            if inside not in known:
                raise DatasetError(
                    f"labels has the value {value} in {some_of(sorted(inside))} and no other structure, and the "
                    "model has no such part: write the regions that it was trained with"
                )
            parts.append(known[inside])
        return replace(self, names=tuple(labels), parts=tuple(parts), regions=regions)

    def parts_by_structures(self) -> dict[int, frozenset[str]]:
        """Every number of a label map with the names of the structures that it is part of."""
        return _structures_of(self.names, self.members)

    @property
    def _parts(self) -> Sequence[int]:
        return self.parts or range(1, len(self.values) + 1)

    def is_named(self, name: str) -> bool:
        """Whether a structure that a mask's file names has a label, in any case and spelling of blanks."""
        return alike_key(name) in self._values_by_name()

    def _values_by_name(self) -> dict[str, int]:
        """What masks may call their structures, with a value of each; of overlapping structures their terms only."""
        values = dict(zip(map(alike_key, self.terms), self.values, strict=False))
        if not self.terms and self.regions is None:
            first = dict(reversed(list(zip(self._parts, self.values, strict=True))))
            values = {alike_key(name): first[number] for number, name in enumerate(self.names, start=1)}
        return values if self.ignored is None else {**values, IGNORE: self.ignored}

    def labels_of(self, mask: Mask) -> tuple[NDArray[np.uint8], tuple[str, ...]]:
        """The label map of a mask, and findings.

        A file that names its structures is read by these names: its numbers follow from the order in which somebody
        drew them, and may differ from one file to the next. Structures of other names are left out, with a finding.
        For regions of values there is `named_regions`.

        Raises:
            DatasetError: values without a name, a file none of whose names is in the legend, or two structures of one
                name.
        """
        if not mask.names and not mask.left_out:
            if self.terms:
                raise DatasetError(
                    f"labels has names of structures ({some_of(list(self.terms))}), and the mask has values only: "
                    "write these into labels"
                )
            return self.label_map(mask.values), ()
        values = self._values_by_name()
        meant = {own: values.get(alike_key(name)) for own, name in mask.names.items()}
        if all(value is None for value in meant.values()):
            raise DatasetError(
                f"the mask calls its structures {some_of([*mask.names.values(), *mask.left_out])}, and labels has "
                f"{some_of(list(self.terms or self.names))}: give both the same names"
            )
        found = [int(value) for value in np.unique(mask.values) if value]
        if nameless := [str(value) for value in found if value not in meant]:
            raise DatasetError(f"the mask has values that it does not name ({some_of(nameless)}); export it again")
        wanted = [meant[own] for own in found if meant[own] is not None]
        if len(set(wanted)) < len(wanted):
            raise DatasetError(
                f"several structures of the mask ({some_of([mask.names[own] for own in found])}) are one by their names"
                "; rename or remove those that are not meant"
            )
        table = np.zeros(MAX_VALUE + 1, np.uint16)
        for own, value in meant.items():
            table[own] = value or 0
        is_left_out = bool(mask.left_out) or any(meant[value] is None for value in found)
        return self.label_map(table[mask.values]), ("structures_left_out",) * is_left_out

    def label_map(self, values: NDArray[np.integer]) -> NDArray[np.uint8]:
        """Values of a mask as labels: 0 for the background, the number of a structure or its part, or `IGNORED`.

        Raises:
            DatasetError: a value that has no name.
        """
        table = np.full(MAX_VALUE + 1, IGNORED - 1, np.uint8)
        table[0] = 0
        for number, value in zip(self._parts, self.values, strict=True):
            table[value] = number
        if self.values == (WHITE,):
            table[1] = 1  # a mask of zeros and ones
        if self.ignored is not None:
            table[self.ignored] = IGNORED
        labels: NDArray[np.uint8] = table[values]
        if unknown := np.unique(values[labels == IGNORED - 1])[:6].tolist():
            known = ", ".join(f"{'/'.join(self._values_of(place))} {name}" for place, name in enumerate(self.names))
            raise DatasetError(
                f"the mask has values without a name ({some_of(list(map(str, unknown)))}); labels has {known[:200]}: "
                "name them there, or correct the mask"
            )
        return labels

    def _values_of(self, place: int) -> list[str]:
        of_number = zip(self._parts, self.values, strict=True)
        return [str(value) for number, value in of_number if number in self.members[place]]


def _structures_of(names: Sequence[str], members: Sequence[Sequence[int]]) -> dict[int, frozenset[str]]:
    """Every number of a label map with the structures that it is part of."""
    numbers = sorted({number for inside in members for number in inside})
    return {
        number: frozenset(name for name, inside in zip(names, members, strict=True) if number in inside)
        for number in numbers
    }


def _otherwise(own: Sequence[str], of_model: Sequence[str]) -> str:
    """How the structures of masks differ from a model's, and what to do."""
    lacking, unknown = (
        [name for name in each if name not in other] for each, other in ((of_model, own), (own, of_model))
    )
    said = []
    if lacking:
        said.append(
            f"the model knows {some_of(lacking)}, which labels does not name: if no image has it, give it a value in "
            "labels that no mask has; if it was not annotated, nothing can be said of it, nor of what includes it"
        )
    if unknown:
        said.append(
            f"labels names {some_of(unknown)}, which the model does not know: make it part of the structure that the "
            "model has it in, or of the background, by the masks' values"
        )
    return "the structures of the masks are not the model's: " + "; ".join(said)


def read_legend(labels: Any, order: Any = None) -> Legend:
    """The legend that dataset.json writes as `labels`.

    Args:
        labels: in one of the three forms; in that from names to values, a structure may have a list of values or names.
        order: `regions_class_order` of dataset.json, of regions that overlap.

    Raises:
        DatasetError: in none of the forms, a value or a name that comes twice, more than 250 structures, or as of
            `read_label_sets`.
    """
    if isinstance(labels, Mapping) and ORDER in labels:  # of labels.json, which has no other place for it
        labels, order = {name: told for name, told in labels.items() if name != ORDER}, labels[ORDER]
    if isinstance(labels, Mapping) and any(isinstance(told, list) for told in labels.values()):
        return _of_sets(labels, order)
    pairs = _pairs(labels)
    background = [value for value, name in pairs if name.strip().lower() in BACKGROUND]
    if background not in ([], [0]):
        raise DatasetError(f"dataset.json: labels gives the background the value {background[0]}; it must be 0")
    ignored = [value for value, name in pairs if name.strip().lower() == IGNORE]
    structures = sorted((value, name) for value, name in pairs if value not in (*background, *ignored))
    if structures and structures[0][0] == 0:
        raise DatasetError(
            f"dataset.json: labels calls 0 {structures[0][1][:60]!r}, and 0 is the background; give the structure "
            'another value, and add "0": "background"'
        )
    values, names = tuple(value for value, _ in structures), tuple(name for _, name in structures)
    twice = sorted({str(each) for many in (values, names) for each in many if many.count(each) > 1})
    if twice or len(ignored) > 1:
        raise DatasetError(f"dataset.json: labels has something twice ({some_of(twice or [IGNORE])}); keep one of each")
    if not 1 <= len(names) <= MAX_STRUCTURES:
        raise DatasetError(
            f"dataset.json: labels names {len(names)} structures beside the background; 1 to {MAX_STRUCTURES} are read"
        )
    return Legend(values, names, ignored[0] if ignored else None)


def _of_sets(labels: Mapping[Any, Any], order: Any) -> Legend:
    """The legend of structures with several values or names."""
    rest, ignored = {}, []
    for name, told in labels.items():
        word = str(name).strip().lower()
        [value] = told if isinstance(told, list) and len(told) == 1 else [told]
        if word in BACKGROUND:
            if type(value) is not int or value:
                raise DatasetError("dataset.json: labels gives the background another value; it must be 0")
        elif word == IGNORE:
            if type(value) is not int or not 1 <= value <= MAX_VALUE:
                raise DatasetError(f"dataset.json: {IGNORE} of labels must have one value, from 1 to {MAX_VALUE}")
            ignored.append(value)
        else:
            rest[str(name)] = told
    sets = read_label_sets(rest, order)
    if sets.terms and ignored:
        ignored = [len(sets.values) + 1]  # its structure has that name
    if len(ignored) > 1 or set(ignored) & set(sets.values):
        raise DatasetError(f"dataset.json: labels has {IGNORE} twice, or its value in a structure; keep one of each")
    return Legend(sets.values, sets.names, ignored[0] if ignored else None, sets.parts, sets.regions, sets.terms)


def _pairs(labels: Any) -> list[tuple[int, str]]:
    """Values with their names, as they are written."""
    if isinstance(labels, Sequence) and not isinstance(labels, str):
        labels = {str(value): name for value, name in enumerate(labels)}
    if isinstance(labels, Mapping) and labels:
        if all(isinstance(value, int) and not isinstance(value, bool) for value in labels.values()):
            pairs = [(value, str(name)) for name, value in labels.items()]
        else:
            pairs = [(int(key), name) for key, name in labels.items() if _is_value(key) and isinstance(name, str)]
        if len(pairs) == len(labels) and all(0 <= value <= MAX_VALUE and name.strip() for value, name in pairs):
            return [(value, name.strip()) for value, name in pairs]
    raise DatasetError(
        'dataset.json: labels must say what the values of the masks are, like {"0": "background", "1": "liver"}, with '
        f"whole numbers from 0 to {MAX_VALUE}"
    )


def _is_value(key: Any) -> bool:
    return isinstance(key, str) and key.strip().isascii() and key.strip().isdigit()
