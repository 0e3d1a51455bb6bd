"""The program that runs in each worker process: loads the model, then answers batches of requests one after another.

    python -m sagemaker_monai.serving.worker --socket 5 --handler package.module:Handler --model-dir DIR

The handler is named, not imported, because it lives in the layer above. It is called with the model's folder and gives
an object with `respond(requests) -> responses`, one for each and never an exception.
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
    """Answers a batch."""

    def respond(self, requests: list[Request]) -> list[Response]:
        """One response a request, in order."""


def die_with_parent(parent: int) -> None:
    """Let the kernel kill this process when process `parent` ends, however it ends and whatever this one computes."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it ended before the call
        sys.exit(1)


def _nothing() -> None:
    pass


def serve_socket(
    connection: socket.socket,
    files: socket.socket,
    handler: RequestHandler,
    *,
    lacks: Sequence[str] = (),
    after_first: Callable[[], None] = _nothing,
) -> None:
    """Say that the model is loaded, then answer messages until the other side closes.

    Args:
        connection: a stream socket; each message holds requests and the seconds that their callers still wait, the
            answer holds as many responses.
        files: another one, on which bodies come that are files.
        handler: the loaded model.
        lacks: what the process could not give up.
        after_first: see `Respond`.
    """
    respond = Respond(handler.respond, after_first)
    # A supervisor that no longer listens has given up on this process.
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
    """Load the model, say so or say why not, then serve."""
    parser = argparse.ArgumentParser(prog="python -m sagemaker_monai.serving.worker")
    parser.add_argument("--socket", type=int, required=True, help="number of the inherited socket")
    parser.add_argument("--files", type=int, required=True, help="number of the one for open files")
    parser.add_argument("--parent", type=int, required=True, help="process whose end ends this one")
    parser.add_argument("--handler", required=True, help="module:callable")
    parser.add_argument("--model-dir", type=Path, required=True)
    parser.add_argument("--allow-bundle-code", action="store_true")
    parser.add_argument("--allow-network", action="store_true")
    parser.add_argument("--has-gpu", action="store_true")
    parser.add_argument("--growth-bytes", type=int, required=True, help="memory to take after the warm-up, at most")
    parser.add_argument("--own-uid", action="store_true", help="no other process runs as this account")
    parser.add_argument("--log-level", default="INFO")
    options = parser.parse_args(argv)
    # A terminal's Ctrl-C and a container's stop reach every process: requests in flight are still answered, and the end
    # comes when the supervisor closes the socket.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    die_with_parent(options.parent)
    logging.basicConfig(level=options.log_level, format="%(asctime)s %(levelname)s worker %(process)d: %(message)s")
    connection, files = socket.socket(fileno=options.socket), socket.socket(fileno=options.files)
    try:
        module, _, name = options.handler.partition(":")
        with first_to_end():
            # From here on: what decodes is not imported yet, and weights are a stranger's too.
            locked = lock_down(has_network=options.allow_network, has_gpu=options.has_gpu, has_own_uid=options.own_uid)
            make_handler = getattr(importlib.import_module(module), name)
            handler = make_handler(options.model_dir, allow_bundle_code=options.allow_bundle_code)
    except Exception as error:  # whatever it is, the supervisor must hear the cause
        logger.debug("the model cannot be loaded", exc_info=True)
        _send(connection, {"failed": failure_line(error)})
        return 1

    def settle() -> None:
        limit_growth(options.growth_bytes)
        if not options.allow_bundle_code:  # code of the artifact's own may start programs
            forbid_processes()

    serve_socket(connection, files, handler, lacks=locked.lacks, after_first=settle)
    return 0


if __name__ == "__main__":
    sys.exit(main())
