"""Files on disk: written whole or not at all, told apart by their content, and found below a folder."""

import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

LITTER = frozenset({"thumbs.db", "desktop.ini", "__macosx"})  # in small letters; what operating systems leave
MAX_FOLDER_DEPTH = 32


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A file beside `path` to write to, which becomes `path` in one step, unless the block raises."""
    part = path.with_name(f".{path.name}.{os.getpid()}.part")  # processes that write the same file have one each
    try:
        yield part
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def plain_files(folder: Path) -> Iterator[Path]:
    """The plain files of a folder and its folders, sorted by name, each once.

    Hidden files, LITTER, pipes, and links that lead out of the folder or to another of its files are passed over, and
    so are folders that may not be entered.
    """
    root = os.path.realpath(folder)
    waiting, seen = [(folder, 0)], set[str]()
    while waiting:
        place, depth = waiting.pop()
        try:
            entries = sorted(os.scandir(place), key=lambda entry: entry.name)
        except OSError:
            continue
        folders = []
        for entry in entries:
            if entry.name.startswith(".") or entry.name.lower() in LITTER:
                continue
            if entry.is_dir(follow_symlinks=False):
                folders.append((Path(entry.path), depth + 1))
                continue
            real = os.path.realpath(entry.path)
            # os.path, because pathlib raises where access is denied; a pipe would never end.
            if real.startswith(root + os.sep) and real not in seen and os.path.isfile(real):  # noqa: PTH113
                seen.add(real)
                yield Path(entry.path)
        if depth < MAX_FOLDER_DEPTH:
            waiting.extend(reversed(folders))


def write_text(path: Path, text: str) -> None:
    """Write a file in one step: whoever reads it meanwhile finds the old one or the whole new one.

    Args:
        path: the file; its folder must be there.
        text: written as UTF-8, with escapes for what is no Unicode text (names of files can be such).
    """
    with replacing(path) as part:
        part.write_text(text, encoding="utf-8", errors="backslashreplace")


def sha256_of(path: Path) -> str:
    """SHA-256 of a file, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
