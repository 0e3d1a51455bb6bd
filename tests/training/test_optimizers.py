import copy

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from sagemaker_monai.hyperparameters import TrainConfig
from sagemaker_monai.training.optimizers import MovingAverage, build_optimizer, learning_rate_factor


def factors(epochs, steps_per_epoch, **hyperparameters):
    config = TrainConfig(epochs=epochs, **hyperparameters)
    steps = epochs * steps_per_epoch
    return [learning_rate_factor(config, s, steps=steps, steps_per_epoch=steps_per_epoch) for s in range(steps)]


@given(st.integers(1, 20), st.integers(1, 20), st.floats(0, 30), st.sampled_from(["cosine", "constant"]))
def test_the_rate_rises_to_its_highest_within_half_of_all_steps_and_never_after(epochs, per_epoch, warmup, schedule):
    rates = factors(epochs, per_epoch, warmup_epochs=warmup, schedule=schedule)
    top = rates.index(max(rates))

    assert max(rates) == 1
    assert min(rates) > 0
    assert top <= len(rates) / 2
    assert rates[: top + 1] == sorted(rates[: top + 1])
    assert rates[top:] == sorted(rates[top:], reverse=True)


def test_warm_up_is_linear_and_then_comes_half_a_cosine():
    rates = factors(6, 2, warmup_epochs=2.0)  # 4 steps of warm-up, 8 of cosine

    assert rates[:4] == pytest.approx([0.25, 0.5, 0.75, 1.0])
    assert rates[4] == 1.0
    assert rates[8] == pytest.approx(0.5)  # half way
    assert rates[6] == pytest.approx((1 + 2**-0.5) / 2)


def test_without_warm_up_the_first_step_has_the_full_rate():
    assert factors(2, 3, warmup_epochs=0.0, schedule="constant") == [1.0] * 6


@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
def test_biases_and_norms_are_not_decayed(optimizer):
    network = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Flatten(), nn.Linear(2, 2))

    made = build_optimizer(TrainConfig(optimizer=optimizer, weight_decay=0.3), network)

    decay = {id(p): group["weight_decay"] for group in made.param_groups for p in group["params"]}
    assert len(decay) == len(list(network.parameters()))
    assert {name: decay[id(p)] for name, p in network.named_parameters()} == {
        "0.weight": 0.3,
        "0.bias": 0.0,
        "1.weight": 0.0,
        "1.bias": 0.0,
        "3.weight": 0.3,
        "3.bias": 0.0,
    }


def test_the_moving_average_is_the_formula_for_weights_and_statistics_and_copies_counters():
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2))
    average = MovingAverage(network, decay=0.5)
    expected = copy.deepcopy(network.state_dict())

    for count in range(1, 8):
        network(torch.randn(4, 3))  # moves the statistics
        with torch.no_grad():
            network[0].weight.add_(1.0)
        average.update()
        decay = min(0.5, (1 + count) / (10 + count))
        for name, value in network.state_dict().items():
            if value.is_floating_point():
                expected[name] = decay * expected[name] + (1 - decay) * value

    for name, value in average.network.state_dict().items():
        if name.endswith("num_batches_tracked"):
            assert value == 7
        else:
            assert torch.allclose(value, expected[name], atol=1e-6), name
    assert not torch.equal(average.network[1].running_mean, network[1].running_mean)


def test_the_moving_average_is_no_part_of_the_trained_network():
    network = nn.Linear(2, 2)
    before = copy.deepcopy(network.state_dict())
    average = MovingAverage(network, decay=0.9)
    with torch.no_grad():
        average.network.weight.add_(5)

    average.update()

    assert all(torch.equal(before[name], value) for name, value in network.state_dict().items())
    assert not any(parameter.requires_grad for parameter in average.network.parameters())
