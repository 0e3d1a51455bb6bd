"""Rewrites a JPEG or JPEG-LS picture marker by marker with only what its decoder needs.

Nothing is recompressed: the codes of the scans stay bit for bit. Only an allow-list is written: the frame, the scans,
and the tables that a scan refers to, each rebuilt from its meaningful values. So comments, application segments,
thumbnails, unused tables, bytes after the last code of a scan and everything after the end are dropped, and unused
table entries are neutralised. What is not on the list and cannot be dropped is refused: arithmetic coding, hierarchical
frames, a line count after the scan.

Sources: ITU-T T.81 B.2 (markers), A.2 and A.3 (order of blocks), G.1 (progressive), H.1 (lossless); ITU-T T.87 C.2
(JPEG-LS); JFIF 1.02; T.872 6.5.3 (Adobe).
"""

import re
import struct
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial, reduce
from operator import or_

from sagemaker_monai.deidentification.jpeg_entropy import (
    CUT_OFF,
    Codes,
    read_band,
    read_blocks,
    read_samples,
    refine_band,
)
from sagemaker_monai.deidentification.jpeg_tables import (
    BROKEN,
    HuffmanTable,
    TableInUse,
    bare_quantization,
    is_usual_quantization,
)
from sagemaker_monai.errors import PayloadTooLarge, UndecodableImage
from sagemaker_monai.images.dicom.codestreams import MAX_SCANS

_SOI, _EOI, _SOS, _DQT, _DHT, _DRI, _LSE, _COM, _TEM = 0xD8, 0xD9, 0xDA, 0xDB, 0xC4, 0xDD, 0xF8, 0xFE, 0x01
_APP0, _APP8, _APP14 = 0xE0, 0xE8, 0xEE
_APPLICATION = range(0xE0, 0xF0)
_RESTARTS = range(0xD0, 0xD8)
_BASELINE, _EXTENDED, _PROGRESSIVE, _LOSSLESS, _JPEG_LS = 0xC0, 0xC1, 0xC2, 0xC3, 0xF7
_FRAMES = (_BASELINE, _EXTENDED, _PROGRESSIVE, _LOSSLESS, _JPEG_LS)
_REFUSED = {
    **dict.fromkeys((0xC9, 0xCA, 0xCB, 0xCC), "has arithmetic codes"),
    **dict.fromkeys((0xC5, 0xC6, 0xC7, 0xCD, 0xCE, 0xCF, 0xDE, 0xDF), "is hierarchical"),
    0xDC: "states its height after the picture",
}
_MARKER = re.compile(rb"\xff+([^\x00\xff])")
_MARKER_IN_CODES = re.compile(rb"\xff[^\x00\xff\xd0-\xd7]")
_MARKER_IN_JPEG_LS = re.compile(rb"\xff[\x80-\xcf\xd8-\xfe]")
_RESTART = re.compile(rb"\xff[\xd0-\xd7]")
_JFIF = b"JFIF\0\1\1\0\0\1\0\1\0\0"  # version 1.01, pixels as high as wide, no thumbnail
_COLOUR_IDS = (b"RGB", b"rgb")  # meaningful to decoders; all others are renumbered from 1
_KINDS = "export or save the picture again as baseline JPEG"

# Whether a decoder needs the byte before this position for the picture's only scan: then the codes end there, and need
# not be read to find out. False if it does not, or if this is unknown.
IsNeeded = Callable[[bytes, int], bool]
# Marker and content of an application segment -> the content to write, or b"".
KeepApp = Callable[[int, bytes], bytes]


def app_for_decoding(marker: int, content: bytes) -> bytes:
    """Keep only what decides the colour space: JFIF, Adobe's transform, HP's transform of JPEG-LS (a `KeepApp`)."""
    if marker == _APP0 and content.startswith(b"JFIF\0") and len(content) >= 14:
        return _JFIF
    if marker == _APP14 and content.startswith(b"Adobe") and len(content) >= 12:
        return b"Adobe\0\x64\0\0\0\0" + bytes((min(content[11], 2),))
    if marker == _APP8 and len(content) == 5 and content.startswith(b"mrfx") and content[4] <= 3:
        return content
    return b""


@dataclass
class _Component:
    """A component of the frame, and the progress of its scans.

    Attributes:
        id, new_id: in the file, and as written.
        across, down: samples in an MCU.
        quantization: number of its table.
        known: nonzero coefficients of each block; progressive frames only.
        bits_left: the missing low bits of each coefficient; None before its first scan.
        tables: for AC, of its scans; sequential frames only.
    """

    id: int
    new_id: int
    across: int
    down: int
    quantization: int
    known: list[int] = field(default_factory=list)
    bits_left: list[int | None] = field(default_factory=lambda: [None] * 64)
    tables: list[TableInUse] = field(default_factory=list)

    def coefficients(self) -> set[int]:
        """Coefficients that are nonzero somewhere."""
        anywhere = reduce(or_, self.known, 0)
        found = {place for place in range(64) if anywhere >> place & 1}
        return found.union(*(table.coefficients() for table in self.tables))


@dataclass
class _Frame:
    kind: int
    precision: int
    rows: int
    columns: int
    components: list[_Component]

    @property
    def unit(self) -> int:
        """Samples along a side of a coded unit."""
        return 1 if self.kind in (_LOSSLESS, _JPEG_LS) else 8

    def size_of(self, component: _Component) -> tuple[int, int]:
        """Units across and down of a component in a scan of its own; T.81 A.2.2 and A.1.1."""
        most_across = max(each.across for each in self.components)
        most_down = max(each.down for each in self.components)
        columns = -(-self.columns * component.across // most_across)
        rows = -(-self.rows * component.down // most_down)
        return -(-columns // self.unit), -(-rows // self.unit)

    def count_mcus(self, components: Sequence[_Component]) -> int:
        """MCUs of a scan of these components."""
        if len(components) == 1:
            across, down = self.size_of(components[0])
            return across * down
        across = self.unit * max(each.across for each in self.components)
        down = self.unit * max(each.down for each in self.components)
        return -(-self.columns // across) * -(-self.rows // down)


def cleaned_jpeg(
    data: bytes, *, keep_app: KeepApp = app_for_decoding, is_needed: IsNeeded = lambda _data, _end: False
) -> bytes:
    """Rewrite a JPEG or JPEG-LS picture with the same codes and only what its decoder needs.

    Args:
        data: from SOI; bytes after EOI are dropped.
        keep_app: what to keep of each application segment before the first scan; later ones are dropped.
        is_needed: called for the end of the only scan of a picture with standard tables and no restart intervals.

    Raises:
        UndecodableImage: it cannot be parsed, is truncated, or is of an unsupported kind.
        PayloadTooLarge: too many scans.
    """
    if data[:2] != b"\xff\xd8":
        raise UndecodableImage("not a JPEG picture: it does not begin with SOI; export or save it again")
    return _Writer(data, keep_app, is_needed).write()


def _segment(marker: int, content: bytes) -> bytes:
    return struct.pack(">BBH", 0xFF, marker, 2 + len(content)) + content


# A table is rendered after all scans were read: only then is it known which of its entries are used.
_Part = bytes | Callable[[], bytes]


def _rendered(part: _Part) -> bytes:
    return part if isinstance(part, bytes) else part()


def _steps_segment(table: bytes, components: list[_Component]) -> bytes:
    if is_usual_quantization(table):
        return _segment(_DQT, table)
    return _segment(_DQT, bare_quantization(table, {place for each in components for place in each.coefficients()}))


def _codes_segment(place: int, table: TableInUse) -> bytes:
    bare = table.bare()
    return _segment(_DHT, bytes((place,)) + bare.counts + bare.symbols)


class _Writer:
    """Reads a picture from beginning to end and collects what to write."""

    def __init__(self, data: bytes, keep_app: KeepApp, is_needed: IsNeeded) -> None:
        self._data = data
        self._keep_app = keep_app
        self._is_needed = is_needed
        self._codes_end = 0  # of the current scan
        self._frame: _Frame | None = None
        # By marker and whether the frame header came before: a decoder uses the last of each.
        self._apps: dict[tuple[int, bool, bytes], bytes] = {}
        self._quantization: dict[int, bytes] = {}
        self._huffman: dict[int, TableInUse] = {}
        self._written: dict[tuple[int, int], object] = {}  # tables by marker and number
        self._restart_interval = 0
        self._presets = b""
        self._before_frame: list[_Part] = []  # the first scan's quantization tables, where encoders write them
        self._scans: list[list[_Part]] = []

    def write(self) -> bytes:
        position = 2
        while True:
            marker, position = self._next_marker(position)
            if marker == _EOI:
                return self._whole()
            if marker in _RESTARTS or marker == _TEM:
                continue
            length = int.from_bytes(self._data[position : position + 2], "big")
            if length < 2 or position + length > len(self._data):
                raise UndecodableImage(CUT_OFF)
            content = self._data[position + 2 : position + length]
            position += length
            if marker in _REFUSED:
                raise UndecodableImage(f"a JPEG picture {_REFUSED[marker]}; {_KINDS}")
            if marker == _SOS:
                position = self._read_scan(content, position)
            elif marker in _FRAMES:
                self._read_frame(marker, content)
            elif marker in _APPLICATION:
                self._read_application(marker, content)
            elif marker in self._READERS:
                self._READERS[marker](self, content)
            elif marker != _COM:
                raise UndecodableImage(f"a JPEG picture has an unknown marker (0x{marker:02X}); {_KINDS}")

    def _next_marker(self, position: int) -> tuple[int, int]:
        """The next marker, and its end. Bytes in between are skipped, as decoders do."""
        match = _MARKER.search(self._data, position)
        if match is None:
            raise UndecodableImage(CUT_OFF)
        return match[1][0], match.end()

    def _read_application(self, marker: int, content: bytes) -> None:
        if not self._scans and (kept := self._keep_app(marker, content)):
            # Segments of one kind replace each other; parts of a colour profile, for example, differ in their numbers.
            kind = kept if marker not in (_APP0, _APP8, _APP14) else b""
            self._apps[marker, self._frame is not None, kind] = _segment(marker, kept)

    def _read_quantization(self, content: bytes) -> None:
        position = 0
        while position < len(content):
            number, size = content[position] & 15, 64 << (content[position] >> 4)
            table = content[position : position + 1 + size]
            if number > 3 or size > 128 or len(table) < 1 + size:
                raise UndecodableImage(BROKEN)
            self._quantization[number] = table
            position += 1 + size

    def _read_huffman(self, content: bytes) -> None:
        position = 0
        while position < len(content):
            place, counts = content[position], content[position + 1 : position + 17]
            symbols = content[position + 17 : position + 17 + sum(counts)]
            if place & 0xEC or len(counts) < 16 or len(symbols) < sum(counts):
                raise UndecodableImage(BROKEN)
            table = HuffmanTable(counts, symbols)
            if place not in self._huffman or self._huffman[place].table != table:
                self._huffman[place] = TableInUse(table, is_ac=place >= 0x10, picture_bytes=len(self._data))
            position += 17 + len(symbols)

    def _read_restart_interval(self, content: bytes) -> None:
        if not 2 <= len(content) <= 4:
            raise UndecodableImage(BROKEN)
        self._restart_interval = int.from_bytes(content, "big")

    def _read_presets(self, content: bytes) -> None:
        if len(content) != 11 or content[0] != 1:
            raise UndecodableImage("a JPEG-LS picture has a palette or is too large; export it without a palette")
        self._presets = content

    _READERS = {  # noqa: RUF012 - a table of the markers above
        _DQT: _read_quantization,
        _DHT: _read_huffman,
        _DRI: _read_restart_interval,
        _LSE: _read_presets,
    }

    def _read_frame(self, kind: int, content: bytes) -> None:
        if self._frame is not None or len(content) < 6 or len(content) < 6 + 3 * content[5]:
            raise UndecodableImage("a JPEG picture has more than one frame, or a broken one; export it again")
        precision, rows, columns, count = struct.unpack(">BHHB", content[:6])
        parts = [content[6 + 3 * index : 9 + 3 * index] for index in range(count)]
        ids = bytes(part[0] for part in parts)
        if not 1 <= count <= 4 or len(set(ids)) < count or not rows or not columns or not 2 <= precision <= 16:
            raise UndecodableImage(BROKEN)
        new_ids = ids if ids in _COLOUR_IDS else bytes(range(1, count + 1))
        components = [
            _Component(part[0], new_id, part[1] >> 4, part[1] & 15, part[2])
            for part, new_id in zip(parts, new_ids, strict=True)
        ]
        if any(not (1 <= each.across <= 4 and 1 <= each.down <= 4) for each in components):
            raise UndecodableImage(BROKEN)
        self._frame = _Frame(kind, precision, rows, columns, components)
        if kind == _PROGRESSIVE:
            for each in components:
                across, down = self._frame.size_of(each)
                if across * down > 8 * len(self._data):  # each block has at least one bit for its mean value
                    raise UndecodableImage(CUT_OFF)
                each.known = [0] * (across * down)

    def _read_scan(self, content: bytes, position: int) -> int:
        """Write a scan; returns the position of the next marker."""
        frame = self._frame
        if frame is None or len(content) < 1 or len(content) < 4 + 2 * content[0]:
            raise UndecodableImage(BROKEN)
        if len(self._scans) == MAX_SCANS:
            raise PayloadTooLarge(f"a JPEG picture of more than {MAX_SCANS} scans; export or save it again")
        chosen: list[tuple[_Component, int]] = []
        for index in range(content[0]):
            number, table = content[1 + 2 * index : 3 + 2 * index]
            found = [each for each in frame.components if each.id == number]
            if not found or found[0] in [each for each, _ in chosen]:
                raise UndecodableImage(BROKEN)
            chosen.append((found[0], table))
        if not chosen:
            raise UndecodableImage(BROKEN)
        parameters = content[1 + 2 * len(chosen) : 4 + 2 * len(chosen)]
        pattern = _MARKER_IN_JPEG_LS if frame.kind == _JPEG_LS else _MARKER_IN_CODES
        found_end = pattern.search(self._data, position)
        if found_end is None:
            raise UndecodableImage(CUT_OFF)
        end = found_end.start()
        intervals = [part.rstrip(b"\xff") for part in _RESTART.split(self._data[position:end])]
        self._codes_end = position + len(intervals[0])
        numbers = [marker[1] & 7 for marker in _RESTART.findall(self._data, position, end)]
        if any(b"\xff\xff" in part for part in intervals):
            raise UndecodableImage("a JPEG picture has fill bytes within its codes; export or save it again")
        if numbers != [index % 8 for index in range(len(numbers))]:
            raise UndecodableImage(BROKEN)
        scan = _SCANS[frame.kind](self, chosen, parameters, intervals)
        self._scans.append(scan)
        return end

    def _intervals(self, components: Sequence[_Component], intervals: list[bytes]) -> list[tuple[bytes, range]]:
        """Each restart interval without stuffing, and its MCUs."""
        assert self._frame is not None
        mcus = self._frame.count_mcus(components)
        length = self._restart_interval or mcus
        needed = -(-mcus // length)
        if len(intervals) == needed + 1 and not intervals[-1]:
            intervals = intervals[:-1]  # a restart marker after the last interval
        if len(intervals) != needed:
            raise UndecodableImage(CUT_OFF if len(intervals) < needed else BROKEN)
        return [
            (part.replace(b"\xff\0", b"\xff"), range(index * length, min((index + 1) * length, mcus)))
            for index, part in enumerate(intervals)
        ]

    def _table(self, place: int) -> TableInUse:
        if place not in self._huffman:
            raise UndecodableImage(BROKEN)
        return self._huffman[place]

    def _scan_of_blocks(
        self, chosen: list[tuple[_Component, int]], _parameters: bytes, intervals: list[bytes]
    ) -> list[_Part]:
        assert self._frame is not None
        places = [(each, table >> 4, 0x10 | table & 15) for each, table in chosen]
        for each, _ in chosen:
            _advance(each, range(64), high=0, low=0)
        tables = [
            (self._table(dc), self._table(ac))
            for each, dc, ac in places
            for _ in range(1 if len(chosen) == 1 else each.across * each.down)
        ]
        is_only = len(intervals) == 1 and not self._restart_interval and len(chosen) == len(self._frame.components)
        # For other than standard tables, the codes must be read to know which entries are used.
        is_usual = all(each.is_usual for pair in tables for each in pair) and all(
            is_usual_quantization(self._quantization.get(each.quantization, b"")) for each, _ in chosen
        )
        parts = intervals if is_only and is_usual and self._is_needed(self._data, self._codes_end) else []
        for data, mcus in [] if parts else self._intervals([each for each, _ in chosen], intervals):
            codes = Codes(data)
            with _within_codes():
                read_blocks(codes, tables, len(mcus))
            parts.append(codes.stuffed())
        for each, _, ac in places:
            each.tables.append(self._table(ac))
        used = [place for _, dc, ac in places for place in (dc, ac)]
        return [*self._tables(chosen, used), _scan_header(chosen, b"\x00\x3f\x00"), _with_restarts(parts)]

    def _scan_of_samples(
        self, chosen: list[tuple[_Component, int]], parameters: bytes, intervals: list[bytes]
    ) -> list[_Part]:
        if not 1 <= parameters[0] <= 7:
            raise UndecodableImage(BROKEN)
        chosen = [(each, table & 0xF0) for each, table in chosen]
        for each, _ in chosen:
            _advance(each, range(64), high=0, low=0)
        tables = [
            self._table(table >> 4)
            for each, table in chosen
            for _ in range(1 if len(chosen) == 1 else each.across * each.down)
        ]
        parts = []
        for data, mcus in self._intervals([each for each, _ in chosen], intervals):
            codes = Codes(data)
            with _within_codes():
                read_samples(codes, tables, len(mcus))
            parts.append(codes.stuffed())
        kept = bytes((parameters[0], 0, parameters[2] & 15))
        used = [table >> 4 for _, table in chosen]
        return [*self._tables([], used), _scan_header(chosen, kept), _with_restarts(parts)]

    def _progressive_scan(
        self, chosen: list[tuple[_Component, int]], parameters: bytes, intervals: list[bytes]
    ) -> list[_Part]:
        first, last, high, low = parameters[0], parameters[1], parameters[2] >> 4, parameters[2] & 15
        is_dc = first == 0
        if last > 63 or first > last or is_dc != (last == 0) or (not is_dc and len(chosen) > 1):
            raise UndecodableImage(BROKEN)
        for each, _ in chosen:
            _advance(each, range(first, last + 1), high=high, low=low)
        chosen = [(each, (table & 0xF0 if not high else 0) if is_dc else table & 15) for each, table in chosen]
        blocks = [each for each, _ in chosen for _ in range(1 if len(chosen) == 1 else each.across * each.down)]
        used = [] if is_dc and high else [table >> 4 if is_dc else 0x10 | table for _, table in chosen]
        places = dict(zip([each.id for each, _ in chosen], used, strict=False))
        parts = []
        for data, mcus in self._intervals([each for each, _ in chosen], intervals):
            codes = Codes(data)
            if is_dc and high:
                codes.position = len(mcus) * len(blocks)
            elif is_dc:
                tables = [self._table(places[each.id]) for each in blocks]
                with _within_codes():
                    read_samples(codes, tables, len(mcus))
            else:
                read = refine_band if high else read_band
                known, table = chosen[0][0].known, self._table(used[0])
                with _within_codes():
                    read(codes, table, known, mcus, (first, last))
            parts.append(codes.stuffed())
        return [*self._tables(chosen, used), _scan_header(chosen, parameters), _with_restarts(parts)]

    def _scan_of_jpeg_ls(
        self, chosen: list[tuple[_Component, int]], parameters: bytes, intervals: list[bytes]
    ) -> list[_Part]:
        # The codes depend on every sample before them. The decoder, CharLS, checks that no byte is left over.
        if parameters[1] > 2 or any(table for _, table in chosen):
            raise UndecodableImage("a JPEG-LS picture has a palette or is broken; export it again")
        for each, _ in chosen:
            _advance(each, range(64), high=0, low=0)
        kept = bytes((parameters[0], parameters[1], parameters[2] & 15))
        return [*self._tables([], []), _scan_header(chosen, kept), _with_restarts(intervals)]

    def _tables(self, chosen: list[tuple[_Component, int]], used: list[int]) -> list[_Part]:
        """The tables that a scan refers to and that were not written yet."""
        parts: list[_Part] = []
        for number in dict.fromkeys(each.quantization for each, _ in chosen):
            if number not in self._quantization:
                raise UndecodableImage(BROKEN)
            steps = self._quantization[number]
            if self._is_new(_DQT, number, steps):
                assert self._frame is not None
                owners = [each for each in self._frame.components if each.quantization == number]
                part = partial(_steps_segment, steps, owners)
                (parts if self._scans else self._before_frame).append(part)
        for place in dict.fromkeys(used):
            if self._is_new(_DHT, place, self._table(place)):
                parts.append(partial(_codes_segment, place, self._table(place)))
        if (self._restart_interval or (_DRI, 0) in self._written) and self._is_new(_DRI, 0, self._restart_interval):
            size = 2 if self._restart_interval < 1 << 16 else 4
            parts.append(_segment(_DRI, self._restart_interval.to_bytes(size, "big")))
        if self._presets and self._is_new(_LSE, 0, self._presets):
            parts.append(_segment(_LSE, self._presets))
        return parts

    def _is_new(self, marker: int, number: int, content: object) -> bool:
        if self._written.get((marker, number)) == content:
            return False
        self._written[marker, number] = content
        return True

    def _whole(self) -> bytes:
        frame = self._frame
        if frame is None or not self._scans:
            raise UndecodableImage(CUT_OFF)
        # A progressive picture may end before its last bits; missing coefficients are zero.
        if any(each.bits_left[0] is None for each in frame.components):
            raise UndecodableImage(CUT_OFF)
        header = struct.pack(">BHHB", frame.precision, frame.rows, frame.columns, len(frame.components))
        for each in frame.components:
            quantization = each.quantization if frame.unit == 8 else 0
            header += bytes((each.new_id, each.across << 4 | each.down, quantization))
        before = [segment for (_, is_behind, _), segment in self._apps.items() if not is_behind]
        scans = [_rendered(part) for scan in self._scans for part in scan]
        behind = [segment for (_, is_behind, _), segment in self._apps.items() if is_behind]
        return b"".join(
            [
                b"\xff\xd8",
                *before,
                *map(_rendered, self._before_frame),
                _segment(frame.kind, header),
                *behind,
                *scans,
                b"\xff\xd9",
            ]
        )


Scan = Callable[[_Writer, list[tuple[_Component, int]], bytes, list[bytes]], list[_Part]]
_SCANS: dict[int, Scan] = {
    _BASELINE: _Writer._scan_of_blocks,
    _EXTENDED: _Writer._scan_of_blocks,
    _PROGRESSIVE: _Writer._progressive_scan,
    _LOSSLESS: _Writer._scan_of_samples,
    _JPEG_LS: _Writer._scan_of_jpeg_ls,
}


def _advance(component: _Component, coefficients: range, *, high: int, low: int) -> None:
    """Note that a scan refines these coefficients down to bit `low`; refuse a scan that adds nothing."""
    for place in coefficients:
        left = component.bits_left[place]
        if (left is not None) != bool(high) or (left is not None and (left != high or low != high - 1)):
            raise UndecodableImage("a JPEG picture codes some of its data twice; export or save it again")
        component.bits_left[place] = low


@contextmanager
def _within_codes() -> Iterator[None]:
    try:
        yield
    except IndexError as error:  # a block's codes extend beyond the data
        raise UndecodableImage(CUT_OFF) from error


def _scan_header(chosen: list[tuple[_Component, int]], parameters: bytes) -> bytes:
    content = bytes((len(chosen),)) + b"".join(bytes((each.new_id, table)) for each, table in chosen)
    return _segment(_SOS, content + parameters)


def _with_restarts(parts: list[bytes]) -> bytes:
    """Restart intervals with the markers between them."""
    return b"".join(
        part + (bytes((0xFF, 0xD0 | index % 8)) if index < len(parts) - 1 else b"") for index, part in enumerate(parts)
    )
