import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from sagemaker_monai.hyperparameters import TrainConfig
from sagemaker_monai.tasks.losses import IMBALANCE, build_loss, epoch_order

COUNTS = torch.tensor([700, 20, 80])
CPU = torch.device("cpu")


def example():
    generator = torch.Generator().manual_seed(1)
    return torch.randn(16, 3, generator=generator) * 3, torch.randint(0, 3, (16,), generator=generator)


def softmax(row):
    weights = [math.exp(value) for value in row]
    return [weight / sum(weights) for weight in weights]


def one_by_one(logits, targets, image_loss):
    """Mean of a formula written for one image in plain Python."""
    pairs = zip(logits.double().tolist(), targets.tolist(), strict=True)
    return sum(image_loss(row, target) for row, target in pairs) / len(targets)


def loss_of(**hyperparameters):
    logits, targets = example()
    return float(build_loss(TrainConfig(**hyperparameters), COUNTS, CPU)(logits, targets))


@pytest.mark.parametrize("imbalance", ["none", "balanced_sampler"])
def test_without_correction_the_loss_is_the_cross_entropy(imbalance):
    expected = one_by_one(*example(), lambda row, y: -math.log(softmax(row)[y]))

    assert loss_of(imbalance=imbalance) == pytest.approx(expected, rel=1e-5)


def test_label_smoothing_spreads_its_share_over_all_classes():
    def image_loss(row, y):
        return -sum((0.8 * (k == y) + 0.2 / 3) * math.log(p) for k, p in enumerate(softmax(row)))

    expected = one_by_one(*example(), image_loss)
    assert loss_of(imbalance="none", label_smoothing=0.2) == pytest.approx(expected, rel=1e-5)


def test_class_weights_are_those_of_scikit_learn_and_divided_by_the_number_of_images():
    from sklearn.utils.class_weight import compute_class_weight

    everything = torch.repeat_interleave(torch.arange(3), COUNTS).numpy()
    weights = compute_class_weight("balanced", classes=np.arange(3), y=everything)
    expected = one_by_one(*example(), lambda row, y: -weights[y] * math.log(softmax(row)[y]))

    assert loss_of(imbalance="class_weighted") == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("gamma", [0.0, 0.5, 2.0, 5.0])
def test_focal_loss_is_the_formula_of_its_paper(gamma):
    def image_loss(row, y):
        p = softmax(row)[y]
        return -((1 - p) ** gamma) * math.log(p)

    expected = one_by_one(*example(), image_loss)
    assert loss_of(imbalance="focal", focal_gamma=gamma) == pytest.approx(expected, rel=1e-4)


def test_focal_loss_smooths_the_target_and_not_the_focal_factor():
    def image_loss(row, y):
        p = softmax(row)
        smooth = -sum((0.9 * (k == y) + 0.1 / 3) * math.log(value) for k, value in enumerate(p))
        return (1 - p[y]) ** 2 * smooth

    expected = one_by_one(*example(), image_loss)
    assert loss_of(imbalance="focal", label_smoothing=0.1) == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("tau", [0.0, 1.0, 1.5])
def test_logit_adjustment_adds_tau_log_prior_before_the_softmax(tau):
    prior = [0.875, 0.025, 0.1]

    def image_loss(row, y):
        scores = [math.exp(value) * p**tau for value, p in zip(row, prior, strict=True)]
        return -math.log(scores[y] / sum(scores))

    expected = one_by_one(*example(), image_loss)
    assert loss_of(imbalance="logit_adjusted", logit_adjustment_tau=tau) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("imbalance", IMBALANCE)
@pytest.mark.parametrize("scale", [1.0, 1e4])
def test_every_loss_has_a_finite_gradient_also_for_sure_answers(imbalance, scale):
    logits = (torch.eye(3) * scale).requires_grad_()
    loss = build_loss(TrainConfig(imbalance=imbalance), COUNTS, CPU)(logits, torch.tensor([0, 1, 0]))
    loss.backward()

    assert torch.isfinite(loss)
    assert torch.isfinite(logits.grad).all()
    assert logits.grad[2].abs().sum() > 0  # the wrong answer


@pytest.mark.parametrize("imbalance", IMBALANCE)
def test_half_precision_logits_give_a_float32_loss(imbalance):
    logits, targets = example()

    loss = build_loss(TrainConfig(imbalance=imbalance), COUNTS, CPU)(logits.bfloat16(), targets)

    assert loss.dtype == torch.float32


@given(st.integers(1, 200), st.integers(0, 2**32))
def test_an_epoch_has_every_image_once(number, seed):
    order = epoch_order(TrainConfig(), torch.zeros(number, dtype=torch.long), torch.Generator().manual_seed(seed))

    assert sorted(order.tolist()) == list(range(number))


def test_the_balanced_sampler_draws_every_class_equally_often():
    targets = torch.repeat_interleave(torch.arange(3), torch.tensor([9000, 100, 900]))
    order = epoch_order(TrainConfig(imbalance="balanced_sampler"), targets, torch.Generator().manual_seed(5))

    drawn = torch.bincount(targets[order]).double() / len(targets)
    # Standard deviation of a share: sqrt(1/3 * 2/3 / 10,000) = 0.0047.
    assert drawn.tolist() == pytest.approx([1 / 3] * 3, abs=0.02)
    assert len(order) == len(targets)
    assert order[targets[order] == 1].unique().numel() == 100  # the rare class, all of it
    assert order[targets[order] == 0].unique().numel() > 2500  # 3,333 draws of 9,000: 2,785 different ones expected


@pytest.mark.parametrize("imbalance", ["none", "balanced_sampler"])
def test_the_order_belongs_to_the_seed(imbalance):
    targets = torch.arange(50) % 3
    draws = [
        epoch_order(TrainConfig(imbalance=imbalance), targets, torch.Generator().manual_seed(s)) for s in (1, 1, 2)
    ]

    assert torch.equal(draws[0], draws[1])
    assert not torch.equal(draws[0], draws[2])
