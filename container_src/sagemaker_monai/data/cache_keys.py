"""The name of a cache: a hash of everything that decides its pixels: files, preparation, and versions of readers."""

import functools
import hashlib
import importlib.metadata
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import PIL.features

import sagemaker_monai
from sagemaker_monai.data.entries import image_files
from sagemaker_monai.images.sample import Sample, Sequences
from sagemaker_monai.preprocessing.preprocessing import Preprocessing
from sagemaker_monai.storage.digests import Digests

_LAYOUT = 3  # of the folder; part of the key
_READERS = ("pydicom", "nibabel", "imagecodecs")


def key_of(samples: Sequence[Sample], preprocessing: Preprocessing, digests: Digests) -> str:
    """Hash what decides the pixels of `samples`: files count by their names and contents, wherever they lie.

    Raises:
        TypeError: a sample is not a file, folder or sequences.
        DatasetError, TrainingStopped: as `Digests.of`.
    """
    files = [[(path, image_files(path)) for path in paths_of(sample)] for sample in samples]
    found = digests.of(file for places in files for _, inside in places for file in inside)
    digest = hashlib.sha256()
    versions: list[str | None] = [sagemaker_monai.__version__, np.__version__, PIL.__version__]
    versions += [PIL.features.version(codec) for codec in ("jpg", "libjpeg_turbo", "zlib", "libtiff", "webp")]
    # Without importing them; DICOM may be loaded as a photograph, too.
    versions += [f"{name} {_version(name)}" for name in _READERS]
    digest.update(json.dumps([_LAYOUT, versions, preprocessing.spec[0]], sort_keys=True).encode())
    for sample, places in zip(samples, files, strict=True):
        entries = [
            [[_name_in(path, file), found[file]] for file in inside]  # one list per channel
            for path, inside in places
        ]
        digest.update(json.dumps([list(sample.formats), entries]).encode())
    return digest.hexdigest()


def _name_in(path: Path, file: Path) -> str:
    """The name of an image's file: readers depend on suffixes, names in headers, and names in a series."""
    return file.relative_to(path).as_posix() if file.is_relative_to(path) and file != path else file.name


@functools.cache
def _version(distribution: str) -> str:
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return ""


def paths_of(sample: Sample) -> tuple[Path, ...]:
    """The files and folders that a sample names, one per channel."""
    source = sample.source
    if isinstance(source, Sequences):
        return source.channels
    if not isinstance(source, Path):
        raise TypeError(f"a cache needs files, got {type(source).__name__}")
    return (source,)
