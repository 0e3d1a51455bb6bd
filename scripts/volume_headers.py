"""Texts in the headers of volumes: which files have none, so that they can go as they are."""

import gzip
import zlib
from pathlib import Path

from sagemaker_monai.errors import CallerError
from sagemaker_monai.prepare.deidentify_nifti import deidentify_nifti_header

MOST_HEADER_BYTES = 1 << 20
# Fields that are about the grid or the values. Any other field of NRRD or MetaImage, a comment or a pair KEY:=VALUE may
# be a text of whoever wrote it. Sources: NRRD 5 (Teem), MetaIO's documentation of MetaImage.
NRRD_FIELDS = frozenset(
    {
        *("dimension", "space", "space dimension", "type", "block size", "encoding", "endian", "min", "max", "old min"),
        *("old max", "data file", "line skip", "byte skip", "sizes", "spacings", "thicknesses", "axis mins"),
        *("axis maxs", "centers", "centerings", "labels", "units", "kinds", "space units", "space origin"),
        *("space directions", "measurement frame", "datafile", "lineskip", "byteskip"),
    }
)
META_FIELDS = frozenset(
    {
        *("objecttype", "ndims", "binarydata", "binarydatabyteordermsb", "elementbyteordermsb", "compresseddata"),
        *("compresseddatasize", "compressionlevel", "transformmatrix", "offset", "position", "origin", "rotation"),
        *("centerofrotation", "anatomicalorientation", "elementspacing", "elementsize", "dimsize", "elementtype"),
        *("elementnumberofchannels", "headersize", "modality", "elementmin", "elementmax", "elementdatafile"),
    }
)
NRRD_COMMENTS = (b"# complete nrrd file format", b"# http", b"#")  # which every writer puts there
_GZIP, _GZIP_NAME_OR_COMMENT = b"\x1f\x8b", 0x18


def is_clean_nifti(path: Path) -> bool:
    """Whether a NIfTI or Analyze file has no text, no extension and, packed, no name; False for one that is broken."""
    try:
        with path.open("rb") as raw:
            start = raw.read(10)
        is_packed = start.startswith(_GZIP)
        if is_packed and (start[3] & _GZIP_NAME_OR_COMMENT or start[4:8] != bytes(4)):
            return False
        with gzip.open(path) if is_packed else path.open("rb") as file:
            head = file.read(544)
        size = int.from_bytes(head[:4], "little" if head[0] in (0x5C, 0x1C) else "big")
        return deidentify_nifti_header(head) == head and not any(head[size : size + 4])
    except (OSError, EOFError, zlib.error, IndexError, CallerError):
        return False


def has_texts(path: Path) -> bool:
    """Whether the header of a NRRD or MetaImage file has a field that may be anybody's text."""
    with path.open("rb") as file:
        head = file.read(MOST_HEADER_BYTES)
    return _nrrd_has_texts(head) if head.startswith(b"NRRD") else _meta_has_texts(head)


def _nrrd_has_texts(head: bytes) -> bool:
    for line in head.replace(b"\r\n", b"\n").split(b"\n")[1:]:
        if not line.strip():
            return False
        if line.startswith(b"#"):
            if line.lower().startswith(NRRD_COMMENTS[:2]) or line.strip() == NRRD_COMMENTS[2]:
                continue
            return True
        name, colon, _ = line.partition(b":")
        if not colon or line.partition(b":=")[1] or name.strip().lower().decode("latin-1") not in NRRD_FIELDS:
            return True
    return False


def _meta_has_texts(head: bytes) -> bool:
    for line in head.split(b"\n"):
        name, equals, _ = line.partition(b"=")
        field = name.strip().lower().decode("latin-1")
        if not equals or field not in META_FIELDS:
            return True
        if field == "elementdatafile":  # the last; what follows are values
            return False
    return True
