"""Several processes that train one network, seen from one of them: how they communicate and share the work.

Before and after the training steps they synchronize through a key-value store and not through collective operations:
reading images takes an unknown time, and a failure of one has to reach the others with its cause. During the steps they
use gloo for CPU tensors and NCCL for GPU tensors.

Every process knows the whole order of the epoch and takes its slice of each batch, with the random numbers that
belong to it. Losses are weighted by the size of the slice, and BatchNorm statistics are averaged after every step, so
all processes hold the same network after each step: any of them can validate, and the first one saves what all have.
Without BatchNorm and dropout, one process and many differ by rounding only.
"""

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed import PrefixStore, Store, TCPStore  # type: ignore[attr-defined]
from torch.nn.parallel import DistributedDataParallel

from sagemaker_monai.errors import INTERNAL_ERROR, ConfigError, TrainingStopped

COLLECTIVE_TIMEOUT = timedelta(minutes=10)  # longer than any step, validation batch or checkpoint
POLL_S = 0.1
WATCH_S = 1.0
CAUSE_WAIT_S = 10.0  # for the cause, once another process has died
FAILURE, FINISHED = "failure", "finished"
PREFIX = "sagemaker_monai"
LOST = f"{INTERNAL_ERROR}: another process of the job ended or is unreachable: see the logs of the other hosts"


class OtherProcessError(Exception):
    """Another process of the job failed before this one; the message is its failure line."""


@dataclass(frozen=True)
class Slice:
    """One process's part of a batch.

    Attributes:
        start, stop: positions in the batch.
        weight: share of the batch, 0 for a process that only keeps in step.
    """

    start: int
    stop: int
    weight: float


def share_batch(size: int, *, rank: int, world_size: int) -> Slice:
    """Cut a batch into slices of at least two images, as BatchNorm needs two values.

    If there are too few images for all, the last processes repeat the first slice with weight 0.
    """
    active = max(1, min(world_size, size // 2))
    edges = [size * index // active for index in range(active + 1)]
    index = rank if rank < active else 0
    start, stop = edges[index], edges[index + 1]
    return Slice(start, stop, (stop - start) / size if rank < active else 0.0)


def connect(host: str, port: int, *, timeout_s: float) -> Store:
    """Connect to the store that the first host's launcher keeps."""
    store = TCPStore(host, port, is_master=False, timeout=timedelta(seconds=timeout_s))
    return PrefixStore(PREFIX, store)


def tell_failure(store: Store, line: str) -> str:
    """Record why this process fails unless another failed first; the line of the first failure."""
    return str(store.compare_set(FAILURE, "", line).decode())


class Processes:
    """All processes of a job, seen from one of them; without a store it is alone.

    Attributes:
        rank: of this process among all, from 0. The first one prints, and writes every file.
        local_rank: among those of its host.
        world_size: number of processes.
    """

    def __init__(
        self, *, rank: int = 0, local_rank: int = 0, host: int = 0, world_size: int = 1, store: Store | None = None
    ) -> None:
        self.rank = rank
        self.local_rank = local_rank
        self.world_size = world_size
        self._host = host
        self._store = store
        self._rounds = 0

    @property
    def is_main(self) -> bool:
        """Whether this is the first process."""
        return self.rank == 0

    def agree(self, value: str, *, otherwise: str, is_stopping: Callable[[], bool]) -> None:
        """Wait for the values of all processes.

        Raises:
            ConfigError: they differ; its message is `otherwise`.
            OtherProcessError, TrainingStopped: another process failed, or the job was stopped.
        """
        if self._store is None:
            return
        self._rounds += 1
        names = [f"value/{self._rounds}/{rank}" for rank in range(self.world_size)]
        self._store.set(names[self.rank], value)
        self._wait(names, is_stopping)
        if any(self._store.get(name).decode() != value for name in names):
            raise ConfigError(otherwise)

    def wait_for_own_host(self, what: str, is_stopping: Callable[[], bool]) -> None:
        """Wait, except in a host's first process, until that one calls `host_is_ready` for `what`."""
        if self._store is not None and self.local_rank != 0:
            self._wait([f"ready/{self._host}/{what}"], is_stopping)

    def host_is_ready(self, what: str) -> None:
        """Let the other processes of this host continue, if this is its first one."""
        if self._store is not None and self.local_rank == 0:
            self._store.set(f"ready/{self._host}/{what}", "")

    def finish(self) -> None:
        """Wait until the first process has written everything, so that its failure is everyone's."""
        if self._store is None:
            return
        if self.is_main:
            self._store.set(FINISHED, "")
        else:
            self._wait([FINISHED], lambda: False)

    def _wait(self, names: Sequence[str], is_stopping: Callable[[], bool]) -> None:
        assert self._store is not None
        while not self._store.check(list(names)):
            if self._store.check([FAILURE]):
                raise OtherProcessError(self._store.get(FAILURE).decode())
            if is_stopping():
                raise TrainingStopped("training was stopped before its first step, so there is nothing to save")
            time.sleep(POLL_S)

    def start(self, device: torch.device) -> None:
        """Set up collective operations; all processes call it at about the same time."""
        if self._store is None:
            return
        dist.init_process_group(
            "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo",
            store=PrefixStore("group", self._store),
            rank=self.rank,
            world_size=self.world_size,
            timeout=COLLECTIVE_TIMEOUT,
        )

    def wrap(self, network: nn.Module, device: torch.device) -> nn.Module:
        """Wrap a network so that gradients are averaged over all processes; it shares its weights with `network`.

        The weights must be equal everywhere. On GPUs, `network` must use SyncBatchNorm.
        """
        if self._store is None:
            return network
        # Buffers are averaged after every step, see `average`; DDP would take the first process's.
        devices = [device.index] if device.type == "cuda" else None
        return DistributedDataParallel(network, device_ids=devices, forward_sync_buffers=False)

    def is_any(self, *, flag: bool) -> bool:
        """Whether the flag is set in at least one process; all get the same answer."""
        if self._store is None:
            return flag
        said = torch.tensor([int(flag)])  # on the CPU: reading from a GPU would wait for its work
        dist.all_reduce(said, dist.ReduceOp.MAX)
        return bool(said.item())

    def average(self, tensors: Sequence[torch.Tensor], weight: float) -> None:
        """Replace each tensor by the sum over all processes of weight * tensor, in float64 and one message."""
        if self._store is None:
            return
        flat = torch.cat([tensor.detach().double().flatten() for tensor in tensors]) * weight
        dist.all_reduce(flat)
        start = 0
        with torch.no_grad():
            for tensor in tensors:
                tensor.copy_(flat[start : start + tensor.numel()].view_as(tensor))
                start += tensor.numel()

    def add(self, values: torch.Tensor) -> torch.Tensor:
        """The sum of a CPU tensor over all processes."""
        if self._store is not None:
            dist.all_reduce(values)
        return values

    def from_first(self, body: bytes | None) -> bytes | None:
        """Send the first process's bytes, or None, to all."""
        if self._store is None:
            return body
        size = torch.tensor([-1 if body is None else len(body)])
        dist.broadcast(size, 0)
        if size.item() < 0:
            return None
        content = torch.empty(int(size.item()), dtype=torch.uint8)
        if self.is_main and body:
            content = torch.frombuffer(bytearray(body), dtype=torch.uint8)
        if len(content):
            dist.broadcast(content, 0)
        return content.numpy().tobytes()

    def watch(self, on_failure: Callable[[str], None]) -> threading.Event:
        """Check every second whether another process failed: a collective operation would wait for a dead one.

        Args:
            on_failure: called in a thread with the failure's line.

        Returns:
            An event to set when the job is done.
        """
        done = threading.Event()
        store = self._store
        assert store is not None

        def look() -> None:
            while not done.wait(WATCH_S):
                try:
                    line = store.get(FAILURE).decode() if store.check([FAILURE]) else None
                except RuntimeError:  # the first host's launcher ended, and with it the store
                    line = LOST
                if line is not None and not done.is_set():
                    on_failure(line)
                    return

        threading.Thread(target=look, name="watch", daemon=True).start()
        return done

    def cause_of(self, line: str, *, is_secondary: bool) -> str:
        """Tell the others that this process fails, and find out which failure came first.

        Args:
            line: why this process fails.
            is_secondary: it fails because another process died, whose line is worth waiting for.
        """
        if self._store is None:
            return line
        end = time.monotonic() + CAUSE_WAIT_S
        try:
            while is_secondary and not self._store.check([FAILURE]) and time.monotonic() < end:
                time.sleep(POLL_S)
            return tell_failure(self._store, line)
        except RuntimeError:
            return line


def is_loss_of_another(error: BaseException) -> bool:
    """Whether an error only says that another process died."""
    if isinstance(error, dist.DistError):
        return True
    text = str(error).lower()
    return isinstance(error, RuntimeError) and any(word in text for word in ("gloo", "nccl", "connection closed"))


ALONE = Processes()
