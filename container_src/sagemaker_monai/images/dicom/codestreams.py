"""The header of a compressed frame, read before a decoder sees it.

A decoder allocates what the codestream asks for, not what the DICOM header says: 200 bytes may ask for 65,535 x 65,535
pixels. A JPEG's own markers are also the best source for its colour space.
"""

import re
import struct
from dataclasses import dataclass

from sagemaker_monai.errors import PayloadTooLarge, UndecodableImage

MAX_SCANS = 64  # of one JPEG; each covers the whole picture. DICOM's have one to four
MAX_TILES = 16_384  # of one JPEG 2000 picture; each costs the decoder an object. The standard allows 65,535
MAX_LAYERS_X_LEVELS = 4_096  # of one JPEG 2000 picture; 1 layer and 6 resolutions are common
_SCAN_HEADER = re.compile(rb"\xff\xda\x00[\x08\x0a\x0c\x0e][\x01-\x04]")  # ITU-T T.81, B.2.3
_JP2_SIGNATURE = b"\x00\x00\x00\x0cjP  "
# Start-of-frame markers, ITU-T T.81 table B.1 and T.87 (JPEG-LS), of the processes that the decoders support.
_SOF_MARKERS = frozenset({0xC0, 0xC1, 0xC2, 0xC3, 0xF7})
_RGB_IDS = ([0x52, 0x47, 0x42], [0x72, 0x67, 0x62])  # "RGB", "rgb"
_BROKEN = "a compressed frame of the DICOM file is broken; export it again"


@dataclass(frozen=True)
class Codestream:
    """The size and kind of one compressed frame.

    Attributes:
        rows, columns, samples: its own, in pixels.
        precision: bits of a sample.
        is_signed: of the samples; False for formats without a sign.
        is_rgb: what its markers say; None if only PhotometricInterpretation can tell.
    """

    rows: int
    columns: int
    samples: int
    precision: int
    is_signed: bool = False
    is_rgb: bool | None = None


def read_jpeg(data: bytes) -> Codestream:
    """Read the frame header of JPEG or JPEG-LS.

    Raises:
        UndecodableImage: not such a stream, or an unsupported process.
        PayloadTooLarge: more than MAX_SCANS scans.

    Source: ITU-T T.81 B.2.2 and annex of JFIF and Adobe markers; ITU-T T.87 C.2.2.
    """
    if data[:2] != b"\xff\xd8":
        raise UndecodableImage(_BROKEN)
    position, is_rgb = 2, None
    while position + 4 <= len(data):
        if data[position] != 0xFF:
            raise UndecodableImage(_BROKEN)
        marker = data[position + 1]
        if marker == 0xFF:  # fill byte
            position += 1
            continue
        # Not a header marker (T.81 table B.1): a decoder would search on and find another header.
        if marker < 0xC0 or 0xD0 <= marker <= 0xDA:
            break
        length = struct.unpack(">H", data[position + 2 : position + 4])[0]
        segment = data[position + 4 : position + 2 + length]
        if marker in _SOF_MARKERS:
            return _jpeg_frame(data, segment, is_rgb)
        if marker == 0xEE and segment[:5] == b"Adobe" and len(segment) >= 12:
            is_rgb = segment[11] == 0
        elif marker == 0xE0 and segment[:4] == b"JFIF" and is_rgb is None:
            is_rgb = False
        position += 2 + max(length, 2)
    raise UndecodableImage(_BROKEN)


def _jpeg_frame(data: bytes, segment: bytes, is_rgb: bool | None) -> Codestream:
    if len(segment) < 6 or len(segment) < 6 + 3 * segment[5]:
        raise UndecodableImage(_BROKEN)
    precision, rows, columns, samples = struct.unpack(">BHHB", segment[:6])
    if sum(1 for _ in _SCAN_HEADER.finditer(data)) > MAX_SCANS:
        raise PayloadTooLarge(f"a JPEG frame with more than {MAX_SCANS} scans; export the file again")
    if list(segment[6 : 6 + 3 * samples : 3]) in _RGB_IDS:
        is_rgb = True
    return Codestream(rows, columns, samples, precision, is_rgb=is_rgb if samples == 3 else None)


def read_j2k(data: bytes) -> Codestream:
    """Read the main header of JPEG 2000 or HTJ2K, also inside a JP2 file.

    Raises:
        UndecodableImage: not such a stream, or its components differ in size or type.
        PayloadTooLarge: too many tiles, layers or resolutions.

    Source: ITU-T T.800 A.5.1 (SIZ), A.6.1 (COD).
    """
    start = data.find(b"\xff\x4f\xff\x51", 0, 1 << 16) if data.startswith(_JP2_SIGNATURE) else 0
    if start < 0 or data[start : start + 4] != b"\xff\x4f\xff\x51" or len(data) < start + 42:
        raise UndecodableImage(_BROKEN)
    size_x, size_y, off_x, off_y, tile_x, tile_y, tile_off_x, tile_off_y, samples = struct.unpack(
        ">8LH", data[start + 8 : start + 42]
    )
    components = [data[start + 42 + 3 * index : start + 45 + 3 * index] for index in range(min(samples, 4))]
    if samples > 4 or len(set(components)) != 1 or len(components[0]) != 3 or components[0][1:] != b"\x01\x01":
        raise UndecodableImage("the components of a JPEG 2000 frame differ in size or type; export it again")
    if not tile_x or not tile_y or size_x <= off_x or size_y <= off_y:
        raise UndecodableImage(_BROKEN)
    tiles = -((tile_off_x - size_x) // tile_x) * -((tile_off_y - size_y) // tile_y)
    if tiles > 65_535:
        raise UndecodableImage(_BROKEN)
    if tiles > MAX_TILES:
        raise PayloadTooLarge(f"a JPEG 2000 frame with more than {MAX_TILES} tiles; export the file again")
    is_mixed = _check_coding_style(data, start + 2)
    depth = components[0][0]
    return Codestream(
        size_y - off_y,
        size_x - off_x,
        samples,
        (depth & 0x7F) + 1,
        is_signed=bool(depth & 0x80),
        is_rgb=True if is_mixed and samples == 3 else None,
    )


def _check_coding_style(data: bytes, position: int) -> bool:
    """Whether the multiple component transform is on: then the decoder returns RGB, whatever the DICOM header says."""
    while position + 4 <= len(data):
        marker, length = struct.unpack(">HH", data[position : position + 4])
        if marker == 0xFF52 and position + 10 <= len(data):
            layers, is_mixed, levels = struct.unpack(">HBB", data[position + 6 : position + 10])
            if layers * (levels + 1) > MAX_LAYERS_X_LEVELS:
                raise PayloadTooLarge("a JPEG 2000 frame with too many quality layers; export the file again")
            return bool(is_mixed)
        if marker == 0xFF90 or marker < 0xFF00:  # start of the first tile
            break
        position += 2 + max(length, 2)
    raise UndecodableImage(_BROKEN)


def count_rle_segments(data: bytes) -> int:
    """Segments of a frame of RLE Lossless (PS3.5 G.5); UndecodableImage if its header is broken."""
    if len(data) < 64:
        raise UndecodableImage(_BROKEN)
    count, *offsets = struct.unpack("<16L", data[:64])
    if not 1 <= count <= 15:
        raise UndecodableImage(_BROKEN)
    used = offsets[:count]
    if used != sorted(used) or used[0] < 64 or used[-1] > len(data):
        raise UndecodableImage(_BROKEN)
    return int(count)
