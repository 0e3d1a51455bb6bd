"""Volume files other than DICOM: which formats are read and how they are recognised.

The content decides; the name counts only for files without a mark (an .img). Readers that need nibabel, which takes
0.3 s to import, are imported on use.
"""

import struct
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from sagemaker_monai.errors import UndecodableImage
from sagemaker_monai.images.formats.arrays import read_npy_volume, read_npz_volume
from sagemaker_monai.images.formats.inflate import opened
from sagemaker_monai.images.formats.metaimage import read_metaimage
from sagemaker_monai.images.formats.nrrd import read_nrrd
from sagemaker_monai.images.formats.pairs import header_of
from sagemaker_monai.images.formats.voxels import NonFinite
from sagemaker_monai.images.signatures import GZIP_MAGIC, NPY_MAGIC, gunzipped_head, is_nifti
from sagemaker_monai.images.volumes import Volume

HEAD_BYTES = 4_096  # needed to recognise a format: a gzipped header, or the first keys of a text
_MARKED_BYTES = 540  # of a NIfTI-2 header, the longest that is unpacked for recognition

Reader = Callable[[Path | bytes, NonFinite], Volume]


def _read_nifti(source: Path | bytes, non_finite: NonFinite) -> Volume:
    from sagemaker_monai.images.formats.nifti import read_nifti

    return read_nifti(source, non_finite)


def _read_analyze(source: Path | bytes, non_finite: NonFinite) -> Volume:
    from sagemaker_monai.images.formats.analyze import read_analyze

    return read_analyze(source, non_finite)


@dataclass(frozen=True)
class VolumeFormat:
    """A format: the suffixes of its files, in lower case with a dot, and its reader."""

    suffixes: tuple[str, ...]
    read: Reader


VOLUME_FORMATS = {
    "NIFTI": VolumeFormat((".nii", ".nii.gz", ".hdr", ".img", ".hdr.gz", ".img.gz"), _read_nifti),
    "ANALYZE": VolumeFormat((".hdr", ".img"), _read_analyze),
    "NRRD": VolumeFormat((".nrrd", ".nhdr"), read_nrrd),
    "METAIMAGE": VolumeFormat((".mha", ".mhd"), read_metaimage),
    "NPY": VolumeFormat((".npy",), read_npy_volume),
    "NPZ": VolumeFormat((".npz",), read_npz_volume),
}

_META_KEYS = (b"ObjectType", b"NDims", b"Comment", b"ObjectSubType", b"ID", b"Name", b"BinaryData", b"DimSize")


def _is_analyze(head: bytes) -> bool:
    return any(
        head[:4] == struct.pack(f"{order}i", 348)
        and len(head) >= 42
        and 1 <= struct.unpack_from(f"{order}h", head, 40)[0] <= 7
        for order in "<>"
    )


def _is_metaimage(head: bytes) -> bool:
    name, equals, _ = head.partition(b"\n")[0].partition(b"=")
    return bool(equals) and name.strip() in _META_KEYS and (b"NDims" in head or b"DimSize" in head)


def _is_npz(head: bytes) -> bool:
    if not head.startswith(b"PK\x03\x04") or len(head) < 30:
        return False
    name_bytes = int.from_bytes(head[26:28], "little")
    return head[30 : 30 + name_bytes].endswith(b".npy")


_MARKS: dict[str, Callable[[bytes], bool]] = {
    "NIFTI": is_nifti,
    "ANALYZE": _is_analyze,
    "NRRD": lambda head: head.startswith(b"NRRD000"),
    "METAIMAGE": _is_metaimage,
    "NPY": lambda head: head.startswith(NPY_MAGIC),
    "NPZ": _is_npz,
}


def volume_format_of(head: bytes, name: str) -> str | None:
    """Recognise a format by content, then by name.

    Args:
        head: the file's first HEAD_BYTES bytes, or all of a shorter file.
        name: the file's name, "" if there is none.

    Returns:
        A name of VOLUME_FORMATS; None for anything else.
    """
    head = head[:HEAD_BYTES]
    if head.startswith(GZIP_MAGIC):
        inflated = gunzipped_head(head, _MARKED_BYTES)
        # Of files that are gzipped as a whole, only these are read; a gzipped .npy, for example, is not.
        marks = [mark for mark in ("NIFTI", "ANALYZE") if _MARKS[mark](inflated)]
        return marks[0] if marks else _format_by_name(name)
    return next((mark for mark, is_so in _MARKS.items() if is_so(head)), None) or _format_by_name(name)


def _format_by_name(name: str) -> str | None:
    lower = name.lower()
    return next((known for known, row in VOLUME_FORMATS.items() if lower.endswith(row.suffixes)), None)


def read_volume_file(source: Path | bytes, formats: tuple[str, ...] = (), non_finite: NonFinite = "refuse") -> Volume:
    """Read one volume of any format.

    Args:
        source: a file, or its bytes: either file of a pair, or the header that names a data file.
        formats: the allowed names of VOLUME_FORMATS; empty allows all, other names are ignored.
        non_finite: "refuse" values that are NaN, infinite or beyond float32, or read them as "zero".

    Returns:
        float32 (C, W, H, D); D = 1 for a 2-D image. Memory has the file's order, so it is seldom contiguous.

    Raises:
        UndecodableImage: broken, or not a volume of an allowed format.
        UnsuitableImage: sound, but not a single image of numbers.
        PayloadTooLarge: more than the limits.
    """
    allowed = [name for name in VOLUME_FORMATS if not formats or name in formats]
    found = _found(source)
    if found is None or found[0] not in allowed:
        raise UndecodableImage(f"not a volume of the expected type ({', '.join(allowed)})")
    name, source = found
    volume = VOLUME_FORMATS[name].read(source, non_finite)
    return replace(volume, findings=tuple(each.code for each in volume.remarks)) if volume.remarks else volume


def _found(source: Path | bytes) -> tuple[str, Path | bytes] | None:
    """The format, and the file to start with: the header of a pair."""
    name = "" if isinstance(source, bytes) else source.name
    with opened(source) as (file, _):
        head = file.read(HEAD_BYTES)
    found = volume_format_of(head, "")
    if found is None and isinstance(source, Path) and (header := header_of(source)) != source:
        return _found(header)
    found = found or volume_format_of(head, name)
    return None if found is None else (found, source)
