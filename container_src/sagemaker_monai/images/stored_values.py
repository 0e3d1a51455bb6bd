"""The values of a picture exactly as stored, for masks: indices and numbers, not what is displayed.

Nothing is converted or turned: palettes keep their indices, and grey of 2 or 4 bits its numbers, which Pillow spreads
to 255. Files whose numbers are uncertain are refused: lossy files (JPEG, most WebP) do not hold the values that were
written, and if white is zero (ImageJ's inverting lookup table), programs disagree on whether the structure is 255 or 0.

Damage is checked more strictly than in photographs, where a wrong pixel is visible: Pillow does not verify the
checksums of a PNG's image data, and assumes whatever a TIFF does not state.
"""

import zlib
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from PIL import Image, TiffImagePlugin

from sagemaker_monai.errors import UndecodableImage, UnsuitableImage
from sagemaker_monai.images.deep_values import Reopen, bits_of, load, read_deep

_BITS_PER_SAMPLE, _COMPRESSION, _PHOTOMETRIC_INTERPRETATION, _WHITE_IS_ZERO = 258, 259, 262, 0
_BIT_DEPTH_AT = 24  # of a PNG
_MODES = frozenset({"1", "L", "P", "LA", "RGB", "RGBA"})
_SPREAD = {2: 85, 4: 17}  # by which Pillow multiplies grey of so many bits
_LOSSY_COMPRESSIONS = frozenset({"jpeg", "tiff_jpeg"})


@dataclass(frozen=True)
class StoredPicture:
    """A picture as its file has it.

    Attributes:
        values: (H, W) bool for single bits, otherwise integers or float32; (H, W, 3) for colours.
        bits: per value, 1 to 64.
        palette: (n, 3) uint8, the colours that the values index; None if they are not indices.
        is_clear: (H, W) bool, the wholly transparent pixels; None where transparency says nothing.
    """

    values: np.ndarray
    bits: int
    palette: np.ndarray | None = None
    is_clear: np.ndarray | None = None


def check_stored(image: Image.Image, data: bytes) -> None:
    """Refuse an opened picture whose values are uncertain, before it is decoded.

    Raises:
        UndecodableImage: damaged.
        UnsuitableImage: lossy, or white is zero.
    """
    compression = image.info.get("compression")
    is_lossy_webp = image.format == "WEBP" and b"VP8L" not in _webp_chunks(data)
    if image.format in ("JPEG", "MPO") or is_lossy_webp or compression in _LOSSY_COMPRESSIONS:
        raise UnsuitableImage(
            f"a mask in a lossy file ({image.format}): its values smear at the edges; save the mask as PNG from where "
            "it was drawn"
        )
    if image.format == "PNG":
        _check_sums(data)
    if not isinstance(image, TiffImagePlugin.TiffImageFile):
        return
    if any(tag not in image.tag_v2 for tag in (_COMPRESSION, _PHOTOMETRIC_INTERPRETATION)):
        raise UndecodableImage("a TIFF that does not say how its values are stored; save it again")
    if image.tag_v2[_PHOTOMETRIC_INTERPRETATION] == _WHITE_IS_ZERO:
        raise UnsuitableImage(
            "a TIFF in which white is zero (an inverting lookup table): programs disagree about its values; save it "
            "with black as zero"
        )


def read_stored(image: Image.Image, data: bytes, reopen: Reopen, *, takes_clear: bool = False) -> StoredPicture:
    """Read the values of an opened picture that passed `check_stored`.

    Args:
        image: opened; it is decoded here.
        data: its file.
        reopen: as for `deep_values.read_deep`.
        takes_clear: pixels may be wholly transparent or not at all, and which are is told.

    Raises:
        UnsuitableImage: transparency that varies, or colours other than RGB.
    """
    load(image)
    if (bits := bits_of(image, data)) > 8:
        deep = read_deep(image, data, reopen)
        if deep.missing is not None and "transparency" not in image.info:
            raise _transparent()
        return StoredPicture(deep.values[..., 0] if deep.values.shape[2] == 1 else deep.values, bits)
    if image.mode not in _MODES:
        raise UnsuitableImage(f"a mask with colours of another kind than RGB ({image.mode}); save it as grey")
    values = np.asarray(image)
    is_clear = None
    if image.mode in ("LA", "RGBA"):
        if takes_clear and np.isin(values[..., -1], (0, 255)).all():
            is_clear = values[..., -1] == 0
        elif (values[..., -1] != values[0, 0, -1]).any():
            raise _transparent()
        values = values[..., 0] if image.mode == "LA" else values[..., :3]
    if image.mode == "P":
        palette = np.array(image.getpalette("RGB") or [], np.uint8).reshape(-1, 3)
        return StoredPicture(values, 8, palette)
    bits = 1 if image.mode == "1" else _grey_bits(image, data)
    return StoredPicture(values // _SPREAD[bits] if bits in _SPREAD else values, bits, None, is_clear)


def _grey_bits(image: Image.Image, data: bytes) -> int:
    if image.mode != "L":
        return 8
    if image.format == "PNG":
        return data[_BIT_DEPTH_AT]
    if isinstance(image, TiffImagePlugin.TiffImageFile):
        return int(image.tag_v2.get(_BITS_PER_SAMPLE, (8,))[0])
    return 8


def _check_sums(data: bytes) -> None:
    """Verify the checksum of each chunk of a PNG (ISO/IEC 15948, 5.3)."""
    position, kind = 8, b""
    while kind != b"IEND":
        length, kind = int.from_bytes(data[position : position + 4], "big"), data[position + 4 : position + 8]
        end = position + 8 + length
        if end + 4 > len(data) or zlib.crc32(memoryview(data)[position + 4 : end]) != int.from_bytes(
            data[end : end + 4], "big"
        ):
            raise UndecodableImage("the PNG is damaged or cut off: a check sum is wrong; save or send it again")
        position = end + 4


def _webp_chunks(data: bytes) -> Iterator[bytes]:
    position = 12
    while position + 8 <= len(data):
        yield data[position : position + 4]
        length = int.from_bytes(data[position + 4 : position + 8], "little")
        position += 8 + length + (length & 1)


def _transparent() -> UnsuitableImage:
    return UnsuitableImage(
        "a mask with transparent pixels: nothing says whether the structure is in the colours or in the transparency; "
        "save it as grey without transparency"
    )
