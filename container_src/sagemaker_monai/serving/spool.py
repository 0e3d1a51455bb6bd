"""Bodies of requests: small ones in memory, large ones in a file without a name, so that the gateway stays small.

The file lies in TMPDIR, or in memory where that has no room for files. It is the body of one request and gone with it,
whatever ends the process. Workers get it open (`protocol.send_files`): nobody copies it but who reads it.
"""

import asyncio
import os
import tempfile
from typing import BinaryIO

from sagemaker_monai.errors import Overloaded

SPOOL_BYTES = 4 * 1024 * 1024  # larger bodies go to a file: photographs and slices do not
PIECE_BYTES = 1024 * 1024  # that are written at once


class FileBody:
    """A body in a file; who has it closes it.

    Attributes:
        size_bytes: how long it is.
    """

    def __init__(self, file: BinaryIO, size_bytes: int) -> None:
        self._file = file
        self.size_bytes = size_bytes

    def fileno(self) -> int:
        """The open file's number; where it is read makes no difference."""
        return self._file.fileno()

    def head(self, count: int) -> bytes:
        """The first bytes."""
        return os.pread(self.fileno(), count, 0)

    def reader(self) -> BinaryIO:
        """An own file object at the beginning."""
        stream = os.fdopen(os.dup(self.fileno()), "rb")
        stream.seek(0)
        return stream

    def close(self) -> None:
        """Let go of it."""
        self._file.close()


Body = bytes | FileBody


def head(body: Body, count: int) -> bytes:
    """The first bytes of a body."""
    return body.head(count) if isinstance(body, FileBody) else body[:count]


def read_file(descriptor: int, size_bytes: int) -> bytes:
    """The whole of an open file from its beginning, no matter who else has it open; closes it.

    Raises:
        EOFError: it is shorter.
    """
    with os.fdopen(descriptor, "rb", buffering=0) as stream:
        stream.seek(0)
        data = stream.read(size_bytes)
    if data is None or len(data) != size_bytes:
        raise EOFError("a body is shorter than was said")
    return data


class BodyWriter:
    """Takes the pieces of a body as they come."""

    def __init__(self) -> None:
        self._pieces = bytearray()
        self._file: BinaryIO | None = None
        self._written = 0

    @property
    def size_bytes(self) -> int:
        """How much has come."""
        return self._written + len(self._pieces)

    async def add(self, piece: bytes) -> None:
        """One more piece.

        Raises:
            Overloaded: there is no room for it.
        """
        self._pieces += piece
        if self.size_bytes > SPOOL_BYTES and len(self._pieces) >= PIECE_BYTES:
            await self._write()

    async def finish(self) -> Body:
        """The body; the writer has nothing of it any more."""
        if self.size_bytes <= SPOOL_BYTES:
            return bytes(self._pieces)
        await self._write()
        assert self._file is not None
        body, self._file = FileBody(self._file, self._written), None
        return body

    def close(self) -> None:
        """Forget what was not finished."""
        if self._file is not None:
            self._file.close()

    async def _write(self) -> None:
        """In a thread, for a disk may be slow; also when cancelled nobody closes the file under its hands."""
        writing = asyncio.ensure_future(asyncio.to_thread(self._write_pieces))
        try:
            await asyncio.shield(writing)
        except asyncio.CancelledError:
            await asyncio.wait([writing])
            raise
        except OSError as error:
            raise Overloaded(f"there is no room for a large body ({os.strerror(error.errno or 0)})") from error

    def _write_pieces(self) -> None:
        if self._file is None:
            self._file = _open()
        with memoryview(self._pieces) as view:
            done = 0
            while done < len(view):
                done += self._file.write(view[done:])
        self._written += done
        self._pieces = bytearray()


async def spooled(data: bytes) -> Body:
    """A body that is in memory already, in a file where it is large."""
    writer = BodyWriter()
    try:
        for start in range(0, len(data), PIECE_BYTES):
            await writer.add(data[start : start + PIECE_BYTES])
        return await writer.finish()
    finally:
        writer.close()


def _open() -> BinaryIO:
    try:
        return tempfile.TemporaryFile(buffering=0)
    except OSError:  # a container without a folder to write to
        return os.fdopen(os.memfd_create("body"), "r+b", buffering=0)
