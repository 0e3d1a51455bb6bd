"""How many bits of a scan of JPEG its pixels need: Huffman codes are counted, and no coefficient is computed.

Behind the last code of a scan or restart interval a decoder looks for the next marker and passes over whatever stands
there. Where the codes end is known only to who reads them all. In plain Python that is bearable because a table of
2^16 entries tells, for the next 16 bits, of several codes at once: 0.1 s for 1 MB of a scan on one core of a Xeon.

Source: ITU-T T.81: annexes C (codes), F.2.2 (sequential), G (progressive), H.2 (lossless).
"""

from array import array
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from sagemaker_monai.errors import UndecodableImage

_WINDOW_BITS = 16  # the longest code
_WINDOWS = 1 << _WINDOW_BITS
_BITS = 63  # mask in a cell: bits of its codes with those that follow them; at most 16 + 16
_STEPS_AT = 6  # in a cell, above its bits: coefficients or samples that its codes account for
_STEPS = 127
_END = 1 << 13  # in a cell: the last of its codes ends the block
_NO_CODE = _STEPS << _STEPS_AT
_PAD_BYTES = 512  # more than the codes of any block take, so that what is cut off is seen after each block

BROKEN = "the Huffman codes of a JPEG picture are broken; export or save it again"
CUT_OFF = "a JPEG picture ends before its last pixel; export or save it again"


@dataclass(frozen=True)
class HuffmanTable:
    """A table as DHT has it.

    Attributes:
        counts: 16 bytes, how many codes have 1 to 16 bits.
        symbols: one byte for each code, in the order of the codes.
    """

    counts: bytes
    symbols: bytes


class Codes:
    """The bits of one restart interval, without stuffing, and how far they were read."""

    def __init__(self, data: bytes) -> None:
        padded = np.frombuffer(data + bytes(_PAD_BYTES), np.uint8).astype(np.uint32)
        # The 24 bits from each byte on, in which 16 from any bit of that byte lie.
        self.windows = array("I", (padded[:-2] << 16 | padded[1:-1] << 8 | padded[2:]).tobytes())
        self.data = data
        self.position = 0  # in bits

    def window(self) -> int:
        """The next 16 bits."""
        position = self.position
        return self.windows[position >> 3] >> 8 - (position & 7) & 0xFFFF

    def take(self, count: int) -> int:
        """The next bits as a number, at most 16 of them."""
        value = self.window() >> 16 - count
        self.position += count
        return value

    def stuffed(self) -> bytes:
        """The bytes that were read, the last one filled with ones, with stuffing.

        Raises:
            UndecodableImage: more was read than there is.
        """
        if self.position > 8 * len(self.data):
            raise UndecodableImage(CUT_OFF)
        needed = bytearray(self.data[: -(-self.position // 8)])
        if self.position % 8:
            needed[-1] |= 0xFF >> self.position % 8
        return bytes(needed).replace(b"\xff", b"\xff\0")


def _code_lengths(table: HuffmanTable) -> tuple[np.ndarray, np.ndarray]:
    """For each value of the next 16 bits, the length of the code there (0 for none) and its symbol."""
    if len(table.counts) != 16 or sum(table.counts) != len(table.symbols) or len(table.symbols) > 256:
        raise UndecodableImage(BROKEN)
    sizes = np.repeat(np.arange(1, 17), np.frombuffer(table.counts, np.uint8))
    spans = 1 << _WINDOW_BITS - sizes
    used = int(spans.sum())
    if used > _WINDOWS:
        raise UndecodableImage(BROKEN)
    lengths, symbols = np.zeros(_WINDOWS, np.int64), np.zeros(_WINDOWS, np.int64)
    lengths[:used] = np.repeat(sizes, spans)
    symbols[:used] = np.repeat(np.frombuffer(table.symbols, np.uint8), spans)
    return lengths, symbols


def _several(one: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """Cells of as many codes as are known from 16 bits."""
    cells = one.copy()
    windows = np.arange(_WINDOWS)
    for _ in range(7):
        taken = cells & _BITS
        following = (windows << np.minimum(taken, _WINDOW_BITS)) & (_WINDOWS - 1)
        nexts = one[following]
        steps = (cells >> _STEPS_AT & _STEPS) + (nexts >> _STEPS_AT & _STEPS)
        is_known = (lengths[following] > 0) & (taken + lengths[following] <= _WINDOW_BITS)
        may = is_known & (cells < _END) & (steps < 64) & (taken + (nexts & _BITS) <= _BITS)
        if not may.any():
            break
        cells = np.where(may, (taken + (nexts & _BITS)) | steps << _STEPS_AT | (nexts & _END), cells)
    return cells


@lru_cache(maxsize=32)
def _block_cells(table: HuffmanTable) -> tuple[list[int], list[int]]:
    """Cells of several AC codes and of one, by the next 16 bits. A step is a coefficient; the end of a block is one."""
    lengths, symbols = _code_lengths(table)
    runs, sizes = symbols >> 4, symbols & 15
    is_end = (sizes == 0) & (runs != 15)
    steps = np.where(is_end, 1, runs + 1)
    one = np.where(lengths > 0, (lengths + sizes) | steps << _STEPS_AT | np.where(is_end, _END, 0), _NO_CODE)
    return _several(one, lengths).tolist(), one.tolist()


@lru_cache(maxsize=32)
def _difference_cells(table: HuffmanTable) -> tuple[list[int], list[int]]:
    """Cells of several codes of differences (DC, or samples of the lossless process) and of one; a step is one."""
    lengths, symbols = _code_lengths(table)
    if len(table.symbols) and max(table.symbols) > 16:
        raise UndecodableImage(BROKEN)
    bits = np.where(symbols < 16, symbols, 0)  # 32768 has no bits behind its code
    one = np.where(lengths > 0, (lengths + bits) | 1 << _STEPS_AT, _NO_CODE)
    return _several(one, lengths).tolist(), one.tolist()


def read_blocks(codes: Codes, tables: list[tuple[HuffmanTable, HuffmanTable]], count: int) -> None:
    """Read the blocks of a sequential scan.

    Args:
        codes: of one restart interval.
        tables: for DC and AC, of each block of an MCU.
        count: of MCUs.

    Raises:
        UndecodableImage: no such code, more than 64 coefficients, or less than `count`.
    """
    plan = [(_difference_cells(dc)[1], *_block_cells(ac)) for dc, ac in tables]
    windows, position, end = codes.windows, codes.position, 8 * len(codes.data)
    for _ in range(count):
        for differences, several, one in plan:
            cell = differences[windows[position >> 3] >> 8 - (position & 7) & 0xFFFF]
            if cell == _NO_CODE:
                raise UndecodableImage(BROKEN)
            position += cell & _BITS
            place = 1
            while place < 64:
                window = windows[position >> 3] >> 8 - (position & 7) & 0xFFFF
                cell = several[window]
                steps = cell >> _STEPS_AT & _STEPS
                if place + steps > 64:
                    cell = one[window]
                    steps = cell >> _STEPS_AT & _STEPS
                    if place + steps > 64:
                        raise UndecodableImage(BROKEN if position < end else CUT_OFF)
                position += cell & _BITS
                if cell >= _END:
                    break
                place += steps
            if position > end:
                raise UndecodableImage(CUT_OFF)
    codes.position = position


def read_samples(codes: Codes, tables: list[HuffmanTable], count: int) -> None:
    """Read the samples of a scan of the lossless process.

    Args:
        codes: of one restart interval.
        tables: of each sample of an MCU.
        count: of MCUs.

    Raises:
        UndecodableImage: no such code, or less than `count`.
    """
    windows, position, end = codes.windows, codes.position, 8 * len(codes.data)
    if len(set(tables)) == 1:  # so that it does not matter which sample a code is of
        tables, count = tables[:1], count * len(tables)
        several, one = _difference_cells(tables[0])
        while count:
            if position >= end:
                raise UndecodableImage(CUT_OFF)
            window = windows[position >> 3] >> 8 - (position & 7) & 0xFFFF
            cell = several[window]
            steps = cell >> _STEPS_AT
            if steps > count or steps == _STEPS:
                cell = one[window]
                if cell == _NO_CODE:
                    raise UndecodableImage(BROKEN)
                steps = 1
            position += cell & _BITS
            count -= steps
    else:
        plan = [_difference_cells(table)[1] for table in tables]
        for _ in range(count):
            for one in plan:
                cell = one[windows[position >> 3] >> 8 - (position & 7) & 0xFFFF]
                if cell == _NO_CODE:
                    raise UndecodableImage(BROKEN)
                position += cell & _BITS
            if position > end:
                raise UndecodableImage(CUT_OFF)
    codes.position = position


@lru_cache(maxsize=32)
def _symbol_cells(table: HuffmanTable) -> list[int]:
    """Length of the code (above 8 bits) and its symbol, by the next 16 bits; 0 for none."""
    lengths, symbols = _code_lengths(table)
    cells: list[int] = np.where(lengths > 0, lengths << 8 | symbols, 0).tolist()
    return cells


def read_band(codes: Codes, table: HuffmanTable, known: list[int], blocks: range, band: tuple[int, int]) -> None:
    """Read the blocks of a progressive scan that is the first for its AC coefficients.

    Args:
        codes: of one restart interval.
        table: for AC.
        known: of each block of the component, a bit for each coefficient that is not zero; those that are read are
            added.
        blocks: those of the interval.
        band: first and last coefficient.

    Raises:
        UndecodableImage: no such code, or less than the blocks need.
    """
    first, last = band
    cells, end, blocks_at_end = _symbol_cells(table), 8 * len(codes.data), 0
    for block in blocks:
        if blocks_at_end:
            blocks_at_end -= 1
            continue
        place = first
        while place <= last:
            cell = cells[codes.window()]
            codes.position += cell >> 8
            run, size = cell >> 4 & 15, cell & 15
            if cell == 0 or codes.position > end:
                raise UndecodableImage(CUT_OFF if codes.position > end else BROKEN)
            if size:
                place += run
                if place > last:
                    raise UndecodableImage(BROKEN)
                known[block] |= 1 << place
                codes.position += size
                place += 1
            elif run == 15:
                place += 16
            else:
                blocks_at_end = (1 << run) - 1 + (codes.take(run) if run else 0)
                break
    if blocks_at_end:
        raise UndecodableImage(BROKEN)


def refine_band(codes: Codes, table: HuffmanTable, known: list[int], blocks: range, band: tuple[int, int]) -> None:
    """Read the blocks of a progressive scan that adds a bit to its AC coefficients; as `read_band`."""
    first, last = band
    inside = (2 << last) - 1
    cells, end, blocks_at_end = _symbol_cells(table), 8 * len(codes.data), 0
    for block in blocks:
        place, old = first, known[block]
        while not blocks_at_end and place <= last:
            cell = cells[codes.window()]
            codes.position += cell >> 8
            run, size = cell >> 4 & 15, cell & 15
            if cell == 0 or size > 1 or codes.position > end:
                raise UndecodableImage(CUT_OFF if codes.position > end else BROKEN)
            if size == 0 and run < 15:
                blocks_at_end = (1 << run) + (codes.take(run) if run else 0)
                break
            codes.position += size  # the sign
            while place <= last:
                if old >> place & 1:
                    codes.position += 1
                elif run == 0:
                    break
                else:
                    run -= 1
                place += 1
            if size:
                if place > last:
                    raise UndecodableImage(BROKEN)
                known[block] |= 1 << place
            place += 1
        if blocks_at_end:
            codes.position += ((old & inside) >> place).bit_count()
            blocks_at_end -= 1
        if codes.position > end:
            raise UndecodableImage(CUT_OFF)
    if blocks_at_end:
        raise UndecodableImage(BROKEN)
