"""Parses `multipart/related` bodies of DICOMweb servers part by part, while they arrive.

Only the data of one read is kept, so a series of any size passes through a few hundred kB. What the server controls is
limited: the length of the boundary, of the text before the first part, and of a part's header.

Source: RFC 2046, 5.1.1, and DICOM PS3.18, 8.6.1.2.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from email.message import Message

from sagemaker_monai.errors import DatasetError

MAX_HEADER_BYTES = 16 << 10  # of one part; DICOMweb's are three short lines
MAX_PREAMBLE_BYTES = 64 << 10  # before the first part; usually at most a line
_BOUNDARY = re.compile(r"[0-9A-Za-z'()+_,./:=? -]{0,69}[0-9A-Za-z'()+_,./:=?-]")  # RFC 2046


class CutOffError(Exception):
    """The body ended within a part; the parts before it are complete."""


@dataclass(frozen=True)
class Part:
    """One part.

    Attributes:
        headers: names in lower case.
        content: its bytes as they arrive; asking for the next part consumes the rest.
    """

    headers: dict[str, str]
    content: Iterator[bytes]


def media_type_of(content_type: str) -> tuple[str, str | None]:
    """Media type, in lower case, and boundary, or None, of a Content-Type."""
    message = Message()
    message["Content-Type"] = " ".join(content_type.split())
    boundary = message.get_param("boundary", header="Content-Type")
    return message.get_content_type(), boundary if isinstance(boundary, str) else None


def read_parts(chunks: Iterator[bytes], boundary: str) -> Iterator[Part]:
    """Parse a body, given in pieces of any size, and the boundary of its Content-Type.

    Raises:
        CutOffError: it ended before the closing boundary.
        DatasetError: it is not multipart, or exceeds a limit.
    """
    if not _BOUNDARY.fullmatch(boundary):
        raise _broken("its boundary is invalid by RFC 2046")
    body = _Body(chunks, b"\r\n--" + boundary.encode())
    body.take_until(body.delimiter, MAX_PREAMBLE_BYTES, "the text before its first part")
    while body.opens_part():
        headers = body.read_headers()
        content = body.read_content()
        yield Part(headers, content)
        for _rest in content:
            pass


class _Body:
    def __init__(self, chunks: Iterator[bytes], delimiter: bytes) -> None:
        self._chunks = chunks
        self.delimiter = delimiter
        self._buffer = b"\r\n"  # the first delimiter may come at the very beginning, without a line end before it

    def _read_more(self) -> None:
        chunk = next(self._chunks, None)
        if chunk is None:
            raise CutOffError
        self._buffer += chunk

    def take_until(self, mark: bytes, limit: int, what: str) -> bytes:
        while (at := self._buffer.find(mark)) < 0:
            if len(self._buffer) > limit:
                raise _broken(f"{what} is longer than {limit} bytes")
            self._read_more()
        if at > limit:
            raise _broken(f"{what} is longer than {limit} bytes")
        taken, self._buffer = self._buffer[:at], self._buffer[at + len(mark) :]
        return taken

    def opens_part(self) -> bool:
        """Whether a part follows the delimiter just read; otherwise the body is complete."""
        while len(self._buffer) < 2:
            self._read_more()
        if self._buffer.startswith(b"--"):
            return False
        if self.take_until(b"\r\n", MAX_HEADER_BYTES, "the line of a boundary").strip(b" \t"):
            raise _broken("a boundary does not end its line")
        return True

    def read_headers(self) -> dict[str, str]:
        # A part without headers begins with the empty line.
        self._buffer = b"\r\n" + self._buffer
        lines = self.take_until(b"\r\n\r\n", MAX_HEADER_BYTES, "the header of a part").split(b"\r\n")[1:]
        headers = {}
        for line in lines:
            name, colon, value = line.decode("latin-1").partition(":")
            if not colon:
                raise _broken("a line in the header of a part has no colon")
            headers[name.strip().lower()] = value.strip()
        return headers

    def read_content(self) -> Iterator[bytes]:
        # A delimiter may span two chunks: hold back as many bytes.
        tail = len(self.delimiter) - 1
        while (at := self._buffer.find(self.delimiter)) < 0:
            if len(self._buffer) > tail:
                ready, self._buffer = self._buffer[:-tail], self._buffer[-tail:]
                yield ready
            self._read_more()
        ready, self._buffer = self._buffer[:at], self._buffer[at + len(self.delimiter) :]
        if ready:
            yield ready


def _broken(why: str) -> DatasetError:
    return DatasetError(f"the server's multipart answer is broken: {why}; ask its operator")
