"""Divides slices that share places into volumes, by the attributes of `tells`.

The attributes are tried in their order, twice. First, one counts only if every resulting volume has a slice in each
place; then volumes may lack slices, if they cover a good share of the places and overlap. So a complete division is
preferred to one with gaps, and consecutive acquisitions that overlap by a few slices are not volumes of one place.

A slice is its index here, and a place a number along the normal.
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from sagemaker_monai.images.dicom.tells import DISCRIMINATORS, SETTINGS, Discriminator, number_kinds, seconds_of

SMALLEST_SHARE = 0.25  # of a stack's places that each volume must cover (a guess)
STEADY = 0.5  # of the time between two phases: the most by which one phase may vary between places (a guess)
LONGEST_CYCLE = 2  # times the shortest heart beat or breath (a guess)
SHARED_PLACES = 0.5  # of the smaller of two volumes: from here on they overlap, below it they follow each other

Told = tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Part:
    """The slices of one volume, and what distinguishes them: (attribute, value)."""

    members: tuple[int, ...]
    told_by: Told = ()


Piece = tuple[str, list[int]]  # the value that its slices have, and the slices


def divide(
    tells: Sequence[Mapping[str, str]],
    places: Sequence[int],
    is_same: Callable[[Sequence[Sequence[int]]], bool],
) -> list[Part]:
    """Divide slices into volumes.

    Args:
        tells: the values of `DISCRIMINATORS` of each slice.
        places: the number of each slice's place.
        is_same: whether pieces that cover the same places have the same pixels, so that they are copies, not volumes.

    Returns:
        One or more parts. If a place still occurs more than once in a part, no attribute distinguishes its slices.
    """
    parts = [Part(tuple(range(len(places))))]
    for is_whole in (True, False):
        for name, row in DISCRIMINATORS.items():
            if all(len({places[index] for index in part.members}) == len(part.members) for part in parts):
                break
            parts = [
                piece for part in parts for piece in _divide(part, name, row, tells, places, is_same, is_whole=is_whole)
            ]
    return [piece for part in parts for piece in _unlace(part, tells, places)]


def _divide(
    part: Part,
    name: str,
    row: Discriminator,
    tells: Sequence[Mapping[str, str]],
    places: Sequence[int],
    is_same: Callable[[Sequence[Sequence[int]]], bool],
    *,
    is_whole: bool,
) -> list[Part]:
    if len({places[index] for index in part.members}) == len(part.members):
        return [part]
    texts = [tells[index].get(name, "") for index in part.members]
    if len(set(texts)) == 1:
        return [part]
    for make_pieces in _MAKERS[row.kind]:
        pieces = make_pieces(part.members, texts, places)
        covered = [Counter(places[index] for index in piece) for _, piece in pieces]
        if len(pieces) < 2 or not _are_volumes([set(each) for each in covered], is_whole=is_whole):
            continue
        union = sorted(set[int]().union(*covered))
        if make_pieces is _by_value and row.kind != "setting" and not all(_is_regular(each, union) for each in covered):
            continue
        if row.kind == "clock" and _is_contradicted(name, pieces, part.members, tells, places):
            continue
        if row.kind != "setting" and is_same([piece for _, piece in pieces]):
            continue
        return [Part(tuple(piece), (*part.told_by, (name, value))) for value, piece in pieces]
    return [part]


def _are_volumes(covered: list[set[int]], *, is_whole: bool) -> bool:
    """Whether pieces cover the places of volumes that lie on top of each other."""
    union = set[int]().union(*covered)
    if is_whole:
        return all(len(each) == len(union) for each in covered)
    if min(map(len, covered)) < max(SMALLEST_SHARE * len(union), min(2, len(union))):
        return False
    others = sorted(covered, key=len, reverse=True)  # the largest first: usually the first comparison decides
    return all(any(_share(each, other) for other in others if other is not each) for each in covered)


def _share(one: set[int], other: set[int]) -> bool:
    return len(one & other) >= SHARED_PLACES * min(len(one), len(other))


def _is_regular(piece: Counter[int], union: Sequence[int]) -> bool:
    """Whether slices grouped by a word or counter look like a volume rather than chance: equally many slices in each
    place, and no gaps. Measured settings need no such check: an echo's volume that lacks a slice is still one.
    """
    first, last = union.index(min(piece)), union.index(max(piece))
    return len(set(piece.values())) == 1 and last - first + 1 == len(piece)


# --- pieces by the kind of the attribute ------------------------------------------------------------------------------


def _by_value(members: Sequence[int], texts: Sequence[str], _places: Sequence[int]) -> list[Piece]:
    pieces: dict[int, Piece] = {}
    for index, text, kind in zip(members, texts, number_kinds(texts), strict=True):
        pieces.setdefault(kind, (text, []))[1].append(index)
    return [pieces[kind] for kind in sorted(pieces)]


def _by_clock(members: Sequence[int], texts: Sequence[str], places: Sequence[int]) -> list[Piece]:
    """Volumes taken one after the other; none if times are missing, equal in a place, or overlap."""
    known = _moments(members, texts)
    if known is None:
        return []
    pieces = by_rank(members, known, places) or _by_gaps(members, known, places)
    texts_of = dict(zip(members, texts, strict=True))
    return [(texts_of[min(piece, key=lambda index: known[index])], piece) for piece in pieces]


def _moments(members: Sequence[int], texts: Sequence[str]) -> dict[int, float] | None:
    """The time of each slice, None if one is missing."""
    known = {
        index: moment for index, text in zip(members, texts, strict=True) if (moment := seconds_of(text)) is not None
    }
    return known if len(known) == len(members) else None


def _is_contradicted(
    name: str,
    pieces: Sequence[Piece],
    members: Sequence[int],
    tells: Sequence[Mapping[str, str]],
    places: Sequence[int],
) -> bool:
    """Whether another clock divides the same slices differently."""
    mine = {frozenset(piece) for _, piece in pieces}
    for other, row in DISCRIMINATORS.items():
        if row.kind == "clock" and other != name:
            theirs = {
                frozenset(piece)
                for _, piece in _by_clock(members, [tells[index].get(other, "") for index in members], places)
            }
            if len(theirs) > 1 and theirs != mine:
                return True
    return False


def _by_beat(members: Sequence[int], texts: Sequence[str], places: Sequence[int]) -> list[Piece]:
    """The phases of a cycle whose length differs a little from place to place: the first of each place, and so on."""
    known = _moments(members, texts)
    rows = None if known is None else _ranked(members, known, places)
    if known is None or rows is None:
        return []
    values = np.array([[known[int(index)] for index in row] for row in rows])
    cycles = values[:, -1] - values[:, 0]
    if rows.shape[1] == 2:
        within, between = np.ptp(values, axis=0).max(), cycles.min()
    else:
        shares = (values - values[:, :1]) / cycles[:, np.newaxis]  # of the cycle: nearly the same in every place
        within, between = np.ptp(shares, axis=0).max(), np.diff(np.median(shares, axis=0)).min()
    if within > STEADY * between or cycles.max() > LONGEST_CYCLE * cycles.min():
        return []
    texts_of = dict(zip(members, texts, strict=True))
    return [(texts_of[int(column[0])], [int(index) for index in column]) for column in rows.T]


_MAKERS = {
    "setting": (_by_value,),
    "label": (_by_value,),
    "beat": (_by_value, _by_beat),
    "clock": (_by_clock,),
}


def by_rank(members: Sequence[int], values: Mapping[int, float], places: Sequence[int]) -> list[list[int]]:
    """The first slices of all places by value, the second ones, and so on.

    Returns:
        Pieces, each with one slice of every place. No pieces if places have different numbers of slices or equal
        values, or if the values of pieces overlap. None either if the places come in a different order in each piece
        and no pause between pieces is longer than those within: then the first slice of one place need not belong to
        the first of another.
    """
    rows = _ranked(members, values, places)
    if rows is None:
        return []
    ranked = np.array([[values[int(index)] for index in row] for row in rows])  # (places, pieces)
    pauses = ranked[:, 1:].min(axis=0) - ranked[:, :-1].max(axis=0)
    if (pauses <= 0).any():
        return []
    steps = np.sign(ranked[:, np.newaxis] - ranked[np.newaxis])  # which of two places comes first, in each piece
    longest = np.diff(np.sort(ranked, axis=0), axis=0).max(initial=0)
    if (steps != steps[..., :1]).any() and pauses.min() <= longest:
        return []
    return [[int(index) for index in column] for column in rows.T]


def _ranked(members: Sequence[int], values: Mapping[int, float], places: Sequence[int]) -> np.ndarray | None:
    """Slices (places, ranks) by their values; None if places have different numbers of them, or equal values."""
    rows: dict[int, list[int]] = defaultdict(list)
    for index in sorted(members, key=lambda index: values[index]):
        rows[places[index]].append(index)
    if len({len(row) for row in rows.values()}) > 1:
        return None
    if any(values[one] == values[next_] for row in rows.values() for one, next_ in pairwise(row)):
        return None
    return np.array([rows[place] for place in sorted(rows)])


def _by_gaps(members: Sequence[int], moments: Mapping[int, float], places: Sequence[int]) -> list[list[int]]:
    """Volumes that may lack slices: a new one begins where a place recurs, after the longest pauses."""
    order = sorted(members, key=lambda index: moments[index])
    pieces, seen = [[order[0]]], {places[order[0]]}
    pauses_between, pauses_within = [], [0.0]
    for before, index in pairwise(order):
        pause = moments[index] - moments[before]
        if places[index] in seen:
            pieces.append([])
            seen.clear()
            pauses_between.append(pause)
        else:
            pauses_within.append(pause)
        pieces[-1].append(index)
        seen.add(places[index])
    return pieces if pauses_between and min(pauses_between) > max(pauses_within) else []


def divide_by_settings(tells: Sequence[Mapping[str, str]]) -> list[Part]:
    """Divide slices without places: those measured with other settings are another volume."""
    parts = [Part(tuple(range(len(tells))))]
    for name in SETTINGS:
        divided = []
        for part in parts:
            pieces = _by_value(part.members, [tells[index].get(name, "") for index in part.members], ())
            is_share = min(len(piece) for _, piece in pieces) >= max(2, SMALLEST_SHARE * len(part.members))
            is_told = len(pieces) > 1 and is_share and all(value for value, _ in pieces)
            divided += (
                [Part(tuple(piece), (*part.told_by, (name, value))) for value, piece in pieces] if is_told else [part]
            )
        parts = divided
    return parts


# --- volumes whose slices interleave ----------------------------------------------------------------------------------


def _unlace(part: Part, tells: Sequence[Mapping[str, str]], places: Sequence[int]) -> list[Part]:
    """Divide slices of different settings that interleave without sharing a place.

    Otherwise two energies half a slice apart would become one volume that alternates between them.
    """
    for name in SETTINGS:
        texts = [tells[index].get(name, "") for index in part.members]
        if len(set(texts)) == 1 or "" in texts:
            continue
        pieces = _by_value(part.members, texts, places)
        if len(pieces) < 2 or min(len(piece) for _, piece in pieces) < max(2, SMALLEST_SHARE * len(part.members)):
            continue
        spans = sorted((min(places[i] for i in piece), max(places[i] for i in piece)) for _, piece in pieces)
        if all(before[1] > after[0] for before, after in pairwise(spans)):
            return [
                more
                for value, piece in pieces
                for more in _unlace(Part(tuple(piece), (*part.told_by, (name, value))), tells, places)
            ]
    return [part]
