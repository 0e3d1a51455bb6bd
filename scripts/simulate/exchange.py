"""One HTTP request to a container, with a limit on the whole of its time and on the size of the answer."""

import http.client
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import IO

CHUNK = 1 << 20


class NoAnswerError(Exception):
    """The container does not answer: nobody listens, or the connection broke."""


class TooLateError(Exception):
    """The answer took longer than it may."""


class TooLargeError(Exception):
    """The answer is larger than it may be."""


@dataclass(frozen=True)
class Answer:
    """Status, headers with names in lower case, body."""

    status: int
    headers: Mapping[str, str]
    body: bytes


def exchange(
    address: tuple[str, int],
    method: str,
    path: str,
    body: bytes | IO[bytes] | None = None,
    headers: Mapping[str, str] | None = None,
    *,
    timeout_s: float,
    limit_bytes: int,
) -> Answer:
    """Ask once.

    Raises:
        NoAnswerError: there is none.
        TooLateError: not within `timeout_s`.
        TooLargeError: more than `limit_bytes`.
    """
    deadline = time.monotonic() + timeout_s
    connection = http.client.HTTPConnection(*address, timeout=timeout_s)
    try:
        connection.request(method, path, body, dict(headers or {}))
        response = connection.getresponse()
        read = bytearray()
        while chunk := _read(connection, response, deadline):
            read += chunk
            if len(read) > limit_bytes:
                raise TooLargeError
        names = {name.lower(): value for name, value in response.getheaders()}
        return Answer(response.status, names, bytes(read))
    except TimeoutError as error:
        raise TooLateError from error
    except (OSError, http.client.HTTPException) as error:
        raise NoAnswerError(str(error)) from error
    finally:
        connection.close()


def _read(connection: http.client.HTTPConnection, response: http.client.HTTPResponse, deadline: float) -> bytes:
    left = deadline - time.monotonic()
    if left <= 0:
        raise TimeoutError
    if connection.sock is not None:  # it is gone when the answer came with the end of the connection
        connection.sock.settimeout(left)
    return response.read1(CHUNK)
