"""A stack of slices, and the volumes at the same position that it may hold: echoes, times, b-values, kinds of image.

Slices are separated by the attributes of `tells` only if they share a position, or if slices of different settings
interleave. So a CT whose AcquisitionNumber counts up along the patient stays one volume, while echoes, b-values, times
and Dixon images become several. Always splitting by ImageType or AcquisitionNumber, as some readers do, was rejected:
scanners change both within one volume.

Slices that still share a position are

- copies if their pixels are the same: one of them is kept;
- volumes (a guess, which is reported) if every position has equally many and their InstanceNumbers form blocks, all of
  the first volume below those of the second;
- overlapping acquisitions if few positions have more than one slice and AcquisitionNumber tells which came later: that
  one is kept, if its settings are the same and its time does not contradict;
- otherwise indistinguishable, and refused.
"""

import hashlib
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np

from sagemaker_monai.budget import lent, spend_work
from sagemaker_monai.errors import CallerError, PayloadTooLarge
from sagemaker_monai.images.dicom.apart import Part, by_rank, divide, divide_by_settings
from sagemaker_monai.images.dicom.decoding import stored_frames
from sagemaker_monai.images.dicom.findings import Finding, finding
from sagemaker_monai.images.dicom.geometry import likely_gap_mm, place_tolerance_mm, places_of
from sagemaker_monai.images.dicom.media import Instance
from sagemaker_monai.images.dicom.planes import Plane
from sagemaker_monai.images.dicom.tells import SETTINGS, number_kinds, seconds_of

_NS_A_BYTE = 3  # of a digest
_CLOCKS = ("AcquisitionDateTime", "AcquisitionTime")


@dataclass(frozen=True)
class Slice:
    """One frame of a stack: `frame` counts from 0 within its file."""

    instance: Instance
    frame: int

    @property
    def plane(self) -> Plane:
        """Where it lies."""
        return self.instance.planes[self.frame]


@dataclass
class Stack:
    """Slices that may be one volume, what distinguishes them within their series, and their findings."""

    slices: list[Slice]
    told_by: tuple[tuple[str, str], ...] = ()
    findings: list[Finding] = field(default_factory=list)

    def split(self, key: Callable[[Slice], str], name: str) -> list["Stack"]:
        """One stack for each value of `key`, in the order of the values."""
        parts: dict[str, list[Slice]] = defaultdict(list)
        for each in self.slices:
            parts[key(each)].append(each)
        if len(parts) == 1:
            return [self]
        return [Stack(parts[value], (*self.told_by, (name, value)), [*self.findings]) for value in sorted(parts)]


def tolerance_mm(slices: Sequence[Slice]) -> float:
    """How far positions of these slices may differ and still be the same place."""
    planes = [each.plane for each in slices]
    return place_tolerance_mm(min(likely_gap_mm(each.spacing, each.thickness) for each in planes if each.spacing))


def place_numbers(slices: Sequence[Slice]) -> list[int]:
    """The number of each slice's place along the normal; equal for slices at the same place."""
    orientation = slices[0].plane.orientation
    assert orientation is not None
    positions = np.array([each.plane.position for each in slices])
    return [int(place) for place in places_of(positions, orientation, tolerance_mm(slices))]


def split_places(stack: Stack) -> list[Stack]:
    """Separate volumes at the same position by attributes, then by pixels, then by their order."""
    slices = stack.slices
    if len(slices) == 1:
        return [stack]
    if slices[0].plane.position is None:
        parts = divide_by_settings([dict(each.plane.tells) for each in slices])
        found = [finding("several_volumes", len(parts))] if len(parts) > 1 else []
        return [_stack_of(stack, part, found) for part in parts]
    places = place_numbers(slices)
    stack = _without_repeats(stack, places)
    if stack.slices is not slices:
        slices, places = stack.slices, place_numbers(stack.slices)
    parts = divide(
        [dict(each.plane.tells) for each in slices],
        places,
        lambda pieces: _are_copies([[(places[index], slices[index]) for index in piece] for piece in pieces]),
    )
    found = [finding("several_volumes", len(parts))] if len(parts) > 1 else []
    return [last for part in parts for last in _split_rest(_stack_of(stack, part, found))]


def _stack_of(stack: Stack, part: Part, found: list[Finding]) -> Stack:
    slices = [stack.slices[index] for index in part.members]
    return Stack(slices, (*stack.told_by, *part.told_by), [*stack.findings, *found])


def _without_repeats(stack: Stack, places: Sequence[int]) -> Stack:
    """The stack without duplicate files: same place, same SOPInstanceUID, same pixels."""
    together: dict[tuple[int, str, int], list[Slice]] = defaultdict(list)
    for each, place in zip(stack.slices, places, strict=True):
        together[place, each.instance.sop_instance_uid, each.frame].append(each)
    repeated = [each for (_, uid, _), group in together.items() if uid and len(group) > 1 for each in group]
    if not repeated:
        return stack
    contents = _digests(repeated)
    dropped: set[int] = set()
    seen: set[object] = set()
    for each in repeated:
        key = each.instance.sop_instance_uid, each.frame, contents[id(each)]
        if key in seen:
            dropped.add(id(each))
        seen.add(key)
    if not dropped:
        return stack
    kept = [each for each in stack.slices if id(each) not in dropped]
    return Stack(kept, stack.told_by, [*stack.findings, finding("duplicate_slices", len(dropped))])


def _are_copies(pieces: Sequence[Sequence[tuple[int, Slice]]]) -> bool:
    """Whether volumes with the same places have the same pixels everywhere; stops at the first difference.

    Frames of one file never count as copies: a file does not repeat frames, and comparing them would take too long.
    """
    by_place = [dict(piece) for piece in pieces]
    if any(
        each.keys() != by_place[0].keys() or len(each) < len(piece)
        for each, piece in zip(by_place, pieces, strict=True)
    ):
        return False
    if any(each.instance.number_of_frames > 1 for piece in by_place for each in piece.values()):
        return False
    return all(len(set(_digests([piece[place] for piece in by_place]).values())) == 1 for place in sorted(by_place[0]))


def _split_rest(stack: Stack) -> list[Stack]:
    if stack.slices[0].plane.position is None or len(stack.slices) == 1:
        return [stack]
    places = place_numbers(stack.slices)
    count = len(set(places))
    if count == len(stack.slices):
        return [stack]
    crowds: dict[int, list[Slice]] = defaultdict(list)
    for each, place in zip(stack.slices, places, strict=True):
        crowds[place].append(each)
    contents = _digests([each for crowd in crowds.values() if len(crowd) > 1 for each in crowd])
    ordered = {place: sorted(crowds[place], key=lambda each: (by_number(each), str(contents.get(id(each)))))
               for place in sorted(crowds)}  # fmt: skip
    distinct = {place: list({contents.get(id(each)): each for each in reversed(crowd)}.values())[::-1]
                for place, crowd in ordered.items()}  # fmt: skip
    times = len(stack.slices) // count
    is_even = count > 1 and all(len(crowd) == times for crowd in crowds.values())
    if is_even and any(len(crowd) > 1 for crowd in distinct.values()):  # volumes, even if some slices (air) are equal
        return _in_blocks(stack, places, times)
    if copies := len(stack.slices) - sum(map(len, distinct.values())):
        stack.findings.append(finding("duplicate_slices", copies))
    later = {place: _latest(crowd) for place, crowd in distinct.items() if len(crowd) > 1}
    code = "conflicting_slices" if None in later.values() else "overlapping_acquisitions"
    if later:
        stack.findings.append(finding(code, sum(len(distinct[place]) - 1 for place in later)))
    stack.slices = [later.get(place) or crowd[0] for place, crowd in distinct.items()]
    return [stack]


def _in_blocks(stack: Stack, places: Sequence[int], times: int) -> list[Stack]:
    """Volumes by InstanceNumber if each one's numbers are above those of the one before, else one that is refused."""
    slices = stack.slices
    ranks = {key: float(rank) for rank, key in enumerate(sorted({by_number(each) for each in slices}))}
    blocks = []
    if len(ranks) == len(slices) and all(each.instance.instance_number is not None for each in slices):
        values = {index: ranks[by_number(each)] for index, each in enumerate(slices)}
        blocks = by_rank(range(len(slices)), values, places)
    if not blocks:
        order = sorted(
            range(len(slices)), key=lambda index: (by_number(slices[index]), slices[index].plane.position or ())
        )
        first = {places[index]: slices[index] for index in reversed(order)}
        more = finding("ambiguous_volumes", times)
        return [Stack([first[place] for place in sorted(first)], stack.told_by, [*stack.findings, more])]
    return [
        Stack(
            [slices[index] for index in block],
            (*stack.told_by, ("order", str(number))),
            [*stack.findings, finding("guessed_volumes", times)],
        )
        for number, block in enumerate(blocks, start=1)
    ]


def _latest(crowd: Sequence[Slice]) -> Slice | None:
    """Of slices at one place, that with the highest AcquisitionNumber; None if it does not decide."""
    tells = [dict(each.plane.tells) for each in crowd]
    numbers = [seconds_of(each.get("AcquisitionNumber", "")) for each in tells]
    known = [number for number in numbers if number is not None]
    if len(set(known)) < len(crowd):
        return None
    if any(len(set(number_kinds([each.get(name, "") for each in tells]))) > 1 for name in SETTINGS):
        return None  # different settings: another image, not a repetition
    order = sorted(range(len(crowd)), key=lambda index: known[index])
    for name in _CLOCKS:
        moments = [seconds_of(tells[index].get(name, "")) for index in order]
        if any(one is not None and two is not None and one > two
               for one, two in pairwise(moments)):  # fmt: skip
            return None
    return crowd[order[-1]]


def by_number(each: Slice) -> tuple[float, int]:
    """Sort key: InstanceNumber and frame; slices without a number come last."""
    number = each.instance.instance_number
    return np.inf if number is None else number, each.frame


def _digests(slices: Sequence[Slice]) -> dict[int, object]:
    """A key by the `id` of each slice, equal for equal values; an undecodable file equals no other."""
    files: dict[int, list[Slice]] = defaultdict(list)
    for each in slices:
        files[id(each.instance)].append(each)
    digests: dict[int, object] = {}
    for wanted in files.values():
        try:
            instance = wanted[0].instance
            with lent(2 * instance.size_bytes, "the pixels of a DICOM file"):
                frames = stored_frames(instance.read(), [each.frame for each in wanted])
                for each, stored in zip(wanted, frames, strict=True):
                    spend_work(stored.nbytes * _NS_A_BYTE, "slices that may be copies of each other")
                    content = hashlib.sha256(np.ascontiguousarray(stored).data)
                    content.update(f"{stored.dtype} {stored.shape} {each.plane.rescale}".encode())
                    digests[id(each)] = content.digest()
        except PayloadTooLarge:
            raise  # others would exceed the budget too
        except CallerError:
            digests |= {id(each): id(each) for each in wanted if id(each) not in digests}
    return digests
