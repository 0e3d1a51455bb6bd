"""Files that crash or never end are given up, and all others are looked at."""

import time
from pathlib import Path

import pytest

from sagemaker_monai.doctor.facts import FileFacts, Task, look_at
from sagemaker_monai.doctor.found_files import Found
from sagemaker_monai.doctor.processes import map_isolated
from tests.support.doubled import double, given_up


@pytest.mark.parametrize("processes", [0, 2])
def test_every_item_has_its_result(processes):
    results = list(map_isolated(double, range(30), given_up, processes=processes))

    assert sorted(results) == [(n, 2 * n) for n in range(30)]


def test_a_crash_costs_the_item_that_crashes_and_no_other():
    items = [*range(20), "crash", *range(21, 40)]

    results = dict(map_isolated(double, items, given_up, processes=2))

    assert results.pop(20) == "gave up crash"
    assert results == {n: 2 * n for n in range(40) if n != 20}


@pytest.mark.long
def test_what_never_ends_is_given_up():
    started = time.monotonic()

    results = dict(map_isolated(double, [1, "hang", 3], given_up, processes=1, stall_s=8, alone_s=8))

    assert results == {0: 2, 1: "gave up hang", 2: 6}
    assert time.monotonic() - started < 60


def test_looking_at_a_file_that_is_gone_or_breaks_its_reader_returns(tmp_path, monkeypatch):
    path = tmp_path / "x.dcm"
    gone = look_at(Task(Found(path, "x.dcm", str(path), "DICOM")))
    path.write_bytes(b"")

    def broken(*_):
        raise ZeroDivisionError("Doe^John")

    monkeypatch.setattr("sagemaker_monai.doctor.facts.instance_of", broken)
    odd = look_at(Task(Found(path, "x.dcm", str(path), "DICOM")))

    assert isinstance(gone, FileFacts)
    assert (gone.fault, odd.fault) == ("Unreadable", "InternalError")
    assert "Doe" not in repr(odd)
    assert isinstance(odd.found.path, Path)
