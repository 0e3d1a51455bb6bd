"""Limits on what one DICOM file may consume, enforced while pydicom reads it.

pydicom trusts lengths and counts: eight bytes of a hostile file become an object of more than a kilobyte, a deflated
file inflates without end, and nested sequences recurse. All its reads go through a `LimitedFile`, which counts them, so
the limits apply to the actual parser and not to a second one that may see the file differently.
"""

import io
import zlib
from dataclasses import dataclass, field
from typing import BinaryIO

from sagemaker_monai.budget import check_ratio, spend_bytes, spend_work
from sagemaker_monai.errors import PayloadTooLarge, UndecodableImage

MAX_FILE_BYTES = 1 << 31  # of one file, also when inflated: 2^29 values of 32 bit
MAX_HEADER_BYTES = 1 << 28  # of everything before the pixel data (a guess; the largest seen were a few MB)
# An element costs two or three reads of 3 us each, and an empty item becomes an object of about 1.5 kB. A whole slide
# of 10,000 tiles with groups for each needs about 600,000 reads and 50,000 items, a CT slice 600 reads.
MAX_READS = 1_000_000
MAX_ITEMS = 100_000  # of all sequences together
# Their cost, charged to the request.
NS_A_READ, NS_AN_ITEM = 3_000, 15_000
BYTES_A_READ, BYTES_AN_ITEM = 200, 2_000
_COUNTED_AT_ONCE = 256
MAX_DEPTH = 24  # of sequences in sequences; SR templates and enhanced objects stay below 12

_ITEM_TAGS = (b"\xfe\xff\x00\xe0", b"\xff\xfe\xe0\x00")  # (FFFE,E000) in both byte orders
_ITEM_HEADER_BYTES = 8  # which pydicom reads at once: tag and length


@dataclass
class Budget:
    """The remaining budget of one file, shared by its nested parts.

    Attributes:
        reads, items, header_bytes: still allowed.
        refusal: the limit that was exceeded. pydicom converts what a read raises into its own errors, so callers have
            to look here.
    """

    reads: int = MAX_READS
    items: int = MAX_ITEMS
    header_bytes: int = MAX_HEADER_BYTES
    refusal: PayloadTooLarge | None = None
    _new_reads: int = field(default=0, init=False)
    _new_items: int = field(default=0, init=False)

    def take_read(self) -> None:
        """Count one read; PayloadTooLarge if it is one too many."""
        self.reads -= 1
        if self.reads < 0:
            self._refuse(PayloadTooLarge("the DICOM header has too many elements; send a smaller file"))
        self._new_reads += 1
        if self._new_reads >= _COUNTED_AT_ONCE:
            self.settle()

    def take_item(self) -> None:
        """Count one item of a sequence; PayloadTooLarge if it is one too many."""
        self.items -= 1
        if self.items < 0:
            self._refuse(
                PayloadTooLarge(f"the DICOM header has more than {MAX_ITEMS} items in sequences; send a smaller file")
            )
        self._new_items += 1
        if self._new_items >= _COUNTED_AT_ONCE:
            self.settle()

    def take_bytes(self, count: int) -> None:
        """Count bytes of the header; PayloadTooLarge if there are too many."""
        self.header_bytes -= count
        if self.header_bytes < 0:
            message = f"the DICOM header is larger than {MAX_HEADER_BYTES} bytes; send a smaller file"
            self._refuse(PayloadTooLarge(message))

    def settle(self) -> None:
        """Charge the request for what was counted since the last call; PayloadTooLarge if its budget is exceeded."""
        reads, items, self._new_reads, self._new_items = self._new_reads, self._new_items, 0, 0
        try:
            spend_work(reads * NS_A_READ + items * NS_AN_ITEM, "the elements and items of DICOM headers")
            spend_bytes(reads * BYTES_A_READ + items * BYTES_AN_ITEM, "the elements and items of DICOM headers")
        except PayloadTooLarge as error:
            self._refuse(error)

    def _refuse(self, error: PayloadTooLarge) -> None:
        self.refusal = error
        try:
            raise error
        finally:
            del error  # or its traceback would hold this frame, which holds it, and with both the file's bytes


class LimitedFile:
    """A file that counts its reads and never reads past its end, so that a length of 4 GiB allocates nothing."""

    def __init__(self, file: BinaryIO, size_bytes: int, budget: Budget, *, is_header_only: bool = False) -> None:
        self._file = file
        self._size_bytes = size_bytes
        self._budget = budget
        self._is_header_only = is_header_only
        self._position = file.tell()  # tracked here, because `tell` on each read would cost more than reading

    def read(self, size: int = -1) -> bytes:
        """Up to `size` bytes, fewer at the end."""
        self._budget.take_read()
        count = self._size_bytes - self._position
        if 0 <= size < count:
            count = size
        elif count < 0:
            count = 0
        if self._is_header_only:
            self._budget.take_bytes(count)
        data = self._file.read(count)
        self._position += len(data)
        if count == _ITEM_HEADER_BYTES and data[:4] in _ITEM_TAGS:
            self._budget.take_item()
        return data

    def seek(self, offset: int, whence: int = 0) -> int:
        """Move, like any file."""
        self._position = self._file.seek(offset, whence)
        return self._position

    def tell(self) -> int:
        """The position, like any file's."""
        return self._position


def inflate(data: bytes, limit_bytes: int = MAX_FILE_BYTES) -> bytes:
    """Inflate the raw deflate stream of the deflated transfer syntax.

    Raises:
        UndecodableImage: broken or truncated.
        PayloadTooLarge: more than `limit_bytes`, detected before it is allocated.
    """
    inflater = zlib.decompressobj(-zlib.MAX_WBITS)
    parts, size, rest = io.BytesIO(), 0, data
    try:
        while not inflater.eof:
            part = inflater.decompress(rest, 1 << 20)
            if not part and not inflater.eof:
                raise UndecodableImage("the deflated DICOM file is cut off; send the whole file")
            size += len(part)
            check_ratio(size, len(data), "elements")
            spend_bytes(len(part), f"a DICOM file that inflates to more than {size} bytes")
            spend_work(3 * len(part), f"a DICOM file that inflates to more than {size} bytes")
            if size > limit_bytes:
                raise PayloadTooLarge(f"the DICOM file inflates to more than {limit_bytes} bytes; send a smaller file")
            parts.write(part)
            rest = inflater.unconsumed_tail
    except zlib.error as error:
        raise UndecodableImage("the deflated DICOM file is broken; export it again") from error
    return parts.getvalue()
