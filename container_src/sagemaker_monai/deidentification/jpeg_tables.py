"""The tables of a JPEG picture: what their codes mean, and which of their entries a picture uses.

A table may hold up to 256 bytes of unused entries. They are replaced with values derived from the others, unless the
table is one of the standard's, which are in most pictures and so reveal nothing.

Source: ITU-T T.81, annexes C (codes), F.1.2 (what follows a code), K.1 and K.3 (the usual tables).
"""

from array import array
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache, cached_property, lru_cache

import numpy as np

from sagemaker_monai.errors import UndecodableImage

WINDOWS = 1 << 16  # values of the next 16 bits, the longest code
# A cell describes the next 16 bits, from the lowest: 6 bits: the length of its codes and the bits that follow them; 7
# bits: the coefficients or samples that they code; 1 bit: the last of them ends its block.
BITS, STEPS_AT, STEPS, END = 63, 6, 127, 1 << 13
NO_CODE = STEPS << STEPS_AT
_MOST_CODES = 8  # in one cell
_COEFFICIENTS = 64

BROKEN = "the Huffman codes of a JPEG picture are broken; export or save it again"

_USUAL_CODES = frozenset(
    (bytes.fromhex(counts), bytes.fromhex(symbols))
    for counts, symbols in (
        ("00010501010101010100000000000000", "000102030405060708090a0b"),
        ("00030101010101010101010000000000", "000102030405060708090a0b"),
        (
            "0002010303020403050504040000017d",
            "01020300041105122131410613516107227114328191a1082342b1c11552d1f02433627282090a161718191a25262728292a3435"
            "363738393a434445464748494a535455565758595a636465666768696a737475767778797a838485868788898a92939495969798"
            "999aa2a3a4a5a6a7a8a9aab2b3b4b5b6b7b8b9bac2c3c4c5c6c7c8c9cad2d3d4d5d6d7d8d9dae1e2e3e4e5e6e7e8e9eaf1f2f3f4"
            "f5f6f7f8f9fa",
        ),
        (
            "00020102040403040705040400010277",
            "000102031104052131061241510761711322328108144291a1b1c109233352f0156272d10a162434e125f11718191a262728292a"
            "35363738393a434445464748494a535455565758595a636465666768696a737475767778797a82838485868788898a9293949596"
            "9798999aa2a3a4a5a6a7a8a9aab2b3b4b5b6b7b8b9bac2c3c4c5c6c7c8c9cad2d3d4d5d6d7d8d9dae2e3e4e5e6e7e8e9eaf2f3f4"
            "f5f6f7f8f9fa",
        ),
    )
)
_USUAL_STEPS = (
    "100b0c0e0c0a100e0d0e1211101318281a181616183123251d283a333d3c3933383740485c4e404457453738506d51575f626768673e4d717970"
    "64785c656763",
    "11121218" + "15182f1a1a2f634238426363" + "63" * 48,
)


@dataclass(frozen=True)
class HuffmanTable:
    """A table as DHT has it.

    Attributes:
        counts: 16 bytes, how many codes have 1 to 16 bits.
        symbols: one byte for each code, in the order of the codes.
    """

    counts: bytes
    symbols: bytes


@dataclass(frozen=True)
class Cells:
    """What the next 16 bits mean, by their value.

    Attributes:
        several: cells of as many codes as fit into 16 bits.
        one: cells of one code.
        counts: codes in each cell of `several`.
    """

    several: "array[int]"
    one: "array[int]"
    counts: np.ndarray


@lru_cache(maxsize=16)
def codes_of(table: HuffmanTable) -> tuple[np.ndarray, np.ndarray]:
    """By the next 16 bits, the length of the code (0 for none), and the index of its symbol; UndecodableImage if the
    table is invalid.
    """
    if len(table.counts) != 16 or sum(table.counts) != len(table.symbols) or len(table.symbols) > 256:
        raise UndecodableImage(BROKEN)
    sizes = np.repeat(np.arange(1, 17), np.frombuffer(table.counts, np.uint8))
    spans = 1 << 16 - sizes
    used = int(spans.sum())
    if used > WINDOWS:
        raise UndecodableImage(BROKEN)
    lengths, places = np.zeros(WINDOWS, np.uint8), np.zeros(WINDOWS, np.uint8)
    lengths[:used] = np.repeat(sizes, spans)
    places[:used] = np.repeat(np.arange(len(table.symbols)), spans)
    return lengths, places


def _symbols_of(table: HuffmanTable) -> tuple[np.ndarray, np.ndarray]:
    lengths, places = codes_of(table)
    symbols = np.frombuffer(table.symbols or b"\0", np.uint8)[places]
    return lengths.astype(np.int64), symbols.astype(np.int64)


def _cells(one: np.ndarray, lengths: np.ndarray) -> Cells:
    cells, counts = one.copy(), np.ones(WINDOWS, np.int64)
    windows = np.arange(WINDOWS)
    for _ in range(_MOST_CODES - 1):
        taken = cells & BITS
        following = (windows << np.minimum(taken, 16)) & (WINDOWS - 1)
        nexts = one[following]
        steps = (cells >> STEPS_AT & STEPS) + (nexts >> STEPS_AT & STEPS)
        is_known = (lengths[following] > 0) & (taken + lengths[following] <= 16)
        may = is_known & (cells < END) & (steps < 64) & (taken + (nexts & BITS) <= BITS)
        if not may.any():
            break
        cells = np.where(may, (taken + (nexts & BITS)) | steps << STEPS_AT | (nexts & END), cells)
        counts += may
    return Cells(array("H", cells.astype("=u2").tobytes()), array("H", one.astype("=u2").tobytes()), counts)


@lru_cache(maxsize=16)
def block_cells(table: HuffmanTable) -> Cells:
    """For AC codes of the sequential process. A step is a coefficient or the end of a block."""
    lengths, symbols = _symbols_of(table)
    runs, sizes = symbols >> 4, symbols & 15
    is_end = (sizes == 0) & (runs != 15)
    steps = np.where(is_end, 1, runs + 1)
    one = np.where(lengths > 0, (lengths + sizes) | steps << STEPS_AT | np.where(is_end, END, 0), NO_CODE)
    return _cells(one, lengths)


@lru_cache(maxsize=16)
def difference_cells(table: HuffmanTable) -> Cells:
    """For codes of differences: DC, or samples of the lossless process. A step is one of them."""
    lengths, symbols = _symbols_of(table)
    if len(table.symbols) and max(table.symbols) > 16:
        raise UndecodableImage(BROKEN)
    bits = np.where(symbols < 16, symbols, 0)  # 32768 has no bits after its code
    return _cells(np.where(lengths > 0, (lengths + bits) | 1 << STEPS_AT, NO_CODE), lengths)


@lru_cache(maxsize=16)
def symbol_cells(table: HuffmanTable) -> "array[int]":
    """Length of the code (above 8 bits) and its symbol; 0 for none."""
    lengths, symbols = _symbols_of(table)
    return array("H", np.where(lengths > 0, lengths << 8 | symbols, 0).astype("=u2").tobytes())


_SMALL_BYTES = 1 << 17


class TableInUse:
    """A table, and which of its codes a picture uses.

    Attributes:
        table: as in the picture.
        several: by 16-bit value, 1 if the codes of that cell were read; for AC, separately for each coefficient.
        single: likewise for cells of one code, as a set of numbers.
    """

    def __init__(self, table: HuffmanTable, *, is_ac: bool, picture_bytes: int) -> None:
        codes_of(table)
        self.table = table
        self.is_ac = is_ac
        self._is_small = picture_bytes < _SMALL_BYTES
        self.single: set[int] = set()

    @cached_property
    def several(self) -> bytearray | dict[int, int]:
        """Created on demand: 4 MB for AC, which would dominate the time for a small picture."""
        return {} if self._is_small else bytearray(WINDOWS * _COEFFICIENTS if self.is_ac else WINDOWS)

    @property
    def is_usual(self) -> bool:
        """Whether the table is one of the standard's."""
        return (self.table.counts, self.table.symbols) in _USUAL_CODES

    def bare(self) -> HuffmanTable:
        """The table with its unused symbols replaced by the lowest symbols that do not occur in it."""
        table = self.table
        if self.is_usual:
            return table
        used, _ = self._entries()
        kept = {symbol for symbol, is_used in zip(table.symbols, used, strict=False) if is_used}
        others = (symbol for symbol in range(256 if self.is_ac else 17) if symbol not in kept)
        symbols = bytes(
            symbol if is_used else next(others, 0) for symbol, is_used in zip(table.symbols, used, strict=False)
        )
        return HuffmanTable(table.counts, symbols)

    def coefficients(self) -> set[int]:
        """The coefficients that are nonzero somewhere, by their index in a block; for AC of the sequential process."""
        return set(self._entries()[1].tolist())

    def _entries(self) -> tuple[np.ndarray, np.ndarray]:
        """Whether each code was read, and the nonzero coefficients."""
        lengths, places = codes_of(self.table)
        symbols = np.frombuffer(self.table.symbols or b"\0", np.uint8)
        single = np.array(sorted(self.single), np.int64)
        several = _marked(self.__dict__.get("several", {}))
        left = np.ones(len(single) + len(several), np.int64)
        if len(several):
            cells = block_cells(self.table) if self.is_ac else difference_cells(self.table)
            left[len(single) :] = cells.counts[several & WINDOWS - 1]
        keys = np.concatenate([single, several])
        coefficients, windows = keys >> 16, keys & WINDOWS - 1
        used, found = np.zeros(256, bool), [np.zeros(0, np.int64)]
        while len(windows):
            read = places[windows]
            used[read] = True
            symbol = symbols[read].astype(np.int64)
            size = symbol & 15 if self.is_ac else np.where(symbol < 16, symbol, 0)
            coefficients = coefficients + (symbol >> 4) if self.is_ac else coefficients
            found.append(np.unique(coefficients[size > 0]))
            windows = windows << np.minimum(lengths[windows] + size, 16) & WINDOWS - 1
            left = left - 1
            windows, coefficients, left = (each[left > 0] for each in (windows, coefficients + 1, left))
        return used, np.concatenate(found)


def _marked(marks: bytearray | dict[int, int]) -> np.ndarray:
    """The marked indices in ascending order."""
    if isinstance(marks, dict):
        return np.array(sorted(marks), np.int64)
    words = np.flatnonzero(np.frombuffer(marks, np.uint64))  # eight bytes at once, as most are zero
    rows, columns = np.nonzero(np.frombuffer(marks, np.uint8).reshape(-1, 8)[words])
    return words[rows] * 8 + columns


@cache
def _usual_steps() -> frozenset[bytes]:
    """The tables of K.1, scaled as by libjpeg for qualities 1 to 100."""
    tables = set()
    for text in _USUAL_STEPS:
        base = np.frombuffer(bytes.fromhex(text), np.uint8).astype(np.int64)
        for quality in range(1, 101):
            scale = 5000 // quality if quality < 50 else 200 - 2 * quality
            tables.add(np.clip((base * scale + 50) // 100, 1, 255).astype(np.uint8).tobytes())
    return frozenset(tables)


def is_usual_quantization(table: bytes) -> bool:
    """Whether a table of DQT (with precision and number) is one of the standard's, scaled as usual."""
    return table[1:] in _usual_steps()


def bare_quantization(table: bytes, coefficients: Iterable[int]) -> bytes:
    """A quantization table whose unused steps repeat the step before them.

    Args:
        table: of DQT: precision and number, then 64 steps of one or two bytes in zigzag order.
        coefficients: indices of nonzero ones, in that order too; the first is always used.
    """
    size = (len(table) - 1) // _COEFFICIENTS
    steps = [table[1 + size * place : 1 + size * (place + 1)] for place in range(_COEFFICIENTS)]
    used = {0, *coefficients}
    for place in range(_COEFFICIENTS):
        if place not in used:
            steps[place] = steps[place - 1]
    return table[:1] + b"".join(steps)
