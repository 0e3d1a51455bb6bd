"""Untrusted zip files: read member by member, and refused if a member is suspicious or inflates too far.

No archive chooses where anything is written: callers get names and bytes. Limits apply to the bytes that come out,
because the sizes in an archive's directory are only claims. What a member contains (a picture, another archive) is up
to the caller.

Names are read as programs write them. Windows writes `\\` between folders. A name without the UTF-8 flag whose bytes
are valid UTF-8, as macOS and Linux write them, is read as UTF-8: text in an old code page is almost never valid UTF-8.
Any other name is read in code page 437, as the format says, since the archive does not tell the real one. So some
letters may be wrong, but different names stay different, and nothing is found or refused by them.
Source: PKWARE APPNOTE 4.4.17.1 (slashes), appendix D (437, UTF-8), 4.6.9 (Unicode path).
"""

import io
import stat
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from sagemaker_monai.budget import spend_bytes, spend_work
from sagemaker_monai.storage.file_names import is_litter_path, leads_out, parts_of

CHUNK_BYTES = 1 << 16
NS_A_BYTE, NS_AN_ENTRY = 5, 100_000  # to inflate a byte; to check a directory entry and open its member
RATIO_FLOOR_BYTES = 1 << 20  # small members may have any ratio, as blank pages do
BYTES_PER_DIRECTORY_ENTRY = 512  # 46 of header, the rest for name, extra fields and comment
SMALLEST_DIRECTORY_LIMIT = 1 << 17  # above CHUNK_BYTES, and above the 64 KiB in which zipfile looks for the directory
_UTF8_FLAG = 0x800
_UNICODE_PATH = 0x7075  # extra field: version 1, CRC-32 of the name in the directory, the name in UTF-8

# What zipfile raises for damaged archives, and (RuntimeError) for versions and methods that it lacks.
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
        reason: one clause with the cause and, if there is one, the remedy; never a member's name.
        member: the name of the member at fault, if any, as the archive writes it. Untrusted text.
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
    """A file that refuses a huge read: zipfile reads the whole directory, of the claimed size, at once."""

    def __init__(self, file: BinaryIO, limit_bytes: int) -> None:
        self._file = file
        self._limit_bytes = limit_bytes

    def read(self, size: int = -1) -> bytes:
        if size > self._limit_bytes:
            raise ArchiveTooLargeError("the archive's directory is larger than its limit of members allows")
        return self._file.read(size)

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        return self._file.tell()

    def seekable(self) -> bool:
        return True

    def readable(self) -> bool:
        return True


@contextmanager
def _damage_named() -> Iterator[None]:
    try:
        yield
    except DAMAGE as error:
        raise UnsafeArchiveError("the archive is damaged or not a zip file; pack it again") from error


def _name_of(info: zipfile.ZipInfo) -> str:
    """The name of a member, with slashes; `orig_filename` is the one before zipfile tidied it."""
    name = info.orig_filename
    if not info.flag_bits & _UTF8_FLAG:
        raw = name.encode("cp437")
        with suppress(UnicodeDecodeError):
            name = (_unicode_path(info.extra, raw) or raw).decode("utf-8")
    return name.replace("\\", "/")


def _unicode_path(extra: bytes, raw: bytes) -> bytes | None:
    """The UTF-8 name that a program wrote beside the one in its code page, if it belongs to it."""
    while len(extra) >= 4:
        tag, size = struct.unpack_from("<HH", extra)
        field, extra = extra[4 : 4 + size], extra[4 + size :]
        if tag == _UNICODE_PATH and field[:5] == b"\x01" + struct.pack("<I", zlib.crc32(raw)):
            return field[5:]
    return None


def _check_member(info: zipfile.ZipInfo, name: str, position: int) -> None:
    """Refuse what a collection of pictures never has."""
    kind = stat.S_IFMT(info.external_attr >> 16)
    faults = {
        "would be written outside the folder": leads_out(name),
        "has no usable name": not (parts_of(name) or is_litter_path(name)),
        "is a folder with content": name.endswith("/") and info.file_size > 0,
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
    """Yield a member's bytes in chunks, counting them."""
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
                if count != info.file_size:  # zipfile checks the CRC only at the claimed end
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
    """Open an archive and check every entry before any member is read; its files by name, in its order."""
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
        UnsafeArchiveError: damaged, or a member is suspicious.
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
        limits: how far it may inflate; unwanted members are not inflated and do not count.
        wanted: selects members by name; None reads all.
        takes_litter: read hidden files too, such as a workbook's part `.rels`.

    Raises:
        UnsafeArchiveError: damaged, or any member is encrypted, a link, would leave the folder, or occurs twice. All
            entries are checked before the first member is yielded; damage is found when its member is read.
        ArchiveTooLargeError: a limit is exceeded.
    """
    budget_bytes = limits.total_bytes
    with _opened(file, limits, takes_litter=takes_litter) as (archive, files):
        for name, info in files.items():
            if wanted is not None and not wanted(name):
                continue
            buffer = io.BytesIO()  # gives its bytes without a copy
            for chunk in _inflate(archive, info, budget_bytes, limits):
                buffer.write(chunk)
            content = buffer.getvalue()
            del buffer
            budget_bytes -= len(content)
            yield name, content


def copy_member(file: BinaryIO | Path, name: str, target: BinaryIO, *, limits: ArchiveLimits) -> None:
    """Inflate one member into an open file, for members too large for memory.

    Raises:
        UnsafeArchiveError, ArchiveTooLargeError: as `read_members`.
    """
    with _opened(file, limits) as (archive, files):
        for chunk in _inflate(archive, files[name], limits.total_bytes, limits):
            target.write(chunk)
