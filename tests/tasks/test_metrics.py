import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn import metrics as sklearn_metrics

from sagemaker_monai.errors import DatasetError
from sagemaker_monai.tasks import metrics
from sagemaker_monai.tasks.metrics import report, score

LABELS = ("a", "b", "c", "d")


@pytest.fixture(autouse=True)
def few_resamples(monkeypatch):
    monkeypatch.setattr(metrics, "RESAMPLES", 200)


def draw(number, *, seed=0, classes=4, decimals=None):
    """Answers that are right more often than not; with `decimals`, many equal probabilities."""
    generator = np.random.default_rng(seed)
    targets = generator.integers(0, classes, number)
    scores = generator.random((number, classes)) + 0.6 * np.eye(classes)[targets]
    if decimals is not None:
        scores = np.round(scores, decimals) + 0.1
    return scores / scores.sum(axis=1, keepdims=True), targets


@pytest.mark.parametrize("decimals", [None, 1, 0])
def test_scores_are_those_of_scikit_learn(decimals):
    probabilities, targets = draw(400, decimals=decimals)
    predicted = probabilities.argmax(axis=1)

    ours = score(probabilities, targets, LABELS)

    assert ours["loss"] == pytest.approx(sklearn_metrics.log_loss(targets, probabilities))
    assert ours["accuracy"] == pytest.approx(sklearn_metrics.accuracy_score(targets, predicted))
    assert ours["balanced_accuracy"] == pytest.approx(sklearn_metrics.balanced_accuracy_score(targets, predicted))
    assert ours["auc"] == pytest.approx(
        sklearn_metrics.roc_auc_score(targets, probabilities, multi_class="ovr", average="macro")
    )
    assert ours["confusion_matrix"] == sklearn_metrics.confusion_matrix(targets, predicted).tolist()
    assert list(ours["sensitivity"].values()) == pytest.approx(
        sklearn_metrics.recall_score(targets, predicted, average=None)
    )


@pytest.mark.parametrize("decimals", [None, 0])
def test_the_report_of_each_class_is_that_of_scikit_learn(decimals):
    probabilities, targets = draw(300, seed=3, decimals=decimals)
    predicted = probabilities.argmax(axis=1)

    ours = report(probabilities, targets, [str(i) for i in range(300)], LABELS, seed=0)["per_class"]

    precision, recall, f1, support = sklearn_metrics.precision_recall_fscore_support(targets, predicted)
    for index, label in enumerate(LABELS):
        row = ours[label]
        assert row["images"] == support[index]
        assert row["sensitivity"] == pytest.approx(recall[index])
        assert row["precision"] == pytest.approx(precision[index])
        assert row["f1"] == pytest.approx(f1[index])
        assert row["specificity"] == pytest.approx(
            sklearn_metrics.recall_score(targets != index, predicted != index)  # sensitivity for "another class"
        )
        assert row["auc"] == pytest.approx(sklearn_metrics.roc_auc_score(targets == index, probabilities[:, index]))


def test_a_class_without_images_is_left_out_of_the_means_and_named():
    probabilities, targets = draw(60, classes=4)
    kept = targets != 2

    ours = report(probabilities[kept], targets[kept], [str(i) for i in range(kept.sum())], LABELS, seed=0)

    assert ours["per_class"]["c"]["sensitivity"] is None
    assert ours["per_class"]["c"]["auc"] is None
    assert ours["per_class"]["c"]["intervals_95"]["auc"] is None
    assert ours["classes_without_auc"] == ["c"]
    others = [ours["per_class"][label] for label in "abd"]
    assert ours["balanced_accuracy"] == pytest.approx(np.mean([row["sensitivity"] for row in others]))
    assert ours["auc"] == pytest.approx(np.mean([row["auc"] for row in others]))
    assert json.dumps(ours, allow_nan=False)


def test_with_one_class_only_there_is_no_auc():
    probabilities, _ = draw(5)

    ours = score(probabilities, np.zeros(5, dtype=int), LABELS)

    assert ours["auc"] is None
    assert ours["sensitivity"]["b"] is None


def test_a_class_that_is_never_predicted_has_no_precision():
    probabilities = np.tile([0.6, 0.4], (4, 1))

    rows = report(probabilities, np.array([0, 0, 1, 1]), list("wxyz"), ("a", "b"), seed=0)["per_class"]

    assert rows["b"]["precision"] is None
    assert rows["b"]["sensitivity"] == 0
    assert rows["b"]["f1"] == 0
    assert rows["b"]["auc"] == 0.5  # all tied


def test_one_sure_mistake_leaves_the_loss_finite():
    ours = score(np.array([[1.0, 0.0], [0.0, 1.0]]), np.array([1, 1]), ("a", "b"))

    assert ours["loss"] == pytest.approx(-np.log(1e-15) / 2)


def test_nothing_to_score_is_refused():
    with pytest.raises(DatasetError, match="no image to score"):
        score(np.empty((0, 2)), np.empty(0, dtype=int), ("a", "b"))


@given(st.integers(2, 40), st.integers(0, 2**32 - 1), st.sampled_from([None, 0, 1]))
def test_weights_count_images_as_if_they_were_there_that_often(number, seed, decimals):
    """The bootstrap computes with weights what the plain scores give for repeated images."""
    probabilities, targets = draw(number, seed=seed, decimals=decimals)
    times = np.random.default_rng(seed).integers(0, 4, number)
    times[0] += 1
    repeated = np.repeat(np.arange(number), times)

    weighted = metrics._aucs(probabilities, targets, times[None].astype(float))
    plain = metrics._aucs(probabilities[repeated], targets[repeated], np.ones((1, len(repeated))))
    assert weighted == pytest.approx(plain, nan_ok=True)
    predicted, weights = probabilities.argmax(axis=1), times[None].astype(float)
    [matrix] = metrics.confusion_matrices(predicted, targets, len(LABELS), weights)
    assert matrix.astype(int).tolist() == score(probabilities[repeated], targets[repeated], LABELS)["confusion_matrix"]


def test_intervals_are_percentiles_over_resampled_groups():
    """Compared with the bootstrap written as a loop that copies the images of each drawn group."""
    probabilities, targets = draw(40, seed=7)
    groups = [f"g{index // 3:02}" for index in range(40)]
    names = sorted(set(groups))
    members = {name: [index for index, group in enumerate(groups) if group == name] for name in names}

    ours = report(probabilities, targets, groups, LABELS, seed=11)

    values = []
    for counts in np.random.default_rng(11).multinomial(len(names), np.full(len(names), 1 / len(names)), size=200):
        drawn = [index for name, times in zip(names, counts, strict=True) for index in members[name] * times]
        values.append(sklearn_metrics.accuracy_score(targets[drawn], probabilities[drawn].argmax(axis=1)))
    assert ours["intervals_95"]["accuracy"] == pytest.approx(np.percentile(values, [2.5, 97.5]).tolist())
    assert ours["groups"] == 14


def test_images_of_one_group_are_not_independent():
    """Ten copies of every image in its own group widen nothing; counted as 10 times as many groups they would."""
    probabilities, targets = draw(60, seed=2)
    groups = [str(index) for index in range(60)]
    ten = (np.repeat(probabilities, 10, axis=0), np.repeat(targets, 10))

    def width(*arguments):
        low, high = report(*arguments, LABELS, seed=1)["intervals_95"]["accuracy"]
        return high - low

    alone = width(probabilities, targets, groups)
    assert width(*ten, list(np.repeat(groups, 10))) == pytest.approx(alone, rel=0.15)
    assert width(*ten, [str(index) for index in range(600)]) < 0.5 * alone


def test_intervals_belong_to_the_seed_and_do_not_depend_on_how_much_fits_in_memory(monkeypatch):
    probabilities, targets = draw(50)
    arguments = (probabilities, targets, [str(index // 2) for index in range(50)], LABELS)

    first = report(*arguments, seed=1)
    monkeypatch.setattr(metrics, "CHUNK_VALUES", 50 * 7)

    assert report(*arguments, seed=1) == first
    assert report(*arguments, seed=2) != first
