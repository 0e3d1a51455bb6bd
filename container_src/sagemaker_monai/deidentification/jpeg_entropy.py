"""Counts how many bits of a JPEG scan its pixels need, by reading Huffman codes without computing coefficients.

After the last code of a scan or restart interval, a decoder searches for the next marker and skips anything before it.
Only reading all codes shows where they end. In pure Python this is fast enough because a table of 2^16 entries gives
several codes at once for the next 16 bits: 0.2 s for 1 MB of a scan on one core of a Xeon, and 1.6 s for a progressive
one, which is read code by code.

Source: ITU-T T.81: annexes C (codes), F.2.2 (sequential), G (progressive), H.2 (lossless).
"""

from array import array

import numpy as np

from sagemaker_monai.deidentification.jpeg_tables import (
    BITS,
    BROKEN,
    END,
    NO_CODE,
    STEPS,
    STEPS_AT,
    TableInUse,
    block_cells,
    difference_cells,
    symbol_cells,
)
from sagemaker_monai.errors import UndecodableImage

_PAD_BYTES = 512  # more than the codes of any block, so truncation is noticed after each block

CUT_OFF = "a JPEG picture is truncated; export or save it again"


class Codes:
    """The bits of one restart interval, without stuffing, and the read position."""

    def __init__(self, data: bytes) -> None:
        padded = np.frombuffer(data + bytes(_PAD_BYTES), np.uint8).astype(np.uint32)
        # The 24 bits from each byte on; they contain the 16 bits from any bit of that byte.
        self.windows = array("I", (padded[:-2] << 16 | padded[1:-1] << 8 | padded[2:]).tobytes())
        self.data = data
        self.position = 0  # in bits

    def window(self) -> int:
        """The next 16 bits."""
        position = self.position
        return self.windows[position >> 3] >> 8 - (position & 7) & 0xFFFF

    def take(self, count: int) -> int:
        """The next bits, at most 16, as a number."""
        value = self.window() >> 16 - count
        self.position += count
        return value

    def stuffed(self) -> bytes:
        """The bytes read so far, with stuffing, the last one filled with ones; UndecodableImage if they are too few."""
        if self.position > 8 * len(self.data):
            raise UndecodableImage(CUT_OFF)
        needed = bytearray(self.data[: -(-self.position // 8)])
        if self.position % 8:
            needed[-1] |= 0xFF >> self.position % 8
        return bytes(needed).replace(b"\xff", b"\xff\0")


def read_blocks(codes: Codes, tables: list[tuple[TableInUse, TableInUse]], count: int) -> None:
    """Read the blocks of a sequential scan.

    Args:
        codes: of one restart interval.
        tables: for DC and AC, of each block of an MCU.
        count: of MCUs.

    Raises:
        UndecodableImage: an invalid code, more than 64 coefficients, or fewer MCUs than `count`.
    """
    plan = []
    for dc, ac in tables:
        cells = block_cells(ac.table)
        plan.append((difference_cells(dc.table).one, dc.single, cells.several, ac.several, cells.one, ac.single))
    windows, position, end = codes.windows, codes.position, 8 * len(codes.data)
    for _ in range(count):
        for differences, seen_differences, several, seen, one, seen_one in plan:
            window = windows[position >> 3] >> 8 - (position & 7) & 0xFFFF
            seen_differences.add(window)
            cell = differences[window]
            if cell == NO_CODE:
                raise UndecodableImage(BROKEN)
            position += cell & BITS
            place = 1
            while place < 64:
                window = windows[position >> 3] >> 8 - (position & 7) & 0xFFFF
                cell = several[window]
                steps = cell >> STEPS_AT & STEPS
                if place + steps > 64:
                    cell = one[window]
                    steps = cell >> STEPS_AT & STEPS
                    if place + steps > 64:
                        raise UndecodableImage(BROKEN if position < end else CUT_OFF)
                    seen_one.add(place << 16 | window)
                else:
                    seen[place << 16 | window] = 1
                position += cell & BITS
                if cell >= END:
                    break
                place += steps
            if position > end:
                raise UndecodableImage(CUT_OFF)
    codes.position = position


def read_samples(codes: Codes, tables: list[TableInUse], count: int) -> None:
    """Read the samples of a scan of the lossless process, or the mean values of a progressive one.

    Args:
        codes: of one restart interval.
        tables: of each sample of an MCU.
        count: of MCUs.

    Raises:
        UndecodableImage: an invalid code, or fewer MCUs than `count`.
    """
    windows, position, end = codes.windows, codes.position, 8 * len(codes.data)
    if len({id(table) for table in tables}) == 1:  # it does not matter which sample a code belongs to
        table, count = tables[0], count * len(tables)
        cells = difference_cells(table.table)
        several, one, seen = cells.several, cells.one, table.several
        while count:
            if position >= end:
                raise UndecodableImage(CUT_OFF)
            window = windows[position >> 3] >> 8 - (position & 7) & 0xFFFF
            cell = several[window]
            steps = cell >> STEPS_AT
            if steps > count or steps == STEPS:
                cell = one[window]
                if cell == NO_CODE:
                    raise UndecodableImage(BROKEN)
                table.single.add(window)
                steps = 1
            else:
                seen[window] = 1
            position += cell & BITS
            count -= steps
    else:
        plan = [(difference_cells(table.table).one, table.single) for table in tables]
        for _ in range(count):
            for one, single in plan:
                window = windows[position >> 3] >> 8 - (position & 7) & 0xFFFF
                cell = one[window]
                if cell == NO_CODE:
                    raise UndecodableImage(BROKEN)
                single.add(window)
                position += cell & BITS
            if position > end:
                raise UndecodableImage(CUT_OFF)
    codes.position = position


def read_band(codes: Codes, table: TableInUse, known: list[int], blocks: range, band: tuple[int, int]) -> None:
    """Read the blocks of a progressive scan that is the first for its AC coefficients.

    Args:
        codes: of one restart interval.
        table: for AC.
        known: for each block of the component, a bit for each nonzero coefficient; updated.
        blocks: those of the interval.
        band: first and last coefficient.

    Raises:
        UndecodableImage: an invalid code, or too few of them.
    """
    first, last = band
    cells, end, blocks_at_end = symbol_cells(table.table), 8 * len(codes.data), 0
    for block in blocks:
        if blocks_at_end:
            blocks_at_end -= 1
            continue
        place = first
        while place <= last:
            window = codes.window()
            cell = cells[window]
            table.single.add(window)
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


def refine_band(codes: Codes, table: TableInUse, known: list[int], blocks: range, band: tuple[int, int]) -> None:
    """Like `read_band`, for a progressive scan that adds a bit to its AC coefficients."""
    first, last = band
    inside = (2 << last) - 1
    cells, end, blocks_at_end = symbol_cells(table.table), 8 * len(codes.data), 0
    for block in blocks:
        place, old = first, known[block]
        while not blocks_at_end and place <= last:
            window = codes.window()
            cell = cells[window]
            table.single.add(window)
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
