"""The program of each worker process: loads the model, then answers one batch of requests after another.

    python -m sagemaker_monai.serving.worker --socket 5 --handler package.module:Handler --model-dir DIR

The handler is named, not imported, because it lives in the layer above. Called with the model's folder, it returns an
object whose `respond(requests)` returns one response per request and never raises.
"""

import argparse
import contextlib
import ctypes
import importlib
import logging
import os
import signal
import socket
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Protocol

from sagemaker_monai.errors import failure_line
from sagemaker_monai.serving.back_end import Request, Response
from sagemaker_monai.serving.lockdown import forbid_processes, lock_down
from sagemaker_monai.serving.memory import first_to_end, limit_growth
from sagemaker_monai.serving.mms.protocol import encode_message, read_message, receive_files
from sagemaker_monai.serving.spool import read_file
from sagemaker_monai.serving.time_limits import Respond

PR_SET_PDEATHSIG = 1  # linux/prctl.h
logger = logging.getLogger(__name__)


class RequestHandler(Protocol):
    """Answers a batch.

    Attributes:
        working_bytes: that the network takes while it runs, whatever the request.
    """

    working_bytes: int

    def respond(self, requests: list[Request]) -> list[Response]:
        """One response per request, in order."""


def die_with_parent(parent: int) -> None:
    """Have the kernel kill this process when process `parent` ends, whatever this one is doing."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it ended before the call
        sys.exit(1)


def settle(growth_bytes: int, *, allow_bundle_code: bool) -> None:
    """Limit this process after its warm-up to this much more memory, and to threads."""
    limit_growth(growth_bytes)
    if not allow_bundle_code:  # the artifact's own code may start programs
        forbid_processes()


def serve_socket(
    connection: socket.socket,
    files: socket.socket,
    handler: RequestHandler,
    *,
    lacks: Sequence[str],
    after_first: Callable[[], None],
) -> None:
    """Report that the model is loaded, then answer messages until the other side closes.

    Args:
        connection: a stream socket; each message has requests and the seconds that their callers still wait, and its
            answer has as many responses.
        files: another one, for bodies that are files.
        handler: the loaded model.
        lacks: from `lock_down`.
        after_first: see `Respond`.
    """
    respond = Respond(handler.respond, after_first)
    # A supervisor that no longer listens has given this process up.
    with connection.makefile("rb") as stream, contextlib.suppress(ConnectionError):
        _send(connection, {"ready": True, "lacks": list(lacks)})
        while (message := read_message(stream)) is not None:
            header, bodies = message
            sizes: list[int | None] = header["files"]
            descriptors = iter(receive_files(files, sum(size is not None for size in sizes)))
            bodies = [
                body if size is None else read_file(next(descriptors), size)
                for body, size in zip(bodies, sizes, strict=True)
            ]
            requests = [Request(body, **fields) for body, fields in zip(bodies, header["requests"], strict=True)]
            responses = respond(requests, header["time_s"])
            fields = [{"status": response.status, "content_type": response.content_type} for response in responses]
            _send(connection, {"responses": fields}, [response.body for response in responses])


def _send(connection: socket.socket, header: dict[str, object], bodies: Sequence[bytes] = ()) -> None:
    for piece in encode_message(header, bodies):
        connection.sendall(piece)


def main(argv: Sequence[str] | None = None) -> int:
    """Load the model, report success or the cause of failure, then serve."""
    parser = argparse.ArgumentParser(prog="python -m sagemaker_monai.serving.worker")
    parser.add_argument("--socket", type=int, required=True, help="number of the inherited socket")
    parser.add_argument("--files", type=int, required=True, help="number of the socket for open files")
    parser.add_argument("--parent", type=int, required=True, help="process that this one ends with")
    parser.add_argument("--handler", required=True, help="module:callable")
    parser.add_argument("--model-dir", type=Path, required=True)
    parser.add_argument("--allow-bundle-code", action="store_true")
    parser.add_argument("--allow-network", action="store_true")
    parser.add_argument("--has-gpu", action="store_true")
    parser.add_argument("--growth-bytes", type=int, required=True, help="most memory to take after the warm-up")
    parser.add_argument("--own-uid", action="store_true", help="no other process runs as this account")
    parser.add_argument("--log-level", default="INFO")
    options = parser.parse_args(argv)
    # Ctrl-C and the stop of a container reach every process. This one still answers requests in flight, and ends when
    # the supervisor closes the socket.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    die_with_parent(options.parent)
    logging.basicConfig(level=options.log_level, format="%(asctime)s %(levelname)s worker %(process)d: %(message)s")
    connection, files = socket.socket(fileno=options.socket), socket.socket(fileno=options.files)
    try:
        module, _, name = options.handler.partition(":")
        with first_to_end():
            # Before decoders are imported, and before the weights, which are not trusted either.
            lacks = lock_down(has_network=options.allow_network, has_gpu=options.has_gpu, has_own_uid=options.own_uid)
            make_handler = getattr(importlib.import_module(module), name)
            handler = make_handler(options.model_dir, allow_bundle_code=options.allow_bundle_code)
    except Exception as error:  # of any kind: the supervisor must hear the cause
        logger.debug("the model cannot be loaded", exc_info=True)
        _send(connection, {"failed": failure_line(error)})
        return 1
    after_first = partial(
        settle, options.growth_bytes + handler.working_bytes, allow_bundle_code=options.allow_bundle_code
    )
    serve_socket(connection, files, handler, lacks=lacks, after_first=after_first)
    return 0


if __name__ == "__main__":
    sys.exit(main())
