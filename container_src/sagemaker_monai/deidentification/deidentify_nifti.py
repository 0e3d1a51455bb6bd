"""De-identification of NIfTI and Analyze files: the free texts of the header and the extensions go, voxels stay.

Converters write the patient's name, dates or a file's path into `descrip` and `aux_file`; Analyze 7.5 has a field for
the patient's ID; extensions hold whole DICOM headers or comments; gzip keeps the name of the file that was packed.
Faces that can be rendered from a head are not removed.
"""

import gzip
import struct
import zlib
from pathlib import Path
from typing import BinaryIO, cast

from sagemaker_monai.errors import PayloadTooLarge, UndecodableImage
from sagemaker_monai.files import replacing

MAX_EXTENSION_BYTES = 1 << 26  # between header and voxels; a converter's DICOM header takes some kB
MAX_FILE_BYTES = 1 << 34  # of the inflated file: 4e9 voxels of 32 bit
_CHUNK_BYTES = 1 << 20
# (offset, length) in bytes, from nifti1.h, nifti2.h and Mayo's dbh.h. `originator` of Analyze is kept: SPM stores the
# origin's voxel there.
_NIFTI1_TEXTS = ((4, 10), (14, 18), (148, 80), (228, 24), (328, 16))  # data_type, db_name, descrip, aux_file, intent
_NIFTI2_TEXTS = ((240, 80), (320, 24), (508, 16), (525, 15))  # descrip, aux_file, intent_name, unused_str
# data_type, db_name, descrip, aux_file, generated, scannum, patient_id, exp_date, exp_time, hist_un0
_ANALYZE_TEXTS = ((4, 10), (14, 18), (148, 80), (228, 24), (263, 10), (273, 10), (283, 10), (293, 10), (303, 10))


def deidentify_nifti_header(head: bytes) -> bytes:
    """Blank the texts of a header.

    Args:
        head: of NIfTI-1 and Analyze 348 bytes, of NIfTI-2 540 or more; further bytes are kept.

    Returns:
        As many bytes; geometry and data type are as before.

    Raises:
        UndecodableImage: none of these formats.
    """
    _, texts, _ = _kind_of(head)
    blank = bytearray(head)
    for offset, length in texts:
        blank[offset : offset + length] = bytes(length)
    return bytes(blank)


def _kind_of(head: bytes) -> tuple[int, tuple[tuple[int, int], ...], int]:
    """Size of the header, its texts, and where the voxels begin (0: in another file)."""
    for order in "<>":
        if len(head) < 348:
            break
        size = struct.unpack_from(order + "i", head)[0]
        if size == 540 and len(head) >= 540 and head[4:7] in (b"n+2", b"ni2"):
            start = (struct.unpack_from(order + "q", head, 168)[0] or 544) if head[4:7] == b"n+2" else 0
            return 540, _NIFTI2_TEXTS, start
        if size == 348 and head[344:348] in (b"n+1\0", b"ni1\0"):
            start = (struct.unpack_from(order + "f", head, 108)[0] or 352) if head[344:348] == b"n+1\0" else 0.0
            return 348, _NIFTI1_TEXTS, int(start) if 0 <= start < 2**31 else -1
        if size == 348:
            return 348, _ANALYZE_TEXTS, 0
    raise UndecodableImage("not a NIfTI or Analyze header; its first number must be 348 or 540")


def deidentify_nifti(source: Path, target: Path) -> None:
    """Copy a .nii, .nii.gz, .hdr or .img file without texts and extensions; the target is whole or not there.

    Extensions become zeros, so that the voxels stay where they are, bit for bit. An .img holds voxels only and is
    copied. A .gz is packed again, without a name and time in it.

    Raises:
        UndecodableImage: no such file, broken, or an extension block that the header contradicts.
        PayloadTooLarge: larger than the limits.
    """
    is_packed = source.suffix.lower() == ".gz"
    inner = source.with_suffix("").suffix.lower() if is_packed else source.suffix.lower()
    try:
        with (
            replacing(target) as part,
            part.open("wb") as raw,
            gzip.open(source) if is_packed else source.open("rb") as file,
        ):
            if is_packed:
                with gzip.GzipFile(filename="", mode="wb", compresslevel=6, fileobj=raw, mtime=0) as packed:
                    _copy(cast(BinaryIO, file), cast(BinaryIO, packed), has_header=inner != ".img")
            else:
                _copy(cast(BinaryIO, file), raw, has_header=inner != ".img")
    except (OSError, EOFError, zlib.error) as error:
        raise UndecodableImage(f"the NIfTI file is broken or cannot be read ({type(error).__name__})") from error


def _copy(file: BinaryIO, target: BinaryIO, *, has_header: bool) -> None:
    if has_header:
        head = file.read(540)
        size, _, start = _kind_of(head)
        clean = deidentify_nifti_header(head)[:size]
        target.write(clean)
        rest = head[size:]
        if start == 0:  # the voxels are in another file, and what follows here are extensions
            target.write(bytes(4))
            return
        if not size <= start <= MAX_EXTENSION_BYTES:
            raise UndecodableImage("the NIfTI header has the voxels begin at an impossible place")
        extension = rest + file.read(max(start - size - len(rest), 0))
        target.write(bytes(start - size))
        target.write(extension[start - size :])
    total = 0
    while chunk := file.read(_CHUNK_BYTES):
        total += len(chunk)
        if total > MAX_FILE_BYTES:
            raise PayloadTooLarge(f"the file inflates to more than {MAX_FILE_BYTES} bytes; send a smaller one")
        target.write(chunk)
