"""What the platform runs, as one order for both back ends: `containers` (Docker) and `processes` (of `.venv`)."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

ML = "/opt/ml"


@dataclass(frozen=True)
class Order:
    """A container to start.

    Attributes:
        image: as the request names it.
        words: `train` or `serve`, or with `entrypoint` the arguments.
        base: folder of this machine that is /opt/ml.
        readonly: paths below `base` that cannot be written; empty with `only`.
        only: paths below `base` that are all of it that the container sees, unwritable; empty: all.
        entrypoint: replaces the image's.
        environment: variables.
        host: the container's name for itself and for others.
        hosts: all of a job.
        is_isolated: no network beyond these hosts.
        serves: whether it listens on port 8080.
        memory_mb: limit; None: none.
    """

    image: str
    words: tuple[str, ...]
    base: Path
    readonly: tuple[str, ...] = ()
    only: tuple[str, ...] = ()
    entrypoint: tuple[str, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict)
    host: str = "algo-1"
    hosts: tuple[str, ...] = ("algo-1",)
    is_isolated: bool = False
    serves: bool = False
    memory_mb: int | None = None
    shm_bytes: int = 64 << 20


class Running(Protocol):
    """A container that was started."""

    log: Path  # both of its streams
    address: tuple[str, int]  # where it serves
    sees_host: bool  # whether its /opt/ml is the folder of this machine under the same name

    def code(self) -> int | None:
        """The exit code; None while it runs."""

    def terminate(self) -> None:
        """SIGTERM to its first process."""

    def remove(self) -> None:
        """Kill what is left; its files then belong to this process's user."""


class Runner(Protocol):
    """A back end."""

    def start(self, orders: Sequence[Order]) -> list[Running]:
        """Start the containers of one job or instance.

        Raises:
            JobError: the order cannot be carried out.
            InternalError: it could, and was not.
        """

    def close(self) -> None:
        """Leave nothing behind."""


def log_file(order: Order) -> Path:
    """Where a container's streams are written: beside its /opt/ml."""
    return order.base.with_name(f"{order.base.name}.log")


def stop(containers: Sequence[Running], grace_s: float, poll_s: float = 0.05) -> None:
    """SIGTERM, a while, SIGKILL; then they are removed."""
    for container in containers:
        container.terminate()
    deadline = time.monotonic() + grace_s
    while any(each.code() is None for each in containers) and time.monotonic() < deadline:
        time.sleep(poll_s)
    for container in containers:
        container.remove()
