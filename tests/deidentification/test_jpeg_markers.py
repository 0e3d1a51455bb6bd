"""What stays of a JPEG is what its decoder needs."""

import io
import re

import imagecodecs
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from sagemaker_monai.deidentification import jpeg_tables
from sagemaker_monai.deidentification.jpeg_markers import cleaned_jpeg
from sagemaker_monai.errors import UndecodableImage
from tests.attacks.jpeg_places import FRAMES, JPEG_PLACES, SCAN, before, segment, start_of
from tests.support.compressed_frames import as_jpeg, as_jpeg_12, as_jpeg_lossless, as_jpeg_ls

rng = np.random.default_rng(0)
GREY = np.clip(128 + np.cumsum(rng.integers(-9, 10, (45, 53)), axis=1), 0, 255).astype(np.uint8)
COLOUR = np.stack([GREY, np.roll(GREY, 7, axis=0), GREY ^ 7], axis=-1)
DEEP = GREY.astype(np.uint16) << 4 | 5


def by_pillow(frame: np.ndarray, mode: str | None = None, **options: object) -> bytes:
    buffer = io.BytesIO()
    image = Image.fromarray(frame)
    (image.convert(mode) if mode else image).save(buffer, "JPEG", **options)
    return buffer.getvalue()


PICTURES = {
    "grey": by_pillow(GREY),
    "colour, halved chroma": by_pillow(COLOUR),
    "colour, whole chroma": by_pillow(COLOUR, subsampling=0, quality=98),
    "codes of its own": by_pillow(COLOUR, optimize=True),
    "restarts": by_pillow(COLOUR, restart_marker_blocks=2),
    "progressive": by_pillow(COLOUR, progressive=True),
    "progressive, grey, restarts": by_pillow(GREY, progressive=True, restart_marker_rows=1),
    "CMYK": by_pillow(COLOUR, mode="CMYK"),
    "RGB": as_jpeg(COLOUR),
    "12 bits": as_jpeg_12(DEEP),
    "lossless": as_jpeg_lossless(DEEP, predictor=6),
    "lossless colour": as_jpeg_lossless(COLOUR),
    "JPEG-LS": as_jpeg_ls(DEEP),
    "JPEG-LS, colour": as_jpeg_ls(COLOUR),
}


def decoded(picture: bytes) -> np.ndarray:
    """By CharLS, Pillow's libjpeg, or for what that does not know, imagecodecs'."""
    if b"\xff\xf7" in picture[:200]:
        return imagecodecs.jpegls_decode(picture)
    try:
        return np.asarray(Image.open(io.BytesIO(picture)))
    except OSError:
        return imagecodecs.jpeg8_decode(picture)


@pytest.mark.parametrize("name", PICTURES)
def test_what_an_encoder_made_decodes_to_the_same(name):
    cleaned = cleaned_jpeg(PICTURES[name])

    assert np.array_equal(decoded(cleaned), decoded(PICTURES[name]))
    assert cleaned_jpeg(cleaned) == cleaned
    assert len(cleaned) <= len(PICTURES[name])


def held(name: str, place: str, text: bytes) -> None:
    picture = JPEG_PLACES[place](PICTURES[name], text)
    try:
        cleaned = cleaned_jpeg(picture)
    except UndecodableImage:
        assert "JPEG-LS" in name  # HP's transform, the names of components
        return
    if cleaned == cleaned_jpeg(PICTURES[name]):
        return
    if place == "the names of components":  # numbers, but R, G and B
        frame = start_of(cleaned, *FRAMES)
        assert cleaned[frame + 10 : frame + 19 : 3] in (b"\1\2\3", b"RGB", b"rgb")
        return
    assert "JPEG-LS" in name
    with pytest.raises(imagecodecs.JpeglsError):  # the net below: CharLS takes no byte too many
        imagecodecs.jpegls_decode(cleaned)


SHORT = ("colour, halved chroma", "restarts", "progressive, grey, restarts", "lossless colour", "JPEG-LS")


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=() if name in SHORT else pytest.mark.attacks) for name in PICTURES]
)
def test_no_text_stays(name):
    for place in JPEG_PLACES:
        held(name, place, b"Smith 28.02.1949")


@settings(max_examples=30, deadline=None)
@given(st.sampled_from(sorted(PICTURES)), st.sampled_from(sorted(JPEG_PLACES)), st.binary(min_size=3, max_size=90))
def test_no_bytes_stay(name, place, text):
    held(name, place, text)


@pytest.mark.attacks
@settings(max_examples=5_000, deadline=None)
@given(st.sampled_from(sorted(PICTURES)), st.sampled_from(sorted(JPEG_PLACES)), st.binary(min_size=3, max_size=200))
def test_no_bytes_stay_long(name, place, text):
    held(name, place, text)


@pytest.mark.parametrize("name", PICTURES)
def test_a_picture_that_is_cut_off_is_refused(name):
    picture = PICTURES[name]
    for end in (1, 20, len(picture) // 2, len(picture) - 3, len(picture) - 1):
        with pytest.raises(UndecodableImage):
            cleaned_jpeg(picture[:end])
    if "JPEG-LS" not in name:
        with pytest.raises(UndecodableImage):
            cleaned_jpeg(picture[: start_of(picture, SCAN) + 20] + b"\xff\xd9")


@pytest.mark.parametrize("marker", [0x02, 0xBF, 0xC9, 0xC5, 0xDC, 0xDE, 0xF0, 0xF9])
def test_what_is_not_known_is_refused(marker):
    picture = PICTURES["grey"]
    with pytest.raises(UndecodableImage, match=r"again|baseline"):
        cleaned_jpeg(before(picture, segment(marker, b"1234"), SCAN))


def test_a_scan_that_codes_what_was_coded_is_refused():
    picture = PICTURES["grey"]
    scan = start_of(picture, SCAN)
    with pytest.raises(UndecodableImage, match="twice"):
        cleaned_jpeg(picture[:-2] + picture[scan:])


def test_fill_bytes_and_restarts_where_none_are_needed_go():
    picture = PICTURES["grey"]
    scan = start_of(picture, SCAN)
    padded = picture[:scan] + b"\xff" * 9 + picture[scan:-2] + b"\xff\xff\xd0\xff\xff\xff\xd9"
    assert cleaned_jpeg(padded) == cleaned_jpeg(picture)


def test_the_bits_that_fill_the_last_byte_of_the_codes_are_ones():
    picture = by_pillow(np.zeros((8, 8), np.uint8))  # its last byte is of 2 to 6 bits
    changed = picture[:-3] + bytes((picture[-3] & 0xFE,)) + picture[-2:]
    assert changed != picture
    assert cleaned_jpeg(changed) == cleaned_jpeg(picture) == picture


def test_numbers_of_segments_that_no_decoder_needs_are_the_standards():
    picture = PICTURES["grey"]
    dense = picture.replace(b"JFIF\0\1\1\0\0\1\0\1", b"JFIF\0\1\2\1\x12\x34\x56\x78")
    assert dense != picture
    assert cleaned_jpeg(dense) == picture
    colour = PICTURES["RGB"]
    versioned = colour.replace(b"Adobe\0\x64\0\0\0\0", b"Adobe\x01\x02\x03\x04\x05\x06")
    assert versioned != colour
    assert cleaned_jpeg(versioned) == cleaned_jpeg(colour)


def test_the_caller_decides_about_application_segments():
    marked = before(PICTURES["grey"], segment(0xE1, b"one") + segment(0xE2, b"two"), *FRAMES)
    kept = cleaned_jpeg(marked, keep_app=lambda marker, content: content[:2] if marker == 0xE1 else b"")
    assert segment(0xE1, b"on") in kept
    assert b"two" not in kept
    assert b"JFIF" not in kept


def with_codes_for(picture: bytes, text: bytes) -> bytes:
    """The same picture with codes of 16 bits for the bytes of the text, as many as there is room for, in each DHT."""
    position, parts = 2, [picture[:2]]
    while picture[position + 1] != 0xD9:
        end = position + 2 + int.from_bytes(picture[position + 2 : position + 4], "big")
        content = picture[position + 4 : end]
        if picture[position + 1] == 0xC4 and len(content) == 17 + sum(content[1:17]) and content[0] >= 0x10:
            room = (1 << 16) - sum(count << 15 - length for length, count in enumerate(content[1:17])) - 1
            more = min(room, len(text), 255 - content[16])
            content = content[:16] + bytes((content[16] + more,)) + content[17:] + text[:more]
        parts.append(segment(picture[position + 1], content))
        if picture[position + 1] == SCAN:
            codes = re.match(rb"(?:[^\xff]|\xff[\x00\xd0-\xd7])*", picture[end:])
            parts.append(codes[0])
            end += len(codes[0])
        position = end
    return b"".join(parts) + picture[position:]


@pytest.mark.parametrize("name", ["codes of its own", "progressive", "progressive, grey, restarts"])
def test_codes_that_no_pixel_has_say_nothing(name):
    text = b"Smith 28.02.1949 seen"
    picture = with_codes_for(PICTURES[name], text)
    assert text[:8] in picture

    cleaned = cleaned_jpeg(picture)

    assert text[:8] not in cleaned
    assert np.array_equal(decoded(cleaned), decoded(PICTURES[name]))
    assert cleaned == cleaned_jpeg(with_codes_for(PICTURES[name], bytes(reversed(text))))
    assert cleaned_jpeg(cleaned) == cleaned


@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"restart_marker_blocks": 1}])
@pytest.mark.parametrize("frame", [GREY // 64 * 8, np.full((16, 24), 77, np.uint8), COLOUR // 8])
def test_steps_that_no_pixel_has_say_nothing(frame, options):
    def picture(text: bytes) -> bytes:
        steps = [*range(10, 34), *text.ljust(40, b"!")[:40]]  # in zigzag order
        return by_pillow(frame, qtables=[steps] * (1 if frame.ndim == 2 else 2), **options)

    coarse = [picture(text) for text in (b"\xff" * 40, b"\xfe" * 40)]
    if not np.array_equal(decoded(coarse[0]), decoded(coarse[1])):
        assert cleaned_jpeg(coarse[0]) != cleaned_jpeg(coarse[1])  # they are used
        return
    assert cleaned_jpeg(coarse[0]) == cleaned_jpeg(coarse[1])
    assert np.array_equal(decoded(cleaned_jpeg(coarse[0])), decoded(coarse[0]))


def test_tables_that_are_usual_stay():
    for quality in (1, 30, 49, 50, 75, 95, 100):
        picture = by_pillow(np.full((16, 16, 3), 99, np.uint8), quality=quality, subsampling=0)
        assert cleaned_jpeg(picture) == picture


@pytest.mark.parametrize("name", PICTURES)
def test_codes_of_small_and_of_large_pictures_are_noted_alike(name, monkeypatch):
    small = cleaned_jpeg(PICTURES[name])
    monkeypatch.setattr(jpeg_tables, "_SMALL_BYTES", 0)

    assert cleaned_jpeg(PICTURES[name]) == small
