"""Series of DICOM files as volumes: how many there are, and which cannot be read as one, and why."""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from sagemaker_monai.doctor.facts import FileFacts
from sagemaker_monai.images.dicom.belonging import split_series
from sagemaker_monai.images.dicom.findings import MESSAGES, OF_IMAGES, Finding
from sagemaker_monai.images.dicom.grouping import Series, stacks_of
from sagemaker_monai.images.dicom.media import Instance
from sagemaker_monai.messages.remarks import MAX_EXAMPLES, SEVERITIES, Remark, Severity, remark

# These are no faults of a picture outside a volume.
_OF_VOLUMES = frozenset(MESSAGES) - OF_IMAGES - {"mixed_rescale", "localizer", "no_pixels", "packed_slices"}
_TOLD_ONCE = frozenset(
    {
        *("mixed_size", "mixed_orientation", "mixed_objects", "mixed_frame_of_reference", "shared_series_uid"),
        *("mixed_patients", "mixed_studies", "incomplete_identity", "missing_series_uid", "series_uid_per_slice"),
        *("several_volumes", "guessed_volumes", "ambiguous_volumes"),
    }
)  # count is the series'
_NOT_HERE = frozenset({"no_pixels", "single_slice"})  # reported for files, or seen in the counts


@dataclass(frozen=True)
class Stacks:
    """What `dicom.grouping` made of the files.

    Attributes:
        stacks: all that have pictures.
        counts: of series, stacks, volumes and usable volumes.
        remarks: what is odd, by code.
    """

    stacks: tuple[Series, ...] = field(repr=False)
    counts: Mapping[str, int]
    remarks: tuple[Remark, ...]


def examine_stacks(files: Sequence[FileFacts], *, are_volumes: bool | None) -> Stacks:
    """Group the DICOM files.

    Args:
        files: all files.
        are_volumes: whether the data set's images are volumes; if None, stacks of several slices are.
    """
    found: list[Instance] = []
    positions: dict[int, int] = {}
    for position, facts in enumerate(files, start=1):
        if facts.instance is not None and facts.instance.has_pixels and facts.is_usable:
            found.append(facts.instance)
            positions[id(facts.instance)] = position
    stacks, broken = [], []
    series = split_series(found)
    for one in series:
        try:
            stacks += [stack for stack in stacks_of(one) if stack.slices]
        except Exception:  # geometry of a hostile header; the series is reported as unusable
            broken.append(positions[id(one.instances[0])])
    volumes = [stack for stack in stacks if are_volumes is not False and len(stack.slices) > 1]
    refused = [stack for stack in volumes if any(found.severity == "error" for found in _severe(stack, is_volume=True))]
    remarks = _remarks(stacks, positions, are_volumes=are_volumes)
    if broken:
        remarks.append(remark("unsupported_images", len(broken), broken, codes="series that cannot be sorted"))
    counts = {
        "series": len(series),
        "stacks": len(stacks),
        "volumes": len(volumes),
        "usable_volumes": len(volumes) - len(refused),
    }
    return Stacks(tuple(stacks), counts, tuple(remarks))


def _severe(stack: Series, *, is_volume: bool) -> list[Finding]:
    """The findings, as notes if they do not matter here; colour does not, since pictures are used one by one."""
    return [
        replace(each, severity="note")
        if each.code == "colour" or (each.code in _OF_VOLUMES and not is_volume)
        else each
        for each in stack.findings
    ]


def _remarks(stacks: Sequence[Series], positions: Mapping[int, int], *, are_volumes: bool | None) -> list[Remark]:
    counts = Counter[str]()
    severities: dict[str, Severity] = {}
    examples: dict[str, list[int]] = defaultdict(list)
    uids: dict[str, set[object]] = defaultdict(set)
    for stack in stacks:
        is_volume = are_volumes is not False and len(stack.slices) > 1
        first = positions[id(stack.slices[0].instance)]
        for found in _severe(stack, is_volume=is_volume):
            if found.code in _NOT_HERE or (not is_volume and found.code in _OF_VOLUMES and are_volumes is not True):
                continue
            seen = (stack.uid or first) in uids[found.code]
            uids[found.code].add(stack.uid or first)
            counts[found.code] += 0 if seen and found.code in _TOLD_ONCE else found.count
            worse = min(found.severity, severities.get(found.code, "note"), key=SEVERITIES.index)
            severities[found.code] = worse
            examples[found.code].append(first)
    return [
        Remark(
            code,
            severities[code],
            f"{MESSAGES[code].format(count)} (in all {len(uids[code])} series)",
            len(uids[code]),
            "series",
            tuple(examples[code][:MAX_EXAMPLES]),
        )
        for code, count in counts.items()
    ]
