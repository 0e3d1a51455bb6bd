"""Instances to series, and series to stacks of slices that are one volume each, sorted by where they lie.

What splits a series, always: the size, the orientation, a localizer beside other images, pictures in colour beside grey
ones. What splits it only when slices lie in the same place: the attributes of `planes.DISCRIMINATORS`, tried in that
order. A CT whose AcquisitionNumber counts up along the patient stays one volume, while echoes, b-values, times and
Dixon images become several. Splitting by ImageType or AcquisitionNumber always, as some readers do, was tried on paper
and lost: scanners change both within one volume.

Slices that still lie in one place are duplicates when their pixels are the same. When every place has equally many
others, they are volumes that no attribute tells apart, and the order of InstanceNumber does; else they contradict each
other.
"""

import hashlib
from collections import Counter, defaultdict
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from sagemaker_monai.dicom.decoding import decode_stored
from sagemaker_monai.dicom.findings import Finding, finding
from sagemaker_monai.dicom.geometry import SAME_PLACE_MM, normal_of, spread_of
from sagemaker_monai.dicom.headers import read_instance
from sagemaker_monai.dicom.media import Instance
from sagemaker_monai.dicom.planes import DISCRIMINATORS, Plane
from sagemaker_monai.errors import CallerError

SAME_ORIENTATION = 1e-3  # of a cosine: 0.06 degree
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


@dataclass(frozen=True)
class Series:
    """One stack of slices: a whole series as a rule, or one of the volumes that a series holds.

    Attributes:
        uid: SeriesInstanceUID; the same for all stacks of a series, "" where the file has none.
        slices: in the order of the volume.
        findings: what is odd.
        modality, description: Modality and SeriesDescription of the first slice.
        stack: the number of this stack within its series, from 0.
        told_by: what tells it from the other stacks of the series, such as {"EchoTime": "4.6"}.
        instances: the files, each once, in the order of their first slices.
    """

    uid: str
    slices: tuple[Slice, ...] = field(repr=False)
    findings: tuple[Finding, ...]
    modality: str
    description: str
    stack: int = 0
    told_by: tuple[tuple[str, str], ...] = ()
    instances: tuple[Instance, ...] = field(repr=False, default=())

    @property
    def has_geometry(self) -> bool:
        """Whether every slice says where it lies."""
        return bool(self.slices) and all(each.plane.position is not None for each in self.slices)


@dataclass
class _Stack:
    slices: list[Slice]
    told_by: tuple[tuple[str, str], ...] = ()
    findings: list[Finding] = field(default_factory=list)

    def split(self, key: Callable[[Slice], str], name: str) -> list["_Stack"]:
        """One stack for each value, in the order in which the values come."""
        parts: dict[str, list[Slice]] = defaultdict(list)
        for each in self.slices:
            parts[key(each)].append(each)
        if len(parts) == 1:
            return [self]
        return [_Stack(part, (*self.told_by, (name, value)), [*self.findings]) for value, part in parts.items()]


def group_series(instances: Sequence[Instance]) -> list[Series]:
    """Sort instances into stacks of slices.

    Args:
        instances: from `media.find_instances`, of any number of series. Pixels are read only where slices lie in the
            same place and no attribute tells them apart.

    Returns:
        Stacks by SeriesInstanceUID in the order in which they come, and within a series the one with the most slices
        first. A file without SeriesInstanceUID is a series of its own. A series without pictures (a report, a plan) has
        no slices and the finding `no_pixels`.
    """
    parts: dict[Hashable, list[Instance]] = defaultdict(list)
    for position, instance in enumerate(instances):
        parts[instance.series_instance_uid or position].append(instance)
    return [series for part in parts.values() for series in _stacks_of(part)]


def _stacks_of(instances: list[Instance]) -> list[Series]:
    first = instances[0]
    pictures = [instance for instance in instances if instance.has_pixels]
    bare = [finding("no_pixels", len(instances) - len(pictures))] if len(pictures) < len(instances) else []
    if not pictures:
        found = (replace(bare[0], severity="error"),)
        return [Series(first.series_instance_uid, (), found, first.modality, first.series_description)]
    whole = _Stack([Slice(instance, frame) for instance in pictures for frame in range(instance.number_of_frames)])
    stacks = [volume for stack in _split_always(whole) for volume in _split_places(stack)]
    for stack in stacks:
        _sort(stack)
    stacks.sort(key=lambda stack: -len(stack.slices))
    return [_series(stack, number, bare if number == 0 else []) for number, stack in enumerate(stacks)]


def _series(stack: _Stack, number: int, more: list[Finding]) -> Series:
    first = stack.slices[0].instance
    files = {id(each.instance): each.instance for each in stack.slices}
    return Series(
        uid=first.series_instance_uid,
        slices=tuple(stack.slices),
        findings=(*_findings_of_values(stack), *stack.findings, *more),
        modality=first.modality,
        description=first.series_description,
        stack=number,
        told_by=stack.told_by,
        instances=tuple(files.values()),
    )


# --- splitting -------------------------------------------------------------------------------------------------------


def _split_always(whole: _Stack) -> list[_Stack]:
    stacks = [whole]
    orientations = _orientations(whole.slices)
    for code, name, key in (
        (None, "localizer", lambda each: str("LOCALIZER" in each.instance.image_type)),
        (None, "colour", lambda each: str(each.instance.samples_per_pixel > 1)),
        ("mixed_size", "size", lambda each: f"{each.instance.columns} x {each.instance.rows}"),
        ("mixed_orientation", "orientation", lambda each: str(orientations[each.plane.orientation])),
    ):
        divided = []
        for stack in stacks:
            parts = stack.split(key, name)
            if code and len(parts) > 1:
                for part in parts:
                    part.findings.append(finding(code, len(parts)))
            divided += parts
        stacks = divided
    return stacks


def _orientations(slices: Sequence[Slice]) -> dict[Hashable, int]:
    """Orientation -> number of its kind; those that differ by rounding are of one kind, none at all is -1."""
    kinds: list[np.ndarray] = []
    numbers: dict[Hashable, int] = {None: -1}
    for each in slices:
        orientation = each.plane.orientation
        if orientation in numbers:
            continue
        cosines = np.asarray(orientation)
        near = [number for number, kind in enumerate(kinds) if np.abs(kind - cosines).max() < SAME_ORIENTATION]
        if not near:
            kinds.append(cosines)
        numbers[orientation] = near[0] if near else len(kinds) - 1
    return numbers


def _split_places(stack: _Stack) -> list[_Stack]:
    """Volumes of one place, told apart by attributes, then by pixels, then by their order."""
    if stack.slices[0].plane.position is None:
        return [stack]
    volumes = _split_by_attributes(stack)
    if len(volumes) > 1:
        for volume in volumes:
            volume.findings.append(finding("several_volumes", len(volumes)))
    return [last for volume in volumes for last in _split_rest(volume)]


def _split_by_attributes(stack: _Stack) -> list[_Stack]:
    stacks = [stack]
    for name in DISCRIMINATORS:
        divided = []
        for part in stacks:
            places = _places(part.slices)
            if len(places) == len(part.slices):
                divided.append(part)
                continue
            pieces = part.split(lambda each: dict(each.plane.tells).get(name, ""), name)  # noqa: B023 - called at once
            counts = [len(_places(piece.slices)) for piece in pieces]
            if sum(counts) > len(places) and min(counts) >= SMALLEST_SHARE * len(places):
                divided += pieces
            else:
                divided.append(part)
        stacks = divided
    return stacks


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


def _split_rest(stack: _Stack) -> list[_Stack]:
    places = _places(stack.slices)
    if len(places) == len(stack.slices):
        return [stack]
    sorted_places = [sorted(place, key=_number) for place in places]
    distinct = [_without_copies(place) if len(place) > 1 else place for place in sorted_places]
    times = len(places[0])
    is_even = len(places) > 1 and all(len(place) == times for place in places)
    if is_even and any(len(place) > 1 for place in distinct):  # volumes, though slices of air may be equal in them
        return [
            _Stack(
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


def _number(each: Slice) -> tuple[float, int, str]:
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


# --- order -----------------------------------------------------------------------------------------------------------


def _sort(stack: _Stack) -> None:
    """Sort along the normal, or by InstanceNumber without geometry, and say what is odd about the places."""
    slices = stack.slices
    if any("LOCALIZER" in each.instance.image_type for each in slices):
        stack.findings.append(finding("localizer", len(slices)))
    if len(slices) == 1:
        stack.findings.append(finding("single_slice", 1))
    orientation = slices[0].plane.orientation
    if orientation is None:
        _sort_by_number(stack)
        return
    positions = np.array([each.plane.position for each in slices])
    normal = normal_of(orientation)
    order = np.argsort(positions @ normal, kind="stable")
    stack.slices = [slices[index] for index in order]
    if len(slices) == 1:
        return
    along = positions[order] @ normal
    if np.diff(along).min() < SAME_PLACE_MM:  # side by side: tiles or several slabs, which are no volume
        stack.findings.append(finding("shifted_slices", int((np.diff(along) < SAME_PLACE_MM).sum())))
        return
    spread = spread_of(positions[order], normal)
    for code, count in (
        ("missing_slices", spread.missing),
        ("uneven_spacing", spread.uneven),
        ("shifted_slices", spread.shifted),
        ("gantry_tilt", len(slices) if spread.is_tilted and not spread.shifted else 0),
    ):
        if count:
            stack.findings.append(finding(code, count))


def _sort_by_number(stack: _Stack) -> None:
    slices = stack.slices
    stack.slices = sorted(slices, key=lambda each: _number(each)[:2])
    invalid = sum(each.plane.is_invalid for each in slices)
    if invalid:
        stack.findings.append(finding("invalid_geometry", invalid))
    if invalid < len(slices):
        stack.findings.append(finding("missing_geometry", len(slices) - invalid))
    files = {id(each.instance): each.instance.instance_number for each in slices}
    unknown = sum(count for number, count in Counter(files.values()).items() if number is None or count > 1)
    if len(files) > 1 and unknown:
        stack.findings.append(finding("missing_order", unknown))


def _findings_of_values(stack: _Stack) -> list[Finding]:
    first = stack.slices[0]
    spacing = first.plane.spacing
    in_colour = [each.instance.samples_per_pixel > 1 or "PALETTE" in each.instance.photometric_interpretation
                 for each in stack.slices]  # fmt: skip
    counts = {
        "colour": sum(in_colour),
        "mixed_spacing": sum(not _is_close(each.plane.spacing, spacing) for each in stack.slices),
        "mixed_photometric": sum(
            each.instance.photometric_interpretation != first.instance.photometric_interpretation
            for each in stack.slices
        ),
        "mixed_rescale": sum(each.plane.rescale != first.plane.rescale for each in stack.slices),
    }
    return [finding(code, count) for code, count in counts.items() if count]


def _is_close(spacing: tuple[float, float] | None, other: tuple[float, float] | None) -> bool:
    if spacing is None or other is None:
        return spacing is other
    return bool(np.allclose(spacing, other, rtol=1e-4, atol=0))
