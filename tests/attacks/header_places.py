"""Places of a DICOM header where an identity can be put: every attribute, in every type, at any depth, as raw bytes.

Files are put together here and not by pydicom, which would refuse or convert most of what is tried.
"""

import struct
from collections.abc import Iterable, Mapping

from pydicom._dicom_dict import DicomDictionary
from pydicom.uid import ImplicitVRLittleEndian

from tests.support.identified import ct
from tests.support.made_dicom import as_file

PATIENT_NAME, PATIENT_ID = "Quixotic^Zebulon", "7788991"
_LONG = frozenset({"OB", "OW", "OF", "OD", "OL", "OV", "UN", "UT", "UC", "UR", "SQ", "SV", "UV"})
_META_END = 144  # preamble, prefix, and the element with the length of the rest
_REFERENCED_IMAGES = 0x00081140  # a sequence that the profile keeps
# Everything but commands, meta information, pixel data, and what is no attribute.
PLAIN_TAGS = tuple(
    tag
    for tag, row in DicomDictionary.items()
    if tag >> 16 not in (0x0000, 0x0002, 0x7FE0, 0xFFFE) and row[0] not in ("SQ", "NONE") and tag != 0xFFFCFFFC
)
# (type as written, whether Implicit VR, depth of sequences); "" is the dictionary's own type.
TRICKS = (
    ("", False, 0), ("", False, 3), ("", True, 0), ("", True, 2), ("UN", False, 0), ("UN", False, 1),
    ("LO", False, 0), ("CS", False, 1), ("IS", False, 0), ("UI", False, 0), ("OB", False, 1), ("PN", False, 0),
)  # fmt: skip
# Of the patient, and of somebody whom the header does not know; none is a word of any list.
SECRETS = (
    b"Quixotic", b"zebulon", b"Quixotic^Zebulon", b"7788991", b"JANE ROE", b"Jane_Roe_1949", b"ROEJANE49",
    b"28.02.1949", b"19490228", b"1949-02-28", b"+49 89 1234567", b"(089) 1234567", b"j.roe@clinic.example",
    b"1.2.3.77889919490228", b"http://roe.example/1949", b"SMITHZEB", b"ZEBSMITA", b"smithB",
    "Jane Roe".encode("utf-16-le"), "Jane Roe".encode("utf-16-be"), "Jane Roe".encode("utf-32-le"),
    "\u0418\u0432\u0430\u043d\u043e\u0432".encode(), "\u0418\u0432\u0430\u043d\u043e\u0432".encode("iso8859_5"),
)  # fmt: skip


def own_type(tag: int) -> str:
    """The dictionary's type, the first of several."""
    return str(DicomDictionary[tag][0]).split(" ")[0]


def element(tag: int, vr: str, value: bytes, *, is_implicit: bool) -> bytes:
    """One element, little-endian, of even length."""
    value += (b"\0" if vr in ("OB", "UN", "UI") else b" ") * (len(value) % 2)
    head = struct.pack("<HH", tag >> 16, tag & 0xFFFF)
    if is_implicit:
        return head + struct.pack("<I", len(value)) + value
    if vr in _LONG:
        return head + vr.encode() + bytes(2) + struct.pack("<I", len(value)) + value
    return head + vr.encode() + struct.pack("<H", len(value)) + value


def _nested(content: bytes, *, is_implicit: bool) -> bytes:
    item = struct.pack("<HHI", 0xFFFE, 0xE000, len(content)) + content
    return element(_REFERENCED_IMAGES, "SQ", item, is_implicit=is_implicit)


def _split(body: bytes, *, is_implicit: bool) -> dict[int, bytes]:
    """The elements of a data set without sequences."""
    found, place = {}, 0
    while place < len(body):
        group, number = struct.unpack_from("<HH", body, place)
        is_long = is_implicit or body[place + 4 : place + 6].decode() in _LONG
        head = 12 if is_long and not is_implicit else 8
        size = struct.unpack_from("<I" if is_long else "<H", body, place + head - (4 if is_long else 2))[0]
        found[group << 16 | number] = body[place : place + head + size]
        place += head + size
    return found


def file_with(elements: Mapping[int, bytes], *, is_implicit: bool, depth: int) -> bytes:
    """A small CT slice of the patient with more elements.

    Args:
        elements: as `element` makes them; where the slice has one itself, that stays.
        is_implicit: the transfer syntax is Implicit VR Little Endian, else Explicit.
        depth: in how many sequences, one in the other, they stand.
    """
    dataset = ct(PatientName=PATIENT_NAME, PatientID=PATIENT_ID)
    if is_implicit:
        dataset.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian
    raw = as_file(dataset)
    start = _META_END + struct.unpack_from("<I", raw, _META_END - 4)[0]
    own = _split(raw[start:], is_implicit=is_implicit)
    if depth:
        content = b"".join(elements[tag] for tag in sorted(elements))
        for _ in range(depth):
            content = _nested(content, is_implicit=is_implicit)
        own[_REFERENCED_IMAGES] = content
    else:
        own = {**elements, **own}
    return raw[:start] + b"".join(own[tag] for tag in sorted(own))


def hidden(tags: Iterable[int], secret: bytes, trick: tuple[str, bool, int]) -> bytes:
    """A file with a secret in many attributes."""
    vr, is_implicit, depth = trick
    elements = {tag: element(tag, vr or own_type(tag), secret, is_implicit=is_implicit) for tag in tags}
    return file_with(elements, is_implicit=is_implicit, depth=depth)
