"""What is prepared once for a data set and kept in a folder: the folder's name and content, and who fills it.

The folder is named by a hash of everything that decides its content. It is built under a temporary name and renamed,
so a folder with the right name is complete; if two processes build the same one, the first to finish names it and the
other uses it. One with a wrong checksum is built again.

The workers are plain `python -m MODULE` processes. A multiprocessing pool lost: with `fork` it copies a process that
runs torch's threads; with `spawn` each worker imports the main script again, with torch and MONAI, which takes 5 s of
CPU instead of 0.3 s for a reading module.
"""

import contextlib
import errno
import json
import os
import selectors
import subprocess
import sys
import tempfile
import zlib
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from sagemaker_monai.data.cache_keys import paths_of
from sagemaker_monai.errors import DatasetError, TrainingStopped
from sagemaker_monai.images.sample import Sample, Sequences
from sagemaker_monai.messages.progress import track

INDEX_FILE = "index.json"
_Made = TypeVar("_Made")
_Told = TypeVar("_Told")
_CHECK_BYTES = 16 * 1024**2
_PIPE_BYTES = 65_536


def prepared_once(
    cache_dir: Path, key: Callable[[], str], reopen: Callable[[Path], _Made | None], build: Callable[[Path], _Made]
) -> _Made:
    """Open what was prepared before, or prepare it.

    Args:
        cache_dir: where such folders are kept; created if missing.
        key: the folder's name; asked again after building.
        reopen: opens a folder; None if it is missing or damaged.
        build: fills an empty folder and opens it; what is open must stay valid when the folder is renamed.

    Raises:
        DatasetError: the key is another one after building.
    """
    cache_dir.mkdir(parents=True, exist_ok=True)
    name = key()
    folder = cache_dir / name
    if (found := reopen(folder)) is not None:
        return found
    with tempfile.TemporaryDirectory(dir=cache_dir, prefix=".building-", ignore_cleanup_errors=True) as temporary:
        building = Path(temporary) / name
        building.mkdir()
        made = build(building)
        if key() != name:  # or the folder would have the name of the old files
            raise DatasetError("files changed while they were read: leave the data set unchanged and start again")
        if _rename(building, folder):
            return made
        if (other := reopen(folder)) is not None:
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
        return False  # a damaged folder has the name, or another process was faster
    return True


def checksum(values: np.ndarray) -> int:
    """CRC-32 of an array's bytes; a second for 1.5 GB, and it brings a file into memory, where training needs it."""
    flat = values.reshape(-1).view(np.uint8).data
    found = 0
    for start in range(0, len(flat), _CHECK_BYTES):
        found = zlib.crc32(flat[start : start + _CHECK_BYTES], found)
    return found


def until_stopped(
    results: Generator[_Told, None, None], *, total: int, what: str, is_stopping: Callable[[], bool]
) -> Iterator[_Told]:
    """Yield results with progress lines, and end their generator, whatever happens.

    Raises:
        TrainingStopped: `is_stopping`, asked after every result, said yes.
    """
    # Closed before a folder is removed: no worker writes into it any more.
    with contextlib.closing(results):
        for result in track(results, total=total, what=what):
            yield result
            if is_stopping():
                raise TrainingStopped("training was stopped while images were read, so there is nothing to save")


def in_processes(
    module: str, jobs: Sequence[Mapping[str, Any]], *, pass_fds: Sequence[int] = ()
) -> Generator[tuple[int, Any], None, None]:
    """Give each process a job, and yield what they tell: the places of samples with results.

    Args:
        module: what `python -m` runs; it calls `tell`.
        jobs: of `jobs_of`, one a process.
        pass_fds: descriptors that stay open in the processes.

    Raises:
        OSError: what a process told of.
        RuntimeError: a process ended without telling of all its samples.
    """
    # A pipe for each process: what several write into one would mix where it is long.
    rest: dict[int, bytes] = {}
    with contextlib.ExitStack() as stack:
        selector = stack.enter_context(selectors.DefaultSelector())
        started: list[subprocess.Popen[bytes]] = []
        left: list[dict[int, str]] = []
        stack.callback(_end, started)
        for job in jobs:
            worker = subprocess.Popen(  # noqa: S603 - one of our own modules
                [sys.executable, "-m", module], stdin=subprocess.PIPE, stdout=subprocess.PIPE, pass_fds=pass_fds
            )
            started.append(worker)
            left.append({index: Path(names[0]).name for index, _, names, _ in job["samples"]})
            assert worker.stdin is not None
            assert worker.stdout is not None
            stack.enter_context(worker.stdout)
            selector.register(worker.stdout, selectors.EVENT_READ, left[-1])
            with contextlib.suppress(BrokenPipeError), worker.stdin as stdin:  # its exit status is checked later
                stdin.write(json.dumps(job).encode())
        while selector.get_map():
            for ready, _ in selector.select():
                data = os.read(ready.fd, _PIPE_BYTES)
                if not data:
                    selector.unregister(ready.fileobj)
                *lines, rest[ready.fd] = (rest.get(ready.fd, b"") + data).split(b"\n")
                for line in lines:
                    place, told = json.loads(line)
                    if place is None:
                        raise OSError(told, os.strerror(told))
                    ready.data.pop(place, None)
                    yield place, told
        for worker, unread in zip(started, left, strict=True):
            if (code := worker.wait()) or unread:
                where = next(iter(unread.values()), "the end")
                raise RuntimeError(f"a process that reads images ended with status {code} at {where}")


def _end(workers: Sequence[subprocess.Popen[bytes]]) -> None:
    for worker in workers:
        if worker.poll() is None:
            worker.kill()
        worker.wait()


def tell(work: Callable[[Any], Iterable[tuple[int, Any]]]) -> None:
    """In a process: do the job of standard input, and write each result as a line.

    A fault of the disk is told there too, as it is a fault of the machine and not of the process.
    """
    with os.fdopen(os.dup(1), "wb") as pipe:
        os.dup2(2, 1)  # what a library prints is no result

        def write(told: Any) -> None:
            pipe.write(json.dumps(told).encode() + b"\n")
            pipe.flush()

        try:
            for told in work(json.loads(sys.stdin.buffer.read())):
                write(told)
        except OSError as error:
            write((None, error.errno or errno.EIO))


def jobs_of(samples: Sequence[Sample], workers: int, said: Mapping[str, Any]) -> list[dict[str, Any]]:
    """A job for each of at most so many workers: its number as `part`, its share of the samples, and what is said."""
    workers = max(1, min(workers, len(samples)))
    told = [
        [index, isinstance(sample.source, Sequences), list(map(os.fsdecode, paths_of(sample))), sample.formats]
        for index, sample in enumerate(samples)
    ]
    return [{**said, "part": part, "samples": told[part::workers]} for part in range(workers)]


def samples_of(job: Mapping[str, Any]) -> Iterator[tuple[int, Sample]]:
    """The samples of a job with their places."""
    for index, is_sequences, names, formats in job["samples"]:
        paths = tuple(map(Path, names))
        yield index, Sample(Sequences(paths) if is_sequences else paths[0], tuple(formats))
