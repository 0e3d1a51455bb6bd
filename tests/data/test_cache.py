import json
import os
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from PIL import Image

from sagemaker_monai.data import cache, prepared_once
from sagemaker_monai.data.cache import PIXELS_FILE, load_images
from sagemaker_monai.data.prepared_once import INDEX_FILE
from sagemaker_monai.errors import DatasetError, TrainingStopped
from sagemaker_monai.images.sample import Sample
from sagemaker_monai.preprocessing.preprocessing import build_preprocessing, photograph_preprocessing
from sagemaker_monai.storage.digests import Digests

BROKEN = 3  # index of the unreadable file


@pytest.fixture
def files(tmp_path):
    folder = tmp_path / "pictures"
    folder.mkdir()
    paths = []
    for index in range(7):
        values = np.random.default_rng(index).integers(0, 256, (40, 60, 3), dtype=np.uint8)
        paths.append(folder / f"picture {index}.jpg")
        Image.fromarray(values).save(paths[-1])
    paths[BROKEN].write_bytes(b"not a picture")
    return paths


def preprocessing(image_size=16, **changes):
    return build_preprocessing(
        photograph_preprocessing(**{"channels": 3, "image_size": image_size, "fit": "stretch", **changes})
    )


def expected(files, both):
    rows = [both.load(Sample(path)).numpy() if i != BROKEN else None for i, path in enumerate(files)]
    return np.stack([np.zeros_like(rows[0]) if row is None else row for row in rows])


def load(files, cache_dir, workers=1, both=None, **options):
    settings = {"cache_dir": cache_dir, "workers": workers, "what": "reading images", **options}
    return load_images([Sample(path) for path in files], both or preprocessing(), **settings)


def forbid_decoding(monkeypatch):
    def fail(*arguments, **options):
        raise AssertionError("decoded again")

    monkeypatch.setattr(cache, "_build", fail)


@pytest.mark.parametrize(("workers", "is_cached"), [(0, False), (1, True), (2, True), (2, False)])
def test_the_pixels_are_those_that_load_gives(files, tmp_path, workers, is_cached):
    loaded = load(files, tmp_path / "cache" if is_cached else None, workers)

    assert np.array_equal(loaded.pixels, expected(files, preprocessing()))
    assert loaded.unreadable == (BROKEN,)
    assert loaded.pixels.dtype == np.uint8


def test_more_workers_than_pictures_do_no_harm(files):
    assert np.array_equal(load(files[:2], None, workers=20).pixels, expected(files, preprocessing())[:2])


def test_a_second_time_nothing_is_decoded(files, tmp_path, monkeypatch):
    first = load(files, tmp_path / "cache")
    forbid_decoding(monkeypatch)

    second = load(files, tmp_path / "cache")

    assert np.array_equal(second.pixels, first.pixels)
    assert second.unreadable == first.unreadable
    assert not second.pixels.flags.writeable


@pytest.mark.parametrize(
    "change", ["name", "content", "order", "fewer", "size", "fit", "channels", "version", "deleted"]
)
def test_whatever_decides_the_pixels_makes_another_cache(files, tmp_path, monkeypatch, change):
    load(files, tmp_path / "cache")
    both = preprocessing()
    if change == "name":
        files[0] = files[0].rename(files[0].with_suffix(".png"))
    elif change == "content":
        status = files[0].stat()
        files[0].write_bytes(files[1].read_bytes() + b"\0")
        os.utime(files[0], ns=(status.st_atime_ns, status.st_mtime_ns))
    elif change == "order":
        files[0], files[1] = files[1], files[0]
    elif change == "fewer":
        files.pop()
    elif change == "version":
        monkeypatch.setattr("PIL.__version__", "0")
    elif change == "deleted":
        files[BROKEN].unlink()
    else:
        changes = {"size": {"image_size": 8}, "fit": {"fit": "crop"}, "channels": {"channels": 1}}[change]
        both = preprocessing(**changes)

    loaded = load(files, tmp_path / "cache", both=both)

    assert len(list((tmp_path / "cache").iterdir())) == 2
    assert np.array_equal(loaded.pixels, expected(files, both))


@pytest.mark.parametrize("change", ["touch", "move"])
def test_a_data_set_that_was_touched_or_moved_keeps_its_cache(files, tmp_path, monkeypatch, change):
    first = load(files, tmp_path / "cache")
    forbid_decoding(monkeypatch)
    if change == "touch":
        os.utime(files[0], ns=(1, 1))
    else:
        files[0].parent.rename(tmp_path / "elsewhere")
        files = [tmp_path / "elsewhere" / path.name for path in files]

    assert np.array_equal(load(files, tmp_path / "cache").pixels, first.pixels)


@pytest.mark.parametrize("is_seen_before", [True, False])
def test_a_picture_that_changes_while_it_is_read_leaves_no_cache(files, tmp_path, monkeypatch, is_seen_before):
    digests = Digests()
    if is_seen_before:
        digests.of(files)
    build = cache._build

    def change(*arguments, **options):
        built = build(*arguments, **options)
        files[0].write_bytes(files[0].read_bytes()[:-1] + b"\0")
        return built

    monkeypatch.setattr(cache, "_build", change)

    with pytest.raises(DatasetError, match=r"1 files of the data set changed while it was read \(picture 0\.jpg\)"):
        load(files, tmp_path / "cache", digests=digests)
    assert list((tmp_path / "cache").iterdir()) == []


def test_the_scale_half_may_change_without_decoding_again(files, tmp_path):
    load(files, tmp_path / "cache")
    spec = photograph_preprocessing(channels=3, image_size=16, fit="stretch")
    spec[1]["mean"] = [0.0, 0.0, 0.0]

    load(files, tmp_path / "cache", both=build_preprocessing(spec))

    assert len(list((tmp_path / "cache").iterdir())) == 1


def flip_a_bit(folder):
    content = bytearray((folder / PIXELS_FILE).read_bytes())
    content[100] ^= 1
    (folder / PIXELS_FILE).write_bytes(content)


def cut_off(folder):
    os.truncate(folder / PIXELS_FILE, 100)


def claim_another_shape(folder):
    index = json.loads((folder / INDEX_FILE).read_text())
    index["shape"] = index["shape"][::-1]
    (folder / INDEX_FILE).write_text(json.dumps(index))


def be_a_file(folder):
    shutil.rmtree(folder)
    folder.write_bytes(b"")


@pytest.mark.parametrize(
    "damage",
    [
        flip_a_bit,
        cut_off,
        claim_another_shape,
        be_a_file,
        lambda folder: (folder / INDEX_FILE).write_text("{"),
        lambda folder: (folder / INDEX_FILE).write_text("{}"),
        lambda folder: (folder / INDEX_FILE).write_text("[]"),
        lambda folder: (folder / INDEX_FILE).unlink(),
        lambda folder: (folder / PIXELS_FILE).unlink(),
    ],
)
def test_a_damaged_cache_is_built_again(files, tmp_path, damage, monkeypatch):
    load(files, tmp_path / "cache")
    [folder] = (tmp_path / "cache").iterdir()
    damage(folder)

    loaded = load(files, tmp_path / "cache")

    assert np.array_equal(loaded.pixels, expected(files, preprocessing()))
    assert [path.name for path in (tmp_path / "cache").iterdir()] == [folder.name]
    forbid_decoding(monkeypatch)
    assert np.array_equal(load(files, tmp_path / "cache").pixels, loaded.pixels)


def test_an_interrupted_build_leaves_nothing_behind(files, tmp_path, monkeypatch):
    def interrupted(*arguments):
        yield 0, None
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(cache, "_load_each", interrupted)
        with pytest.raises(KeyboardInterrupt):
            load(files, tmp_path / "cache")

    assert list((tmp_path / "cache").iterdir()) == []
    assert load(files, tmp_path / "cache").unreadable == (BROKEN,)


def test_builders_at_the_same_time_share_one_sound_cache(files, tmp_path):
    with ThreadPoolExecutor(4) as pool:
        loaded = list(pool.map(lambda workers: load(files, tmp_path / "cache", workers), [1, 2, 1, 2]))

    assert len(list((tmp_path / "cache").iterdir())) == 1
    for one in loaded:
        assert np.array_equal(one.pixels, expected(files, preprocessing()))


def test_a_full_disk_means_memory(files, tmp_path, monkeypatch, capsys):
    def no_space(*arguments):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", no_space)

    loaded = load(files, tmp_path / "cache", workers=2)

    assert np.array_equal(loaded.pixels, expected(files, preprocessing()))
    assert "keeping it in memory" in capsys.readouterr().err
    assert list((tmp_path / "cache").iterdir()) == []


@pytest.mark.parametrize("workers", [1, 2])
def test_no_pictures_are_an_empty_array(tmp_path, workers):
    loaded = load([], tmp_path / "cache", workers)

    assert loaded.pixels.shape == (0, 3, 16, 16)
    assert loaded.unreadable == ()


def test_a_worker_that_dies_is_reported_with_its_picture(files, monkeypatch):
    code = (
        "import json, os, sys; place = json.load(sys.stdin)['samples'][0][0];"
        "os.write(1, json.dumps([place, None]).encode() + b'\\n'); os.kill(os.getpid(), 9)"
    )
    real = subprocess.Popen
    monkeypatch.setattr(subprocess, "Popen", lambda command, **k: real([command[0], "-c", code], **k))

    with pytest.raises(RuntimeError, match=r"status -9 at picture 2\.jpg"):
        load(files, None, workers=2)


def test_a_worker_that_cannot_start_is_reported(files, monkeypatch):
    monkeypatch.setattr(sys, "executable", "/bin/false")

    with pytest.raises(RuntimeError, match="status 1 at picture 0"):
        load(files, None, workers=2)


def test_what_a_library_prints_in_a_worker_is_no_result():
    code = (
        "from sagemaker_monai.data.prepared_once import tell\n"
        "def work(job):\n    print('noise')\n    yield job, None\n    raise OSError(28, 'full')\n"
        "tell(work)"
    )
    ran = subprocess.run([sys.executable, "-c", code], input=b"7", capture_output=True, check=True)

    assert ran.stdout == b"[7, null]\n[null, 28]\n"
    assert b"noise" in ran.stderr


def test_progress_counts_every_picture(files, monkeypatch):
    seen = []

    def track(items, *, total, what):
        seen.append((total, what))
        yield from items

    monkeypatch.setattr(prepared_once, "track", track)

    load(files, None, workers=2)

    assert seen == [(7, "reading images")]


def test_more_than_one_check_block_is_checked(monkeypatch):
    pixels = np.random.default_rng(0).integers(0, 256, (3, 7, 11), dtype=np.uint8)
    whole = prepared_once.checksum(pixels)
    monkeypatch.setattr(prepared_once, "_CHECK_BYTES", 10)

    assert prepared_once.checksum(pixels) == whole


@pytest.mark.parametrize("workers", [1, 2])
def test_reading_stops_when_asked_and_leaves_nothing_behind(files, tmp_path, workers):
    asked = iter([False, False, True])

    with pytest.raises(TrainingStopped, match="stopped while images were read"):
        load(files, tmp_path / "cache", workers, is_stopping=lambda: next(asked))

    assert list((tmp_path / "cache").iterdir()) == []
