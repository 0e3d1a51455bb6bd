"""The load half of the preprocessing, done once for a data set: one uint8 array (N, C, W, H), memory-mapped from disk.

A cache is a folder named by the hash of everything that decides its pixels, with the array, the list of unreadable
images and a checksum. It is built under another name and renamed, so a folder with the right name is whole; of two
processes that build the same one, the first to finish gives it its name and the other uses that. A folder whose
checksum does not agree is built again.

The workers are plain `python -m sagemaker_monai.cache` processes which write into the array themselves. A
multiprocessing pool lost: with `fork` it copies a process that runs torch's threads, with `spawn` each worker imports
the main script again, torch and MONAI with it: 5 s of CPU for each, where this module takes 0.3 s.
"""

import contextlib
import errno
import functools
import hashlib
import json
import mmap
import os
import subprocess
import sys
import tempfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
import PIL.features

import sagemaker_monai
from sagemaker_monai.errors import CallerError, TrainingStopped
from sagemaker_monai.progress import track
from sagemaker_monai.samples import Sample
from sagemaker_monai.transforms import LoadPhotograph, Preprocessing

PIXELS_FILE = "pixels.u8"
INDEX_FILE = "index.json"
_LAYOUT = 1  # of the folder; part of the key
_CHECK_BYTES = 16 * 1024**2


@dataclass(frozen=True)
class LoadedImages:
    """The pictures of one split.

    Attributes:
        pixels: uint8 (N, C, W, H), read-only when it is memory-mapped from a cache.
        unreadable: indices of the pictures that could not be decoded; their pixels are 0.
    """

    pixels: np.ndarray
    unreadable: tuple[int, ...]


def load_images(
    samples: Sequence[Path],
    preprocessing: Preprocessing,
    *,
    cache_dir: Path | None,
    workers: int,
    what: str,
    is_stopping: Callable[[], bool] = lambda: False,
) -> LoadedImages:
    """Load picture files, from the cache when they are there.

    Args:
        samples: the files.
        preprocessing: its load half is used.
        cache_dir: where caches are kept, made when missing; None, or too small a disk, keeps the pixels in memory.
        workers: number of processes; 1 or less works in this one.
        what: what the progress lines are about, e.g. "reading training images".
        is_stopping: asked after every picture.

    Returns:
        One entry for each of `samples`, in order. A file that cannot be read, or not as a picture, is listed, not
        raised.

    Raises:
        RuntimeError: a worker ended without finishing; names the picture it was at.
        TrainingStopped: `is_stopping` said yes.
    """
    shape = (len(samples), preprocessing.channels, *preprocessing.size)
    size_bytes = int(np.prod(shape))
    build = functools.partial(
        _build, samples, preprocessing.load_pixels, shape, workers=workers, what=what, is_stopping=is_stopping
    )
    if cache_dir is None or not samples:
        return _in_memory(build, size_bytes)
    cache_dir.mkdir(parents=True, exist_ok=True)
    folder = cache_dir / _key(samples, preprocessing)
    if (found := _read(folder, shape)) is not None:
        return found
    with tempfile.TemporaryDirectory(dir=cache_dir, prefix=".building-", ignore_cleanup_errors=True) as name:
        building = Path(name) / folder.name
        building.mkdir()
        with (building / PIXELS_FILE).open("w+b") as file:
            try:
                # Reserves the space: a hole that finds the disk full later would kill the process that writes to it.
                os.posix_fallocate(file.fileno(), 0, size_bytes)
            except OSError as error:
                print(
                    f"{what}: no room for a cache of {size_bytes} bytes ({error.strerror}), keeping it in memory",
                    file=sys.stderr,
                )
                return _in_memory(build, size_bytes)
            built = build(file)
        index = {"shape": shape, "unreadable": built.unreadable, "crc32": _checksum(built.pixels)}
        (building / INDEX_FILE).write_text(json.dumps(index))
        # Mapped before the renaming: it stays valid whatever another process does to the names.
        loaded = LoadedImages(_open_pixels(building, shape), built.unreadable)
        return loaded if _rename(building, folder) else _read(folder, shape) or _replace(folder, building, loaded)


def _rename(building: Path, folder: Path) -> bool:
    try:
        building.rename(folder)
    except OSError as error:
        if error.errno not in (errno.EEXIST, errno.ENOTEMPTY, errno.ENOTDIR):
            raise
        return False  # a broken one has the name, or another process gave it to its own meanwhile
    return True


def _replace(folder: Path, building: Path, loaded: LoadedImages) -> LoadedImages:
    with contextlib.suppress(FileNotFoundError):  # another process is doing the same
        folder.rename(building.with_name("broken"))
    _rename(building, folder)
    return loaded


def _in_memory(build: "functools.partial[LoadedImages]", size_bytes: int) -> LoadedImages:
    # A nameless file in memory, which workers can map; not /dev/shm, which containers keep at 64 MB.
    with os.fdopen(os.memfd_create("images"), "w+b") as file:
        file.truncate(size_bytes)
        return build(file)


def _key(samples: Sequence[Path], preprocessing: Preprocessing) -> str:
    digest = hashlib.sha256()
    versions: list[str | None] = [sagemaker_monai.__version__, np.__version__, PIL.__version__]
    versions += [PIL.features.version(codec) for codec in ("jpg", "libjpeg_turbo", "zlib", "libtiff", "webp")]
    digest.update(json.dumps([_LAYOUT, versions, preprocessing.spec[0]], sort_keys=True).encode())
    for path in samples:
        try:
            status = path.stat()
            entry = [str(path), status.st_size, status.st_mtime_ns]
        except OSError:
            entry = [str(path)]
        digest.update(json.dumps(entry).encode())
    return digest.hexdigest()


def _read(folder: Path, shape: tuple[int, ...]) -> LoadedImages | None:
    """Open a cache; None when it is not there or not whole."""
    try:
        index = json.loads((folder / INDEX_FILE).read_text())
        if (folder / PIXELS_FILE).stat().st_size != np.prod(shape) or tuple(index["shape"]) != shape:
            return None
        pixels = _open_pixels(folder, shape)
        # A second for 1.5 GB, and it brings the file into memory, where training wants it anyway.
        if _checksum(pixels) != index["crc32"]:
            return None
        return LoadedImages(pixels, tuple(index["unreadable"]))
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _open_pixels(folder: Path, shape: tuple[int, ...]) -> np.ndarray:
    return np.memmap(folder / PIXELS_FILE, np.uint8, "r", shape=shape)


def _checksum(pixels: np.ndarray) -> int:
    flat = pixels.reshape(-1).data
    checksum = 0
    for start in range(0, len(flat), _CHECK_BYTES):
        checksum = zlib.crc32(flat[start : start + _CHECK_BYTES], checksum)
    return checksum


def _build(
    samples: Sequence[Path],
    load: LoadPhotograph,
    shape: tuple[int, ...],
    file: IO[bytes],
    *,
    workers: int,
    what: str,
    is_stopping: Callable[[], bool],
) -> LoadedImages:
    pixels = _map(file.fileno(), shape)
    results = (
        _load_each(pixels, load, enumerate(samples))
        if workers <= 1
        else _load_in_processes(file.fileno(), shape, load, samples, workers)
    )
    unreadable = []
    for index, is_read in track(results, total=len(samples), what=what):
        if not is_read:
            unreadable.append(index)
        if is_stopping():
            raise TrainingStopped("training was stopped while images were read, so there is nothing to save")
    return LoadedImages(pixels, tuple(sorted(unreadable)))


def _map(descriptor: int, shape: tuple[int, ...]) -> np.ndarray:
    size_bytes = int(np.prod(shape))
    if size_bytes == 0:
        return np.zeros(shape, np.uint8)
    return np.frombuffer(mmap.mmap(descriptor, size_bytes), np.uint8).reshape(shape)


def _load_each(
    pixels: np.ndarray, load: LoadPhotograph, samples: Iterator[tuple[int, Path]]
) -> Iterator[tuple[int, bool]]:
    for index, path in samples:
        try:
            pixels[index] = load.pixels(Sample(path))
            yield index, True
        except CallerError:
            yield index, False


def _load_in_processes(
    descriptor: int, shape: tuple[int, ...], load: LoadPhotograph, samples: Sequence[Path], workers: int
) -> Iterator[tuple[int, bool]]:
    """Deal the pictures out, and yield what the workers report through one shared pipe."""
    arguments = {"channels": load.channels, "size": load.size, "fit": load.fit}
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
                        "load": arguments,
                        "samples": [[index, os.fsdecode(samples[index])] for index in hand],
                    }
                    started.append(_start_worker(job, descriptor, writing))
            finally:
                os.close(writing)  # so that the reports end with the last worker
            for line in reports:
                index, is_read = line.split()
                left.discard(int(index))
                yield int(index), is_read == "1"
        for worker, hand in zip(started, hands, strict=True):
            code = worker.wait()
            unfinished = [index for index in hand if index in left]
            if code != 0 or unfinished:
                where = samples[unfinished[0]].name if unfinished else "the end"
                raise RuntimeError(f"a process that reads images ended with status {code} at {where}")
    finally:
        for worker in started:
            if worker.poll() is None:
                worker.kill()
            worker.wait()


def _start_worker(job: dict[str, Any], descriptor: int, writing: int) -> "subprocess.Popen[bytes]":
    worker = subprocess.Popen(
        [sys.executable, "-m", "sagemaker_monai.cache"],
        stdin=subprocess.PIPE,
        stdout=writing,
        pass_fds=[descriptor],
    )
    assert worker.stdin is not None
    with contextlib.suppress(BrokenPipeError), worker.stdin as stdin:  # its status will tell
        stdin.write(json.dumps(job).encode())
    return worker


def _work() -> None:
    """Be a worker: one job from standard input, a line `INDEX 1` or `INDEX 0` for each picture to standard output."""
    job = json.loads(sys.stdin.buffer.read())
    pixels = _map(job["descriptor"], tuple(job["shape"]))
    samples = ((index, Path(path)) for index, path in job["samples"])
    for index, is_read in _load_each(pixels, LoadPhotograph(**job["load"]), samples):
        # One short write each: the system keeps lines of several processes apart in a pipe.
        os.write(sys.stdout.fileno(), b"%d %d\n" % (index, is_read))


if __name__ == "__main__":
    _work()
