"""The load half of preprocessing, done once per data set: one array (N, C, W, H[, D]), memory-mapped from disk.

A cache is a folder, as `prepared_once` keeps them, with the array, the list of unreadable images and a checksum. The
workers write into the array themselves.
"""

import json
import math
import mmap
import os
import sys
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np

from sagemaker_monai.data.cache_keys import key_of
from sagemaker_monai.data.prepared_once import (
    INDEX_FILE,
    checksum,
    in_processes,
    jobs_of,
    prepared_once,
    samples_of,
    tell,
    until_stopped,
)
from sagemaker_monai.errors import CallerError
from sagemaker_monai.images.sample import Sample
from sagemaker_monai.images.scope import pack_traits, unpack_traits
from sagemaker_monai.images.volumes import Traits
from sagemaker_monai.preprocessing.preprocessing import Load, Preprocessing, build_load
from sagemaker_monai.storage.digests import Digests

PIXELS_FILE = "pixels.raw"


@dataclass(frozen=True)
class LoadedImages:
    """Decoded images.

    Attributes:
        pixels: (N, C, W, H[, D]) of the preprocessing's `dtype`, read-only if memory-mapped from a cache.
        unreadable: indices of the images that could not be decoded; their pixels are 0.
        traits: what is known of each image; empty for an unreadable one.
    """

    pixels: np.ndarray
    unreadable: tuple[int, ...]
    traits: tuple[Traits, ...] = ()


def load_images(
    samples: Sequence[Sample],
    preprocessing: Preprocessing,
    *,
    cache_dir: Path | None,
    workers: int,
    what: str,
    digests: Digests | None = None,
    is_stopping: Callable[[], bool] = lambda: False,
) -> LoadedImages:
    """Load images, from the cache if possible.

    Args:
        samples: files, folders with the DICOM files of a series, or sequences of them.
        preprocessing: its load half is used.
        cache_dir: where caches are kept, created if missing; None, or a full disk, keeps the pixels in memory.
        workers: number of processes; 1 or less works in this one.
        what: for progress lines, e.g. "reading training images".
        digests: of the run, which has read the files already; None reads them for this cache.
        is_stopping: asked after every image.

    Returns:
        One entry for each of `samples`, in order. Images that cannot be read are listed as unreadable.

    Raises:
        RuntimeError: a worker ended early; names the image it was at.
        DatasetError: files changed while they were read.
        TrainingStopped: `is_stopping` was true.
    """
    digests = Digests() if digests is None else digests
    shape = (len(samples), preprocessing.channels, *preprocessing.size)
    dtype = np.dtype(preprocessing.dtype)
    size_bytes = math.prod(shape) * dtype.itemsize

    def read_into(file: IO[bytes]) -> LoadedImages:
        return _build(samples, preprocessing, shape, file, workers=workers, what=what, is_stopping=is_stopping)

    def build(folder: Path) -> LoadedImages:
        with (folder / PIXELS_FILE).open("w+b") as file:
            try:
                # Reserves the space: writing to a hole on a full disk would kill the process.
                os.posix_fallocate(file.fileno(), 0, size_bytes)
            except OSError as error:
                raise _NoRoomError(error.strerror) from error
            built = read_into(file)
        index = {
            "shape": shape,
            "dtype": dtype.name,
            "unreadable": built.unreadable,
            "crc32": checksum(built.pixels),
            "traits": list(map(pack_traits, built.traits)),
        }
        (folder / INDEX_FILE).write_text(json.dumps(index))
        return LoadedImages(_open_pixels(folder, shape, dtype), built.unreadable, built.traits)

    if cache_dir is None or not samples:
        return _in_memory(read_into, size_bytes)
    try:
        return prepared_once(
            cache_dir,
            lambda: key_of(samples, preprocessing, digests),
            lambda folder: _read(folder, shape, dtype),
            build,
        )
    except _NoRoomError as error:
        print(f"{what}: no room for a cache of {size_bytes} bytes ({error}), keeping it in memory", file=sys.stderr)
        return _in_memory(read_into, size_bytes)


class _NoRoomError(Exception):
    """The disk has too little room for a cache."""


def _in_memory(build: Callable[[IO[bytes]], LoadedImages], size_bytes: int) -> LoadedImages:
    # An anonymous file in memory, which workers can map; not /dev/shm, which containers limit to 64 MB.
    with os.fdopen(os.memfd_create("images"), "w+b") as file:
        file.truncate(size_bytes)
        return build(file)


def _read(folder: Path, shape: tuple[int, ...], dtype: np.dtype) -> LoadedImages | None:
    """Open a cache; None if it is missing or damaged."""
    try:
        index = json.loads((folder / INDEX_FILE).read_text())
        size_bytes = (folder / PIXELS_FILE).stat().st_size
        expected = (math.prod(shape) * dtype.itemsize, list(shape), dtype.name)
        if (size_bytes, index["shape"], index["dtype"]) != expected:
            return None
        pixels = _open_pixels(folder, shape, dtype)
        if checksum(pixels) != index["crc32"]:
            return None
        return LoadedImages(pixels, tuple(index["unreadable"]), tuple(map(unpack_traits, index["traits"])))
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _open_pixels(folder: Path, shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    return np.memmap(folder / PIXELS_FILE, dtype, "r", shape=shape)


def _build(
    samples: Sequence[Sample],
    preprocessing: Preprocessing,
    shape: tuple[int, ...],
    file: IO[bytes],
    *,
    workers: int,
    what: str,
    is_stopping: Callable[[], bool],
) -> LoadedImages:
    pixels = _map(file.fileno(), shape, np.dtype(preprocessing.dtype))
    results = (
        _load_each(pixels, preprocessing.load_pixels, enumerate(samples))
        if workers <= 1
        else _load_in_processes(file.fileno(), shape, preprocessing, samples, workers)
    )
    unreadable = []
    traits = [Traits()] * len(samples)
    for index, told in until_stopped(results, total=len(samples), what=what, is_stopping=is_stopping):
        if told is None:
            unreadable.append(index)
        else:
            traits[index] = told
    return LoadedImages(pixels, tuple(sorted(unreadable)), tuple(traits))


def _map(descriptor: int, shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    size_bytes = math.prod(shape) * dtype.itemsize
    if size_bytes == 0:
        return np.zeros(shape, dtype)
    return np.frombuffer(mmap.mmap(descriptor, size_bytes), dtype).reshape(shape)


def _load_each(
    pixels: np.ndarray, load: Load, samples: Iterable[tuple[int, Sample]]
) -> Generator[tuple[int, Traits | None], None, None]:
    for index, sample in samples:
        try:
            pixels[index], traits = load.pixels_of_one(sample)
            yield index, traits
        except CallerError:
            yield index, None


def _load_in_processes(
    descriptor: int, shape: tuple[int, ...], preprocessing: Preprocessing, samples: Sequence[Sample], workers: int
) -> Generator[tuple[int, Traits | None], None, None]:
    said = {"descriptor": descriptor, "shape": shape, "dtype": preprocessing.dtype, "load": preprocessing.spec[0]}
    jobs = jobs_of(samples, workers, said)
    for index, told in in_processes("sagemaker_monai.data.cache", jobs, pass_fds=[descriptor]):
        yield index, None if told is None else unpack_traits(told)


def _work(job: Mapping[str, Any]) -> Generator[tuple[int, Any], None, None]:
    """Load the samples of a job into its array; the packed traits of each, or None."""
    pixels = _map(job["descriptor"], tuple(job["shape"]), np.dtype(job["dtype"]))
    for index, traits in _load_each(pixels, build_load(job["load"]), samples_of(job)):
        yield index, None if traits is None else pack_traits(traits)


if __name__ == "__main__":
    tell(_work)
