"""Files on disk: written atomically, identified by their content, and found below a folder."""

import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sagemaker_monai.storage.file_names import is_litter


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary file beside `path`, which replaces `path` in one step unless the block raises."""
    part = path.with_name(f".{path.name}.{os.getpid()}.part")  # one per process that writes the same file
    try:
        yield part
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def plain_files(folder: Path, *, takes_links_out: bool = False) -> Iterator[Path]:
    """The plain files of a folder and its subfolders, sorted by name, each once.

    Ignored are litter (see `file_names`), pipes, links out of the folder or to another of its files, and folders that
    may not be entered. The folder's own name does not count.

    Args:
        folder: where to begin.
        takes_links_out: also yield links to files elsewhere, for folders that belong to the caller alone.
    """
    root = os.path.realpath(folder).rstrip("/")
    waiting, seen = [(folder, root)], set[str]()
    while waiting:
        place, real_place = waiting.pop()
        try:
            entries = sorted(os.scandir(place), key=lambda entry: entry.name)
        except OSError:
            continue
        folders = []
        for entry in entries:
            if is_litter(entry.name):
                continue
            if entry.is_dir(follow_symlinks=False):
                folders.append((Path(entry.path), f"{real_place}/{entry.name}"))
                continue
            # Linked folders are not entered, so anything but a link lies where its name says.
            is_link = entry.is_symlink()
            real = os.path.realpath(entry.path) if is_link else f"{real_place}/{entry.name}"
            # os.path, because pathlib raises if access is denied; a pipe would never end.
            is_file = os.path.isfile(real) if is_link else entry.is_file(follow_symlinks=False)  # noqa: PTH113
            if is_file and real not in seen and (takes_links_out or real.startswith(f"{root}/")):
                seen.add(real)
                yield Path(entry.path)
        waiting.extend(reversed(folders))


def files_in(folder: Path) -> list[Path]:
    """The files directly in a folder, links to files too, sorted by name, without litter."""
    return [path for path in children(folder) if path.is_file()]


def children(folder: Path) -> list[Path]:
    """What lies directly in a folder, sorted by name, without litter.

    Raises:
        OSError: it cannot be listed.
    """
    return sorted((path for path in folder.iterdir() if not is_litter(path.name)), key=lambda path: path.name)


def write_text(path: Path, text: str) -> None:
    """Write a file in one step, so that readers find either the old file or the whole new one.

    Args:
        path: the file; its folder must exist.
        text: written as UTF-8, with escapes for surrogates, which file names can contain.
    """
    with replacing(path) as part:
        part.write_text(text, encoding="utf-8", errors="backslashreplace")


def state_of(status: os.stat_result) -> tuple[int, int, int, int]:
    """What changes when a file's bytes change: size, both times in ns, and inode; a copy has another state."""
    return status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino


def sha256_of(path: Path) -> str:
    """SHA-256 of a file, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
