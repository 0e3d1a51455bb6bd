"""The name of a cache: a hash of everything that decides its pixels, which are the files, how they are prepared, and
the versions of what reads them."""

import functools
import hashlib
import importlib.metadata
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import PIL.features

import sagemaker_monai
from sagemaker_monai.entries import image_files
from sagemaker_monai.samples import Sample, Sequences
from sagemaker_monai.transforms import Preprocessing

_LAYOUT = 2  # of the folder; part of the key
_READERS = ("pydicom", "nibabel", "imagecodecs")


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
        entries = [[len(paths), *sample.formats]] + [
            _entry(file) for path in paths for file in (path, *image_files(path))
        ]
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


def paths_of(sample: Sample) -> tuple[Path, ...]:
    """The files and folders that a sample names, one a channel."""
    source = sample.source
    if isinstance(source, Sequences):
        return source.channels
    if not isinstance(source, Path):
        raise TypeError(f"a cache is of files, got {type(source).__name__}")
    return (source,)
