"""Removes what cameras write beside a picture (place, time, owner, comments); the picture stays, bit for bit.

One function handles every picture format, recognised by content, never by name. Only what a decoder needs is written
(`jpeg_markers`, `png_chunks`, `tiff_tags`, `webp_chunks`, `bitmaps`): unknown parts, bytes between and after parts, and
meaningless values are dropped. The orientation is kept, because readers apply it; colour profiles are not, because our
readers ignore them. Files that cannot be taken apart are refused, even if a decoder would read them.

Sources: Exif 2.32 (APP1, tag 274).
"""

from collections.abc import Callable
from pathlib import Path

from sagemaker_monai.deidentification import png_chunks, tiff_tags
from sagemaker_monai.deidentification.bitmaps import MAGIC, cleaned_bmp
from sagemaker_monai.deidentification.decoded import decoded, exif_of, orientation_of
from sagemaker_monai.deidentification.jpeg_markers import app_for_decoding, cleaned_jpeg
from sagemaker_monai.deidentification.webp_chunks import cleaned_webp, is_webp
from sagemaker_monai.errors import CallerError, PayloadTooLarge, UndecodableImage
from sagemaker_monai.images.pictures import MAX_FILE_BYTES

_APP1, _EXIF, _EOI = 0xE1, b"Exif\0\0", b"\xff\xd9"


def cleaned(content: bytes) -> bytes:
    """A picture without metadata; exactly the same bytes if there is none.

    Raises:
        UndecodableImage: broken, or an unknown format.
        UnsuitableImage: several frames or pages, or a layout that cannot be taken apart.
        PayloadTooLarge: more pixels or bytes than the limits.
    """
    if len(content) > MAX_FILE_BYTES:
        raise PayloadTooLarge(f"the file is larger than {MAX_FILE_BYTES} bytes; shrink the picture")
    clean = next((clean for is_so, clean in _FORMATS if is_so(content)), None)
    if clean is None:
        raise UndecodableImage("not a picture that can be de-identified; save it as JPEG or PNG")
    return clean(content)


def is_picture(head: bytes) -> bool:
    """Whether a file with this beginning has a format that `cleaned` supports."""
    return any(is_so(head) for is_so, _ in _FORMATS)


def telling(path: Path) -> bool:
    """Whether `cleaned` would change a picture; also True if it refuses it, or the file is unreadable."""
    try:
        content = path.read_bytes()
        return cleaned(content) != content
    except (OSError, CallerError):
        return True


def _jpeg(content: bytes) -> bytes:
    exif = exif_of(orientation_of(content, "JPEG", is_decoded=False)) if b"\xff\xe1" in content else b""
    kept = [_EXIF + exif] if exif else []

    def keep(marker: int, segment: bytes) -> bytes:
        if marker == _APP1:
            return kept.pop() if kept else b""
        return app_for_decoding(marker, segment)

    return cleaned_jpeg(content, keep_app=keep, is_needed=_is_needed)


def _is_needed(content: bytes, end: int) -> bool:
    """Whether the byte before `end` belongs to the picture: whether inverting its bits changes the pixels.

    Decoding twice takes a tenth of the time of reading the codes in Python.
    """
    size = 2 if content[end - 2 : end] == b"\xff\0" else 1  # with its stuffing
    last = content[end - size] ^ 0xFF
    other = content[: end - size] + (b"\xff\0" if last == 0xFF else bytes((last,)))
    before = _pixels(content[:end] + _EOI)
    return before is not None and before != _pixels(other + _EOI)


def _pixels(content: bytes) -> bytes | None:
    """The decoded values, or None."""
    try:
        return decoded(content, "JPEG").tobytes()
    except UndecodableImage:
        return None


_FORMATS: tuple[tuple[Callable[[bytes], bool], Callable[[bytes], bytes]], ...] = (
    (lambda head: head.startswith(b"\xff\xd8"), _jpeg),
    (lambda head: head.startswith(png_chunks.MAGIC), png_chunks.cleaned_png),
    (lambda head: head.startswith(tiff_tags.MAGICS), tiff_tags.cleaned_tiff),
    (is_webp, cleaned_webp),
    (lambda head: head.startswith(MAGIC), cleaned_bmp),
)
