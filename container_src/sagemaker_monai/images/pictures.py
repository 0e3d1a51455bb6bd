"""One picture, from its bytes or raw values to an upright 8-bit grey or RGB image.

Training and serving share these rules, because both call `decode`:

- a JPEG with several frames (MPO, as phones write it) is read as its first frame; animations and documents of several
  pages are refused, because it is unclear which page is meant;
- EXIF orientation is applied; an unreadable EXIF block is ignored, as every viewer does;
- transparent pixels become white; CMYK, palettes and single bits become RGB or grey by Pillow's conversions, without
  colour profiles;
- `decode_deep` keeps all bits of a picture with more than 8. `decode` refuses such a picture unless it holds 8-bit
  values spread over 16 bits; models from before this rule, and callers that only display a picture, get the high byte;
- raw values are read like a picture of their type: bool as 1 bit, uint16 as 16 bits; all other types must hold whole
  numbers from 0 to 255.
"""

import io
import itertools
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Literal

import numpy as np

# Importing the plugins registers them; otherwise Pillow loads all of its fifty formats at the first TIFF or WebP.
from PIL import (
    BmpImagePlugin,  # noqa: F401
    Image,
    JpegImagePlugin,
    PngImagePlugin,
    TiffImagePlugin,
    WebPImagePlugin,  # noqa: F401
)

from sagemaker_monai.budget import lent, spend_bytes, spend_work
from sagemaker_monai.errors import CallerError, PayloadTooLarge, UndecodableImage, UnsuitableImage
from sagemaker_monai.images.deep_values import (
    HEAD_BYTES,
    DeepPicture,
    bits_of,
    is_spread,
    load,
    may_be_deep,
    read_deep,
    upright,
)
from sagemaker_monai.images.expected import Expected, expect
from sagemaker_monai.images.picture_parts import MAX_PIXELS, check_parts, check_pixels, jpeg_frame
from sagemaker_monai.images.sample import Sample
from sagemaker_monai.images.stored_values import StoredPicture, check_stored, read_stored

PICTURE_FORMATS = ("JPEG", "PNG", "BMP", "TIFF", "WEBP")  # Pillow's names; no other plugin ever sees the bytes
# Nanoseconds to decode and shrink a pixel, per scan of a JPEG, and per byte of a file.
NS_A_PIXEL = {"JPEG": 5.0, "MPO": 5.0, "PNG": 14.0, "BMP": 5.0, "TIFF": 10.0, "WEBP": 28.0}
NS_A_SCANNED_PIXEL, NS_A_BYTE = 4.0, 12.0
# Bytes of a pixel in Pillow, and of what else is held during its conversion to 8 bits.
_BYTES_A_PIXEL = {"1": 1, "L": 1, "P": 1, "I;16": 2, "I;16L": 2, "I;16B": 2, "I;16N": 2}
_BYTES_OF_DEEP, _BYTES_OF_DEEP_COLOUR, _BYTES_OF_ALPHA, _BYTES_OF_CONVERTED = 10, 32, 14, 4
_BYTES_OF_FORMAT = {"WEBP": 10, "TIFF": 3}
MAX_FILE_BYTES = 512 * 1024**2  # of one picture
# Each scan of a JPEG visits the whole picture, and one that changes nothing takes 100 bytes: 1,000 of them over the
# most pixels took 90 s. Progressive pictures have about ten.
MAX_SCANS = 64
MASK_VALUES = 32  # the most distinct values (or colours) of a mask (a guess)
_PEAK, _REST = 16, 0.05  # levels around a peak that belong to it, and the share of pixels outside two peaks (guesses)

_ORIENTATION_TAG = 0x0112
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_OPAQUE_MODES = frozenset({"1", "L", "P", "RGB", "RGBX", "CMYK", "YCbCr"})
_ALPHA_MODES = frozenset({"LA", "PA", "RGBA"})
_DEEP_MODES = frozenset({"I;16", "I;16L", "I;16B", "I;16N"})
# Pillow's names. The others (fax, LZMA, Zstandard, ...) are not for photographs, and libtiff writes a line to standard
# error for each broken row.
_TIFF_COMPRESSIONS = frozenset(
    {"raw", "packbits", "tiff_lzw", "tiff_deflate", "tiff_adobe_deflate", "tiff_jpeg", "jpeg"}
)
Deep = Literal["refuse", "high_byte"]
DEEP = ("refuse", "high_byte")
_SCAN_HEADER = re.compile(rb"\xff\xda\x00[\x08\x0a\x0c\x0e][\x01-\x04]")  # ITU-T T.81, B.2.3
_BITS_PER_SAMPLE, _PHOTOMETRIC_INTERPRETATION, _WHITE_IS_ZERO = 258, 262, 0  # TIFF 6.0, section 8


def decode(
    sample: Sample,
    *,
    channels: int,
    min_size: tuple[int, int] | None,
    is_fitted_inside: bool = False,
    deep: Deep = "high_byte",
) -> Image.Image:
    """Decode one picture.

    A JPEG is decoded at the smallest of libjpeg's scales (1/1, 1/2, 1/4, 1/8) that has enough pixels for the resize
    that follows. Including that resize, this is 2.0 to 2.2 times as fast as a full decode at 64 px and 1.5 to 1.7 times
    at 224 px, where most of the rest is reading the bit stream and the resize itself (synthetic 600x450 JPEGs of 85 kB,
    one core of an AMD EPYC).

    Args:
        sample: the picture.
        channels: 1 for grey, 3 for RGB.
        min_size: (width, height) in pixels, after the orientation is applied, to which the caller will resize; None
            decodes every pixel.
        is_fitted_inside: the caller will shrink the picture to fit inside `min_size`; otherwise it must cover
            `min_size` in both directions.
        deep: whether to "refuse" values of more than 8 bits or take the "high_byte" of 16.

    Returns:
        An image of mode "L" or "RGB", large enough for the resize unless the original is smaller.

    Raises:
        UndecodableImage: broken bytes, a file that cannot be read, or none of `sample.formats`.
        UnsuitableImage: several frames, values outside 8 and 16 bit, or raw values of a wrong shape or range.
        PayloadTooLarge: more pixels, bytes or JPEG scans than the limits.
    """
    if isinstance(sample.source, np.ndarray):
        image = _from_values(sample.source, deep)
    elif isinstance(sample.source, Path | bytes):
        data, formats = _data_and_formats(sample.source, sample.formats)
        image = _from_bytes(data, formats, min_size, is_fitted_inside=is_fitted_inside, deep=deep)
    else:
        raise UnsuitableImage("this model takes photographs, not DICOM series; send JPEG, PNG, BMP, TIFF or WebP")
    mode = "L" if channels == 1 else "RGB"
    return image if image.mode == mode else image.convert(mode)


def decode_deep(sample: Sample) -> DeepPicture | None:
    """Decode all bits of a picture of more than 8, upright; None for others, mostly recognised by their first bytes.

    Args:
        sample: a file or its bytes.

    Raises:
        UndecodableImage, PayloadTooLarge: as `decode`.
        UnsuitableImage: several frames, half-transparent pixels, or values that are not finite.
    """
    assert isinstance(sample.source, Path | bytes)
    if not may_be_deep(read_head(sample.source, HEAD_BYTES)):
        return None
    data, formats = _data_and_formats(sample.source, sample.formats)
    with _sound_picture(formats), _opened(data, formats) as image:
        if bits_of(image, data) <= 8:
            return None
        with _counted(image, data, image.width * image.height):
            load(image)
            picture, orientation = read_deep(image, data, lambda other: _opened(other, formats)), _orientation(image)
    missing = None if picture.missing is None else upright(picture.missing, orientation)
    return DeepPicture(upright(picture.values, orientation), picture.bits, picture.is_white_zero, missing)


def decode_stored(source: Path | bytes, *, takes_clear: bool = False) -> StoredPicture:
    """Decode a picture to its stored values, for masks: indices of palettes, and nothing turned.

    Args:
        source: a file or its bytes.
        takes_clear: as for `stored_values.read_stored`.

    Raises:
        UndecodableImage, PayloadTooLarge: as `decode`.
        UnsuitableImage: several frames, a lossy file, an EXIF orientation, transparency, or uncertain values.
    """
    data = read_file(source) if isinstance(source, Path) else source
    with _sound_picture(PICTURE_FORMATS), _opened(data, PICTURE_FORMATS) as image:
        check_stored(image, data)
        # Loading turns a TIFF, so its orientation is read first; for other formats, reading it would load the picture
        # and hide a failure.
        orientation = _orientation(image) if isinstance(image, TiffImagePlugin.TiffImageFile) else 1
        with _counted(image, data, image.width * image.height):
            picture = read_stored(image, data, lambda other: _opened(other, PICTURE_FORMATS), takes_clear=takes_clear)
        if orientation in _UPRIGHT or _orientation(image) in _UPRIGHT:
            raise UnsuitableImage(
                "a mask with an EXIF orientation: nothing says whether it was drawn on the image as stored or upright; "
                "save it upright, without EXIF"
            )
    spend_bytes(picture.values.nbytes, f"a picture of {picture.values.shape[1]} x {picture.values.shape[0]} pixels")
    return picture


def _data_and_formats(source: Path | bytes, allowed: tuple[str, ...]) -> tuple[bytes, tuple[str, ...]]:
    data = read_file(source) if isinstance(source, Path) else source
    return data, tuple(name for name in allowed or PICTURE_FORMATS if name in PICTURE_FORMATS)


def count_bits(source: Path | bytes) -> int:
    """Bits per value of a picture by its header; 8 for 8 or fewer, or if it cannot be read."""
    try:
        if not may_be_deep(head := read_head(source, HEAD_BYTES)):
            return 8
        opened = io.BytesIO(source) if isinstance(source, bytes) else source
        with _sound_picture(PICTURE_FORMATS), Image.open(opened, formats=PICTURE_FORMATS) as image:
            return bits_of(image, head)
    except CallerError:
        return 8


def is_deep(sample: Sample) -> bool:
    """Whether a picture (by its header) or raw values (by their type) have more than 8 bits."""
    if isinstance(sample.source, np.ndarray):
        return sample.source.dtype == np.uint16
    return isinstance(sample.source, Path | bytes) and count_bits(sample.source) > 8


def read_head(source: Path | bytes, size: int) -> bytes:
    """Read the first bytes of a file or a body; raises UndecodableImage."""
    if isinstance(source, bytes):
        return source[:size]
    try:
        with source.open("rb") as file:
            return file.read(size)
    except OSError as error:
        raise UndecodableImage(f"the file cannot be read ({type(error).__name__})") from error


def measure(data: bytes) -> tuple[int, float]:
    """The pixels of an encoded picture by its header, and the nanoseconds needed to decode them; 0 if it is broken.

    Raises:
        PayloadTooLarge: as `picture_parts.check_parts`.
    """
    with suppress(UnsuitableImage):
        check_parts(data)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", module=r"PIL\.")
            with Image.open(io.BytesIO(data), formats=PICTURE_FORMATS) as image:
                pixels = image.width * image.height
                return pixels, pixels * NS_A_PIXEL.get(image.format or "", 0.0) + len(data) * NS_A_BYTE
    except Image.DecompressionBombError:
        return MAX_PIXELS + 1, 0.0
    except Exception:  # as in `_sound_picture`
        return 0, 0.0


def upright_size(source: Path | bytes) -> tuple[int, int]:
    """(width, height) of a picture as `decode` turns it, by its header.

    Raises:
        UndecodableImage, UnsuitableImage, PayloadTooLarge: as `decode`.
    """
    data = read_file(source) if isinstance(source, Path) else source
    with _sound_picture(PICTURE_FORMATS), _opened(data, PICTURE_FORMATS) as image:
        return image.size if _orientation(image) < 5 else (image.height, image.width)


def has_few_values(path: Path) -> bool:
    """Whether a picture has the values of a mask: at most MASK_VALUES, or two peaks, as JPEG leaves a mask.

    False for a picture that cannot be read.
    """
    try:
        data = read_file(path)
        with _sound_picture(PICTURE_FORMATS), _opened(data, PICTURE_FORMATS) as image:
            if image.mode == "1":
                return True
            if image.format == "JPEG":
                _check_scans(data)
            load(image)
            if image.mode not in _OPAQUE_MODES | _ALPHA_MODES:
                return len(np.unique(np.asarray(image))) <= MASK_VALUES
            if image.getcolors(MASK_VALUES) is not None:
                return True
            return image.format in ("JPEG", "MPO", "WEBP") and _has_two_peaks(image.convert("L"))
    except CallerError:
        return False


def _has_two_peaks(image: Image.Image) -> bool:
    counts = np.asarray(image.histogram())
    total = int(counts.sum())
    for _ in range(2):
        peak = int(counts.argmax())
        counts[max(peak - _PEAK, 0) : peak + _PEAK + 1] = 0
    return int(counts.sum()) <= _REST * total


def read_file(path: Path) -> bytes:
    """Read a picture's file.

    Raises:
        UndecodableImage: it cannot be read.
        PayloadTooLarge: more than MAX_FILE_BYTES.
    """
    # The whole file, so that files and request bodies go through the same decoder calls.
    try:
        if path.stat().st_size > MAX_FILE_BYTES:
            raise PayloadTooLarge(f"the file is larger than {MAX_FILE_BYTES} bytes; shrink the picture")
        return path.read_bytes()
    except OSError as error:
        raise UndecodableImage(f"the file cannot be read ({type(error).__name__})") from error


def _from_bytes(
    data: bytes, formats: tuple[str, ...], min_size: tuple[int, int] | None, *, is_fitted_inside: bool, deep: Deep
) -> Image.Image:
    with _sound_picture(formats), _opened(data, formats) as image:
        full_pixels = image.width * image.height
        if isinstance(image, JpegImagePlugin.JpegImageFile):
            _check_scans(data)
            if min_size is not None:
                image.draft(None, _size_before_orientation(image, min_size, is_fitted_inside=is_fitted_inside))
        with _counted(image, data, full_pixels):
            load(image)
            bits = bits_of(image, data)
            if bits > 8 and deep == "refuse":
                picture = read_deep(image, data, lambda other: _opened(other, formats))
                if not is_spread(picture.values):
                    raise UnsuitableImage(_too_deep(bits))
            # Read again: loading has turned a TIFF, and only then is a PNG's EXIF known.
            orientation = _orientation(image)
            if orientation not in _UPRIGHT:
                return _eight_bit(image)
            turned = _BYTES_A_PIXEL.get(image.mode, 4) * image.width * image.height
            with lent(turned, "a picture to turn upright"):
                return _eight_bit(image).transpose(_UPRIGHT[orientation])


@contextmanager
def _counted(image: Image.Image, data: bytes, full_pixels: int) -> Iterator[None]:
    """Count the work of decoding a picture and, within the block, its memory.

    Args:
        image: opened; a JPEG may have a smaller scale.
        data: its file.
        full_pixels: of the file.
    """
    pixels, name = image.width * image.height, image.format or ""
    each = _BYTES_A_PIXEL.get(image.mode, 4) + _BYTES_OF_FORMAT.get(name, 0)
    if bits_of(image, data) > 8:
        each += _BYTES_OF_DEEP if image.mode in _DEEP_MODES | {"I", "F"} else _BYTES_OF_DEEP_COLOUR
    elif image.mode in _ALPHA_MODES or image.has_transparency_data:
        each += _BYTES_OF_ALPHA
    elif image.mode not in ("1", "L", "RGB"):
        each += _BYTES_OF_CONVERTED
    held, work_ns = each * pixels, full_pixels * NS_A_PIXEL.get(name, 0.0) + len(data) * NS_A_BYTE
    if name in ("JPEG", "MPO", "TIFF"):
        scans = sum(1 for _ in _SCAN_HEADER.finditer(data))
        work_ns += max(scans - 1, 0) * full_pixels * NS_A_SCANNED_PIXEL
        if name != "TIFF":
            frame = jpeg_frame(data)
            if frame.is_progressive or scans > 1:  # libjpeg holds all coefficients, of 2 bytes, at any scale
                held += int(2 * frame.samples_a_pixel * full_pixels)
    spend_work(work_ns, f"pictures, this one of {full_pixels} pixels,")
    with lent(held, f"a picture of {image.width} x {image.height} pixels"):
        yield


def _too_deep(bits: int) -> str:
    return (
        f"the picture has {bits} bits, and this model was trained on pictures of 8, which have another scale; send "
        "pictures like the training images, or train on pictures like this one"
    )


def _opened(data: bytes, formats: tuple[str, ...]) -> Image.Image:
    """Open a picture and check its parts and header, without decoding; the caller closes it."""
    check_parts(data)
    image = Image.open(io.BytesIO(data), formats=formats)
    try:
        _check_header(image)
        expect(Expected((len(image.getbands()), *image.size)))
    except BaseException:
        image.close()
        raise
    return image


@contextmanager
def _sound_picture(formats: tuple[str, ...]) -> Iterator[None]:
    """Convert Pillow's errors to ours."""
    try:
        with warnings.catch_warnings():
            # Odd metadata do not matter. Only Pillow's warnings, because concurrent threads may restore each other's
            # filters.
            warnings.filterwarnings("ignore", module=r"PIL\.")
            yield
    except (PayloadTooLarge, UnsuitableImage):
        raise
    except (Image.DecompressionBombError, MemoryError) as error:
        raise PayloadTooLarge(f"more than {MAX_PIXELS} pixels in one picture; shrink it") from error
    except Exception as error:
        # Pillow documents no list of exceptions: broken files raise OSError, SyntaxError, ValueError, struct.error,
        # zlib.error, KeyError, AssertionError and more, depending on its version. Only Pillow runs in the block, so any
        # exception means that the bytes are not a picture. Its text is left out, because it could quote the file.
        raise UndecodableImage(f"not a sound picture of the expected type ({', '.join(formats)})") from error


def _check_header(image: Image.Image) -> None:
    width, height = image.size
    # Pillow gives black pixels for a PNG without image data, as one is whose chunk's name is damaged.
    if width < 1 or height < 1 or (isinstance(image, PngImagePlugin.PngImageFile) and not image.tile):
        raise UndecodableImage("the picture has no pixels")
    check_pixels(width, height)
    if getattr(image, "is_animated", False) and image.format != "MPO":
        raise UnsuitableImage("the file has several frames or pages; send one picture")
    if image.format == "TIFF" and image.info.get("compression") not in _TIFF_COMPRESSIONS:
        raise UnsuitableImage("the TIFF's compression is not accepted; use none, LZW, deflate, PackBits or JPEG")


def _check_scans(data: bytes) -> None:
    scans = itertools.islice(_SCAN_HEADER.finditer(data), MAX_SCANS + 1)
    if sum(1 for _ in scans) > MAX_SCANS:
        raise PayloadTooLarge(f"a JPEG with more than {MAX_SCANS} scans; save the picture again")


def _size_before_orientation(
    image: Image.Image, min_size: tuple[int, int], *, is_fitted_inside: bool
) -> tuple[int, int]:
    width, height = min_size if _orientation(image) < 5 else min_size[::-1]
    if is_fitted_inside:
        scale = min(width / image.width, height / image.height)
        width, height = round(image.width * scale), round(image.height * scale)
    return max(width, 1), max(height, 1)


def _orientation(image: Image.Image) -> int:
    try:
        orientation = image.getexif().get(_ORIENTATION_TAG, 1)
    except Exception:  # as in `_sound_picture`; unreadable EXIF says nothing about the pixels
        return 1
    return orientation if isinstance(orientation, int) and orientation in _UPRIGHT else 1


def _eight_bit(image: Image.Image) -> Image.Image:
    """Convert grey pictures to "L" and all others to "RGB", so that a later change of channels rounds alike."""
    if image.mode in _DEEP_MODES:
        return _high_byte(image)
    if image.mode in _ALPHA_MODES or (image.mode in _OPAQUE_MODES and image.has_transparency_data):
        canvas = Image.new("RGBA", image.size, "white")
        canvas.alpha_composite(image.convert("RGBA"))
        return canvas.convert("RGB")
    if image.mode not in _OPAQUE_MODES:
        raise UnsuitableImage("the picture has 32-bit, floating-point or other odd values; send 8 or 16 bit")
    mode = "L" if image.mode in ("1", "L") else "RGB"
    return image if image.mode == mode else image.convert(mode)


def _high_byte(image: Image.Image) -> Image.Image:
    values = np.asarray(image).astype(np.uint16)
    bits, is_white_zero = 16, False
    if isinstance(image, TiffImagePlugin.TiffImageFile):
        # For deep TIFFs Pillow leaves both to the caller: it neither scales 12 bits nor inverts white-is-zero.
        bits = image.tag_v2.get(_BITS_PER_SAMPLE, (16,))[0]
        is_white_zero = image.tag_v2.get(_PHOTOMETRIC_INTERPRETATION) == _WHITE_IS_ZERO
    grey = (values >> max(bits - 8, 0)).astype(np.uint8)
    if is_white_zero:
        grey = 255 - grey
    transparent = image.info.get("transparency")
    if isinstance(transparent, int):
        grey[values == transparent] = 255
    return Image.fromarray(grey)


def _from_values(values: np.ndarray, deep: Deep) -> Image.Image:
    planes = values[np.newaxis] if values.ndim == 2 else values
    if planes.ndim != 3 or planes.shape[0] not in (1, 3):
        raise UnsuitableImage(
            f"raw values have the shape {values.shape}; send (C, W, H) with 1 or 3 channels first, or (W, H)"
        )
    pixels = planes.shape[1] * planes.shape[2]
    if pixels == 0:
        raise UnsuitableImage("the picture has no pixels")
    if pixels > MAX_PIXELS:
        raise PayloadTooLarge(f"{planes.shape[1]} x {planes.shape[2]} pixels are more than {MAX_PIXELS}; shrink it")
    expect(Expected(planes.shape))
    if deep == "refuse" and values.dtype == np.uint16 and not is_spread(planes):
        raise UnsuitableImage(_too_deep(16))
    rows = _to_uint8(planes).transpose(2, 1, 0)  # (H, W, C), as Pillow stores a picture
    return Image.fromarray(np.ascontiguousarray(rows[:, :, 0] if rows.shape[2] == 1 else rows))


def _to_uint8(values: np.ndarray) -> np.ndarray:
    if values.dtype.kind not in "buif":
        raise UnsuitableImage("raw values must be bool, integer or floating point")
    if values.dtype == np.uint8:
        return values
    if values.dtype.kind == "b":
        return values.astype(np.uint8) * np.uint8(255)
    if values.dtype.kind == "u" and values.dtype.itemsize == 2:
        return (values >> 8).astype(np.uint8)
    # `not (a and b)`, so that NaN is refused too.
    if not (values.min() >= 0 and values.max() <= 255):
        raise UnsuitableImage("raw values must lie between 0 and 255 (uint16: its whole range)")
    whole = values.astype(np.uint8)
    if values.dtype.kind == "f" and not np.array_equal(whole, values):
        raise UnsuitableImage("raw floating-point values must be whole numbers from 0 to 255; do not scale them")
    return whole
