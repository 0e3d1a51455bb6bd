"""Counts the bytes of a JPEG 2000 or HTJ2K tile's packets, by reading their headers without decoding code-blocks.

Decoders skip any bytes after the last packet that the tile-part's length covers.

Source: ITU-T T.800, annex B; the numbers in brackets below are its clauses. HTJ2K: T.814, B.1.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

from sagemaker_monai.errors import UndecodableImage

_MOST_BITPLANES = 80
_TERMINATED, _BYPASS, _HIGH_THROUGHPUT = 4, 1, 64  # code-block styles
_SOP, _EPH = b"\xff\x91\x00\x04", b"\xff\x92"
_BROKEN = "a packet of a JPEG 2000 frame is broken; export it again"


@dataclass(frozen=True)
class Style:
    """The coding style of one component of a tile.

    Attributes:
        levels: of decomposition.
        block: exponents of a code-block's width and height.
        block_style: SPcod's byte.
        precincts: exponents of a precinct's width and height, of each resolution.
    """

    levels: int
    block: tuple[int, int]
    block_style: int
    precincts: tuple[tuple[int, int], ...]


@dataclass(frozen=True)
class Tile:
    """What determines a tile's packets and their order.

    Attributes:
        area: left, top, right and bottom on the reference grid, the last two outside.
        progression: 0 to 4: LRCP, RLCP, RPCL, PCRL, CPRL.
        layers: of quality.
        has_sop, has_eph: there may be markers before a packet and after its header.
        styles: of each component; components are as large as the grid.
    """

    area: tuple[int, int, int, int]
    progression: int
    layers: int
    has_sop: bool
    has_eph: bool
    styles: tuple[Style, ...]


class _EndError(Exception):
    """The data ends within a packet."""


class _Bits:
    """Bits of packet headers: after a byte of ones the first bit of the next one is stuffed (B.10.1)."""

    def __init__(self, data: bytes, position: int) -> None:
        self._data = data
        self.position = position
        self._byte = self._left = 0

    def bit(self) -> int:
        if not self._left:
            self._left = 7 if self._byte == 0xFF else 8
            if self.position >= len(self._data):
                raise _EndError
            self._byte = self._data[self.position]
            self.position += 1
        self._left -= 1
        return self._byte >> self._left & 1

    def number(self, count: int) -> int:
        value = 0
        for _ in range(count):
            value = value << 1 | self.bit()
        return value

    def align(self) -> int:
        """Skip the rest of the byte, and a stuffed one; returns the next position."""
        return self.position + (self._byte == 0xFF)


class _TagTree:
    """B.10.2."""

    def __init__(self, columns: int, rows: int) -> None:
        self._widths: list[int] = []
        self._lows: list[list[int]] = []
        self._values: list[list[int | None]] = []
        while True:
            self._widths.append(columns)
            self._lows.append([0] * (columns * rows))
            self._values.append([None] * (columns * rows))
            if columns * rows <= 1:
                break
            columns, rows = -(-columns // 2), -(-rows // 2)

    def is_below(self, bits: _Bits, column: int, row: int, threshold: int) -> bool:
        """Whether the value of a leaf is below the threshold; reads as much as needed."""
        low, value = 0, None
        for level in range(len(self._widths) - 1, -1, -1):
            place = (row >> level) * self._widths[level] + (column >> level)
            low = max(low, self._lows[level][place])
            value = self._values[level][place]
            while value is None and low < threshold:
                if bits.bit():
                    value = low
                else:
                    low += 1
            self._lows[level][place], self._values[level][place] = low, value
        return value is not None and value < threshold


@dataclass(slots=True)
class _Block:
    column: int
    row: int
    is_included: bool = False
    length_bits: int = 3
    segments: int = 0
    passes: int = 0  # of the last segment
    most_passes: int = 0


@dataclass
class _Band:
    blocks: list[_Block]
    inclusion: _TagTree
    bitplanes: _TagTree


@dataclass
class _Precinct:
    tile: Tile
    style: Style
    resolution: int
    column: int
    row: int

    @cached_property
    def bands(self) -> list[_Band]:
        """Built on demand: a frame may announce more than it contains."""
        return list(_bands(self))


def count_packet_bytes(tile: Tile, data: bytes) -> int:
    """Bytes of the packets of a tile, given the joined data of its tile-parts; all if the last packets are truncated.

    Raises:
        UndecodableImage: a packet is broken.
    """
    position = 0
    try:
        for precinct, layer in _packets(tile, most=len(data)):  # each has a byte or more
            position = _read_packet(tile, precinct, layer, data, position)
    except _EndError:
        return len(data)
    return position


def _packets(tile: Tile, most: int) -> Iterator[tuple[_Precinct, int]]:
    """The packets in order (B.12)."""
    found: list[tuple[tuple[int, ...], int, _Precinct]] = []
    for component, style in enumerate(tile.styles):
        for resolution in range(style.levels + 1):
            for number, (place, precinct) in enumerate(_precincts(tile, style, resolution)):
                keys = {
                    0: (resolution, component, number),
                    1: (resolution, component, number),
                    2: (resolution, *place, component, number),
                    3: (*place, component, resolution, number),
                    4: (component, *place, resolution, number),
                }
                if tile.progression not in keys:
                    raise UndecodableImage(_BROKEN)
                found.append((keys[tile.progression], len(found), precinct))
                if len(found) * tile.layers > most:
                    raise _EndError
    found.sort(key=lambda each: each[:2])
    layers = range(tile.layers)
    if tile.progression == 0:
        return ((precinct, layer) for layer in layers for _, _, precinct in found)
    if tile.progression == 1:
        resolutions = sorted({key[0] for key, _, _ in found})
        by_resolution = {each: [row[2] for row in found if row[0][0] == each] for each in resolutions}
        return ((precinct, layer) for each in resolutions for layer in layers for precinct in by_resolution[each])
    return ((precinct, layer) for _, _, precinct in found for layer in layers)


def _precincts(tile: Tile, style: Style, resolution: int) -> Iterator[tuple[tuple[int, int], _Precinct]]:
    """The precincts of a resolution, with their top and left on the grid (B.6)."""
    halvings = style.levels - resolution
    left, top, right, bottom = (-(-side >> halvings) for side in tile.area)
    across, down = style.precincts[resolution]
    if left >= right or top >= bottom:
        return
    for row in range(top >> down, -(-bottom >> down)):
        for column in range(left >> across, -(-right >> across)):
            y = max(row << down + halvings, tile.area[1])
            x = max(column << across + halvings, tile.area[0])
            yield (y, x), _Precinct(tile, style, resolution, column, row)


def _bands(precinct: _Precinct) -> Iterator[_Band]:
    """The code-blocks of a precinct in each band of its resolution (B.5, B.7)."""
    style, resolution, column, row = precinct.style, precinct.resolution, precinct.column, precinct.row
    across, down = style.precincts[resolution]
    halvings = style.levels - resolution + (resolution > 0)
    if resolution:  # a band has half of the resolution's samples
        across, down = across - 1, down - 1
        if across < 0 or down < 0:
            raise UndecodableImage(_BROKEN)
    block_width, block_height = min(style.block[0], across), min(style.block[1], down)
    for is_high in [(1, 0), (0, 1), (1, 1)] if resolution else [(0, 0)]:
        left, top, right, bottom = (
            -(-(side - (is_high[index % 2] << halvings >> 1)) >> halvings)
            for index, side in enumerate(precinct.tile.area)
        )
        if left >= right or top >= bottom:
            continue
        left, right = max(left, column << across), min(right, column + 1 << across)
        top, bottom = max(top, row << down), min(bottom, row + 1 << down)
        columns = -(-right >> block_width) - (left >> block_width) if left < right else 0
        rows = -(-bottom >> block_height) - (top >> block_height) if top < bottom else 0
        if columns and rows:
            blocks = [_Block(each % columns, each // columns) for each in range(columns * rows)]
            yield _Band(blocks, _TagTree(columns, rows), _TagTree(columns, rows))


def _read_packet(tile: Tile, precinct: _Precinct, layer: int, data: bytes, position: int) -> int:
    """Read a packet's header; returns the end of its body."""
    if position >= len(data):
        raise _EndError
    if tile.has_sop and data[position : position + 4] == _SOP:
        position += 6
    bits = _Bits(data, position)
    size = 0
    if bits.bit():
        for band in precinct.bands:
            for block in band.blocks:
                size += _block_size(bits, band, block, layer, precinct.style.block_style)
    position = bits.align()
    if tile.has_eph and data[position : position + 2] == _EPH:
        position += 2
    if position + size > len(data):
        raise _EndError
    return position + size


def _block_size(bits: _Bits, band: _Band, block: _Block, layer: int, style: int) -> int:
    """Bytes of a code-block in a packet (B.10.4 to B.10.7)."""
    if block.is_included:
        if not bits.bit():
            return 0
    else:
        if not band.inclusion.is_below(bits, block.column, block.row, layer + 1):
            return 0
        planes = 1
        while not band.bitplanes.is_below(bits, block.column, block.row, planes):
            planes += 1
            if planes > _MOST_BITPLANES:
                raise UndecodableImage(_BROKEN)
        block.is_included = True
    passes = _count_passes(bits)
    while bits.bit():
        block.length_bits += 1
    size = 0
    while passes:
        if block.passes == block.most_passes:
            _begin_segment(block, style)
        taken = min(passes, block.most_passes - block.passes)
        size += bits.number(block.length_bits + taken.bit_length() - 1)
        block.passes += taken
        passes -= taken
    return size


def _begin_segment(block: _Block, style: int) -> None:
    """Begin the next segment of a code-block, with its maximum number of passes (D.4.2, D.6)."""
    if style & _HIGH_THROUGHPUT:
        most = 1 if block.segments == 0 else 1 << 16
    elif style & _TERMINATED:
        most = 1
    elif style & _BYPASS:
        most = 10 if block.segments == 0 else 2 if block.most_passes in (1, 10) else 1
    else:
        most = 1 << 16
    block.segments, block.passes, block.most_passes = block.segments + 1, 0, most


def _count_passes(bits: _Bits) -> int:
    """Table B.4."""
    if not bits.bit():
        return 1
    if not bits.bit():
        return 2
    for base, count in ((3, 2), (6, 5)):
        value = bits.number(count)
        if value < (1 << count) - 1:
            return base + value
    return 37 + bits.number(7)
