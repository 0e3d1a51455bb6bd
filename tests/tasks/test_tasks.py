"""Tasks beside classification: what they make of labels and outputs, against scikit-learn and arithmetic by hand."""

import math

import numpy as np
import pytest
import torch
from sklearn import metrics as sklearn_metrics

from sagemaker_monai.errors import BundleError, ConfigError, DatasetError
from sagemaker_monai.hyperparameters import TrainConfig
from sagemaker_monai.networks.networks import images_at_once
from sagemaker_monai.tasks.classification import Classification
from sagemaker_monai.tasks.losses import IMBALANCE as METHODS
from sagemaker_monai.tasks.multilabel import MultiLabel
from sagemaker_monai.tasks.ordinal import Ordinal, median_grades
from sagemaker_monai.tasks.regression import Regression
from sagemaker_monai.tasks.tasks import TASKS, read_task, task_of_labels
from sagemaker_monai.training.plan import resolve
from tests.support.refusals import not_refused

GRADES = ("none", "mild", "severe")
FINDINGS = ("effusion", "nodule")
CPU = torch.device("cpu")


def config(**changes):
    return TrainConfig().model_copy(update={"imbalance": "none", **changes})


@pytest.fixture
def rng():
    return np.random.default_rng(5)


@pytest.fixture
def findings(rng):
    """Answers and truths of 120 images, with ties."""
    truth = (rng.random((120, 2)) < [0.3, 0.1]).astype(float)
    answers = np.clip(np.round(0.4 * truth + rng.random((120, 2)) * 0.6, 2), 0, 1)
    return answers, truth


# --- all tasks -------------------------------------------------------------------------------------------------------


EXAMPLES = {name: row.example() for name, row in TASKS.items()}
OF_NUMBERS = [name for name, row in TASKS.items() if not row.has_masks]  # those with masks: test_segmentation


@pytest.mark.parametrize("name", OF_NUMBERS)
def test_a_row_speaks_of_one_task(name):
    row, task = TASKS[name], EXAMPLES[name].task

    assert row.name == task.name == name
    assert row.best_metric in row.goals
    assert set(row.imbalance) <= set(METHODS)
    assert len(task.labels) >= row.fewest_labels
    [prediction] = task.predictions(torch.tensor([EXAMPLES[name].answer], dtype=torch.float64))
    assert {*row.heads, row.numbers} <= set(prediction.fields())
    assert list(prediction.cells()) == [*row.heads, *task.labels]
    assert list(prediction.fields()[row.numbers]) == list(task.labels)


@pytest.mark.parametrize("name", TASKS)
def test_strata_and_presence_have_a_row_an_image(name):
    row, example = TASKS[name], EXAMPLES[name]
    targets = np.array([example.task.target(label) for label in example.labels])

    assert row.strata(targets).shape == (len(targets),)
    assert row.presence is None or row.presence(targets).shape == (len(targets), len(example.task.labels))


def test_every_way_to_treat_rare_classes_is_of_some_task():
    assert {method for row in TASKS.values() for method in row.imbalance} == set(METHODS)


@pytest.mark.parametrize("name", TASKS)
def test_a_task_comes_back_from_the_data_in_an_artifact(name):
    task = EXAMPLES[name].task

    assert read_task(task.postprocessing(), task.labels) == task


def test_what_a_task_takes_from_the_data_comes_back_too(rng):
    answers, truth = rng.random((9, 2)), rng.integers(0, 2, (9, 2)).astype(float)
    for task in (
        MultiLabel(FINDINGS).tuned(answers, truth, ["a"] * len(truth)),
        Regression(("age",)).fitted(answers[:, :1]),
    ):
        assert read_task(task.postprocessing(), task.labels) == task


@pytest.mark.parametrize(
    ("steps", "labels"),
    [
        ([], GRADES),
        ({}, GRADES),
        ([{"_target_": "monai.transforms.Activations", "softmax": 1}], ("only",)),
        ([{"_target_": "os.system", "softmax": True}], GRADES),
        ([{"_target_": "monai.transforms.Activations", "softmax": True, "x": 1}], GRADES),
        (MultiLabel(FINDINGS).postprocessing(), GRADES),
        (Ordinal(GRADES).postprocessing(), ("only",)),
        (Regression(("age",), mean=(0.0,), std=(1.0,)).postprocessing(), ("age", "height")),
        ([{"_target_": "sagemaker_monai.tasks.Rescale", "mean": [0.0], "std": [0.0]}], ("age",)),
        ([{"_target_": "sagemaker_monai.tasks.Rescale", "mean": [math.nan], "std": [1.0]}], ("age",)),
        ([{"_target_": "sagemaker_monai.tasks.Rescale", "mean": ["$x"], "std": [1.0]}], ("age",)),
    ],
)
def test_a_postprocessing_that_no_task_writes_is_refused(steps, labels):
    with pytest.raises(BundleError, match="postprocessing"):
        read_task(steps, labels)


@pytest.mark.parametrize("name", OF_NUMBERS)
def test_outputs_that_are_not_finite_are_damage(name):
    task = EXAMPLES[name].task

    with pytest.raises(BundleError, match="not finite"):
        task.answers(torch.full((1, task.outputs), math.nan))


@pytest.mark.parametrize("name", OF_NUMBERS)
def test_every_loss_can_be_learned_from(name, rng):
    """Gradient descent on the outputs themselves ends at the targets."""
    row, example = TASKS[name], EXAMPLES[name]
    task = row.build(example.task.labels)
    targets = np.array([task.target(label) for label in example.labels])
    task = task.fitted(targets)
    wanted = torch.from_numpy(task.training_targets(targets))
    loss = task.build_loss(config(), wanted, CPU)
    outputs = torch.zeros(3, task.outputs, requires_grad=True)
    for _ in range(3000):
        value = loss(outputs, wanted)
        value.backward()
        with torch.no_grad():
            outputs -= 0.5 * outputs.grad
            outputs.grad = None

    assert np.abs(task.answers(outputs).numpy() - targets).max() < (0.02 if row.has_classes else 0.1)


@pytest.mark.parametrize("name", OF_NUMBERS)
def test_scores_and_reports_have_every_name_that_the_log_has(name, rng):
    task = EXAMPLES[name].task
    outputs = torch.from_numpy(rng.normal(size=(60, task.outputs)))
    answers = task.answers(outputs).numpy()
    labels = EXAMPLES[name].labels
    targets = np.array([task.target(labels[index]) for index in rng.integers(0, len(labels), 60)])

    scores = task.score(answers, targets)
    report = task.report(answers, targets, [str(i // 2) for i in range(60)], seed=0)

    assert set(TASKS[name].goals) <= set(scores)
    assert {key: report[key] for key in TASKS[name].goals} == {key: scores[key] for key in TASKS[name].goals}
    assert report["groups"] == 30
    for key, (low, high) in report["intervals_95"].items():
        assert low <= report[key] <= high, key
    assert list(report["per_class"]) == list(task.labels)


@pytest.mark.parametrize("name", OF_NUMBERS)
def test_nothing_to_score_is_said(name):
    task = EXAMPLES[name].task

    with pytest.raises(DatasetError, match="no image to score"):
        task.score(np.zeros((0, len(task.labels))), np.zeros((0, len(task.labels))))


@pytest.mark.parametrize(
    ("labels", "task"),
    [(["a", "b"], "classification"), ([{"a": 0.5}, "b"], "classification"), ([("a",), ()], "multilabel"),
     ([1.5, 2.0], "regression"), ([], "classification")],
)  # fmt: skip
def test_the_form_of_the_labels_tells_the_task(labels, task):
    assert task_of_labels(labels) == task


def test_labels_of_several_kinds_are_refused():
    with pytest.raises(DatasetError, match="several kinds"):
        task_of_labels(["a", 1.0])


# --- soft labels -----------------------------------------------------------------------------------------------------


def test_shares_of_annotators_are_the_target_of_the_cross_entropy():
    task = Classification(GRADES)
    targets = np.array([task.target({"none": 2, "mild": 1}), task.target("severe")])
    wanted = torch.from_numpy(task.training_targets(targets))
    outputs = torch.tensor([[1.0, 0.0, -1.0], [0.5, 0.5, 2.0]])

    value = task.build_loss(config(), wanted, CPU)(outputs, wanted)

    log_p = torch.log_softmax(outputs.double(), 1)
    by_hand = -(2 / 3 * log_p[0, 0] + 1 / 3 * log_p[0, 1] + log_p[1, 2]) / 2
    assert value.item() == pytest.approx(by_hand.item(), rel=1e-6)


def test_hard_labels_train_as_class_indices():
    targets = np.eye(3)[[2, 0, 1]]

    assert Classification(GRADES).training_targets(targets).tolist() == [2, 0, 1]


def test_labels_that_do_not_suit_the_task_are_refused():
    wrong = ["other", {"other": 1.0}, {"none": -1.0, "mild": 2.0}, {"none": 0.0}, {}, 3.0]
    assert not_refused(wrong, Classification(GRADES).target, ValueError, "class") == []
    assert not_refused([("other",), {"nodule": 1.5}, 1.0], MultiLabel(FINDINGS).target, ValueError) == []
    wrong = ["many", math.inf, math.nan, (), {"height": 1.0}]
    assert not_refused(wrong, Regression(("age",)).target, ValueError, "label") == []


# --- multi-label -----------------------------------------------------------------------------------------------------


def test_findings_are_scored_as_scikit_learn_does(findings):
    answers, truth = findings
    scores = MultiLabel(FINDINGS).score(answers, truth)

    assert scores["auc"] == pytest.approx(sklearn_metrics.roc_auc_score(truth, answers, average="macro"))
    assert scores["average_precision"] == pytest.approx(
        sklearn_metrics.average_precision_score(truth, answers, average="macro")
    )
    assert scores["f1"] == pytest.approx(sklearn_metrics.f1_score(truth, answers >= 0.5, average="macro"))
    clipped = np.clip(answers, 1e-15, 1 - 1e-15)
    assert scores["loss"] == pytest.approx(-np.log(np.where(truth == 1, clipped, 1 - clipped)).mean())


def test_a_threshold_is_where_youdens_index_is_largest(findings):
    answers, truth = findings
    tuned = MultiLabel(FINDINGS).tuned(answers, truth, ["a"] * len(truth))

    for index, threshold in enumerate(tuned.thresholds):
        fpr, tpr, _ = sklearn_metrics.roc_curve(truth[:, index], answers[:, index])
        is_positive = answers[:, index] >= threshold
        youden = is_positive[truth[:, index] == 1].mean() - is_positive[truth[:, index] == 0].mean()
        assert youden == pytest.approx((tpr - fpr).max())


@pytest.mark.parametrize("truth", [0.0, 1.0])
def test_a_finding_that_is_everywhere_or_nowhere_keeps_the_threshold_of_a_half(truth):
    tuned = MultiLabel(("a",)).tuned(np.array([[0.1], [0.9]]), np.full((2, 1), truth), ["a", "b"])

    assert tuned.thresholds == (0.5,)


def test_findings_at_their_threshold_are_answered():
    [prediction] = MultiLabel(FINDINGS, thresholds=(0.25, 0.5)).predictions(
        torch.tensor([[0.25, 0.4999]], dtype=torch.float64)
    )

    assert prediction.predicted_classes == ("effusion",)
    assert prediction.fields()["thresholds"] == {"effusion": 0.25, "nodule": 0.5}


def test_an_image_may_have_no_finding():
    task = MultiLabel(FINDINGS)

    assert task.target(()) == (0.0, 0.0)
    assert task.target({"nodule": 0.67}) == (0.0, 0.67)
    assert task.target("nodule") == (0.0, 1.0)


def test_rare_findings_weigh_as_much_as_their_absence():
    task = MultiLabel(("a",))
    targets = np.array([[1.0], [0.0], [0.0], [0.0]])
    wanted = torch.from_numpy(task.training_targets(targets))
    outputs = torch.zeros(4, 1, requires_grad=True)

    task.build_loss(config(imbalance="class_weighted"), wanted, CPU)(outputs, wanted).backward()

    assert outputs.grad[0].item() == pytest.approx(-outputs.grad[1:].sum().item())


# --- ordinal ---------------------------------------------------------------------------------------------------------


def test_grades_are_products_of_conditional_chances():
    logits = torch.tensor([[0.3, -0.8]])
    first, second = (1 / (1 + math.exp(-x)) for x in (0.3, -0.8))

    assert Ordinal(GRADES).answers(logits)[0].tolist() == pytest.approx(
        [1 - first, first - first * second, first * second], abs=1e-7
    )


def test_the_predicted_grade_is_the_median_and_not_the_mode():
    probabilities = np.array([[0.4, 0.25, 0.35], [0.5, 0.1, 0.4], [0.49, 0.1, 0.41]])

    assert median_grades(probabilities).tolist() == [1, 0, 1]


def test_only_steps_up_to_the_grade_and_the_next_concern_an_image():
    task = Ordinal(GRADES)
    grades = torch.tensor([0])
    outputs = torch.tensor([[0.7, 5.0]], requires_grad=True)

    value = task.build_loss(config(), torch.tensor([0, 1, 2]), CPU)(outputs, grades)
    value.backward()

    assert value.item() == pytest.approx(math.log(1 + math.exp(0.7)), rel=1e-6)
    assert outputs.grad[0, 1].item() == 0


def test_grades_are_scored_as_scikit_learn_does(rng):
    truth = rng.integers(0, 3, 80)
    answers = rng.dirichlet([1, 1, 1], 80)
    predicted = median_grades(answers)

    scores = Ordinal(GRADES).score(answers, np.eye(3)[truth])

    assert scores["kappa"] == pytest.approx(sklearn_metrics.cohen_kappa_score(truth, predicted, weights="quadratic"))
    assert scores["mae"] == pytest.approx(np.abs(truth - predicted).mean())
    assert scores["accuracy"] == pytest.approx((truth == predicted).mean())


def test_a_grade_is_answered_with_its_number_and_the_mean():
    [prediction] = Ordinal(GRADES).predictions(torch.tensor([[0.1, 0.6, 0.3]], dtype=torch.float64))

    assert prediction.fields() == {
        "predicted_class": "mild",
        "probability": 0.6,
        "grade": 1,
        "expected_grade": pytest.approx(1.2),
        "probabilities": {"none": 0.1, "mild": 0.6, "severe": 0.3},
    }


# --- regression ------------------------------------------------------------------------------------------------------


def test_numbers_are_scored_as_scikit_learn_does(rng):
    truth = rng.normal(60, 12, (70, 1))
    answers = truth + rng.normal(2, 5, (70, 1))
    task = Regression(("age",)).fitted(truth)

    scores = task.score(answers, truth)

    assert scores["mae"] == pytest.approx(sklearn_metrics.mean_absolute_error(truth, answers))
    assert scores["rmse"] == pytest.approx(sklearn_metrics.root_mean_squared_error(truth, answers))
    assert scores["r2"] == pytest.approx(sklearn_metrics.r2_score(truth, answers))


def test_a_constant_number_has_no_r2():
    task = Regression(("age",)).fitted(np.full((3, 1), 7.0))

    assert task.score(np.zeros((3, 1)), np.full((3, 1), 7.0))["r2"] is None
    assert task.std == (1.0,)


def test_numbers_are_answered_in_their_unit():
    task = Regression(("age",), mean=(50.0,), std=(10.0,))

    assert task.predictions(task.answers(torch.tensor([[1.5]])))[0].fields() == {"values": {"age": 65.0}}


# --- choices ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize(
    ("dims", "is_photograph", "augmentation"), [(2, True, "photo"), (2, False, "grey"), (3, False, "volume")]
)
def test_nothing_is_left_to_choose(task, dims, is_photograph, augmentation):
    resolved = resolve(TrainConfig(), task=task, spatial_dims=dims, is_photograph=is_photograph)

    assert "auto" not in (resolved.task, resolved.imbalance, resolved.best_metric)
    assert resolved.augmentation == augmentation
    assert resolved.best_metric in TASKS[task].goals
    assert resolve(resolved, task=task, spatial_dims=dims, is_photograph=is_photograph) == resolved


@pytest.mark.parametrize(
    ("changes", "task", "dims"),
    [
        ({"imbalance": "logit_adjusted"}, "multilabel", 2),
        ({"imbalance": "focal"}, "regression", 2),
        ({"best_metric": "mae"}, "classification", 2),
        ({"best_metric": "auc"}, "regression", 2),
        ({"augmentation": "photo"}, "classification", 3),
        ({"augmentation": "volume"}, "classification", 2),
    ],
)
def test_what_does_not_suit_is_refused_by_name(changes, task, dims):
    [(name, value)] = changes.items()

    with pytest.raises(ConfigError, match=f"{name} {value} does not suit"):
        resolve(TrainConfig(**changes), task=task, spatial_dims=dims, is_photograph=dims == 2)


def test_large_images_go_through_a_network_one_by_one():
    assert images_at_once((64, 64), 32) == 32
    assert images_at_once((96, 96, 96), 32) == 4
    assert images_at_once((512, 512, 512), 32) == 1
