"""Rewrites a JPEG 2000 or HTJ2K codestream marker by marker with only what its decoder needs.

The packets stay bit for bit. Boxes of a JP2 file, comments, registration, and bytes after the last packet of a tile,
between tile-parts and after the end are dropped; lengths and numbers of tile-parts are rewritten. Tables of tile-part
lengths (TLM) are rebuilt if there were any, because the transfer syntax HTJ2K RPCL requires one; those of packets (PLM,
PLT) are dropped.

Sources: ITU-T T.800, annex A; ITU-T T.814, annex A (CAP); DICOM PS3.5 A.4.4.
"""

import struct
from collections import Counter
from dataclasses import dataclass, replace

from sagemaker_monai.deidentification.j2k_packets import Style, Tile, count_packet_bytes
from sagemaker_monai.errors import UndecodableImage
from sagemaker_monai.images.dicom.codestreams import read_j2k
from sagemaker_monai.images.dicom.effort import coding_segments

_SOC, _SOT, _SOD, _EOC = 0xFF4F, 0xFF90, 0xFF93, 0xFFD9
_CAP, _SIZ, _COD, _COC, _TLM, _QCD, _QCC, _RGN = (*(0xFF50, 0xFF51, 0xFF52, 0xFF53, 0xFF55, 0xFF5C, 0xFF5D, 0xFF5E),)
_BIG_PRECINCT = 15  # default exponent of a precinct's sides
_MAX_TILE_PARTS = 255  # of a tile
# TLM, PLM, PLT, CPF, CRG, COM: decoders do not need them.
_LEFT_OUT = frozenset({_TLM, 0xFF57, 0xFF58, 0xFF59, 0xFF63, 0xFF64})
_SIZ_START = b"\xff\x4f\xff\x51"
_MOST_LENGTHS = 10_922  # in one TLM
_BROKEN = "a JPEG 2000 frame is broken; export it again"
_CUT_OFF = "a JPEG 2000 frame is truncated; export it again"


@dataclass(frozen=True)
class _TilePart:
    """A tile-part: its tile, the segments of its header, and its packets."""

    tile: int
    segments: tuple[tuple[int, bytes], ...]
    packets: bytes


def cleaned_j2k(data: bytes) -> bytes:
    """Rewrite a codestream, or that of a JP2 file, from SOC to EOC.

    Raises:
        UndecodableImage: it cannot be parsed, has separate packet headers (PPM, PPT), or changes their order (POC).
        PayloadTooLarge: more than the limits of `dicom.codestreams`.
    """
    read_j2k(data)  # checks the start, and the limits
    return _Writer(data[data.index(_SIZ_START) :]).write()


def _segment(marker: int, content: bytes) -> bytes:
    return struct.pack(">HH", marker, 2 + len(content)) + content


class _Writer:
    """Reads a codestream from beginning to end and collects what to write."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._levels = max((part[5 if marker == _COD else 2] for marker, part in coding_segments(data)), default=0)
        self._has_lengths = False
        self._parts: list[_TilePart] = []

    def write(self) -> bytes:
        segments, position = self._header(2, ends_at=_SOT)
        while self._marker(position) == _SOT:
            position = self._tile_part(position)
        # The EOC may be missing; anything else after the last tile-part is dropped.
        if not self._parts:
            raise UndecodableImage(_CUT_OFF)
        self._cut_tiles(segments)
        parts = self._written()
        lengths = self._lengths([len(part) for part in parts]) if self._has_lengths else b""
        header = b"".join(_segment(*segment) for segment in segments)
        return b"".join([_SIZ_START[:2], header, lengths, *parts, struct.pack(">H", _EOC)])

    def _cut_tiles(self, header: list[tuple[int, bytes]]) -> None:
        """Drop bytes after the last packet of each tile, and parts that become empty."""
        tiles: dict[int, list[int]] = {}
        for place, part in enumerate(self._parts):
            tiles.setdefault(part.tile, []).append(place)
        kept: dict[int, _TilePart] = {}
        for number, places in tiles.items():
            parts = [self._parts[place] for place in places]
            own = [segment for part in parts for segment in part.segments]
            tile = _tile_of(number, header, own)
            left = count_packet_bytes(tile, b"".join(part.packets for part in parts))
            for place, part in zip(places, parts, strict=True):
                packets = part.packets[:left]
                left -= len(packets)
                if packets or place == places[0]:
                    kept[place] = replace(part, packets=packets)
        self._parts = [kept[place] for place in sorted(kept)]

    def _marker(self, position: int) -> int:
        return int.from_bytes(self._data[position : position + 2], "big")

    def _header(self, position: int, *, ends_at: int) -> tuple[list[tuple[int, bytes]], int]:
        """The kept segments up to a marker, and its position."""
        parts: list[tuple[int, bytes]] = []
        while (marker := self._marker(position)) != ends_at:
            length = self._marker(position + 2)
            content = self._data[position + 4 : position + 2 + length]
            if position + 4 > len(self._data) or length < 2 or len(content) != length - 2:
                raise UndecodableImage(_CUT_OFF)
            position += 2 + length
            if marker == _TLM:
                self._has_lengths = True
            if marker in _LEFT_OUT:
                continue
            size = self._size_of(marker, content)
            if size > len(content):
                raise UndecodableImage(_BROKEN)
            parts.append((marker, content[:size]))
        return parts, position

    def _size_of(self, marker: int, content: bytes) -> int:
        """Length of the meaningful part of a segment's content."""
        try:
            if marker == _SIZ:
                return 36 + 3 * int.from_bytes(content[34:36], "big")
            if marker == _CAP:
                return 4 + 2 * int.from_bytes(content[:4], "big").bit_count()
            if marker == _COD:
                return 10 + (content[5] + 1) * (content[0] & 1)
            if marker == _COC:
                return 7 + (content[2] + 1) * (content[1] & 1)
            if marker == _QCD:
                return 1 + self._steps(content[0])
            if marker == _QCC:
                return 2 + self._steps(content[1])
            if marker == _RGN:
                return 3
        except IndexError as error:
            raise UndecodableImage(_BROKEN) from error
        raise UndecodableImage(
            "a JPEG 2000 frame has separate packet headers, changes the packet order, or has an unknown marker; export "
            "it again"
        )

    def _steps(self, style: int) -> int:
        """Bytes of the quantization steps of all bands; T.800 table A.28."""
        bands = 3 * self._levels + 1
        return {0: bands, 1: 2, 2: 2 * bands}.get(style & 31, 1 << 16)

    def _tile_part(self, position: int) -> int:
        """Collect a tile-part; returns the position of the next marker."""
        content = self._data[position + 4 : position + 12]
        if len(content) < 8 or self._marker(position + 2) != 10:
            raise UndecodableImage(_CUT_OFF)
        tile, length = struct.unpack(">HL", content[:6])
        end = position + length if length else self._end_of_codes()
        segments, start = self._header(position + 12, ends_at=_SOD)
        start += 2
        if end < start or end > len(self._data):
            raise UndecodableImage(_CUT_OFF)
        self._parts.append(_TilePart(tile, tuple(segments), self._data[start:end]))
        return end

    def _end_of_codes(self) -> int:
        """Where a tile-part without a length ends: at EOC, which cannot occur within codes."""
        end = self._data.rfind(b"\xff\xd9")
        if end < 0:
            raise UndecodableImage(_CUT_OFF)
        return end

    def _written(self) -> list[bytes]:
        """The tile-parts, each with its number within its tile and their count."""
        counts = Counter(part.tile for part in self._parts)
        if max(counts.values()) > _MAX_TILE_PARTS:
            raise UndecodableImage(_BROKEN)
        numbers: Counter[int] = Counter()
        written = []
        for part in self._parts:
            header = b"".join(_segment(*segment) for segment in part.segments)
            length = 14 + len(header) + len(part.packets)
            start = struct.pack(">HLBB", part.tile, length, numbers[part.tile], counts[part.tile])
            numbers[part.tile] += 1
            written.append(_segment(_SOT, start) + header + struct.pack(">H", _SOD) + part.packets)
        return written

    def _lengths(self, lengths: list[int]) -> bytes:
        """TLM with the tile and the length of each tile-part; T.800 A.7.1."""
        rows = [struct.pack(">HL", part.tile, size) for part, size in zip(self._parts, lengths, strict=True)]
        return b"".join(
            _segment(_TLM, bytes((index & 255, 0x60)) + b"".join(rows[start : start + _MOST_LENGTHS]))
            for index, start in enumerate(range(0, len(rows), _MOST_LENGTHS))
        )


def _tile_of(number: int, header: list[tuple[int, bytes]], own: list[tuple[int, bytes]]) -> Tile:
    """How a tile is coded: its COC takes precedence over its COD, and that over the picture's; A.6.1, A.6.2."""
    sizes = next((content for marker, content in header if marker == _SIZ), b"")
    right, bottom, left, top, width, height, tile_left, tile_top, samples = struct.unpack(">8LH", sizes[2:36])
    if not width or right <= tile_left:
        raise UndecodableImage(_BROKEN)
    across = -(-(right - tile_left) // width)
    row, column = divmod(number, across)
    x, y = tile_left + column * width, tile_top + row * height
    area = max(x, left), max(y, top), min(x + width, right), min(y + height, bottom)
    codings = [content for marker, content in own if marker == _COD] or [
        content for marker, content in header if marker == _COD
    ]
    if not codings or area[0] >= area[2] or area[1] >= area[3]:
        raise UndecodableImage(_BROKEN)
    coding = codings[0]
    styles = [_style(coding[5:], has_precincts=bool(coding[0] & 1))] * samples
    has_own = any(marker == _COD for marker, _ in own)
    for marker, content in [*([] if has_own else header), *own]:
        if marker == _COC:
            if content[0] >= samples:
                raise UndecodableImage(_BROKEN)
            styles[content[0]] = _style(content[2:], has_precincts=bool(content[1] & 1))
    return Tile(
        area=area,
        progression=coding[1],
        layers=int.from_bytes(coding[2:4], "big"),
        has_sop=bool(coding[0] & 2),
        has_eph=bool(coding[0] & 4),
        styles=tuple(styles),
    )


def _style(parameters: bytes, *, has_precincts: bool) -> Style:
    levels, width, height, block_style = parameters[:4]
    if levels > 32:
        raise UndecodableImage(_BROKEN)
    sizes = [(size & 15, size >> 4) for size in parameters[5 : 6 + levels]] if has_precincts else []
    precincts = sizes or [(_BIG_PRECINCT, _BIG_PRECINCT)] * (levels + 1)
    return Style(levels, (width + 2, height + 2), block_style, tuple(precincts))
