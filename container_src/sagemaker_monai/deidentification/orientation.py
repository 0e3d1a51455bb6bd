"""Which way up a picture is: the one thing beside its pixels that whoever reads it needs, as Exif and without the rest.

Sources: Exif 2.32 (tag 274); TIFF 6.0, section 2.
"""

import io
import struct
import warnings

from PIL import Image

TAG = 274


def orientation_of(content: bytes, kind: str, *, is_decoded: bool = True) -> int:
    """1 to 8, as Pillow finds it in Exif or XMP and `pictures` applies it; 1 where it finds none.

    Args:
        content: a whole picture.
        kind: Pillow's name of its format.
        is_decoded: decode it; of a PNG, what stands behind the pixels is known only then.
    """
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", module=r"PIL\.")
            with Image.open(io.BytesIO(content), formats=(kind,)) as image:
                if is_decoded:
                    image.load()
                orientation = image.getexif().get(TAG, 1)
    except Exception:  # as in `pictures`: Exif that Pillow cannot read says nothing
        return 1
    return orientation if isinstance(orientation, int) and 1 <= orientation <= 8 else 1


def exif_of(orientation: int) -> bytes:
    """TIFF header and one directory with the orientation alone; nothing for a picture that is upright."""
    if not 2 <= orientation <= 8:
        return b""
    return b"MM\0*" + struct.pack(">IHHHIHHI", 8, 1, TAG, 3, 1, orientation, 0, 0)
