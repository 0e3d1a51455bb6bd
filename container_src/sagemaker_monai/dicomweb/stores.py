"""Where retrieved instances go, and the record of them that makes a retrieval resumable.

A store takes whole, checked files only. What it took stands in a journal, one JSON line an instance, written before
the file appears: so a file that is there and in the journal is whole, and a killed run fetches nothing twice. The
journal names original UIDs; where instances are de-identified on the way it therefore lies beside the output, not in
it.
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
UID = re.compile(r"[0-9]+(\.[0-9]+)*")  # PS3.5, 9.1; leading zeros are wrong but common, and harm nobody
MAX_UID_LENGTH = 64
_NAME = re.compile(r"series/[0-9.]+/[0-9.]+\.dcm")
_INCOMING = ".retrieving"
_MAX_LINE_BYTES = 1 << 16


def is_uid(text: object) -> bool:
    """Whether it is a DICOM UID, which is also a name of a file that leads nowhere else."""
    return isinstance(text, str) and len(text) <= MAX_UID_LENGTH and UID.fullmatch(text) is not None


@dataclass(frozen=True)
class Stored:
    """One line of the journal.

    Attributes:
        series: the original SeriesInstanceUID.
        instance: the original SOPInstanceUID.
        name: of the file, relative to the output.
        size_bytes: of the file as it was stored.
        sha256: of the same, in hex.
    """

    series: str
    instance: str
    name: str
    size_bytes: int
    sha256: str


class Store(Protocol):
    """A place for instances."""

    incoming: Path  # a folder for files that are not whole yet, made and removed by who uses the store

    def has(self, stored: Stored) -> bool:
        """Whether what the journal says is there."""

    def put(self, file: Path, stored: Stored) -> None:
        """Take a whole file from `incoming`; several threads do."""


class FolderStore:
    """A folder with `series/<SeriesInstanceUID>/<SOPInstanceUID>.dcm`.

    Files that are not whole yet lie in a hidden folder beside `series`, on the same file system.
    """

    def __init__(self, out: Path) -> None:
        self.out = out
        self.incoming = out / _INCOMING
        if out.exists() and (not out.is_dir() or out.is_symlink()):
            raise ConfigError(f"{out.name} is not a folder; name another output folder")
        if self.incoming.is_symlink() or (out / "series").is_symlink():
            raise ConfigError("the output folder has links in it; name another output folder")

    def has(self, stored: Stored) -> bool:
        """Whether the file is there in its size; it only ever appears whole."""
        path = self.out / stored.name
        return path.is_file() and path.stat().st_size == stored.size_bytes

    def put(self, file: Path, stored: Stored) -> None:
        """Give the file its name."""
        path = self.out / stored.name
        path.parent.mkdir(parents=True, exist_ok=True)
        file.replace(path)


class Journal:
    """The record of a retrieval; one process at a time has it open.

    Args:
        path: of the file; made if it is not there.
        source: URL of the server.
        treatment: says how the files differ from what the server sent; empty where they do not.

    Raises:
        ConfigError: another run has it open, it is not a journal, or it is that of another retrieval.
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
            raise ConfigError("another retrieval into this output runs: wait for it, or name another output") from error
        first = self._file.readline(_MAX_LINE_BYTES)
        is_whole = first.endswith(b"\n")
        found = _parsed(first) if is_whole else {}
        if (is_whole and "journal" not in found) or not b'{"journal":'.startswith(first[:11]):
            raise ConfigError("the state file is not one of a retrieval; name another with --state")
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
            end = 0  # a run that stored nothing binds nobody
        self._file.seek(end)  # a killed process leaves half a line
        self._file.truncate()
        if end == 0:
            self._write(head)

    def _take(self, entry: dict[str, Any]) -> None:
        if "failed" not in entry:
            stored = _stored(entry)
            self.stored[stored.instance] = stored

    def add(self, stored: Stored) -> None:
        """Say what is about to be put into the store."""
        with self._lock:
            self._write(asdict(stored))
            self.stored[stored.instance] = stored

    def add_failure(self, series: str, why: str) -> None:
        """Say which series is not whole; messages to the caller name none."""
        with self._lock:
            self._write({"failed": series, "why": why})

    def _write(self, entry: dict[str, Any]) -> None:
        self._file.write(json.dumps(entry).encode() + b"\n")
        self._file.flush()

    def close(self) -> None:
        """Let go of the file."""
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
    # A name goes to the file system: who may write the journal may not point out of the output.
    if stored is None or not is_uid(stored.instance) or not _NAME.fullmatch(str(stored.name)) or ".." in stored.name:
        raise ConfigError("the state file is damaged: remove it, and what it belongs to is fetched again")
    return stored


def make_clear(folder: Path) -> None:
    """Make a folder for incoming files, and remove what an interrupted run left in it."""
    folder.mkdir(parents=True, exist_ok=True)
    for left in folder.glob("*.part"):
        left.unlink(missing_ok=True)


def remove(folder: Path) -> None:
    """Remove a folder for incoming files; when all is well it is empty."""
    make_clear(folder)
    with suppress(OSError):  # somebody else's file is in it
        folder.rmdir()


def new_part(folder: Path) -> tuple[Path, IO[bytes]]:
    """A new file for something that arrives."""
    number, name = tempfile.mkstemp(suffix=".part", dir=folder)
    return Path(name), os.fdopen(number, "wb")
