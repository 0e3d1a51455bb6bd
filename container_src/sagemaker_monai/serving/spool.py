"""Bodies of requests: small ones in memory, large ones in an unnamed file, so that the gateway stays small.

The file lies in TMPDIR, or in memory if TMPDIR cannot be written. It belongs to one request and disappears with it,
however the process ends. Workers get the open file (`protocol.send_files`), so the body is read but not copied.
"""

import asyncio
import os
import tempfile
from typing import BinaryIO

from sagemaker_monai.errors import Overloaded

SPOOL_BYTES = 4 * 1024 * 1024  # larger bodies go to a file; photographs and slices are smaller
PIECE_BYTES = 1024 * 1024  # written at once


class FileBody:
    """A body in a file; its owner closes it."""

    def __init__(self, file: BinaryIO, size_bytes: int) -> None:
        self._file = file
        self.size_bytes = size_bytes

    def fileno(self) -> int:
        """The number of the open file."""
        return self._file.fileno()

    def head(self, count: int) -> bytes:
        """The first bytes."""
        return os.pread(self.fileno(), count, 0)

    def reader(self) -> BinaryIO:
        """A new file object at the beginning of the body."""
        stream = os.fdopen(os.dup(self.fileno()), "rb")
        stream.seek(0)
        return stream

    def close(self) -> None:
        """Close the file."""
        self._file.close()


Body = bytes | FileBody


def head(body: Body, count: int) -> bytes:
    """The first bytes of a body."""
    return body.head(count) if isinstance(body, FileBody) else body[:count]


def read_file(descriptor: int, size_bytes: int) -> bytes:
    """Read an open file from its beginning and close it.

    Raises:
        EOFError: it is shorter than `size_bytes`.
    """
    with os.fdopen(descriptor, "rb", buffering=0) as stream:
        stream.seek(0)
        data = stream.read(size_bytes)
    if data is None or len(data) != size_bytes:
        raise EOFError("a body is shorter than announced")
    return data


class BodyWriter:
    """Collects the pieces of a body as they arrive."""

    def __init__(self) -> None:
        self._pieces = bytearray()
        self._file: BinaryIO | None = None
        self._written = 0

    @property
    def size_bytes(self) -> int:
        """How much has arrived."""
        return self._written + len(self._pieces)

    async def add(self, piece: bytes) -> None:
        """Add a piece.

        Raises:
            Overloaded: there is no room for it.
        """
        self._pieces += piece
        if self.size_bytes > SPOOL_BYTES and len(self._pieces) >= PIECE_BYTES:
            await self._write()

    async def finish(self) -> Body:
        """The body, which now belongs to the caller."""
        if self.size_bytes <= SPOOL_BYTES:
            return bytes(self._pieces)
        await self._write()
        assert self._file is not None
        body, self._file = FileBody(self._file, self._written), None
        return body

    def close(self) -> None:
        """Discard an unfinished body."""
        if self._file is not None:
            self._file.close()

    async def _write(self) -> None:
        """Write in a thread, as a disk may be slow; when cancelled, wait for the thread before the file is closed."""
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
    """A body that is in memory already; moved to a file if it is large."""
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
    except OSError:  # a container without a writable folder
        return os.fdopen(os.memfd_create("body"), "r+b", buffering=0)
