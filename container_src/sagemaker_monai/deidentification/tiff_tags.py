"""Cleans a TIFF: structural tags and the rows that they describe, in a rewritten file.

Only meaningful values of tags are kept. Strips and tiles are cut to what the header needs: plain ones by their size,
deflated ones at zlib's end. LZW and PackBits are unpacked and deflated, without loss, because their end cannot be found
otherwise; JPEG is decoded and deflated. Padding of rows and tiles becomes 0. Further directories, EXIF, GPS, and bytes
that nothing refers to are dropped, and so are pixel sizes and descriptions, which our readers ignore.

Sources: TIFF 6.0; Adobe's TIFF Technical Note 2 (JPEG) and Photoshop TIFF note (deflate); BigTIFF (AWare Systems).
"""

import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from sagemaker_monai.deidentification.decoded import decoded
from sagemaker_monai.errors import PayloadTooLarge, UndecodableImage, UnsuitableImage
from sagemaker_monai.images.picture_parts import MAX_PIXELS
from sagemaker_monai.images.pictures import MAX_FILE_BYTES

MAGICS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_TYPES = {1: "B", 3: "H", 4: "I", 16: "Q"}  # BYTE, SHORT, LONG, LONG8: the types of structural tags
_WIDTH, _HEIGHT, _BITS, _COMPRESSION, _PHOTOMETRIC, _FILL_ORDER = 256, 257, 258, 259, 262, 266
_STRIPS, _ORIENTATION, _SAMPLES, _ROWS, _STRIP_BYTES, _PLANAR = 273, 274, 277, 278, 279, 284
_PREDICTOR, _COLORS, _TILE_WIDTH, _TILE_HEIGHT, _TILES, _TILE_BYTES = 317, 320, 322, 323, 324, 325
_EXTRA, _FORMAT, _SUBSAMPLING, _POSITIONING = 338, 339, 530, 531
_OLD_TABLES, _COEFFICIENTS, _REFERENCE = 347, 529, 532
_YCBCR, _INDEXED = 6, 3
_NONE, _LZW, _OLD_JPEG, _JPEG, _DEFLATE, _PACKBITS, _OLD_DEFLATE = 1, 5, 6, 7, 8, 32773, 32946
_COMPRESSIONS = (_NONE, _LZW, _OLD_JPEG, _JPEG, _DEFLATE, _PACKBITS, _OLD_DEFLATE)
_MOST_PARTS = 1 << 20
_LEVEL = 6

# Valid values; combinations are checked in `_check`.
_VALUES: dict[int, Callable[[int], bool]] = {
    _WIDTH: lambda value: value > 0,
    _HEIGHT: lambda value: value > 0,
    _BITS: lambda value: 1 <= value <= 64,
    _COMPRESSION: lambda value: value in _COMPRESSIONS,
    _PHOTOMETRIC: lambda value: value <= 10,
    _FILL_ORDER: lambda value: value in (1, 2),
    _ORIENTATION: lambda value: 1 <= value <= 8,
    _SAMPLES: lambda value: 1 <= value <= 64,
    _ROWS: lambda value: value > 0,
    _PLANAR: lambda value: value in (1, 2),
    _PREDICTOR: lambda value: value in (1, 2, 3),
    _TILE_WIDTH: lambda value: 0 < value <= 1 << 16,
    _TILE_HEIGHT: lambda value: 0 < value <= 1 << 16,
    _EXTRA: lambda value: value <= 2,
    _FORMAT: lambda value: 1 <= value <= 6,
    _SUBSAMPLING: lambda value: value in (1, 2, 4),
    _POSITIONING: lambda value: value in (1, 2),
}
_SHORTS = frozenset(_VALUES) - {_WIDTH, _HEIGHT, _ROWS, _TILE_WIDTH, _TILE_HEIGHT} | {_COLORS}
_PLACES = (_STRIPS, _STRIP_BYTES, _TILES, _TILE_BYTES)


@dataclass
class _Directory:
    """The first directory of a file: its tags as numbers, the byte order for `struct`, and the byte ranges it takes.

    `is_bare`: it has no other tags. `has_tables`: decoding its rows needs separate tables.
    """

    tags: dict[int, tuple[int, ...]]
    order: str
    is_big: bool
    taken: list[tuple[int, int]]
    is_bare: bool = True
    has_tables: bool = False

    def one(self, tag: int, default: int) -> int:
        return self.tags.get(tag, (default,))[0]


def cleaned_tiff(content: bytes) -> bytes:
    """The picture alone; exactly the same bytes if it is alone already.

    Raises:
        UndecodableImage: not a valid TIFF.
        UnsuitableImage: several pages, or a compression or layout that cannot be taken apart.
        PayloadTooLarge: too many pixels.
    """
    directory = _directory(content)
    if directory.has_tables or directory.one(_COMPRESSION, _NONE) in (_OLD_JPEG, _JPEG):
        return _redrawn(content)
    _check(directory)
    parts = _parts(content, directory)
    new, tags = _rewritten(parts, directory)
    if directory.tags.get(_COLORS):
        tags[_COLORS] = _used_colours(directory, tags, new)
    ends = [(start, start + len(part)) for start, part in parts]
    if (
        directory.is_bare
        and not directory.is_big
        and tags == {tag: value for tag, value in directory.tags.items() if tag not in _PLACES}
        and new == [part for _, part in parts]
        and _covers(content, [*directory.taken, *ends])
    ):
        return content
    return _file(tags, new, directory.order)


def _redrawn(content: bytes) -> bytes:
    """Decode and deflate a picture whose rows cannot be copied; the result is upright.

    Raises:
        UnsuitableImage: not 8-bit grey or RGB.
    """
    image = decoded(content, "TIFF")
    if image.mode not in ("L", "RGB"):
        raise UnsuitableImage("a TIFF with JPEG compression must be 8-bit grey or RGB; save it without compression")
    samples = len(image.getbands())
    tags = {_WIDTH: (image.width,), _HEIGHT: (image.height,), _BITS: (8,) * samples, _COMPRESSION: (_DEFLATE,),
            _PHOTOMETRIC: (1 if samples == 1 else 2,), _SAMPLES: (samples,), _ROWS: (image.height,)}  # fmt: skip
    return _file(tags, [zlib.compress(np.asarray(image).tobytes(), _LEVEL)], "<")


def _directory(content: bytes) -> _Directory:
    """Read the only directory; UndecodableImage if it is broken, UnsuitableImage if there are more."""
    order, is_big = {b"II": "<", b"MM": ">"}[content[:2]], content[2:4] in (b"+\0", b"\0+")
    result = _Directory({}, order, is_big, [])
    try:
        start = (
            struct.unpack_from(order + "Q", content, 8)[0] if is_big else struct.unpack_from(order + "I", content, 4)[0]
        )
        [count] = struct.unpack_from(order + ("Q" if is_big else "H"), content, start)
        head, size, place = (8, 20, 8) if is_big else (2, 12, 4)
        if count > 4096:
            raise UndecodableImage("the TIFF has too many tags; save it again")
        for index in range(count):
            at = start + head + index * size
            tag, kind, number = struct.unpack_from(order + ("HHQ" if is_big else "HHI"), content, at)
            _read_tag(result, content, (tag, kind, number), at + size - place, place)
        end = start + head + count * size
        [following] = struct.unpack_from(order + ("Q" if is_big else "I"), content, end)
    except struct.error as error:
        raise UndecodableImage("the TIFF is truncated; save the picture again") from error
    if following:
        raise UnsuitableImage("the TIFF has several pages; send one picture")
    result.taken += [(0, 8), (start, end + place)]
    return result


def _read_tag(result: _Directory, content: bytes, entry: tuple[int, int, int], at: int, place: int) -> None:
    tag, kind, number = entry
    if tag in (_COEFFICIENTS, _REFERENCE, _OLD_TABLES):
        result.has_tables = True
    if tag not in _VALUES and tag not in _PLACES and tag != _COLORS:
        result.is_bare = False
        return
    code = _TYPES.get(kind)
    if code is None or not 1 <= number <= _MOST_PARTS or tag in result.tags:
        raise UndecodableImage(f"the TIFF's tag {tag} is invalid; save the picture again")
    size = number * struct.calcsize(code)
    if size > place:
        [at] = struct.unpack_from(result.order + ("Q" if place == 8 else "I"), content, at)
        result.taken.append((at, at + size))
    elif any(content[at + size : at + place]):
        result.is_bare = False
    result.tags[tag] = struct.unpack_from(f"{result.order}{number}{code}", content, at)


def _check(directory: _Directory) -> None:
    """Refuse invalid values, and inconsistent tags."""
    tags = directory.tags
    samples = directory.one(_SAMPLES, 1)
    counts = {_BITS: samples, _FORMAT: samples, _SUBSAMPLING: 2, _COLORS: 3 << min(directory.one(_BITS, 1), 16)}
    for tag, values in tags.items():
        if tag == _EXTRA:
            is_sound = len(values) < samples or len(values) == 1
        elif tag in _PLACES:
            is_sound = True
        else:
            is_sound = len(values) in {counts.get(tag, 1), 1 if tag in (_BITS, _FORMAT) else counts.get(tag, 1)}
        is_known = all(map(_VALUES[tag], values)) if tag in _VALUES else True
        if not is_sound or not is_known or max(values) >= 1 << 32:
            raise UndecodableImage(f"the TIFF's tag {tag} has invalid values; save the picture again")
    if not {_WIDTH, _HEIGHT} <= tags.keys() or len({*tags.get(_BITS, (1,))}) != 1:
        raise UnsuitableImage("the TIFF has no size, or samples of several sizes; save the picture again")
    width, height = directory.one(_WIDTH, 0), directory.one(_HEIGHT, 0)
    if width * height > MAX_PIXELS:
        raise PayloadTooLarge(f"{width} x {height} pixels are more than {MAX_PIXELS}; shrink the picture")
    if (_STRIPS in tags) == (_TILES in tags):
        raise UndecodableImage("the TIFF has no rows, or both strips and tiles; save the picture again")
    compression = directory.one(_COMPRESSION, _NONE)
    if directory.one(_FILL_ORDER, 1) == 2 and compression != _NONE:
        raise UnsuitableImage("a compressed TIFF with reversed bit order is not supported; save it uncompressed")
    if directory.one(_PHOTOMETRIC, 0) == _YCBCR:
        raise UnsuitableImage("a TIFF with YCbCr but without JPEG is not supported; save it as RGB")
    if (directory.one(_PHOTOMETRIC, 0) == _INDEXED) != (_COLORS in tags):
        raise UndecodableImage("the TIFF's palette is missing, or not used; save the picture again")


def _grid(directory: _Directory) -> tuple[int, int, list[tuple[int, int]]]:
    """Bytes of a row, rows of a tile (0 for strips), and what the picture needs of each part: (bits of a row, rows)."""
    tags = directory.tags
    width, height, samples = directory.one(_WIDTH, 0), directory.one(_HEIGHT, 0), directory.one(_SAMPLES, 1)
    planes = samples if directory.one(_PLANAR, 1) == 2 and samples > 1 else 1
    pixel_bits = directory.one(_BITS, 1) * (samples // planes)
    if _TILES in tags:
        columns, rows = directory.one(_TILE_WIDTH, 0), directory.one(_TILE_HEIGHT, 0)
        if not columns or not rows:
            raise UndecodableImage("the TIFF's tiles have no size; save the picture again")
        needed = [
            (min(columns, width - x) * pixel_bits, min(rows, height - y))
            for _ in range(planes) for y in range(0, height, rows) for x in range(0, width, columns)
        ]  # fmt: skip
        return (columns * pixel_bits + 7) // 8, rows, needed
    rows = min(directory.one(_ROWS, height), height)
    needed = [(width * pixel_bits, min(rows, height - y)) for _ in range(planes) for y in range(0, height, rows)]
    return (width * pixel_bits + 7) // 8, 0, needed


def _parts(content: bytes, directory: _Directory) -> list[tuple[int, bytes]]:
    """The original strips or tiles, with their offsets."""
    row_bytes, tile_rows, needed = _grid(directory)
    tags = directory.tags
    places, sizes = (tags[_TILES], tags.get(_TILE_BYTES)) if _TILES in tags else (tags[_STRIPS], tags.get(_STRIP_BYTES))
    is_plain = directory.one(_COMPRESSION, _NONE) == _NONE
    if sum(row_bytes * (tile_rows or rows) for _, rows in needed) > MAX_FILE_BYTES:
        raise PayloadTooLarge(f"the TIFF unpacks to more than {MAX_FILE_BYTES} bytes; shrink the picture")
    if len(needed) > _MOST_PARTS or len(places) != len(needed) or (len(sizes or ()) != len(places) and not is_plain):
        raise UndecodableImage("the number of the TIFF's strips or tiles does not fit its size; save the picture again")
    parts = []
    for index, place in enumerate(places):
        # For uncompressed data, readers use only the offset.
        size = row_bytes * (tile_rows or needed[index][1]) if is_plain else (sizes or ())[index]
        if place + size > len(content):
            raise UndecodableImage("the TIFF is truncated; save the picture again")
        parts.append((place, content[place : place + size]))
    return parts


def _rewritten(parts: list[tuple[int, bytes]], directory: _Directory) -> tuple[list[bytes], dict[int, tuple[int, ...]]]:
    """Strips or tiles with only the picture, and the tags except for their offsets and sizes."""
    idle = (*_PLACES, _ROWS) if _TILES in directory.tags else (*_PLACES, _TILE_WIDTH, _TILE_HEIGHT)
    tags = {tag: values for tag, values in directory.tags.items() if tag not in idle}
    if _ROWS in tags:  # a number above the height means the height
        tags[_ROWS] = (min(directory.one(_ROWS, 0), directory.one(_HEIGHT, 0)),)
    compression = directory.one(_COMPRESSION, _NONE)
    row_bytes, tile_rows, needed = _grid(directory)
    new = []
    for (_, part), (bits, rows) in zip(parts, needed, strict=True):
        size = row_bytes * (tile_rows or rows)
        plain, is_exact = _unpacked(part, compression, size, row_bytes)
        filled = _without_filling(plain, row_bytes, bits, rows, directory)
        if compression == _NONE:
            new.append(filled)
        else:
            is_kept = is_exact and filled == plain and compression in (_DEFLATE, _OLD_DEFLATE)
            new.append(part if is_kept else zlib.compress(filled, _LEVEL))
    if compression in (_LZW, _PACKBITS):
        tags[_COMPRESSION] = (_DEFLATE,)
    return new, tags


def _unpacked(part: bytes, compression: int, size: int, row_bytes: int) -> tuple[bytes, bool]:
    """The unpacked bytes of a part, exactly `size`, and whether it contained nothing else."""
    if compression == _NONE:
        return part, True
    if compression in (_DEFLATE, _OLD_DEFLATE):
        inflater = zlib.decompressobj()
        try:
            plain = inflater.decompress(part, size + 1)
            is_exact = len(plain) == size and inflater.eof and not inflater.unused_data
        except zlib.error as error:
            raise UndecodableImage("the TIFF's rows are damaged; save the picture again") from error
        if len(plain) < size:
            raise UndecodableImage("the TIFF's rows are truncated; save the picture again")
        return plain[:size], is_exact
    # Let libtiff unpack the bytes as a grey picture, one byte per pixel.
    height = size // row_bytes
    tags: dict[int, tuple[int, ...]] = {
        _WIDTH: (row_bytes,), _HEIGHT: (height,), _BITS: (8,), _COMPRESSION: (compression,), _PHOTOMETRIC: (1,),
        _SAMPLES: (1,), _ROWS: (height,),
    }  # fmt: skip
    plain = np.asarray(decoded(_file(tags, [part], "<"), "TIFF")).tobytes()
    return plain, False


def _without_filling(plain: bytes, row_bytes: int, bits: int, rows: int, directory: _Directory) -> bytes:
    """The bytes with zeros in the padding of rows and tiles."""
    if row_bytes * 8 == bits and len(plain) == row_bytes * rows:
        return plain
    table = np.frombuffer(plain, np.uint8).reshape(-1, row_bytes).copy()
    table[rows:] = 0
    if directory.one(_PREDICTOR, 1) == 3:
        if row_bytes * 8 != bits:
            raise UnsuitableImage(
                "a floating-point TIFF with a predictor and tiles is not supported; save it without a predictor"
            )
        return table.tobytes()
    whole, left = divmod(bits, 8)
    if left:
        mask = 0xFF << (8 - left) & 0xFF
        table[:, whole] &= int(f"{mask:08b}"[::-1], 2) if directory.one(_FILL_ORDER, 1) == 2 else mask
        whole += 1
    table[:, whole:] = 0
    return table.tobytes()


def _used_colours(directory: _Directory, tags: dict[int, tuple[int, ...]], parts: list[bytes]) -> tuple[int, ...]:
    """The palette with only the colours that pixels use; readers use one byte of each value, which is repeated."""
    image = decoded(_file(tags, parts, directory.order), "TIFF")
    if image.mode != "P":
        raise UnsuitableImage("a TIFF with a palette of this depth is not supported; save it as RGB")
    values = np.array(directory.tags[_COLORS]).reshape(3, -1)
    table = np.zeros_like(values)
    used = np.unique(np.asarray(image))
    used = used[used < values.shape[1]]
    table[:, used] = values[:, used] // 256 * 257
    return tuple(table.ravel().tolist())


def _covers(content: bytes, spans: list[tuple[int, int]]) -> bool:
    """Whether the ranges cover the file, except for a zero before an even offset."""
    position = 0
    for start, end in sorted(spans):
        if not 0 <= start - position <= 1 or any(content[position:start]):
            return False
        position = end
    return position == len(content)


def _file(tags: dict[int, tuple[int, ...]], parts: list[bytes], order: str) -> bytes:
    """A TIFF of one directory: header, directory, values, parts."""
    names = (_TILES, _TILE_BYTES) if _TILE_WIDTH in tags else (_STRIPS, _STRIP_BYTES)
    entries: dict[int, tuple[int, ...]] = dict(sorted({**tags, **{name: (0,) * len(parts) for name in names}}.items()))
    start = 8 + 2 + 12 * len(entries) + 4
    end = start + sum(_padded(size) for values in entries.items() if (size := len(_packed(*values, order))) > 4)
    places = []
    for part in parts:
        places.append(end)
        end += _padded(len(part))
    if end >= 1 << 32:
        raise PayloadTooLarge("the picture is larger than a TIFF can be; shrink it")
    entries[names[0]], entries[names[1]] = tuple(places), tuple(map(len, parts))
    directory, values = struct.pack(order + "H", len(entries)), b""
    for tag, numbers in entries.items():
        packed = _packed(tag, numbers, order)
        directory += struct.pack(order + "HHI", tag, 3 if tag in _SHORTS else 4, len(numbers))
        directory += packed.ljust(4, b"\0") if len(packed) <= 4 else struct.pack(order + "I", start + len(values))
        values += packed.ljust(_padded(len(packed)), b"\0") if len(packed) > 4 else b""
    head = {"<": b"II*\0", ">": b"MM\0*"}[order] + struct.pack(order + "I", 8)
    return b"".join([head, directory, bytes(4), values, *(part.ljust(_padded(len(part)), b"\0") for part in parts)])


def _packed(tag: int, numbers: tuple[int, ...], order: str) -> bytes:
    return struct.pack(f"{order}{len(numbers)}{'H' if tag in _SHORTS else 'I'}", *numbers)


def _padded(size: int) -> int:
    return size + size % 2
