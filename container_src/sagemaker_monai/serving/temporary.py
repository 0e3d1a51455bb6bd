"""Folders in TMPDIR that go with the process that made them, also when nothing could be tidied up at its end.

Each holds a file that its owner keeps locked. The kernel gives the lock back however the owner ends, so the next start
finds what is nobody's any more, and never takes what another server on this machine uses.
"""

import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

PREFIX = "serve-"
LOCK = ".lock"


@contextmanager
def temporary_folder(kind: str = "") -> Iterator[Path]:
    """A folder for as long as the block runs, and not much longer.

    Args:
        kind: the beginning of its name behind PREFIX.

    Raises:
        OSError: there is no TMPDIR, or no room in it.
    """
    folder = Path(tempfile.mkdtemp(prefix=PREFIX + kind))
    try:
        made = folder / f"{LOCK}-new"
        with made.open("xb") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            made.rename(folder / LOCK)  # under this name it is locked from the first moment on
            yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def remove_abandoned(place: Path | None = None) -> list[str]:
    """Remove the folders that ended processes of this account have left, and tell their names.

    Args:
        place: where to look; None: in TMPDIR.
    """
    removed = []
    with suppress(OSError), os.scandir(place or tempfile.gettempdir()) as entries:
        for entry in entries:
            if entry.name.startswith(PREFIX) and _is_abandoned(entry):
                shutil.rmtree(entry.path, ignore_errors=True)
                removed.append(entry.name)
    return removed


def _is_abandoned(entry: os.DirEntry[str]) -> bool:
    try:
        if not entry.is_dir(follow_symlinks=False) or entry.stat(follow_symlinks=False).st_uid != os.geteuid():
            return False
        descriptor = os.open(f"{entry.path}/{LOCK}", os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:  # it is gone, or being made, or not one of ours
        return False
    with os.fdopen(descriptor, "rb") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return False
    return True
