"""How much memory this container has left, how much a model takes, and what remains for the requests.

A container that loads one model too many loses a process, and the kernel chooses which: it may be one that answers.
SageMaker unloads models when it is told that there is no room, so it must be told in time.
"""

import asyncio
import resource
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path
from typing import TextIO

from sagemaker_monai.errors import NotEnoughMemory

CGROUP = Path("/sys/fs/cgroup")
MEMINFO = Path("/proc/meminfo")
OWN_GROUPS = Path("/proc/self/cgroup")
OOM_SCORE = Path("/proc/self/oom_score_adj")
MIB = 1024 * 1024
# A model that has just been unloaded may still be counted: the kernel takes its memory back after its process ended.
SETTLE_S, POLL_S = 1.0, 0.05
# Measured at the peak of loading resnet18 (45 MB) and seresnet50 (105 MB) and of answering with them: 466 and 576 MiB
# for one process, of which 125 are files that all models share. The model server's forking process is 20 more.
PROCESS_BYTES = 400 * MIB
WEIGHTS_FACTOR = 2  # the file's tensors and the network's are in memory at once for a moment

# One row a version of control groups: the controller's name in /proc/self/cgroup, where it is mounted, limit, use,
# statistics, their names of page cache and of what is mapped of it.
VERSIONS = (
    ("", "", "memory.max", "memory.current", "memory.stat", ("active_file", "inactive_file"), "file_mapped"),
    (
        "memory",
        "memory",
        "memory.limit_in_bytes",
        "memory.usage_in_bytes",
        "memory.stat",
        ("total_active_file", "total_inactive_file"),
        "total_mapped_file",
    ),
)
KILL_COUNTERS = {"": "memory.events", "memory": "memory.oom_control"}  # by the controller's name
# What Python, torch, libraries in C++ and the kernel say when memory is short.
SIGNS_OF_NO_MEMORY = (
    *("MemoryError", "allocate memory", "out of memory", "not enough memory", "bad_alloc", "bad allocation"),
)

# Of a container's memory, what is nobody's request: the supervisor with small bodies, and files that lie in memory.
SUPERVISOR_BYTES = 256 * MIB
SLACK_BYTES = 128 * MIB  # of each process, for what no budget counts
GPU_SLACK_BYTES = 2 * 1024 * MIB  # what CUDA's libraries keep on the host; a guess


def free_bytes(*, cgroup: Path = CGROUP, meminfo: Path = MEMINFO, own: Path = OWN_GROUPS) -> int:
    """What processes of this container can still take, never below 0.

    The container's limit less its use, or that of a group around it, or the machine's free memory, where that is less.
    Page cache counts as free, because the kernel gives it back, unless it is mapped: those are the libraries that run.

    Args:
        cgroup: where control groups are mounted, version 2 or 1.
        meminfo: the kernel's table of the whole machine.
        own: the kernel's list of the groups of this process.
    """
    free = [_table(meminfo)["MemAvailable:"] * 1024]
    for controller, mount, limit, use, statistics, cache, mapped in VERSIONS:
        for folder in _groups(controller, cgroup / mount, own):
            with suppress(OSError, ValueError):  # this version is not mounted, or "max": there is no limit
                table = _table(folder / statistics)
                reclaimable = sum(table[name] for name in cache) - table[mapped]
                used = int((folder / use).read_text()) - max(0, reclaimable)
                free.append(int((folder / limit).read_text()) - used)
    return max(0, min(free))


def _groups(controller: str, mount: Path, own: Path) -> list[Path]:
    """The folders of this process's group and of those around it, inmost first.

    In a container the mount is its own group, and the name that the kernel tells may be that of the host, which is not
    there.
    """
    rows = [line.split(":", 2) for line in (own.read_text().splitlines() if own.exists() else [])]
    names = [name for _, controllers, name in rows if controller in controllers.split(",")]
    parts = Path(names[0] if names else "/").parts[1:]
    inner = [] if ".." in parts else [mount.joinpath(*parts[:count]) for count in range(len(parts), 0, -1)]
    return [folder for folder in inner if folder.is_dir()] + [mount]


def killed_processes(*, cgroup: Path = CGROUP, own: Path = OWN_GROUPS) -> int:
    """How many processes of this container the kernel has ended so far for want of memory."""
    for controller, mount, *_ in VERSIONS:
        for folder in _groups(controller, cgroup / mount, own):
            with suppress(OSError, KeyError):
                return _table(folder / KILL_COUNTERS[controller])["oom_kill"]
    return 0


def is_out_of_memory(error: BaseException | None) -> bool:
    """Whether an error, or what it comes from, is one of memory."""
    while error is not None:
        if isinstance(error, MemoryError) or any(sign in str(error) for sign in SIGNS_OF_NO_MEMORY):
            return True
        error = error.__cause__ or error.__context__
    return False


def request_share(free: int, needed: int, processes: int) -> int:
    """What a request may take so that all processes can work on one at once.

    Args:
        free: bytes before any of them was started.
        needed: by a process with its model.
        processes: how many.
    """
    return max(0, (free - SUPERVISOR_BYTES) // processes - needed - SLACK_BYTES)


def process_growth(request_bytes: int, *, has_gpu: bool) -> int:
    """What a process may take above what it has after its warm-up."""
    return request_bytes + (GPU_SLACK_BYTES if has_gpu else SLACK_BYTES)


def limit_growth(size_bytes: int, *, status: Path = Path("/proc/self/status")) -> None:
    """Let this process take so much more memory than it has, and no more: then its next allocation fails.

    Source: getrlimit(2), RLIMIT_DATA, which counts private mappings since Linux 4.7.
    """
    limit = _table(status)["VmData:"] * 1024 + size_bytes
    hard = resource.getrlimit(resource.RLIMIT_DATA)[1]
    limit = limit if hard == resource.RLIM_INFINITY else min(limit, hard)
    resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))


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
    """Lines of a name and a number; others are passed over."""
    words = (line.split() for line in path.read_text().splitlines())
    return {row[0]: int(row[1]) for row in words if len(row) > 1 and row[1].isdecimal()}
