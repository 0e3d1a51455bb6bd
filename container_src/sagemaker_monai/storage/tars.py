"""Tar files: read once, from front to back, and refused when a member is odd; written the same way every time.

As with zip files (`zips`), nothing is written by a name that an archive chose, and nothing but plain files comes
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
from typing import Protocol, Self

from sagemaker_monai.storage.file_names import is_litter_path, leads_out, parts_of
from sagemaker_monai.storage.zips import ArchiveTooLargeError, UnsafeArchiveError

CHUNK_BYTES = 1 << 20  # also the most that a header may claim for itself
MAX_HEADER_BYTES = 4 << 20  # of long names and pax records, all together: such a record of 5 bytes takes 2 us
MAX_CHAINED = 8  # headers of one member; usual are a pax header, and a long name and a long link beside it
BLOCK_BYTES = tarfile.BLOCKSIZE
FILE_MODE = 0o644

# What tarfile and gzip raise on bytes that are not a sound archive.
DAMAGE = (tarfile.TarError, gzip.BadGzipFile, zlib.error, EOFError, ValueError, OverflowError, RecursionError)


class Stream(Protocol):
    """What an archive is read from: an open binary file, or anything that reads like one."""

    def read(self, size: int, /) -> bytes:
        """Up to `size` bytes; none at the end."""


class _Member(tarfile.TarInfo):
    """A member whose headers are few: tarfile reads each one within the one before, however many there are."""

    @classmethod
    def fromtarfile(cls, archive: tarfile.TarFile) -> Self:
        """Read one header, and within it those that follow up to the member's own."""
        depth = getattr(archive, "chained", 0)
        if depth > MAX_CHAINED:
            raise UnsafeArchiveError(f"the archive has a member of more than {MAX_CHAINED} headers; pack it again")
        archive.chained = depth + 1  # type: ignore[attr-defined]
        try:
            return super().fromtarfile(archive)
        finally:
            archive.chained = depth  # type: ignore[attr-defined]

    def _refuse_sparse(self, *_: object) -> None:
        # Its map of holes may have any length; such members are refused anyway.
        raise UnsafeArchiveError("the archive has a sparse file; pack it again without")

    _proc_sparse = _proc_gnusparse_00 = _proc_gnusparse_01 = _proc_gnusparse_10 = _refuse_sparse


class _Forward(io.RawIOBase):
    """A stream for tarfile: only ever read on, and never much at once, whatever a header claims."""

    def __init__(self, stream: Stream) -> None:
        self._stream = stream
        self._position = 0
        self._left_bytes = MAX_HEADER_BYTES
        self.is_at_header = True  # while tarfile looks for the next member

    def read(self, size: int = -1) -> bytes:
        """Read as the stream does, all that was asked for unless the stream ends."""
        if not 0 <= size <= CHUNK_BYTES:
            raise ArchiveTooLargeError(f"a header of the archive is larger than {CHUNK_BYTES >> 20} MiB")
        if self.is_at_header and size != BLOCK_BYTES:
            self._left_bytes -= size
            if self._left_bytes < 0:
                raise ArchiveTooLargeError(f"the archive has more than {MAX_HEADER_BYTES >> 20} MiB of headers")
        content = self._stream.read(size)
        while len(content) < size and (more := self._stream.read(size - len(content))):
            content += more
        self._position += len(content)
        return content

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Go on to a later place."""
        if whence != io.SEEK_SET or offset < self._position:
            raise ValueError("a tar file is read forward only")
        was_at_header, self.is_at_header = self.is_at_header, False
        while self._position < offset and self.read(min(CHUNK_BYTES, offset - self._position)):
            pass
        self.is_at_header = was_at_header
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
        forward = _Forward(stream)
        archive = tarfile.open(fileobj=forward, mode="r:", tarinfo=_Member)  # noqa: SIM115 - a context closes the stream
    seen: set[str] = set()
    count, left_bytes = 0, max_bytes
    while True:
        forward.is_at_header = True
        with _damage_named():
            member = archive.next()
        forward.is_at_header = False
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
