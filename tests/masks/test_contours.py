"""Polygons to voxels, against a test of each centre by itself."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sagemaker_monai.errors import PayloadTooLarge
from sagemaker_monai.masks.contours import Effort, fill, fill_plane

SIZE = (9, 8)


def is_in(polygon, centre):
    """Even-odd by a ray in a slanted direction that meets no corner."""
    direction = np.array([0.7390851332, 0.6736120292])
    count = 0
    for start, end in zip(polygon, [*polygon[1:], polygon[0]], strict=True):
        first, second = np.subtract(start, centre), np.subtract(end, centre)
        sides = [direction[0] * point[1] - direction[1] * point[0] for point in (first, second)]
        if (sides[0] > 0) != (sides[1] > 0):
            where = first + (second - first) * sides[0] / (sides[0] - sides[1])
            count += bool(where @ direction > 0)
    return count % 2 == 1


def expected(*polygons):
    """What an odd number of polygons has inside, (W, H)."""
    found = np.zeros(SIZE, bool)
    for place in np.ndindex(SIZE):
        found[place] = sum(is_in(polygon, place) for polygon in polygons) % 2
    return found


def whole_of(filled):
    plane = np.zeros(SIZE, bool)
    plane[filled.box] = filled.is_inside
    return plane


def whole(points):
    return whole_of(fill(np.array(points, float), SIZE, Effort()))


off_centre = st.tuples(*[st.integers(-3, 11)] * 2).map(lambda place: (place[0] + 0.37, place[1] + 0.41))


@settings(max_examples=80)
@given(st.lists(off_centre, min_size=3, max_size=9))
def test_any_polygon_has_the_centres_that_lie_in_it(points):
    assert np.array_equal(whole(points), expected(points))


@given(st.lists(st.lists(off_centre, min_size=3, max_size=6), min_size=1, max_size=3))
@settings(max_examples=25)
def test_what_lies_in_an_even_number_of_contours_is_outside(polygons):
    found, _ = fill_plane([np.array(points) for points in polygons], SIZE, Effort())

    assert np.array_equal(whole_of(found), expected(*polygons))


@pytest.mark.parametrize("corners", [[(1, 1), (4, 1), (4, 3), (1, 3)], [(1, 1), (1, 3), (4, 3), (4, 1)]])
def test_of_centres_on_an_edge_those_towards_higher_indices_are_inside(corners):
    found = np.zeros(SIZE, bool)
    found[1:4, 1:3] = True

    assert np.array_equal(whole(corners), found)


@given(st.lists(st.tuples(st.integers(0, 8), st.integers(0, 7)), min_size=3, max_size=6), st.data())
@settings(max_examples=40)
def test_of_two_structures_with_a_common_edge_one_has_each_centre(points, data):
    """A polygon is cut along a diagonal whose ends lie on centres; the parts make the whole, and share nothing but what
    even-odd takes from a polygon that crosses itself."""
    cut = data.draw(st.integers(1, len(points) - 1))
    first, second = [*points[: cut + 1]], [points[0], *points[cut:]]

    assert np.array_equal(whole(first) ^ whole(second), whole(points))


def test_a_channel_to_a_hole_leaves_nothing():
    outline = [(0.5, 0.5), (7.5, 0.5), (7.5, 6.5), (0.5, 6.5)]
    hole = [(2.5, 2.2), (2.7, 4.9), (5.1, 4.8), (5.3, 2.4)]
    keyhole = [*outline, outline[0], hole[0], *hole[1:], hole[0]]

    found = whole(keyhole)

    assert np.array_equal(found, whole(outline) & ~whole(hole))
    both, _ = fill_plane([np.array(outline), np.array(hole)], SIZE, Effort())
    assert np.array_equal(whole_of(both), found)


def test_holes_and_islands_do_not_cross_and_other_contours_do():
    outline, hole, island = ([(a, a), (a, 7.5 - a), (7.5 - a, 7.5 - a), (7.5 - a, a)] for a in (0.2, 1.2, 2.2))
    beside = [(6.5, 0.5), (8.2, 0.5), (8.2, 4.5), (6.5, 4.5)]
    nested = [np.array(points) for points in (island, outline, hole)]

    assert not fill_plane(nested, SIZE, Effort())[1]
    assert fill_plane([*nested, np.array(beside)], SIZE, Effort())[1]
    assert fill_plane([np.array(outline), np.array(outline) + 0.01], SIZE, Effort())[1]


def test_what_lies_outside_is_cut_off():
    assert whole([(-1e6, -1e6), (1e6, -1e6), (1e6, 1e6), (-1e6, 1e6)]).all()
    assert not whole([(20, 20), (30, 20), (30, 30)]).any()
    assert not whole([(2, 2), (2, 2), (2, 2)]).any()


def test_many_crossings_are_computed_in_parts(monkeypatch):
    points = np.random.default_rng(0).uniform(-1, 9, (200, 2))
    at_once = whole(points)

    monkeypatch.setattr("sagemaker_monai.masks.contours._AT_ONCE", 7)

    assert np.array_equal(whole(points), at_once)


def test_effort_is_bounded():
    with pytest.raises(PayloadTooLarge):
        fill(np.array([(0.0, 0), (8, 0), (8, 7)]), SIZE, Effort(crossings=5))
    with pytest.raises(PayloadTooLarge):
        fill(np.array([(0.0, 0), (8, 0), (8, 7)]), SIZE, Effort(voxels=60))
