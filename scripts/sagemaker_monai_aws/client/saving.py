"""Answers as files: the suffix follows the type, and no file is overwritten.

An answer of several parts, as reports about several images are, becomes a file for each. Standard library only.
"""

import os
import re
import threading
from pathlib import Path, PurePosixPath

from sagemaker_monai_aws.client.answers import plain_type

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
    "application/x-nifti": ".nii",
    "application/x-nifti+gzip": ".nii.gz",
    "application/zip": ".zip",
    "application/pdf": ".pdf",
    "application/gzip": ".gz",
}
UNKNOWN = ".bin"
MOST_OF_ONE_NAME = 10_000
MULTIPART = "multipart/related"
BOUNDARY = re.compile(r';\s*boundary=(?:"([^"]+)"|([^\s;]+))', re.I)
PART_TYPE = re.compile(rb"^content-type:\s*([^\r\n]+)", re.I | re.M)


class SavingError(Exception):
    """An answer cannot be saved so; the message says what to do."""


def parts_of(content_type: str, body: bytes) -> list[tuple[str, bytes]]:
    """Type and content of each part of a multipart answer; of any other answer itself.

    Source: RFC 2046, 5.1.1 (an end of line before a boundary belongs to it).
    """
    match = BOUNDARY.search(content_type) if plain_type(content_type) == MULTIPART else None
    if match is None:
        return [(content_type, body)]
    pieces = (b"\r\n" + body).split(b"\r\n--" + (match[1] or match[2]).encode())[1:-1]
    found = []
    for piece in pieces:
        head, _, content = piece.partition(b"\r\n\r\n")
        named = PART_TYPE.search(head)
        found.append((named[1].decode("latin-1") if named else "", content))
    return found or [(content_type, body)]


def save_parts(folder: Path, name: str, content_type: str, body: bytes) -> list[Path]:
    """Write an answer, or each part of it, below a folder: see `save`."""
    return [save(folder, name, each, content) for each, content in parts_of(content_type, body)]


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
        SavingError: the name leads out of the folder.
    """
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or not path.parts:
        raise SavingError(f"an answer for {name!r} would be written outside {folder}: name the object itself")
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
    raise SavingError(f"{folder} has {MOST_OF_ONE_NAME} answers called {path.name}: save into another folder")
