"""Masks in pictures, drawn with Pillow and by hand."""

import io
import struct
import zipfile
import zlib

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from sagemaker_monai.budget import Limits, spending
from sagemaker_monai.errors import CallerError, PayloadTooLarge, UndecodableImage, UnsuitableImage
from sagemaker_monai.images.read import read_frames_of
from sagemaker_monai.images.sample import Sample
from sagemaker_monai.masks.mask import Grid
from sagemaker_monai.masks.read_mask import read_mask
from sagemaker_monai.messages.remarks import REMARKS

GRID = Grid((5, 4))  # width, height
ROWS = np.array([[0, 1, 2, 3, 1], [0, 0, 2, 2, 1], [3, 3, 0, 1, 1], [0, 0, 0, 0, 3]], np.uint8)
LABELS = ROWS.T
RED, GREEN, BLUE = (255, 0, 0), (0, 255, 0), (0, 0, 255)
PALETTE = np.array([(0, 0, 0), RED, GREEN, BLUE], np.uint8)


def saved(path, image, **options):
    image.save(path, **options)
    return path


def png(path, rows, colour_type, depth, *chunks):
    """A PNG written by hand, from rows of packed bytes."""

    def chunk(name, body):
        return struct.pack(">L", len(body)) + name + body + struct.pack(">L", zlib.crc32(name + body))

    header = struct.pack(">LLBBBBB", 5, len(rows), depth, colour_type, 0, 0, 0)
    data = zlib.compress(b"".join(b"\0" + row for row in rows))
    parts = [chunk(b"IHDR", header), *(chunk(*each) for each in chunks), chunk(b"IDAT", data), chunk(b"IEND", b"")]
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(parts))
    return path


def packed(depth):
    bits = "".join if depth == 1 else None
    assert bits is None
    rows = []
    for row in ROWS:
        text = "".join(f"{value:0{depth}b}" for value in row)
        text += "0" * (-len(text) % 8)
        rows.append(bytes(int(text[place : place + 8], 2) for place in range(0, len(text), 8)))
    return rows


@pytest.mark.parametrize("suffix", [".png", ".bmp", ".tif"])
def test_a_grey_picture_has_the_values_themselves(tmp_path, suffix):
    mask = read_mask(saved(tmp_path / f"a{suffix}", Image.fromarray(ROWS)), GRID)

    assert np.array_equal(mask.values, LABELS)
    assert mask.values.dtype == np.uint16
    assert (mask.names, mask.findings) == ({}, ())


@pytest.mark.parametrize("depth", [2, 4])
def test_grey_of_few_bits_is_not_spread(tmp_path, depth):
    path = png(tmp_path / "a.png", packed(depth), 0, depth)
    assert np.asarray(Image.open(path)).max() > 3  # as Pillow shows it

    assert np.array_equal(read_mask(path, GRID).values, LABELS)


def test_sixteen_bits_are_kept(tmp_path):
    values = ROWS.astype(np.uint16) * 20_000
    path = saved(tmp_path / "a.png", Image.fromarray(values))

    assert np.array_equal(read_mask(path, GRID).values, values.T)


@pytest.mark.parametrize(("kind", "white"), [(np.uint8, 255), (np.uint16, 65_535)])
def test_white_is_one_where_there_is_only_black_and_white(tmp_path, kind, white):
    rows = np.where(ROWS > 1, white, 0).astype(kind)

    mask = read_mask(saved(tmp_path / "a.png", Image.fromarray(rows)), GRID)

    assert np.array_equal(mask.values, LABELS > 1)
    assert mask.findings == ("mask_white_is_one",)


def test_white_beside_other_values_is_its_number(tmp_path):
    rows = np.where(ROWS == 3, 255, ROWS).astype(np.uint8)

    mask = read_mask(saved(tmp_path / "a.png", Image.fromarray(rows)), GRID)

    assert np.array_equal(mask.values, rows.T)
    assert mask.findings == ()


def test_an_empty_and_a_full_mask_are_none_and_all(tmp_path):
    assert not read_mask(saved(tmp_path / "a.png", Image.new("L", (5, 4), 0)), GRID).values.any()
    assert (read_mask(saved(tmp_path / "b.png", Image.new("L", (5, 4), 255)), GRID).values == 1).all()


@pytest.mark.parametrize("suffix", [".png", ".bmp", ".tif"])
def test_single_bits_are_zero_and_one(tmp_path, suffix):
    mask = read_mask(saved(tmp_path / f"a{suffix}", Image.fromarray(ROWS > 1)), GRID)

    assert np.array_equal(mask.values, LABELS > 1)
    assert mask.findings == ()


@pytest.mark.parametrize("depth", [2, 4, 8])
def test_a_palette_gives_the_index_and_not_the_colour(tmp_path, depth):
    rows = packed(depth)
    path = png(tmp_path / "a.png", rows, 3, depth, (b"PLTE", PALETTE.tobytes()), (b"tRNS", b"\0\xff\xff\xff"))

    mask = read_mask(path, GRID)

    assert np.array_equal(mask.values, LABELS)
    assert mask.findings == ()


@pytest.mark.parametrize("palette", [[255, 200, 100, 0], [0, 200, 100, 255], [10, 20, 30, 40]])
def test_a_palette_of_greys_in_another_order_is_refused(tmp_path, palette):
    colours = np.repeat(np.array(palette, np.uint8), 3).tobytes()

    with pytest.raises(UnsuitableImage, match="another order"):
        read_mask(png(tmp_path / "a.png", packed(8), 3, 8, (b"PLTE", colours)), GRID)


def test_a_palette_with_black_elsewhere_is_said(tmp_path):
    colours = PALETTE[[1, 0, 2, 3]].tobytes()

    mask = read_mask(png(tmp_path / "a.png", packed(8), 3, 8, (b"PLTE", colours)), GRID)

    assert np.array_equal(mask.values, LABELS)
    assert mask.findings == ("mask_palette_order",)


def test_a_palette_that_contradicts_the_table_of_colours_is_refused(tmp_path):
    path = png(tmp_path / "a.png", packed(8), 3, 8, (b"PLTE", PALETTE.tobytes()))

    assert np.array_equal(read_mask(path, GRID, colours={RED: 1, GREEN: 2, BLUE: 3}).values, LABELS)
    with pytest.raises(UnsuitableImage, match=r"index 2 for the colour \(0, 255, 0\), .* is 7"):
        read_mask(path, GRID, colours={RED: 1, GREEN: 7, BLUE: 3})


@pytest.mark.parametrize("mode", ["RGB", "RGBA"])
def test_colours_have_the_values_of_a_table(tmp_path, mode):
    path = saved(tmp_path / "a.png", Image.fromarray(PALETTE[ROWS]).convert(mode))

    mask = read_mask(path, GRID, colours={RED: 7, GREEN: 300, BLUE: 2})

    assert np.array_equal(mask.values, np.array([0, 7, 300, 2])[LABELS])


def test_colours_without_a_value_are_refused_with_the_colours(tmp_path):
    path = saved(tmp_path / "a.png", Image.fromarray(PALETTE[ROWS]))

    with pytest.raises(UnsuitableImage, match=r"no table gives a value: \(0, 0, 255\), \(0, 255, 0\), \(255, 0, 0\)"):
        read_mask(path, GRID)
    with pytest.raises(UnsuitableImage, match=r"does not have: \(0, 255, 0\);"):
        read_mask(path, GRID, colours={RED: 7, BLUE: 2})


def test_a_photograph_is_no_mask(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (40, 50, 3)).astype(np.uint8)

    with pytest.raises(UnsuitableImage, match="more than 256 colours"):
        read_mask(saved(tmp_path / "a.png", Image.fromarray(pixels)), Grid((50, 40)))


def test_grey_as_rgb_is_grey(tmp_path):
    path = saved(tmp_path / "a.png", Image.fromarray(ROWS).convert("RGB"))

    assert np.array_equal(read_mask(path, GRID).values, LABELS)


def test_with_a_table_of_colours_grey_is_a_colour_too(tmp_path):
    """A program that saves space writes a mask of black and white as grey."""
    white = saved(tmp_path / "a.png", Image.fromarray(ROWS > 1))
    table = {RED: 1, (255, 255, 255): 4}

    assert np.array_equal(read_mask(white, GRID, colours=table).values, np.where(LABELS > 1, 4, 0))
    with pytest.raises(UnsuitableImage, match=r"does not have: \(1, 1, 1\), "):
        read_mask(saved(tmp_path / "b.png", Image.fromarray(ROWS)), GRID, colours=table)


@pytest.mark.parametrize("mode", ["LA", "RGBA"])
def test_transparency_says_nothing_where_it_is_the_same_everywhere_and_is_refused_elsewhere(tmp_path, mode):
    image = Image.fromarray(ROWS).convert(mode)
    assert np.array_equal(read_mask(saved(tmp_path / "a.png", image), GRID).values, LABELS)

    image.putalpha(Image.fromarray(np.where(ROWS > 1, 255, 0).astype(np.uint8)))
    with pytest.raises(UnsuitableImage, match="transparent"):
        read_mask(saved(tmp_path / "b.png", image), GRID)


@pytest.mark.parametrize(
    ("name", "options"),
    [("a.jpg", {}), ("a.webp", {"quality": 90}), ("a.tif", {"compression": "jpeg"})],
)
def test_lossy_files_are_refused(tmp_path, name, options):
    path = saved(tmp_path / name, Image.fromarray(np.kron(ROWS, np.ones((8, 8), np.uint8)) * 80), **options)

    with pytest.raises(UnsuitableImage, match="lossy"):
        read_mask(path, Grid((40, 32)))


def test_lossless_webp_is_read(tmp_path):
    path = saved(tmp_path / "a.webp", Image.fromarray(PALETTE[ROWS]), lossless=True)

    assert np.array_equal(read_mask(path, GRID, colours={RED: 1, GREEN: 2, BLUE: 3}).values, LABELS)


@pytest.mark.parametrize("mode", ["1", "L"])
def test_a_tiff_in_which_white_is_zero_is_refused(tmp_path, mode):
    path = saved(tmp_path / "a.tif", Image.fromarray(ROWS * 80).convert(mode), tiffinfo={262: 0})

    with pytest.raises(UnsuitableImage, match="white is zero"):
        read_mask(path, GRID)


@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_a_mask_that_asks_to_be_turned_is_refused(tmp_path, suffix):
    exif = Image.Exif()
    exif[0x0112] = 3

    with pytest.raises(UnsuitableImage, match="EXIF"):
        read_mask(saved(tmp_path / f"a{suffix}", Image.fromarray(ROWS), exif=exif), GRID)


def test_a_mask_lies_on_the_upright_image(tmp_path):
    """A photograph that EXIF turns by a quarter has the size of a mask that was drawn on what people see."""
    exif = Image.Exif()
    exif[0x0112] = 6
    photograph = saved(tmp_path / "a.jpg", Image.new("RGB", (4, 5)), exif=exif)
    [frame] = read_frames_of(Sample(photograph))

    mask = read_mask(saved(tmp_path / "a.png", Image.fromarray(ROWS)), Grid.of(frame))

    assert np.array_equal(mask.values, LABELS)
    with pytest.raises(UnsuitableImage, match="another order"):
        read_mask(saved(tmp_path / "b.png", Image.fromarray(LABELS)), Grid.of(frame))


def test_a_mask_of_many_values_is_said(tmp_path):
    ramp = np.arange(240, dtype=np.uint8).reshape(12, 20)

    assert read_mask(saved(tmp_path / "a.png", Image.fromarray(ramp)), Grid((20, 12))).findings == ("mask_many_values",)


def test_floating_point_of_a_tiff_must_be_whole(tmp_path):
    path = saved(tmp_path / "a.tif", Image.fromarray(ROWS.astype(np.float32)))
    assert np.array_equal(read_mask(path, GRID).values, LABELS)

    with pytest.raises(UnsuitableImage, match="not whole"):
        read_mask(saved(tmp_path / "b.tif", Image.fromarray(ROWS * np.float32(0.3))), GRID)


def test_real_masks_lie_on_their_photographs(shared_data, tmp_path):
    folder = shared_data / "ham10000"
    with (
        zipfile.ZipFile(folder / "HAM10000_segmentations_lesion_tschandl.zip") as masks,
        zipfile.ZipFile(folder / "HAM10000_images_part_1.zip") as images,
    ):
        names = sorted(name for name in images.namelist() if name.endswith(".jpg"))[:2]
        for name in names:
            stem = name.rpartition("/")[2].removesuffix(".jpg")
            [of_mask] = [each for each in masks.namelist() if f"/{stem}_" in each and "MACOSX" not in each]
            (tmp_path / "a.png").write_bytes(masks.read(of_mask))
            [frame] = read_frames_of(Sample(images.read(name)))

            mask = read_mask(tmp_path / "a.png", Grid.of(frame))

            expected = np.asarray(Image.open(io.BytesIO(masks.read(of_mask))).convert("L")).T > 127
            assert np.array_equal(mask.values, expected)
            assert 0.01 < mask.values.mean() < 0.99


def test_a_broken_picture_is_refused_and_a_large_one_by_the_budget(tmp_path):
    whole = saved(tmp_path / "a.png", Image.new("L", (4_000, 4_000))).read_bytes()
    (tmp_path / "b.png").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(UndecodableImage):
        read_mask(tmp_path / "b.png", Grid((4_000, 4_000)))

    budget = Limits(memory_bytes=72 << 20).budget(len(whole))
    with spending(budget), pytest.raises(PayloadTooLarge):
        read_mask(tmp_path / "a.png", Grid((4_000, 4_000)))


@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_changed_byte_of_a_header_is_noticed(tmp_path, data):
    whole = png(tmp_path / "a.png", packed(8), 3, 8, (b"PLTE", PALETTE.tobytes())).read_bytes()
    content = bytearray(whole)
    content[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    (tmp_path / "b.png").write_bytes(content)

    try:
        mask = read_mask(tmp_path / "b.png", GRID)
    except CallerError:
        return

    assert np.array_equal(mask.values, LABELS)


def test_every_finding_of_pictures_has_a_sentence():
    assert all("{n}" in REMARKS[code][2] for code in ("mask_many_values", "mask_palette_order", "mask_white_is_one"))
