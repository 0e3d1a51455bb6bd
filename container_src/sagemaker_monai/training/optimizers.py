"""Optimizer, learning rate schedule, and the moving average of the weights."""

import copy
import math
from typing import Any

import torch
from torch import nn

from sagemaker_monai.hyperparameters import TrainConfig


def build_optimizer(config: TrainConfig, network: nn.Module) -> torch.optim.Optimizer:
    """Make the optimizer; biases and norm scales are not decayed (arXiv:1812.01187, section 3.1)."""
    trained = [parameter for parameter in network.parameters() if parameter.requires_grad]
    groups = [
        {"params": [value for value in trained if value.ndim > 1], "weight_decay": config.weight_decay},
        {"params": [value for value in trained if value.ndim <= 1], "weight_decay": 0.0},
    ]
    if config.optimizer == "sgd":
        return torch.optim.SGD(
            groups, lr=config.learning_rate, momentum=config.momentum, nesterov=config.momentum > 0, fused=True
        )
    return torch.optim.AdamW(groups, lr=config.learning_rate, fused=True)


def learning_rate_factor(config: TrainConfig, step: int, *, steps: int, steps_per_epoch: int) -> float:
    """The factor of the learning rate at a step, counted from 0 over all `steps` of training.

    Returns:
        Above 0 up to 1: a linear rise that reaches 1 on the last step of warm-up, then half a cosine
        (arXiv:1608.03983) towards 0, a power of what is left (arXiv:1904.08128), or 1.
    """
    warmup = min(round(config.warmup_epochs * steps_per_epoch), steps // 2)
    if step < warmup:
        return (step + 1) / warmup
    if config.schedule == "constant":
        return 1.0
    done = (step - warmup) / (steps - warmup)
    if config.schedule == "poly":
        return math.pow(1 - done, 0.9)
    return 0.5 * (1 + math.cos(math.pi * done))


class MovingAverage:
    """A copy of a network whose weights slowly follow the trained ones.

    Create it once the network is on its device: it keeps references to both sides' tensors.

    Attributes:
        network: the copy.
    """

    def __init__(self, network: nn.Module, decay: float) -> None:
        self.network = copy.deepcopy(network).requires_grad_(False)
        self._decay = decay
        self._updates = 0
        pairs = list(zip(self.network.state_dict().values(), network.state_dict().values(), strict=True))
        self._floats = [pair for pair in pairs if pair[0].is_floating_point()]
        self._counters = [pair for pair in pairs if not pair[0].is_floating_point()]  # BatchNorm's number of batches

    @torch.no_grad()
    def update(self) -> None:
        """Take one step towards the trained network.

        BatchNorm statistics are averaged like weights, because those of the last step belong to other weights. The
        decay rises with (1 + n) / (10 + n), so that the random initial weights are soon forgotten.
        """
        self._updates += 1
        decay = min(self._decay, (1 + self._updates) / (10 + self._updates))
        averages, values = (list(side) for side in zip(*self._floats, strict=True))
        torch._foreach_lerp_(averages, values, 1 - decay)
        for average, value in self._counters:
            average.copy_(value)

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint keeps."""
        return {"network": self.network.state_dict(), "updates": self._updates}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go back to where `state_dict` was taken."""
        self.network.load_state_dict(state["network"])
        self._updates = state["updates"]
