"""How much memory this container has left, how much a model takes, and how much remains for requests.

When a container loads one model too many, the kernel kills a process of its own choice, maybe one that answers.
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
# The memory of a model that was just unloaded may still be counted: the kernel frees it after its process has ended.
SETTLE_S, POLL_S = 1.0, 0.05
# Measured at the peak of loading resnet18 (45 MB) and seresnet50 (105 MB) and of answering with them: 466 and 576 MiB
# for one process, of which 125 are files that all models share. The model server's forking process is 20 more.
PROCESS_BYTES = 400 * MIB
WEIGHTS_FACTOR = 2  # the file's tensors and the network's are in memory at once for a moment

# A row per version of control groups (2, 1): the controller's name in /proc/self/cgroup, which is also where it is
# mounted; files with the limit, the use and the count of kills; the prefix of names in memory.stat, and mapped files.
VERSIONS = (
    ("", "memory.max", "memory.current", "memory.events", "", "file_mapped"),
    ("memory", "memory.limit_in_bytes", "memory.usage_in_bytes", "memory.oom_control", "total_", "total_mapped_file"),
)
# Words in the errors of Python, torch, C++ libraries and the kernel when memory is short.
SIGNS_OF_NO_MEMORY = (
    "MemoryError", "allocate memory", "out of memory", "not enough memory", "bad_alloc", "bad allocation",
)  # fmt: skip

# The memory that no request uses: the supervisor with small bodies, and files that lie in memory.
SUPERVISOR_BYTES = 256 * MIB
SLACK_BYTES = 128 * MIB  # of each process, for memory that no budget counts
GPU_SLACK_BYTES = 2 * 1024 * MIB  # what CUDA's libraries keep on the host; a guess


def free_bytes(*, cgroup: Path = CGROUP, meminfo: Path = MEMINFO, own: Path = OWN_GROUPS) -> int:
    """The memory that processes of this container can still take, never below 0.

    The least of: the container's limit less its use, the same for each group around it, and the machine's free memory.
    Page cache counts as free, because the kernel reclaims it, except mapped files: those are the libraries that run.

    Args:
        cgroup: where control groups are mounted, version 2 or 1.
        meminfo: the kernel's table of the whole machine.
        own: the kernel's list of the groups of this process.
    """
    free = [_table(meminfo)["MemAvailable:"] * 1024]
    for controller, limit, use, _, prefix, mapped in VERSIONS:
        for folder in _groups(controller, cgroup, own):
            with suppress(OSError, ValueError):  # this version is not mounted, or "max": there is no limit
                table = _table(folder / "memory.stat")
                reclaimable = table[f"{prefix}active_file"] + table[f"{prefix}inactive_file"] - table[mapped]
                used = int((folder / use).read_text()) - max(0, reclaimable)
                free.append(int((folder / limit).read_text()) - used)
    return max(0, min(free))


def _groups(controller: str, cgroup: Path, own: Path) -> list[Path]:
    """The folders of this process's group and of the groups around it, innermost first.

    In a container the mount is its own group, and the kernel may give the group's name on the host, which does not
    exist here.
    """
    mount = cgroup / controller
    rows = [line.split(":", 2) for line in (own.read_text().splitlines() if own.exists() else [])]
    names = [name for _, controllers, name in rows if controller in controllers.split(",")]
    parts = Path(names[0] if names else "/").parts[1:]
    inner = [] if ".." in parts else [mount.joinpath(*parts[:count]) for count in range(len(parts), 0, -1)]
    return [folder for folder in inner if folder.is_dir()] + [mount]


def killed_processes(*, cgroup: Path = CGROUP, own: Path = OWN_GROUPS) -> int:
    """How many processes of this container the kernel has killed so far because memory was short."""
    for controller, _, _, kills, *_ in VERSIONS:
        for folder in _groups(controller, cgroup, own):
            with suppress(OSError, KeyError):
                return _table(folder / kills)["oom_kill"]
    return 0


def is_out_of_memory(error: BaseException | None) -> bool:
    """Whether an error or one of its causes says that memory is short."""
    while error is not None:
        if isinstance(error, MemoryError) or any(sign in str(error) for sign in SIGNS_OF_NO_MEMORY):
            return True
        error = error.__cause__ or error.__context__
    return False


def request_share(free: int, needed: int, processes: int) -> int:
    """The bytes that a request may take when every process works on one.

    Args:
        free: bytes before any process was started.
        needed: bytes that a process with its model takes.
        processes: how many.
    """
    return max(0, (free - SUPERVISOR_BYTES) // processes - needed - SLACK_BYTES)


def process_growth(request_bytes: int, *, has_gpu: bool) -> int:
    """The bytes that a process may take in addition to those it has after its warm-up."""
    return request_bytes + (GPU_SLACK_BYTES if has_gpu else SLACK_BYTES)


def limit_growth(size_bytes: int, *, status: Path = Path("/proc/self/status")) -> None:
    """Let this process take this much more memory; beyond that, its allocations fail.

    Source: getrlimit(2), RLIMIT_DATA, which counts private mappings since Linux 4.7.
    """
    limit = _table(status)["VmData:"] * 1024 + size_bytes
    hard = resource.getrlimit(resource.RLIMIT_DATA)[1]
    limit = limit if hard == resource.RLIM_INFINITY else min(limit, hard)
    resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))


def needed_bytes(folder: Path, *, processes: int) -> int:
    """An estimate, by the size of its files, of the memory that an artifact takes in so many processes."""
    size = sum(path.lstat().st_size for path in folder.rglob("*") if path.is_file() and not path.is_symlink())
    return processes * (PROCESS_BYTES + WEIGHTS_FACTOR * size)


@contextmanager
def first_to_end(path: Path = OOM_SCORE) -> Iterator[None]:
    """Have the kernel kill this process first if memory runs short while it loads a model: others answer requests."""
    # Raising the score and lowering it again needs no privilege; where it is forbidden, the kernel chooses. The file
    # stays open, because it belongs to root once this process is locked down.
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
    """Reserves memory for models that are being loaded, so that two of them do not count on the same memory."""

    def __init__(self, free: Callable[[], int] = free_bytes) -> None:
        self._free = free
        self._lent = 0

    @asynccontextmanager
    async def lend(self, size_bytes: int) -> AsyncIterator[None]:
        """Reserve memory until the model is loaded, or has failed to load.

        Raises:
            NotEnoughMemory: there is too little.
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
    """Lines with a name and a number; others are skipped."""
    words = (line.split() for line in path.read_text().splitlines())
    return {row[0]: int(row[1]) for row in words if len(row) > 1 and row[1].isdecimal()}
