"""A data set is known by its bytes: what is read again, what is remembered, and what ends a run."""

import hashlib
import json
import os
from pathlib import Path

import pytest

from sagemaker_monai.data.datasets import CONTENTS, is_same_data
from sagemaker_monai.errors import DatasetError, TrainingStopped
from sagemaker_monai.storage import digests as module
from sagemaker_monai.storage.digests import UNREADABLE, Digests

OLD_NS = 1_600_000_000 * 10**9


@pytest.fixture
def reads(monkeypatch):
    """Names of the files that are read, in no order."""
    names = []
    read = module._read

    def counted(path):
        names.append(path.name)
        return read(path)

    monkeypatch.setattr(module, "_read", counted)
    return names


@pytest.fixture
def settled(monkeypatch):
    """A file's time counts at once, as that of a file of last week does."""
    monkeypatch.setattr(module, "SETTLED_S", -60.0)


def write(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


def test_a_digest_is_that_of_the_bytes_and_nothing_else(tmp_path):
    a, b = write(tmp_path / "a", b"x" * 3_000_000), write(tmp_path / "b", b"")
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe")
    none = [tmp_path / "folder", tmp_path / "pipe", tmp_path / "gone"]

    found = Digests().of([a, b, *none, a])

    assert found == {
        a: hashlib.sha256(b"x" * 3_000_000).hexdigest(),
        b: hashlib.sha256(b"").hexdigest(),
        **dict.fromkeys(none, UNREADABLE),
    }


def test_a_file_is_read_once_and_again_when_it_was_touched(tmp_path, reads, settled):
    path, digests = write(tmp_path / "a", b"1"), Digests()
    first = digests.of([path])
    assert digests.of([path]) == first
    assert reads == ["a"]

    os.utime(path, ns=(OLD_NS, OLD_NS))

    assert digests.of([path]) == first
    assert reads == ["a", "a"]


def test_a_file_of_this_moment_is_read_again_for_its_time_says_nothing_yet(tmp_path, reads):
    path, digests = write(tmp_path / "a", b"1"), Digests()

    assert digests.of([path]) == digests.of([path])
    assert reads == ["a", "a"]


@pytest.mark.parametrize("is_settled", [True, False])
def test_a_change_within_a_run_ends_it_whatever_its_size_and_time(tmp_path, monkeypatch, is_settled):
    monkeypatch.setattr(module, "SETTLED_S", -60.0 if is_settled else 60.0)
    path, digests = write(tmp_path / "a.bmp", b"1"), Digests()
    os.utime(path, ns=(OLD_NS, OLD_NS))
    digests.of([path])

    write(path, b"2")
    os.utime(path, ns=(OLD_NS, OLD_NS))  # as a copy with its times does

    with pytest.raises(DatasetError, match=r"^1 files of the data set changed while it was read \(a\.bmp\): leave"):
        digests.of([path])


def test_a_later_run_takes_what_was_remembered_and_sees_what_changed(tmp_path, reads, settled):
    files = [write(tmp_path / name, name.encode()) for name in "abc"]
    memory = tmp_path / "memory.json"
    first = Digests(memory)
    before = first.of(files)
    first.save()
    reads.clear()
    write(files[1], b"B")

    after = Digests(memory).of(files)

    assert reads == ["b"]
    assert {path.name for path in files if before[path] != after[path]} == {"b"}
    assert memory.stat().st_mode & 0o777 == 0o600


def test_another_file_of_the_same_name_size_and_time_is_read(tmp_path, reads, settled):
    path, other = write(tmp_path / "a", b"1"), write(tmp_path / "b", b"2")
    for each in (path, other):
        os.utime(each, ns=(OLD_NS, OLD_NS))
    first = Digests(tmp_path / "memory.json")
    first.of([path])
    first.save()

    other.replace(path)

    assert Digests(tmp_path / "memory.json").of([path]) == {path: hashlib.sha256(b"2").hexdigest()}


def change(memory, how):
    content = json.loads(memory.read_text())
    how(content)
    memory.write_text(json.dumps(content))


def row(content):
    return next(iter(content["files"].values()))


@pytest.mark.parametrize(
    "spoil",
    [
        lambda memory: memory.write_text("{"),
        lambda memory: memory.write_text("[" * 100_000),
        lambda memory: memory.write_text("[]"),
        lambda memory: change(memory, lambda content: content.update(version=0)),
        lambda memory: change(memory, lambda content: content.update(files=[])),
        lambda memory: change(memory, lambda content: row(content).pop()),
        lambda memory: change(memory, lambda content: row(content).__setitem__(5, "0")),
        lambda memory: change(memory, lambda content: row(content).__setitem__(0, True)),
        lambda memory: memory.chmod(0o620),
        lambda memory: (memory.rename(memory.with_name("m")), memory.symlink_to("m")),
        lambda memory: (memory.unlink(), os.mkfifo(memory)),
    ],
)
def test_a_memory_that_is_broken_or_that_others_could_have_written_is_none(tmp_path, reads, settled, spoil):
    path, memory = write(tmp_path / "a", b"1"), tmp_path / "memory.json"
    first = Digests(memory)
    found = first.of([path])
    first.save()
    spoil(memory)
    reads.clear()

    assert Digests(memory).of([path]) == found
    assert reads == ["a"]


def test_without_a_place_for_the_memory_the_digests_are_the_same(tmp_path):
    path, digests = write(tmp_path / "a", b"1"), Digests(tmp_path / "no folder" / "memory.json")

    assert digests.of([path]) == Digests().of([path])
    digests.save()
    assert [each.name for each in tmp_path.iterdir()] == ["a"]


def test_a_stop_is_heard_while_files_are_read(tmp_path):
    with pytest.raises(TrainingStopped):
        Digests(is_stopping=lambda: True).of([write(tmp_path / "a", b"1")])


def test_fingerprints_of_two_ages_are_not_said_to_be_equal_or_unequal():
    old, new = "0" * 64, CONTENTS + "0" * 64

    assert is_same_data(new, new) is True
    assert is_same_data(new, CONTENTS + "1" * 64) is False
    assert is_same_data(old, new) is is_same_data(new, old) is is_same_data(old, old) is None
