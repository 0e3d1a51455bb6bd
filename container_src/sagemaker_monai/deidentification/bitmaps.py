"""Rewrites a BMP from its pixels: header, palette and rows, and nothing before, between or after them.

Run-length encoded rows become plain ones. The decoded pixels stay the same.

Source: Microsoft, BITMAPINFOHEADER and BITMAPV4HEADER.
"""

import io
import struct

import numpy as np
from PIL import Image

from sagemaker_monai.deidentification.decoded import decoded
from sagemaker_monai.errors import UnsuitableImage

MAGIC = b"BM"
_V4_BYTES, _BITFIELDS, _FILE_HEADER_BYTES = 108, 3, 14
_MASKS = (0x00FF0000, 0x0000FF00, 0x000000FF, 0xFF000000)  # red, green, blue, alpha
_PLAIN_MODES = ("1", "L", "RGB")


def cleaned_bmp(content: bytes) -> bytes:
    """The picture alone.

    Raises:
        UndecodableImage: not a valid BMP.
        UnsuitableImage: a layout that cannot be written.
        PayloadTooLarge: too many pixels.
    """
    image = decoded(content, "BMP")
    if image.mode == "P":
        return _saved(_with_used_colours(image))
    if image.mode == "RGBA":
        return _with_alpha(image)
    if image.mode not in _PLAIN_MODES:
        raise UnsuitableImage(f"a BMP of mode {image.mode} cannot be de-identified; save it as PNG")
    return _saved(image)


def _saved(image: Image.Image) -> bytes:
    file = io.BytesIO()
    Image.Image.save(image, file, "BMP", dpi=(96, 96))
    return file.getvalue()


def _with_used_colours(image: Image.Image) -> Image.Image:
    """Blacken unused palette entries, which could contain anything."""
    indices = np.asarray(image)
    palette = np.frombuffer(bytes(image.getpalette("RGB") or ()), np.uint8).reshape(-1, 3)
    used = np.unique(indices)
    used = used[used < len(palette)]
    table = np.zeros_like(palette)
    table[used] = palette[used]
    result = Image.fromarray(indices, "L")
    result.putpalette(table.tobytes(), "RGB")
    return result


def _with_alpha(image: Image.Image) -> bytes:
    """32 bits per pixel with masks, which readers interpret as alpha."""
    rows = np.asarray(image)[::-1, :, [2, 1, 0, 3]].tobytes()
    start = _FILE_HEADER_BYTES + _V4_BYTES
    head = struct.pack("<2sIII", MAGIC, start + len(rows), 0, start)
    head += struct.pack("<IiiHHIIiiII", _V4_BYTES, *image.size, 1, 32, _BITFIELDS, len(rows), 3780, 3780, 0, 0)
    head += struct.pack("<4I", *_MASKS)
    return head.ljust(start, b"\0") + rows
