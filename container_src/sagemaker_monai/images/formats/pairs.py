"""Files that belong together: the image beside a header, and data files that a header names.

An untrusted header may only name files in its own folder, by their bare names: no paths, no URLs, and no links out of
the folder.
"""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import BinaryIO

import numpy as np

from sagemaker_monai.errors import UndecodableImage, UnsuitableImage
from sagemaker_monai.images.formats.inflate import Stream, opened
from sagemaker_monai.images.formats.voxels import NonFinite, Stored, read_values
from sagemaker_monai.storage.file_names import parts_of

MAX_DATA_FILES = 10_000  # one per slice

_IMAGE_SUFFIXES = {".img": "raw", ".IMG": "raw", ".img.gz": "gzip"}
_HEADER_SUFFIXES = (".hdr", ".HDR", ".hdr.gz")


def _stem(path: Path) -> str:
    name = path.name[:-3] if path.name.lower().endswith(".gz") else path.name
    return name.rpartition(".")[0] or name


def image_of(header: Path) -> tuple[Path, str]:
    """The .img beside a .hdr, and its packing; raises UndecodableImage if there is none."""
    for suffix, packing in _IMAGE_SUFFIXES.items():
        if (image := header.with_name(_stem(header) + suffix)).is_file():
            return image, packing
    raise UndecodableImage("the image (.img) of this header (.hdr) is missing; put both into one folder")


def header_of(path: Path) -> Path:
    """The .hdr beside a .img, or any other path unchanged; raises UndecodableImage if there is no .hdr."""
    if not path.name.lower().endswith((".img", ".img.gz")):
        return path
    for suffix in _HEADER_SUFFIXES:
        if (header := path.with_name(_stem(path) + suffix)).is_file():
            return header
    raise UndecodableImage("the header (.hdr) of this image (.img) is missing; put both into one folder")


def data_files(source: Path | bytes, names: list[str]) -> list[Path]:
    """The files that a header names, in its order.

    Raises:
        UnsuitableImage: the header came without a folder, or a name is not a bare file name.
        UndecodableImage: a file is missing.
    """
    if isinstance(source, bytes):
        raise UnsuitableImage("the header's values are in another file; send one file that holds both")
    if len(names) > MAX_DATA_FILES:
        raise UnsuitableImage(f"the header names more than {MAX_DATA_FILES} files; write one file")
    paths = []
    for name in names:
        if parts_of(name, separators="/\\") != (name,):
            raise UnsuitableImage("the header names a data file outside its folder; only bare file names are read")
        path = source.with_name(name)
        try:
            is_inside = path.is_file() and path.resolve().parent == source.parent.resolve()
        except (OSError, ValueError):  # a name that is too long, a loop of links
            is_inside = False
        if not is_inside:
            raise UndecodableImage("a data file that the header names is missing in its folder; put it there")
        paths.append(path)
    return paths


def read_data_files(
    paths: list[Path], stored: Stored, non_finite: NonFinite, start: Callable[[BinaryIO, int, int], Stream]
) -> np.ndarray:
    """Read values from one file, or from several that each hold an equal part of the last axis.

    Args:
        paths: at least one.
        stored: of the whole.
        non_finite: as for `read_values`.
        start: makes a stream that starts at the values, from an open file, its length and the bytes of its values.

    Raises:
        UndecodableImage: the files cannot have equal parts of the last axis.
    """
    if not paths or stored.shape[-1] % len(paths):
        raise UndecodableImage("the number of data files does not fit the size of the last axis")
    part = replace(stored, shape=(*stored.shape[:-1], stored.shape[-1] // len(paths)))
    parts = []
    for path in paths:
        with opened(path) as (file, size):
            stream = start(file, size, part.size_bytes)
            parts.append(read_values(stream, part, non_finite))
            stream.finish()
    if len(parts) == 1:
        return parts[0]
    values = np.concatenate([values.reshape(-1, order="F") for values in parts])
    return values.reshape(stored.shape, order="F")
