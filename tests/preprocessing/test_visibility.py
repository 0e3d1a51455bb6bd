"""What shows nothing once it is prepared, by the values that the network gets."""

import logging

import numpy as np
import pytest
from PIL import Image

from sagemaker_monai.artifact.bundle import write_bundle
from sagemaker_monai.artifact.predictor import Predictor
from sagemaker_monai.data.datasets import Dataset, Record
from sagemaker_monai.data.loading import load_dataset
from sagemaker_monai.hyperparameters import TrainConfig
from sagemaker_monai.images.sample import Sample
from sagemaker_monai.images.scope import FINDINGS
from sagemaker_monai.preprocessing.preprocessing import build_preprocessing, photograph_preprocessing
from sagemaker_monai.preprocessing.visibility import shows_nothing
from tests.images.test_pictures import encode
from tests.preprocessing.test_deep_pictures import issues_of
from tests.support.bundles import bundle_parts

NOISE = np.random.default_rng(0).integers(0, 256, (3, 40, 48), dtype=np.uint8)
BYTES = (0.0, 255.0)


def framed(values):
    """The same in a black frame, as it is padded to a square."""
    return np.pad(values, ((0, 0), (4, 4), (0, 0)))


@pytest.mark.parametrize(
    ("values", "is_nothing"),
    [
        (NOISE, False),
        (NOISE // 8 + 100, False),  # faint, but seen
        (NOISE // 43 + 100, True),  # six levels
        (np.zeros_like(NOISE), True),
        (np.full_like(NOISE, 255), True),
        (framed(np.full_like(NOISE, 255)), True),
        (framed(NOISE), False),
        (np.where(NOISE > 127, 255, 0).astype(np.uint8), False),  # two levels, far apart
    ],
)
def test_one_value_and_a_few_levels_side_by_side_show_nothing(values, is_nothing):
    assert shows_nothing(values, BYTES) is is_nothing
    assert shows_nothing(values.astype(np.float32) / 255, (0.0, 1.0)) is is_nothing
    assert shows_nothing(np.stack([values] * 3, axis=-1), BYTES) is is_nothing


def test_a_marker_on_black_shows_nothing_else():
    values = np.zeros((1, 100, 100), np.uint8)
    values[0, 3, 3:9] = 255
    values[0, 90, 90] = 9

    assert shows_nothing(values, BYTES)


def test_without_a_bound_one_value_shows_nothing():
    assert shows_nothing(np.full((1, 5, 5), 3.5, np.float32), None)
    assert not shows_nothing(np.linspace(0, 1e-3, 25, dtype=np.float32).reshape(1, 5, 5), None)


def test_train_names_images_that_show_nothing(tmp_path, caplog):
    pictures = [NOISE[0], np.full((40, 48), 7, np.uint8), NOISE[1], NOISE[2], np.full((40, 48), 255, np.uint8)]
    records = []
    for number, values in enumerate(pictures):
        (tmp_path / f"{number}.png").write_bytes(encode(Image.fromarray(values), "PNG"))
        records.append(Record(tmp_path / f"{number}.png", f"{number}.png", number % 2, str(number), {}))
    dataset = Dataset(("a", "b"), tuple(records[:3]), tuple(records[3:]), (), "0" * 64)
    preprocessing = build_preprocessing(photograph_preprocessing(channels=1, image_size=32, fit="pad"))
    with caplog.at_level(logging.WARNING):
        load_dataset(TrainConfig(num_workers=1), dataset, preprocessing, cache_dir=None)

    assert "2 of 5 images show nothing once they are prepared" in caplog.text
    assert "1.png, 4.png" in caplog.text


def test_doctor_finds_pictures_that_show_nothing(tmp_path):
    faint = Image.fromarray(NOISE[0] // 43 + 100)
    _, issues = issues_of(tmp_path, a_1=encode(Image.fromarray(NOISE[0]), "PNG"), a_2=encode(faint, "PNG"))

    assert issues["blank_images"].examples == (2,)


def test_an_answer_says_that_nothing_can_be_seen_and_that_a_high_byte_was_taken(tmp_path):
    parts = bundle_parts(channels=1, network="resnet10")
    del parts["preprocessing"][0]["deep"]  # as artifacts from before
    write_bundle(tmp_path, **parts)
    predictor = Predictor.read(tmp_path)
    seen, black = (encode(Image.fromarray(values), "PNG") for values in (NOISE[0], np.zeros((40, 48), np.uint8)))
    deep = encode(Image.fromarray(NOISE[0].astype(np.uint16) * 200), "PNG")
    answered = predictor.answer([Sample(seen), Sample(black), Sample(deep)])

    assert [each.traits[0].findings for each in answered] == [(), ("nothing_visible",), ("high_byte",)]
    assert {code for each in answered for code in each.traits[0].findings} <= FINDINGS.keys()
