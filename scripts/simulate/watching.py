"""Containers of one job from their start to their end: logs shipped, stopped in time, and why they ended."""

import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from simulate.logs import LogStream
from simulate.runners import Running
from simulate.world import World


@dataclass(frozen=True)
class Ending:
    """How containers ended.

    Attributes:
        cause: "" by themselves, else the reason that they were stopped for.
        code: the first that is not 0, or 0.
        took_s: seconds that they ran.
    """

    cause: str
    code: int
    took_s: float


def watch(
    world: World,
    containers: Sequence[Running],
    streams: Sequence[LogStream],
    *,
    reasons: Sequence[tuple[str, Callable[[float], bool]]],
    regularly: Callable[[], None] = lambda: None,
) -> Ending:
    """Wait until the containers have ended, and remove them.

    Args:
        world: the simulation; when it closes, they are killed.
        containers: of all hosts; when one fails, the others are killed.
        streams: their logs.
        reasons: to stop them: SIGTERM, then `job_stop_s`, then SIGKILL. Each takes the seconds since the start.
        regularly: called every `sync_s` seconds, in a thread.
    """
    started = time.monotonic()
    synced, cause, deadline = started, "", float("inf")
    # An upload may take longer than a polling interval, and limits must be kept meanwhile.
    with ThreadPoolExecutor(1) as pool, _removed(containers):
        syncing = pool.submit(regularly)
        while True:
            now = time.monotonic()
            codes = [each.code() for each in containers]
            for stream in streams:
                stream.ship()
            has_failed = any(codes) and not cause
            has_ended = all(code is not None for code in codes)
            if has_ended or has_failed or now > deadline or world.closing.is_set():
                break
            if syncing.done() and now - synced >= world.limits.sync_s:
                synced = now
                syncing.result()
                syncing = pool.submit(regularly)
            if not cause:
                cause = next((reason for reason, is_due in reasons if is_due(now - started)), "")
                if cause:
                    deadline = now + world.limits.job_stop_s
                    for each in containers:
                        each.terminate()
            time.sleep(world.limits.poll_s)
        took = time.monotonic() - started
    syncing.result()
    for stream in streams:
        stream.ship(is_last=True)
    codes = [each.code() for each in containers]
    return Ending("Closed" if world.closing.is_set() else cause, next(filter(None, codes), 0), took)


@contextmanager
def _removed(containers: Sequence[Running]) -> Iterator[None]:
    try:
        yield
    finally:
        for each in containers:
            each.remove()


def read_text(path: Path, length: int) -> str:
    """The beginning of a file that a container may have written; empty if it did not."""
    try:
        with path.open("rb") as file:
            return file.read(4 * length).decode(errors="replace")[:length]
    except OSError:
        return ""


def transitions(fields: dict[str, Any], status: str, message: str) -> list[dict[str, Any]]:
    """SecondaryStatusTransitions with one more; the one before ends now."""
    now = time.time()
    before = [{"EndTime": now, **each} for each in fields.get("SecondaryStatusTransitions", [])]
    return [*before, {"Status": status, "StartTime": now, "StatusMessage": message}]
