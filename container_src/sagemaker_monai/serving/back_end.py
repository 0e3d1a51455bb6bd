"""The interface between the gateway and the processes that compute: one request in, one response out.

There are two implementations, `workers` and `mms`, for one model or many; the gateway, the store of models and the
supervisor use only this interface.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from sagemaker_monai.serving.spool import FileBody


@dataclass(frozen=True)
class Request:
    """A body with its Content-Type and Accept headers; empty text stands for a missing header.

    Attributes:
        body: empty if the body is in `file`, which it never is in the processes that answer.
        content_type: the header.
        accept: the header.
        file: a large body on its way; closed by the code that made the request.
    """

    body: bytes
    content_type: str
    accept: str = ""
    file: FileBody | None = None


@dataclass(frozen=True)
class Response:
    """An answer: HTTP status, body and its type."""

    status: int
    content_type: str
    body: bytes


@dataclass(frozen=True)
class WarmUp:
    """The request that a process must answer before callers reach it; `check` raises StartError for a bad answer."""

    request: Request
    check: Callable[[Response], None]


class StartError(Exception):
    """The model cannot be served; the text is the cause, in one line for an operator."""


class Service(Protocol):
    """Processes that are kept alive. `start` is called once, and `stop` after it, from the same event loop."""

    async def start(self) -> None:
        """Return when the service can be used.

        Raises:
            StartError: it cannot be started.
        """

    def is_alive(self) -> bool:
        """Whether the service can be used now; never waits."""

    async def failed(self) -> str:
        """Wait until the service gives up for good; the cause."""

    async def stop(self) -> None:
        """End every process; safe after a failed `start`."""


class BackEnd(Service, Protocol):
    """Processes that answer requests with one model; started when the warm-up request was answered."""

    async def answer(self, request: Request) -> Response:
        """Compute one answer.

        Raises:
            Overloaded, Unavailable, Timeout, WorkerDied: as their names say.
        """


class ModelHost(Service, Protocol):
    """Makes a back end for each of several models."""

    def back_end(self, model_dir: Path) -> BackEnd:
        """A back end for an artifact; its `start` loads the model and its `stop` frees the memory."""
