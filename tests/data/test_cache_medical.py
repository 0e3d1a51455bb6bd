"""The cache of slices and volumes; what it shares with photographs is in `test_cache`."""

import json
import os

import nibabel
import numpy as np
import pytest

from sagemaker_monai.data.cache import load_images
from sagemaker_monai.data.prepared_once import INDEX_FILE
from sagemaker_monai.images.sample import Sample, Sequences
from sagemaker_monai.preprocessing.preprocessing import build_preprocessing
from sagemaker_monai.preprocessing.presets import preprocessing_for
from tests.support.dicom_samples import series_bytes, series_values

BROKEN = 2  # index of the unreadable one


def preprocessing(channels=1, **changes):
    arguments = {"image_size": 8, "fit": "pad", "spacing_mm": "2", **changes}
    return build_preprocessing(preprocessing_for("ct_volume", channels=channels, **arguments))


@pytest.fixture
def samples(tmp_path):
    """Two series in folders, something broken, a NIfTI volume."""
    paths = []
    for index in range(2):
        paths.append(tmp_path / f"series {index}")
        paths[-1].mkdir()
        for number, data in enumerate(series_bytes(series_values(seed=index))):
            (paths[-1] / str(number)).write_bytes(data)
    paths.append(tmp_path / "broken.nii.gz")
    paths[-1].write_bytes(b"\x1f\x8b broken")
    paths.append(tmp_path / "volume.nii.gz")
    nibabel.save(nibabel.Nifti1Image(np.random.default_rng(0).normal(0, 300, (9, 8, 7)), np.eye(4)), paths[-1])
    return [Sample(path) for path in paths]


def load(samples, cache_dir, workers=1, both=None):
    return load_images(samples, both or preprocessing(), cache_dir=cache_dir, workers=workers, what="reading volumes")


@pytest.mark.parametrize(("workers", "is_cached"), [(1, False), (2, True)])
def test_the_values_are_those_that_load_gives_bit_for_bit(samples, tmp_path, workers, is_cached):
    cache_dir = tmp_path / "cache" if is_cached else None

    loaded = load(samples, cache_dir, workers)
    again = load(samples, cache_dir)

    assert (loaded.pixels.shape, loaded.pixels.dtype) == ((4, 1, 8, 8, 8), np.float32)
    assert loaded.unreadable == (BROKEN,)
    for index, sample in enumerate(samples):
        expected = np.zeros((1, 8, 8, 8)) if index == BROKEN else preprocessing().load(sample).numpy()
        assert np.array_equal(loaded.pixels[index], expected)
    assert np.array_equal(again.pixels, loaded.pixels)


def test_sequences_go_through_workers(tmp_path):
    paths = [tmp_path / f"{index}.nii" for index in range(4)]
    for index, path in enumerate(paths):
        nibabel.save(nibabel.Nifti1Image(np.full((4, 4, 4), index * 10.0), np.eye(4)), path)
    samples = [Sample(Sequences((paths[0], paths[1]))), Sample(Sequences((paths[2], paths[3])))]
    both = preprocessing(channels=2, window="none")

    loaded = load(samples, tmp_path / "cache", workers=2, both=both)

    assert loaded.unreadable == ()
    assert np.array_equal(loaded.pixels[1], both.load(samples[1]).numpy())
    assert loaded.pixels.shape == (2, 2, 8, 8, 8)


def change_one_byte(path):
    """As a corrected value does: neither size nor time tell."""
    status, content = path.stat(), bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


@pytest.mark.parametrize("change", ["value", "more", "less", "preset", "formats", "reader"])
def test_whatever_decides_the_values_makes_another_cache(samples, tmp_path, monkeypatch, change):
    load(samples, tmp_path / "cache")
    folder, both = samples[1].source, preprocessing()
    if change == "value":
        change_one_byte(folder / "3")
    elif change == "more":
        (folder / "deeper").mkdir()
        (folder / "deeper" / "x").write_bytes(b"")
    elif change == "less":
        (folder / "0").unlink()
    elif change == "preset":
        both = preprocessing(window="lung")
    elif change == "formats":
        samples[3] = Sample(samples[3].source, ("NIFTI",))
    else:
        monkeypatch.setattr("sagemaker_monai.data.cache_keys._version", lambda name: "0")

    load(samples, tmp_path / "cache", both=both)

    assert len(list((tmp_path / "cache").iterdir())) == 2


def test_the_voxels_of_a_header_are_beside_it_and_count(tmp_path):
    nibabel.save(nibabel.Nifti1Pair(np.ones((4, 4, 4), np.float32), np.eye(4)), tmp_path / "pair.img")
    samples = [Sample(tmp_path / "pair.hdr")]

    load(samples, tmp_path / "cache")
    os.utime(tmp_path / "pair.img", ns=(1, 1))
    load(samples, tmp_path / "cache")
    assert len(list((tmp_path / "cache").iterdir())) == 1
    change_one_byte(tmp_path / "pair.img")
    load(samples, tmp_path / "cache")

    assert len(list((tmp_path / "cache").iterdir())) == 2


def test_a_cache_of_another_type_is_built_again(samples, tmp_path):
    first = load(samples, tmp_path / "cache")
    [folder] = (tmp_path / "cache").iterdir()
    index = json.loads((folder / INDEX_FILE).read_text())
    (folder / INDEX_FILE).write_text(json.dumps(index | {"dtype": "int32"}))

    assert np.array_equal(load(samples, tmp_path / "cache").pixels, first.pixels)
    assert json.loads((folder / INDEX_FILE).read_text())["dtype"] == "float32"


def test_what_is_no_file_is_our_own_mistake(tmp_path):
    with pytest.raises(TypeError, match="a cache needs files, got ndarray"):
        load([Sample(np.zeros((4, 4, 4)))], tmp_path / "cache")
