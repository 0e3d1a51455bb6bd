"""Bounds on what the bytes of one DICOM file may ask for, checked while pydicom reads them.

pydicom trusts lengths and counts: eight bytes of a hostile file become an object of more than a kilobyte, a deflated
file inflates without end, and a sequence inside a sequence recurses. Every read that it makes goes through a
`LimitedFile`, which counts, so that the bounds hold for the very code that parses and not for a second parser that may
see the file otherwise.
"""

import io
import zlib
from dataclasses import dataclass
from typing import BinaryIO

from sagemaker_monai.errors import PayloadTooLarge, UndecodableImage

MAX_FILE_BYTES = 1 << 31  # of one file, and of what a deflated one inflates to: 2^29 values of 32 bit
MAX_HEADER_BYTES = 1 << 28  # of everything before the pixel data; the largest seen in the field were some MB (a guess)
# An element costs two or three reads and an empty item one object of about 1.5 kB. A whole slide of 10,000 tiles with
# per-frame groups needs about 600,000 reads, a CT slice 600.
MAX_READS = 2_000_000
MAX_ITEMS = 200_000  # of all sequences together
MAX_DEPTH = 24  # of sequences in sequences; SR templates and enhanced objects stay below 12


@dataclass
class Budget:
    """What is left of the bounds for one file, shared by all of its nested parts."""

    reads: int = MAX_READS
    items: int = MAX_ITEMS
    header_bytes: int = MAX_HEADER_BYTES

    def take_read(self) -> None:
        """Count one read.

        Raises:
            PayloadTooLarge: one too many.
        """
        self.reads -= 1
        if self.reads < 0:
            raise PayloadTooLarge("the DICOM header has too many elements; send a smaller file")

    def take_items(self, count: int) -> None:
        """Count items of a sequence.

        Raises:
            PayloadTooLarge: too many.
        """
        self.items -= count
        if self.items < 0:
            raise PayloadTooLarge(f"the DICOM header has more than {MAX_ITEMS} items in sequences; send a smaller file")


class LimitedFile:
    """A file that never reads past its end, so that a length of 4 GiB allocates nothing, and that counts its reads."""

    def __init__(self, file: BinaryIO, size_bytes: int, budget: Budget, *, is_header_only: bool = False) -> None:
        self._file = file
        self._size_bytes = size_bytes
        self._budget = budget
        self._is_header_only = is_header_only

    def read(self, size: int = -1) -> bytes:
        """Up to `size` bytes, fewer at the end."""
        self._budget.take_read()
        left = max(self._size_bytes - self._file.tell(), 0)
        count = left if size < 0 else min(size, left)
        if self._is_header_only:
            self._budget.header_bytes -= count
            if self._budget.header_bytes < 0:
                raise PayloadTooLarge(f"the DICOM header is larger than {MAX_HEADER_BYTES} bytes; send a smaller file")
        return self._file.read(count)

    def seek(self, offset: int, whence: int = 0) -> int:
        """As of every file."""
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        """As of every file."""
        return self._file.tell()


def inflate(data: bytes, limit_bytes: int = MAX_FILE_BYTES) -> bytes:
    """Inflate the raw deflate stream of the deflated transfer syntax.

    Raises:
        UndecodableImage: broken or cut off.
        PayloadTooLarge: more than `limit_bytes`; known before it is allocated.
    """
    inflater = zlib.decompressobj(-zlib.MAX_WBITS)
    parts, size, rest = io.BytesIO(), 0, data
    try:
        while not inflater.eof:
            part = inflater.decompress(rest, 1 << 20)
            if not part and not inflater.eof:
                raise UndecodableImage("the deflated DICOM file is cut off; send the whole file")
            size += len(part)
            if size > limit_bytes:
                raise PayloadTooLarge(f"the DICOM file inflates to more than {limit_bytes} bytes; send a smaller file")
            parts.write(part)
            rest = inflater.unconsumed_tail
    except zlib.error as error:
        raise UndecodableImage("the deflated DICOM file is broken; export it again") from error
    return parts.getvalue()
