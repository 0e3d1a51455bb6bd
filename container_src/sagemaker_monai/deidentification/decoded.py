"""A picture decoded with Pillow: its pixels and orientation, the only metadata that readers need.

Sources: Exif 2.32 (tag 274); TIFF 6.0, section 2.
"""

import io
import struct
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

from PIL import Image

from sagemaker_monai.errors import CallerError, PayloadTooLarge, UndecodableImage
from sagemaker_monai.images.picture_parts import MAX_PIXELS

TAG = 274


@contextmanager
def _opened(content: bytes, kind: str) -> Iterator[Image.Image]:
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", module=r"PIL\.")  # about odd metadata, which is removed
            with Image.open(io.BytesIO(content), formats=(kind,)) as image:
                if image.width * image.height > MAX_PIXELS:
                    raise PayloadTooLarge(f"more than {MAX_PIXELS} pixels in one picture; shrink it")
                yield image
    except CallerError:
        raise
    except (Image.DecompressionBombError, MemoryError) as error:
        raise PayloadTooLarge(f"more than {MAX_PIXELS} pixels in one picture; shrink it") from error
    except Exception as error:  # as in `pictures`: Pillow's exceptions are not documented
        raise UndecodableImage(f"not a valid {kind}; save the picture again") from error


def decoded(content: bytes, kind: str) -> Image.Image:
    """A picture with its pixels; `kind` is Pillow's name of its format.

    Raises:
        UndecodableImage: it cannot be decoded.
        PayloadTooLarge: too many pixels.
    """
    with _opened(content, kind) as image:
        image.load()
    return image


def orientation_of(content: bytes, kind: str, *, is_decoded: bool = True) -> int:
    """The orientation, 1 to 8, as Pillow finds it in Exif or XMP and `pictures` applies it; 1 if there is none.

    `is_decoded` decodes the picture first: only then does Pillow see what follows the pixels of a PNG.
    """
    try:
        with _opened(content, kind) as image:
            if is_decoded:
                image.load()
            orientation = image.getexif().get(TAG, 1)
    except CallerError:  # Exif that Pillow cannot read does not count
        return 1
    return orientation if isinstance(orientation, int) and 1 <= orientation <= 8 else 1


def exif_of(orientation: int) -> bytes:
    """A TIFF header and one directory with only the orientation; empty for an upright picture."""
    if not 2 <= orientation <= 8:
        return b""
    return b"MM\0*" + struct.pack(">IHHHIHHI", 8, 1, TAG, 3, 1, orientation, 0, 0)
