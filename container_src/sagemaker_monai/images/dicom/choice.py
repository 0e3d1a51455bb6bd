"""Selects among several series: one rule for imports, for folders that are a study, and for requests.

First by what a stack is (`dicom.objects`): the first kind present, grey before colour, several slices before one; a
short stack in another orientation than a long one of its modality is a scout, whatever its ImageType says. Then by what
was asked for: modality, description, and among the remaining series the most slices, the thinnest, the newest, or all.
UIDs, numbers and file names do not show what the user meant, so ties and studies of several modalities are refused.
"""

import fnmatch
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from sagemaker_monai.images.dicom.grouping import Series
from sagemaker_monai.images.dicom.objects import IMAGES, KINDS, Subject, names_of, subject_of
from sagemaker_monai.images.dicom.wanted import ALL, MOST, NEWEST, ONLY, THINNEST, Choice

SAME_THICKNESS = 0.02  # of the smaller one; headers round
FEW_SLICES = 10  # of a scout at most (a guess: MR surveys have a few in each of three orientations)
MANY_TIMES = 4  # times as long, at least, is the stack planned on the scout (a guess)
SAME_ORIENTATION = 0.02  # of a cosine: 1 degree


@dataclass(frozen=True)
class Chosen:
    """The selection among the stacks of a study.

    Attributes:
        taken: indices of the chosen stacks, in order.
        left: index -> why the stack was left out, without identifying words.
        fault: why nothing could be chosen, or "". With a fault, `taken` is empty.
    """

    taken: tuple[int, ...]
    left: dict[int, str]
    fault: str = ""


def subject_of_stack(stack: Series) -> Subject:
    """What a stack is, judged by its first slice."""
    return subject_of(stack.slices[0].instance)


def choose(stacks: Sequence[Series], choice: Choice, *, remedy: str) -> Chosen:
    """Choose among the stacks of one study.

    Args:
        stacks: each with slices.
        choice: what is asked for.
        remedy: for the message when several remain, such as "choose with --series".
    """
    left: dict[int, str] = {}
    subjects = [subject_of_stack(stack) for stack in stacks]
    places = list(range(len(stacks)))
    if choice.uids:
        places = _keep(places, lambda place: stacks[place].uid in choice.uids, "not the series asked for", left)
        return Chosen(tuple(places), left, "" if places else "no series with the UID asked for")
    if choice.modality:
        wanted = {modality.strip().upper() for modality in choice.modality}
        places = _keep(places, lambda place: subjects[place].modality in wanted, "another modality", left)
        if not places:
            return Chosen((), left, f"no series of {', '.join(sorted(wanted))}, only {names_of(subjects)}; {remedy}")
    if choice.description:
        pattern = choice.description.strip().upper()
        places = _keep(
            places,
            lambda place: fnmatch.fnmatchcase(stacks[place].description.strip(" \0").upper(), pattern),
            "another description",
            left,
        )
        if not places:
            return Chosen((), left, f"no series with the description asked for; {remedy}")
    places = _meant(stacks, subjects, places, left)
    if choice.series == ALL:
        return Chosen(tuple(places), left)
    if len(modalities := {subjects[place].modality for place in places}) > 1:
        names = names_of(subjects[place] for place in places)
        return Chosen((), left, f"images of {len(modalities)} modalities ({names}); {remedy}")
    if choice.series == ONLY:
        if len(places) == 1:
            return Chosen(tuple(places), left)
        return Chosen((), left, f"{len(places)} series or volumes (other echoes, times or orientations); {remedy}")
    return _by_rule(stacks, places, left, choice.series, remedy)


def meant(stacks: Sequence[Series], *, are_volumes: bool = True) -> Chosen:
    """The stacks that are images, or the next best kind; for a request or a study without a rule.

    Args:
        stacks: each with slices.
        are_volumes: False puts single slices and colour pictures on a par with others.
    """
    left: dict[int, str] = {}
    subjects = [subject_of_stack(stack) for stack in stacks]
    return Chosen(tuple(_meant(stacks, subjects, list(range(len(stacks))), left, are_volumes=are_volumes)), left)


def _keep(places: Sequence[int], is_kept: Callable[[int], bool], why: str, left: dict[int, str]) -> list[int]:
    kept = [place for place in places if is_kept(place)]
    left.update({place: why for place in places if place not in kept})
    return kept


def _meant(
    stacks: Sequence[Series],
    subjects: Sequence[Subject],
    places: Sequence[int],
    left: dict[int, str],
    *,
    are_volumes: bool = True,
) -> list[int]:
    long = {stacks[place].uid for place in places if len(stacks[place].slices) > 1} - {""}

    def order(place: int) -> tuple[int, bool, bool, int]:
        rank = subjects[place].rank
        is_image = subjects[place].kind in IMAGES
        # A slice separated from its own series is a fault to report, not a scout.
        is_colour, is_single = (
            subjects[place].is_colour,
            len(stacks[place].slices) == 1 and stacks[place].uid not in long,
        )
        return 0 if is_image else rank, are_volumes and is_colour, are_volumes and is_single, rank

    best = min(map(order, places))
    kept = []
    for place in places:
        if order(place) == best:
            kept.append(place)
        elif subjects[place].kind not in IMAGES:
            left[place] = KINDS[subjects[place].kind][1]
        else:
            ours = order(place)
            left[place] = (
                "in colour" if ours[1] > best[1] else "a single slice" if ours[2] > best[2]
                else KINDS[subjects[place].kind][1]
            )  # fmt: skip
    scouts = [place for place in kept if any(_is_scout_of(stacks, subjects, place, other) for other in kept)]
    left.update(dict.fromkeys(scouts, "few slices in another orientation"))
    return [place for place in kept if place not in scouts]


def _is_scout_of(stacks: Sequence[Series], subjects: Sequence[Subject], place: int, other: int) -> bool:
    few, many = stacks[place], stacks[other]
    if len(few.slices) > FEW_SLICES or len(few.slices) * MANY_TIMES > len(many.slices):
        return False
    if subjects[place].modality != subjects[other].modality or _study(few) != _study(many):
        return False
    ours, theirs = few.slices[0].plane.orientation, many.slices[0].plane.orientation
    if ours is None or theirs is None:  # a slice without a position is not a scout
        return False
    return bool(np.abs(np.subtract(ours, theirs)).max() > SAME_ORIENTATION)


def _study(stack: Series) -> str:
    return stack.slices[0].instance.study_instance_uid


def _by_rule(stacks: Sequence[Series], places: Sequence[int], left: dict[int, str], rule: str, remedy: str) -> Chosen:
    value_of, why, lacking = _VALUES[rule]
    if len(places) == 1:
        return Chosen(tuple(places), left)
    values = {place: value_of(stacks[place]) for place in places}
    known = {place: value for place, value in values.items() if value is not None}
    if len(known) < len(places):
        return Chosen((), left, f"{len(places)} series, of which {len(places) - len(known)} {lacking}; {remedy}")
    best = min(known.values())
    tolerance = SAME_THICKNESS * best if rule == THINNEST else 0
    first = [place for place in places if known[place] <= best + tolerance]
    if len(first) > 1:
        slices = len(stacks[first[0]].slices)
        same = f"with {slices} slices each" if rule == MOST else "equally thin" if rule == THINNEST else "equally new"
        return Chosen((), left, f"{len(first)} series {same}; {remedy}")
    left.update({place: why for place in places if place not in first})
    return Chosen(tuple(first), left)


def _thickness(stack: Series) -> float | None:
    """The distance between slices in mm, or the thickness of a single one."""
    if stack.has_geometry and len(stack.slices) > 1:
        first, last = stack.slices[0].plane.position, stack.slices[-1].plane.position
        assert first is not None
        assert last is not None
        return float(np.linalg.norm(np.subtract(last, first))) / (len(stack.slices) - 1)
    return stack.slices[0].plane.thickness


def _age(stack: Series) -> float | None:
    """Smaller values are newer."""
    times = [each.series_time for each in stack.instances if each.series_time]
    return -float(max(times)) if times else None


# Rule -> the value that is smallest for the right series, why others are left out, and what a series without it lacks.
_VALUES: dict[str, tuple[Callable[[Series], float | None], str, str]] = {
    MOST: (lambda stack: -float(len(stack.slices)), "fewer slices", ""),
    THINNEST: (_thickness, "thicker slices", "do not say how thick their slices are"),
    NEWEST: (_age, "older", "have no date and time"),
}
