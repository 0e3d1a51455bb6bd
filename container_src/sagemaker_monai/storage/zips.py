"""Zip files from strangers: read member by member, and refused when a member is odd or inflates too far.

Nothing is ever written by a name that an archive chose: callers get names and bytes. Limits are counted on the bytes
that come out, for the sizes in an archive's directory are only claims. What a member contains (a picture, an archive
inside the archive) is the caller's question.

Names are read as programs write them. Windows puts `\\` between folders. Where an archive does not say that a name is
UTF-8 and its bytes are, as macOS and Linux leave them, it is taken so: text in an old code page is next to never UTF-8
by chance. Any other name is read in code page 437, as the format says: of which page it really was, nothing in the
archive tells. So some letters may be wrong, but two names stay two names, and nothing is found or refused by them.
Source: PKWARE APPNOTE 4.4.17.1 (slashes), appendix D (437, UTF-8), 4.6.9 (Unicode path).
"""

import io
import stat
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from sagemaker_monai.budget import spend_bytes, spend_work
from sagemaker_monai.storage.file_names import is_litter_path, leads_out, parts_of

CHUNK_BYTES = 1 << 16
NS_A_BYTE, NS_AN_ENTRY = 5, 100_000  # to inflate a byte; to look at an entry of the directory and to open its member
RATIO_FLOOR_BYTES = 1 << 20  # small members may shrink as far as they like: a blank page does
BYTES_PER_DIRECTORY_ENTRY = 512  # 46 of header, the rest for name, extra fields and comment
SMALLEST_DIRECTORY_LIMIT = 1 << 17  # above CHUNK_BYTES, and above the 64 KiB in which zipfile looks for the directory
_UTF8_FLAG = 0x800
_UNICODE_PATH = 0x7075  # extra field: version 1, CRC-32 of the name in the directory, the name in UTF-8

# What zipfile raises on bytes that are not a sound archive; a version or method that it lacks is a RuntimeError too.
DAMAGE = (
    zipfile.BadZipFile,
    zlib.error,
    struct.error,
    EOFError,
    OSError,
    OverflowError,
    RuntimeError,
    ValueError,
)


class UnsafeArchiveError(Exception):
    """The archive is damaged or has a member that nobody packs by accident.

    Attributes:
        reason: one clause with the cause and, where there is one, the remedy; names no member by its name.
        member: the member's name as the archive writes it, where one is at fault. Untrusted text.
    """

    def __init__(self, reason: str, member: str | None = None) -> None:
        super().__init__(reason)
        self.reason = reason
        self.member = member


class ArchiveTooLargeError(UnsafeArchiveError):
    """The archive has more members or more bytes than the limits allow."""


@dataclass(frozen=True)
class ArchiveLimits:
    """How far an archive may inflate.

    Attributes:
        members: files in the archive, folders and operating-system litter not counted.
        member_bytes: inflated bytes of one member.
        total_bytes: inflated bytes of all members together.
        ratio: inflated to packed bytes of a member above 1 MiB; deflate reaches 1,032 at most.
    """

    members: int
    member_bytes: int
    total_bytes: int
    ratio: float


class _BoundedReads(io.RawIOBase):
    """A file that refuses one huge read: zipfile reads a whole directory, of the size the archive claims, at once."""

    def __init__(self, file: BinaryIO, limit_bytes: int) -> None:
        self._file = file
        self._limit_bytes = limit_bytes

    def read(self, size: int = -1) -> bytes:
        """Read as the file does."""
        if size > self._limit_bytes:
            raise ArchiveTooLargeError("the archive's directory is larger than its limit of members allows")
        return self._file.read(size)

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Seek as the file does."""
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        """Tell as the file does."""
        return self._file.tell()

    def seekable(self) -> bool:
        """Always: zip directories are at the end."""
        return True

    def readable(self) -> bool:
        """Always."""
        return True


@contextmanager
def _damage_named() -> Iterator[None]:
    try:
        yield
    except DAMAGE as error:
        raise UnsafeArchiveError("the archive is damaged or not a zip file; pack it again") from error


def _name_of(info: zipfile.ZipInfo) -> str:
    """The name of a member, with slashes. `orig_filename` is the one before zipfile tidied it."""
    name = info.orig_filename
    if not info.flag_bits & _UTF8_FLAG:
        raw = name.encode("cp437")
        name = _decoded(_unicode_path(info.extra, raw) or raw) or name
    return name.replace("\\", "/")


def _decoded(raw: bytes) -> str | None:
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError:
        return None


def _unicode_path(extra: bytes, raw: bytes) -> bytes | None:
    """The name that a program wrote in UTF-8 beside the one in its code page, if it is about that one."""
    while len(extra) >= 4:
        tag, size = struct.unpack_from("<HH", extra)
        field, extra = extra[4 : 4 + size], extra[4 + size :]
        if tag == _UNICODE_PATH and field[:5] == b"\x01" + struct.pack("<I", zlib.crc32(raw)):
            return field[5:]
    return None


def _check_member(info: zipfile.ZipInfo, name: str, position: int) -> None:
    """Refuse what a picture collection never has."""
    kind = stat.S_IFMT(info.external_attr >> 16)
    faults = {
        "would be written outside the folder": leads_out(name),
        "has no usable name": not (parts_of(name) or is_litter_path(name)),
        "is a folder with a content": name.endswith("/") and info.file_size > 0,
        "is a link or a device": kind not in (0, stat.S_IFREG, stat.S_IFDIR),
        "is encrypted": bool(info.flag_bits & 0x41),  # bit 0: encrypted, bit 6: strongly
        "is packed with an unusual method; use plain zip": info.compress_type
        not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED),
    }
    for fault, is_so in faults.items():
        if is_so:
            raise UnsafeArchiveError(f"member {position} of the archive {fault}", info.orig_filename)


def _inflate(
    archive: zipfile.ZipFile, info: zipfile.ZipInfo, budget_bytes: int, limits: ArchiveLimits
) -> Iterator[bytes]:
    """Yield a member's bytes in chunks, counted while they come."""
    allowed = min(budget_bytes, limits.member_bytes)
    by_ratio = max(RATIO_FLOOR_BYTES, int(info.compress_size * limits.ratio))
    count = 0
    with _damage_named():
        member = archive.open(info)
    with member:
        while True:
            with _damage_named():
                chunk = member.read(min(CHUNK_BYTES, allowed - count + 1))
            if not chunk:
                if count != info.file_size:  # zipfile checks the sum only when the claimed end is reached
                    raise UnsafeArchiveError("the archive's sizes are wrong; pack it again", info.orig_filename)
                return
            count += len(chunk)
            spend_bytes(
                len(chunk), f"an archive that unpacks to more than {limits.total_bytes - budget_bytes + count} bytes"
            )
            spend_work(NS_A_BYTE * len(chunk), "an archive to unpack")
            if count > allowed:
                raise ArchiveTooLargeError(f"the archive inflates to more than {allowed} bytes", info.orig_filename)
            if count > by_ratio:
                raise ArchiveTooLargeError("a member of the archive inflates like a zip bomb", info.orig_filename)
            yield chunk


@contextmanager
def _opened(
    file: BinaryIO | Path, limits: ArchiveLimits, *, takes_litter: bool = False
) -> Iterator[tuple[zipfile.ZipFile, dict[str, zipfile.ZipInfo]]]:
    """Open an archive and check every member's entry before any is read; its files by their names, in its order."""
    if isinstance(file, Path):
        with file.open("rb") as stream, _opened(stream, limits, takes_litter=takes_litter) as opened:
            yield opened
        return
    directory_limit = max(SMALLEST_DIRECTORY_LIMIT, limits.members * BYTES_PER_DIRECTORY_ENTRY)
    with _damage_named():
        archive = zipfile.ZipFile(_BoundedReads(file, directory_limit))
    with archive:
        spend_work(NS_AN_ENTRY * len(archive.infolist()), f"an archive of {len(archive.infolist())} entries")
        entries = [(_name_of(info), info) for info in archive.infolist()]
        for position, (name, info) in enumerate(entries, start=1):
            _check_member(info, name, position)
        files = [
            ("/".join(parts_of(name)), info)
            for name, info in entries
            if not name.endswith("/") and (takes_litter or not is_litter_path(name))
        ]
        if len(files) > limits.members:
            raise ArchiveTooLargeError(f"the archive has {len(files)} members, at most {limits.members} are allowed")
        by_name = dict(files)
        if len(by_name) < len(files):
            raise UnsafeArchiveError("the archive has the same member name twice")
        yield archive, by_name


def member_names(file: BinaryIO | Path, *, limits: ArchiveLimits) -> list[str]:
    """List the files of an archive in its order, without folders and litter, after checking every entry.

    Raises:
        UnsafeArchiveError: damaged, or a member that is odd.
        ArchiveTooLargeError: more members than the limit.
    """
    with _opened(file, limits) as (_, files):
        return list(files)


def read_members(
    file: BinaryIO | Path,
    *,
    limits: ArchiveLimits,
    wanted: Callable[[str], bool] | None = None,
    takes_litter: bool = False,
) -> Iterator[tuple[str, bytes]]:
    """Yield the name and the content of each file of an archive, in the archive's order.

    Args:
        file: a path, or an open seekable file such as `io.BytesIO(body)`.
        limits: how far it may inflate; members that are not wanted are not inflated and do not count.
        wanted: tells by the name whether a member is read; all are without it.
        takes_litter: hidden files are read as others: a workbook has a part that is called `.rels`.

    Raises:
        UnsafeArchiveError: damaged, or any member is encrypted, a link, would leave the folder, or comes twice. All
            entries are checked before the first member is yielded; damage shows when its member is read.
        ArchiveTooLargeError: a limit is passed.
    """
    budget_bytes = limits.total_bytes
    with _opened(file, limits, takes_litter=takes_litter) as (archive, files):
        for name, info in files.items():
            if wanted is not None and not wanted(name):
                continue
            buffer = io.BytesIO()  # which gives its bytes without a copy
            for chunk in _inflate(archive, info, budget_bytes, limits):
                buffer.write(chunk)
            content = buffer.getvalue()
            del buffer
            budget_bytes -= len(content)
            yield name, content


def copy_member(file: BinaryIO | Path, name: str, target: BinaryIO, *, limits: ArchiveLimits) -> None:
    """Inflate one member into an open file, for a member too large for memory.

    Raises:
        UnsafeArchiveError, ArchiveTooLargeError: as `read_members`.
    """
    with _opened(file, limits) as (archive, files):
        for chunk in _inflate(archive, files[name], limits.total_bytes, limits):
            target.write(chunk)
