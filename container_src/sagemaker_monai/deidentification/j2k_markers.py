"""A codestream of JPEG 2000 or HTJ2K, written again marker by marker with what its decoder needs and nothing else.

The packets stay bit for bit. Boxes of a JP2 file, comments, registration, what stands between tile-parts and behind the
end are left out; lengths of tile-parts are written anew. Tables of lengths (TLM) are made anew where there were any, as
the transfer syntax HTJ2K RPCL asks for one; those of packets (PLM, PLT) are left out.

Sources: ITU-T T.800, annex A; ITU-T T.814, annex A (CAP); DICOM PS3.5 A.4.4.
"""

import struct
from collections.abc import Iterator
from dataclasses import dataclass

from sagemaker_monai.dicom.codestreams import MAX_TILES, read_j2k
from sagemaker_monai.errors import PayloadTooLarge, UndecodableImage

_SOC, _SOT, _SOD, _EOC = 0xFF4F, 0xFF90, 0xFF93, 0xFFD9
_CAP, _SIZ, _COD, _COC, _TLM, _QCD, _QCC, _RGN, _POC = (
    *(0xFF50, 0xFF51, 0xFF52, 0xFF53, 0xFF55, 0xFF5C, 0xFF5D, 0xFF5E, 0xFF5F),
)
# PLM, PLT, CPF, CRG, COM: what decoders can do without.
_LEFT_OUT = frozenset({_TLM, 0xFF57, 0xFF58, 0xFF59, 0xFF63, 0xFF64})
_SIZ_START = b"\xff\x4f\xff\x51"
_MOST_LENGTHS = 10_922  # in one TLM
_BROKEN = "a JPEG 2000 frame is broken; export it again"
_CUT_OFF = "a JPEG 2000 frame is cut off; export it again"


@dataclass(frozen=True)
class _TilePart:
    tile: int
    number: int
    count: int
    header: bytes
    packets: bytes


def cleaned_j2k(data: bytes) -> bytes:
    """Write a codestream again.

    Args:
        data: a codestream, or a JP2 file with one.

    Returns:
        The codestream from SOC to EOC.

    Raises:
        UndecodableImage: it cannot be parsed, or its headers stand apart from it (PPM, PPT).
        PayloadTooLarge: more than the limits of `dicom.codestreams`.
    """
    read_j2k(data)  # so that there is such a start, and not too much behind it
    return _Writer(data[data.index(_SIZ_START) :]).write()


def _segment(marker: int, content: bytes) -> bytes:
    return struct.pack(">HH", marker, 2 + len(content)) + content


class _Writer:
    """Reads a codestream from its beginning to its end and gathers what is written."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._levels = _most_levels(data)
        self._has_lengths = False
        self._parts: list[_TilePart] = []

    def write(self) -> bytes:
        header, position = self._header(2, ends_at=_SOT)
        while self._marker(position) == _SOT:
            position = self._tile_part(position)
            if position >= len(self._data):
                break
        # The end may be missing, as nothing is behind it; anything else behind the last tile-part goes.
        if not self._parts:
            raise UndecodableImage(_CUT_OFF)
        parts = [self._written(part) for part in self._parts]
        lengths = self._lengths([len(part) for part in parts]) if self._has_lengths else b""
        return b"".join([_SIZ_START[:2], header, lengths, *parts, struct.pack(">H", _EOC)])

    def _marker(self, position: int) -> int:
        return int.from_bytes(self._data[position : position + 2], "big")

    def _header(self, position: int, *, ends_at: int) -> tuple[bytes, int]:
        """The segments that stay up to a marker, and where that stands."""
        parts: list[bytes] = []
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
            parts.append(_segment(marker, content[:size]))
        return b"".join(parts), position

    def _size_of(self, marker: int, content: bytes) -> int:
        """Bytes of a segment's content that mean something."""
        try:
            match marker:
                case 0xFF51:  # SIZ
                    return 36 + 3 * int.from_bytes(content[34:36], "big")
                case 0xFF50:  # CAP
                    return 4 + 2 * int.from_bytes(content[:4], "big").bit_count()
                case 0xFF52:  # COD
                    return 10 + (content[5] + 1) * (content[0] & 1)
                case 0xFF53:  # COC
                    return 7 + (content[2] + 1) * (content[1] & 1)
                case 0xFF5C:  # QCD
                    return 1 + self._steps(content[0])
                case 0xFF5D:  # QCC
                    return 2 + self._steps(content[1])
                case 0xFF5E:  # RGN
                    return 3
                case 0xFF5F:  # POC
                    return max(7, len(content) // 7 * 7)
        except IndexError as error:
            raise UndecodableImage(_BROKEN) from error
        raise UndecodableImage(
            "a JPEG 2000 frame keeps its packets' headers apart, or has a marker that is not known; export it again"
        )

    def _steps(self, style: int) -> int:
        """Bytes of the quantization steps of all bands; T.800 table A.28."""
        bands = 3 * self._levels + 1
        return {0: bands, 1: 2, 2: 2 * bands}.get(style & 31, 1 << 16)

    def _tile_part(self, position: int) -> int:
        """Gather a tile-part; returns where the next marker should stand."""
        content = self._data[position + 4 : position + 12]
        if len(content) < 8 or self._marker(position + 2) != 10:
            raise UndecodableImage(_CUT_OFF)
        tile, length, number, count = struct.unpack(">HLBB", content)
        end = position + length if length else self._end_of_codes()
        header, start = self._header(position + 12, ends_at=_SOD)
        start += 2
        if end < start or end > len(self._data):
            raise UndecodableImage(_CUT_OFF)
        if len(self._parts) > 255 * MAX_TILES:
            raise PayloadTooLarge("a JPEG 2000 frame in too many parts; export the file again")
        self._parts.append(_TilePart(tile, number, count, header, self._data[start:end]))
        return end

    def _end_of_codes(self) -> int:
        """Where a tile-part without a length ends: at EOC, behind which nothing of the codes can look like it."""
        end = self._data.rfind(b"\xff\xd9")
        if end < 0:
            raise UndecodableImage(_CUT_OFF)
        return end

    def _written(self, part: _TilePart) -> bytes:
        length = 14 + len(part.header) + len(part.packets)
        start = _segment(_SOT, struct.pack(">HLBB", part.tile, length, part.number, part.count))
        return start + part.header + struct.pack(">H", _SOD) + part.packets

    def _lengths(self, lengths: list[int]) -> bytes:
        """TLM with the tile and the length of each tile-part; T.800 A.7.1."""
        rows = [struct.pack(">HL", part.tile, size) for part, size in zip(self._parts, lengths, strict=True)]
        return b"".join(
            _segment(_TLM, bytes((index & 255, 0x60)) + b"".join(rows[start : start + _MOST_LENGTHS]))
            for index, start in enumerate(range(0, len(rows), _MOST_LENGTHS))
        )


def _most_levels(data: bytes) -> int:
    """The most levels of decomposition of any component of any tile."""
    return max((levels for levels in _levels(data)), default=0)


def _levels(data: bytes) -> Iterator[int]:
    position, tile_part, next_part = 2, 0, 0
    while position + 4 <= len(data):
        marker, length = struct.unpack(">HH", data[position : position + 4])
        if marker == _EOC:
            return
        if marker == _SOD:
            if next_part <= position:
                return
            position = next_part
            continue
        segment = data[position + 4 : position + 2 + length]
        if marker == _SOT and len(segment) >= 6:
            tile_part, next_part = position, position + int.from_bytes(segment[2:6], "big")
            if next_part == tile_part:
                next_part = 0
        elif marker == _COD and len(segment) > 5:
            yield segment[5]
        elif marker == _COC and len(segment) > 2:
            yield segment[2]
        position += 2 + length
