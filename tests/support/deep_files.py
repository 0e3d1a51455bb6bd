"""Pictures of more than 8 bits, written byte by byte in layouts that Pillow cannot write."""

import struct
import zlib

import numpy as np

_ADAM7 = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))
_COLOUR_TYPES = {1: 0, 2: 4, 3: 2, 4: 6}


def png_chunk(name, content):
    """A chunk with its length and checksum."""
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))


def _filtered(values):
    """Rows of big-endian values, each with the filter "up" or none in turn."""
    rows = values.astype(">u2").view(np.uint8).reshape(len(values), -1)
    lines = []
    for number, row in enumerate(rows):
        above = rows[number - 1] if number else np.zeros_like(row)
        lines.append(b"\2" + (row - above).tobytes() if number % 2 else b"\0" + row.tobytes())
    return b"".join(lines)


def png16(values, *, interlaced=False, extra=b""):
    """A PNG of 16 bits of (H, W) or (H, W, C): grey, grey and alpha, RGB, RGBA."""
    values = values[..., None] if values.ndim == 2 else values
    height, width, samples = values.shape
    parts = [values[y::dy, x::dx] for x, y, dx, dy in _ADAM7] if interlaced else [values]
    data = b"".join(_filtered(np.ascontiguousarray(part)) for part in parts if part.size)
    header = struct.pack(">IIBBBBB", width, height, 16, _COLOUR_TYPES[samples], 0, 0, interlaced)
    end = png_chunk(b"IDAT", zlib.compress(data)) + png_chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + png_chunk(b"IHDR", header) + extra + end


def transparent_colour(*values):
    """The PNG chunk that names the transparent colour."""
    return png_chunk(b"tRNS", struct.pack(f">{len(values)}H", *values))


def tiff(values, *, order="<", photometric=1, bits=None, is_deflated=False, is_planar=False, **tags):
    """A TIFF of one strip of (H, W) or (H, W, C) of any type; fewer `bits` than in the type are packed without gaps."""
    samples = 1 if values.ndim == 2 else values.shape[2]
    stored = np.moveaxis(values, -1, 0) if is_planar else values
    data = stored.astype(values.dtype.newbyteorder(order)).tobytes()
    if bits is not None and bits < 8 * values.itemsize:
        ones = (values.reshape(len(values), -1, 1) >> np.arange(bits - 1, -1, -1)) & 1
        data = b"".join(np.packbits(row.ravel()).tobytes() for row in ones.astype(np.uint8))
    data = zlib.compress(data) if is_deflated else data
    fields = {
        256: values.shape[1], 257: values.shape[0], 258: bits or 8 * values.itemsize, 259: 8 if is_deflated else 1,
        262: photometric, 273: 0, 277: samples, 278: values.shape[0], 279: len(data), 284: 1 + is_planar,
        339: {"u": 1, "i": 2, "f": 3}[values.dtype.kind],
    } | {int(key.removeprefix("tag")): value for key, value in tags.items()}  # fmt: skip
    arrays = {258: samples, 339: samples} if samples > 1 else {}
    start = 8 + 2 + 12 * len(fields) + 4
    extra = b""
    entries = b""
    place = start + 2 * sum(arrays.values())
    for tag, value in sorted(fields.items()):
        if tag in arrays:
            entries += struct.pack(f"{order}HHII", tag, 3, arrays[tag], start + len(extra))
            extra += struct.pack(f"{order}{arrays[tag]}H", *[value] * arrays[tag])
        else:
            entries += struct.pack(f"{order}HHII", tag, 4, 1, place if tag == 273 else value)
    head = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(f"{order}I", 8)
    return head + struct.pack(f"{order}H", len(fields)) + entries + struct.pack(f"{order}I", 0) + extra + data
