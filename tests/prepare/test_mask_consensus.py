"""Masks of several annotators become one: by majority, and by STAPLE as SimpleITK has it; and their Dice."""

import itertools

import numpy as np
import pytest
import SimpleITK
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from sagemaker_monai.data.mask_agreement import agreement_by_structure, combinations_of, dice_by_pair
from sagemaker_monai.prepare.ground_truth.mask_consensus import majority, staple, staple_probabilities
from sagemaker_monai.tasks.label_maps import IGNORED


def maps_of(*rows):
    return [np.array(row, np.uint8).reshape(1, -1) for row in rows]


def by_pixel(choose, maps):
    found = combinations_of(maps)
    return choose(found)[found.place]


def drawn(seed, labels=2, shares=(0.04, 0.1, 0.25)):
    """One picture by several annotators, of whom each errs in another share of pixels; IGNORED nowhere."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:40, :48]
    true = np.zeros((40, 48), np.uint8)
    for label in range(1, labels):
        centre = rng.uniform(12, 28, 2)
        true[np.hypot(y - centre[0], x - centre[1]) < 9] = label
    wrong = [rng.random(true.shape) < share for share in shares]
    return [np.where(is_wrong, rng.integers(0, labels, true.shape), true).astype(np.uint8) for is_wrong in wrong]


maps_strategy = st.integers(1, 4).flatmap(
    lambda count: st.lists(
        arrays(np.uint8, (3, 5), elements=st.sampled_from([0, 1, 2, IGNORED])), min_size=count, max_size=count
    )
)


@settings(max_examples=60, deadline=None)
@given(maps_strategy)
def test_combinations_say_what_every_annotator_said_of_every_pixel(maps):
    found = combinations_of(maps)

    assert all(np.array_equal(found.said[found.place, j], labels) for j, labels in enumerate(maps))
    assert found.counts.sum() == 15
    assert len({tuple(row) for row in found.said.tolist()}) == len(found.said)


@settings(max_examples=60, deadline=None)
@given(maps_strategy)
def test_the_majority_is_the_only_label_with_most_votes_or_nothing(maps):
    chosen = by_pixel(majority, maps)

    for place in np.ndindex(3, 5):
        votes = [int(labels[place]) for labels in maps if labels[place] != IGNORED]
        most = max(map(votes.count, votes), default=0)
        leading = {label for label in votes if votes.count(label) == most}
        assert chosen[place] == (leading.pop() if len(leading) == 1 else IGNORED)


@settings(max_examples=40, deadline=None)
@given(maps_strategy)
def test_staple_is_finite_symmetric_in_annotators_and_believes_them_where_they_agree(maps):
    found = combinations_of(maps)
    chosen = staple(found)[found.place]

    labels = np.unique(found.said[found.said != IGNORED])
    assert np.isfinite(staple_probabilities(found, labels)).all()
    assert np.array_equal(chosen, by_pixel(staple, maps[::-1]))
    if len(maps) == 1:
        assert np.array_equal(chosen, maps[0])
    assert (chosen[np.all([labels == IGNORED for labels in maps], axis=0)] == IGNORED).all()


@pytest.mark.parametrize("seed", range(4))
def test_staple_of_one_structure_has_the_probabilities_of_simpleitk(seed):
    maps = drawn(seed)
    stapler = SimpleITK.STAPLEImageFilter()
    stapler.SetForegroundValue(1)
    stapler.SetMaximumIterations(1000)
    expected = SimpleITK.GetArrayFromImage(stapler.Execute([SimpleITK.GetImageFromArray(labels) for labels in maps]))

    found = combinations_of(maps)
    probabilities = staple_probabilities(found, np.array([0, 1], np.uint8))[found.place, 1]

    assert stapler.GetElapsedIterations() < 1000
    np.testing.assert_allclose(probabilities, expected, atol=1e-4)


def test_staple_weights_a_careful_annotator_more_than_two_careless_ones():
    true, *_ = drawn(0, shares=(0.0,))
    maps = drawn(0, shares=(0.005, 0.5, 0.55, 0.6))

    wrong = {choose: np.count_nonzero(by_pixel(choose, maps) != true) for choose in (majority, staple)}

    assert wrong[staple] < wrong[majority] / 3


@pytest.mark.parametrize("seed", range(3))
def test_staple_of_several_structures_chooses_as_simpleitk_does(seed):
    maps = drawn(seed, labels=3, shares=(0.04, 0.1, 0.25, 0.15))
    stapler = SimpleITK.MultiLabelSTAPLEImageFilter()
    stapler.SetLabelForUndecidedPixels(IGNORED)
    expected = SimpleITK.GetArrayFromImage(stapler.Execute([SimpleITK.GetImageFromArray(labels) for labels in maps]))

    assert np.array_equal(by_pixel(staple, maps), expected)


def test_what_two_annotators_do_not_agree_on_is_nobody_s():
    assert by_pixel(majority, maps_of([0, 1, 1, 2], [0, 1, 2, IGNORED])).tolist() == [[0, 1, IGNORED, 2]]


def test_dice_of_pairs_is_that_of_the_definition():
    maps = maps_of([1, 1, 1, 0, 2, 0], [1, 1, 0, 0, 2, IGNORED], [1, 0, 0, 0, 2, 2])
    found = combinations_of(maps)

    assert dice_by_pair(found, [3, 1, 2], 1) == pytest.approx({(1, 3): 2 * 2 / 5, (2, 3): 2 * 1 / 4, (1, 2): 2 * 1 / 3})
    # Of the pixel that the second annotator left out, it says nothing.
    assert dice_by_pair(found, [1, 2, 3], 2) == pytest.approx({(1, 2): 1, (1, 3): 2 / 3, (2, 3): 1})
    assert dice_by_pair(combinations_of(maps_of([0], [0])), [1, 2], 1) == {}


@pytest.mark.parametrize("seed", range(2))
def test_dice_of_pairs_is_that_of_simpleitk(seed):
    maps = drawn(seed, labels=3)
    found = combinations_of(maps)

    for label in (1, 2):
        pairs = dice_by_pair(found, [1, 2, 3], label)
        for (first, second), dice in pairs.items():
            measure = SimpleITK.LabelOverlapMeasuresImageFilter()
            measure.Execute(*(SimpleITK.GetImageFromArray(maps[who - 1]) for who in (first, second)))
            assert dice == pytest.approx(measure.GetDiceCoefficient(label))
        assert len(pairs) == len(list(itertools.combinations(maps, 2)))


def test_agreement_is_the_mean_over_images_and_pairs_the_worst_pair_first():
    images = [{"liver": {(1, 2): 0.5, (1, 3): 0.9}, "cyst": {}}, {"liver": {(1, 2): 0.7}, "cyst": {(1, 2): 0.0}}]

    agreement = agreement_by_structure(images)

    liver = agreement["liver"]
    assert (liver.images, liver.dice) == (2, pytest.approx(0.7))
    assert [(pair.first, pair.second, pair.images, pair.dice) for pair in liver.pairs] == [
        (1, 2, 2, pytest.approx(0.6)), (1, 3, 1, pytest.approx(0.9)),
    ]  # fmt: skip
    assert (agreement["cyst"].images, agreement["cyst"].dice) == (1, 0)
