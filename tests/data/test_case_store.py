"""The store of images and masks: what masks of other tools are read as, and what happens to its workers."""

import errno
import os
import subprocess
import sys

import nibabel
import numpy as np
import pytest
from PIL import Image

from sagemaker_monai.data import case_store
from sagemaker_monai.data.case_store import open_store
from sagemaker_monai.data.legends import Legend, read_legend
from sagemaker_monai.data.mask_reading import read_case
from sagemaker_monai.errors import DatasetError, TrainingStopped, UnsuitableImage
from sagemaker_monai.images.sample import Sample
from sagemaker_monai.preprocessing.deep_pictures import LoadDeepPicture
from sagemaker_monai.preprocessing.preprocessing import build_preprocessing, photograph_preprocessing
from sagemaker_monai.storage.digests import Digests
from sagemaker_monai.tasks.label_maps import IGNORED
from tests.support.deep_files import png16, tiff
from tests.support.mask_sets import ball_volume
from tests.support.segmentations import segmentation, series, written

NAMED = read_legend({"background": 0, "liver": 1, "spleen": 2})


def volume_preprocessing():
    load = {
        "_target_": "sagemaker_monai.transforms.LoadVolume", "channels": 1, "size": [8, 8, 8], "fit": "whole",
        "orientation": "RAS", "spacing_mm": None, "intensity": {"kind": "none"},
    }  # fmt: skip
    scale = {"_target_": "sagemaker_monai.transforms.NormalizeIntensity", "mean": [0.0], "std": [1.0]}
    return build_preprocessing([load, scale])


def write_pairs(folder, count):
    """Images and masks of one bright ball and one dark one."""
    images, masks = [], []
    for index in range(count):
        values, labels, affine = ball_volume(index, shape=(14, 12, 10))
        for kind, array, paths in (("image", values, images), ("mask", labels, masks)):
            paths.append(folder / f"{kind}{index}.nii")
            nibabel.save(nibabel.Nifti1Image(array, affine), paths[-1])
    return images, masks


def store_of(images, masks, cache_dir, legend, **options):
    options = {"workers": 2, "what": "reading", "digests": Digests()} | options
    samples = [Sample(image) for image in images]
    return open_store(samples, masks, legend, volume_preprocessing(), cache_dir=cache_dir, **options)


def test_entries_longer_than_a_pipe_takes_at_once_come_whole_from_every_process(tmp_path):
    images, masks = write_pairs(tmp_path, 6)
    many = Legend(tuple(range(1, 251)), tuple(f"structure {index}" for index in range(1, 251)))
    for index, mask in enumerate(masks):
        labels = (np.arange(14 * 12 * 10).reshape(14, 12, 10) + index) % 251
        nibabel.save(nibabel.Nifti1Image(labels.astype(np.uint8), np.eye(4)), mask)

    store = store_of(images, masks, tmp_path / "cache", many, workers=3)

    assert not store.faults
    for index, (image, mask) in enumerate(zip(images, masks, strict=True)):
        labels = np.asarray(nibabel.load(mask).dataobj)
        assert np.array_equal(store.labels(index), labels)
        assert np.array_equal(store.image(index)[0], np.asarray(nibabel.load(image).dataobj))
        assert store.cases[index].counts[:-1] == tuple(np.bincount(labels.ravel(), minlength=251)[1:])
        assert labels[store.point(index, 17, 3)] == 18


def test_patches_are_drawn_about_voxels_of_a_whole_region(tmp_path):
    images, masks = write_pairs(tmp_path, 2)
    legend = read_legend({"background": 0, "both": [1, 2], "dark": 2})

    store = store_of(images, masks, tmp_path / "cache", legend)

    for index, mask in enumerate(masks):
        labels, case = np.asarray(nibabel.load(mask).dataobj), store.cases[index]
        assert case.counts == (int((labels > 0).sum()), int((labels == 2).sum()), 0)
        for label, expected in enumerate(({1, 2}, {2})):
            places = [store.point(index, label, number) for number in range(case.points[label])]
            assert {int(labels[place]) for place in places} == expected


def test_a_stop_while_a_store_is_built_leaves_neither_processes_nor_files(tmp_path, monkeypatch):
    images, masks = write_pairs(tmp_path, 6)
    started, real = [], subprocess.Popen
    monkeypatch.setattr(subprocess, "Popen", lambda *a, **k: started.append(real(*a, **k)) or started[-1])

    with pytest.raises(TrainingStopped):
        store_of(images, masks, tmp_path / "cache", NAMED, is_stopping=lambda: True)

    assert len(started) == 2
    assert all(worker.returncode is not None for worker in started)
    assert not list((tmp_path / "cache").iterdir())


def test_a_full_disk_is_told_as_one(tmp_path, monkeypatch):
    images, masks = write_pairs(tmp_path, 4)
    cache_dir = tmp_path / "cache"
    real = case_store._part_name
    monkeypatch.setattr(case_store, "_part_name", lambda part: "/dev/full" if part == 1 else real(part))

    with pytest.raises(OSError, match="No space left") as caught:
        store_of(images, masks, cache_dir, NAMED)

    assert caught.value.errno == errno.ENOSPC
    assert not list(cache_dir.iterdir())


def test_a_worker_that_dies_is_no_short_data_set(tmp_path, monkeypatch):
    images, masks = write_pairs(tmp_path, 4)
    dying = tmp_path / "python"
    dying.write_text("#!/bin/sh\ncat > /dev/null\nkill -9 $$\n")
    dying.chmod(0o755)
    monkeypatch.setattr(sys, "executable", os.fspath(dying))

    with pytest.raises(RuntimeError, match=r"status -9 at image0\.nii"):
        store_of(images, masks, tmp_path / "cache", NAMED)


def test_a_broken_store_of_that_name_is_replaced(tmp_path):
    images, masks = write_pairs(tmp_path, 3)
    first = store_of(images, masks, tmp_path / "cache", NAMED)
    [folder] = (tmp_path / "cache").iterdir()
    part = folder / "part-0.raw"
    expected = np.array(first.labels(0))
    del first
    part.write_bytes(bytes(part.stat().st_size))

    assert np.array_equal(store_of(images, masks, tmp_path / "cache", NAMED).labels(0), expected)
    assert [each.name for each in (tmp_path / "cache").iterdir()] == [folder.name]
    assert part.read_bytes().strip(b"\0")


def test_another_mask_or_meaning_of_its_values_is_another_store(tmp_path):
    images, masks = write_pairs(tmp_path, 2)
    store_of(images, masks, tmp_path / "cache", NAMED)
    store_of(images, masks, tmp_path / "cache", Legend((2, 1), NAMED.names))
    masks[0].write_bytes(masks[1].read_bytes())
    store_of(images, masks, tmp_path / "cache", NAMED)

    assert len(list((tmp_path / "cache").iterdir())) == 3


def test_a_file_that_gets_another_structure_s_name_is_another_store(tmp_path):
    images, masks = write_pairs(tmp_path, 2)
    folders = [tmp_path / f"structures {index}" for index in range(2)]
    for folder, mask in zip(folders, masks, strict=True):
        folder.mkdir()
        labels, affine = np.asarray(nibabel.load(mask).dataobj), nibabel.load(mask).affine
        for value, name in ((1, "liver"), (2, "spleen")):
            nibabel.save(nibabel.Nifti1Image((labels == value).astype(np.uint8), affine), folder / f"{name}.nii")
    legend = read_legend({"background": 0, "liver": 1, "liver lobe": 2, "spleen": 3})

    before = store_of(images, folders, tmp_path / "cache", legend).cases[0].counts
    (folders[0] / "liver.nii").rename(folders[0] / "liver lobe.nii")
    after = store_of(images, folders, tmp_path / "cache", legend).cases[0].counts

    assert before[0] == after[1] > 0
    assert before[1] == after[0] == 0


# --- what masks mean -------------------------------------------------------------------------------------------------


def write_series(folder, files):
    folder.mkdir()
    for index, file in enumerate(files):
        written(folder / f"{index}.dcm", file)
    return folder


def test_a_segmentation_s_structures_are_taken_by_their_names(tmp_path):
    files = series()
    folder = write_series(tmp_path / "series", files)
    values = np.zeros((len(files), files[0].Rows, files[0].Columns), np.uint8)
    values[1, 2, 3], values[2, 4, 1] = 1, 2
    load = volume_preprocessing().load_pixels

    def labels_of(*names):
        mask = written(tmp_path / "mask.dcm", segmentation(files, values, labels=names))
        return read_case(load, Sample(folder), mask, NAMED)

    usual, swapped = labels_of("liver", "spleen"), labels_of("Spleen", " LIVER")
    assert sorted(np.unique(usual.true)) == [0, 1, 2]
    assert np.array_equal(swapped.true, np.array([0, 2, 1], np.uint8)[usual.true])
    some = labels_of("kidney", "liver")
    assert np.array_equal(some.true, (usual.true == 2).astype(np.uint8))
    assert "structures_left_out" in some.findings
    with pytest.raises(DatasetError, match="calls its structures"):
        labels_of("kidney", "skin")


@pytest.mark.parametrize("flips", [(), (0,), (1,), (2,), (0, 1, 2)])
@pytest.mark.parametrize("order", [(0, 1, 2), (2, 0, 1)])
def test_a_mask_that_another_tool_stored_otherwise_lies_where_it_did(tmp_path, flips, order):
    values, labels, affine = ball_volume(3, shape=(9, 11, 7))
    turn = np.array([[0.8, -0.6, 0], [0.6, 0.8, 0], [0, 0, 1]]) @ np.diag([1.0, 1.5, 3.0])  # oblique, anisotropic
    affine[:3, :3], affine[:3, 3] = turn, (5, -40, 9)
    nibabel.save(nibabel.Nifti1Image(values, affine), tmp_path / "image.nii")
    stored, moved = labels.transpose(order), np.eye(4)[:, [*order, 3]]
    for axis in flips:
        stored = np.flip(stored, axis)
        back = np.eye(4)
        back[axis, axis], back[axis, 3] = -1, stored.shape[axis] - 1
        moved = moved @ back
    nibabel.save(nibabel.Nifti1Image(stored, affine @ moved), tmp_path / "mask.nii")

    case = read_case(
        volume_preprocessing().load_pixels, Sample(tmp_path / "image.nii"), tmp_path / "mask.nii",
        read_legend({"bright": 1, "dark": 2}),
    )  # fmt: skip

    assert np.array_equal(case.true, labels)
    [prepared] = case.values
    # The balls are where the image is bright and dark, on the prepared grid too.
    assert prepared[case.prepared_labels(volume_preprocessing().load_pixels) == 1].min() > 130
    assert prepared[case.prepared_labels(volume_preprocessing().load_pixels) == 2].max() < 70


def picture_case(folder, labels, pixels, exif=None, **changes):
    """A picture and its mask as files, and the load half of photographs."""
    Image.fromarray(labels).save(folder / "mask.png")
    Image.fromarray(pixels).save(folder / "image.png", **({} if exif is None else {"exif": exif}))
    spec = photograph_preprocessing(**{"channels": 3, "image_size": 16, "fit": "stretch", **changes})
    return build_preprocessing(spec).load_pixels


@pytest.mark.parametrize(("names", "expected"), [
    ({"background": 0, "lesion": 255}, 1),
    ({"background": 0, "lesion": 1}, 1),
    ({"background": 0, "lesion": 1, "ignore": 255}, IGNORED),
])  # fmt: skip
def test_white_is_one_unless_it_has_a_name(tmp_path, names, expected):
    pixels = np.random.default_rng(0).integers(0, 255, (20, 24, 3), dtype=np.uint8)
    mask = np.zeros((20, 24), np.uint8)
    mask[3:9, 4:8] = 255
    load = picture_case(tmp_path, mask, pixels)

    case = read_case(load, Sample(tmp_path / "image.png"), tmp_path / "mask.png", read_legend(names))

    assert np.array_equal(case.true, np.where(mask.T > 0, expected, 0))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_photograph_that_is_turned_by_its_header_has_its_mask_upright(tmp_path, orientation):
    upright = np.full((20, 30, 3), 60, np.uint8)
    upright[2:8, 15:27] = 220
    mask = (upright[..., 0] > 100).astype(np.uint8)
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored = {
        1: lambda a: a, 2: np.fliplr, 3: lambda a: np.rot90(a, 2), 4: np.flipud, 5: lambda a: a.swapaxes(0, 1),
        6: lambda a: np.rot90(a, 1), 7: lambda a: np.rot90(a, 2).swapaxes(0, 1), 8: lambda a: np.rot90(a, -1),
    }[orientation](upright)  # fmt: skip
    load = picture_case(tmp_path, mask, np.ascontiguousarray(stored), exif=exif, fit="pad", image_size=30)

    case = read_case(load, Sample(tmp_path / "image.png"), tmp_path / "mask.png", read_legend({"lesion": 1}))

    assert np.array_equal(case.true, mask.T)
    assert np.array_equal(case.prepared_labels(load) == 1, case.values[0] > 140)


@pytest.mark.parametrize("form", ["grey", "colours", "float", "png", "png in colours"])
def test_the_mask_of_a_picture_of_many_bits_goes_its_way(tmp_path, form):
    mask = np.zeros((20, 30), np.uint8)
    mask[2:8, 15:27] = 1
    values = 1_000 + 20_000 * mask.astype(np.float32)
    image = tmp_path / "image"
    whole = values.astype(np.uint16)
    image.write_bytes({
        "grey": lambda: tiff(whole),
        "colours": lambda: tiff(np.repeat(whole[..., np.newaxis], 3, axis=2), photometric=2),
        "float": lambda: tiff(values),
        "png": lambda: png16(whole),
        "png in colours": lambda: png16(np.repeat(whole[..., np.newaxis], 3, axis=2)),
    }[form]())  # fmt: skip
    Image.fromarray(mask).save(tmp_path / "mask.png")
    spec = {"kind": "range", "low": 0, "high": 30_000}
    load = LoadDeepPicture(1, (30, 30), "pad", spec)

    case = read_case(load, Sample(image), tmp_path / "mask.png", read_legend({"lesion": 1}))

    assert case.traits.size == (30, 20)
    assert np.array_equal(case.prepared_labels(load) == 1, case.values[0] > 0.4)


def test_an_image_is_not_its_own_mask(tmp_path):
    images, _ = write_pairs(tmp_path, 1)

    with pytest.raises(UnsuitableImage, match="not whole"):
        read_case(volume_preprocessing().load_pixels, Sample(images[0]), images[0], NAMED)


def test_a_mask_without_any_annotated_voxel_is_refused_as_its_scores_would_be_perfect(tmp_path):
    images, masks = write_pairs(tmp_path, 1)
    nibabel.save(nibabel.Nifti1Image(np.full((14, 12, 10), 3, np.uint8), np.eye(4)), masks[0])
    legend = read_legend({"background": 0, "bright": 1, "dark": 2, "ignore": 3})

    with pytest.raises(DatasetError, match="all of it is ignored"):
        read_case(volume_preprocessing().load_pixels, Sample(images[0]), masks[0], legend)
