"""What one request may cost the process that answers it: memory and computing time, both counted before they are spent.

A server answers each request, or the requests of a batch, within `spending(limits.budget(...))`. Readers say what they
are about to allocate (`spend_bytes`) and to do (`spend_work`), by the sizes that a file declares; what does not fit is
refused before it is begun. Without a request, as in training, nothing is counted.

Bytes count as long as they may be held: those of a whole request, or of one image within `returned()`. Work is in
nanoseconds of one core, as measured for each kind of it on 2 cores of an Intel Xeon; the figures are a little high, so
that what is refused was never begun and what is begun ends in time.
"""

import ctypes
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from dataclasses import dataclass

from sagemaker_monai.errors import ConfigError, PayloadTooLarge

MIB = 1 << 20
MEMORY_VARIABLE, CPU_VARIABLE = "MAX_REQUEST_MEMORY_IN_MB", "MAX_REQUEST_CPU_SECONDS"
SHARE_VARIABLE = "REQUEST_SHARE_BYTES"  # what the server computes for its workers, and nobody sets
DEFAULT_MEMORY_MB, LEAST_MEMORY_MB, MOST_MEMORY_MB = 512, 64, 1 << 20
DEFAULT_CPU_S, MOST_CPU_S = 4, 86_400
# A body above this brought its bytes itself, and gets more for each byte beyond: slices of a large CT are held as they
# came, as float32, and once more while they are resized; JPEG 2000 takes about 0.1 us a byte.
LARGE_BODY_BYTES = 64 * MIB
BYTES_FOR_EACH, NS_FOR_EACH = 8, 150
# Of the memory that is allowed, for what nobody counts: objects of Python, tables of decoders, what malloc keeps.
UNCOUNTED_BYTES = 48 * MIB

# How far anything may unpack, by the bytes that it is packed in.
MAX_RATIO = 200  # blank images reach deflate's 1,032, so small ones may
FREE_FRAME_BYTES = 64 * MIB  # of decoded frames, whatever the ratio

TRIM_BYTES = 32 * MIB  # that are freed before the kernel gets them
NS = 1_000_000_000


class Budget:
    """What is left for one request, or for one batch; threads may share it.

    Attributes:
        used_bytes, most_bytes: counted now, and at most so far.
        used_ns: work so far.
    """

    def __init__(self, memory_bytes: int, work_ns: int) -> None:
        self.memory_bytes = memory_bytes
        self.work_ns = work_ns
        self.used_bytes = self.most_bytes = self.used_ns = 0
        self._lock = threading.Lock()

    def spend_bytes(self, count: int, what: str) -> None:
        """See `spend_bytes`."""
        with self._lock:
            if self.used_bytes + count > self.memory_bytes:
                raise PayloadTooLarge(
                    f"{what} would take this request beyond the {(self.memory_bytes + UNCOUNTED_BYTES) // MIB} MiB of "
                    f"memory that it may use; send less at once, or raise {MEMORY_VARIABLE} and the container's memory"
                )
            self.used_bytes += count
            self.most_bytes = max(self.most_bytes, self.used_bytes)

    def spend_work(self, work_ns: int, what: str) -> None:
        """See `spend_work`."""
        with self._lock:
            if self.used_ns + work_ns > self.work_ns:
                raise PayloadTooLarge(
                    f"{what} would take this request beyond the {self.work_ns / NS:g} s of computing that it may take; "
                    f"send less at once, or raise {CPU_VARIABLE}"
                )
            self.used_ns += work_ns

    def give_back(self, count: int) -> None:
        """Count bytes no longer."""
        with self._lock:
            self.used_bytes -= count


@dataclass(frozen=True)
class Limits:
    """What a server allows each request.

    Attributes:
        memory_bytes: above the idle process, for bodies up to LARGE_BODY_BYTES.
        work_ns: as well.
        share_bytes: this process's share of the container, which no body goes beyond; None where nobody says.
    """

    memory_bytes: int = DEFAULT_MEMORY_MB * MIB
    work_ns: int = DEFAULT_CPU_S * NS
    share_bytes: int | None = None

    @classmethod
    def from_env(cls, env: Mapping[str, str]) -> "Limits":
        """The limits by MEMORY_VARIABLE, CPU_VARIABLE and SHARE_VARIABLE.

        Raises:
            ConfigError: a value is wrong.
        """
        memory_mb = _number(env, MEMORY_VARIABLE, DEFAULT_MEMORY_MB, LEAST_MEMORY_MB, MOST_MEMORY_MB)
        cpu_s = _number(env, CPU_VARIABLE, DEFAULT_CPU_S, 1, MOST_CPU_S)
        share = _number(env, SHARE_VARIABLE, 0, 0, 1 << 60)
        return cls(memory_mb * MIB, cpu_s * NS, share or None)

    def to_env(self) -> dict[str, str]:
        """What `from_env` reads."""
        share = max(self.share_bytes or 0, LEAST_MEMORY_MB * MIB)
        variables = {MEMORY_VARIABLE: self.memory_bytes // MIB, CPU_VARIABLE: self.work_ns // NS, SHARE_VARIABLE: share}
        return {name: str(value) for name, value in variables.items()}

    def most_bytes(self, body_bytes: int) -> int:
        """What a request may take above the idle process, whatever is in its body, with what nobody counts."""
        return self.budget(body_bytes).memory_bytes + UNCOUNTED_BYTES

    def budget(self, body_bytes: int, requests: int = 1) -> Budget:
        """The budget of some requests that are answered together, with their bodies counted already.

        Args:
            body_bytes: of all bodies.
            requests: how many; they share the memory of one, and have the time of each.
        """
        beyond = max(body_bytes - LARGE_BODY_BYTES, 0)
        memory_bytes = self.memory_bytes + BYTES_FOR_EACH * beyond
        if self.share_bytes is not None:
            memory_bytes = min(memory_bytes, self.share_bytes)
        budget = Budget(memory_bytes - UNCOUNTED_BYTES, requests * self.work_ns + NS_FOR_EACH * beyond)
        budget.used_bytes = budget.most_bytes = body_bytes
        return budget


def _number(env: Mapping[str, str], name: str, default: int, low: int, high: int) -> int:
    text = env.get(name, "").strip()
    if not text:
        return default
    if not (text.isascii() and text.isdigit() and low <= int(text) <= high):
        raise ConfigError(f"{name} must be a whole number from {low} to {high}, got {text!r}")
    return int(text)


_freed_bytes = 0
_current: ContextVar[Budget | None] = ContextVar("budget", default=None)


@contextmanager
def spending(budget: Budget | None) -> Iterator[None]:
    """Count what is done in the block; threads that are started in it need a copy of the context (`contextvars`)."""
    token = _current.set(budget)
    try:
        yield
    finally:
        _current.reset(token)
        if budget is not None and budget.most_bytes >= 2 * TRIM_BYTES:
            trim()


def spend_bytes(count: int, what: str) -> None:
    """Count memory that is about to be allocated.

    Args:
        count: bytes.
        what: for the message: what needs them, with its size, and no text of a file.

    Raises:
        PayloadTooLarge: the request may not have as much.
    """
    if (budget := _current.get()) is not None:
        budget.spend_bytes(int(count), what)


def give_back(count: int) -> None:
    """Count bytes no longer that were counted and are free now; the kernel gets them from time to time."""
    global _freed_bytes
    if (budget := _current.get()) is not None:
        budget.give_back(count)
        _freed_bytes += count
        if _freed_bytes >= TRIM_BYTES:
            trim()


def trim() -> None:
    """Give the kernel what malloc keeps of memory that was freed; glibc does so only at the end of its heap."""
    global _freed_bytes
    _freed_bytes = 0
    with suppress(AttributeError, OSError):  # another C library
        ctypes.CDLL(None).malloc_trim(0)


def expect_work(work_ns: float, what: str) -> None:
    """Refuse work that will be counted by and by and does not fit, before it is begun; arguments as of `spend_work`."""
    if (budget := _current.get()) is not None:
        budget.spend_work(int(work_ns), what)
        budget.spend_work(-int(work_ns), what)


def spend_work(work_ns: float, what: str) -> None:
    """Count work that is about to be done, in nanoseconds of one core; arguments and errors as of `spend_bytes`."""
    if (budget := _current.get()) is not None:
        budget.spend_work(int(work_ns), what)


@contextmanager
def returned() -> Iterator[None]:
    """At the end of the block all memory is free again that was counted in it: of one image, when it is prepared."""
    budget = _current.get()
    held = 0 if budget is None else budget.used_bytes
    try:
        yield
    finally:
        if budget is not None:
            budget.give_back(budget.used_bytes - held)


@contextmanager
def lent(count: int, what: str) -> Iterator[None]:
    """Memory that is used within the block only; arguments and errors as of `spend_bytes`."""
    budget = _current.get()
    if budget is None:
        yield
        return
    budget.spend_bytes(int(count), what)
    try:
        yield
    finally:
        budget.give_back(int(count))


def check_ratio(unpacked_bytes: int, packed_bytes: int, what: str, free_bytes: int = FREE_FRAME_BYTES) -> None:
    """Refuse what unpacks further than anything does that was worth packing; in training, too.

    Args:
        unpacked_bytes: by the header.
        packed_bytes: that it comes from.
        what: for the message, a plural.
        free_bytes: which need no ratio.

    Raises:
        PayloadTooLarge: more than `free_bytes` and more than MAX_RATIO times `packed_bytes`.
    """
    if unpacked_bytes > max(free_bytes, MAX_RATIO * packed_bytes):
        raise PayloadTooLarge(
            f"{what} of {packed_bytes} bytes unpack to {unpacked_bytes}, more than {free_bytes // MIB} MiB and "
            f"{MAX_RATIO} times as much; send them unpacked, or less at once"
        )
