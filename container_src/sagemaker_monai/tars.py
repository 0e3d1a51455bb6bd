"""Tar files: read once, from front to back, and refused when a member is odd; written the same way every time.

As with zip files (`archives`), nothing is written by a name that an archive chose, and nothing but plain files comes
out: callers get names that stay inside a folder, and bytes. A stream need not be seekable, so that a compressed file or
an object in S3 is read as it comes.
"""

import gzip
import io
import tarfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import PurePosixPath
from typing import Protocol

from sagemaker_monai.archives import ArchiveTooLargeError, UnsafeArchiveError
from sagemaker_monai.names import is_litter_path, leads_out, parts_of

CHUNK_BYTES = 1 << 20  # also the most that a header may claim for itself
BLOCK_BYTES = tarfile.BLOCKSIZE
FILE_MODE = 0o644

# What tarfile and gzip raise on bytes that are not a sound archive.
DAMAGE = (tarfile.TarError, gzip.BadGzipFile, zlib.error, EOFError, ValueError, OverflowError)


class Stream(Protocol):
    """What an archive is read from: an open binary file, or anything that reads like one."""

    def read(self, size: int, /) -> bytes:
        """Up to `size` bytes; none at the end."""


class _Forward(io.RawIOBase):
    """A stream for tarfile: only ever read on, and never much at once, whatever a header claims."""

    def __init__(self, stream: Stream) -> None:
        self._stream = stream
        self._position = 0

    def read(self, size: int = -1) -> bytes:
        """Read as the stream does, all that was asked for unless the stream ends."""
        if not 0 <= size <= CHUNK_BYTES:
            raise ArchiveTooLargeError(f"a header of the archive is larger than {CHUNK_BYTES >> 20} MiB")
        content = self._stream.read(size)
        while len(content) < size and (more := self._stream.read(size - len(content))):
            content += more
        self._position += len(content)
        return content

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Go on to a later place."""
        if whence != io.SEEK_SET or offset < self._position:
            raise ValueError("a tar file is read forward only")
        while self._position < offset and self.read(min(CHUNK_BYTES, offset - self._position)):
            pass
        return self._position

    def tell(self) -> int:
        """How far the stream was read."""
        return self._position


@contextmanager
def _damage_named() -> Iterator[None]:
    try:
        yield
    except DAMAGE as error:
        raise UnsafeArchiveError("the archive is damaged or not a tar file; pack it again") from error


def read_tar(stream: Stream, *, max_files: int, max_bytes: int) -> Iterator[tuple[str, Iterator[bytes]]]:
    """Yield the name and the content of each file of a tar archive, in the archive's order.

    Args:
        stream: read from where it is to the end of the archive.
        max_files: files and folders that it may have.
        max_bytes: that all its files together may have.

    Returns:
        Names relative to the archive's root, with slashes and without `.` and `..`; and chunks of the content, to be
        used before the next file. Folders are left out.

    Raises:
        UnsafeArchiveError: damaged, or a member would leave the folder, comes twice, or is a link, a device, a sparse
            file or anything else but a file or a folder.
        ArchiveTooLargeError: a limit is passed.
    """
    with _damage_named():
        archive = tarfile.open(fileobj=_Forward(stream), mode="r:")  # noqa: SIM115 - a context would close the stream
    seen: set[str] = set()
    count, left_bytes = 0, max_bytes
    while True:
        with _damage_named():
            member = archive.next()
        if member is None:
            return
        count += 1
        if count > max_files:
            raise ArchiveTooLargeError(f"the archive has more than {max_files} members")
        name = _checked_name(member, count)
        if member.isdir():
            continue
        if name in seen:
            raise UnsafeArchiveError("the archive has the same member name twice", member.name)
        seen.add(name)
        if member.size > left_bytes:
            raise ArchiveTooLargeError(f"the archive unpacks to more than {max_bytes} bytes", member.name)
        left_bytes -= member.size
        yield name, _content(archive, member)


def _checked_name(member: tarfile.TarInfo, position: int) -> str:
    path = PurePosixPath(member.name)
    is_file = member.type in (tarfile.REGTYPE, tarfile.AREGTYPE) and member.sparse is None
    faults = {
        # A backslash is a letter of a name here: tar has none between folders. It must not lead out all the same.
        "would be written outside the folder": leads_out(member.name) or leads_out(member.name.replace("\\", "/")),
        "has no usable name": not (parts_of(member.name) or member.isdir() or is_litter_path(member.name)),
        "is a link, a device or a sparse file": not (is_file or member.isdir()),
        "has no possible size": member.size < 0,
    }
    for fault, is_so in faults.items():
        if is_so:
            raise UnsafeArchiveError(f"member {position} of the archive {fault}", member.name)
    return str(path)


def _content(archive: tarfile.TarFile, member: tarfile.TarInfo) -> Iterator[bytes]:
    with _damage_named():
        file = archive.extractfile(member)
    assert file is not None
    left = member.size
    while left:
        with _damage_named():
            chunk = file.read(min(CHUNK_BYTES, left))
        if not chunk:
            raise UnsafeArchiveError("the archive ends in the middle of a file; pack it again", member.name)
        left -= len(chunk)
        yield chunk


def member_header(name: str, size_bytes: int) -> bytes:
    """What stands before a file's content: POSIX pax, of nobody and no time, so that it depends on these two only."""
    info = tarfile.TarInfo(name)
    info.size, info.mode = size_bytes, FILE_MODE
    return info.tobuf(tarfile.PAX_FORMAT, "utf-8", "surrogateescape")


def padding(size_bytes: int) -> bytes:
    """What stands behind a file's content."""
    return bytes(-size_bytes % BLOCK_BYTES)


def archive_end(size_bytes: int) -> bytes:
    """What ends an archive that has this many bytes: two empty blocks, and more up to a whole record."""
    return bytes(2 * BLOCK_BYTES + -(size_bytes + 2 * BLOCK_BYTES) % tarfile.RECORDSIZE)
