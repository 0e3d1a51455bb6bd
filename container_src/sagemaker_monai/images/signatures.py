"""Recognises files by their bytes alone: DICOM, a media directory, an archive, raw values. Names and types can lie.

Nothing here imports a reader at the start: a server of photographs must not have to import pydicom (0.3 s) or nibabel.
"""

import re
import zlib

HEAD_BYTES = 352  # a NIfTI-1 header with its magic, and DICOM's preamble and prefix
NPY_MAGIC = b"\x93NUMPY"
GZIP_MAGIC = b"\x1f\x8b"
ZIP_MAGICS = (b"PK\x03\x04", b"PK\x05\x06")
_OTHER_ARCHIVES = (b"7z\xbc\xaf", b"Rar!", b"BZh", b"\xfd7zXZ", b"\x28\xb5\x2f\xfd")
_GZIP_PEEK_BYTES = 1 << 16  # more than any gzip header with its file name, and the first deflate block
# A file without preamble starts with an element of group 0002 or 0008, in either byte order.
_FIRST_GROUPS = (b"\x02\x00", b"\x08\x00", b"\x00\x02", b"\x00\x08")
# (0002,0002) MediaStorageSOPClassUID = Media Storage Directory Storage; group 0002 is Explicit VR Little Endian
# (PS3.10, 7.1), and PS3.4, B.5, has the UID.
_DIRECTORY = re.compile(rb"\x02\x00\x02\x00UI\x14\x00" + re.escape(b"1.2.840.10008.1.3.10"))
_MAX_META_BYTES = 2_048  # that element follows a length and a version, 26 bytes; the rest is a guess


def is_dicom_file(content: bytes) -> bool:
    """Whether to parse this as DICOM, with or without preamble."""
    if content[128:132] == b"DICM":
        return True
    if not content.startswith(_FIRST_GROUPS):
        return False
    from sagemaker_monai.images.dicom.headers import is_dicom

    return is_dicom(content[:HEAD_BYTES])


def is_dicomdir(content: bytes) -> bool:
    """Whether this is a DICOMDIR, which lists a medium's files and holds no picture."""
    return content[128:132] == b"DICM" and _DIRECTORY.search(content, 132, _MAX_META_BYTES) is not None


def is_nifti(head: bytes) -> bool:
    """Whether these are the first bytes of a NIfTI file, version 1 or 2.

    Source: nifti1.h (magic at byte 344), nifti2.h (magic at byte 4).
    """
    return head[344:348] in (b"n+1\0", b"ni1\0") or head[4:8] in (b"n+2\0", b"ni2\0")


def is_tar(head: bytes) -> bool:
    """Whether these are the first bytes of a POSIX or GNU tar archive; older ones have no mark."""
    return head[257:262] == b"ustar"


def gunzipped_head(content: bytes, size: int = HEAD_BYTES) -> bytes:
    """The first `size` bytes inside a gzip file; fewer if it is short or damaged."""
    head, unpacked = content[:_GZIP_PEEK_BYTES], b""
    while head.startswith(GZIP_MAGIC) and len(unpacked) < size:
        inflater = zlib.decompressobj(wbits=31)
        try:
            unpacked += inflater.decompress(head, size - len(unpacked))
        except zlib.error:
            break
        head = inflater.unused_data
    return unpacked


def is_archive(content: bytes) -> bool:
    """Whether this holds other files: zip, tar, 7z and the like, or gzip of anything but a NIfTI volume."""
    if content.startswith(GZIP_MAGIC):
        return not is_nifti(gunzipped_head(content))
    return content.startswith((*ZIP_MAGICS, *_OTHER_ARCHIVES)) or is_tar(content)
