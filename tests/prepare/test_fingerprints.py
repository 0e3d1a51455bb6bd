import io
import itertools

import numpy as np
import pytest
from PIL import Image, ImageEnhance

from sagemaker_monai.errors import UndecodableImage
from sagemaker_monai.images.fingerprints import MIN_CORRELATION, find_near_identical, thumbnail
from sagemaker_monai.prepare.leaks import Move, gather_groups, join_groups

POSITIONS = [None, *Image.Transpose]


def scene(seed, size=(96, 72)):
    """A smooth random picture: noise of 8x6 enlarged."""
    noise = np.random.default_rng(seed).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    return Image.fromarray(noise).resize(size, Image.Resampling.BICUBIC)


def jpeg(picture, quality=90, **options):
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=quality, **options)
    return buffer.getvalue()


def near(*pictures):
    return find_near_identical(np.stack([thumbnail(data) for data in pictures]))


@pytest.mark.parametrize("position", POSITIONS)
def test_a_copy_is_found_in_every_position(position):
    copy = scene(1) if position is None else scene(1).transpose(position)
    [pair] = near(jpeg(scene(0)), jpeg(scene(1)), jpeg(scene(2)), jpeg(copy))

    assert (pair.first, pair.second) == (1, 3)
    assert pair.correlation > 0.999


@pytest.mark.parametrize(
    "change",
    [
        lambda picture: jpeg(picture, quality=30),
        lambda picture: jpeg(picture.resize((48, 36))),
        lambda picture: jpeg(picture.resize((288, 216))),
        lambda picture: jpeg(ImageEnhance.Brightness(picture).enhance(0.85)),
        lambda picture: jpeg(picture.convert("L")),
        lambda picture: jpeg(picture.convert("CMYK")),
    ],
)
def test_a_copy_is_found_after_everyday_changes(change):
    assert [(pair.first, pair.second) for pair in near(jpeg(scene(3)), change(scene(3)))] == [(0, 1)]


def test_a_picture_lying_on_its_side_by_exif_is_its_upright_self():
    exif = Image.Exif()
    exif[0x0112] = 6  # shown turned by 90 degrees clockwise
    lying = jpeg(scene(4).transpose(Image.Transpose.ROTATE_90), exif=exif)

    np.testing.assert_allclose(thumbnail(lying), thumbnail(jpeg(scene(4))), atol=6)


def test_unlike_pictures_are_no_pairs():
    assert near(*(jpeg(scene(seed)) for seed in range(60))) == []


def test_pictures_that_share_a_hash_and_differ_in_detail_are_no_pair():
    coarse = np.asarray(scene(5).convert("L"), dtype=np.float32)
    detail = np.random.default_rng(0).normal(scale=40, size=coarse.shape)  # above the hash's frequencies
    other = Image.fromarray(np.clip(coarse + detail, 0, 255).astype(np.uint8))

    assert near(jpeg(scene(5)), jpeg(other)) == []


def test_all_pairs_of_many_copies_are_found_across_blocks():
    # 1,100 pictures, more than two blocks; every 300th is the same scene.
    generator = np.random.default_rng(0)
    pictures = generator.normal(size=(1100, 32, 32)).astype(np.float32)
    copies = list(range(0, 1100, 300))
    pictures[copies] = pictures[0]

    found = find_near_identical(pictures)
    assert [(pair.first, pair.second) for pair in found] == list(itertools.combinations(copies, 2))
    assert all(pair.distance == 0 for pair in found)


def test_blank_pictures_are_like_none_and_few_pictures_have_no_pairs():
    blank = np.full((3, 32, 32), 200, dtype=np.float32)

    assert find_near_identical(blank) == []
    assert find_near_identical(blank[:1]) == []
    assert find_near_identical(blank[:0]) == []


def test_only_jpegs_have_thumbnails():
    buffer = io.BytesIO()
    scene(0).save(buffer, "PNG")

    with pytest.raises(UndecodableImage):
        thumbnail(buffer.getvalue())


def test_the_one_pair_of_different_lesions_in_ham10000_is_found_with_a_margin(shared_data):
    from sagemaker_monai.prepare.downloads import open_download

    wanted = {
        "ISIC_0025226",
        "ISIC_0030074",
        "ISIC_0033342",
        "ISIC_0034307",
    }  # a pair, and the most similar two that are not one
    pictures = dict(
        sorted(pair for pair in open_download(shared_data / "ham10000").images(shared_data) if pair[0] in wanted)
    )

    [pair] = near(*pictures.values())
    assert (pair.first, pair.second) == (0, 1)
    assert pair.correlation > (1 + MIN_CORRELATION) / 2


# --- groups


def test_groups_of_pairs_are_joined_transitively_under_the_first_name():
    groups = ["d", "b", "c", "a", "e", "b"]

    assert join_groups(groups, [(0, 1), (1, 2)]) == ["b", "b", "b", "a", "e", "b"]
    assert join_groups(groups, []) == groups


def test_a_long_chain_of_pairs_is_one_group():
    groups = [f"{index:05d}" for index in range(5000)]

    assert set(join_groups(groups, [(index, index + 1) for index in range(4999)])) == {"00000"}


def test_a_group_gathers_where_most_of_it_is_and_ties_spare_the_test_split():
    images = ["1", "2", "3", "4", "5", "6", "7"]
    groups = ["p", "p", "p", "q", "q", "r", "r"]
    splits = ["training", "test", "training", "training", "test", "validation", "training"]

    gathered, moves = gather_groups(images, groups, splits)
    assert gathered == ["training"] * 3 + ["test"] * 2 + ["validation"] * 2
    assert moves == [
        Move("2", "p", "test", "training"),
        Move("4", "q", "training", "test"),
        Move("7", "r", "training", "validation"),
    ]
