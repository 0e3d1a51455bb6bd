"""A slice, a series or a volume is the same tensor in training and serving, bit for bit, however it comes."""

import json

import numpy as np
import pytest
import torch

from sagemaker_monai.artifact.predictor import Predictor
from sagemaker_monai.data.cache import load_images
from sagemaker_monai.images.sample import Sample
from sagemaker_monai.preprocessing.fits import FITS
from sagemaker_monai.preprocessing.photograph import photograph_preprocessing
from sagemaker_monai.preprocessing.preprocessing import build_preprocessing
from sagemaker_monai.preprocessing.presets import preprocessing_for
from sagemaker_monai.serving.inference import input_fn
from tests.support.bundles import write_small_bundle
from tests.support.dicom_series import CT, OBLIQUE, enhanced, make_series, make_slice, to_bytes, write_series
from tests.support.exhaustive import crossed, exhaustive
from tests.support.medical_bodies import OF_ONE, OF_SEVERAL, OF_VOLUMES, as_json, as_zip, shuffled

NUMBERS = {
    "window": {"center": 40, "width": 400},
    "header": {},
    "percentile": {"low": 1, "high": 99},
    "range": {"low": -900, "high": 900},
    "zscore": {"nonzero": True},
    "none": {},
}
KINDS = tuple(NUMBERS)  # SUV needs a header of PET, see test_medical_options
# CT slices with all that a header may say of how they look, part of them without pixels.
HEADER = CT | {"WindowCenter": 50, "WindowWidth": 350, "PixelPaddingValue": -2000}


def stored(shape, seed):
    """Values (D, H, W) with structure, noise, and a corner that means no pixel."""
    z, y, x = np.meshgrid(*(np.linspace(0, 3, side) for side in shape), indexing="ij")
    values = 900 + 700 * np.sin(x + z) * np.cos(2 * y) + np.random.default_rng(seed).normal(0, 90, shape)
    values[:, :3, :4] = -2000
    return values.astype(np.int16)


def series(seed, orientation=OBLIQUE):
    return make_series(stored((9, 21, 17), seed), orientation, SeriesInstanceUID=f"1.2.3.{seed}", **HEADER)


def preprocessing(target, kind, fit, size, **more):
    """As an artifact gives it: through JSON."""
    intensity = {"kind": kind, **NUMBERS[kind]}
    load = {"_target_": f"sagemaker_monai.transforms.{target}", "channels": 1, "size": size, "fit": fit}
    scale = {"_target_": "sagemaker_monai.transforms.NormalizeIntensity", "mean": [0.5], "std": [0.25]}
    spec = [load | {"intensity": intensity} | more, scale]
    return build_preprocessing(spec), build_preprocessing(json.loads(json.dumps(spec)))


def volumes(kind, fit="pad", spacing_mm=(0.9, 0.7, 2.0)):
    return preprocessing("LoadVolume", kind, fit, [14, 12, 10], orientation="LPS", spacing_mm=spacing_mm)


def trained(samples, validation, tmp_path, workers=1):
    """The network's input as training makes it: a batch from the cache."""
    loaded = load_images(samples, validation, cache_dir=tmp_path / "cache", workers=workers, what="test")
    assert loaded.unreadable == ()
    return validation.scale(torch.from_numpy(np.array(loaded.pixels)))


def served(serving, body, content_type):
    """The same as serving makes it, with where each image comes from."""
    images = [image for sample in input_fn(body, content_type) for image in serving.load_each(sample)]
    return serving.scale(torch.stack([tensor for tensor, _ in images])), [traits.identity for _, traits in images]


@pytest.fixture(scope="module")
def on_disk(tmp_path_factory):
    """Two series in folders, one of them also as an archive and as one enhanced file; and their files as bytes."""
    folder = tmp_path_factory.mktemp("series")
    first, second = series(1), series(2)
    paths = write_series(folder / "1", first), write_series(folder / "2", second)
    files = [[path.read_bytes() for path in each] for each in paths]
    (folder / "1.zip").write_bytes(as_zip(*files[0]))
    (folder / "enhanced").write_bytes(
        to_bytes(enhanced(stored((9, 21, 17), 1), OBLIQUE, order=[3, 1, 2, 0, *range(4, 9)]))
    )
    return folder, files


@pytest.mark.parametrize(("kind", "grid"), crossed(KINDS, [("pad", (0.9, 0.7, 2.0)), ("stretch", None), ("pad", None)]))
def test_a_series_is_the_same_tensor_however_it_is_sent(on_disk, kind, grid, tmp_path):
    folder, files = on_disk
    validation, serving = volumes(kind, *grid)

    expected = trained([Sample(folder / "1"), Sample(folder / "2")], validation, tmp_path)

    assert (expected.std(dim=(1, 2, 3, 4)) > 0.1).all()
    assert not torch.equal(expected[0], expected[1])
    for seed, (content_type, wrap) in enumerate(OF_SEVERAL.items()):
        got, _ = served(serving, wrap(*shuffled(files[0], seed)), content_type)
        assert torch.equal(got, expected[:1]), content_type


def test_several_series_of_one_request_are_the_tensors_of_their_folders(on_disk, tmp_path):
    folder, files = on_disk
    validation, serving = volumes("window")
    expected = trained([Sample(folder / "1"), Sample(folder / "2")], validation, tmp_path)

    for seed, (content_type, wrap) in enumerate(OF_SEVERAL.items()):
        got, identities = served(serving, wrap(*shuffled(files[0] + files[1], seed)), content_type)

        assert len(got) == 2
        for tensor, identity in zip(got, identities, strict=True):
            assert torch.equal(tensor, expected[int(identity.series_instance_uid[-1]) - 1])


def test_an_archive_and_an_enhanced_file_on_disk_are_what_they_are_in_a_request(on_disk, tmp_path):
    folder, _ = on_disk
    validation, serving = volumes("header")
    paths = [folder / "1", folder / "1.zip", folder / "enhanced"]

    expected = trained([Sample(path) for path in paths], validation, tmp_path)

    assert torch.equal(expected[0], expected[1])
    for content_type, wrap in OF_ONE.items():
        got, _ = served(serving, wrap(paths[2].read_bytes()), content_type)
        assert torch.equal(got, expected[2:]), content_type


def slices():
    """One file each: a CT, a negative X-ray, colours, with pixels that are not square."""
    values = stored((1, 40, 31), 5)[0]
    colours = np.random.default_rng(4).integers(0, 255, (33, 29, 3), np.uint8)
    ct = make_slice(values, **HEADER)
    x_ray = make_slice(
        values, PhotometricInterpretation="MONOCHROME1", Modality="DX", WindowCenter=900, WindowWidth=900
    )
    rgb = make_slice(
        values[:33, :29], SamplesPerPixel=3, PhotometricInterpretation="RGB", PlanarConfiguration=0, BitsAllocated=8,
        BitsStored=8, HighBit=7, PixelRepresentation=0, PixelData=colours.tobytes() + b"\0",
    )  # fmt: skip
    return [to_bytes(each) for each in (ct, x_ray, rgb)]


@pytest.fixture(scope="module")
def slice_files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("slices")
    paths = [folder / str(index) for index in range(3)]
    for path, content in zip(paths, slices(), strict=True):
        path.write_bytes(content)
    return paths


@pytest.mark.parametrize(("kind", "fit"), crossed(KINDS[1:] + KINDS[:1], FITS))
def test_a_slice_is_the_same_tensor_however_it_is_sent(slice_files, kind, fit, tmp_path):
    validation, serving = preprocessing("LoadSlice", kind, fit, [19, 23])
    paths = slice_files[:2] if kind == "window" else slice_files  # colours have no unit that a window could be in

    expected = trained([Sample(path) for path in paths], validation, tmp_path)

    assert (expected.std(dim=(1, 2, 3)) > 0.03).all()
    for path, tensor in zip(paths, expected, strict=True):
        for content_type, wrap in OF_ONE.items():
            got, _ = served(serving, wrap(path.read_bytes()), content_type)
            assert torch.equal(got, tensor[None]), (path.name, content_type)


@pytest.mark.parametrize(("channels", "fit"), crossed([3, 1], FITS))
def test_a_photograph_model_sees_of_dicom_what_it_saw_in_training(slice_files, channels, fit, tmp_path):
    spec = photograph_preprocessing(channels=channels, image_size=24, fit=fit)
    validation, serving = build_preprocessing(spec), build_preprocessing(json.loads(json.dumps(spec)))

    expected = trained([Sample(path) for path in slice_files], validation, tmp_path)

    for path, tensor in zip(slice_files, expected, strict=True):
        for content_type, wrap in OF_ONE.items():
            got, _ = served(serving, wrap(path.read_bytes()), content_type)
            assert torch.equal(got, tensor[None]), (path.name, content_type)


def test_each_frame_is_the_tensor_of_a_file_with_that_frame_alone(tmp_path):
    frames = stored((4, 20, 24), 8)
    alone = [tmp_path / str(index) for index in range(4)]
    for path, frame in zip(alone, frames, strict=True):
        path.write_bytes(to_bytes(make_slice(frame, **HEADER)))
    several = to_bytes(make_slice(frames, **HEADER))

    for spec in (
        preprocessing_for("ct_slice", channels=1, image_size=16, fit="pad"),
        photograph_preprocessing(channels=3, image_size=16, fit="pad"),
    ):
        validation = build_preprocessing(spec)
        expected = trained([Sample(path) for path in alone], validation, tmp_path)
        for content_type, wrap in OF_ONE.items():
            got, identities = served(validation, wrap(several), content_type)
            assert torch.equal(got, expected), content_type
            assert [identity.frame for identity in identities] == [1, 2, 3, 4]


def test_instances_of_json_are_images_by_themselves(slice_files, tmp_path):
    validation, serving = preprocessing("LoadSlice", "percentile", "pad", [19, 23])
    expected = trained([Sample(path) for path in slice_files], validation, tmp_path)

    got, _ = served(serving, as_json(*(path.read_bytes() for path in slice_files)), "application/json")

    assert torch.equal(got, expected)


AFFINE = np.array([[-0.8, 0.1, 0, 20], [0.1, 0.7, 0.2, -31], [0, 0.2, -2.2, 7], [0, 0, 0, 1]], float)


@pytest.mark.parametrize(("content_type", "kind"), crossed(OF_VOLUMES, KINDS))
def test_a_file_of_a_volume_is_the_same_tensor_in_both(content_type, kind, tmp_path):
    suffix, encode = OF_VOLUMES[content_type]
    contents = [encode(stored((13, 15, 9), seed), AFFINE) for seed in (1, 2)]
    paths = [tmp_path / f"{index}{suffix}" for index in range(2)]
    for path, content in zip(paths, contents, strict=True):
        path.write_bytes(content)
    validation, serving = volumes(kind, *(("stretch", None) if suffix == ".npy" else ()))

    expected = trained([Sample(path) for path in paths], validation, tmp_path)

    assert (expected.std(dim=(1, 2, 3, 4)) > 0.1).all()
    assert torch.equal(served(serving, contents[0], content_type)[0], expected[:1])
    for wrapping in ("application/json", "application/zip", "application/x-tar", *list(OF_SEVERAL)[-1:]):
        got, _ = served(serving, OF_ONE[wrapping](*contents), wrapping)
        assert torch.equal(got, expected), wrapping


@pytest.mark.parametrize("kind", exhaustive(["volumes", "slices", "photographs"]))
def test_processes_with_other_numbers_of_threads_load_the_same(kind, on_disk, slice_files, tmp_path, monkeypatch):
    folder, _ = on_disk
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    monkeypatch.setenv("OPENBLAS_NUM_THREADS", "3")
    photographs = build_preprocessing(photograph_preprocessing(channels=3, image_size=24, fit="crop"))
    validation, serving = {
        "volumes": volumes("zscore"),
        "slices": preprocessing("LoadSlice", "zscore", "crop", [19, 23]),
        "photographs": (photographs, photographs),
    }[kind]
    paths = [folder / name for name in ("1", "2", "1.zip", "enhanced")] if kind == "volumes" else slice_files
    samples = [Sample(path) for path in paths]

    expected = trained(samples, validation, tmp_path, workers=2)

    for sample, tensor in zip(samples, expected, strict=True):
        assert torch.equal(serving.scale(serving.load(sample)[None])[0], tensor)


@pytest.mark.parametrize("preset", ["ct_slice", "ct_volume"])
def test_the_artifacts_answer_is_the_networks_to_what_validation_saw(preset, on_disk, slice_files, tmp_path):
    folder, files = on_disk
    is_volume = preset == "ct_volume"
    paths = [folder / "1", folder / "2"] if is_volume else slice_files[:1]
    bodies = [as_zip(*each) for each in files] if is_volume else [as_zip(slice_files[0].read_bytes())]
    side = 16 if is_volume else 32
    validation = build_preprocessing(preprocessing_for(preset, channels=1, image_size=side, fit="stretch"))
    write_small_bundle(tmp_path / "model", labels=("a", "b"), preset=preset, channels=1)
    predictor = Predictor.read(tmp_path / "model")

    with torch.inference_mode():
        logits = predictor.bundle.network(trained([Sample(path) for path in paths], validation, tmp_path))

    for body, row in zip(bodies, torch.softmax(logits.double(), dim=1), strict=True):
        [prediction] = predictor.predict(input_fn(body, "application/zip"))
        assert list(prediction.probabilities.values()) == pytest.approx(row.tolist(), abs=1e-6)


@pytest.mark.parametrize("preset", exhaustive(["mr_volume", "volume"]))
def test_a_real_series_is_the_same_tensor(preset, shared_data, tmp_path):
    folders = sorted({path.parent for path in (shared_data / "dicom_series").rglob("*.dcm")})
    validation = build_preprocessing(preprocessing_for(preset, channels=1, image_size=32, fit="pad"))

    expected = trained([Sample(folder) for folder in folders], validation, tmp_path)

    assert len(folders) == 4
    for seed, (folder, tensor) in enumerate(zip(folders, expected, strict=True)):
        body = as_zip(*shuffled([path.read_bytes() for path in folder.iterdir()], seed))
        assert torch.equal(served(validation, body, "application/zip")[0], tensor[None])
