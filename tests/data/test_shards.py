"""A data set as shards: what comes out is what went in, and whatever is not as it was made is refused."""

import hashlib
import io
import json
import os
import shutil
import subprocess
import sys
import tarfile
import threading

import pytest
import torch
from torch.distributed import HashStore

from sagemaker_monai.artifact.bundle import read_bundle
from sagemaker_monai.data import shards, unpacking
from sagemaker_monai.data.datasets import read_dataset
from sagemaker_monai.data.shards import MANIFEST, plan_shards, write_shards
from sagemaker_monai.data.unpacking import unpack_channels
from sagemaker_monai.entrypoints.train import main
from sagemaker_monai.errors import ConfigError, DatasetError, TrainingStopped
from sagemaker_monai.training.distributed import Processes
from tests.sagemaker.test_launch import Host
from tests.sagemaker.test_train_entrypoint import dataset_json, failure
from tests.support.sharded import write_sharded

SHARD_BYTES = 40_960


def files_of(folder):
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def members(body):
    with tarfile.open(fileobj=io.BytesIO(body)) as tar:
        return tar.getnames()


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    """Twenty-four pictures of about 4 KB, and files that do not belong to the data set."""
    folder = tmp_path_factory.mktemp("plain")
    dataset_json(folder)
    (folder / "notes.txt").write_text("not of the data set")
    (folder / "images" / "unlisted.png").write_bytes(b"nobody names this")
    return folder


@pytest.fixture(scope="module")
def made(plain, tmp_path_factory):
    folder = tmp_path_factory.mktemp("sharded") / "out"
    write_sharded(plain, folder, shard_bytes=SHARD_BYTES)
    return folder


@pytest.fixture
def sharded(made, tmp_path):
    """A copy to spoil."""
    return shutil.copytree(made, tmp_path / "sharded")


def unpack(folder, out, **options):
    return unpack_channels({"training": folder}, out, **options)["training"]


def fingerprint(folder):
    return read_dataset({"training": folder}, validation_fraction=0.2, test_fraction=0.2, seed=0).fingerprint


# --- writing


def test_the_manifest_tells_what_the_shards_are(plain, made):
    manifest = json.loads((made / MANIFEST).read_text())

    assert set(manifest) == {"format", "version", "dataset_json_sha256", "shards"}
    assert (manifest["format"], manifest["version"]) == ("sagemaker-monai-shards", 1)
    assert manifest["dataset_json_sha256"] == hashlib.sha256((plain / "dataset.json").read_bytes()).hexdigest()
    assert len(manifest["shards"]) > 2
    for index, shard in enumerate(manifest["shards"]):
        body = (made / f"shard-{index:05d}.tar").read_bytes()
        assert shard == {
            "name": f"shard-{index:05d}.tar",
            "bytes": len(body),
            "sha256": hashlib.sha256(body).hexdigest(),
            "files": len(members(body)),
        }
        assert len(body) <= SHARD_BYTES
    assert len(files_of(made)) == len(manifest["shards"]) + 2


def test_shards_hold_the_listed_pictures_in_order_and_nothing_else(plain, made):
    names = []
    for path in sorted(made.glob("*.tar")):
        with tarfile.open(path) as tar:
            names += [info.name for info in tar if info.isreg()]

    listed = json.loads((plain / "dataset.json").read_text())
    expected = {item["image"][2:] for split in ("training", "validation", "test") for item in listed[split]}
    assert names == sorted(expected)


def test_the_same_data_set_elsewhere_at_another_time_gives_the_same_bytes(plain, made, tmp_path):
    copy = shutil.copytree(plain, tmp_path / "copy")
    for path in copy.rglob("*"):
        path.chmod(0o700)
        os.utime(path, (1, 1))

    write_sharded(copy, tmp_path / "out", shard_bytes=SHARD_BYTES)

    assert files_of(tmp_path / "out") == files_of(made)


def test_a_shard_is_complete_when_it_is_yielded_and_may_be_taken_away(plain, made, tmp_path):
    for index, shard in enumerate(write_shards(plain, tmp_path, shard_bytes=SHARD_BYTES)):
        assert [path.name for path in tmp_path.iterdir()] == [f"shard-{index:05d}.tar"]
        assert shard.path.read_bytes() == (made / shard.name).read_bytes()
        assert hashlib.sha256(shard.path.read_bytes()).hexdigest() == shard.sha256
        shard.path.unlink()


def test_sizes_are_known_before_a_shard_is_written(plain):
    for planned in plan_shards(plain, shard_bytes=SHARD_BYTES):
        assert planned.size_bytes % 10_240 == 0
        assert planned.size_bytes <= SHARD_BYTES


def test_a_picture_larger_than_a_shard_gets_one_of_its_own(tmp_path):
    dataset_json(tmp_path / "data")
    big = tmp_path / "data" / "images" / "red0.png"
    big.write_bytes(big.read_bytes() + bytes(2 * SHARD_BYTES))

    plan = plan_shards(tmp_path / "data", shard_bytes=SHARD_BYTES)

    [own] = [planned for planned in plan if "images/red0.png" in {name for name, _, _ in planned.images}]
    assert len(own.images) == 1
    assert own.size_bytes > 2 * SHARD_BYTES


def test_a_data_set_without_dataset_json_and_tiny_shards_are_refused(plain, tmp_path):
    with pytest.raises(DatasetError, match=r"shards need a dataset\.json"):
        plan_shards(tmp_path)
    with pytest.raises(ConfigError, match="at least 16384 bytes, got 100"):
        plan_shards(plain, shard_bytes=100)


def test_a_missing_picture_is_refused_before_a_shard_is_written(plain, tmp_path):
    copy = shutil.copytree(plain, tmp_path / "copy")
    (copy / "images" / "red0.png").unlink()

    with pytest.raises(DatasetError, match=r"not in the channel: 1 of 24 \(\./images/red0\.png"):
        write_sharded(copy, tmp_path / "out")
    assert list((tmp_path / "out").iterdir()) == []


@pytest.mark.parametrize("change", [lambda body: body[:-1], lambda body: body + b"x"], ids=["shorter", "longer"])
def test_a_picture_that_changes_meanwhile_is_refused_and_leaves_no_half_shard(plain, tmp_path, change):
    copy = shutil.copytree(plain, tmp_path / "copy")
    planned = plan_shards(copy)[0]
    picture = copy / "images" / "red0.png"
    picture.write_bytes(change(picture.read_bytes()))

    with pytest.raises(DatasetError, match=r"^images/red0\.png changed its size"):
        shards.write_shard(planned, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["copy"]


def test_writing_needs_no_torch():
    code = "import sys, sagemaker_monai.data.shards; print({'torch', 'monai'} & set(sys.modules))"

    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "set()\n"


# --- reading


def test_what_is_unpacked_is_the_data_set_to_the_byte(plain, made, tmp_path):
    folder = unpack(made, tmp_path / "cache")

    expected = files_of(plain)
    del expected["notes.txt"], expected["images/unlisted.png"]
    assert files_of(folder) == expected
    assert fingerprint(folder) == fingerprint(plain)
    assert [path.name for path in (tmp_path / "cache").iterdir()] == ["training"]


def test_only_channels_of_shards_are_unpacked(plain, made, tmp_path):
    weights = shutil.copytree(made, tmp_path / "weights")
    channels = {"training": made, "test": plain, "pretrained": weights}

    assert unpack_channels(channels, tmp_path / "cache") == {
        "training": tmp_path / "cache" / "training",
        "test": plain,
        "pretrained": weights,
    }


def test_of_several_processes_of_a_host_one_unpacks(made, tmp_path, monkeypatch):
    store, calls = HashStore(), []
    real = unpacking._unpack
    monkeypatch.setattr(unpacking, "_unpack", lambda *arguments: (calls.append(arguments[0]), real(*arguments)))
    found = {}

    def work(rank):
        process = Processes(rank=rank, local_rank=rank, world_size=3, store=store)
        process.wait_for_own_host("channels", lambda: False)
        found[rank] = files_of(unpack(made, tmp_path / "cache"))
        process.host_is_ready("channels")

    threads = [threading.Thread(target=work, args=(rank,)) for rank in (2, 1, 0)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert calls == ["training"]
    assert found[0] == found[1] == found[2]
    assert len(found[0]) == 25


def test_names_that_tar_has_no_room_for_come_through(tmp_path):
    data = tmp_path / "data"
    dataset_json(data)
    content = json.loads((data / "dataset.json").read_text())
    folder = data / "images" / ("größer " * 20)
    folder.mkdir()
    moved = folder / ("x" * 200 + ".png")
    (data / content["test"][0]["image"]).rename(moved)
    content["test"][0]["image"] = f"./{moved.relative_to(data).as_posix()}"
    (data / "dataset.json").write_text(json.dumps(content))

    write_sharded(data, tmp_path / "out", shard_bytes=SHARD_BYTES)

    assert files_of(unpack(tmp_path / "out", tmp_path / "cache")) == files_of(data)


def altered(folder, place=slice(2000, 2001)):
    path = folder / "shard-00001.tar"
    body = bytearray(path.read_bytes())
    body[place] = bytes([body[place][0] ^ 1])
    path.write_bytes(body)


def rewritten(folder, *, info=None, drop=False):
    """Another archive in place of a shard, with a manifest that believes in it."""
    path = folder / "shard-00001.tar"
    with tarfile.open(path) as tar:
        members = [(member, tar.extractfile(member).read()) for member in tar]
    stream = io.BytesIO()
    if drop:
        members.pop()
    if info is not None:
        info.size = int(info.isreg())
        members.append((info, b"x"))
    with tarfile.open(fileobj=stream, mode="w") as tar:
        for member, content in members:
            tar.addfile(member, io.BytesIO(content))
    path.write_bytes(stream.getvalue())
    manifest = json.loads((folder / MANIFEST).read_text())
    sha256 = hashlib.sha256(stream.getvalue()).hexdigest()
    manifest["shards"][1] |= {"bytes": path.stat().st_size, "files": len(members), "sha256": sha256}
    (folder / MANIFEST).write_text(json.dumps(manifest))


def named(name, kind=tarfile.REGTYPE):
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, "/etc/passwd" if kind == tarfile.SYMTYPE else ""
    return info


def changed_manifest(change):
    def changed(folder):
        manifest = json.loads((folder / MANIFEST).read_text())
        change(manifest)
        (folder / MANIFEST).write_text(json.dumps(manifest))

    return changed


def other_manifest(**changes):
    return changed_manifest(lambda manifest: manifest.update(changes))


def first_shard(**changes):
    return changed_manifest(lambda manifest: manifest["shards"][0].update(changes))


SPOILT = {
    "missing": (
        lambda folder: (folder / "shard-00001.tar").unlink(),
        r"lacks 1 of \d shards \(shard-00001\.tar\)",
    ),
    "cut off": (lambda folder: os.truncate(folder / "shard-00002.tar", 10_240), r"^shard-00002\.tar has 10240 bytes"),
    "altered": (altered, r"^shard-00001\.tar was altered \(its SHA-256 differs.*upload it again"),
    "altered at its end": (lambda f: altered(f, slice(-1, None)), r"^shard-00001\.tar was altered"),
    "not a tar": (
        lambda folder: (folder / "shard-00000.tar").write_bytes(b"x" * (folder / "shard-00000.tar").stat().st_size),
        r"^shard-00000\.tar cannot be used: the archive is damaged",
    ),
    "file more": (lambda f: rewritten(f, info=named("images/more.png")), r"shard-00001\.tar has a file .*more\.png"),
    "manifest in it": (lambda f: rewritten(f, info=named("dataset.json")), r"does not list.* \(dataset\.json\)"),
    "outside": (lambda f: rewritten(f, info=named("../more.png")), "outside the folder"),
    "link": (lambda f: rewritten(f, info=named("images/l.png", tarfile.SYMTYPE)), "is a link"),
    "picture twice": (
        lambda folder: rewritten(folder, info=named("images/blue0.png")),
        r"^shard-00001\.tar has a file .* that another shard has \(images/blue0\.png\)",
    ),
    "file less": (lambda f: rewritten(f, drop=True), r"no shard of channel training has: 1 \(images/"),
    "more announced": (first_shard(files=99), r"shard-00000\.tar has \d+ pictures and not 99"),
    "fewer announced": (first_shard(files=1), r"shard-00000\.tar cannot be used: the archive has more than 1 members"),
    "another dataset.json": (
        lambda folder: (folder / "dataset.json").write_text((folder / "dataset.json").read_text() + " "),
        r"^dataset\.json is not the one that the shards were made from",
    ),
    "no dataset.json": (lambda folder: (folder / "dataset.json").unlink(), r"no dataset\.json beside shards\.json"),
    "no JSON": (lambda folder: (folder / MANIFEST).write_text("{"), r"shards\.json is not JSON"),
    "a list": (lambda folder: (folder / MANIFEST).write_text("[]"), "is not a manifest of shards"),
    "another format": (other_manifest(format="webdataset"), "is not a manifest of shards"),
    "a later version": (other_manifest(version=2), "has version 2, this program reads 1"),
    "no shards": (other_manifest(shards=[]), "does not list shards"),
    "odd name": (first_shard(name="../x.tar"), "does not list shards"),
    "odd size": (first_shard(bytes="12"), "does not list shards"),
    "odd sum": (first_shard(sha256="x"), "does not list shards"),
    "unknown key": (first_shard(command="rm"), "does not list shards"),
}


def test_what_is_not_as_it_was_made_is_refused_by_name_and_leaves_nothing(made, tmp_path):
    for number, (spoil, expected) in enumerate(SPOILT.values()):
        place = tmp_path / str(number)
        spoil(shutil.copytree(made, place / "sharded"))

        with pytest.raises(DatasetError, match=expected) as caught:
            unpack(place / "sharded", place / "cache")

        assert len(str(caught.value)) < 1000
        assert str(tmp_path) not in str(caught.value)
        assert not (place / "cache").exists() or list((place / "cache").iterdir()) == []
        assert not (place / "more.png").exists()


def test_a_shard_that_the_channel_cannot_give_is_named(sharded, tmp_path, monkeypatch):
    def read(self, size):
        raise OSError(5, "Input/output error")

    counted = unpacking._Counted

    class Broken(counted):
        def __init__(self, file, shard):
            super().__init__(type("File", (), {"read": read})(), shard)

    monkeypatch.setattr(unpacking, "_Counted", Broken)
    with pytest.raises(DatasetError, match=r"^shard-00000\.tar cannot be read \(Input/output error\)"):
        unpack(sharded, tmp_path / "cache")


def test_too_little_room_is_said_before_anything_is_read(made, tmp_path, monkeypatch):
    usage = shutil.disk_usage(tmp_path)._replace(free=100_000)
    monkeypatch.setattr(unpacking.shutil, "disk_usage", lambda path: usage)
    monkeypatch.setattr(unpacking, "read_tar", None)

    with pytest.raises(DatasetError, match=r"unpack to 0 MiB and only 0 MiB are free: .*VolumeSizeInGB.*TMPDIR"):
        unpack(made, tmp_path / "cache")


def test_a_job_that_is_stopped_while_it_unpacks_says_so_and_leaves_nothing(made, tmp_path):
    asked = iter([False, False, True])

    with pytest.raises(TrainingStopped, match="while shards were unpacked"):
        unpack(made, tmp_path / "cache", is_stopping=lambda: next(asked))
    assert list((tmp_path / "cache").iterdir()) == []


# --- training


def trained(base, channel, monkeypatch):
    monkeypatch.setenv("SAGEMAKER_BASE_DIR", str(base))
    monkeypatch.setenv("SM_CHANNEL_TRAINING", str(channel))
    (base / "tmp").mkdir(parents=True)
    monkeypatch.setenv("TMPDIR", str(base / "tmp"))
    return main(["--epochs=2", "--image_size=32", "--batch_size=16", "--num_workers=1"])


@pytest.mark.long
def test_a_training_on_shards_is_the_training_on_the_files(without_sagemaker, plain, made, tmp_path, monkeypatch):
    assert trained(tmp_path / "files", plain, monkeypatch) == 0
    assert trained(tmp_path / "shards", made, monkeypatch) == 0

    first, second = (read_bundle(tmp_path / name / "model") for name in ("files", "shards"))
    weights, others = first.network.state_dict(), second.network.state_dict()
    assert all(torch.equal(weights[name], others[name]) for name in weights)
    assert first.model_version == second.model_version
    jobs = [[path.name for path in (tmp_path / name / "checkpoints").iterdir()] for name in ("files", "shards")]
    assert jobs[0] == jobs[1]
    results = [tmp_path / name / "output" / "data" / "metrics.json" for name in ("files", "shards")]
    assert results[0].read_text() == results[1].read_text()


def test_a_job_with_an_altered_shard_fails_with_its_name(sharded, tmp_path, monkeypatch):
    altered(sharded)

    assert trained(tmp_path / "job", sharded, monkeypatch) == 1
    assert failure(tmp_path / "job").startswith("DatasetError: shard-00001.tar was altered")


@pytest.mark.long
@pytest.mark.parametrize("is_altered", [False, True], ids=["sound", "altered"])
def test_two_processes_of_a_host_train_on_shards_or_fail_together(sharded, tmp_path, is_altered):
    if is_altered:
        altered(sharded)
    host = Host(tmp_path / "host", sharded, epochs="1", processes_per_host="2")
    try:
        assert host.wait() == int(is_altered), host.log
    finally:
        host.process.kill()
    if is_altered:
        assert failure(host.base).startswith("DatasetError: shard-00001.tar was altered")
    else:
        assert read_bundle(host.base / "model").labels == ("blue", "green spots", "red")
