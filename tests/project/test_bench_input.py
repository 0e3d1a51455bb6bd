from pathlib import Path

import pytest
from PIL import Image

from develop import bench_input


def test_drawn_photographs_are_jpegs_of_the_usual_size(tmp_path):
    paths = bench_input.draw_jpegs(tmp_path, 2)

    for path in paths:
        with Image.open(path) as image:
            assert (image.format, image.size) == ("JPEG", (600, 450))
        assert 50_000 < path.stat().st_size < 150_000
    assert paths[0].read_bytes() != paths[1].read_bytes()


def test_cases_take_turns_and_the_first_round_does_not_count():
    order = []
    times = iter([0, 100, 0, 100, 0, 1, 0, 2, 0, 3, 0, 4])

    seconds = bench_input.measure(
        {"a": lambda: order.append("a"), "b": lambda: order.append("b")}, rounds=2, clock=lambda: next(times)
    )

    assert order == ["a", "b"] * 3
    assert seconds == {"a": [1, 3], "b": [2, 4]}


def test_the_table_compares_within_rounds():
    seconds = {"first": [1.0, 10.0, 2.0], "ours": [0.1, 5.0, 0.5]}  # ratios 10, 2, 4

    rows = bench_input.table(seconds, images=10, targets={"ours": 4.5})

    assert rows[2:] == ["| first | 5 | 1.00 |  |", "| ours | 20 | 4.00 | 4.5: MISSED |"]
    assert bench_input.table(seconds, images=10, targets={"ours": 4.0})[-1].endswith("| 4: met |")


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
def test_every_case_runs(capsys):
    bench_input.main(["--size", "16", "--rounds", "1", "--images", "2"])

    printed = capsys.readouterr().out
    for name in (bench_input.FIRST, bench_input.CACHED_MONAI, bench_input.FROM_FILES, bench_input.CACHED):
        assert f"| {name} |" in printed
    for name in (bench_input.FULL_DECODE, bench_input.BARE_DECODE, bench_input.CACHE_BUILD):
        assert f"| {name} |" in printed


def test_the_machine_is_named():
    line = bench_input.machine()
    if Path("/proc/cpuinfo").is_file():
        assert "unknown" not in line
    assert "torch" in line
