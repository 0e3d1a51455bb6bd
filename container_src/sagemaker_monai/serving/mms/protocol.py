"""Messages between the supervisor and a worker process: a JSON header and raw bodies, over a Unix socket.

A frame is the length of the header (4 bytes, big-endian), the header, then the bodies, whose lengths the header lists
under "sizes". Never pickle: what a worker that ran a stranger's picture sends back is data and nothing else.
"""

import asyncio
import json
import socket
from collections.abc import Sequence
from typing import Any, BinaryIO

# Through multi-model-server a message is an HTTP request of its own; these headers carry what it would take apart.
CONTENT_TYPE_HEADER = "X-Serving-Content-Type"  # of the request, as the caller sent it
ACCEPT_HEADER = "X-Serving-Accept"
TIME_HEADER = "X-Serving-Time"  # seconds that the caller still waits
ANSWER_HEADER = "X-Serving-Answer"  # on a response: our handler wrote it, not the model server
GROWTH_VARIABLE = "WORKER_GROWTH_BYTES"  # in the environment: memory to take after the warm-up, at most
# Files in the folder that the model server takes for the model.
ARTIFACT_FILE = "artifact"  # where the model really lies, for the handler
FAILURE_FILE = "failure"  # why it cannot be loaded, from the handler

MAX_HEADER_BYTES = 4 * 1024 * 1024
LENGTH_BYTES = 4
FILES_AT_ONCE = 200  # the kernel takes 253 with one message

Message = tuple[dict[str, Any], list[bytes]]


def encode_message(header: dict[str, Any], bodies: Sequence[bytes] = ()) -> list[bytes]:
    """Lay a message out as pieces to be written one after the other; bodies are not copied.

    Args:
        header: JSON values; the key "sizes" is added.
        bodies: any bytes.
    """
    text = json.dumps({**header, "sizes": [len(body) for body in bodies]}).encode()
    assert len(text) <= MAX_HEADER_BYTES
    return [len(text).to_bytes(LENGTH_BYTES, "big") + text, *bodies]


def read_message(stream: BinaryIO) -> Message | None:
    """Read one message, waiting for it.

    Returns:
        Header and bodies, or None at the end of the stream, also when it ends inside a message: the other side is gone.
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
    """Pass open files to the process on the other side, which has its own numbers for them.

    Args:
        connection: a Unix stream socket for nothing else.
        descriptors: the files.

    Source: unix(7), SCM_RIGHTS.
    """
    for start in range(0, len(descriptors), FILES_AT_ONCE):
        socket.send_fds(connection, [b"f"], list(descriptors[start : start + FILES_AT_ONCE]))


def receive_files(connection: socket.socket, count: int) -> list[int]:
    """Take as many files as the other side passes.

    Raises:
        EOFError: it is gone.
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
