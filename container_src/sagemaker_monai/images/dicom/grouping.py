"""Groups instances into series, and series into stacks of slices, one for each volume, sorted by position.

`belonging` decides which files form a series. A series is always split by kind of object, size, orientation, frame of
reference, localizer or not, and colour or grey. `stacks` splits it further if slices share a position.
"""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field, replace

from sagemaker_monai.images.dicom.belonging import SAME_ORIENTATION, Files, split_series
from sagemaker_monai.images.dicom.findings import Finding, finding
from sagemaker_monai.images.dicom.media import Instance
from sagemaker_monai.images.dicom.objects import IMAGES, subject_of
from sagemaker_monai.images.dicom.ordering import findings_of_values, sort_slices
from sagemaker_monai.images.dicom.stacks import Slice, Stack, by_number, split_places
from sagemaker_monai.images.dicom.tells import alike


@dataclass(frozen=True)
class Series:
    """One stack of slices: usually a whole series, or one of the volumes that a series holds.

    Attributes:
        uid: SeriesInstanceUID, the same for all stacks of a series, or "".
        slices: in the order of the volume.
        findings: what is odd.
        modality, description: Modality and SeriesDescription of the first slice.
        stack: the number of this stack within its series, from 0.
        told_by: what distinguishes it from the other stacks, such as (("EchoTime", "4.6"),).
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
        """Whether every slice has a position."""
        return bool(self.slices) and all(each.plane.position is not None for each in self.slices)


def group_series(instances: Sequence[Instance]) -> list[Series]:
    """Sort instances into stacks of slices.

    Args:
        instances: from `media.find_instances`, of any number of series. Pixels are read only if slices share a position
            and no attribute distinguishes them.

    Returns:
        Stacks by series, in the order of their first files, and within a series by number of slices, most first. A
        series without pictures (a report, a plan) has no slices and the finding `no_pixels`.
    """
    return [stack for files in split_series(instances) for stack in stacks_of(files)]


def stacks_of(files: Files) -> list[Series]:
    """The stacks of one series of `belonging.split_series`."""
    instances = files.instances
    first = min(instances, key=lambda each: (each.instance_number is None, each.instance_number or 0, each.name))
    pictures = [instance for instance in instances if instance.has_pixels]
    bare = [finding("no_pixels", len(instances) - len(pictures))] if len(pictures) < len(instances) else []
    if not pictures:
        found = (replace(bare[0], severity="error"),)
        return [
            Series(first.series_instance_uid, (), (*found, *files.findings), first.modality, first.series_description)
        ]
    whole = Stack([Slice(instance, frame) for instance in pictures for frame in range(instance.number_of_frames)])
    stacks = [volume for stack in _split_always(whole) for volume in split_places(stack)]
    for stack in stacks:
        sort_slices(stack)
    stacks.sort(key=lambda stack: (-len(stack.slices), min(map(by_number, stack.slices))))
    return [
        _series(stack, number, [*(bare if number == 0 else []), *files.findings]) for number, stack in enumerate(stacks)
    ]


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
        ("mixed_objects", "object", lambda each: _object_of(each.instance)),
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
    return [part for stack in stacks for part in _split_frames_of_reference(stack)]


def _object_of(instance: Instance) -> str:
    subject = subject_of(instance)
    return f"{subject.modality} {'' if subject.kind in IMAGES else subject.kind}"


def _split_frames_of_reference(stack: Stack) -> list[Stack]:
    """Positions in two frames of reference cannot be compared; slices with one each are refused."""
    uids = {each.instance.frame_of_reference_uid for each in stack.slices} - {""}
    if len(uids) < 2 or stack.slices[0].plane.position is None:
        return [stack]
    parts = stack.split(lambda each: each.instance.frame_of_reference_uid, "FrameOfReferenceUID")
    if min(len(part.slices) for part in parts) == 1 or any(
        not dict(part.told_by)["FrameOfReferenceUID"] for part in parts
    ):
        stack.findings.append(finding("scattered_frame_of_reference", len(parts)))
        return [stack]
    for part in parts:
        part.findings.append(finding("mixed_frame_of_reference", len(parts)))
    return parts


def _orientations(slices: Sequence[Slice]) -> dict[Hashable, int]:
    """Orientation -> number of its kind; rounding makes no other kind, and a missing orientation is -1."""
    found = sorted({each.plane.orientation for each in slices if each.plane.orientation is not None})
    return {None: -1, **dict(zip(found, alike(found, SAME_ORIENTATION), strict=True))}
