import io
import struct
import warnings
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps

from sagemaker_monai.errors import CallerError, PayloadTooLarge, UndecodableImage, UnsuitableImage
from sagemaker_monai.images import pictures
from sagemaker_monai.images.pictures import MAX_PIXELS, MAX_SCANS, PICTURE_FORMATS, decode
from sagemaker_monai.images.sample import Sample
from tests.support.deep_files import png16, png_chunk, tiff, transparent_colour
from tests.support.refusals import allocating_less_than, not_refused, wrongly_refused

LOSSLESS = {"PNG": {}, "BMP": {}, "TIFF": {}, "WEBP": {"lossless": True}}


def colours(width=24, height=16, channels=3, seed=0):
    shape = (height, width) if channels == 1 else (height, width, channels)
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def encode(image, pillow_format, **options):
    buffer = io.BytesIO()
    image.save(buffer, pillow_format, **options)
    return buffer.getvalue()


def decoded(data, channels=3, **options):
    return np.asarray(decode(Sample(data), channels=channels, min_size=None, **options))


def png_of(width, height, content):
    """An 8-bit RGB PNG that claims a size, whatever its content."""
    header = png_chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + png_chunk(b"IDAT", content) + png_chunk(b"IEND", b"")


@pytest.mark.parametrize("pillow_format", LOSSLESS)
def test_lossless_files_give_back_their_pixels(pillow_format):
    data = encode(Image.fromarray(colours()), pillow_format, **LOSSLESS[pillow_format])

    assert np.array_equal(decoded(data), colours())


def test_grey_becomes_three_equal_channels_and_colour_becomes_luma():
    grey, colour = colours(channels=1), colours()

    assert np.array_equal(decoded(encode(Image.fromarray(grey), "PNG")), np.repeat(grey[..., None], 3, 2))
    expected = colour @ np.array([0.299, 0.587, 0.114])
    assert np.abs(decoded(encode(Image.fromarray(colour), "PNG"), channels=1) - expected).max() <= 0.51


@pytest.mark.parametrize("channels", [1, 3])
def test_a_palette_gives_what_its_colours_give(channels):
    image = Image.fromarray(colours()).quantize(16)

    assert np.array_equal(
        decoded(encode(image, "PNG"), channels), decoded(encode(image.convert("RGB"), "PNG"), channels)
    )


def test_single_bits_are_black_and_white():
    bits = colours(channels=1) > 127

    assert np.array_equal(decoded(encode(Image.fromarray(bits), "PNG"), 1), bits * np.uint8(255))


@pytest.mark.parametrize("mode", ["LA", "RGBA"])
@pytest.mark.parametrize("pillow_format", ["PNG", "TIFF"])
def test_what_is_transparent_shows_white(mode, pillow_format):
    values = colours(channels=4)[..., : 2 if mode == "LA" else 4].copy()
    values[:8, :, -1] = 255
    values[12:, :, -1] = 0
    result = decoded(encode(Image.fromarray(values, mode), pillow_format)).astype(float)

    alpha = values[..., -1:] / 255.0
    assert np.abs(result - (values[..., :-1] * alpha + 255 * (1 - alpha))).max() <= 1
    assert np.array_equal(result[:8], np.broadcast_to(values[:8, :, :-1], (8, 24, 3)))


def test_a_transparent_colour_of_a_palette_shows_white():
    image = Image.new("P", (4, 2), 1)
    image.putpalette([10, 20, 30, 40, 50, 60])
    image.putpixel((0, 0), 0)

    result = decoded(encode(image, "PNG", transparency=bytes([0, 255])))

    assert result[0, 0].tolist() == [255, 255, 255]
    assert result[1, 3].tolist() == [40, 50, 60]


@pytest.mark.parametrize("mode", ["1", "L", "RGB"])
def test_a_transparent_colour_without_a_palette_shows_white(mode):
    image = Image.new(mode, (3, 1), "white" if mode == "1" else "black")
    image.putpixel((0, 0), {"1": 0, "L": 7, "RGB": (7, 8, 9)}[mode])

    result = decoded(encode(image, "PNG", transparency={"1": 0, "L": 7, "RGB": (7, 8, 9)}[mode]))

    assert result[0, 0].tolist() == [255, 255, 255]
    assert result[0, 1].tolist() == [255 if mode == "1" else 0] * 3


@pytest.mark.parametrize("samples", [1, 3, 4])
def test_sixteen_bit_png_keeps_its_high_byte(samples):
    values = np.random.default_rng(1).integers(0, 65536, (6, 5, samples)).astype(np.uint16)
    if samples == 4:
        values[..., 3] = 65535
    expected = np.broadcast_to((values >> 8)[..., :3], (6, 5, 3))

    assert np.array_equal(decoded(png16(values)), expected)


def test_the_transparent_value_of_a_sixteen_bit_png_shows_white():
    values = np.array([[[1000], [2000]]], np.uint16)

    result = decoded(png16(values, extra=transparent_colour(2000)), 1)

    assert result.tolist() == [[1000 >> 8, 255]]


@pytest.mark.parametrize("order", ["<", ">"])
def test_sixteen_bit_grey_tiff_keeps_its_high_byte(order):
    values = np.random.default_rng(1).integers(0, 65536, (6, 5)).astype(np.uint16)

    assert np.array_equal(decoded(tiff(values, order=order), 1), values >> 8)


def test_a_deep_tiff_whose_white_is_zero_is_inverted():
    values = np.array([[0, 65535, 256]], np.uint16)

    assert decoded(tiff(values, photometric=0), 1).tolist() == [[255, 0, 254]]


def test_a_cmyk_jpeg_is_not_inverted():
    data = encode(Image.new("CMYK", (16, 16), (0, 255, 255, 0)), "JPEG", quality=95)  # red ink

    assert np.abs(decoded(data).astype(int) - [255, 0, 0]).max() <= 3


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("pillow_format", ["PNG", "TIFF", "WEBP"])
def test_every_exif_orientation_gives_the_upright_picture(orientation, pillow_format):
    upright = Image.fromarray(colours())
    # What a camera stores so that the tag turns it upright: the inverse, written out by the EXIF standard's table.
    stored = {
        1: lambda a: a,
        2: lambda a: a[:, ::-1],
        3: lambda a: a[::-1, ::-1],
        4: lambda a: a[::-1],
        5: lambda a: a.transpose(1, 0, 2),
        6: lambda a: a.transpose(1, 0, 2)[::-1],
        7: lambda a: a.transpose(1, 0, 2)[::-1, ::-1],
        8: lambda a: a.transpose(1, 0, 2)[:, ::-1],
    }[orientation](np.asarray(upright))
    exif = Image.Exif()
    exif[0x0112] = orientation
    image = Image.fromarray(np.ascontiguousarray(stored))

    data = encode(image, pillow_format, exif=exif, **LOSSLESS[pillow_format])

    assert np.array_equal(decoded(data), np.asarray(upright))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_reduced_jpeg_is_turned_and_still_large_enough(orientation):
    smooth = ImageOps.autocontrast(Image.fromarray(colours(6, 4)).resize((600, 400), Image.Resampling.BICUBIC))
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encode(smooth, "JPEG", quality=95, exif=exif)
    size = (400, 600) if orientation >= 5 else (600, 400)
    full = decode(Sample(data), channels=3, min_size=None)

    reduced = decode(Sample(data), channels=3, min_size=(size[0] // 4, size[1] // 4))

    assert full.size == size
    assert reduced.size == (size[0] // 4, size[1] // 4)
    box = full.resize(reduced.size, Image.Resampling.BOX)
    assert np.abs(np.asarray(reduced).astype(int) - np.asarray(box)).max() <= 12


@given(
    width=st.integers(1, 300),
    height=st.integers(1, 300),
    size=st.tuples(st.integers(1, 90), st.integers(1, 90)),
    orientation=st.sampled_from([1, 6]),
)
@settings(max_examples=60)
def test_no_reduction_loses_pixels_that_the_resize_needs(width, height, size, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encode(Image.new("RGB", (width, height), "red"), "JPEG", exif=exif)
    full = (height, width) if orientation == 6 else (width, height)

    covering = decode(Sample(data), channels=3, min_size=size).size
    inside = decode(Sample(data), channels=3, min_size=size, is_fitted_inside=True).size

    assert all(got >= min(wanted, had) for got, wanted, had in zip(covering, size, full, strict=True))
    scale = min(size[0] / full[0], size[1] / full[1])
    assert all(got >= min(round(had * scale), had) for got, had in zip(inside, full, strict=True))


def test_fitting_inside_reduces_further_than_covering():
    data = encode(Image.new("RGB", (800, 100)), "JPEG")

    assert decode(Sample(data), channels=3, min_size=(100, 100)).size == (800, 100)
    assert decode(Sample(data), channels=3, min_size=(100, 100), is_fitted_inside=True).size == (100, 13)


def test_the_first_picture_of_an_mpo_counts():
    first, second = Image.new("RGB", (16, 16), "red"), Image.new("RGB", (16, 16), "blue")
    data = encode(first, "MPO", save_all=True, append_images=[second])
    with Image.open(io.BytesIO(data)) as image:
        assert image.format == "MPO"

    [red, _, blue] = np.asarray(decode(Sample(data, ("JPEG",)), channels=3, min_size=(4, 4)))[0, 0]
    assert red > 250
    assert blue < 5


def test_tiffs_of_unknown_range_unusual_compressions_and_several_frames_are_refused():
    frames = [Image.fromarray(colours(seed=seed)) for seed in range(3)]
    several = [encode(frames[0], name, save_all=True, append_images=frames[1:]) for name in ("PNG", "TIFF", "WEBP")]
    rows = [(tiff(np.ones((4, 4), dtype)), "8 or 16 bit") for dtype in ("<f4", "<i4", "<i2")]
    rows += [(data, "several frames") for data in several]
    rows += [(encode(Image.fromarray(colours(channels=1) > 9), "TIFF", compression="group4"), "compression")]

    assert wrongly_refused(rows, decoded, UnsuitableImage) == []


@pytest.mark.parametrize("compression", [None, "packbits", "tiff_lzw", "tiff_adobe_deflate"])
def test_usual_tiff_compressions_are_read(compression):
    assert np.array_equal(decoded(encode(Image.fromarray(colours()), "TIFF", compression=compression)), colours())


@pytest.mark.parametrize("pillow_format", ["JPEG", *LOSSLESS])
def test_the_declared_format_is_binding(pillow_format):
    data = encode(Image.fromarray(colours()), pillow_format)
    others = tuple(name for name in PICTURE_FORMATS if name != pillow_format)

    assert decode(Sample(data, (pillow_format,)), channels=3, min_size=None).size == (24, 16)
    with pytest.raises(UndecodableImage, match="expected type"):
        decode(Sample(data, others), channels=3, min_size=None)


def test_other_formats_truncated_files_and_other_bytes_are_undecodable():
    others = {name: encode(Image.fromarray(colours()), name) for name in ("GIF", "PPM", "PCX", "TGA", "PDF", "EPS")}
    sound = {name: encode(Image.fromarray(colours(64, 64)), name) for name in ("JPEG", *LOSSLESS)}
    truncated = {name: data[: len(data) // 2] for name, data in sound.items()}
    nothing = [b"", b"\0" * 100, b"hello", b"\xff\xd8\xff", b"BM", b"II*\0", b"RIFF", png_of(0, 5, zlib.compress(b""))]
    # An image data chunk of another name must not become a black picture.
    without_data = [encode(Image.new("L", (5, 4), 200), "PNG").replace(b"IDAT", b"iDAT")]

    for cases in (others, truncated, nothing, without_data):
        assert not_refused(cases, decoded, UndecodableImage) == []


@pytest.mark.parametrize("size", [(9_000, 9_000), (30_000, 30_000), (2**31 - 1, 2**31 - 1)])
def test_a_bomb_is_refused_by_its_header(size):
    data = png_of(*size, zlib.compress(bytes(1000)))
    with allocating_less_than(10_000_000), pytest.raises(PayloadTooLarge, match=str(MAX_PIXELS)):
        decoded(data)


def test_a_jpeg_whose_scans_take_longer_than_its_pixels_is_refused():
    data = encode(Image.new("L", (64, 64)), "JPEG", progressive=True)
    last_scan = data[data.rindex(b"\xff\xda") : -2]
    usual = data.count(b"\xff\xda")
    most = data[:-2] + last_scan * (MAX_SCANS - usual) + data[-2:]

    assert decoded(most).shape == (64, 64, 3)
    for min_size in (None, (8, 8)):
        with pytest.raises(PayloadTooLarge, match="scans"):
            decode(Sample(most[:-2] + last_scan + most[-2:]), channels=3, min_size=min_size)


def test_pixels_are_counted_from_the_header_alone():
    data = encode(Image.fromarray(colours(24, 16)), "PNG")

    assert pictures.measure(data[: len(data) // 2])[0] == 24 * 16
    assert pictures.measure(b"not a picture") == (0, 0)
    assert pictures.measure(png_of(30_000, 30_000, b""))[0] > MAX_PIXELS


def test_pillows_warnings_stay_inside():
    exif = b"Exif\0\0II*\0\x08\0\0\0\x05\0" + struct.pack("<HHII", 0x010F, 2, 9999, 9999) + b"\0"
    data = encode(Image.fromarray(colours()), "JPEG", exif=exif)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        with Image.open(io.BytesIO(data)) as image:
            image.getexif()
    assert caught  # Pillow does warn of it

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        assert decoded(data).shape == (16, 24, 3)
    assert caught == []


def test_exif_that_cannot_be_read_leaves_the_picture_as_stored():
    data = encode(Image.fromarray(colours()), "PNG", exif=b"Exif\0\0garbage")

    assert np.array_equal(decoded(data), colours())


def test_a_file_and_its_bytes_are_one(tmp_path):
    path = tmp_path / "picture.jpg"
    path.write_bytes(encode(Image.fromarray(colours(300, 200)), "JPEG"))

    from_file = decode(Sample(path), channels=3, min_size=(50, 50))

    assert from_file.tobytes() == decode(Sample(path.read_bytes()), channels=3, min_size=(50, 50)).tobytes()


def test_a_file_that_cannot_be_read_is_undecodable_and_its_path_stays_private(tmp_path):
    with pytest.raises(UndecodableImage, match="cannot be read") as caught:
        decode(Sample(tmp_path / "patient.jpg"), channels=3, min_size=None)
    assert "patient" not in str(caught.value)


def test_a_huge_file_is_not_read(tmp_path, monkeypatch):
    monkeypatch.setattr(pictures, "MAX_FILE_BYTES", 10)
    path = tmp_path / "picture.png"
    path.write_bytes(bytes(11))

    with pytest.raises(PayloadTooLarge):
        decode(Sample(path), channels=3, min_size=None)


@pytest.mark.parametrize("dtype", ["u1", "<i8", ">i2", "<u4", "<f4", ">f8", "<f2"])
def test_whole_numbers_of_every_type_are_the_same_picture(dtype):
    values = colours().transpose(2, 1, 0)  # (C, W, H)

    result = decode(Sample(values.astype(dtype), ()), channels=3, min_size=None)

    assert np.array_equal(np.asarray(result), colours())


def test_raw_values_follow_the_pictures_of_their_type():
    deep = np.array([[[0, 255, 256, 65535]]], np.uint16)

    assert np.asarray(decode(Sample(deep), channels=1, min_size=None)).ravel().tolist() == [0, 0, 1, 255]
    assert np.asarray(decode(Sample(deep.astype(">u2")), channels=1, min_size=None)).ravel().tolist() == [0, 0, 1, 255]
    bits = np.array([[True, False]])  # (W, H): one pixel above another
    assert np.asarray(decode(Sample(bits), channels=1, min_size=None)).tolist() == [[255], [0]]


def test_raw_values_that_are_no_picture_are_unsuitable():
    cases = [
        np.full((1, 4, 4), 0.5),
        np.full((1, 4, 4), np.nan),
        np.full((1, 4, 4), np.inf),
        np.full((1, 4, 4), -1),
        np.full((1, 4, 4), 256),
        np.full((1, 4, 4), 255.5),
        np.full((1, 4, 4), 1j),
        np.full((1, 4, 4), "a"),
        np.full((1, 4, 4), None),
        np.zeros((2, 4, 4)),
        np.zeros((4, 4, 3)),
        np.zeros((1, 1, 4, 4)),
        np.zeros(4),
        np.zeros((1, 0, 4)),
    ]

    assert not_refused(cases, decoded, UnsuitableImage) == []


def test_too_many_raw_pixels_are_refused():
    with pytest.raises(PayloadTooLarge):
        decode(Sample(np.broadcast_to(np.uint8(0), (1, 8_001, 8_000))), channels=1, min_size=None)


@st.composite
def mutated_files(draw):
    pillow_format = draw(st.sampled_from(["JPEG", *LOSSLESS]))
    mode = draw(st.sampled_from(["RGB", "L"] if pillow_format in ("JPEG", "BMP", "WEBP") else ["RGB", "RGBA", "P"]))
    options = {"compression": "tiff_lzw"} if pillow_format == "TIFF" and draw(st.booleans()) else {}
    data = bytearray(encode(Image.fromarray(colours()).convert(mode), pillow_format, **options))
    for _ in range(draw(st.integers(1, 6))):
        start = draw(st.integers(0, min(len(data) - 1, draw(st.sampled_from([64, 10**6])))))
        data[start : start + draw(st.integers(0, 3))] = draw(st.binary(max_size=4))
        if not data:
            break
    return bytes(data)


@pytest.mark.long
@given(data=st.one_of(mutated_files(), st.binary(max_size=200)))
@settings(max_examples=400)
def test_any_bytes_give_a_picture_or_a_callers_error(data):
    try:
        outcome = decode(Sample(data), channels=3, min_size=(8, 8)).mode
    except CallerError as error:
        outcome = str(error)

    assert outcome == "RGB" or 10 < len(outcome) < 300
