"""What the values of masks mean: `labels` of dataset.json where an item's label is a mask.

People write it in three ways: value to name (the Decathlon: `{"0": "background", "1": "liver"}`), name to value
(nnU-Net: `{"background": 0, "liver": 1, "ignore": 2}`), or a list of names, whose places are the values.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sagemaker_monai.data.label_names import alike_key
from sagemaker_monai.errors import DatasetError
from sagemaker_monai.masks.mask import Mask
from sagemaker_monai.messages.shortened import some_of
from sagemaker_monai.tasks.label_maps import IGNORED, MAX_STRUCTURES

BACKGROUND = frozenset({"background", "bg", "back ground", "hintergrund", "unlabeled", "unlabelled", "none"})
IGNORE = "ignore"  # of nnU-Net: voxels that nobody annotated
MAX_VALUE = 65_535
WHITE = 255


@dataclass(frozen=True)
class Legend:
    """Values of masks and what they stand for.

    Attributes:
        values: of the structures.
        names: of the structures, in the same order; the labels of the model.
        ignored: the value of voxels that nobody annotated; None where there is none.
    """

    values: tuple[int, ...]
    names: tuple[str, ...]
    ignored: int | None = None

    @property
    def numbers(self) -> tuple[int, ...]:
        """Every value that has a name."""
        return self.values if self.ignored is None else (*self.values, self.ignored)

    def among(self, labels: Sequence[str]) -> "Legend":
        """The same with the structures in the order of a model's labels.

        A structure that only one of them has is refused: the voxels of it are something else in the other, so that no
        score of any structure would be right.

        Raises:
            DatasetError: a structure that the model does not have, or one that the masks do not have.
        """
        if set(labels) != set(self.names):
            raise DatasetError(
                f"labels names {some_of(self.names)}, and the model {some_of(list(labels))}: name the same structures; "
                "one that is in none of these images gets a value that no mask has"
            )
        value_of = dict(zip(self.names, self.values, strict=True))
        return Legend(tuple(value_of[label] for label in labels), tuple(labels), self.ignored)

    def is_named(self, name: str) -> bool:
        """Whether a structure that a mask's file names has a label, in any case and spelling of blanks."""
        return alike_key(name) in self._values_by_name()

    def _values_by_name(self) -> dict[str, int]:
        values = {alike_key(name): value for name, value in zip(self.names, self.values, strict=True)}
        return values if self.ignored is None else {**values, IGNORE: self.ignored}

    def labels_of(self, mask: Mask) -> tuple[NDArray[np.uint8], tuple[str, ...]]:
        """The label map of a mask, and findings.

        A file that names its structures is read by these names: its numbers follow from the order in which somebody
        drew them, and may differ from one file to the next. Structures of other names are left out, with a finding.

        Raises:
            DatasetError: values without a name, a file none of whose names is in the legend, or two structures of one
                name.
        """
        if not mask.names and not mask.left_out:
            return self.label_map(mask.values), ()
        values = self._values_by_name()
        meant = {own: values.get(alike_key(name)) for own, name in mask.names.items()}
        if all(value is None for value in meant.values()):
            raise DatasetError(
                f"the mask calls its structures {some_of([*mask.names.values(), *mask.left_out])}, and labels has "
                f"{some_of(list(self.names))}: give both the same names"
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
        """Values of a mask as labels: 0 for the background, i + 1 for the i-th structure, or `IGNORED`.

        Raises:
            DatasetError: a value that has no name.
        """
        table = np.full(MAX_VALUE + 1, IGNORED - 1, np.uint8)
        table[0] = 0
        for label, value in enumerate(self.values, start=1):
            table[value] = label
        if self.values == (WHITE,):
            table[1] = 1  # a mask of zeros and ones
        if self.ignored is not None:
            table[self.ignored] = IGNORED
        labels: NDArray[np.uint8] = table[values]
        if unknown := np.unique(values[labels == IGNORED - 1])[:6].tolist():
            known = ", ".join(f"{value} {name}" for value, name in zip(self.values, self.names, strict=True))
            raise DatasetError(
                f"the mask has values without a name ({some_of(list(map(str, unknown)))}); labels has {known[:200]}: "
                "name them there, or correct the mask"
            )
        return labels


def read_legend(labels: Any) -> Legend:
    """The legend that dataset.json writes as `labels`.

    Raises:
        DatasetError: not in one of the three forms, a value or a name that comes twice, or more than 250 structures.
    """
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


def _pairs(labels: Any) -> list[tuple[int, str]]:
    """Values with their names, as they are written."""
    if isinstance(labels, Sequence) and not isinstance(labels, str):
        labels = {str(value): name for value, name in enumerate(labels)}
    if isinstance(labels, Mapping) and labels:
        if any(isinstance(value, list) for value in labels.values()):
            raise DatasetError(
                "dataset.json: labels has regions (lists of values), which are not read; name each value by itself"
            )
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
