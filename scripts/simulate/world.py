"""Shared by all parts of the simulation: folders, the container runner, and clients for moto's services."""

import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import boto3
from botocore.config import Config

from simulate.limits import LIMITS, Limits
from simulate.runners import Runner

ACCOUNT = "123456789012"  # moto's
REGION = "eu-central-1"
CREDENTIALS = {"aws_access_key_id": "simulated", "aws_secret_access_key": "simulated"}


def print_event(text: str) -> None:
    """One line of the simulator's own log."""
    print(f"{time.strftime('%H:%M:%S')} {text}", file=sys.stderr, flush=True)


@dataclass
class World:
    """One simulation.

    Attributes:
        url: of the server.
        folder: for everything on disk; it is removed at the end.
        runner: starts containers.
        interrupt_after_s: seconds of training after which a spot job's first instance is taken away; None: never.
        note: takes one line for each event.
        closing: set when the simulation ends.
    """

    url: str
    folder: Path
    runner: Runner
    limits: Limits = LIMITS
    interrupt_after_s: float | None = None
    note: Callable[[str], None] = print_event
    closing: threading.Event = field(default_factory=threading.Event)
    _threads: list[threading.Thread] = field(default_factory=list)
    _session: boto3.Session = field(default_factory=lambda: boto3.Session(**CREDENTIALS))
    _clients: dict[tuple[str, str], Any] = field(default_factory=dict)
    _numbers: dict[str, int] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def client(self, service: str, region: str = REGION) -> Any:
        """A boto3 client for this very server."""
        with self._lock:
            if (service, region) not in self._clients:
                config = Config(retries={"total_max_attempts": 3, "mode": "standard"}, s3={"addressing_style": "path"})
                self._clients[service, region] = self._session.client(service, region_name=region,
                                                                      endpoint_url=self.url, config=config)  # fmt: skip
            return self._clients[service, region]

    def number(self, what: str) -> int:
        """1, 2, 3, ... for each thing that is counted, so that names are the same in every run."""
        with self._lock:
            self._numbers[what] = self._numbers.get(what, 0) + 1
            return self._numbers[what]

    def place(self, name: str) -> Path:
        """A new, empty folder."""
        path = self.folder / f"{name}-{self.number(name)}"
        path.mkdir(parents=True)
        return path

    def background(self, work: Callable[..., None], *arguments: Any) -> threading.Thread:
        """Do something in a thread that the end of the simulation waits for."""
        thread = threading.Thread(target=partial(work, *arguments), daemon=True)
        with self._lock:
            self._threads = [each for each in self._threads if each.is_alive() or each.ident is None] + [thread]
        thread.start()
        return thread

    def close(self, timeout_s: float = 30) -> None:
        """Stop everything and wait for it."""
        self.closing.set()
        deadline = time.monotonic() + timeout_s
        while threads := [each for each in self._threads if each.is_alive()]:
            threads[0].join(max(0.0, deadline - time.monotonic()))
            if time.monotonic() >= deadline:
                self.note("some jobs did not end in time")
                return
