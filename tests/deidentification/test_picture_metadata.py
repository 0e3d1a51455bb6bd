"""A camera's metadata is removed, and the picture itself does not change."""

import io

import numpy as np
import pytest
from PIL import Image, PngImagePlugin

from sagemaker_monai.deidentification.picture_metadata import cleaned, telling
from sagemaker_monai.errors import CallerError

PIXELS = np.random.default_rng(0).integers(0, 255, (24, 32, 3), dtype=np.uint8)
NAME, PLACE = "Jane Doe", (48.0, 8.0, 12.5)


def exif(orientation):
    tags = Image.Exif()
    tags[274], tags[315] = orientation, NAME
    tags[34853] = {1: "N", 2: PLACE}  # GPS
    return tags


def jpeg(orientation=1, **more):
    file = io.BytesIO()
    profile = b"profile" * 20
    Image.fromarray(PIXELS).save(file, "JPEG", exif=exif(orientation), comment=NAME, icc_profile=profile, **more)
    return file.getvalue()


def png(orientation=1):
    file, texts = io.BytesIO(), PngImagePlugin.PngInfo()
    texts.add_text("Author", NAME)
    Image.fromarray(PIXELS).save(file, "PNG", exif=exif(orientation), pnginfo=texts)
    return file.getvalue()


@pytest.mark.parametrize("make", [jpeg, png])
@pytest.mark.parametrize("orientation", [1, 3, 6])
def test_texts_place_and_profile_go_and_pixels_and_orientation_stay(make, orientation):
    content = make(orientation)

    new = cleaned(content)

    assert NAME.encode() in content
    assert NAME.encode() not in new
    before, after = Image.open(io.BytesIO(content)), Image.open(io.BytesIO(new))
    assert np.array_equal(np.asarray(before), np.asarray(after))
    assert dict(after.getexif()) == ({} if orientation == 1 else {274: orientation})
    assert not after.getexif().get_ifd(34853)
    assert "icc_profile" not in after.info


@pytest.mark.parametrize("make", [jpeg, png])
@pytest.mark.parametrize("orientation", [1, 6])
def test_what_is_clean_stays_to_the_byte(make, orientation):
    once = cleaned(make(orientation))

    assert cleaned(once) == once


@pytest.mark.parametrize("content", [b"", b"first", b"\xff\xd8", b"\xff\xd8\xff\xe1\x00", jpeg()[:300], png()[:-5],
                                     b"\x89PNG\r\n\x1a\n", b"\xff\xd8" + b"\xff" * 64])  # fmt: skip
def test_what_is_broken_is_refused(content):
    with pytest.raises(CallerError):
        cleaned(content)


@pytest.mark.parametrize("kind", ["TIFF", "WEBP"])
def test_owner_and_place_are_found_and_what_has_neither_is_left_alone(tmp_path, kind):
    told, plain = tmp_path / "told", tmp_path / "plain"
    Image.fromarray(PIXELS).save(told, kind, **({"tiffinfo": {315: NAME}} if kind == "TIFF" else {"exif": exif(1)}))
    # A WebP that was compressed with loss has room in its stream, and is never as it came.
    Image.fromarray(PIXELS).save(plain, kind, **({"lossless": True, "exact": True} if kind == "WEBP" else {}))

    assert telling(told)
    assert not telling(plain)
