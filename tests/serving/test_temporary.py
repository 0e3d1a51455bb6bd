"""Folders of servers: gone with their owners, and never taken from one that lives."""

import os
import signal
import subprocess
import sys
import tempfile

import pytest

from sagemaker_monai.serving.temporary import LOCK, remove_abandoned, temporary_folder

OWNER = """
import sys
from sagemaker_monai.serving.temporary import temporary_folder
with temporary_folder("x-") as folder:
    (folder / "home").mkdir()
    (folder / "home" / "picture").write_bytes(bytes(1000))
    print(folder, flush=True)
    sys.stdin.read()
"""


@pytest.fixture(autouse=True)
def place(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    return tmp_path


@pytest.fixture
def owner():
    """A process that has made a folder, and its folder's name."""
    with subprocess.Popen(
        [sys.executable, "-c", OWNER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        yield process, process.stdout.readline().strip().rpartition("/")[2]
        process.kill()


def test_a_folder_is_gone_after_its_block(place):
    with temporary_folder("mms-") as folder:
        assert folder.parent == place
        assert folder.name.startswith("serve-mms-")
        assert folder.stat().st_mode & 0o777 == 0o700
    assert list(place.iterdir()) == []


def test_what_a_killed_process_left_is_removed_at_the_next_start_and_not_before(place, owner):
    process, name = owner

    assert remove_abandoned() == []
    assert (place / name / "home" / "picture").exists()
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert remove_abandoned() == [name]
    assert list(place.iterdir()) == []


def test_other_folders_are_left_alone(place):
    (place / "serve-of-somebody").mkdir()  # no lock: not ours, or in the making
    (place / "other").mkdir()
    (place / "other" / LOCK).touch()
    (place / "serve-file").touch()
    (place / "serve-link").symlink_to(place / "other")
    (place / "serve-linked-lock").mkdir()
    (place / "serve-linked-lock" / LOCK).symlink_to(place / "other" / LOCK)
    before = sorted(place.iterdir())

    assert remove_abandoned() == []
    assert sorted(place.iterdir()) == before


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a folder away")
def test_a_folder_of_another_account_is_left_alone(place):
    (place / "serve-x").mkdir()
    (place / "serve-x" / LOCK).touch()
    os.chown(place / "serve-x", 54_321, 54_321)

    assert remove_abandoned() == []


def test_without_a_place_there_is_nothing_to_remove(place):
    assert remove_abandoned(place / "absent") == []
