"""A model of pictures of more than 8 bits: its range is that of the training pictures, and nothing else goes in."""

import base64
import json

import numpy as np
import pytest
from PIL import Image

from sagemaker_monai.artifact.bundle import read_bundle, write_bundle
from sagemaker_monai.data.cache import load_images
from sagemaker_monai.data.datasets import Dataset, Record
from sagemaker_monai.doctor.examine import Options, examine
from sagemaker_monai.errors import ConfigError, DatasetError, UnsuitableImage
from sagemaker_monai.hyperparameters import TrainConfig
from sagemaker_monai.images.sample import Sample
from sagemaker_monai.preprocessing.deep_pictures import LoadDeepPicture, range_of
from sagemaker_monai.preprocessing.photograph import LoadPhotograph
from sagemaker_monai.preprocessing.preprocessing import build_preprocessing
from sagemaker_monai.preprocessing.presets import preprocessing_for
from sagemaker_monai.serving.inference import input_fn
from sagemaker_monai.training.preset_choice import choose_preprocessing
from tests.images.test_pictures import encode
from tests.support.bundles import bundle_parts
from tests.support.deep_files import png16, tiff, transparent_colour
from tests.support.dicom_series import CT, make_slice, pixels, to_bytes

RANGE = {"kind": "range", "low": 1_000, "high": 3_000}


def deep(seed=0, channels=1, low=1_000, high=3_000):
    shape = (40, 48) if channels == 1 else (40, 48, channels)
    return np.random.default_rng(seed).integers(low, high, shape, dtype=np.uint16)


SHALLOW = encode(Image.fromarray(deep().astype(np.uint8)), "PNG")


def prepared(source, *, channels=1, fit="stretch", intensity=None):
    load = LoadDeepPicture(channels, [48, 40], fit, intensity or RANGE)
    return load.pixels(Sample(source))


def chosen(paths, **hyperparameters):
    records = tuple(Record(path, path.name, 0, path.name, {}) for path in paths)
    dataset = Dataset(("a", "b"), records, (), (), "0" * 64)
    return choose_preprocessing(TrainConfig(**hyperparameters), dataset)


@pytest.fixture
def files(tmp_path):
    def write(*contents, suffix="png"):
        paths = [tmp_path / f"{number:02d}.{suffix}" for number in range(len(contents))]
        for path, content in zip(paths, contents, strict=True):
            path.write_bytes(content)
        return paths

    return write


def test_values_become_their_place_in_the_range_to_the_last_bit():
    values = deep(high=4_000)
    expected = np.clip((values.T.astype(np.float64) - 1_000) / 2_000, 0, 1)

    assert np.abs(prepared(png16(values))[0] - expected).max() < 1e-6
    assert len(np.unique(prepared(png16(values)))) > 900  # where the high byte would leave 9


@pytest.mark.parametrize("order", ["<", ">"])
def test_png_tiff_and_raw_values_are_one_picture(order):
    expected = prepared(png16(deep()))

    assert np.array_equal(prepared(tiff(deep(), order=order)), expected)
    assert np.array_equal(prepared(tiff(deep().astype(np.float32), order=order)), expected)
    assert np.array_equal(prepared(deep().T), expected)
    assert np.array_equal(prepared(png16(np.repeat(deep()[..., None], 3, axis=2))), expected)  # grey in three channels


def test_white_is_zero_is_turned_after_the_range():
    assert np.allclose(prepared(tiff(deep(), photometric=0)), 1 - prepared(tiff(deep())), atol=1e-6)


def test_what_is_transparent_is_black_and_counts_nowhere(files):
    values = deep()
    values[:10] = 0
    data = png16(values, extra=transparent_colour(0))

    assert np.array_equal(prepared(data)[0, :, :10], np.zeros((48, 10)))
    assert range_of(files(data))[0] >= 1_000
    assert range_of(files(png16(values)))[0] == 0


def test_colours_share_the_range_and_become_grey_by_luma():
    values = deep(channels=3)
    expected = (values.astype(np.float64).transpose(2, 1, 0) - 1_000) / 2_000

    assert np.abs(prepared(png16(values), channels=3) - expected).max() < 1e-6
    luma = np.tensordot([0.299, 0.587, 0.114], expected, axes=1)
    assert np.abs(prepared(png16(values))[0] - luma).max() < 1e-6


@pytest.mark.parametrize("fit", ["stretch", "pad", "crop"])
def test_every_fit_gives_the_size(fit):
    assert prepared(png16(deep()[:, :30]), fit=fit).shape == (1, 48, 40)


def test_pictures_of_eight_bits_dicom_volumes_and_grey_for_colour_are_refused():
    for source, what in (
        (SHALLOW, "a picture of 8 bits"),
        (deep().astype(np.uint8), "values of 8 bits"),
        (to_bytes(make_slice(pixels()[0], **CT)), "DICOM"),
        (b"NRRD0004\ntype: short\n", "a file of a volume"),
    ):
        with pytest.raises(UnsuitableImage, match=f"this is {what}, and the model was trained on pictures of more"):
            prepared(source)
    with pytest.raises(UnsuitableImage, match="images of 3 channels"):
        prepared(png16(deep()), channels=3)


# --- which preset a data set gets ------------------------------------------------------------------------------------


def test_deep_pictures_get_the_range_of_the_training_set(files):
    paths = files(*(png16(deep(seed, low=1_400, high=1_700)) for seed in range(6)))
    load, scale = chosen(paths)

    assert load["_target_"] == "sagemaker_monai.transforms.LoadDeepPicture"
    assert load["channels"] == 1
    assert 1_400 <= load["intensity"]["low"] <= 1_402
    assert 1_697 <= load["intensity"]["high"] <= 1_699
    assert (scale["mean"], scale["std"]) == ([0.5], [0.25])


def test_each_training_picture_has_the_same_weight(files):
    large = np.full((400, 400), 9_000, np.uint16)
    paths = files(png16(deep(low=0, high=1_000)), png16(large))
    low, high = range_of(paths)

    assert low <= 10
    assert high == 9_000
    assert range_of(paths * 2) == pytest.approx((low, high), abs=0.01)


@pytest.mark.parametrize(
    ("window", "intensity"),
    [
        ("percentile", {"kind": "percentile", "low": 0.5, "high": 99.5}),
        ("header", {"kind": "percentile", "low": 0, "high": 100}),
        ("32808/400", {"kind": "range", "low": 32_608.0, "high": 33_008.0}),
        ("zscore", {"kind": "zscore", "nonzero": True}),
    ],
)
def test_a_window_may_be_named_in_the_pictures_values(files, window, intensity):
    assert chosen(files(png16(deep())), window=window)[0]["intensity"] == intensity


def test_colours_of_all_pictures_are_kept(files):
    colour, grey = png16(deep(channels=3)), png16(deep())

    assert chosen(files(colour, colour))[0]["channels"] == 3
    assert chosen(files(colour, grey))[0]["channels"] == 1
    assert chosen(files(colour, colour), color="grey")[0]["channels"] == 1


def test_pictures_of_eight_and_of_more_bits_are_refused_together(files):
    for preset in ("auto", "photo", "deep"):
        with pytest.raises(DatasetError, match=r"1 of 3 pictures have more than 8 bits \(01.png\).*different scales"):
            chosen(files(SHALLOW, png16(deep()), SHALLOW), preset=preset)


def test_presets_that_do_not_suit_and_pictures_of_one_value_are_refused(files):
    for preset in ("photo", "xray", "ct_slice", "volume"):
        with pytest.raises(ConfigError, match="pictures of 16 bits: set preset to auto or deep"):
            chosen(files(png16(deep())), preset=preset)
    with pytest.raises(ConfigError, match="more than 8 bits, and these are not"):
        chosen(files(SHALLOW), preset="deep")
    with pytest.raises(DatasetError, match=r"only one value \(700\)"):
        chosen(files(png16(np.full((40, 40), 700, np.uint16))))


# --- serving ---------------------------------------------------------------------------------------------------------


def test_serving_sees_what_training_saw_bit_by_bit(tmp_path, files):
    paths = files(*(png16(deep(seed, low=500, high=2_000)) for seed in range(3)), tiff(deep(9, low=500, high=2_000)))
    [load, scale] = chosen(paths, image_size=32)
    write_bundle(tmp_path / "model", **bundle_parts(preset="deep", channels=1) | {"preprocessing": [load, scale]})
    served = read_bundle(tmp_path / "model").preprocessing
    trained = load_images(
        [Sample(path) for path in paths], build_preprocessing([load, scale]), cache_dir=tmp_path / "cache", workers=1,
        what="reading",
    ).pixels  # fmt: skip

    for path, expected in zip(paths, trained, strict=True):
        body = path.read_bytes()
        as_json = json.dumps({"instances": [{"image": base64.b64encode(body).decode()}]}).encode()
        kind = "image/png" if body.startswith(b"\x89PNG") else "image/tiff"
        for data, content_type in ((body, kind), (as_json, "application/json")):
            [sample] = input_fn(data, content_type)
            assert np.array_equal(served.load(sample).numpy(), expected)


def test_a_photograph_model_from_before_takes_the_high_byte_and_a_new_one_refuses():
    values = deep(high=60_000)
    old = LoadPhotograph(1, [48, 40], "stretch")

    assert np.array_equal(old.pixels(Sample(png16(values)))[0], (values >> 8).astype(np.uint8).T)
    [load, _] = preprocessing_for("photo", channels=1, image_size=64, fit="stretch")
    assert load["deep"] == "refuse"
    with pytest.raises(UnsuitableImage, match="16 bits"):
        LoadPhotograph(1, [48, 40], "stretch", "refuse").pixels(Sample(png16(values)))


# --- doctor ----------------------------------------------------------------------------------------------------------


def issues_of(tmp_path, **contents):
    for name, content in contents.items():
        path = tmp_path / "data" / f"{name.replace('_', '/', 1)}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    (tmp_path / "scratch").mkdir()
    examination = examine({"training": tmp_path / "data"}, tmp_path / "scratch", Options())
    return examination, {each.code: each for each in examination.remarks}


def test_doctor_says_how_many_bits_are_used(tmp_path):
    pictures = {f"{label}_{seed}": png16(deep(seed + ord(label), high=4_000)) for label in "ab" for seed in range(3)}
    examination, issues = issues_of(tmp_path, **pictures)

    assert examination.counts["BitsStored"] == {"16": 6}
    assert issues["deep_pictures"].count == 6
    assert "16 bits per value, of which 12 are used" in issues["deep_pictures"].message
    assert "mixed_bits" not in issues
    assert examination.faults == {}


def test_doctor_refuses_mixed_bits_and_sees_what_is_faint(tmp_path):
    pictures = {f"a_{seed}": png16(deep(seed, low=0, high=60_000)) for seed in range(3)}
    faint = png16(deep(9, low=100, high=180))
    _, issues = issues_of(tmp_path, **pictures, b_1=SHALLOW, b_2=faint)

    assert (issues["mixed_bits"].severity, issues["mixed_bits"].count) == ("error", 4)
    assert issues["faint_images"].examples == (5,)
