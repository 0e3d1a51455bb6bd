"""Recognises files that pack the slices of a volume into one picture or into private elements, and refuses them.

Siemens scanners write an fMRI or diffusion volume as a mosaic of tiles in one picture. Its ImagePositionPatient is not
that of any slice; the positions of the tiles are in private elements, unless an anonymiser removed them. United Imaging
stores a volume's frames in a private sequence. Read naively, such a file would be one meaningless slice. Unpacking is
left to converters such as dcm2niix; scanners can also export single slices or enhanced files.
"""

import re

from pydicom import Dataset
from pydicom.dataelem import RawDataElement
from pydicom.tag import BaseTag, Tag

from sagemaker_monai.errors import UnsuitableImage
from sagemaker_monai.images.dicom.elements import text_of

MOSAIC = "Siemens mosaic"
FRAMES = "United Imaging volume"
REMEDY = "export single slices or an enhanced multi-frame file, or convert it to NIfTI, such as with dcm2niix"
# The group and creator of a private block, the element in it, and the packing if its number is above 1.
_COUNTS = (
    (0x0019, "SIEMENS MR HEADER", 0x0A, MOSAIC),  # NumberOfImagesInMosaic
    (0x0021, "SIEMENS MR SDS 01", 0x5E, MOSAIC),
    (0x0065, "Image Private Header", 0x50, FRAMES),
)
_CSA = (0x0029, "SIEMENS CSA HEADER", 0x10)
_BLOCKS = {
    (group, element): [(Tag(group, block), Tag(group, (block << 8) + element)) for block in range(0x10, 0x20)]
    for group, _, element, *_ in (*_COUNTS, _CSA)
}
_PRIVATE_GROUPS = frozenset(group for group, _ in _BLOCKS)
# A tag of the CSA header: its name of 64 bytes, 20 bytes of type and count, 16 bytes of lengths, and the value.
_CSA_COUNT = re.compile(rb"NumberOfImagesInMosaic\0.{41}.{20}.{16}\s*(\d{1,5})[\s\0]", re.DOTALL)


def packing_of(header: Dataset) -> str:
    """How a file packs its slices, MOSAIC or FRAMES; "" if each frame is a slice."""
    if any(word.strip().upper() == "MOSAIC" for word in text_of(header, "ImageType").split("\\")):
        return MOSAIC
    if _PRIVATE_GROUPS.isdisjoint(tag.group for tag in header.keys()):  # noqa: SIM118 - iteration converts values
        return ""
    for group, creator, element, packing in _COUNTS:
        for tag in _private(header, group, creator, element):
            if _count(_bytes(header, tag)) > 1:
                return packing
    for tag in _private(header, *_CSA):
        found = _CSA_COUNT.search(_bytes(header, tag))
        if found and int(found[1]) > 1:
            return MOSAIC
    return ""


def check_unpacked(header: Dataset) -> None:
    """Refuse (UnsuitableImage) a file whose picture is not a single slice."""
    if packing := packing_of(header):
        raise UnsuitableImage(f"the slices of a volume are packed in one picture ({packing}); {REMEDY}")


def _private(header: Dataset, group: int, creator: str, element: int) -> list[BaseTag]:
    """The tags of a private element; its block is reserved by the creator's name (PS3.5 7.8.1)."""
    return [
        tag
        for owner, tag in _BLOCKS[group, element]
        if owner in header and _bytes(header, owner).strip(b" \0").upper() == creator.upper().encode() and tag in header
    ]


def _bytes(header: Dataset, tag: BaseTag) -> bytes:
    """A value as it is in the file, or as text if it was converted."""
    element = header.get_item(tag)
    value = element.value if element is not None else b""
    if isinstance(element, RawDataElement) or isinstance(value, bytes):
        return value or b""
    return str(value).encode(errors="replace")


def _count(value: bytes) -> int:
    """A number as text, or as the two bytes of an unsigned short."""
    text = value.strip(b" \0")
    if re.fullmatch(rb"\d{1,5}(\.0*)?", text):
        return int(text.partition(b".")[0])
    return int.from_bytes(value[:2], "little") if len(value) == 2 else 0
