"""Digests of file contents, which identify a data set, a job and a cache.

A file is read once per run. Its digest is kept with its name, size, times and inode in this process and, if a memory
file is given, for the host's other processes and for later runs. A touched file is read again and keeps its digest. If
a file's bytes change during a run, the run ends: otherwise the data that were checked, trained on and recorded in the
artifact could differ.

A file's times prove that it is unchanged only if they lay in the past when it was read: a second write in the same
clock tick leaves the same time, so younger files are read again on every request. Changes that keep size and time go
unnoticed on file systems without inodes and change times (FAT).

Names, sizes and times alone would cost nothing but are not enough: pictures are corrected in place, and uncompressed
files have the same size whatever they hold. Digests cannot be computed while decoding: they decide whether anything
has to be decoded.
"""

import contextlib
import hashlib
import json
import os
import stat
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from sagemaker_monai.errors import DatasetError, TrainingStopped
from sagemaker_monai.messages.progress import track
from sagemaker_monai.storage.files import replacing, state_of

UNREADABLE = ""  # the digest of what cannot be read, which the decoder will report
THREADS = 8  # for storage with high latency (a guess); hashlib and file reads release the interpreter lock
SETTLED_S = 2.0  # FAT's clock, the coarsest of any file system
MOST_REMEMBERED = 1_000_000
_VERSION = 1
_Signature = tuple[int, int, int, int, int]  # size, mtime_ns, ctime_ns, inode, device
_CHANGED = "{count} files of the data set changed while it was read ({names}): leave it alone meanwhile and start again"


class Digests:
    """The digests of a run.

    Args:
        memory: a file to keep them in, in a folder that nobody else writes to; never in a channel, which may be
            read-only. None keeps them in this process only. A memory that is missing, broken, of another version or
            writable by others is ignored.
        is_stopping: called after every file.
    """

    def __init__(self, memory: Path | None = None, *, is_stopping: Callable[[], bool] = lambda: False) -> None:
        self._memory = memory
        self._is_stopping = is_stopping
        self._remembered = _read_memory(memory) if memory is not None else {}
        self._seen: dict[str, tuple[_Signature | None, str]] = {}  # None: too young to trust its times

    def of(self, files: Iterable[Path]) -> dict[Path, str]:
        """SHA-256 of each file in hex, UNREADABLE for anything but a readable plain file.

        Raises:
            DatasetError: files changed since they were first read in this run, or while they are read.
            TrainingStopped: `is_stopping` returned True.
        """
        known = {path: self._known(path) for path in dict.fromkeys(files)}
        found = {path: digest for path, digest in known.items() if digest is not None}
        left = [path for path in known if path not in found]
        changed = []
        for path, (signature, digest) in zip(left, self._read_all(left), strict=True):
            name = os.path.abspath(path)  # noqa: PTH100 - of a hundred thousand
            before = self._seen.get(name)
            if digest is None or (before is not None and before[1] != digest):
                changed.append(path)
                continue
            self._seen[name] = (signature, digest)
            found[path] = digest
        if changed:
            names = ", ".join(sorted(path.name for path in changed)[:3])
            raise DatasetError(_CHANGED.format(count=len(changed), names=names[:200]))
        return found

    def save(self) -> None:
        """Write the memory file, if there is one; a full or read-only disk must not end a run."""
        if self._memory is None:
            return
        settled = {name: (*row[0], row[1]) for name, row in self._seen.items() if row[0] is not None and row[1]}
        kept = settled
        if len(settled) + len(self._remembered) <= MOST_REMEMBERED:
            kept = {name: (*signature, digest) for name, (signature, digest) in self._remembered.items()} | settled
        with contextlib.suppress(OSError), replacing(self._memory) as part:
            descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with os.fdopen(descriptor, "w", encoding="utf-8") as file:
                json.dump({"version": _VERSION, "files": kept}, file)

    def _known(self, path: Path) -> str | None:
        name = os.path.abspath(path)  # noqa: PTH100
        rows = [row for row in (self._seen.get(name), self._remembered.get(name)) if row is not None and row[0]]
        if not rows:
            return None
        with contextlib.suppress(OSError):
            signature = _signature_of(path.stat())
            return next((digest for known, digest in rows if known == signature), None)
        return None

    def _read_all(self, files: Sequence[Path]) -> Iterator[tuple[_Signature | None, str | None]]:
        if not files:
            return
        with ThreadPoolExecutor(min(THREADS, len(files))) as pool:
            try:
                results = pool.map(_read, files)
                for result in track(results, total=len(files), what="reading what the files hold"):
                    if self._is_stopping():
                        raise TrainingStopped(
                            "the job was stopped while its files were read, so there is nothing to save"
                        )
                    yield result
            except BaseException:
                pool.shutdown(cancel_futures=True)
                raise


def _signature_of(status: os.stat_result) -> _Signature:
    return (*state_of(status), status.st_dev)


def _read(path: Path) -> tuple[_Signature | None, str | None]:
    """A file's signature, None if it is too young to prove anything, and its digest, None if it changed meanwhile."""
    started_ns = time.time_ns()
    try:
        # Non-blocking: opening a pipe without a writer would never return.
        with os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb", buffering=0) as file:
            before = os.fstat(file.fileno())
            if not stat.S_ISREG(before.st_mode):
                return None, UNREADABLE
            digest = hashlib.file_digest(file, "sha256").hexdigest()
            after = os.fstat(file.fileno())
    except OSError:
        return None, UNREADABLE
    signature = _signature_of(before)
    if signature != _signature_of(after):
        return None, None
    is_settled = max(before.st_mtime_ns, before.st_ctime_ns) < started_ns - SETTLED_S * 1e9
    return (signature if is_settled else None), digest


def _read_memory(path: Path) -> dict[str, tuple[_Signature, str]]:
    try:
        with os.fdopen(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
            status = os.fstat(file.fileno())
            if not stat.S_ISREG(status.st_mode) or status.st_uid != os.geteuid() or status.st_mode & 0o022:
                return {}
            content = json.load(file)
        if content["version"] != _VERSION:
            return {}
        rows = {}
        for name, (size, mtime_ns, ctime_ns, inode, device, digest) in content["files"].items():
            numbers = (size, mtime_ns, ctime_ns, inode, device)
            if not all(type(number) is int for number in numbers) or not isinstance(digest, str) or len(digest) != 64:
                return {}
            rows[name] = (numbers, digest)
        return rows
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return {}
