"""What a file is sent as: by its name, and where the name says nothing by its first bytes; standard library only.

Also series: the DICOM files of a folder as one zip, made in memory, which is one request and gets one answer.
"""

import errno
import io
import os
import zipfile
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePosixPath

from sagemaker_monai.storage.files import files_in, plain_files

CONTENT_TYPES = {
    ".jpg": "image/jpeg",
    ".jpeg": "image/jpeg",
    ".png": "image/png",
    ".bmp": "image/bmp",
    ".tif": "image/tiff",
    ".tiff": "image/tiff",
    ".webp": "image/webp",
    ".dcm": "application/dicom",
    ".dicom": "application/dicom",
    ".ima": "application/dicom",
    ".nii": "application/x-nifti",
    ".nii.gz": "application/x-nifti+gzip",
    ".nrrd": "application/x-nrrd",
    ".mha": "application/x-metaimage",
    ".npy": "application/x-npy",
    ".json": "application/json",
    ".zip": "application/zip",
    ".tar": "application/x-tar",
    ".tar.gz": "application/gzip",
    ".tgz": "application/gzip",
}
DICOM, SERIES = "application/dicom", "application/zip"
FOLDER_MARK = "/"  # behind the name of a series that is a folder
KNOWN = ", ".join(CONTENT_TYPES)
MOST_SERIES_BYTES = 4 << 30  # of the files of a series, in memory; an asynchronous endpoint takes 1 GB
# PS3.10, 7.1: 128 bytes and DICM. A medium's directory begins so, too, and holds no picture.
PREAMBLE_BYTES, PREFIX, DIRECTORY = 128, b"DICM", "DICOMDIR"
_TIME = (1980, 1, 1, 0, 0, 0)  # the earliest a zip has: the same files are the same bytes


def type_of_name(name: str) -> str | None:
    """The content type by the end of a name, None where it says nothing."""
    lower = PurePosixPath(name).name.lower()
    found = [suffix for suffix in CONTENT_TYPES if lower.endswith(suffix)]
    return CONTENT_TYPES[max(found, key=len)] if found else None  # .nii.gz, and not .gz


def type_of_file(path: Path) -> str | None:
    """The content type by the name, else DICOM where the first bytes say so, as a PACS writes files without a suffix.

    Raises:
        OSError: the file cannot be read.
    """
    found = type_of_name(path.name)
    if found is not None or path.name.upper() == DIRECTORY:
        return found
    with path.open("rb") as file:
        head = file.read(PREAMBLE_BYTES + len(PREFIX))
    return DICOM if head[PREAMBLE_BYTES:] == PREFIX else None


def files_below(folder: Path) -> list[Path]:
    """All files of a folder in the order of their names, without litter."""
    return sorted(plain_files(folder, takes_links_out=True))


def with_series(files: Iterable[Path]) -> Iterator[tuple[Path, str | None]]:
    """Files with their types, where the first DICOM file of a folder stands for all of them: as the folder itself.

    Yields:
        A file and its type, or a folder and SERIES.
    """
    folders: set[Path] = set()
    for file in files:
        content_type = type_of_file(file)
        if content_type != DICOM:
            yield file, content_type
        elif file.parent not in folders:
            folders.add(file.parent)
            yield file.parent, SERIES


def series_files(folder: Path) -> list[Path]:
    """The DICOM files directly in a folder, in the order of their names."""
    return [path for path in files_in(folder) if type_of_file(path) == DICOM]


def size_of(path: Path) -> int:
    """Bytes of a file, or of a series' files together."""
    return path.stat().st_size if path.is_file() else sum(file.stat().st_size for file in series_files(path))


def content_of(path: Path) -> bytes:
    """The body of a request: a file, or the files of a series in a zip.

    Raises:
        OSError: it cannot be read, or is too much for memory.
    """
    if path.is_file():
        return path.read_bytes()
    if size_of(path) > MOST_SERIES_BYTES:
        raise OSError(errno.EFBIG, os.strerror(errno.EFBIG))
    return as_zip((file.name, file.read_bytes()) for file in series_files(path))


def as_zip(members: Iterable[tuple[str, bytes]]) -> bytes:
    """A zip of files; the same ones in the same order are the same bytes.

    Level 1 halves a CT at some 50 MB/s (zlib on one core of an AMD EPYC); higher ones take long for a few percent.
    """
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        for name, content in members:
            archive.writestr(zipfile.ZipInfo(name, _TIME), content, zipfile.ZIP_DEFLATED, 1)
    return file.getvalue()
