"""What stands between the gateway and the processes that compute: one request in, one response out.

There are two kinds, `workers` and `mms`, for one model or for many; the gateway, the store of models and the supervisor
know only what is here.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from sagemaker_monai.serving.spool import FileBody


@dataclass(frozen=True)
class Request:
    """One body with the two headers that say what it is and what is wanted; empty text stands for a missing header.

    Attributes:
        body: the whole of it, empty where it is in `file`; in the processes that answer it never is.
        content_type: what it is.
        accept: what is wanted.
        file: a large body on its way; anyone who made the request closes it.
    """

    body: bytes
    content_type: str
    accept: str = ""
    file: FileBody | None = None


@dataclass(frozen=True)
class Response:
    """A whole answer: HTTP status, body and its type."""

    status: int
    content_type: str
    body: bytes


@dataclass(frozen=True)
class WarmUp:
    """The request that a process must answer before callers reach it.

    Attributes:
        request: what to ask.
        check: raises StartError when the answer is not a sound one.
    """

    request: Request
    check: Callable[[Response], None]


class StartError(Exception):
    """The model cannot be served; the text is the cause in one line, ready for an operator."""


class Service(Protocol):
    """Processes that are kept alive. `start` is called once, and `stop` after it, from the same event loop."""

    async def start(self) -> None:
        """Return when it can be used.

        Raises:
            StartError: it never will.
        """

    def is_alive(self) -> bool:
        """Whether it can be used now; never waits."""

    async def failed(self) -> str:
        """Return the cause when it has given up for good; wait until then."""

    async def stop(self) -> None:
        """End every process; safe after a failed `start`."""


class BackEnd(Service, Protocol):
    """Processes that answer requests with one model; in use when a warm-up request was answered."""

    async def answer(self, request: Request) -> Response:
        """Compute one answer.

        Raises:
            Overloaded, Unavailable, Timeout, WorkerDied: as their names say.
        """


class ModelHost(Service, Protocol):
    """What makes a back end for each of several models."""

    def back_end(self, model_dir: Path) -> BackEnd:
        """Prepare one for the artifact in a folder; its `start` loads it and its `stop` gives the memory back."""
