"""The bytes of an untrusted file: opened within limits and unpacked piece by piece within limits.

zlib or bzip2 unpack in pieces that fit a processor's cache, so that the caller converts each one while it is cached and
nothing is held twice. `Stream.finish` reads to the end, because zlib checks the sums at the end of each member.
"""

import bz2
import io
import stat
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from sagemaker_monai.budget import spend_work
from sagemaker_monai.errors import PayloadTooLarge, UndecodableImage
from sagemaker_monai.images.signatures import GZIP_MAGIC
from sagemaker_monai.images.volumes import MAX_VOXELS

MAX_FILE_BYTES = 8 * MAX_VOXELS + (64 << 20)  # MAX_VOXELS as float64, and a large header
MAX_TRAILING_BYTES = 1 << 20  # after the values: padding is ignored, a whole second image is refused
# Masks and images with much background reach deflate's maximum (1,032 to 1), so small ones may.
FREE_BYTES = 256 << 20  # unpacked, whatever the ratio
MAX_RATIO = 200  # unpacked to packed bytes above that
PIECE_BYTES = 1 << 18  # unpacked at once
_INPUT_BYTES = 1 << 16  # packed bytes at once: zlib copies what it leaves
_FREE_MEMBERS = 1_000  # plus one per unpacked KiB: empty members cost time and give nothing

_INFLATERS = {
    "gzip": lambda: zlib.decompressobj(wbits=31),
    "zlib": lambda: zlib.decompressobj(wbits=47),  # with zlib's or gzip's own header, as ITK reads MetaImage
    "bzip2": bz2.BZ2Decompressor,
}
_MAGICS = {"gzip": GZIP_MAGIC, "bzip2": b"BZ"}  # of further members; zlib has only one


class _Work(NamedTuple):
    """Nanoseconds per packed and per unpacked byte."""

    packed: int
    unpacked: int


NS_A_BYTE = {"gzip": _Work(15, 3), "zlib": _Work(15, 3), "bzip2": _Work(150, 15)}
_BEST_RATIOS = {"raw": 1, "gzip": 1_032, "zlib": 1_032, "bzip2": 1 << 21}  # the formats' own maxima


def most_bytes(packed_bytes: int) -> int:
    """How far a packed file of this length may unpack."""
    return max(FREE_BYTES, MAX_RATIO * packed_bytes)


@contextmanager
def opened(source: Path | bytes) -> Iterator[tuple[BinaryIO, int]]:
    """Open a file or a body for reading.

    Yields:
        The open file, and its length in bytes.

    Raises:
        UndecodableImage: not a regular file, or reading fails within the block.
        PayloadTooLarge: longer than MAX_FILE_BYTES.
    """
    if isinstance(source, bytes):
        yield io.BytesIO(source), len(source)
        return
    try:
        state = source.stat()
        if not stat.S_ISREG(state.st_mode):  # a pipe would block, and a device may never end
            raise UndecodableImage("not a regular file; name one")
        if state.st_size > MAX_FILE_BYTES:
            raise PayloadTooLarge(f"the file is larger than {MAX_FILE_BYTES} bytes; crop or downsample it")
        with source.open("rb") as file:
            yield file, state.st_size
    except OSError as error:
        raise UndecodableImage(f"the file cannot be read ({type(error).__name__})") from error
    except ValueError as error:  # a NUL in the name
        raise UndecodableImage("the file cannot be read (its name is odd)") from error


class Stream:
    """The bytes of an open file from its position on, unpacked on demand."""

    def __init__(self, file: BinaryIO, packed_bytes: int, packing: str = "raw") -> None:
        """Start at the file's position.

        Args:
            file: open for reading.
            packed_bytes: from the position to the file's end.
            packing: "raw", "gzip", "zlib" or "bzip2".
        """
        self._packed_bytes = packed_bytes
        self._packing = packing
        self._taken_bytes = 0
        self._rest: bytes | memoryview = b""
        self._source = _raw(file) if packing == "raw" else _inflated(file, packed_bytes, packing)

    def take(self, size: int) -> bytes:
        """The next `size` bytes in one piece, for headers; fewer at the end."""
        parts, missing = [], size
        while missing > 0 and (piece := self._next()):
            parts.append(bytes(piece[:missing]))
            self._rest = memoryview(piece)[len(parts[-1]) :]
            missing -= len(parts[-1])
        self._taken_bytes += size - missing
        return b"".join(parts)

    def skip(self, size: int) -> None:
        """Skip bytes, or all that are left; raises UndecodableImage if the file cannot have as many."""
        self.expect(size)
        while size > 0 and (step := len(self.take(min(size, PIECE_BYTES)))):
            size -= step

    def pieces(self, size: int) -> Iterator[bytes | memoryview]:
        """The next `size` bytes piece by piece; fewer at the end."""
        while size > 0 and (piece := self._next()):
            part = piece if len(piece) <= size else memoryview(piece)[:size]
            self._rest = memoryview(piece)[len(part) :] if len(part) < len(piece) else b""
            size -= len(part)
            yield part

    def expect(self, size: int) -> None:
        """Refuse a header that claims more bytes than can follow, before they are allocated.

        Raises:
            UndecodableImage: the file is too short, even at its format's best ratio.
            PayloadTooLarge: more than `most_bytes` after unpacking.
        """
        needed = self._taken_bytes + size
        if needed > self._packed_bytes * _BEST_RATIOS[self._packing]:
            raise UndecodableImage("the file is too short for the size that its header claims; it may be cut off")
        if self._packing == "raw":
            return
        if needed > most_bytes(self._packed_bytes):
            raise _bomb()
        each = NS_A_BYTE[self._packing]
        spend_work(each.packed * self._packed_bytes + each.unpacked * size, f"{size} bytes to unpack")

    def finish(self) -> None:
        """Read to the end, for the checksums of packed files.

        Raises:
            UndecodableImage: damaged or truncated, or more than MAX_TRAILING_BYTES are left.
        """
        count = 0
        while piece := self._next():
            count += len(piece)
            if count > MAX_TRAILING_BYTES:
                raise UndecodableImage("the file holds much more than its header says; write it again")

    def _next(self) -> bytes | memoryview:
        if len(self._rest):
            piece, self._rest = self._rest, b""
            return piece
        return next(self._source, b"")


def gunzipping(file: BinaryIO, size: int) -> Stream:
    """A stream of a whole open file, unpacked if it is gzipped."""
    packing = "gzip" if file.read(2) == GZIP_MAGIC else "raw"
    file.seek(0)
    return Stream(file, size, packing)


def _raw(file: BinaryIO) -> Iterator[bytes]:
    while piece := file.read(PIECE_BYTES):
        yield piece


def _inflated(file: BinaryIO, packed_bytes: int, packing: str) -> Iterator[bytes]:
    limit, count, members = most_bytes(packed_bytes), 0, 0
    inflater: Any = None  # none between two members
    while data := file.read(_INPUT_BYTES):
        is_full = False  # zlib may hold more output after all input is consumed
        while data or is_full:
            if inflater is None:
                data = data.lstrip(b"\0") if members else data
                if len(data) == 1:
                    data += file.read(1)
                if not data:
                    break
                if members and not (packing in _MAGICS and data.startswith(_MAGICS[packing])):
                    return  # garbage after the last member, which gzip ignores too
                inflater, members = _INFLATERS[packing](), members + 1
                if members > _FREE_MEMBERS + (count >> 10):
                    raise _bomb()
            piece = _decompress(inflater, data)
            is_full = len(piece) == PIECE_BYTES
            count += len(piece)
            if count > limit:
                raise _bomb()
            if piece:
                yield piece
            data = inflater.unused_data if inflater.eof else getattr(inflater, "unconsumed_tail", b"")
            if inflater.eof:
                inflater, is_full = None, False
    if inflater is not None or not members:
        raise UndecodableImage("the packed file is cut off; write or send it again")


def _decompress(inflater: Any, data: bytes) -> bytes:
    try:
        piece: bytes = inflater.decompress(data, PIECE_BYTES)
    except (zlib.error, OSError, EOFError, ValueError) as error:  # bz2 raises OSError
        raise UndecodableImage("the packed file is damaged; write or send it again") from error
    return piece


def _bomb() -> PayloadTooLarge:
    return PayloadTooLarge(f"the file unpacks to more than {FREE_BYTES} bytes and {MAX_RATIO} times its length")
