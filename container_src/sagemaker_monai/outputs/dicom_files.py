"""What answers as DICOM files share: who they are by, private codes, UIDs, and one body for several of them.

A label has a private code of the scheme `SCHEME`, made from its name alone, so that it is the same in every answer.

UIDs are made from the images, the model's version and the answer (2.25 and a hash, PS3.5, B.2): the same question gives
the same file, which an archive then keeps once.
"""

import hashlib
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any

from sagemaker_monai.storage.file_names import is_fit
from sagemaker_monai.tasks.label_codes import Code, LabelCodes

if TYPE_CHECKING:
    from highdicom.sr import CodedConcept
    from pydicom import Dataset

DICOM_TYPE = "application/dicom"
SCHEME = "99SMMONAI"  # PS3.3, 8.2: private coding schemes begin with 99
MANUFACTURER = "sagemaker-monai"
SERIES_DESCRIPTION = "AI findings, not verified"
SERIES_NUMBER = 9_900  # above those of scanners (a guess)
MAX_LO_CHARS = 64
_MAX_ST_CHARS = 1024
_DIGEST_CHARS = 8
# highdicom copies a patient's attributes only from images of SOP classes of the current standard.
SECONDARY_CAPTURE = "1.2.840.10008.5.1.4.1.1.7"


@dataclass(frozen=True)
class Provenance:
    """The model that an answer is by.

    Attributes:
        name: of the algorithm, such as the network's.
        version: `model_version`, the digest of the artifact.
        parameters: further lines for the answer.
        codes: of its labels; a label without has a private one.
    """

    name: str
    version: str
    parameters: tuple[str, ...] = ()
    codes: Mapping[str, LabelCodes] = field(default_factory=dict)


def private_code(code: str, meaning: str) -> "CodedConcept":
    """A code of the scheme `SCHEME`."""
    from highdicom.sr import CodedConcept

    return CodedConcept(value=code, scheme_designator=SCHEME, meaning=long_text(meaning))


def code_of(label: str) -> "CodedConcept":
    """The code of a label."""
    return private_code(digest_of(SCHEME, label), label)


def concept_of(code: Code) -> "CodedConcept":
    """A code of an artifact."""
    from highdicom.sr import CodedConcept

    return CodedConcept(value=code.value, scheme_designator=code.scheme, meaning=code.meaning)


def category_of(label: str, codes: Mapping[str, LabelCodes]) -> "CodedConcept":
    """The category of a structure; Tissue for one without codes, which organs and lesions have in common."""
    from highdicom.sr import CodedConcept

    known = codes.get(label)
    return CodedConcept("85756007", "SCT", "Tissue") if known is None else concept_of(known.category)


def type_of(label: str, codes: Mapping[str, LabelCodes]) -> "CodedConcept":
    """What a structure is, with its modifiers such as Left; the private code of a label without codes."""
    known = codes.get(label)
    if known is None:
        return code_of(label)
    found = concept_of(known.type)
    if known.modifiers:
        found.SegmentedPropertyTypeModifierCodeSequence = [concept_of(each) for each in known.modifiers]
    return found


def long_text(text: str) -> str:
    """A text as VR LO may have it: without control characters and backslashes, cut, and never empty."""
    return _fit(text)[:MAX_LO_CHARS].rstrip() or "unnamed"


def _fit(text: str) -> str:
    return "".join(character if is_fit(character) and character != "\\" else " " for character in text).strip()


def names_of(labels: Sequence[str]) -> tuple[str, ...]:
    """The names of labels as VR LO may have them, all different.

    A label that is too long, or reads like another without the characters that LO does not allow, ends with a digest of
    its own: it has the same name in every answer.
    """
    fit = [long_text(label) for label in labels]
    is_whole = [
        len(_fit(label)) <= MAX_LO_CHARS and fit.count(name) == 1 for label, name in zip(labels, fit, strict=True)
    ]
    return tuple(
        name
        if whole
        else f"{name[: MAX_LO_CHARS - _DIGEST_CHARS - 2].rstrip()} #{digest_of(SCHEME, label)[:_DIGEST_CHARS]}"
        for label, name, whole in zip(labels, fit, is_whole, strict=True)
    )


def short_text(text: str) -> str:
    """A text as VR ST may have it: one line, cut."""
    return _fit(text)[:_MAX_ST_CHARS].rstrip()


def digest_of(*texts: str) -> str:
    """12 hexadecimal digits, so that a code with its prefix stays within the 16 characters of SH."""
    return hashlib.sha256("\0".join(texts).encode()).hexdigest()[:12].upper()


def derived_uid(*texts: str) -> str:
    """A UID that depends only on the texts: 2.25. and a UUID of version 8 (RFC 9562) as a number (PS3.5, B.2)."""
    number = int.from_bytes(hashlib.sha256("\0".join((SCHEME, *texts)).encode("utf-8", "surrogatepass")).digest()[:16])
    number = number & ~(0xF << 76) | 8 << 76
    number = number & ~(0x3 << 62) | 2 << 62
    return f"2.25.{number}"


def coding_scheme() -> Any:
    """The item that says what `SCHEME` is."""
    from highdicom.coding_schemes import CodingSchemeIdentificationItem

    return CodingSchemeIdentificationItem(SCHEME, name="sagemaker-monai", responsible_organization=MANUFACTURER)


def to_bytes(document: "Dataset", now: datetime) -> bytes:
    """The file of an answer.

    Args:
        document: complete; of highdicom, which takes times from the clock.
        now: the time that it gets instead.
    """
    from pydicom.valuerep import DA, DT, TM

    document.InstanceCreationDate, document.InstanceCreationTime = DA(now.date()), TM(now.time())
    if "ContentDate" in document:
        document.ContentDate, document.ContentTime = document.InstanceCreationDate, document.InstanceCreationTime
    if "ContributingEquipmentSequence" in document:
        document.ContributingEquipmentSequence[-1].ContributionDateTime = DT(now)
    buffer = io.BytesIO()
    document.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()


def encode_multipart(files: Sequence[bytes]) -> tuple[bytes, str]:
    """One body with several files, as DICOMweb sends them, and its content type.

    Source: DICOM PS3.18, 8.7.3.2.
    """
    digest = hashlib.sha256()
    for file in files:
        digest.update(file)
    boundary = digest.hexdigest()  # no file can contain the digest of itself and the others
    parts = (b"--%s\r\nContent-Type: %s\r\n\r\n%s\r\n" % (boundary.encode(), DICOM_TYPE.encode(), x) for x in files)
    body = b"".join((*parts, b"--%s--\r\n" % boundary.encode()))
    return body, f'multipart/related; type="{DICOM_TYPE}"; boundary={boundary}'
