"""What a file is by its bytes alone: DICOM, a media directory, an archive, raw values. Names and declared types lie.

Nothing here imports a reader: serving photographs must not cost the import of pydicom (0.3 s) or nibabel.
"""

import re
import zlib

HEAD_BYTES = 352  # a NIfTI-1 header with its magic, and DICOM's preamble and prefix
NPY_MAGIC = b"\x93NUMPY"
GZIP_MAGIC = b"\x1f\x8b"
ZIP_MAGICS = (b"PK\x03\x04", b"PK\x05\x06")
_OTHER_ARCHIVES = (b"7z\xbc\xaf", b"Rar!", b"BZh", b"\xfd7zXZ", b"\x28\xb5\x2f\xfd")
_GZIP_PEEK_BYTES = 1 << 16  # more than any gzip header with its file name, and the deflate block that begins the file
# A file without preamble begins with an element of group 0002 or 0008, in either byte order.
_FIRST_GROUPS = (b"\x02\x00", b"\x08\x00", b"\x00\x02", b"\x00\x08")
# (0002,0002) MediaStorageSOPClassUID = Media Storage Directory Storage; group 0002 is Explicit VR Little Endian
# (PS3.10, 7.1), and PS3.4, B.5, has the UID.
_DIRECTORY = re.compile(rb"\x02\x00\x02\x00UI\x14\x00" + re.escape(b"1.2.840.10008.1.3.10"))
_MAX_META_BYTES = 2_048  # before that element stand a length and a version, 26 bytes; more is a guess


def is_dicom_file(content: bytes) -> bool:
    """Whether this is worth parsing as DICOM, with or without preamble."""
    if content[128:132] == b"DICM":
        return True
    if not content.startswith(_FIRST_GROUPS):
        return False
    from sagemaker_monai.images.dicom.headers import is_dicom

    return is_dicom(content[:HEAD_BYTES])


def is_dicomdir(content: bytes) -> bool:
    """Whether this is a DICOMDIR, which lists the files of a medium and holds no picture."""
    return content[128:132] == b"DICM" and _DIRECTORY.search(content, 132, _MAX_META_BYTES) is not None


def is_nifti(head: bytes) -> bool:
    """Whether a file that begins so is NIfTI, version 1 or 2.

    Source: nifti1.h (magic at byte 344), nifti2.h (magic at byte 4).
    """
    return head[344:348] in (b"n+1\0", b"ni1\0") or head[4:8] in (b"n+2\0", b"ni2\0")


def is_tar(head: bytes) -> bool:
    """Whether a file that begins so is a tar archive of POSIX or GNU; the older kind has no mark."""
    return head[257:262] == b"ustar"


def gunzipped_head(content: bytes) -> bytes:
    """The first bytes of what a gzip file holds, at most HEAD_BYTES; none where it is damaged."""
    try:
        return zlib.decompressobj(wbits=31).decompress(content[:_GZIP_PEEK_BYTES], HEAD_BYTES)
    except zlib.error:
        return b""


def is_archive(content: bytes) -> bool:
    """Whether this holds other files: zip, tar, 7z and the like, or gzip of anything but a NIfTI volume."""
    if content.startswith(GZIP_MAGIC):
        return not is_nifti(gunzipped_head(content))
    return content.startswith((*ZIP_MAGICS, *_OTHER_ARCHIVES)) or is_tar(content)
