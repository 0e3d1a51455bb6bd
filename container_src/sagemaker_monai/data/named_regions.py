"""Masks that name their structures, where `labels` has regions of values.

A DICOM SEG or RTSTRUCT of regions (also an answer) has the whole of each, one over the other. So each is read by
itself, and voxels that lie in some of them and in no other are the part that `labels` has of these.
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from sagemaker_monai.data.label_names import alike_key
from sagemaker_monai.data.legends import IGNORE, Legend
from sagemaker_monai.errors import DatasetError
from sagemaker_monai.masks.mask import Mask
from sagemaker_monai.messages.shortened import some_of
from sagemaker_monai.tasks.label_maps import IGNORED, MAX_STRUCTURES

Read = Callable[[Callable[[str], bool]], Mask]


def read_named_regions(read: Read, legend: Legend) -> tuple[NDArray[np.uint8], tuple[str, ...]] | None:
    """The label map of a mask that names its structures, and findings; None if it does not name them.

    Args:
        read: reads the structures of the mask whose names are wanted.
        legend: with regions.

    Raises:
        DatasetError: it has none of the structures, or voxels in structures that no value has together.
        CallerError: as of `read`.
    """
    nothing = read(lambda _name: False)
    if not nothing.left_out:
        return None
    known = {alike_key(name) for name in legend.names} | ({IGNORE} if legend.ignored is not None else set())
    left_out = [name for name in nothing.left_out if alike_key(name) not in known]
    if len(left_out) == len(nothing.left_out):
        raise DatasetError(
            f"the mask calls its structures {some_of(left_out)}, and labels has {some_of(list(legend.names))}: give "
            "both the same names, or write the names of the mask into labels in place of values"
        )
    findings = ["structures_left_out"] * bool(left_out)
    numbers = np.zeros(nothing.values.shape, np.uint8)
    together: list[frozenset[str]] = [frozenset()]  # by number
    for name in legend.names:
        mask = read(_only(name))
        if len([value for value in np.unique(mask.values) if value]) > 1:
            raise DatasetError(
                f"several structures of the mask are {name} by their names; rename or remove all but one"
            )
        findings += mask.findings
        numbers = _joined(numbers, mask.values != 0, name, together)
    table = np.zeros(len(together), np.uint8)
    parts = {inside: part for part, inside in legend.parts_by_structures().items()}
    counts = np.bincount(numbers.ravel(), minlength=len(together))
    for number, inside in enumerate(together):
        if inside and counts[number] and inside not in parts:
            raise DatasetError(
                f"the mask has {counts[number]} voxels in {some_of(sorted(inside))} and in no other structure, and no "
                "value of labels means that: correct the mask, or write the names of its structures into labels in "
                "place of values"
            )
        table[number] = parts.get(inside, 0)
    labels: NDArray[np.uint8] = table[numbers]
    if legend.ignored is not None:
        labels[read(_only(IGNORE)).values != 0] = IGNORED
    return labels, tuple(dict.fromkeys(findings))


def _only(name: str) -> Callable[[str], bool]:
    return lambda other: alike_key(other) == alike_key(name)


def _joined(
    numbers: NDArray[np.uint8], inside: NDArray[np.bool_], name: str, together: list[frozenset[str]]
) -> NDArray[np.uint8]:
    """The numbers of what lies together, with one structure more; new numbers are added to `together`."""
    table = np.zeros(IGNORED + 1, np.uint8)
    for number in np.unique(numbers[inside]).tolist():
        if len(together) > MAX_STRUCTURES:
            raise DatasetError(
                f"the structures of the mask cut each other into more than {MAX_STRUCTURES} parts; choose fewer"
            )
        table[number] = len(together)
        together.append(together[number] | {name})
    numbers[inside] = table[numbers[inside]]
    return numbers
