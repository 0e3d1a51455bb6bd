"""Tar files: read once from front to back, refused if a member is suspicious, and written reproducibly.

As with zip files (`zips`), no archive chooses where anything is written, and only plain files come out: callers get
names that stay inside a folder, and bytes. Streams need not be seekable, so compressed files and S3 objects are read on
the fly.
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

CHUNK_BYTES = 1 << 20  # also the largest header
MAX_HEADER_BYTES = 4 << 20  # of all long names and pax records together: a record of 5 bytes takes 2 us
MAX_CHAINED = 8  # headers of one member; usual are a pax header, a long name and a long link
BLOCK_BYTES = tarfile.BLOCKSIZE
FILE_MODE = 0o644

# What tarfile and gzip raise on bytes that are not a sound archive.
DAMAGE = (tarfile.TarError, gzip.BadGzipFile, zlib.error, EOFError, ValueError, OverflowError, RecursionError)


class Stream(Protocol):
    """An open binary file, or anything that reads like one."""

    def read(self, size: int, /) -> bytes:
        """Read up to `size` bytes; none at the end."""


class _Member(tarfile.TarInfo):
    """A member with a limited number of headers; tarfile itself recurses once for each, without a limit."""

    @classmethod
    def fromtarfile(cls, archive: tarfile.TarFile) -> Self:
        """Read one header and, recursively, those that follow up to the member's own."""
        depth = getattr(archive, "chained", 0)
        if depth > MAX_CHAINED:
            raise UnsafeArchiveError(f"the archive has a member of more than {MAX_CHAINED} headers; pack it again")
        archive.chained = depth + 1  # type: ignore[attr-defined]
        try:
            return super().fromtarfile(archive)
        finally:
            archive.chained = depth  # type: ignore[attr-defined]

    def _refuse_sparse(self, *_: object) -> None:
        # The map of holes may have any length, and such members are refused anyway.
        raise UnsafeArchiveError("the archive has a sparse file; pack it again without")

    _proc_sparse = _proc_gnusparse_00 = _proc_gnusparse_01 = _proc_gnusparse_10 = _refuse_sparse


class _Forward(io.RawIOBase):
    """A stream for tarfile: read forward only, in bounded pieces, whatever a header claims."""

    def __init__(self, stream: Stream) -> None:
        self._stream = stream
        self._position = 0
        self._left_bytes = MAX_HEADER_BYTES
        self.is_at_header = True  # while tarfile looks for the next member

    def read(self, size: int = -1) -> bytes:
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
        if whence != io.SEEK_SET or offset < self._position:
            raise ValueError("a tar file is read forward only")
        was_at_header, self.is_at_header = self.is_at_header, False
        while self._position < offset and self.read(min(CHUNK_BYTES, offset - self._position)):
            pass
        self.is_at_header = was_at_header
        return self._position

    def tell(self) -> int:
        return self._position


@contextmanager
def _damage_named() -> Iterator[None]:
    try:
        yield
    except DAMAGE as error:
        raise UnsafeArchiveError("the archive is damaged or not a tar file; pack it again") from error


def read_tar(stream: Stream, *, max_files: int, max_bytes: int) -> Iterator[tuple[str, Iterator[bytes]]]:
    """Yield the name and content of each file of a tar archive, in the archive's order.

    Args:
        stream: read from its position to the end of the archive.
        max_files: the most files and folders.
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
        # Tar has no backslashes between folders, so one is part of a name; even so, it must not lead out.
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
    """A file's header: POSIX pax, without owner and time, so that it depends only on name and size."""
    info = tarfile.TarInfo(name)
    info.size, info.mode = size_bytes, FILE_MODE
    return info.tobuf(tarfile.PAX_FORMAT, "utf-8", "surrogateescape")


def padding(size_bytes: int) -> bytes:
    """The padding after a file's content."""
    return bytes(-size_bytes % BLOCK_BYTES)


def archive_end(size_bytes: int) -> bytes:
    """The end of an archive of this many bytes: two empty blocks, and padding to a whole record."""
    return bytes(2 * BLOCK_BYTES + -(size_bytes + 2 * BLOCK_BYTES) % tarfile.RECORDSIZE)
