import io
import json
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from sagemaker_monai.errors import BundleError
from sagemaker_monai.images.sample import Sample
from sagemaker_monai.preprocessing.fits import FITS
from sagemaker_monai.preprocessing.preprocessing import (
    TRANSFORMS,
    build_preprocessing,
    photograph_preprocessing,
)
from sagemaker_monai.requests.media_types import read_request
from tests.support.refusals import not_refused


def values(width=50, height=35, channels=3, seed=0):
    shape = (height, width) if channels == 1 else (height, width, channels)
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def encode(array, pillow_format, **options):
    buffer = io.BytesIO()
    Image.fromarray(array).save(buffer, pillow_format, **options)
    return buffer.getvalue()


def preprocessing(channels=3, image_size=32, fit="stretch"):
    return build_preprocessing(photograph_preprocessing(channels=channels, image_size=image_size, fit=fit))


@pytest.mark.parametrize("fit", FITS)
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("stored_channels", [1, 3])
def test_every_lossless_format_of_the_same_pixels_is_one_tensor(fit, channels, stored_channels, tmp_path):
    array = values(channels=stored_channels)
    raw = np.ascontiguousarray(array.reshape(35, 50, -1).transpose(2, 1, 0))
    files = {
        "image/png": encode(array, "PNG"),
        "image/bmp": encode(array, "BMP"),
        "image/tiff": encode(array, "TIFF", compression="tiff_lzw"),
        "image/webp": encode(array, "WEBP", lossless=True),
    }
    buffer = io.BytesIO()
    np.save(buffer, raw)
    bodies = [(buffer.getvalue(), "application/x-npy"), *((data, name) for name, data in files.items())]
    both = preprocessing(channels, fit=fit)

    tensors = [both.load(read_request(body, name)[0]) for body, name in bodies]
    tensors.append(both.load(Sample(raw)))
    for name, data in files.items():
        path = tmp_path / name.replace("/", ".")
        path.write_bytes(data)
        tensors.append(both.load(Sample(path)))

    assert tensors[0].dtype == torch.uint8
    assert tensors[0].shape == (channels, 32, 32)
    # WebP stores grey as three equal channels, which is the same grey again.
    assert all(torch.equal(tensor, tensors[0]) for tensor in tensors)


def test_the_index_order_is_channel_width_height():
    array = np.zeros((8, 8, 3), np.uint8)
    array[1, 5] = [10, 20, 30]  # row 1, column 5

    tensor = preprocessing(image_size=8).load(Sample(encode(array, "PNG")))

    assert tensor[:, 5, 1].tolist() == [10, 20, 30]
    assert tensor.sum() == 60


def test_pad_keeps_all_of_the_picture_and_blackens_the_rest():
    tensor = preprocessing(image_size=32, fit="pad").load(Sample(np.full((3, 60, 30), 200, np.uint8)))

    assert (tensor[:, :, 8:24] == 200).all()
    assert (tensor[:, :, :8] == 0).all()
    assert (tensor[:, :, 24:] == 0).all()


def test_crop_keeps_the_centre_at_its_aspect():
    array = np.zeros((3, 64, 32), np.uint8)
    array[:, 16:48] = 200  # the square in the middle of a wide picture

    tensor = preprocessing(image_size=16, fit="crop").load(Sample(array))

    assert (tensor[:, 1:-1] == 200).all()
    assert (tensor > 150).all()  # the filter looks one pixel over the edge


def test_stretch_keeps_everything_and_halves_by_the_triangle_filter():
    array = np.zeros((1, 32, 16), np.uint8)
    array[:, 16:] = 200

    tensor = preprocessing(1, image_size=16).load(Sample(array))

    assert (tensor[:, :7] == 0).all()
    assert (tensor[:, 9:] == 200).all()


@given(width=st.integers(1, 90), height=st.integers(1, 90), fit=st.sampled_from(list(FITS)))
@settings(max_examples=60)
def test_a_picture_of_one_colour_keeps_it_whatever_its_size(width, height, fit):
    tensor = preprocessing(1, image_size=24, fit=fit).load(Sample(np.full((1, width, height), 77, np.uint8)))

    assert tensor.shape == (1, 24, 24)
    assert set(tensor.unique().tolist()) <= {77, 0} if fit == "pad" else (tensor == 77).all()
    assert 77 in tensor


def test_width_and_height_may_differ():
    spec = photograph_preprocessing(channels=3, image_size=32, fit="stretch")
    spec[0]["size"] = [40, 20]

    both = build_preprocessing(spec)

    assert both.size == (40, 20)
    assert both.load(Sample(encode(values(), "JPEG"))).shape == (3, 40, 20)


def test_reduced_decoding_changes_a_photograph_by_little(shared_data):
    with zipfile.ZipFile(shared_data / "ham10000" / "HAM10000_images_part_1.zip") as archive:
        names = [name for name in archive.namelist() if name.endswith(".jpg")][:20]
        photographs = [archive.read(name) for name in names]
    both = preprocessing(image_size=32)

    for data in photographs:
        with Image.open(io.BytesIO(data)) as image:
            full = np.asarray(image.convert("RGB").resize((32, 32), Image.Resampling.BILINEAR)).transpose(2, 1, 0)
        difference = both.load(Sample(data)).numpy().astype(int) - full
        assert np.abs(difference).mean() < 2


def test_scaling_follows_the_formula():
    batch = torch.from_numpy(values().transpose(2, 1, 0).copy())[None]
    spec = photograph_preprocessing(channels=3, image_size=32, fit="stretch")

    result = build_preprocessing(spec).scale(batch)

    mean, std = (np.array(spec[1][name]).reshape(3, 1, 1) for name in ("mean", "std"))
    assert result.dtype == torch.float32
    assert np.abs(result.numpy() - (batch.numpy() / 255.0 - mean) / std).max() < 1e-5


@given(seed=st.integers(0, 99), count=st.integers(1, 9), width=st.integers(1, 40), height=st.integers(1, 40))
@settings(max_examples=50)
def test_scaling_gives_the_same_bits_alone_in_a_batch_and_from_float(seed, count, width, height):
    batch = torch.randint(0, 256, (count, 3, width, height), generator=torch.Generator().manual_seed(seed))
    batch = batch.to(torch.uint8)
    scale = preprocessing().scale

    together = scale(batch)

    assert torch.equal(scale(batch.to(torch.float32)), together)
    assert torch.equal(scale(batch.transpose(2, 3)).transpose(2, 3), together)
    for image, expected in zip(batch, together, strict=True):
        assert torch.equal(scale(image[None])[0], expected)
        assert torch.equal(scale(image), expected)


def test_monais_config_parser_builds_the_same_two_steps():
    bundle = pytest.importorskip("monai.bundle")
    spec = photograph_preprocessing(channels=3, image_size=32, fit="crop")
    parser = bundle.ConfigParser({"steps": spec})

    load, scale = parser.get_parsed_content("steps")

    both = build_preprocessing(spec)
    sample = Sample(encode(values(), "PNG"))
    assert torch.equal(load(sample), both.load(sample))
    assert torch.equal(scale(load(sample)), both.scale(both.load(sample)[None])[0])


def test_the_preset_survives_json_and_a_copy_is_given_out():
    spec = photograph_preprocessing(channels=1, image_size=48, fit="pad")
    both = build_preprocessing(json.loads(json.dumps(spec)))

    both.spec[0]["size"][0] = 1

    assert both.spec == spec
    assert (both.channels, both.size) == (1, (48, 48))
    assert [step["_target_"] for step in spec] == list(TRANSFORMS)[:2]


def changed(step, key, value):
    spec = photograph_preprocessing(channels=3, image_size=32, fit="stretch")
    if value is None:
        del spec[step][key]
    else:
        spec[step][key] = value
    return spec


def test_any_other_spec_is_refused():
    sound = photograph_preprocessing(channels=3, image_size=32, fit="pad")
    load = "sagemaker_monai.transforms.LoadPhotograph"
    wrong = {
        (0, "_target_"): ["os.system", [load], "sagemaker_monai.transforms.NormalizePhotograph", None],
        (0, "_disabled_"): [True],
        (0, "fit"): [None, "fill", ["pad"]],
        (0, "size"): [32, "32", [32], [32, 0], [32, 32.0], [32, True], [32, 10**9], ["$__import__('os')", 32]],
        (0, "channels"): [1, 4, True, "3"],
        (1, "mean"): [[0.5], [0.5, 0.5, float("nan")], [0.5, 0.5, "0.5"], 0.5, [0.5, 0.5, 10**400]],
        (1, "std"): [[0.5, 0.5, 0], [0.5, 0.5, -1.0], [0.5, 0.5, float("inf")], [0.5, 0.5]],
    }
    specs = [None, {}, [], [{}, {}], ["a", "b"], sound[:1], sound[::-1], sound * 2]
    specs += [changed(*place, value) for place, values in wrong.items() for value in values]

    assert not_refused(specs, build_preprocessing, BundleError, "preprocessing|Photograph") == []


def test_loading_a_photograph_imports_no_other_reader_and_neither_torch_nor_monai():
    code = (
        "import sys; import numpy as np; from sagemaker_monai import transforms;"
        "from sagemaker_monai.data import cache;"
        "from sagemaker_monai.images import read, sample, volume_files;"
        "from sagemaker_monai.preprocessing import preprocessing, presets;"
        "transforms.LoadPhotograph(3, [8, 8], 'pad').pixels(sample.Sample(np.zeros((3, 9, 9), np.uint8)));"
        "assert not {'pydicom', 'nibabel', 'gdcm', 'torch', 'monai', 'scipy'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parent)
