"""Folders in TMPDIR that are removed after the process that made them, even if it was killed.

Each has a file that its owner keeps locked. The kernel releases the lock however the owner ends, so the next start can
tell abandoned folders from those that another server on this machine uses.
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
    """A folder that is removed after the block; its name begins with PREFIX and `kind`.

    Raises:
        OSError: there is no TMPDIR, or no room in it.
    """
    folder = Path(tempfile.mkdtemp(prefix=PREFIX + kind))
    try:
        made = folder / f"{LOCK}-new"
        with made.open("xb") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            made.rename(folder / LOCK)  # so that a file of this name is always locked
            yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def remove_abandoned(place: Path | None = None) -> list[str]:
    """Remove the folders that ended processes of this account have left in `place` (default TMPDIR); their names."""
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
    except OSError:  # it was removed, is being made, or is not ours
        return False
    with os.fdopen(descriptor, "rb") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return False
    return True
