"""What a DICOM object is: an image, or another object that has pixels too.

SOP class, Modality and ImageType decide, never the number of slices: a dose distribution has more slices than its CT.
If any of the three says that an object is not an image, it is not: a mask that a tool wrote as "CT Image Storage" has
Modality SEG. A class that is not in the standard's dictionary, or not known here, counts as an image of its Modality
ranked after known classes (`unknown`). If SOP class or Modality is missing, the other one decides.

Kinds are ranked: among the objects of a data set, those of the first kind present are used, and the others are skipped.
So a data set of screen captures alone is used, but captures beside a CT are not.
"""

import functools
import re
from collections.abc import Iterable
from typing import TYPE_CHECKING, NamedTuple

from pydicom.uid import UID

if TYPE_CHECKING:
    from sagemaker_monai.images.dicom.media import Instance

# Kind -> rank, and what one is called; lower ranks are meant first.
KINDS: dict[str, tuple[int, str]] = {
    "image": (0, "image"),
    "unknown": (1, "object of an unknown SOP class"),
    "reformat": (1, "reformatted image"),
    "projection": (2, "projection or rendering"),
    "scout": (3, "localizer"),
    "capture": (4, "screen capture or report page"),
    "map": (5, "parametric map"),
    "mask": (6, "mask"),
    "dose": (6, "dose distribution"),
    "plan": (7, "plan"),
    "contours": (7, "structure set"),
    "report": (7, "structured report"),
    "state": (7, "presentation state"),
    "document": (7, "document"),
    "other": (7, "object that is not an image"),
}
# Kinds that are read without being asked for by name.
IMAGES = frozenset({"image", "unknown", "reformat"})
# Kinds that are never pictures, not even in a collection of screen captures.
NEVER_PICTURES = frozenset({"map", "mask", "dose", "plan", "contours", "report", "state", "document", "other"})

_STORAGE = "1.2.840.10008.5.1.4.1.1."
# The end of the UID of a storage class -> kind; a dot at the end means all below. Source: DICOM PS3.6, annex A.
_CLASSES = {
    "7": "capture", "7.": "capture",
    "11.": "state",
    "9.": "other",  # waveforms
    "30": "map",
    "66": "other", "66.": "other",  # raw data, registrations, fiducials
    "66.4": "mask", "66.5": "mask", "66.7": "mask", "66.8": "mask",
    "67": "map",
    "68.": "other",
    "77.1.5.5": "map", "77.1.5.8": "map", "77.1.5.9": "map",  # ophthalmic thickness and analyses
    "78.": "other", "79.": "other", "80.": "other",
    "88.": "report",
    "90.": "other", "91.": "other",
    "104.": "document",
    "130": "image",  # Enhanced PET
    "481.": "plan",
    "481.1": "image", "481.23": "image", "481.24": "image",  # portal images
    "481.2": "dose",
    "481.3": "contours", "481.11": "contours",
}  # fmt: skip
_MODALITIES = {
    "SEG": "mask", "RTSEGANN": "mask", "LABELMAP": "mask",
    "RTDOSE": "dose",
    "RTPLAN": "plan", "RTINTENT": "plan", "RTRAD": "plan", "RTRECORD": "plan", "PLAN": "plan",
    "RTSTRUCT": "contours",
    "SR": "report", "KO": "report",
    "PR": "state",
    "DOC": "document",
    "RWV": "map",
    "REG": "other", "FID": "other", "ANN": "other", "ASMT": "other", "SMR": "other", "M3D": "other",
    "TEXTUREMAP": "other",
}  # fmt: skip
# Modalities of images. Other values are never shown: the element may contain anything. Source: PS3.3 C.7.3.1.1.1.
_OF_IMAGES = frozenset({
    "AR", "BI", "BMD", "CFM", "CR", "CT", "DG", "DMS", "DX", "ES", "GM", "IO", "IVOCT", "IVUS", "LEN", "LS",
    "MG", "MR", "NM", "OAM", "OCT", "OP", "OPM", "OPT", "OPTBSV", "OPTENF", "OPV", "OSS", "OT", "PT", "PX",
    "RF", "RG", "RTIMAGE", "SC", "SM", "TG", "US", "VF", "XA", "XC",
})  # fmt: skip
# Modality that a class implies if the file has none.
_MODALITY_OF_CLASS = {
    "1": "CR", "1.1": "DX", "1.1.1": "DX", "1.2": "MG", "1.2.1": "MG", "1.3": "IO", "1.3.1": "IO",
    "2": "CT", "2.1": "CT", "2.2": "CT", "3.1": "US", "4": "MR", "4.1": "MR", "4.3": "MR", "4.4": "MR", "6.1": "US",
    "6.2": "US", "12.1": "XA", "12.1.1": "XA", "12.2": "RF", "12.2.1": "RF", "13.1.1": "XA", "13.1.2": "XA",
    "13.1.3": "MG", "20": "NM", "66.4": "SEG", "66.7": "SEG", "77.1.1": "ES", "77.1.2": "GM", "77.1.4": "XC",
    "77.1.5.1": "OP", "77.1.5.4": "OPT", "77.1.6": "SM", "128": "PT", "128.1": "PT", "130": "PT", "481.1": "RTIMAGE",
    "481.2": "RTDOSE", "481.3": "RTSTRUCT", "481.5": "RTPLAN",
}  # fmt: skip
# Words of ImageType, letters and digits only -> kind. Scanners write them with blanks, hyphens and underscores.
_WORDS = {
    r"LOCALI[SZ]ER|SCOUT|TOPOGRAM|TOP|SURVIEW|SCANOGRAM|SURVEY|3PLANELOC": "scout",
    r"SCREEN(SAVE|SAVED|SHOT|CAPTURE|GRAB)?|(SECONDARY)?CAPTURE|SNAPSHOT|PROT|PATIENTPROTOCOL"
    r"|DOSE(REPORT|INFO|RECORD|SUMMARY|SHEET)?|REPORT|EXAMSUMMARY": "capture",
    r"PROJECTIONIMAGE|(THICK|ROTATING)?(MIP|MINIP|MAXIP)(THICK|THIN|RANGE)?|MAXIMUM|MINIMUM|VRT(THICK)?|VOLREN"
    r"|VOLUME(RENDERING|RENDERED)|RENDERED|RENDERING|SSD|3DRENDERING": "projection",
    r"(CURVED)?MPR(THICK|THIN|RANGE|CURVED)?|REFORMATTED|CPR|CURVED": "reformat",
}  # fmt: skip
_COMPILED = tuple((re.compile(pattern), kind) for pattern, kind in _WORDS.items())
_NOISE = re.compile(r"^CT_SOM\d*|^CSA|[^A-Z0-9]")  # Siemens writes the software before the word


class Subject(NamedTuple):
    """What an object is: a key of KINDS, its modality ("" if unknown), and whether it is in colour."""

    kind: str
    modality: str
    is_colour: bool

    @property
    def rank(self) -> int:
        """Lower ranks are preferred."""
        return KINDS[self.kind][0]

    @property
    def shown_modality(self) -> str:
        """The modality if the standard defines it, else "": the element may contain anything."""
        return self.modality if self.modality in _OF_IMAGES or self.modality in _MODALITIES else ""

    @property
    def name(self) -> str:
        """For messages: the modality, and the kind if it is not an image; never text from the file."""
        modality = self.shown_modality
        colour = " in colour" if self.is_colour else ""
        if self.kind == "image":
            return f"{modality or 'images without a known Modality'}{colour}"
        return f"{modality} ({KINDS[self.kind][1]}{colour})" if modality else f"{KINDS[self.kind][1]}{colour}"


def subject_of(instance: "Instance") -> Subject:
    """What an instance is."""
    photometric = instance.photometric_interpretation.strip(" \0").upper()
    return Subject(
        kind_of(instance.sop_class_uid, instance.modality, instance.image_type),
        modality_of(instance.sop_class_uid, instance.modality),
        instance.samples_per_pixel > 1 or "PALETTE" in photometric,
    )


@functools.lru_cache(maxsize=1024)
def kind_of(sop_class_uid: str, modality: str, image_type: tuple[str, ...] = ()) -> str:
    """The kind of an object, a key of KINDS: of those that the attributes ("" if missing) say, the furthest from an
    image.
    """
    kinds = [_kind_of_class(_plain_uid(sop_class_uid)), _MODALITIES.get(_plain(modality), "image")]
    for value in image_type:
        word = _NOISE.sub("", value.strip(" \0").upper())
        kinds += [kind for pattern, kind in _COMPILED if pattern.fullmatch(word)]
    return max(kinds, key=lambda kind: KINDS[kind][0])


def is_image_class(sop_class_uid: str) -> bool:
    """Whether objects of a class have pixels; one without a class may have some."""
    return not _plain_uid(sop_class_uid) or "Image Storage" in UID(_plain_uid(sop_class_uid)).name


def modality_of(sop_class_uid: str, modality: str) -> str:
    """Modality in capital letters, or that of the SOP class, or ""."""
    ending = _plain_uid(sop_class_uid).removeprefix(_STORAGE)
    return _plain(modality) or _MODALITY_OF_CLASS.get(ending, "")


def is_image_modality(text: str) -> bool:
    """Whether a text is a Modality of images; OT ("other") is not informative."""
    return text in _OF_IMAGES and text != "OT"


def names_of(subjects: Iterable[Subject]) -> str:
    """The distinct names, for a message."""
    return ", ".join(sorted({subject.name for subject in subjects}))


def _plain(text: str) -> str:
    return text.strip(" \0").upper()


def _plain_uid(text: str) -> str:
    return text.strip(" \0")


def _kind_of_class(uid: str) -> str:
    if not uid:
        return "image"  # its Modality decides
    if not uid.startswith(_STORAGE):
        return "unknown"
    ending = uid.removeprefix(_STORAGE)
    if ending in _CLASSES:
        return _CLASSES[ending]
    family = next((kind for prefix, kind in _CLASSES.items() if prefix.endswith(".") and ending.startswith(prefix)), "")
    if family:
        return family
    name = UID(uid).name
    is_image = "Image Storage" in name or name.endswith("Volume Storage")
    return "image" if is_image else "unknown" if name == uid else "other"
