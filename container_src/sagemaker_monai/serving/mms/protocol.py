"""Messages between the supervisor and a worker process: a JSON header and raw bodies, over a Unix socket.

A frame is the length of the header (4 bytes, big-endian), the header, then the bodies, whose lengths the header lists
under "sizes". Never pickle, because a worker that decoded an upload is not trusted.
"""

import asyncio
import json
import socket
from collections.abc import Sequence
from typing import Any, BinaryIO

# Through multi-model-server a message is an HTTP request; these headers carry what it would otherwise interpret.
CONTENT_TYPE_HEADER = "X-Serving-Content-Type"  # of the request, as the caller sent it
ACCEPT_HEADER = "X-Serving-Accept"
TIME_HEADER = "X-Serving-Time"  # seconds that the caller still waits
ANSWER_HEADER = "X-Serving-Answer"  # on a response of our handler, not of the model server
GROWTH_VARIABLE = "WORKER_GROWTH_BYTES"  # environment variable: the most memory to take after the warm-up
# Files in the folder that the model server gets as the model.
ARTIFACT_FILE = "artifact"  # the path of the artifact, for the handler
FAILURE_FILE = "failure"  # why it cannot be loaded, from the handler

MAX_HEADER_BYTES = 4 * 1024 * 1024
LENGTH_BYTES = 4
FILES_AT_ONCE = 200  # the kernel takes 253 with one message

Message = tuple[dict[str, Any], list[bytes]]


def encode_message(header: dict[str, Any], bodies: Sequence[bytes] = ()) -> list[bytes]:
    """The pieces of a message, to be written one after the other; adds "sizes" to the header, copies no body."""
    text = json.dumps({**header, "sizes": [len(body) for body in bodies]}).encode()
    assert len(text) <= MAX_HEADER_BYTES
    return [len(text).to_bytes(LENGTH_BYTES, "big") + text, *bodies]


def read_message(stream: BinaryIO) -> Message | None:
    """Read one message, waiting for it.

    Returns:
        Header and bodies, or None if the stream ends, also inside a message: the other side is gone.
    """
    header_bytes = _read_exactly(stream, LENGTH_BYTES)
    if header_bytes is None:
        return None
    text = _read_exactly(stream, _header_length(header_bytes))
    if text is None:
        return None
    header = json.loads(text)
    bodies = [_read_exactly(stream, size) for size in header["sizes"]]
    return None if None in bodies else (header, [body for body in bodies if body is not None])


async def receive_message(stream: asyncio.StreamReader) -> Message:
    """`read_message` for asyncio.

    Raises:
        EOFError: the other side is gone.
    """
    header_bytes = await stream.readexactly(LENGTH_BYTES)
    header = json.loads(await stream.readexactly(_header_length(header_bytes)))
    return header, [await stream.readexactly(size) for size in header["sizes"]]


def send_files(connection: socket.socket, descriptors: Sequence[int]) -> None:
    """Pass open files to the process on the other side of a Unix stream socket that is used for nothing else.

    Source: unix(7), SCM_RIGHTS.
    """
    for start in range(0, len(descriptors), FILES_AT_ONCE):
        socket.send_fds(connection, [b"f"], list(descriptors[start : start + FILES_AT_ONCE]))


def receive_files(connection: socket.socket, count: int) -> list[int]:
    """Receive open files that `send_files` passes.

    Raises:
        EOFError: the other side is gone.
    """
    found: list[int] = []
    while len(found) < count:
        text, descriptors, _, _ = socket.recv_fds(connection, 1, FILES_AT_ONCE)
        if not text:
            raise EOFError("the other side is gone")
        found += descriptors
    return found


def _header_length(header_bytes: bytes) -> int:
    length = int.from_bytes(header_bytes, "big")
    if length > MAX_HEADER_BYTES:
        raise EOFError(f"a header of {length} bytes: not our protocol")
    return length


def _read_exactly(stream: BinaryIO, size: int) -> bytes | None:
    data = stream.read(size)
    return data if len(data) == size else None
