import hashlib
import os

import pytest

from sagemaker_monai.storage.files import sha256_of, state_of, write_text


def test_a_file_is_replaced_whole_and_nothing_else_is_left(tmp_path):
    (tmp_path / "a.txt").write_text("old, and longer than what replaces it")

    write_text(tmp_path / "a.txt", "nü\n")

    assert (tmp_path / "a.txt").read_bytes() == b"n\xc3\xbc\n"
    assert [path.name for path in tmp_path.iterdir()] == ["a.txt"]


def test_what_cannot_be_written_leaves_the_old_file_and_nothing_else(tmp_path):
    (tmp_path / "a.txt").mkdir()  # a file cannot take a folder's place

    with pytest.raises(OSError, match="directory"):
        write_text(tmp_path / "a.txt", "new")

    assert [path.name for path in tmp_path.iterdir()] == ["a.txt"]


def test_a_name_that_is_no_unicode_text_is_escaped(tmp_path):
    write_text(tmp_path / "a.txt", b"\xff.jpg".decode("utf-8", "surrogateescape"))

    assert (tmp_path / "a.txt").read_text() == "\\udcff.jpg"


def test_the_digest_is_that_of_the_content(tmp_path):
    (tmp_path / "a").write_bytes(b"abc" * 1_000_000)

    assert sha256_of(tmp_path / "a") == hashlib.sha256(b"abc" * 1_000_000).hexdigest()


def test_a_file_that_was_changed_and_given_its_old_time_is_in_another_state(tmp_path):
    path = tmp_path / "a"
    path.write_bytes(b"1")
    os.utime(path, ns=(1, 1))
    before = state_of(path.stat())
    assert state_of(path.stat()) == before

    (tmp_path / "b").write_bytes(b"2")
    os.utime(tmp_path / "b", ns=(1, 1))
    (tmp_path / "b").replace(path)

    assert state_of(path.stat()) != before
