"""Instances to series, and series to stacks of slices that are one volume each, sorted by where they lie.

What splits a series, always: the size, the orientation, a localizer beside other images, pictures in colour beside grey
ones. What splits it only when slices lie in the same place is the subject of `stacks`.
"""

from collections import defaultdict
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field, replace

from sagemaker_monai.dicom.findings import Finding, finding
from sagemaker_monai.dicom.media import Instance
from sagemaker_monai.dicom.ordering import findings_of_values, sort_slices
from sagemaker_monai.dicom.stacks import Slice, Stack, by_number, split_places
from sagemaker_monai.dicom.tells import alike

SAME_ORIENTATION = 1e-3  # of a cosine: 0.06 degree


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
    whole = Stack([Slice(instance, frame) for instance in pictures for frame in range(instance.number_of_frames)])
    stacks = [volume for stack in _split_always(whole) for volume in split_places(stack)]
    for stack in stacks:
        sort_slices(stack)
    stacks.sort(key=lambda stack: (-len(stack.slices), min(map(by_number, stack.slices))))
    return [_series(stack, number, bare if number == 0 else []) for number, stack in enumerate(stacks)]


def _series(stack: Stack, number: int, more: list[Finding]) -> Series:
    first = stack.slices[0].instance
    files = {id(each.instance): each.instance for each in stack.slices}
    return Series(
        uid=first.series_instance_uid,
        slices=tuple(stack.slices),
        findings=(*findings_of_values(stack), *stack.findings, *more),
        modality=first.modality,
        description=first.series_description,
        stack=number,
        told_by=stack.told_by,
        instances=tuple(files.values()),
    )


def _split_always(whole: Stack) -> list[Stack]:
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
    found = sorted({each.plane.orientation for each in slices if each.plane.orientation is not None})
    return {None: -1, **dict(zip(found, alike(found, SAME_ORIENTATION), strict=True))}
