"""Stores for retrieved instances, and the journal that makes a retrieval resumable.

A store only takes complete, checked files. The journal has one JSON line per instance, written before the file appears:
so a file that exists and is in the journal is complete, and a killed run fetches nothing twice. The journal contains
original UIDs; if instances are de-identified, it is therefore kept beside the output, not in it.
"""

import fcntl
import json
import os
import re
import tempfile
import threading
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any, Protocol

from sagemaker_monai.errors import ConfigError

JOURNAL_VERSION = 1
UID = re.compile(r"[0-9]+(\.[0-9]+)*")  # PS3.5, 9.1; leading zeros are wrong but common, and harmless
MAX_UID_LENGTH = 64
_NAME = re.compile(r"series/[0-9.]+/[0-9.]+\.dcm")
_INCOMING = ".retrieving"
_MAX_LINE_BYTES = 1 << 16


def is_uid(text: object) -> bool:
    """Whether a value is a DICOM UID, and so also a safe file name."""
    return isinstance(text, str) and len(text) <= MAX_UID_LENGTH and UID.fullmatch(text) is not None


@dataclass(frozen=True)
class Stored:
    """One line of the journal.

    Attributes:
        series: the original SeriesInstanceUID.
        instance: the original SOPInstanceUID.
        name: path of the file, relative to the output.
        size_bytes, sha256: of the stored file; the latter in hex.
    """

    series: str
    instance: str
    name: str
    size_bytes: int
    sha256: str


class Store(Protocol):
    """A place for instances."""

    incoming: Path  # a folder for incomplete files, made and removed by the user of the store

    def has(self, stored: Stored) -> bool:
        """Whether a file of the journal exists."""

    def put(self, file: Path, stored: Stored) -> None:
        """Take a complete file from `incoming`; called by several threads."""


class FolderStore:
    """A folder with `series/<SeriesInstanceUID>/<SOPInstanceUID>.dcm`.

    Incomplete files are in a hidden folder beside `series`, on the same file system.
    """

    def __init__(self, out: Path) -> None:
        self.out = out
        self.incoming = out / _INCOMING
        if out.exists() and (not out.is_dir() or out.is_symlink()):
            raise ConfigError(f"{out.name} is not a folder; name another output folder")
        if self.incoming.is_symlink() or (out / "series").is_symlink():
            raise ConfigError("the output folder contains links; name another output folder")

    def has(self, stored: Stored) -> bool:
        """Whether the file exists with its size; files only appear complete."""
        path = self.out / stored.name
        return path.is_file() and path.stat().st_size == stored.size_bytes

    def put(self, file: Path, stored: Stored) -> None:
        """Move the file to its name."""
        path = self.out / stored.name
        path.parent.mkdir(parents=True, exist_ok=True)
        file.replace(path)


class Journal:
    """The record of a retrieval; only one process at a time can open it.

    Args:
        path: of the file; created if it does not exist.
        source: URL of the server.
        treatment: how the files differ from what the server sent; empty if they do not.

    Raises:
        ConfigError: another run has it open, it is not a journal, or it belongs to another retrieval.
    """

    def __init__(self, path: Path, *, source: str, treatment: str) -> None:
        self._lock = threading.Lock()
        self.stored: dict[str, Stored] = {}
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file: IO[bytes] = os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600), "r+b")
        try:
            self._open({"journal": JOURNAL_VERSION, "source": source, "treatment": treatment})
        except BaseException:
            self._file.close()
            raise

    def _open(self, head: dict[str, Any]) -> None:
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise ConfigError(
                "another retrieval into this output is running: wait for it, or name another output"
            ) from error
        first = self._file.readline(_MAX_LINE_BYTES)
        is_whole = first.endswith(b"\n")
        found = _parsed(first) if is_whole else {}
        if (is_whole and "journal" not in found) or not b'{"journal":'.startswith(first[:11]):
            raise ConfigError("the state file does not belong to a retrieval; name another with --state")
        end = self._file.tell() if is_whole else 0
        while is_whole and (line := self._file.readline(_MAX_LINE_BYTES)).endswith(b"\n"):
            self._take(_parsed(line))
            end = self._file.tell()
        if found != head:
            if self.stored:
                raise ConfigError(
                    "the output holds a retrieval from another server, or with another de-identification or salt; "
                    "name another output folder or prefix, or remove it with its state file"
                )
            end = 0  # a run that stored nothing does not count
        self._file.seek(end)  # drop the partial line of a killed process
        self._file.truncate()
        if end == 0:
            self._write(head)

    def _take(self, entry: dict[str, Any]) -> None:
        if "failed" not in entry:
            stored = _stored(entry)
            self.stored[stored.instance] = stored

    def add(self, stored: Stored) -> None:
        """Record an instance that is about to be stored."""
        with self._lock:
            self._write(asdict(stored))
            self.stored[stored.instance] = stored

    def add_failure(self, series: str, why: str) -> None:
        """Record an incomplete series; messages to the user do not name series."""
        with self._lock:
            self._write({"failed": series, "why": why})

    def _write(self, entry: dict[str, Any]) -> None:
        self._file.write(json.dumps(entry).encode() + b"\n")
        self._file.flush()

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def _parsed(line: bytes) -> dict[str, Any]:
    try:
        entry = json.loads(line)
    except (ValueError, RecursionError):
        entry = None
    return entry if isinstance(entry, dict) else {}


def _stored(entry: dict[str, Any]) -> Stored:
    try:
        stored = Stored(**entry)
    except TypeError:
        stored = None
    # The name becomes a path: a manipulated journal must not lead out of the output.
    if stored is None or not is_uid(stored.instance) or not _NAME.fullmatch(str(stored.name)) or ".." in stored.name:
        raise ConfigError("the state file is damaged: remove it, and its instances are fetched again")
    return stored


def make_clear(folder: Path) -> None:
    """Create the folder for incoming files, and remove leftovers of an interrupted run."""
    folder.mkdir(parents=True, exist_ok=True)
    for left in folder.glob("*.part"):
        left.unlink(missing_ok=True)


def remove(folder: Path) -> None:
    """Remove the folder for incoming files."""
    make_clear(folder)
    with suppress(OSError):  # it contains other files
        folder.rmdir()


def new_part(folder: Path) -> tuple[Path, IO[bytes]]:
    """A new file for incoming data."""
    number, name = tempfile.mkstemp(suffix=".part", dir=folder)
    return Path(name), os.fdopen(number, "wb")
