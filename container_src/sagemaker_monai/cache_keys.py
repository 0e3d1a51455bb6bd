"""The name of a cache: a hash of everything that decides its pixels, which are the files, how they are prepared, and
the versions of what reads them."""

import functools
import glob
import hashlib
import importlib.metadata
import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import PIL.features

import sagemaker_monai
from sagemaker_monai.samples import Sample, Sequences
from sagemaker_monai.transforms import Preprocessing

_LAYOUT = 2  # of the folder; part of the key
_READERS = ("pydicom", "nibabel", "pylibjpeg-openjpeg", "pylibjpeg-rle", "pyjpegls", "python-gdcm")
_HEADER_SUFFIXES = (".hdr", ".img", ".mhd", ".nhdr")


def key_of(samples: Sequence[Sample], preprocessing: Preprocessing) -> str:
    """Hash what decides the pixels of `samples`, files by their size and the time of their last change.

    Raises:
        TypeError: a sample that is no file, folder or sequences.
    """
    digest = hashlib.sha256()
    versions: list[str | None] = [sagemaker_monai.__version__, np.__version__, PIL.__version__]
    versions += [PIL.features.version(codec) for codec in ("jpg", "libjpeg_turbo", "zlib", "libtiff", "webp")]
    # Without importing one of them; DICOM may be loaded as a photograph, too.
    versions += [f"{name} {_version(name)}" for name in _READERS]
    digest.update(json.dumps([_LAYOUT, versions, preprocessing.spec[0]], sort_keys=True).encode())
    for sample in samples:
        paths = paths_of(sample)
        entries = [[len(paths), *sample.formats]] + [_entry(file) for path in paths for file in _files_below(path)]
        digest.update(json.dumps(entries).encode())
    return digest.hexdigest()


@functools.cache
def _version(distribution: str) -> str:
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return ""


def _entry(path: Path) -> list[str | int]:
    try:
        status = path.stat()
        return [str(path), status.st_size, status.st_mtime_ns]
    except OSError:
        return [str(path)]


def _files_below(path: Path) -> Iterator[Path]:
    """The path itself, and everything below it when it is a folder, in the order of names."""
    yield path
    if path.is_dir():
        for folder, folders, files in os.walk(path):
            folders.sort()
            yield from (Path(folder, name) for name in sorted(files))
        return
    # A header of this kind has its voxels in a file beside it.
    if path.suffix.lower() in _HEADER_SUFFIXES:
        yield from sorted(each for each in path.parent.glob(f"{glob.escape(path.stem)}.*") if each != path)


def paths_of(sample: Sample) -> tuple[Path, ...]:
    """The files and folders that a sample names, one a channel."""
    source = sample.source
    if isinstance(source, Sequences):
        return source.channels
    if not isinstance(source, Path):
        raise TypeError(f"a cache is of files, got {type(source).__name__}")
    return (source,)
