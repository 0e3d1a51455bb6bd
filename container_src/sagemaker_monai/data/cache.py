"""The load half of preprocessing, done once per data set: one array (N, C, W, H[, D]), memory-mapped from disk.

A cache is a folder named by the hash of everything that decides its pixels, with the array, the list of unreadable
images and a checksum. It is built under a temporary name and renamed, so a folder with the right name is complete; if
two processes build the same one, the first to finish names it and the other uses it. A folder with a wrong checksum is
built again.

The workers are plain `python -m sagemaker_monai.data.cache` processes that write into the array themselves. A
multiprocessing pool lost: with `fork` it copies a process that runs torch's threads; with `spawn` each worker imports
the main script again, with torch and MONAI, which takes 5 s of CPU instead of 0.3 s for this module.
"""

import contextlib
import errno
import json
import math
import mmap
import os
import subprocess
import sys
import tempfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, TypeVar

import numpy as np

from sagemaker_monai.data.cache_keys import key_of, paths_of
from sagemaker_monai.errors import CallerError, DatasetError, TrainingStopped
from sagemaker_monai.images.sample import Sample, Sequences
from sagemaker_monai.images.scope import pack_traits, unpack_traits
from sagemaker_monai.images.volumes import Traits
from sagemaker_monai.messages.progress import track
from sagemaker_monai.preprocessing.preprocessing import Load, Preprocessing, build_load
from sagemaker_monai.storage.digests import Digests

PIXELS_FILE = "pixels.raw"
INDEX_FILE = "index.json"
_Made = TypeVar("_Made")
_CHECK_BYTES = 16 * 1024**2


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

    def build(file: IO[bytes]) -> LoadedImages:
        return _build(samples, preprocessing, shape, file, workers=workers, what=what, is_stopping=is_stopping)

    if cache_dir is None or not samples:
        return _in_memory(build, size_bytes)
    cache_dir.mkdir(parents=True, exist_ok=True)
    key = key_of(samples, preprocessing, digests)
    folder = cache_dir / key
    if (found := _read(folder, shape, dtype)) is not None:
        return found
    with tempfile.TemporaryDirectory(dir=cache_dir, prefix=".building-", ignore_cleanup_errors=True) as name:
        building = Path(name) / folder.name
        building.mkdir()
        with (building / PIXELS_FILE).open("w+b") as file:
            try:
                # Reserves the space: writing to a hole on a full disk would kill the process.
                os.posix_fallocate(file.fileno(), 0, size_bytes)
            except OSError as error:
                print(
                    f"{what}: no room for a cache of {size_bytes} bytes ({error.strerror}), keeping it in memory",
                    file=sys.stderr,
                )
                return _in_memory(build, size_bytes)
            built = build(file)
        if key_of(samples, preprocessing, digests) != key:  # or the cache would have the name of the old files
            raise DatasetError("files changed while they were read: leave the data set unchanged and start again")
        index = {
            "shape": shape,
            "dtype": dtype.name,
            "unreadable": built.unreadable,
            "crc32": _checksum(built.pixels),
            "traits": list(map(pack_traits, built.traits)),
        }
        (building / INDEX_FILE).write_text(json.dumps(index))
        # Mapped before renaming: it stays valid whatever another process renames.
        loaded = LoadedImages(_open_pixels(building, shape, dtype), built.unreadable, built.traits)
        return publish(building, folder, loaded, lambda: _read(folder, shape, dtype))


def publish(building: Path, folder: Path, made: _Made, reopen: Callable[[], _Made | None]) -> _Made:
    """Give a finished folder its name; what is used then, this one or another process's.

    Args:
        building: the folder under another name, on the same file system; what is open in it stays valid.
        folder: its name.
        made: what was opened in `building`.
        reopen: opens what has the name; None for a damaged one, which is replaced.
    """
    if _rename(building, folder):
        return made
    if (other := reopen()) is not None:
        return other
    with contextlib.suppress(FileNotFoundError):  # another process does the same
        folder.rename(building.with_name("broken"))
    _rename(building, folder)
    return made


def _rename(building: Path, folder: Path) -> bool:
    try:
        building.rename(folder)
    except OSError as error:
        if error.errno not in (errno.EEXIST, errno.ENOTEMPTY, errno.ENOTDIR):
            raise
        return False  # a damaged cache has the name, or another process was faster
    return True


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
        # A second for 1.5 GB, and it brings the file into memory, where training needs it anyway.
        if _checksum(pixels) != index["crc32"]:
            return None
        return LoadedImages(pixels, tuple(index["unreadable"]), tuple(map(unpack_traits, index["traits"])))
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _open_pixels(folder: Path, shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    return np.memmap(folder / PIXELS_FILE, dtype, "r", shape=shape)


def _checksum(pixels: np.ndarray) -> int:
    flat = pixels.reshape(-1).view(np.uint8).data
    checksum = 0
    for start in range(0, len(flat), _CHECK_BYTES):
        checksum = zlib.crc32(flat[start : start + _CHECK_BYTES], checksum)
    return checksum


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
    for index, told in track(results, total=len(samples), what=what):
        if told is None:
            unreadable.append(index)
        else:
            traits[index] = told
        if is_stopping():
            raise TrainingStopped("training was stopped while images were read, so there is nothing to save")
    return LoadedImages(pixels, tuple(sorted(unreadable)), tuple(traits))


def _map(descriptor: int, shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    size_bytes = math.prod(shape) * dtype.itemsize
    if size_bytes == 0:
        return np.zeros(shape, dtype)
    return np.frombuffer(mmap.mmap(descriptor, size_bytes), dtype).reshape(shape)


def _load_each(
    pixels: np.ndarray, load: Load, samples: Iterator[tuple[int, Sample]]
) -> Iterator[tuple[int, Traits | None]]:
    for index, sample in samples:
        try:
            pixels[index], traits = load.pixels_of_one(sample)
            yield index, traits
        except CallerError:
            yield index, None


def _load_in_processes(
    descriptor: int, shape: tuple[int, ...], preprocessing: Preprocessing, samples: Sequence[Sample], workers: int
) -> Iterator[tuple[int, Traits | None]]:
    """Distribute the images to workers, and yield what they report through one shared pipe."""
    hands = [list(range(worker, len(samples), workers)) for worker in range(min(workers, len(samples)))]
    reading, writing = os.pipe()
    started: list[subprocess.Popen[bytes]] = []
    left = set(range(len(samples)))
    try:
        with os.fdopen(reading, "r") as reports:
            try:
                for hand in hands:
                    job = {
                        "descriptor": descriptor,
                        "shape": shape,
                        "dtype": preprocessing.dtype,
                        "load": preprocessing.spec[0],
                        "samples": [to_json(index, samples[index]) for index in hand],
                    }
                    started.append(_start_worker(job, descriptor, writing))
            finally:
                os.close(writing)  # so that reading ends with the last worker
            for line in reports:
                index, _, told = line.partition(" ")
                left.discard(int(index))
                yield int(index), unpack_traits(json.loads(told)) if told.strip() else None
        for worker, hand in zip(started, hands, strict=True):
            code = worker.wait()
            unfinished = [index for index in hand if index in left]
            if code != 0 or unfinished:
                where = paths_of(samples[unfinished[0]])[0].name if unfinished else "the end"
                raise RuntimeError(f"a process that reads images ended with status {code} at {where}")
    finally:
        for worker in started:
            if worker.poll() is None:
                worker.kill()
            worker.wait()


def _start_worker(job: dict[str, Any], descriptor: int, writing: int) -> "subprocess.Popen[bytes]":
    worker = subprocess.Popen(
        [sys.executable, "-m", "sagemaker_monai.data.cache"],
        stdin=subprocess.PIPE,
        stdout=writing,
        pass_fds=[descriptor],
    )
    assert worker.stdin is not None
    with contextlib.suppress(BrokenPipeError), worker.stdin as stdin:  # its exit status is checked later
        stdin.write(json.dumps(job).encode())
    return worker


def to_json(index: int, sample: Sample) -> list[Any]:
    """A sample of files for the job of a worker."""
    paths = [os.fsdecode(path) for path in paths_of(sample)]
    return [index, isinstance(sample.source, Sequences), paths, sample.formats]


def from_json(index: int, is_sequences: bool, names: list[str], formats: list[str]) -> tuple[int, Sample]:
    """What `to_json` was given."""
    paths = tuple(Path(name) for name in names)
    return index, Sample(Sequences(paths) if is_sequences else paths[0], tuple(formats))


def _work() -> None:
    """Read one job from standard input; write a line `INDEX TRAITS` or `INDEX` per image to standard output."""
    job = json.loads(sys.stdin.buffer.read())
    pixels = _map(job["descriptor"], tuple(job["shape"]), np.dtype(job["dtype"]))
    samples = (from_json(*entry) for entry in job["samples"])
    for index, traits in _load_each(pixels, build_load(job["load"]), samples):
        told = "" if traits is None else json.dumps(pack_traits(traits))
        # One short write each (below PIPE_BUF), so that lines of several processes do not mix in the pipe.
        os.write(sys.stdout.fileno(), f"{index} {told}\n".encode())


if __name__ == "__main__":
    _work()
