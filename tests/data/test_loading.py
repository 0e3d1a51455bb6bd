import logging
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sagemaker_monai.data.datasets import Dataset, Record
from sagemaker_monai.data.loading import load_dataset, oddities
from sagemaker_monai.errors import DatasetError
from sagemaker_monai.hyperparameters import TrainConfig
from sagemaker_monai.images.sample import Sample
from sagemaker_monai.images.volumes import Identity, Traits
from sagemaker_monai.preprocessing.preprocessing import build_preprocessing, photograph_preprocessing
from sagemaker_monai.training.preset_choice import choose_preprocessing

PREPROCESSING = build_preprocessing(photograph_preprocessing(channels=3, image_size=32, fit="stretch"))
LABELS = ("a", "b")


def picture(path, value, mode="RGB"):
    Image.new(mode, (40, 36), value).save(path)
    return path


@pytest.fixture
def dataset(tmp_path):
    """Ten training, four validation and two test images; the red value is the number in its name."""

    def records(split, numbers):
        return tuple(
            Record(picture(tmp_path / f"{i}.png", (i, i, i + 1)), f"{split}/{i}.png", i % 2, str(i), {})
            for i in numbers
        )

    splits = (records("training", range(10)), records("validation", range(10, 14)), records("test", range(14, 16)))
    return Dataset(LABELS, *splits, "0" * 64)


def input_channels(config, records):
    [load, _] = choose_preprocessing(config, Dataset(LABELS, tuple(records), (), (), "0" * 64))
    return load["channels"]


def spoil(record):
    record.image.write_bytes(b"no picture")


def load(dataset, cache_dir=None, **hyperparameters):
    config = TrainConfig(num_workers=1, **hyperparameters)
    return load_dataset(config, dataset, PREPROCESSING, cache_dir=cache_dir)


@pytest.mark.parametrize("is_cached", [True, False])
def test_each_row_of_a_split_is_the_picture_of_its_record(dataset, tmp_path, is_cached):
    loaded = load(dataset, cache_dir=tmp_path / "cache" if is_cached else None)

    for split in ("training", "validation", "test"):
        values = loaded.pixels[loaded.rows[split]][:, 0, 0, 0].tolist()
        assert values == [int(Path(record.name).stem) for record in loaded.dataset.split(split)]
    assert loaded.dataset == dataset
    assert set(loaded.unreadable.values()) == {()}


def test_a_few_unreadable_images_are_left_out_of_their_split_and_named(dataset, caplog):
    spoil(dataset.training[3])
    spoil(dataset.test[0])

    with caplog.at_level(logging.WARNING):
        loaded = load(dataset, max_unreadable_fraction=0.2)

    assert [record.name for record in loaded.dataset.test] == ["test/15.png"]
    assert loaded.unreadable == {"training": ("training/3.png",), "validation": (), "test": ("test/14.png",)}
    assert loaded.pixels[loaded.rows["training"]][:, 0, 0, 0].tolist() == [0, 1, 2, 4, 5, 6, 7, 8, 9]
    assert "2 of 16 images cannot be read and are left out: training/3.png, test/14.png" in caplog.text


def test_copies_of_an_image_in_two_splits_are_named(dataset, caplog):
    picture(dataset.training[1].image, (0, 0, 1))  # as training/0.png: in one split, no harm
    picture(dataset.validation[3].image, (2, 2, 3))
    picture(dataset.test[0].image, (10, 10, 11))

    with caplog.at_level(logging.WARNING):
        load(dataset)

    told = "two splits make the scores too good: training/2.png = validation/13.png, validation/10.png = test/14.png; "
    assert told in caplog.text


def test_different_images_are_no_copies(dataset, caplog):
    with caplog.at_level(logging.WARNING):
        load(dataset)

    assert "in two splits" not in caplog.text


def test_more_unreadable_images_than_allowed_stop_the_job_and_are_named(dataset):
    spoil(dataset.validation[1])

    with pytest.raises(
        DatasetError,
        match=r"1 of 16 images cannot be read \(validation/11.png\), the first because: not a sound picture .*; that "
        r"is more than max_unreadable_fraction 0.01: remove",
    ):
        load(dataset)


def test_exactly_the_allowed_share_may_be_unreadable(dataset):
    spoil(dataset.validation[1])

    assert load(dataset, max_unreadable_fraction=1 / 16).unreadable["validation"] == ("validation/11.png",)


def test_a_class_whose_training_images_are_all_unreadable_is_refused(dataset):
    for record in dataset.training[1::2]:
        spoil(record)

    with pytest.raises(DatasetError, match="no training image of b can be read"):
        load(dataset, max_unreadable_fraction=0.5)


def test_a_split_without_readable_image_is_refused(dataset):
    for record in dataset.test:
        spoil(record)

    with pytest.raises(DatasetError, match="no image of the test split can be read"):
        load(dataset, max_unreadable_fraction=0.5)


@pytest.mark.parametrize(
    ("mode", "value", "channels"),
    [("L", 7, 1), ("1", 1, 1), ("RGB", (9, 9, 9), 1), ("RGB", (9, 9, 10), 3), ("P", 3, 1)],
)
def test_the_channels_are_one_only_if_all_images_are_grey(mode, value, channels, tmp_path):
    image = picture(tmp_path / "x.png", value, mode)

    assert input_channels(TrainConfig(), [Record(image, "x.png", 0, "x", {})]) == channels


def test_one_image_with_color_makes_three_channels(tmp_path):
    records = [Record(picture(tmp_path / f"{i}.png", 5, "L"), "x", 0, "x", {}) for i in range(5)]
    records.append(Record(picture(tmp_path / "c.png", (9, 0, 0)), "c", 0, "c", {}))

    assert input_channels(TrainConfig(), records) == 3


@pytest.mark.parametrize(("color", "channels"), [("rgb", 3), ("grey", 1)])
def test_the_color_can_be_set(color, channels, tmp_path):
    image = picture(tmp_path / "x.png", 7, "L" if color == "rgb" else "RGB")

    assert input_channels(TrainConfig(color=color), [Record(image, "x.png", 0, "x", {})]) == channels


def test_unreadable_images_say_nothing_about_color(tmp_path):
    broken = tmp_path / "x.png"
    broken.write_bytes(b"x")
    grey = picture(tmp_path / "g.png", 4, "L")

    assert input_channels(TrainConfig(), [Record(path, "x", 0, "x", {}) for path in (broken, grey)]) == 1


def test_pixels_are_what_the_preprocessing_alone_makes(dataset):
    loaded = load(dataset)
    record = dataset.validation[2]

    expected = PREPROCESSING.load(Sample(record.image)).numpy()
    assert np.array_equal(loaded.pixels[loaded.rows["validation"][2]], expected)


def test_what_was_passed_over_and_what_is_odd_is_said():
    def traits(passed_over, *findings):
        return Traits(Identity("", (), passed_over=passed_over), findings)

    lines = oddities([traits(2, "gantry_tilt"), traits(0), traits(1, "gantry_tilt", "zero_slope"), Traits()])

    assert lines[0].startswith("beside 2 of 4 images lie other DICOM series or objects, 3 in all, which were skipped")
    assert lines[1].endswith(": gantry_tilt 2, zero_slope 1")
    assert oddities([Traits()]) == []
