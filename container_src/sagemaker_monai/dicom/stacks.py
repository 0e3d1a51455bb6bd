"""A stack of slices, and the volumes of one place that it may hold: echoes, times, b-values, kinds of image.

Slices in one place are told apart by the attributes of `planes.DISCRIMINATORS`, tried in that order, and only where
slices lie in one place. So a CT whose AcquisitionNumber counts up along the patient stays one volume, while echoes,
b-values, times and Dixon images become several. Splitting by ImageType or AcquisitionNumber always, as some readers do,
lost: scanners change both within one volume.

Slices that still lie in one place are duplicates when their pixels are the same. When every place has equally many
others, they are volumes that no attribute tells apart, and the order of InstanceNumber does; else they contradict each
other.
"""

import hashlib
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial

import numpy as np

from sagemaker_monai.dicom.decoding import decode_stored
from sagemaker_monai.dicom.findings import Finding, finding
from sagemaker_monai.dicom.geometry import SAME_PLACE_MM, normal_of
from sagemaker_monai.dicom.headers import read_instance
from sagemaker_monai.dicom.media import Instance
from sagemaker_monai.dicom.planes import DISCRIMINATORS, Plane
from sagemaker_monai.errors import CallerError

SMALLEST_SHARE = 0.25  # of a stack's places that each volume must have for an attribute to count (a guess)
PIXELS = ("PixelData", "FloatPixelData", "DoubleFloatPixelData")


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
    """Slices that may be one volume, what tells them from the rest of their series, and what is odd about them."""

    slices: list[Slice]
    told_by: tuple[tuple[str, str], ...] = ()
    findings: list[Finding] = field(default_factory=list)

    def split(self, key: Callable[[Slice], str], name: str) -> list["Stack"]:
        """One stack for each value, in the order in which the values come."""
        parts: dict[str, list[Slice]] = defaultdict(list)
        for each in self.slices:
            parts[key(each)].append(each)
        if len(parts) == 1:
            return [self]
        return [Stack(part, (*self.told_by, (name, value)), [*self.findings]) for value, part in parts.items()]


def split_places(stack: Stack) -> list[Stack]:
    """Volumes of one place, told apart by attributes, then by pixels, then by their order."""
    if stack.slices[0].plane.position is None:
        return [stack]
    volumes = _split_by_attributes(stack)
    if len(volumes) > 1:
        for volume in volumes:
            volume.findings.append(finding("several_volumes", len(volumes)))
    return [last for volume in volumes for last in _split_rest(volume)]


def _split_by_attributes(stack: Stack) -> list[Stack]:
    stacks = [stack]
    for name in DISCRIMINATORS:
        divided = []
        for part in stacks:
            places = _places(part.slices)
            if len(places) == len(part.slices):
                divided.append(part)
                continue
            pieces = part.split(partial(_told, name), name)
            counts = [len(_places(piece.slices)) for piece in pieces]
            if sum(counts) > len(places) and min(counts) >= SMALLEST_SHARE * len(places):
                divided += pieces
            else:
                divided.append(part)
        stacks = divided
    return stacks


def _told(name: str, each: Slice) -> str:
    return dict(each.plane.tells).get(name, "")


def _places(slices: Sequence[Slice]) -> list[list[Slice]]:
    """Slices by their place along the normal, in its order; those that lie side by side are not in one place."""
    assert slices[0].plane.orientation is not None
    positions = np.array([each.plane.position for each in slices])
    along = positions @ normal_of(slices[0].plane.orientation)
    places: list[list[int]] = []
    for index in np.argsort(along, kind="stable"):
        if places and np.abs(positions[places[-1][0]] - positions[index]).max() < SAME_PLACE_MM:
            places[-1].append(int(index))
        else:
            places.append([int(index)])
    return [[slices[index] for index in place] for place in places]


def _split_rest(stack: Stack) -> list[Stack]:
    places = _places(stack.slices)
    if len(places) == len(stack.slices):
        return [stack]
    sorted_places = [sorted(place, key=by_number) for place in places]
    distinct = [_without_copies(place) if len(place) > 1 else place for place in sorted_places]
    times = len(places[0])
    is_even = len(places) > 1 and all(len(place) == times for place in places)
    if is_even and any(len(place) > 1 for place in distinct):  # volumes, though slices of air may be equal in them
        return [
            Stack(
                [place[time] for place in sorted_places],
                (*stack.told_by, ("order", str(time + 1))),
                [*stack.findings, finding("guessed_volumes", times)],
            )
            for time in range(times)
        ]
    for code, count in (
        ("duplicate_slices", len(stack.slices) - sum(map(len, distinct))),
        ("conflicting_slices", sum(map(len, distinct)) - len(distinct)),
    ):
        if count:
            stack.findings.append(finding(code, count))
    stack.slices = [place[0] for place in distinct]
    return [stack]


def by_number(each: Slice) -> tuple[float, int, str]:
    """Sorts slices by InstanceNumber and frame; those without a number last."""
    number = each.instance.instance_number
    return (np.inf if number is None else number, each.frame, each.instance.sop_instance_uid)


def _without_copies(place: Sequence[Slice]) -> list[Slice]:
    kept: dict[object, Slice] = {}
    for each in place:
        kept.setdefault(_digest(each), each)
    return list(kept.values())


def _digest(each: Slice) -> object:
    """What is equal for equal pixels; a file that cannot be decoded is equal to none."""
    try:
        dataset = read_instance(each.instance.source)
        if each.instance.number_of_frames > 1:
            content = decode_stored(dataset, [each.frame]).tobytes()
        else:
            content = b"".join(dataset[keyword].value for keyword in PIXELS if keyword in dataset)
    except CallerError:
        return id(each)
    return hashlib.sha256(content).digest()
