"""Limits on the work and memory that a small compressed frame can ask of its decoder, checked before decoding.

`dicom.decoding` compares the picture's size with the DICOM header. Other costs grow without pixels: 200 bytes of JPEG
2000 with precincts of 2 x 2 made OpenJPEG build 5.6 million of them, in 30 s and 9 GB, for a picture of 4,096 x 4,096.
"""

import struct
from collections.abc import Iterator

from sagemaker_monai.budget import spend_work
from sagemaker_monai.errors import PayloadTooLarge, UndecodableImage
from sagemaker_monai.images.dicom.codestreams import Codestream

MAX_SCANNED_PIXELS = 1 << 28  # pixels x scans of one JPEG of several; about 2.5 s. Frames have one to four scans
NS_A_SCANNED_PIXEL = 10
# Parts of a JPEG 2000 picture cost memory even without data: 1.7 kB per precinct and 330 bytes per code-block in
# OpenJPEG (measured). Code-blocks of 64 x 64 with one precinct, or precincts of 128 x 128, are common.
MIN_PARTS = 1 << 16  # allowed to every picture
PIXELS_OF_A_PRECINCT = 256  # needed for each additional one
PIXELS_OF_A_BLOCK = 64
MAX_PACKETS = 1 << 24  # precincts x quality layers of one JPEG 2000 picture

NS_A_PRECINCT = 6_000

_EOI, _SOS = b"\xff\xd9", b"\xff\xda"
_COD, _COC, _SOT, _SOD, _EOC = 0xFF52, 0xFF53, 0xFF90, 0xFF93, 0xFFD9
# Bytes read of each marker segment allowed in a header, without marker and length; ITU-T T.800 table A.2, and CAP and
# CPF of T.814. After any other marker OpenJPEG searches for the next known one, even within a segment, and so may see
# other headers than those checked here.
_SHORTEST = {_COD: 10, _COC: 7, _SOT: 8} | dict.fromkeys(
    (
        *(0xFF50, 0xFF51, 0xFF55, 0xFF57, 0xFF58, 0xFF59, 0xFF5C, 0xFF5D, 0xFF5E, 0xFF5F),
        *(0xFF60, 0xFF61, 0xFF63, 0xFF64),
    ),
    0,
)
_BROKEN = "a compressed frame of the DICOM file is broken; export it again"


def check_jpeg_end(data: bytes) -> None:
    """Refuse a truncated JPEG or JPEG-LS frame, one without an end (EOI) after its last scan.

    libjpeg invents missing data, and imagecodecs does not pass its warning on. CharLS may take 3 s to refuse such a
    frame of 80 bytes.
    """
    if data.rfind(_EOI) < data.rfind(_SOS):
        raise UndecodableImage("a JPEG frame of the DICOM file is cut off; send the whole file")


def check_jpeg(data: bytes, stream: Codestream) -> None:
    """Refuse a JPEG frame that is truncated, or whose scans cover too many pixels.

    Raises:
        UndecodableImage: no end, or fewer bytes than the shortest codes need.
        PayloadTooLarge: more than MAX_SCANNED_PIXELS.
    """
    check_jpeg_end(data)
    pixels = stream.rows * stream.columns
    # At least one bit per block of 8 x 8; the lossless process has one per sample.
    if len(data) * 8 < pixels // 64:
        raise UndecodableImage("a JPEG frame of the DICOM file has too few bytes for its size; export the file again")
    scans = data.count(_SOS)
    if scans > 1 and scans * pixels > MAX_SCANNED_PIXELS:
        raise PayloadTooLarge("a JPEG frame with too many scans for its size; export the file again")
    if scans > 1:
        spend_work(scans * pixels * NS_A_SCANNED_PIXEL, f"JPEG frames of {scans} scans")


def check_j2k(data: bytes, stream: Codestream) -> None:
    """Refuse a JPEG 2000 or HTJ2K codestream (from SOC) with too many precincts, code-blocks or packets.

    Raises:
        UndecodableImage: its headers are broken.
        PayloadTooLarge: too many.

    Source: ITU-T T.800 A.4.2 (SOT), A.6.1 (COD), A.6.2 (COC), B.6 and B.7 (precincts, code-blocks).
    """
    pixels = stream.rows * stream.columns * stream.samples
    most_precincts = most_layers = 0
    for marker, segment in coding_segments(data):
        if marker == _COD:
            most_layers = max(most_layers, *struct.unpack(">H", segment[2:4]))
        style, parameters = (segment[0], segment[5:]) if marker == _COD else (segment[1], segment[2:])
        precincts, blocks = _parts(parameters, stream, has_precincts=bool(style & 1))
        most_precincts = max(most_precincts, precincts)
        if (
            precincts > MIN_PARTS + pixels // PIXELS_OF_A_PRECINCT
            or blocks > MIN_PARTS + pixels // PIXELS_OF_A_BLOCK
            or most_precincts * most_layers > MAX_PACKETS
        ):
            raise PayloadTooLarge("a JPEG 2000 frame in too many small parts; export the file again")
    spend_work(NS_A_PRECINCT * most_precincts, f"JPEG 2000 frames of {most_precincts} precincts")


def coding_segments(data: bytes) -> Iterator[tuple[int, bytes]]:
    """COD and COC of the main header and of every tile-part of a codestream, without marker and length.

    Raises:
        UndecodableImage: an unknown marker, a segment that is too short, or a tile-part that points backwards.
    """
    position, tile_part, next_part = 2, 0, 0
    while position + 4 <= len(data):
        marker, length = struct.unpack(">HH", data[position : position + 4])
        if marker == _EOC:
            return
        if marker == _SOD:
            if next_part == tile_part:
                return  # length 0: it extends to the end
            if next_part < position + 2:
                raise UndecodableImage(_BROKEN)
            position = next_part
            continue
        segment = data[position + 4 : position + 2 + length]
        if marker not in _SHORTEST or len(segment) < _SHORTEST[marker]:
            raise UndecodableImage(_BROKEN)
        if marker == _SOT:
            tile_part, next_part = position, position + struct.unpack(">L", segment[2:6])[0]
        elif marker in (_COD, _COC):
            yield marker, segment
        position += 2 + length


def _parts(parameters: bytes, stream: Codestream, *, has_precincts: bool) -> tuple[int, int]:
    """Precincts and code-blocks of all components, as if the picture were one tile.

    Args:
        parameters: SPcod or SPcoc: levels, code-block width and height, style, transformation, precinct sizes.
        stream: the size of the picture.
        has_precincts: whether precinct sizes are given; otherwise they are 2^15.
    """
    levels, width, height = parameters[0], parameters[1] + 2, parameters[2] + 2
    sizes = parameters[5 : 6 + levels] if has_precincts else b"\xff" * (levels + 1)
    if levels > 32 or len(sizes) < levels + 1:
        raise UndecodableImage(_BROKEN)
    precincts = blocks = 0
    for resolution, size in enumerate(sizes):
        rows, columns = (-(-whole >> (levels - resolution)) for whole in (stream.rows, stream.columns))
        across, down = size & 15, size >> 4
        precincts += -(-rows >> down) * -(-columns >> across)
        # A code-block ends where its precinct ends, which is half as large in the three bands of a resolution.
        half = min(resolution, 1)
        block_height, block_width = min(height, max(down - half, 0)), min(width, max(across - half, 0))
        blocks += -(-rows >> block_height) * -(-columns >> block_width)
    return precincts * stream.samples, blocks * stream.samples
