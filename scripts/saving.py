"""Answers as files: a suffix by the answer's type, and nothing that is there is ever overwritten."""

import os
import threading
from pathlib import Path, PurePosixPath

from scripts.answers import plain_type
from scripts.aws.errors import CommandError

SUFFIXES = {
    "application/json": ".json",
    "application/jsonlines": ".jsonl",
    "application/x-ndjson": ".jsonl",
    "text/csv": ".csv",
    "text/plain": ".txt",
    "text/html": ".html",
    "image/jpeg": ".jpg",
    "image/png": ".png",
    "image/bmp": ".bmp",
    "image/tiff": ".tif",
    "image/webp": ".webp",
    "application/dicom": ".dcm",
    "application/x-npy": ".npy",
    "application/zip": ".zip",
    "application/pdf": ".pdf",
    "application/gzip": ".gz",
}
UNKNOWN = ".bin"
MOST_OF_ONE_NAME = 10_000


def save(folder: Path, name: str, content_type: str, body: bytes) -> Path:
    """Write an answer below a folder, whole or not at all.

    Where the name is taken by other content, a number is put behind it; the same content is not written twice.

    Args:
        folder: made if it is not there.
        name: path of the input, to which a suffix is added: `a.jpg` becomes `a.jpg.json`.
        content_type: of the answer.
        body: its bytes.

    Returns:
        Where it lies.

    Raises:
        CommandError: the name leads out of the folder.
    """
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or not path.parts:
        raise CommandError(f"an answer for {name!r} would be written outside of {folder}: name the object itself")
    suffix = SUFFIXES.get(plain_type(content_type), UNKNOWN)
    target = folder / path
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(f".{target.name}.{os.getpid()}-{threading.get_ident()}.part")
    part.write_bytes(body)
    try:
        for number in range(1, MOST_OF_ONE_NAME):
            whole = target.with_name(target.name + (f"-{number}" if number > 1 else "") + suffix)
            try:
                os.link(part, whole)  # unlike a rename, it fails where there is something
            except FileExistsError:
                if whole.is_file() and whole.read_bytes() == body:
                    return whole
            else:
                return whole
    finally:
        part.unlink(missing_ok=True)
    raise CommandError(f"{folder} has {MOST_OF_ONE_NAME} answers called {path.name}: save into another folder")
