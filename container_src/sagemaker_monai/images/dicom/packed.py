"""Archives of DICOM files, recognised by their first bytes: zip, tar, and either a tar or a single file in gzip.

Only one level: an archive within an archive counts as a file that is not DICOM.
"""

import gzip
import zlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import BinaryIO

from sagemaker_monai.storage.tars import Stream, read_tar
from sagemaker_monai.storage.zips import ArchiveLimits, ArchiveTooLargeError, UnsafeArchiveError, read_members

HEAD_BYTES = 512  # a tar file says what it is at 257
DEFLATE_RATIO = 1032  # deflate's maximum; blank slices reach it, so only the limits on bytes matter
CHUNK_BYTES = 1 << 20


@dataclass(frozen=True)
class MediaLimits:
    """How much is read.

    Attributes:
        files: in a folder or an archive.
        archive_bytes: unpacked size of one archive or compressed file; its DICOM files are kept in memory.
    """

    files: int = 1 << 20
    archive_bytes: int = 1 << 32


Unpacker = Callable[[BinaryIO, MediaLimits], Iterable[tuple[str, bytes]]]


def unpacker_of(head: bytes) -> Unpacker | None:
    """The unpacker for a file with these first HEAD_BYTES; None if it is not an archive."""
    if head.startswith((b"PK\x03\x04", b"PK\x05\x06")):
        return _unzip
    if head.startswith(b"\x1f\x8b"):
        return _gunzip
    return _untar if head[257:262] == b"ustar" else None


def _unzip(file: BinaryIO, limits: MediaLimits) -> Iterator[tuple[str, bytes]]:
    size = limits.archive_bytes
    return read_members(file, limits=ArchiveLimits(limits.files, size, size, DEFLATE_RATIO))


def _untar(file: Stream, limits: MediaLimits) -> Iterator[tuple[str, bytes]]:
    for name, chunks in read_tar(file, max_files=limits.files, max_bytes=limits.archive_bytes):
        yield name, b"".join(chunks)


def _gunzip(file: BinaryIO, limits: MediaLimits) -> Iterator[tuple[str, bytes]]:
    """A tar file in gzip, or one DICOM file in gzip."""
    try:
        with gzip.GzipFile(fileobj=file) as unpacked:
            head = unpacked.read(HEAD_BYTES)
            unpacked.seek(0)
            if head[257:262] == b"ustar":
                yield from _untar(unpacked, limits)
                return
            chunks, left = [], limits.archive_bytes
            while chunk := unpacked.read(CHUNK_BYTES):
                left -= len(chunk)
                if left < 0:
                    raise ArchiveTooLargeError(f"the file inflates to more than {limits.archive_bytes} bytes")
                chunks.append(chunk)
    except (gzip.BadGzipFile, zlib.error, EOFError) as error:
        raise UnsafeArchiveError("the file is damaged or not gzip; pack it again") from error
    yield "1", b"".join(chunks)
