"""Cleans a PNG: which chunks are kept, with which contents, and exactly the rows that the header needs.

Chunks are written with correct checksums. IDAT stays if it is exactly the picture, and is recompressed if it contains
more: rows after the last, bytes after zlib's end, values in a row's padding bits. Palette entries and a transparent
colour that no pixel uses could contain anything and are removed. The orientation is kept, because readers apply it;
colour profiles are not, because our readers ignore them.

Source: PNG, third edition (W3C), 5 (chunks), 7.2 (rows), 8.1 (interlacing), 9 (filters), 10 (compression).
"""

import itertools
import struct
import zlib
from dataclasses import dataclass

import numpy as np

from sagemaker_monai.deidentification.decoded import decoded, exif_of, orientation_of
from sagemaker_monai.errors import PayloadTooLarge, UndecodableImage
from sagemaker_monai.images.picture_parts import MAX_PIXELS

MAGIC = b"\x89PNG\r\n\x1a\n"
_TEXTS = frozenset({b"tEXt", b"zTXt", b"iTXt", b"eXIf"})  # which may say how the picture is turned
_CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}  # by colour type
_DEPTHS = {0: (1, 2, 4, 8, 16), 2: (8, 16), 3: (1, 2, 4, 8), 4: (8, 16), 6: (8, 16)}
_PALETTE, _GREY, _RGB = 3, 0, 2
_TRANSPARENT = (_GREY, _RGB, _PALETTE)  # which may have tRNS
_ADAM7 = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))
_FILTERS = 5
_LEVEL = 6
_PIECE_BYTES = 1 << 20
_MOST_GAMMA = 1_000_000  # times 100,000
_MOST_PER_METRE = 100_000  # pixels; 2,540 dpi


@dataclass(frozen=True)
class _Header:
    width: int
    height: int
    depth: int
    colour: int
    is_interlaced: bool

    def row_bytes(self, width: int) -> int:
        return (width * self.depth * _CHANNELS[self.colour] + 7) // 8

    def passes(self) -> list[tuple[int, int]]:
        """Bytes of a row with its filter, and the number of rows, of each nonempty pass."""
        if not self.is_interlaced:
            return [(1 + self.row_bytes(self.width), self.height)]
        sizes = [(-(-(self.width - x) // dx), -(-(self.height - y) // dy)) for x, y, dx, dy in _ADAM7]
        return [(1 + self.row_bytes(width), height) for width, height in sizes if width > 0 and height > 0]


def cleaned_png(content: bytes) -> bytes:
    """The picture alone; exactly the same bytes if it is alone already.

    Raises:
        UndecodableImage: not a valid PNG.
        PayloadTooLarge: too many pixels.
    """
    chunks = _chunks(content)
    header = _header(chunks[0])
    names = [name for name, _ in chunks]
    if names.count(b"IHDR") > 1 or b"IDAT" not in names:
        raise UndecodableImage("the PNG has no rows, or two headers; save the picture again")
    first = names.index(b"IDAT")
    kept = {name: data for name, data in chunks[:first] if name in _ANCILLARY and _ANCILLARY[name](data, header)}
    if header.colour in _TRANSPARENT and names.count(b"tRNS") != (b"tRNS" in kept):
        raise UndecodableImage("the PNG's transparent colour is invalid; save the picture again")
    rows = itertools.takewhile(lambda chunk: chunk[0] == b"IDAT", chunks[first:])  # readers ignore others
    parts, is_changed = _exact([data for _, data in rows], header)
    palette = None
    if header.colour == _PALETTE:
        palette = next((data for name, data in reversed(chunks[:first]) if name == b"PLTE"), b"")
        if len(palette) % 3 or not 3 <= len(palette) <= 3 << header.depth:
            raise UndecodableImage("the PNG's palette is invalid; save the picture again")
    body = [(b"IHDR", chunks[0][1])]
    body += [(name, kept[name]) for name in (b"gAMA", b"cHRM", b"sRGB", b"pHYs") if name in kept]
    exif = exif_of(_orientation(chunks))
    colours = _colours(body, palette, kept.get(b"tRNS"), parts, header)
    if header.depth < 8 and (header.is_interlaced or header.width * header.depth % 8 != 0):  # rows have padding bits
        repacked = _repacked(_file([*body, *colours, *((b"IDAT", each) for each in parts)]), header)
        parts = [zlib.compress(repacked, _LEVEL)]
        header = _Header(header.width, header.height, header.depth, header.colour, is_interlaced=False)
        body[0] = (b"IHDR", chunks[0][1][:12] + b"\0")
    body += [(b"eXIf", exif)] if exif else []
    body += colours + [(b"IDAT", each) for each in parts] + [(b"IEND", b"")]
    # Unchanged if only the order of chunks differs.
    if not is_changed and sorted(body) == sorted(chunks):
        body = chunks
    return _file(body)


def _chunks(content: bytes) -> list[tuple[bytes, bytes]]:
    """Names and contents up to IEND; UndecodableImage if it is missing, or a checksum is wrong."""
    chunks: list[tuple[bytes, bytes]] = []
    position = len(MAGIC)
    while position + 12 <= len(content):
        size = int.from_bytes(content[position : position + 4], "big")
        name, end = content[position + 4 : position + 8], position + 8 + size
        data = content[position + 8 : end]
        if end + 4 > len(content):
            break
        if name in _KEPT and zlib.crc32(name + data) != int.from_bytes(content[end : end + 4], "big"):
            raise UndecodableImage("a checksum of the PNG is wrong; save the picture again")
        chunks.append((name, data))
        if name == b"IEND":
            return chunks
        position = end + 4
    raise UndecodableImage("the PNG is truncated or has invalid chunks; save the picture again")


def _header(chunk: tuple[bytes, bytes]) -> _Header:
    name, data = chunk
    if name != b"IHDR" or len(data) != 13:
        raise UndecodableImage("the PNG does not begin with its header; save the picture again")
    width, height, depth, colour, method, filters, interlace = struct.unpack(">IIBBBBB", data)
    if depth not in _DEPTHS.get(colour, ()) or method or filters or interlace > 1 or not 0 < width < 2**31 > height > 0:
        raise UndecodableImage("the PNG's header has invalid values; save the picture again")
    if width * height > MAX_PIXELS:
        raise PayloadTooLarge(f"{width} x {height} pixels are more than {MAX_PIXELS}; shrink the picture")
    return _Header(width, height, depth, colour, bool(interlace))


def _exact(parts: list[bytes], header: _Header) -> tuple[list[bytes], bool]:
    """IDAT that inflates to exactly the picture, and whether that is a change.

    Raises:
        UndecodableImage: it inflates to less, is damaged, or a row has an unknown filter.
    """
    passes = header.passes()
    needed = sum(size * count for size, count in passes)
    inflater, data = zlib.decompressobj(), b"".join(parts)
    rows = bytearray()
    try:
        while len(rows) <= needed and not inflater.eof:
            piece = inflater.decompress(data, min(needed + 1 - len(rows), _PIECE_BYTES))
            if not piece and not inflater.unconsumed_tail:
                break
            rows += piece
            data = inflater.unconsumed_tail
    except zlib.error as error:
        if len(rows) < needed:
            raise UndecodableImage("the PNG's rows are damaged; save the picture again") from error
    if len(rows) < needed:
        raise UndecodableImage("the PNG has fewer rows than its header says; save the picture again")
    position = 0
    for size, count in passes:
        filters = np.frombuffer(rows, np.uint8, count * size, position)[::size]
        if filters.max() >= _FILTERS:
            raise UndecodableImage("a row of the PNG has an unknown filter; save the picture again")
        position += size * count
    if len(rows) == needed and inflater.eof and not inflater.unused_data:
        return parts, False
    return [zlib.compress(bytes(rows[:needed]), _LEVEL)], True


def _file(chunks: list[tuple[bytes, bytes]]) -> bytes:
    return MAGIC + b"".join(
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data)) for name, data in chunks
    )


def _orientation(chunks: list[tuple[bytes, bytes]]) -> int:
    """The orientation that a reader finds in the text chunks, determined with a picture of one pixel."""
    texts = [chunk for chunk in chunks if chunk[0] in _TEXTS]
    if not texts:
        return 1
    pixel = (b"IHDR", struct.pack(">IIBBBBB", 1, 1, 8, 0, 0, 0, 0)), (b"IDAT", zlib.compress(b"\0\0"))
    return orientation_of(_file([pixel[0], *texts, pixel[1], (b"IEND", b"")]), "PNG")


def _colours(
    body: list[tuple[bytes, bytes]], palette: bytes | None, transparent: bytes | None, parts: list[bytes],
    header: _Header,
) -> list[tuple[bytes, bytes]]:  # fmt: skip
    """PLTE and tRNS with only what pixels use."""
    if header.colour != _PALETTE:
        if transparent is None:
            return []
        chunks = [(b"tRNS", transparent)]
        return chunks if _has_colour(_file([*body, *chunks, *((b"IDAT", each) for each in parts)]), header) else []
    assert palette is not None
    image = decoded(_file([*body, (b"PLTE", palette), *((b"IDAT", each) for each in parts)]), "PNG")
    used = np.unique(np.asarray(image))
    table = np.zeros((len(palette) // 3, 3), np.uint8)
    used = used[used < len(table)]
    table[used] = np.frombuffer(palette, np.uint8).reshape(-1, 3)[used]
    chunks = [(b"PLTE", table.tobytes())]
    if transparent is not None:
        alpha = np.full(min(len(transparent), len(table)), 255, np.uint8)
        used = used[used < len(alpha)]
        alpha[used] = np.frombuffer(transparent, np.uint8)[used]
        chunks.append((b"tRNS", alpha.tobytes()))
    return chunks


def _has_colour(content: bytes, header: _Header) -> bool:
    """Whether a pixel has the transparent colour."""
    if header.depth == 16:
        from sagemaker_monai.images.pictures import decode_deep
        from sagemaker_monai.images.sample import Sample

        deep = decode_deep(Sample(content, ("PNG",)))
        return deep is not None and deep.missing is not None
    image = decoded(content, "PNG")
    transparent = image.info.get("transparency")
    values = np.asarray(image.convert("RGB") if header.colour == _RGB else image)
    if header.colour == _GREY and image.mode == "1":
        return bool((values == bool(transparent)).any()) and transparent in (0, 1, 255)
    return bool((values == np.asarray(transparent)).reshape(*values.shape[:2], -1).all(axis=2).any())


def _repacked(content: bytes, header: _Header) -> bytes:
    """The rows of a picture with fewer than 8 bits per pixel, with zeros in the padding bits."""
    image = decoded(content, "PNG")
    values = np.asarray(image).astype(np.uint8)
    if header.colour == _GREY and image.mode != "1":
        values //= 255 // ((1 << header.depth) - 1)
    shifts = np.arange(header.depth - 1, -1, -1, dtype=np.uint8)
    bits = (values[..., np.newaxis] >> shifts & 1).reshape(header.height, -1)
    rows = np.packbits(bits, axis=1)
    return np.hstack([np.zeros((header.height, 1), np.uint8), rows]).tobytes()


def _is_physical(data: bytes, _: _Header) -> bool:
    if len(data) != 9:
        return False
    width, height, unit = struct.unpack(">IIB", data)
    return bool(max(width, height) <= _MOST_PER_METRE and unit <= 1)


def _is_chromatic(data: bytes, _: _Header) -> bool:
    return len(data) == 32 and all(value <= 100_000 for value in struct.unpack(">8I", data))


def _is_transparent(data: bytes, header: _Header) -> bool:
    if header.colour == _PALETTE:
        return len(data) <= 1 << header.depth
    size = {_GREY: 2, _RGB: 6}.get(header.colour)
    return len(data) == size and all(value < 1 << header.depth for value in struct.unpack(f">{size // 2}H", data))


_ANCILLARY = {
    b"tRNS": _is_transparent,
    b"gAMA": lambda data, _: len(data) == 4 and 0 < int.from_bytes(data, "big") <= _MOST_GAMMA,
    b"cHRM": _is_chromatic,
    b"sRGB": lambda data, _: len(data) == 1 and data[0] <= 3,
    b"pHYs": _is_physical,
}
_KEPT = frozenset({b"IHDR", b"PLTE", b"IDAT", b"IEND", *_ANCILLARY})
