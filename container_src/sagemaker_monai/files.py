"""Files on disk: written whole or not at all, and told apart by their content."""

import hashlib
import os
from pathlib import Path


def write_text(path: Path, text: str) -> None:
    """Write a file in one step: whoever reads it meanwhile finds the old one or the whole new one.

    Args:
        path: the file; its folder must be there.
        text: written as UTF-8, with escapes for what is no Unicode text (names of files can be such).
    """
    part = path.with_name(f".{path.name}.{os.getpid()}.part")  # processes that write the same file have one each
    try:
        part.write_text(text, encoding="utf-8", errors="backslashreplace")
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def sha256_of(path: Path) -> str:
    """SHA-256 of a file, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
