"""All bits of pictures with more than 8 bits per value, from pictures that Pillow has opened.

Pillow keeps all bits of grey pictures. Of colours and of grey with alpha it keeps only the high byte; decoding the same
bytes again in the other byte order gives the low byte, so no second decoder is needed.

Sources: PNG (ISO/IEC 15948), 11.2.2 and 11.3.2; TIFF 6.0, sections 8, 18 and 19.
"""

import re
import struct
import sys
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image, ImageFile, TiffImagePlugin

from sagemaker_monai.errors import PayloadTooLarge, UnsuitableImage

MAX_DEEP_VALUES = 64_000_000  # of one picture, all channels together; 256 MB as float32
HEAD_BYTES = 26  # of a file, which `may_be_deep` needs
_PNG, _TIFFS = b"\x89PNG\r\n\x1a\n", (b"II*\0", b"MM\0*")
_IHDR_AT, _BIT_DEPTH_AT, _IHDR_CRC_AT = 12, 24, 29
_GREY_AND_ALPHA, _RGBA = 4, 6  # colour types of PNG
_BITS_PER_SAMPLE, _PHOTOMETRIC_INTERPRETATION, _SAMPLE_FORMAT = 258, 262, 339
_WHITE_IS_ZERO, _UNSIGNED = 0, 1
_GREY_MODES = frozenset({"I;16", "I;16L", "I;16B", "I;16N", "I", "F"})
_TURNED, _NATIVE = (
    (re.compile(r";(16|32|64)B([SF])$"), r";\1\2")
    if sys.byteorder == "little"
    else (re.compile(r";(16|32|64)([SF])$"), r";\1B\2")
)
_OTHER_BYTE = {";16L": ";16B", ";16B": ";16L", ";16N": ";16B" if sys.byteorder == "little" else ";16L"}

Reopen = Callable[[bytes], Image.Image]


@dataclass(frozen=True)
class DeepPicture:
    """A picture of more than 8 bits.

    Attributes:
        values: (H, W, C) as stored, C = 1 (grey) or 3 (RGB); integers or float32.
        bits: per value in the file, 9 to 64.
        is_white_zero: the smallest value is white.
        missing: (H, W) bool, transparent pixels, which have no value; None if there are none.
    """

    values: np.ndarray
    bits: int
    is_white_zero: bool = False
    missing: np.ndarray | None = None


def may_be_deep(head: bytes) -> bool:
    """Whether a picture can have more than 8 bits, by its first HEAD_BYTES; TIFF can, as only its directory tells."""
    if head.startswith(_PNG):
        return len(head) > _BIT_DEPTH_AT and head[_IHDR_AT : _IHDR_AT + 4] == b"IHDR" and head[_BIT_DEPTH_AT] > 8
    return head.startswith(_TIFFS)


def bits_of(image: Image.Image, data: bytes) -> int:
    """Bits per value by the header of an opened picture, 8 for 8 or fewer."""
    if image.format == "PNG":
        return 16 if may_be_deep(data[:HEAD_BYTES]) else 8
    if isinstance(image, TiffImagePlugin.TiffImageFile):
        return max(8, *map(int, image.tag_v2.get(_BITS_PER_SAMPLE, (8,))))
    return 8


def load(image: Image.Image) -> None:
    """Decode an opened picture.

    libtiff gives values in the machine's byte order, but Pillow (13.0) swaps the bytes of signed and floating-point
    values again if the file has the other order.
    """
    if isinstance(image, TiffImagePlugin.TiffImageFile):
        image.tile = [
            tile._replace(args=(_TURNED.sub(_NATIVE, str(tile.args[0])), *tile.args[1:]))
            if tile.codec_name == "libtiff" and isinstance(tile.args, tuple) else tile
            for tile in image.tile
        ]  # fmt: skip
    image.load()


def is_spread(values: np.ndarray) -> bool:
    """Whether 16-bit values are 8-bit values times 257, so that their high byte loses nothing."""
    return values.dtype == np.uint16 and all(bool((row >> 8 == row & 0xFF).all()) for row in values)


def read_deep(image: Image.Image, data: bytes, reopen: Reopen) -> DeepPicture:
    """Read all bits of a picture.

    Args:
        image: loaded by `load`, with `bits_of` above 8.
        data: its file.
        reopen: opens (other) bytes like `image`, with the same checks.

    Raises:
        UnsuitableImage: half-transparent pixels, non-finite values, or a layout whose values Pillow does not keep.
        PayloadTooLarge: more than MAX_DEEP_VALUES.
    """
    if image.width * image.height * len(image.getbands()) > MAX_DEEP_VALUES:
        raise PayloadTooLarge(f"more than {MAX_DEEP_VALUES} values of more than 8 bits in one picture; shrink it")
    bits = bits_of(image, data)
    is_white_zero, is_unsigned = False, True
    if isinstance(image, TiffImagePlugin.TiffImageFile):
        is_white_zero = image.tag_v2.get(_PHOTOMETRIC_INTERPRETATION) == _WHITE_IS_ZERO
        is_unsigned = image.tag_v2.get(_SAMPLE_FORMAT, (_UNSIGNED,))[0] == _UNSIGNED
    if image.mode in _GREY_MODES:
        values = np.asarray(image)
        if image.mode == "I" and bits == 32 and is_unsigned:
            values = values.view(np.uint32)  # Pillow's own type is signed
        elif image.mode not in ("I", "F"):
            values = values.astype(np.uint16)
        alpha = None
    elif bits == 16 and image.mode in ("RGB", "RGBA"):
        values, alpha = _two_bytes(image, data, reopen)
    else:
        raise UnsuitableImage(
            f"a picture of {bits} bits in an unsupported layout; save it as 16-bit grey or RGB, interleaved by pixel"
        )
    if values.dtype.kind == "f" and not np.isfinite(values).all():
        raise UnsuitableImage("the picture has values that are not finite; replace them")
    planes = values.reshape(*values.shape[:2], -1)
    return DeepPicture(planes, bits, is_white_zero, _missing(planes, alpha, image.info.get("transparency")))


def _missing(planes: np.ndarray, alpha: np.ndarray | None, transparent: object) -> np.ndarray | None:
    """(H, W) bool: pixels with alpha 0, or with the value or colour that means transparent."""
    if alpha is not None:
        if not ((alpha == 0) | (alpha == np.iinfo(alpha.dtype).max)).all():
            raise UnsuitableImage(
                "the picture has half-transparent pixels of more than 8 bits, whose values are unknown; save it "
                "without transparency"
            )
        missing = alpha == 0
    elif isinstance(transparent, int):
        missing = planes[..., 0] == transparent
    elif isinstance(transparent, tuple) and len(transparent) == planes.shape[2]:
        missing = (planes == np.asarray(transparent)).all(axis=2)
    else:
        return None
    return missing if missing.any() else None


def _two_bytes(image: Image.Image, data: bytes, reopen: Reopen) -> tuple[np.ndarray, np.ndarray | None]:
    """Values (H, W[, 3]) and alpha (H, W), uint16, of a picture of which Pillow has the high bytes."""
    if image.format == "PNG" and data[_BIT_DEPTH_AT + 1] == _GREY_AND_ALPHA:  # RGBA to Pillow
        with reopen(_as_bytes(data)) as low:
            low.load()
            pairs = np.asarray(low).astype(np.uint16)  # (H, W, 4): high and low byte of grey, then of alpha
        whole = pairs[..., 0::2] << 8 | pairs[..., 1::2]
        return whole[..., 0], whole[..., 1]
    high = np.asarray(image).astype(np.uint16)
    with reopen(data) as low:
        assert isinstance(low, ImageFile.ImageFile)
        low.tile = [tile._replace(args=_other_byte(tile.args)) for tile in low.tile]
        low.load()
        values = high << 8 | np.asarray(low)
    return values[..., :3], values[..., 3] if values.shape[2] == 4 else None


def _other_byte(args: tuple[Any, ...] | str | None) -> tuple[Any, ...] | str:
    first, *rest = args if isinstance(args, tuple) else (args,)
    mode = str(first)
    if mode[-4:] not in _OTHER_BYTE:
        raise UnsuitableImage("a picture of 16 bits in an unsupported layout; save it interleaved by pixel")
    changed = mode[:-4] + _OTHER_BYTE[mode[-4:]]
    return (changed, *rest) if isinstance(args, tuple) else changed


def _as_bytes(data: bytes) -> bytes:
    """A PNG of grey and alpha with 16 bits as one of RGBA with 8: the same bytes, row for row and filter for filter."""
    header = bytearray(data[_IHDR_AT:_IHDR_CRC_AT])
    assert header[13] == _GREY_AND_ALPHA
    header[12:14] = 8, _RGBA
    return data[:_IHDR_AT] + bytes(header) + struct.pack(">I", zlib.crc32(header)) + data[_IHDR_CRC_AT + 4 :]


def upright(values: np.ndarray, orientation: int) -> np.ndarray:
    """Turn (H, W, ...) as EXIF's orientation asks.

    Source: CIPA DC-008 (EXIF 2.32), 4.6.4, Orientation.
    """
    turned = values.swapaxes(0, 1)
    views = {
        2: values[:, ::-1],
        3: values[::-1, ::-1],
        4: values[::-1],
        5: turned,
        6: turned[:, ::-1],
        7: turned[::-1, ::-1],
        8: turned[::-1],
    }
    return views.get(orientation, values)
