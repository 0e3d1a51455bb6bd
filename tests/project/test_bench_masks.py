"""The measurements of segmentation, with small images."""

import mmap

import numpy as np

from develop import bench_masks


def test_the_request_is_measured_with_each_of_its_answers(monkeypatch):
    monkeypatch.setattr(bench_masks, "WINDOW", (16, 16, 16))
    monkeypatch.setattr(bench_masks, "WIDTH", 4)
    monkeypatch.setattr(bench_masks, "ACCEPTS", {frozenset(): ("application/json", "application/x-nifti")})

    rows = bench_masks.request_rows(24, 20)

    assert "24 x 24 x 20" in rows[0]
    numbers = {row.split(" | ")[0].strip("| "): row.strip("| ").split(" | ")[1:] for row in rows[4:]}
    assert set(numbers) == {"request", "application/json", "application/x-nifti"}
    assert float(numbers["request"][-1]) > 0  # foreseen
    assert all(float(numbers[accept][0]) >= 0 for accept in ("application/json", "application/x-nifti"))


def test_memory_is_that_of_the_block_and_no_mapped_file(tmp_path):
    (tmp_path / "file").write_bytes(bytes(30 << 20))
    with bench_masks.watched() as spent:
        mapped = np.memmap(tmp_path / "file", np.uint8, "r").sum()
        # Not by malloc, which may hand out again what an earlier test gave back.
        held = np.frombuffer(mmap.mmap(-1, 60 << 20, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS), np.uint8)
        held[:] = 1
        bench_masks.time.sleep(0.05)

    assert mapped == 0
    assert held.nbytes <= spent.peak_bytes + (1 << 20) < held.nbytes + (20 << 20)
