import numpy as np
import pytest

from develop import bench_io


@pytest.mark.parametrize("kind", bench_io.SYNTAXES)
def test_drawn_series_are_read_as_they_were_drawn(tmp_path, kind):
    values = bench_io.draw_volume((3, 64, 64))

    size = bench_io.write_series(tmp_path / "series", values, bench_io.SYNTAXES[kind])

    assert np.array_equal(bench_io.read_ours(tmp_path / "series"), values.transpose(2, 1, 0))
    assert size > values.nbytes if kind == "raw" else size < values.nbytes + 4000


def test_a_drawn_ct_has_air_soft_tissue_and_bone():
    values = bench_io.draw_volume((10, 128, 128))

    assert values.dtype == np.int16
    assert [np.abs(values - level).min() < 5 for level in (-1000, -90, 40, 700)] == [True] * 4


def test_the_table_compares_wall_times_within_rounds():
    times = {"first": [(1.0, 1.0), (10.0, 1.0), (2.0, 1.0)], "this project": [(0.1, 0.2), (5.0, 0.2), (0.5, 0.2)]}

    rows = bench_io.table(times, slices=10, target=4.5)

    assert rows[2:] == [
        "| first | 2.00 | 1.00 | 5 | 1.00 |  |",
        "| this project | 0.50 | 0.20 | 20 | 4.00 | 4.5: MISSED |",
    ]
    assert bench_io.table(times, slices=10, target=4.0)[-1].endswith("| 4: met |")
