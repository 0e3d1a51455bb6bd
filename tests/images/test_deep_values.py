"""Pictures of more than 8 bits keep all of them, whatever their format, layout and byte order."""

import imagecodecs
import numpy as np
import pytest
from PIL import Image

from sagemaker_monai.errors import PayloadTooLarge, UndecodableImage, UnsuitableImage
from sagemaker_monai.images import deep_values
from sagemaker_monai.images.pictures import count_bits, decode, decode_deep
from sagemaker_monai.images.sample import Sample
from tests.images.test_pictures import encode
from tests.support.deep_files import png16, tiff, transparent_colour
from tests.support.refusals import not_refused, wrongly_refused


def made(channels=1, dtype=np.uint16, seed=0, low=0, high=65_536):
    shape = (9, 14) if channels == 1 else (9, 14, channels)
    return np.random.default_rng(seed).integers(low, high, shape).astype(dtype)


def values_of(data):
    picture = decode_deep(Sample(data))
    return picture.values[..., 0] if picture.values.shape[2] == 1 else picture.values


@pytest.mark.parametrize("interlaced", [False, True])
@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_every_sixteen_bit_png_keeps_its_values(channels, interlaced):
    values = made(channels)
    if channels in (2, 4):
        values[..., -1] = 65_535
    data = png16(values, interlaced=interlaced)

    assert np.array_equal(imagecodecs.png_decode(data), values)  # another decoder reads the same file
    assert np.array_equal(
        values_of(data), values[..., : channels - 1] if channels == 4 else values[..., 0] if channels == 2 else values
    )
    assert decode_deep(Sample(data)).bits == 16


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_a_png_of_another_encoder_keeps_its_values(channels):
    values = made(channels)
    if channels == 4:
        values[..., 3] = 65_535
    data = imagecodecs.png_encode(values, level=9)

    assert np.array_equal(values_of(data), values[..., :3] if channels == 4 else values)


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("is_deflated", [False, True])
@pytest.mark.parametrize(
    "values",
    [
        made(),
        made(3),
        made(dtype=np.int16, low=-32_768, high=32_768),
        made(dtype=np.uint32, high=1 << 32),
        made(dtype=np.int32, low=-(1 << 31), high=1 << 31),
        made(dtype=np.float32, low=-1_000, high=3_000) / 7,
        made(dtype=np.float64, low=-1_000, high=3_000),
    ],
    ids=lambda values: f"{values.dtype}x{1 if values.ndim == 2 else 3}",
)
def test_every_deep_tiff_keeps_its_values(values, order, is_deflated):
    photometric = 2 if values.ndim == 3 else 1
    try:
        found = values_of(tiff(values, order=order, is_deflated=is_deflated, photometric=photometric))
    except UndecodableImage:
        pytest.skip("Pillow does not read this layout, and says so")

    assert np.array_equal(found, values.astype(found.dtype))
    assert np.array_equal(
        found.astype(np.float64), values.astype(np.float32).astype(np.float64) if values.dtype.kind == "f" else values
    )


def test_twelve_bits_without_gaps_are_their_values():
    values = made(high=4_096)
    picture = decode_deep(Sample(tiff(values, bits=12)))

    assert np.array_equal(picture.values[..., 0], values)
    assert picture.bits == 12


@pytest.mark.parametrize("compression", ["tiff_lzw", "packbits", "tiff_adobe_deflate"])
def test_compressed_grey_keeps_its_values(compression):
    assert np.array_equal(values_of(encode(Image.fromarray(made()), "TIFF", compression=compression)), made())


def test_white_is_zero_is_said_and_leaves_the_values():
    picture = decode_deep(Sample(tiff(made(), photometric=0)))

    assert picture.is_white_zero
    assert np.array_equal(picture.values[..., 0], made())
    assert not decode_deep(Sample(tiff(made()))).is_white_zero


def test_what_is_transparent_is_missing():
    grey, colour = made(), made(3)
    for values, transparent in ((grey, (int(grey[2, 3]),)), (colour, tuple(int(v) for v in colour[2, 3]))):
        picture = decode_deep(Sample(png16(values, extra=transparent_colour(*transparent))))
        planes = values.reshape(9, 14, -1)
        assert np.array_equal(picture.missing, (planes == np.array(transparent)).all(axis=2))
        assert picture.missing[2, 3]
    with_alpha = made(4)
    with_alpha[..., 3] = np.where(with_alpha[..., 0] > 30_000, 65_535, 0)
    assert np.array_equal(decode_deep(Sample(png16(with_alpha))).missing, with_alpha[..., 3] == 0)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_every_exif_orientation_gives_the_upright_values(orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    shallow = np.arange(126, dtype=np.uint8).reshape(9, 14)
    deep = encode(Image.fromarray(shallow.astype(np.uint16) * 257), "PNG", exif=exif)
    expected = decode(Sample(encode(Image.fromarray(shallow), "PNG", exif=exif)), channels=1, min_size=None)

    assert np.array_equal(values_of(deep), np.asarray(expected).astype(np.uint16) * 257)


@pytest.mark.parametrize("orientation", [1, 3, 6])
def test_a_turned_tiff_gives_the_upright_values(orientation):
    turned = {1: made(), 3: np.rot90(made(), 2), 6: np.rot90(made(), 3)}[orientation]

    assert np.array_equal(values_of(tiff(made(), tag274=orientation)), turned)


@pytest.mark.parametrize("pillow_format", ["JPEG", "PNG", "BMP", "TIFF", "WEBP"])
def test_a_picture_of_eight_bits_is_none(pillow_format, tmp_path):
    data = encode(Image.fromarray(made(3, np.uint8, high=256)), pillow_format)
    (tmp_path / "x").write_bytes(data)

    assert decode_deep(Sample(data)) is None
    assert count_bits(tmp_path / "x") == 8


def test_bits_are_told_by_the_header(tmp_path):
    for bits, data in ((16, png16(made())), (12, tiff(made(high=4_096), bits=12)), (32, tiff(made(dtype=np.float32)))):
        (tmp_path / "x").write_bytes(data)
        assert count_bits(tmp_path / "x") == bits
    assert count_bits(tmp_path / "none") == 8


def test_half_transparent_truncated_and_other_values_than_numbers_are_refused():
    values = made(dtype=np.float32)
    values[3, 3] = np.nan
    unsuitable = [(png16(made(4)), "half-transparent"), (tiff(values), "finite")]
    truncated = [png16(made())[:90], tiff(made(3), photometric=2)[:200]]

    assert wrongly_refused(unsuitable, lambda data: decode_deep(Sample(data)), UnsuitableImage) == []
    assert not_refused(truncated, lambda data: decode_deep(Sample(data)), UndecodableImage) == []


def test_colours_in_planes_are_never_read_as_something_else():
    with pytest.raises((UnsuitableImage, UndecodableImage)):
        decode_deep(Sample(tiff(made(3), photometric=2, is_planar=True)))


def test_too_many_values_are_refused(monkeypatch):
    monkeypatch.setattr(deep_values, "MAX_DEEP_VALUES", 200)
    with pytest.raises(PayloadTooLarge, match="200 values"):
        decode_deep(Sample(png16(made(3))))


@pytest.mark.parametrize("data", [png16(made()), tiff(made()), png16(made(3)), made().T])
def test_a_model_of_eight_bits_refuses_more(data):
    with pytest.raises(UnsuitableImage, match=r"16 bits, and this model was trained on pictures of 8"):
        decode(Sample(data), channels=1, min_size=None, deep="refuse")


@pytest.mark.parametrize("channels", [1, 3])
def test_eight_bits_spread_over_sixteen_are_what_they_were(channels):
    shallow = made(channels, np.uint8, high=256)
    deep = decode(Sample(png16(shallow.astype(np.uint16) * 257)), channels=channels, min_size=None, deep="refuse")

    assert np.array_equal(np.asarray(deep), shallow)
