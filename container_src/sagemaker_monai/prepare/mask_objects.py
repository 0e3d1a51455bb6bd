"""The DICOM masks of an export and the images that they were drawn on, matched by UIDs and never by names of files.

A mask is of the image that has the slices which it names, else of the series that it names, else of the only image in
its frame of reference. One that could be of several images, names another patient, or is there twice with different
content is refused. Of several masks of one image, those with different structures are joined. Where two have the same
structure they are versions, of which somebody has to choose.
"""

import fnmatch
import hashlib
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace

from sagemaker_monai.data.label_names import alike_key
from sagemaker_monai.deidentification.identity import identity_of
from sagemaker_monai.deidentification.matcher import Matcher
from sagemaker_monai.errors import CallerError, ConfigError, UnsuitableImage
from sagemaker_monai.images.dicom.elements import text_of
from sagemaker_monai.images.dicom.headers import content_of, read_up_to_pixels
from sagemaker_monai.images.dicom.media import Instance, time_of
from sagemaker_monai.masks.dicom_masks import contents_of, is_mask
from sagemaker_monai.masks.mask_references import References
from sagemaker_monai.messages.progress import track
from sagemaker_monai.messages.shortened import some_of
from sagemaker_monai.prepare.dicom_units import Unit, name_of
from sagemaker_monai.prepare.structures import MaskOptions

_TEXTS = (
    "SeriesDescription", "ContentLabel", "ContentDescription", "ContentCreatorName", "StructureSetLabel",
    "StructureSetName", "OperatorsName",
)  # fmt: skip
_REMEDY = "choose with --mask-description or --structures, or take the latest with --mask-versions newest"


@dataclass(frozen=True)
class MaskObject:
    """A DICOM mask, before its voxels are read.

    Attributes:
        instance: without its header, which for contours is large.
        name: of the file. Untrusted text.
        structures: names of what is drawn, each once.
        references: what it was drawn on.
        made: when, as 14 digits; "" if unknown.
        texts: that tell masks apart. Personal data.
        identifying: structures whose names contain what identifies somebody.
        digest: of the file.
    """

    instance: Instance
    name: str
    structures: tuple[str, ...]
    references: References = field(repr=False)
    made: str
    texts: tuple[str, ...] = field(repr=False)
    identifying: frozenset[str] = field(repr=False)
    digest: bytes = field(repr=False)


def look_at_masks(instances: Sequence[Instance], faults: dict[str, str]) -> list[MaskObject]:
    """What the masks among DICOM files say of themselves; of copies of one file the first.

    Args:
        instances: of an export.
        faults: gets the names of masks that cannot be read, with the reason.
    """
    masks = [each for each in instances if is_mask(each)]
    looked: dict[str, MaskObject] = {}
    for instance in track(masks, total=len(masks), what="looking at masks"):
        try:
            mask = _look_at(instance)
        except CallerError as error:
            faults[name_of(instance)] = str(error)
            continue
        first = looked.setdefault(instance.sop_instance_uid or mask.name, mask)
        if first is not mask and first.digest != mask.digest:
            faults[mask.name] = faults[first.name] = (
                "two masks with one SOPInstanceUID and different content; keep the one that is meant"
            )
    return [mask for mask in looked.values() if mask.name not in faults]


def _look_at(instance: Instance) -> MaskObject:
    header, _ = read_up_to_pixels(instance.source)
    contents = contents_of(header)
    matcher = Matcher(replace(identity_of(header), places=frozenset()))  # an organ may be part of an institution's name
    structures = tuple(dict.fromkeys(filter(None, contents.structures)))
    if not structures:
        raise UnsuitableImage("the mask has no structure with a name that is drawn; name them and export it again")
    return MaskObject(
        instance=replace(instance, header=None),
        name=name_of(instance),
        structures=structures,
        references=contents.references,
        made=time_of(header, "StructureSet", "Content", "InstanceCreation", "Series"),
        texts=tuple(filter(None, (text_of(header, keyword) for keyword in _TEXTS))),
        identifying=frozenset(name for name in structures if matcher.in_text(name)),
        digest=hashlib.sha256(content_of(instance.source)).digest(),
    )


def described_as(masks: Sequence[MaskObject], pattern: str) -> list[MaskObject]:
    """The masks with a text that fits `MaskOptions.description`.

    Raises:
        ConfigError: there are none.
    """
    if not pattern:
        return list(masks)
    upper = pattern.strip().upper()
    found = [mask for mask in masks if any(fnmatch.fnmatchcase(text.upper(), upper) for text in mask.texts)]
    if masks and not found:
        raise ConfigError("no mask has a text that fits --mask-description; name another pattern")
    return found


# --- whose masks they are --------------------------------------------------------------------------------------------


class Owners:
    """Finds the images of masks by their UIDs.

    Args:
        units: the images that may have a mask.
        is_of_slices: images are single slices, of which a mask may have many.
    """

    def __init__(self, units: Sequence[Unit], *, is_of_slices: bool) -> None:
        self._units = units
        self._is_of_slices = is_of_slices
        self._by_slice = _places(units, lambda each: each.sop_instance_uid)
        self._by_series = _places(units, lambda each: each.series_instance_uid)
        self._by_frame = _places(units, lambda each: each.frame_of_reference_uid)

    def of(self, mask: MaskObject) -> list[int]:
        """The places of a mask's images, none if they are not there.

        Raises:
            UnsuitableImage: it may be of several, or of another patient's.
        """
        references = mask.references
        slices = set().union(*references.series.values())
        found = _all(self._by_slice, slices) or _all(self._by_series, references.series)
        if not references.series:
            found = _all(self._by_frame, references.frames_of_reference)
        if len(found) > 1 and not self._is_of_slices:
            raise UnsuitableImage(
                f"the mask may be of {len(found)} images, which share the UIDs that it names (other series, phases or "
                "echoes); choose among them with --modality, --series-description or --series UID"
            )
        patient = mask.instance.patient_id.strip(" \0")
        others = {self._units[place].instances[0].patient_id.strip(" \0") for place in found}
        if patient and others - {patient, ""}:
            raise UnsuitableImage("the mask names images of another patient; correct PatientID, or remove the mask")
        return sorted(found)


def _places(units: Sequence[Unit], uid_of: Callable[[Instance], str]) -> dict[str, set[int]]:
    found: dict[str, set[int]] = defaultdict(set)
    for place, unit in enumerate(units):
        for each in unit.instances:
            found[uid_of(each)].add(place)
    found.pop("", None)
    return found


def _all(places: dict[str, set[int]], uids: Iterable[str]) -> set[int]:
    return {place for uid in uids for place in places.get(uid, ())}


# --- versions --------------------------------------------------------------------------------------------------------


def settle_versions(
    masks: Sequence[MaskObject], is_wanted: Callable[[str], bool], options: MaskOptions
) -> list[MaskObject]:
    """Choose among the masks of one image: all of them if they have different structures.

    Args:
        masks: with a wanted structure each.
        is_wanted: of the name of a structure.
        options: the rule for versions.

    Raises:
        UnsuitableImage: it is not clear which version is meant.
    """
    wanted = {id(mask): {alike_key(name) for name in mask.structures if is_wanted(name)} for mask in masks}
    counts = Counter(key for mask in masks for key in wanted[id(mask)])
    twice = {key for key, count in counts.items() if count > 1}
    if not twice:
        return list(masks)
    names = sorted({name for mask in masks for name in mask.structures if alike_key(name) in twice})
    if options.versions != "newest":
        raise UnsuitableImage(f"{len(masks)} masks of the image have the same structures ({some_of(names)}); {_REMEDY}")
    order = sorted(masks, key=_age, reverse=True)
    kept: list[MaskObject] = []
    for mask in order:
        have = set().union(*(wanted[id(each)] for each in kept))
        if not wanted[id(mask)] & have:
            kept.append(mask)
        elif lost := wanted[id(mask)] - have:
            lacking = [name for name in mask.structures if alike_key(name) in lost]
            raise UnsuitableImage(
                f"an older mask of the image has structures that newer ones do not have ({some_of(lacking)}) beside "
                "some that they have; choose with --mask-description or --structures"
            )
    rivals = [mask for mask in masks if wanted[id(mask)] & twice]
    if any(not mask.made for mask in rivals) or len({_age(mask) for mask in rivals}) < len(rivals):
        raise UnsuitableImage(
            f"nothing says which of {len(rivals)} masks with the same structures ({some_of(names)}) is the newest; "
            "choose with --mask-description"
        )
    return [mask for mask in masks if mask in kept]


def _age(mask: MaskObject) -> tuple[str, int]:
    number = mask.instance.instance_number
    return mask.made, -1 if number is None else number
