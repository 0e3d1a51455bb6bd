"""Limits on the memory and computing time of one request, both counted before they are spent.

A server answers each request or batch within `spending(limits.budget(...))`. Readers announce what they are about to
allocate (`spend_bytes`) and to compute (`spend_work`), by the sizes that a file declares; what exceeds the budget is
refused before it starts. Outside a request, as in training, nothing is counted.

Bytes count for the whole request, or for one image within `returned()`. Work is in nanoseconds of one core, measured
for each kind of work on 2 cores of an Intel Xeon and rounded up, so that whatever is started also ends in time.
"""

import ctypes
import math
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from dataclasses import dataclass

from sagemaker_monai.errors import ConfigError, PayloadTooLarge

MIB = 1 << 20
MEMORY_VARIABLE, CPU_VARIABLE = "MAX_REQUEST_MEMORY_IN_MB", "MAX_REQUEST_CPU_SECONDS"
SHARE_VARIABLE = "REQUEST_SHARE_BYTES"  # set by the server for its workers, never by users
DEFAULT_MEMORY_MB, LEAST_MEMORY_MB, MOST_MEMORY_MB = 512, 64, 1 << 20
DEFAULT_CPU_S, MOST_CPU_S = 4, 86_400
# Larger bodies get more for each further byte: the slices of a large CT are held as received, as float32, and once more
# while they are resized; JPEG 2000 takes about 0.1 us a byte.
LARGE_BODY_BYTES = 64 * MIB
BYTES_FOR_EACH, NS_FOR_EACH = 8, 150
# Part of the allowed memory, for what is not counted: Python objects, decoders' tables, what malloc keeps.
UNCOUNTED_BYTES = 48 * MIB

# How far anything may unpack, relative to its packed size.
MAX_RATIO = 200  # blank images reach deflate's 1,032, so small ones may exceed it
FREE_FRAME_BYTES = 64 * MIB  # of decoded frames, whatever the ratio

TRIM_BYTES = 32 * MIB  # freed before they are returned to the kernel
NS = 1_000_000_000
SURE = 1.25  # times the time that is left: measured times vary by about that


class Budget:
    """What one request or batch may use, and has used; thread-safe.

    Attributes:
        used_bytes, most_bytes: counted now, and the peak so far.
        released_bytes: of the body, freed before the end.
        used_ns: work so far.
    """

    def __init__(self, memory_bytes: int, work_ns: int) -> None:
        self.memory_bytes = memory_bytes
        self.work_ns = work_ns
        self.used_bytes = self.most_bytes = self.released_bytes = self.used_ns = 0
        self._lock = threading.Lock()

    def spend_bytes(self, count: int, what: str, *, is_counted: bool = True) -> None:
        """See `spend_bytes`, and without counting `expect_bytes`."""
        with self._lock:
            if self.used_bytes + count > self.memory_bytes:
                raise PayloadTooLarge(
                    f"{what} would take this request beyond the {(self.memory_bytes + UNCOUNTED_BYTES) // MIB} MiB of "
                    f"memory that it may use; send less at once, or raise {MEMORY_VARIABLE} and the container's memory"
                )
            if not is_counted:
                return
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
        """Stop counting bytes."""
        with self._lock:
            self.used_bytes -= count

    def release(self, count: int) -> None:
        """See `release`."""
        with self._lock:
            self.used_bytes -= count
            self.released_bytes += count


@dataclass(frozen=True)
class Limits:
    """What a server allows each request.

    Attributes:
        memory_bytes: above the idle process, for bodies up to LARGE_BODY_BYTES.
        work_ns: likewise.
        share_bytes: this process's share of the container's memory, the limit for every body; None if unknown.
    """

    memory_bytes: int = DEFAULT_MEMORY_MB * MIB
    work_ns: int = DEFAULT_CPU_S * NS
    share_bytes: int | None = None

    @classmethod
    def from_env(cls, env: Mapping[str, str]) -> "Limits":
        """The limits set by MEMORY_VARIABLE, CPU_VARIABLE and SHARE_VARIABLE.

        Raises:
            ConfigError: a value is invalid.
        """
        memory_mb = _number(env, MEMORY_VARIABLE, DEFAULT_MEMORY_MB, LEAST_MEMORY_MB, MOST_MEMORY_MB)
        cpu_s = _number(env, CPU_VARIABLE, DEFAULT_CPU_S, 1, MOST_CPU_S)
        share = _number(env, SHARE_VARIABLE, 0, 0, 1 << 60)
        return cls(memory_mb * MIB, cpu_s * NS, share or None)

    def to_env(self) -> dict[str, str]:
        """The variables for `from_env`."""
        share = max(self.share_bytes or 0, LEAST_MEMORY_MB * MIB)
        variables = {MEMORY_VARIABLE: self.memory_bytes // MIB, CPU_VARIABLE: self.work_ns // NS, SHARE_VARIABLE: share}
        return {name: str(value) for name, value in variables.items()}

    def most_bytes(self, body_bytes: int) -> int:
        """The most memory that a request may take above the idle process, uncounted memory included."""
        return self.budget(body_bytes).memory_bytes + UNCOUNTED_BYTES

    def budget(self, body_bytes: int, requests: int = 1, working_bytes: int = 0) -> Budget:
        """The budget of requests that are answered together; their bodies are already counted.

        Args:
            body_bytes: of all bodies.
            requests: how many; they share the memory of one but have the time of all.
            working_bytes: that the network takes whatever the image, beyond the memory of a request.
        """
        beyond = max(body_bytes - LARGE_BODY_BYTES, 0)
        memory_bytes = self.memory_bytes + BYTES_FOR_EACH * beyond + working_bytes
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
_end_s: ContextVar[float | None] = ContextVar("end", default=None)  # of the monotonic clock


@contextmanager
def spending(budget: Budget | None) -> Iterator[None]:
    """Count what the block does; threads started in it need a copy of the context (`contextvars`)."""
    token = _current.set(budget)
    try:
        yield
    finally:
        _current.reset(token)
        if budget is not None and budget.most_bytes >= 2 * TRIM_BYTES:
            trim()


def spend_bytes(count: int, what: str) -> None:
    """Count memory before it is allocated.

    Args:
        count: bytes.
        what: for the message: what needs them and its size, without any text from a file.

    Raises:
        PayloadTooLarge: the budget is exceeded.
    """
    if (budget := _current.get()) is not None:
        budget.spend_bytes(int(count), what)


def expect_bytes(count: int, what: str, freed: int = 0) -> None:
    """Refuse memory that is counted step by step later, if it exceeds the budget; errors as for `spend_bytes`.

    Args:
        count: the most bytes at once.
        what: as for `spend_bytes`.
        freed: of the body, which is released if there is no room otherwise.
    """
    if (budget := _current.get()) is not None:
        budget.spend_bytes(int(count) - freed, what, is_counted=False)


def has_room(count: int) -> bool:
    """Whether so many more bytes fit the budget."""
    budget = _current.get()
    return budget is None or budget.used_bytes + count <= budget.memory_bytes


def release(count: int) -> None:
    """Stop counting a part of the body that has been freed for good, and return it to the kernel from time to time."""
    global _freed_bytes
    if (budget := _current.get()) is not None:
        budget.release(count)
        _freed_bytes += count
        if _freed_bytes >= TRIM_BYTES:
            trim()


def trim() -> None:
    """Return freed memory that malloc keeps to the kernel; by itself, glibc does so only at the end of its heap."""
    global _freed_bytes
    _freed_bytes = 0
    with suppress(AttributeError, OSError):  # another C library
        ctypes.CDLL(None).malloc_trim(0)


def expect_work(work_ns: float, what: str) -> None:
    """Refuse work that is counted step by step later, if it exceeds the budget; arguments as for `spend_work`."""
    if (budget := _current.get()) is not None:
        budget.spend_work(int(work_ns), what)
        budget.spend_work(-int(work_ns), what)


@contextmanager
def until(time_s: float) -> Iterator[None]:
    """Tell how long callers wait for what the block does."""
    token = _end_s.set(time.monotonic() + time_s)
    try:
        yield
    finally:
        _end_s.reset(token)


def expect_time(time_s: float, what: str, remedy: str) -> None:
    """Refuse what would end after the callers have left.

    Args:
        time_s: of wall time, as measured for the like.
        what: for the message, as of `spend_bytes`.
        remedy: for the message: what else the caller may do.

    Raises:
        PayloadTooLarge: it would.
    """
    left_s = math.inf if (end_s := _end_s.get()) is None else end_s - time.monotonic()
    if time_s > SURE * left_s:
        raise PayloadTooLarge(f"{what} would take about {time_s:.0f} s, and {max(left_s, 0):.0f} s are left; {remedy}")


def spend_work(work_ns: float, what: str) -> None:
    """Count work before it is done, in nanoseconds of one core; arguments and errors as for `spend_bytes`."""
    if (budget := _current.get()) is not None:
        budget.spend_work(int(work_ns), what)


@contextmanager
def returned() -> Iterator[None]:
    """Stop counting the block's memory when it ends: that of one image, once it is prepared."""
    budget = _current.get()
    held = 0 if budget is None else budget.used_bytes + budget.released_bytes
    try:
        yield
    finally:
        if budget is not None:
            budget.give_back(budget.used_bytes + budget.released_bytes - held)


@contextmanager
def lent(count: int, what: str) -> Iterator[None]:
    """Count memory within the block only; arguments and errors as for `spend_bytes`."""
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
    """Refuse what unpacks further than sound data does; in training, too.

    Args:
        unpacked_bytes: according to the header.
        packed_bytes: of the packed data.
        what: for the message, a plural.
        free_bytes: allowed at any ratio.

    Raises:
        PayloadTooLarge: more than `free_bytes` and more than MAX_RATIO times `packed_bytes`.
    """
    if unpacked_bytes > max(free_bytes, MAX_RATIO * packed_bytes):
        raise PayloadTooLarge(
            f"{what} of {packed_bytes} bytes unpack to {unpacked_bytes}, more than {free_bytes // MIB} MiB and "
            f"{MAX_RATIO} times as much; send them unpacked, or less at once"
        )
