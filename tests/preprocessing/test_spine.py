"""The promises that the rest hangs on; each is broken by one line in the wrong place."""

import functools
import io

import numpy as np
import pytest
import torch
from PIL import Image

from sagemaker_monai.artifact.bundle import read_bundle
from sagemaker_monai.artifact.predictor import Predictor
from sagemaker_monai.data.cache import load_images
from sagemaker_monai.images.sample import Sample
from sagemaker_monai.preprocessing.preprocessing import build_preprocessing, photograph_preprocessing
from sagemaker_monai.requests.media_types import MEDIA_TYPES
from sagemaker_monai.serving.inference import input_fn
from tests.support.bundles import IMAGE_SIZE, write_small_bundle
from tests.support.exhaustive import crossed
from tests.support.medical_bodies import EDGE, OF_ONE, OF_VOLUMES, as_form, as_json, as_zip

PICTURE_FORMATS = {
    "image/jpeg": ("JPEG", ".jpg", {"quality": 90}),
    "image/png": ("PNG", ".png", {}),
    "image/bmp": ("BMP", ".bmp", {}),
    "image/tiff": ("TIFF", ".tiff", {}),
    "image/webp": ("WEBP", ".webp", {"quality": 80}),
}


@pytest.fixture(scope="module")
def photograph():
    """A picture with structure in every direction, larger than the network's input and not square."""
    x, y = np.meshgrid(np.linspace(0, 6, 150), np.linspace(0, 4, 110))
    noise = np.random.default_rng(3).integers(0, 40, size=(110, 150))
    layers = [100 + 80 * np.sin(x * y), 120 + 70 * np.cos(x + 2 * y), 90 + 20 * x]
    return Image.fromarray(np.clip(np.stack(layers, -1) + noise[..., None], 0, 255).astype(np.uint8))


@pytest.fixture(scope="module")
def artifact(tmp_path_factory):
    """The folder of an artifact, for each kind of model."""

    @functools.cache
    def written(channels, fit):
        folder = tmp_path_factory.mktemp("model")
        write_small_bundle(folder, channels=channels, fit=fit, network="resnet10")
        return folder

    return written


def encode(picture, content_type):
    kind, _, options = PICTURE_FORMATS[content_type]
    buffer = io.BytesIO()
    picture.save(buffer, kind, **options)
    return buffer.getvalue()


WRAPPERS = {
    "application/json": as_json,
    "application/zip": as_zip,
    f'multipart/form-data; boundary="{EDGE}"': as_form,
    "application/x-image": bytes,
    "application/octet-stream": bytes,
}


@pytest.mark.parametrize(
    ("content_type", "channels", "fit"), crossed(PICTURE_FORMATS, [3, 1], ["pad", "stretch", "crop"])
)
def test_serving_makes_the_tensor_that_validation_saw(photograph, content_type, channels, fit, tmp_path, artifact):
    body = encode(photograph, content_type)
    path = tmp_path / f"picture{PICTURE_FORMATS[content_type][1]}"
    path.write_bytes(body)
    validation = build_preprocessing(photograph_preprocessing(channels=channels, image_size=IMAGE_SIZE, fit=fit))
    loaded = load_images([Sample(path), Sample(path)], validation, cache_dir=tmp_path / "cache", workers=1, what="test")
    seen = validation.scale(torch.from_numpy(np.array(loaded.pixels)))  # as validation scales: a batch from the cache

    serving = read_bundle(artifact(channels, fit)).preprocessing
    requests = {content_type: body, **{header: wrap(body) for header, wrap in WRAPPERS.items()}}

    assert seen.std() > 0.1
    for header, request in requests.items():
        [sample] = input_fn(request, header)
        assert torch.equal(serving.scale(serving.load(sample)[None])[0], seen[1]), header


def test_every_content_type_is_among_those_compared():
    others = {content_type.partition(";")[0] for content_type in (*WRAPPERS, *OF_ONE, *OF_VOLUMES)}

    assert set(MEDIA_TYPES) == {*PICTURE_FORMATS, *others}  # the medical ones are those of test_spine_medical


def test_the_artifact_gives_the_preprocessing_that_it_was_written_with(artifact, photograph):
    spec = photograph_preprocessing(channels=3, image_size=32, fit="pad")
    [sample] = input_fn(encode(photograph, "image/png"), "image/png")

    predictor = Predictor.read(artifact(3, "pad"))

    assert torch.equal(predictor.load(sample), build_preprocessing(spec).load(sample))
    assert predictor.bundle.preprocessing.spec == spec


def test_a_batch_answers_what_each_picture_alone_is_answered(small_bundle, photograph):
    predictor = Predictor.read(small_bundle)
    samples = [input_fn(encode(photograph.rotate(angle), "image/png"), "image/png")[0] for angle in range(0, 350, 10)]

    together = predictor.predict(samples)

    assert len(together) == 35  # more than one batch of the predictor
    for sample, prediction in zip(samples[::-5], together[::-5], strict=True):
        [alone] = predictor.predict([sample])
        assert prediction.probabilities == pytest.approx(alone.probabilities, abs=1e-6)
