"""Files on disk: written whole or not at all, told apart by their content, and found below a folder."""

import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sagemaker_monai.storage.file_names import is_litter


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A file beside `path` to write to, which becomes `path` in one step, unless the block raises."""
    part = path.with_name(f".{path.name}.{os.getpid()}.part")  # processes that write the same file have one each
    try:
        yield part
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def plain_files(folder: Path, *, takes_links_out: bool = False) -> Iterator[Path]:
    """The plain files of a folder and its folders, sorted by name, each once: what the folder holds, for all that read.

    Litter (see `file_names`), pipes, and links that lead out of the folder or to another of its files are passed over,
    and so are folders that may not be entered. What the folder itself is called does not count.

    Args:
        folder: where to begin.
        takes_links_out: links to files elsewhere count too, for folders that belong to the caller alone.
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
            # Folders behind links are not entered, so what is no link lies where its name says.
            is_link = entry.is_symlink()
            real = os.path.realpath(entry.path) if is_link else f"{real_place}/{entry.name}"
            # os.path, because pathlib raises where access is denied; a pipe would never end.
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
    """Write a file in one step: anyone who reads it meanwhile finds the old one or the whole new one.

    Args:
        path: the file; its folder must be there.
        text: written as UTF-8, with escapes for what is no Unicode text (names of files can be such).
    """
    with replacing(path) as part:
        part.write_text(text, encoding="utf-8", errors="backslashreplace")


def state_of(status: os.stat_result) -> tuple[int, int, int, int]:
    """What changes when a file's bytes do: size, both times in ns, and inode; a copy is another state."""
    return status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino


def sha256_of(path: Path) -> str:
    """SHA-256 of a file, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
