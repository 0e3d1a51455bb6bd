"""The files to examine, below a folder or in archives, and the kind of each by its first bytes.

Archives are unpacked to a scratch folder under names of our own, so every file is on disk. Links that lead out of the
folder, hidden files, pipes and files of operating systems are skipped.
"""

import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from sagemaker_monai.errors import ConfigError
from sagemaker_monai.images.dicom.packed import MediaLimits, unpacker_of
from sagemaker_monai.images.signatures import is_archive, is_dicom_file, is_dicomdir
from sagemaker_monai.images.suffixes import IMAGE_SUFFIXES
from sagemaker_monai.images.volume_files import HEAD_BYTES, volume_format_of
from sagemaker_monai.storage.file_names import is_litter_path
from sagemaker_monai.storage.files import plain_files
from sagemaker_monai.storage.zips import ArchiveTooLargeError, UnsafeArchiveError

MAX_FILES = 1 << 20
LIMITS = MediaLimits(files=1 << 17, archive_bytes=1 << 33)  # of one archive: 8 GiB
KEPT_FREE_BYTES = 1 << 30  # of the disk that archives are unpacked to
_HEAD_BYTES = 1 << 16
_PICTURES = (b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"BM", b"II*\0", b"MM\0*")
_TEXTS = frozenset({".csv", ".tsv", ".json", ".txt", ".md", ".xml", ".html", ".pdf", ".xlsx", ".docx", ".yaml", ".py"})

DICOM, DICOMDIR, PICTURE, ARCHIVE, OTHER = "DICOM", "DICOMDIR", "picture", "archive", "other"


@dataclass(frozen=True)
class Found:
    """One file.

    Attributes:
        path: where it can be read.
        name: relative to the source, with the channel's name first if there are several. Untrusted; may name a patient.
        owner: the real path of the file, or of the archive that it is in.
        kind: "DICOM", "DICOMDIR", "picture", "archive", a name of `volume_files.VOLUME_FORMATS`, or "other" with a
            well-known suffix after a space.
        fault: code of the error when it was opened or unpacked, or "".
    """

    path: Path
    name: str
    owner: str
    kind: str
    fault: str = ""


def find_files(source: Path, scratch: Path, prefix: str = "") -> Iterator[Found]:
    """Find the files of a folder, an archive or a single file.

    Args:
        source: which.
        scratch: an empty folder to unpack to.
        prefix: of every name.

    Raises:
        ConfigError: there is nothing at `source`, or more than MAX_FILES files.
    """
    if not source.exists():
        raise ConfigError("there is no such file or folder to examine; name another")
    base = source if source.is_dir() else source.parent
    count = 0
    for path in plain_files(source) if source.is_dir() else [source]:
        for found in _open(path, prefix + path.relative_to(base).as_posix(), scratch):
            count += 1
            if count > MAX_FILES:
                raise ConfigError(f"there are more than {MAX_FILES} files; name a smaller folder")
            yield found


def kind_of(head: bytes, name: str) -> str:
    """The kind of a file, see `Found.kind`; `head` are its first 64 KiB."""
    if is_dicom_file(head):
        return DICOMDIR if is_dicomdir(head) else DICOM
    if (known := volume_format_of(head[:HEAD_BYTES], "")) is not None:
        return known
    if head.startswith(_PICTURES) or (head.startswith(b"RIFF") and head[8:12] == b"WEBP"):
        return PICTURE
    if is_archive(head):
        return ARCHIVE
    suffix = PurePosixPath(name).suffix.lower()
    if suffix in IMAGE_SUFFIXES:
        return PICTURE
    return volume_format_of(b"", name) or (f"{OTHER} {suffix}" if suffix in _TEXTS else OTHER)


def _open(path: Path, name: str, scratch: Path) -> Iterator[Found]:
    owner = os.path.realpath(path)
    try:
        with path.open("rb") as file:
            head = file.read(_HEAD_BYTES)
    except OSError:
        yield Found(path, name, owner, OTHER, "Unreadable")
        return
    kind = kind_of(head, name)
    if kind != ARCHIVE:
        yield Found(path, name, owner, kind)
        return
    members: list[Found] = []
    fault = ""
    try:
        members.extend(_unpack(path, name, owner, scratch))  # on an error, those before it stay
    except ArchiveTooLargeError:
        fault = "PayloadTooLarge"
    except UnsafeArchiveError:
        fault = "UndecodableImage"
    except OSError:
        fault = "Unreadable"
    yield Found(path, name, owner, ARCHIVE, fault)
    yield from members


def _unpack(path: Path, name: str, owner: str, scratch: Path) -> Iterator[Found]:
    with path.open("rb") as file:
        unpack = unpacker_of(file.read(512))
        if unpack is None:
            raise UnsafeArchiveError("an archive of an unsupported kind")
        file.seek(0)
        folder = scratch / str(sum(1 for _ in scratch.iterdir()))
        folder.mkdir()
        for number, (member, content) in enumerate(unpack(file, LIMITS)):
            if is_litter_path(member):
                continue
            if len(content) > shutil.disk_usage(folder).free - KEPT_FREE_BYTES:
                raise ArchiveTooLargeError("there is no room to unpack it")
            target = folder / str(number)
            target.write_bytes(content)
            yield Found(target, f"{name}/{member}", owner, kind_of(content[:_HEAD_BYTES], member))
