"""The rule of the largest component: what it does to a label map, and when validation keeps it."""

import itertools

import numpy as np
import pytest
import SimpleITK
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import stats

from sagemaker_monai.artifact.mask_predictor import MaskPredictor
from sagemaker_monai.budget import Budget, spending
from sagemaker_monai.errors import BundleError, PayloadTooLarge
from sagemaker_monai.tasks import paired
from sagemaker_monai.tasks.components import keep_largest
from sagemaker_monai.tasks.paired import are_gains
from sagemaker_monai.tasks.postprocessing import LargestComponents
from sagemaker_monai.tasks.regions import Regions
from sagemaker_monai.tasks.segmentation import Segmentation
from sagemaker_monai.tasks.tasks import read_task

LABELS = ("liver", "tumour")
TASK = Segmentation(LABELS)


def components(is_there):
    """Of another library."""
    image = SimpleITK.GetImageFromArray(is_there.astype(np.uint8))
    return SimpleITK.GetArrayFromImage(SimpleITK.ConnectedComponent(image, True))


@given(arrays(np.uint8, st.sampled_from([(6, 7), (3, 4, 5), (1, 9), (2, 1, 3)]), elements=st.integers(0, 3)))
def test_only_one_component_is_left_and_it_is_the_largest(labels):
    kept = labels.copy()
    keep_largest(kept, (1, 3))

    assert np.array_equal(kept[labels == 2], labels[labels == 2])
    assert set(np.unique(kept[kept != labels])) <= {0}
    for number in (1, 3):
        sizes = np.bincount(components(labels == number).ravel())[1:]
        assert (kept == number).sum() == max(sizes, default=0)
        assert components(kept == number).max() == min(len(sizes), 1)


def test_of_components_of_one_size_the_first_stays():
    labels = np.array([[0, 1, 0, 1, 1, 0, 1, 1]], np.uint8)
    keep_largest(labels, (1,))

    assert labels.tolist() == [[0, 0, 0, 1, 1, 0, 0, 0]]


@pytest.mark.parametrize(
    ("gains", "is_gain"),
    [
        ([0.1] * 5, True),  # 1 of 32 choices of signs
        ([0.1] * 4, False),  # 1 of 16
        ([0.1] * 5 + [0.0] * 4, True),
        ([0.0] * 30, False),  # a tie
        ([-0.1] * 9, False),
        ([0.1] * 20 + [-0.1] * 20, False),
        ([0.9] + [0.0] * 30, False),  # one image
        ([0.01] * 9 + [-0.5], False),
        ([0.2] * 15 + [-0.05] * 5, True),
        ([], False),
    ],
)
def test_what_a_gain_is(gains, is_gain):
    groups = [str(index) for index in range(len(gains))]

    assert are_gains(np.array(gains).reshape(-1, 1), groups).tolist() == [is_gain]


def test_a_group_counts_once():
    gains = np.full((20, 1), 0.1)

    assert are_gains(gains, [str(index % 4) for index in range(20)]).tolist() == [False]
    assert are_gains(gains, [str(index % 5) for index in range(20)]).tolist() == [True]
    one_sided = np.array([[0.5]] * 16 + [[-0.6]] * 4)  # one patient of five is worse, with four images of twenty
    assert are_gains(one_sided, ["a"] * 16 + ["b", "c", "d", "e"]).tolist() == [False]


@given(st.lists(st.integers(-8, 8), min_size=1, max_size=9))
def test_all_signs_are_tried_as_scipy_tries_them(gains):
    values = np.array(gains, float)
    groups = [str(index) for index in range(len(gains))]
    tried = stats.permutation_test((values,), np.mean, permutation_type="samples", alternative="greater",
                                   n_resamples=np.inf) if len(gains) > 1 else None  # fmt: skip
    shares = [np.mean([np.dot(signs, gains) >= sum(gains)
                       for signs in itertools.product((1, -1), repeat=len(gains))])]  # fmt: skip
    if tried is not None:
        assert tried.pvalue == pytest.approx(shares[0])

    assert are_gains(values[:, None], groups).tolist() == [bool(sum(gains) > 0 and shares[0] < paired.LEVEL)]


def test_drawn_signs_agree_with_a_t_test_where_it_holds():
    rng = np.random.default_rng(3)
    values = rng.normal(0.0, 1.0, (60, 200)) + np.linspace(-0.2, 0.6, 200)
    expected = stats.ttest_1samp(values, 0, alternative="greater").pvalue

    found = are_gains(values, [str(index) for index in range(60)])

    is_clear = np.abs(expected - paired.LEVEL) > 0.01
    assert (found == (expected < paired.LEVEL))[is_clear].all()
    assert is_clear.mean() > 0.8


def speckled(seed, *, specks):
    """A liver in the middle and a tumour of two parts, as annotated and as predicted: some with specks."""
    true = np.zeros((16, 16, 8), np.uint8)
    true[3:9, 3:9, 2:6] = 1
    true[12:14, 2:4, 2:4] = true[12:14, 8:10, 2:4] = 2
    predicted = true.copy()
    predicted[4, 4, 3] = 0  # not perfect
    rng = np.random.default_rng(seed)
    for label, count in specks.items():
        for _ in range(count):
            predicted[tuple(rng.integers((10, 11, 0), (16, 16, 8)))] = label
    return predicted, true


def rows_of(specks_of_images, task=TASK):
    pairs = [speckled(seed, specks=specks) for seed, specks in enumerate(specks_of_images)]
    return np.stack([task.measure_both(*pair, (1, 1, 1), loss=0.5, has_surfaces=False) for pair in pairs]), pairs


def tune(rows, task=TASK, groups=None):
    return task.tuned(rows, np.zeros((len(rows), 0)), groups or [str(index) for index in range(len(rows))])


def test_validation_keeps_the_rule_for_the_structures_that_it_helps():
    rows, _ = rows_of([{1: 3, 2: 2}] * 6)

    # The tumour has two parts in truth: the rule would lose one of them.
    assert tune(rows).largest == (1,)
    assert tune(rows_of([{}] * 6)[0]).largest == ()  # a tie
    assert tune(rows_of([{1: 3}] * 4 + [{}] * 9)[0]).largest == ()  # too few
    assert tune(rows, groups=["a", "a", "b", "b", "c", "d"]).largest == ()


def test_a_component_that_is_really_there_is_never_given_up_for_a_better_mean():
    rows, pairs = rows_of([{1: 3}] * 12)
    (predicted, true), row = pairs[0], rows[0].copy()
    true[0:2, 14:16, 0] = 1  # a second part of the liver that was found, in one image of twelve
    predicted[0:2, 14:16, 0] = 1
    rows[0] = TASK.measure_both(predicted, true, (1, 1, 1), loss=0.5, has_surfaces=False)
    changes = [TASK._measures(rows[:, np.r_[0, part]])[:, 0, 0] for part in np.split(np.arange(1, rows.shape[1]), 2)]

    assert np.mean(changes[1]) > np.mean(changes[0])
    assert tune(rows).largest == ()
    rows[0] = row
    assert tune(rows).largest == (1,)


def test_what_is_scored_is_what_ships():
    rows, pairs = rows_of([{1: 3, 2: 2}] * 6)
    tuned = tune(rows)
    shipped = []
    for predicted, true in pairs:
        kept = predicted.copy()
        keep_largest(kept, tuned.largest)
        shipped.append(TASK.measure(kept, true, (1, 1, 1), loss=0.5, has_surfaces=False))

    targets = np.zeros((6, 0))
    assert tuned.score(rows, targets) == TASK.score(np.stack(shipped), targets)
    assert tuned.score(rows, targets)["structure_dice"]["liver"] > TASK.score(rows, targets)["structure_dice"]["liver"]
    assert rows.shape[1] == TASK.validation_columns
    found = tuned.report(np.stack(shipped), targets, list("abcdef"), seed=0)["per_class"]
    assert [found[label]["largest_component_only"] for label in LABELS] == [True, False]


def test_structures_that_overlap_have_no_such_rule():
    task = Segmentation(LABELS, Regions(((1, 2), (2,)), (1, 2), (1, 2)))
    rows, _ = rows_of([{1: 3, 2: 2}] * 8, task)

    assert rows.shape[1] == task.validation_columns
    assert tune(rows, task) == task


def test_the_rule_is_in_the_artifact_and_read_again():
    task = Segmentation(LABELS, largest=(1,))
    steps = [{"_target_": "sagemaker_monai.tasks.LabelMap"},
             {"_target_": "sagemaker_monai.tasks.LargestComponents", "structures": [1]}]  # fmt: skip

    assert task.postprocessing() == steps
    assert read_task(steps, LABELS) == task
    assert LargestComponents([1])(torch.tensor([[1, 0, 1, 1]], dtype=torch.uint8)).tolist() == [[0, 0, 1, 1]]


@pytest.mark.parametrize("steps", [
    [{"structures": []}], [{"structures": [3]}], [{"structures": [0, 1]}], [{"structures": [2, 1]}],
    [{"structures": [1, 1]}], [{"structures": [True]}], [{"structures": [1.0]}], [{"structures": 1}],
    [{"structures": "1"}], [{"structures": [1], "more": 1}], [{}], [{"structures": [1]}, {"structures": [2]}],
])  # fmt: skip
def test_a_rule_that_training_would_not_write_is_refused(steps):
    told = [{"_target_": "sagemaker_monai.tasks.LargestComponents"} | step for step in steps]

    with pytest.raises(BundleError, match="does not write"):
        read_task([{"_target_": "sagemaker_monai.tasks.LabelMap"}, *told], LABELS)


def test_its_memory_and_time_count_towards_the_request():
    labels = np.zeros((64, 64, 64), np.uint8)
    labels[0, 0, 0] = labels[-1, -1, -1] = 1
    predictor = object.__new__(MaskPredictor)
    predictor.task = Segmentation(LABELS, largest=(1,))

    with spending(Budget(5 * 64**3, 25 * 64**3)):
        assert predictor.ruled(labels.copy()).sum() == 1
    for budget in (Budget(5 * 64**3 - 1, 1 << 40), Budget(1 << 40, 25 * 64**3 - 1)):
        with spending(budget), pytest.raises(PayloadTooLarge, match="the components of 262144 voxels"):
            predictor.ruled(labels.copy())
