"""How much memory this container has left and how much a model takes: asked before a model is loaded.

A container that loads one model too many loses a process, and the kernel chooses which: it may be one that answers.
SageMaker unloads models when it is told that there is no room, so it must be told in time.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path
from typing import TextIO

from sagemaker_monai.errors import NotEnoughMemory

CGROUP = Path("/sys/fs/cgroup")
MEMINFO = Path("/proc/meminfo")
OOM_SCORE = Path("/proc/self/oom_score_adj")
MIB = 1024 * 1024
# A model that has just been unloaded may still be counted: the kernel takes its memory back after its process ended.
SETTLE_S, POLL_S = 1.0, 0.05
# Measured at the peak of loading resnet18 (45 MB) and seresnet50 (105 MB) and of answering with them: 466 and 576 MiB
# for one process, of which 125 are files that all models share. The model server's forking process is 20 more.
PROCESS_BYTES = 400 * MIB
WEIGHTS_FACTOR = 2  # the file's tensors and the network's are in memory at once for a moment

# One row a version of control groups: limit, use, statistics, their names of page cache and of what is mapped of it.
VERSIONS = (
    ("memory.max", "memory.current", "memory.stat", ("active_file", "inactive_file"), "file_mapped"),
    (
        "memory/memory.limit_in_bytes",
        "memory/memory.usage_in_bytes",
        "memory/memory.stat",
        ("total_active_file", "total_inactive_file"),
        "total_mapped_file",
    ),
)
KILL_COUNTERS = ("memory.events", "memory/memory.oom_control")


def free_bytes(*, cgroup: Path = CGROUP, meminfo: Path = MEMINFO) -> int:
    """What processes of this container can still take, never below 0.

    The container's limit less its use, or the machine's free memory where that is less. Page cache counts as free,
    because the kernel gives it back, unless it is mapped: those are the libraries that run.

    Args:
        cgroup: where control groups are mounted, version 2 or 1.
        meminfo: the kernel's table of the whole machine.
    """
    free = [_table(meminfo)["MemAvailable:"] * 1024]
    for limit, use, statistics, cache, mapped in VERSIONS:
        with suppress(OSError, ValueError):  # this version is not mounted, or "max": there is no limit
            table = _table(cgroup / statistics)
            reclaimable = sum(table[name] for name in cache) - table[mapped]
            used = int((cgroup / use).read_text()) - max(0, reclaimable)
            free.append(int((cgroup / limit).read_text()) - used)
    return max(0, min(free))


def killed_processes(*, cgroup: Path = CGROUP) -> int:
    """How many processes of this container the kernel has ended so far for want of memory."""
    for name in KILL_COUNTERS:
        with suppress(OSError, KeyError):
            return _table(cgroup / name)["oom_kill"]
    return 0


def needed_bytes(folder: Path, *, processes: int) -> int:
    """An estimate of what a model takes while it is loaded, by the size of its files.

    Args:
        folder: the artifact.
        processes: how many will hold it.
    """
    size = sum(path.lstat().st_size for path in folder.rglob("*") if path.is_file() and not path.is_symlink())
    return processes * (PROCESS_BYTES + WEIGHTS_FACTOR * size)


@contextmanager
def first_to_end(path: Path = OOM_SCORE) -> Iterator[None]:
    """While a process loads a model, let the kernel end it before any other when memory is short: others answer."""
    # Raising it, and lowering it to what it was, needs no right; where it is forbidden, the kernel chooses. It stays
    # open, because it is root's once this process is locked down.
    try:
        stream = path.open("r+", encoding="ascii")
    except OSError:
        yield
        return
    with stream:
        usual = stream.read()
        _rewrite(stream, "1000")
        try:
            yield
        finally:
            _rewrite(stream, usual)


def _rewrite(stream: TextIO, text: str) -> None:
    stream.seek(0)
    stream.write(text)
    stream.flush()
    with suppress(OSError):  # the kernel's own files have no length
        stream.truncate()


class MemoryBudget:
    """Lends memory to models that are being loaded, so that two at once do not both count on the same."""

    def __init__(self, free: Callable[[], int] = free_bytes) -> None:
        self._free = free
        self._lent = 0

    @asynccontextmanager
    async def lend(self, size_bytes: int) -> AsyncIterator[None]:
        """Set memory aside until the model has taken it, or has failed to load.

        Raises:
            NotEnoughMemory: there is not as much.
        """
        deadline = time.monotonic() + SETTLE_S
        while size_bytes > (free := max(0, self._free() - self._lent)):
            if time.monotonic() > deadline:
                raise NotEnoughMemory(
                    f"the model needs about {size_bytes // MIB} MiB and {free // MIB} MiB are free: unload another "
                    "model, or give the container more memory"
                )
            await asyncio.sleep(POLL_S)
        self._lent += size_bytes
        try:
            yield
        finally:
            self._lent -= size_bytes


def _table(path: Path) -> dict[str, int]:
    """Lines of a name and a number."""
    words = (line.split() for line in path.read_text().splitlines())
    return {row[0]: int(row[1]) for row in words if len(row) > 1}
