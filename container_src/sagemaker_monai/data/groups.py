"""Groups: which column, or key of an item, names what must stay in one split, such as the patient.

A column called `group` does, and one whose name says patient, subject, case, study or lesion in any spelling. The
coarsest of several is taken, because it keeps the groups of the others together. Names are compared as in `columns`.
"""

import re
import unicodedata
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from sagemaker_monai.errors import DatasetError
from sagemaker_monai.messages.remarks import Remark, remark
from sagemaker_monai.storage.columns import (
    NO_GROUP,
    NOBODY,
    find_column,
    group_rank,
    is_missing,
    is_person,
    plain,
    usual_columns,
)

_WHOLE = re.compile(r"(\d+)\.0+")


def names_group(text: str) -> bool:
    """Whether a cell names a patient or another group: it is not missing and not a word such as "unknown"."""
    return not is_missing(text) and plain(text) not in NOBODY


def group_key(text: str) -> str:
    """Normalize a group's name: without case, Unicode form, blanks, leading zeros, and the .0 of pandas.

    Too large a group costs little; a patient in two splits makes every score wrong.
    """
    folded = "".join(unicodedata.normalize("NFKC", text).casefold().split())
    if whole := _WHOLE.fullmatch(folded):
        folded = whole[1]
    return (folded.lstrip("0") or "0") if folded.isdecimal() else folded


@dataclass(frozen=True)
class Groups:
    """What stays together.

    Attributes:
        column: with the groups; "" if there is none.
        values: of each row, None if missing; different spellings of a value are unified.
        remarks: on the column and its oddities.
    """

    column: str
    values: tuple[str | None, ...]
    remarks: tuple[Remark, ...] = ()


def read_groups(
    columns: Mapping[str, Sequence[str]], labels: Sequence[object], *, wanted: str = "", what: str, option: str
) -> Groups:
    """Choose the column with the groups, and read it.

    Of several columns the coarsest by its name is taken; `group` and another one must be nested, and the coarser of
    the two is taken.

    Args:
        columns: name -> a cell per row, "" if empty; without those of image, label and split.
        labels: of the rows. A column with the same information is not taken if there is another one.
        wanted: the named column, NO_GROUP for none, "" to choose.
        what: the table's name for messages.
        option: that names the column, for messages.

    Raises:
        DatasetError: there is no such column, or two columns contradict each other.
    """
    nothing: tuple[None, ...] = (None,) * len(labels)
    if wanted:
        if plain(wanted) == NO_GROUP and NO_GROUP not in map(plain, columns):
            return Groups("", nothing)
        name = find_column(list(columns), wanted, what)
        return _read(name, columns[name], option, is_named=True)
    usual = usual_columns(list(columns), "group")
    ranks = {name: rank for name in columns if (rank := group_rank(name)) is not None}
    keys = {name: found for name in [*usual, *ranks] if any(found := _keys(columns[name]))}
    remarks = []
    for name in list(keys):
        is_odd = not is_person(name) and _is_label(keys[name], labels)
        if is_odd and len(keys) > 1:
            remarks.append(remark("group_is_label", column=name, option=option))
            del keys[name]
    if not keys:
        return Groups("", nothing)
    ranked = sorted((name for name in keys if name in ranks), key=lambda name: ranks[name])
    same = [name for name in ranked if ranks[name] == ranks[ranked[0]]]
    chosen = _coarsest([name for name in usual if name in keys] + same, keys, what, option)
    remarks += [
        remark("groups_not_nested", torn, column=chosen, other=other, option=option)
        for other in keys
        if other != chosen and (torn := _torn(keys[other], keys[chosen]))
    ]
    read = _read(chosen, columns[chosen], option, is_named=chosen in usual)
    return Groups(chosen, read.values, (*read.remarks, *remarks))


def _keys(cells: Sequence[str]) -> list[str]:
    return [group_key(cell) if names_group(cell) else "" for cell in cells]


def _read(name: str, cells: Sequence[str], option: str, *, is_named: bool) -> Groups:
    keys = _keys(cells)
    shown: dict[str, str] = {}
    for key, cell in zip(keys, cells, strict=True):
        shown[key] = min(shown.get(key, cell), cell)
    values = tuple(shown[key] if key else None for key in keys)
    remarks = [] if is_named else [remark("groups_by_column", len(set(keys) - {""}), column=name, option=option)]
    if bare := keys.count(""):
        remarks.append(remark("images_without_group", bare, column=name))
    spellings = {cell for key, cell in zip(keys, cells, strict=True) if key}
    if joined := len(spellings) - len(set(keys) - {""}):
        remarks.append(remark("groups_alike", joined, column=name))
    return Groups(name, values, tuple(remarks))


def _is_label(keys: Sequence[str], labels: Sequence[object]) -> bool:
    """Whether a column has exactly the label's information, with several images per value."""
    pairs = {(key, str(label)) for key, label in zip(keys, labels, strict=True)}
    values, classes = {key for key, _ in pairs}, {label for _, label in pairs}
    return len(pairs) == len(values) == len(classes) and len(keys) > len(pairs)


def _torn(finer: Sequence[str], coarser: Sequence[str]) -> int:
    """How many groups of one column have images in several groups of the other."""
    parents: Mapping[str, set[str]] = defaultdict(set)
    for small, large in zip(finer, coarser, strict=True):
        if small and large:
            parents[small].add(large)
    return sum(len(each) > 1 for each in parents.values())


def _coarsest(names: Sequence[str], keys: Mapping[str, Sequence[str]], what: str, option: str) -> str:
    """The column whose groups keep those of all others together; the first of equal ones."""
    for name in names:
        if not any(_torn(keys[other], keys[name]) for other in names):
            return name
    raise DatasetError(
        f"{what}: the columns {' and '.join(names)[:200]} disagree about what belongs together; name the patient's "
        f"column with {option}"
    )
