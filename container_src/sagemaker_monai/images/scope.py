"""An artifact's scope: what it was trained on, as plain data, and therefore which parts of a request it answers.

Only clear cases are refused: a modality or a kind of object that training did not have, and objects that are not
images. Unusual sizes and spacings are only reported, because networks tolerate some of that and nobody knows how much.
Artifacts from earlier versions have no scope and refuse nothing.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, fields, replace
from typing import TYPE_CHECKING, Any

from sagemaker_monai.errors import BundleError
from sagemaker_monai.images.volumes import Identity, Traits

if TYPE_CHECKING:
    from sagemaker_monai.images.dicom.objects import Subject

# Modalities that show the same, whatever the detector; others of a family are answered with a finding.
FAMILIES = (frozenset({"CR", "DX", "RG"}),)
SPACING_FACTOR = 1.25  # how far outside the training range a spacing is reported (a guess)
SIZE_FACTOR = 2.0  # the same for voxels along an axis (a guess)
MAX_NAMES = 64  # SOP classes that are kept
MAX_NAME_CHARS = 64
# Findings of this module for the answer, beside those of `dicom.findings` and the other readers.
FINDINGS = {
    "other_modality": "a modality that training did not have, but of the same family (CR, DX, RG)",
    "unknown_modality": "the file does not say its modality, and the model is for certain ones only",
    "other_kind": "images of a kind that was not trained on: reformatted ones, or of an unknown SOP class",
    "spacing_outside_training": "pixels or slices are more than a quarter closer or farther apart than in training",
    "size_outside_training": "less than half, or more than twice, the pixels or slices of any training image",
    "nothing_visible": "nothing is visible in the network's input: black, white, one value or a few levels",
    "high_byte": "the high byte was taken of a picture of more than 8 bits, as artifacts of earlier versions do",
}
# What users and the Decathlon's data sets write for `modality`.
MODALITY_OF = {
    **dict.fromkeys(("MRI", "FLAIR", "T1", "T1W", "T1GD", "T1CE", "T2", "T2W", "ADC", "DWI"), "MR"),
    "PET": "PT",
}

Range = tuple[float, float]


@dataclass(frozen=True)
class Scope:
    """What the training images were.

    Attributes:
        modalities: of DICOM objects, or named by the data set for other files; "" stands for unknown ones. If empty,
            all modalities are accepted.
        kinds: keys of `dicom.objects.KINDS`; empty if no image was DICOM.
        sop_classes: SOPClassUIDs, for information.
        has_colour, has_grey: whether any DICOM image was.
        size: fewest and most voxels along W, H (and D) as stored; empty if unknown.
        spacing_mm: smallest and largest spacing along the same axes; empty if unknown.
    """

    modalities: tuple[str, ...] = ()
    kinds: tuple[str, ...] = ()
    sop_classes: tuple[str, ...] = ()
    has_colour: bool = False
    has_grey: bool = False
    spatial_dims: int = 2
    size: tuple[Range, ...] = ()
    spacing_mm: tuple[Range, ...] = ()

    def takes(self, subject: "Subject") -> bool:
        """Whether the model is for a DICOM object."""
        from sagemaker_monai.images.dicom.objects import IMAGES, NEVER_PICTURES

        is_image = subject.kind in IMAGES or subject.kind in self.kinds
        if not is_image and (self.kinds or subject.kind in NEVER_PICTURES):
            return False
        if self.kinds and subject.is_colour and not self.has_colour:
            return False
        return not self._names_modalities or subject.modality in ("", *self.modalities, *self._relatives())

    def findings(self, traits: Traits) -> tuple[str, ...]:
        """What is unusual about an accepted image, as keys of FINDINGS."""
        found = []
        if (identity := traits.identity) is not None:
            if self._names_modalities and not identity.modality:
                found.append("unknown_modality")
            elif self._names_modalities and identity.modality not in self.modalities:
                found.append("other_modality")
            if self.kinds and identity.kind not in self.kinds:
                found.append("other_kind")
        for code, values, ranges, factor in (
            ("spacing_outside_training", traits.spacing_mm or (), self.spacing_mm, SPACING_FACTOR),
            ("size_outside_training", traits.size, self.size, SIZE_FACTOR),
        ):
            if len(values) == len(ranges) and any(
                not low / factor <= value <= high * factor for value, (low, high) in zip(values, ranges, strict=True)
            ):
                found.append(code)
        return tuple(found)

    @property
    def name(self) -> str:
        """What the model is for, in a message."""
        from sagemaker_monai.images.dicom.objects import Subject, names_of

        kinds = self.kinds or ("image",)
        modalities = self.modalities if self._names_modalities else ("",)
        if modalities == ("",) and kinds == ("image",):
            return "images"
        is_colour = self.has_colour and not self.has_grey
        return names_of(Subject(kind, modality, is_colour) for modality in modalities for kind in kinds)

    @property
    def _names_modalities(self) -> bool:
        return bool(self.modalities) and "" not in self.modalities

    def _relatives(self) -> set[str]:
        return {name for family in FAMILIES if family & set(self.modalities) for name in family}


def scope_of(images: Iterable[Traits], *, spatial_dims: int, modality: str = "") -> Scope:
    """The scope of a model by its training images.

    Args:
        images: the traits of each; those of 8-bit pictures are empty.
        spatial_dims: of the model.
        modality: that the data set names for files without one; ignored unless it is one of DICOM's.
    """
    from sagemaker_monai.images.dicom.objects import is_image_modality

    images = list(images)
    modality = modality if is_image_modality(modality) else ""
    identities = [each.identity for each in images if each.identity is not None]
    said = {each.modality for each in identities}
    if len(identities) < len(images):
        said |= {modality} if modality or said else set()
    sizes = [each.size for each in images if len(each.size) == spatial_dims]
    spacings = [each.spacing_mm for each in images if each.spacing_mm and len(each.spacing_mm) == spatial_dims]
    return Scope(
        modalities=tuple(sorted(said))[:MAX_NAMES],
        kinds=tuple(sorted({each.kind for each in identities})),
        sop_classes=tuple(sorted({each.sop_class_uid for each in identities} - {""}))[:MAX_NAMES],
        has_colour=any(each.is_colour for each in identities),
        has_grey=any(not each.is_colour for each in identities),
        spatial_dims=spatial_dims,
        size=tuple((min(axis), max(axis)) for axis in zip(*sizes, strict=True)),
        spacing_mm=tuple((round(min(axis), 4), round(max(axis), 4)) for axis in zip(*spacings, strict=True)),
    )


def said_modality(text: str) -> str:
    """The DICOM Modality that a data set's word means."""
    return MODALITY_OF.get(text.strip().upper(), text.strip().upper())


def pack_traits(traits: Traits) -> list[Any]:
    """The parts that make a scope, as short JSON; nothing identifies a patient, study or file."""
    identity = traits.identity
    of_dicom = None if identity is None else [
        identity.kind, identity.modality, identity.is_colour, identity.sop_class_uid, identity.passed_over
    ]  # fmt: skip
    spacing = None if traits.spacing_mm is None else [round(each, 6) for each in traits.spacing_mm]
    return [of_dicom, list(traits.findings), list(traits.size), spacing]


def unpack_traits(content: Any) -> Traits:
    """Reverse `pack_traits`; raises ValueError or TypeError for anything else."""
    of_dicom, findings, size, spacing = content
    identity = None
    if of_dicom is not None:
        kind, modality, is_colour, sop_class_uid, passed_over = of_dicom
        identity = Identity("", (), None, (), kind, modality, bool(is_colour), sop_class_uid)
        identity = replace(identity, passed_over=int(passed_over))
    return Traits(identity, tuple(findings), tuple(size), None if spacing is None else tuple(spacing))


def write_scope(scope: Scope) -> dict[str, Any]:
    """The scope as JSON."""
    content: dict[str, Any] = json.loads(json.dumps(asdict(scope)))  # tuples become lists
    return content


def read_scope(content: Any) -> Scope:
    """Read an artifact's scope; raises BundleError for anything but the output of `write_scope`."""
    known = {field.name for field in fields(Scope)}
    try:
        if not isinstance(content, Mapping) or set(content) != known:
            raise ValueError
        scope = Scope(
            modalities=_names(content["modalities"]),
            kinds=_names(content["kinds"]),
            sop_classes=_names(content["sop_classes"]),
            has_colour=_flag(content["has_colour"]),
            has_grey=_flag(content["has_grey"]),
            spatial_dims=int(content["spatial_dims"]),
            size=_ranges(content["size"]),
            spacing_mm=_ranges(content["spacing_mm"]),
        )
    except (ValueError, TypeError) as error:
        raise BundleError(
            "the artifact's description of its training data is broken; deploy the artifact as it was written"
        ) from error
    return scope


def _names(values: Any) -> tuple[str, ...]:
    if not isinstance(values, list) or not all(isinstance(each, str) for each in values):
        raise TypeError
    if any(len(each) > MAX_NAME_CHARS for each in values):
        raise ValueError
    return tuple(values)


def _flag(value: Any) -> bool:
    if not isinstance(value, bool):
        raise TypeError
    return value


def _ranges(values: Any) -> tuple[Range, ...]:
    return tuple((float(low), float(high)) for low, high in values)
