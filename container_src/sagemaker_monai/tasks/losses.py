"""How training deals with rare classes: its loss, and the order in which images are drawn; files are never copied.

All losses are one formula, averaged over the batch, of which each method of `IMBALANCE` sets one part:

    weight[y] * (1 - p_y)**gamma * cross_entropy(logits + adjustment, smoothed y)

Validation uses none of this: its loss is the plain log loss of the probabilities that would be served (`metrics`).
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch.nn import functional

from sagemaker_monai.tasks.task import Loss, LossOptions


@dataclass(frozen=True)
class Terms:
    """The three parts of the loss; `weights` and `adjustment` are float32 (K,)."""

    weights: torch.Tensor
    adjustment: torch.Tensor
    gamma: float = 0.0


def _plain(counts: torch.Tensor, _config: LossOptions) -> Terms:
    return Terms(torch.ones_like(counts), torch.zeros_like(counts))


def _class_weighted(counts: torch.Tensor, _config: LossOptions) -> Terms:
    """Weights N / (K * n_k), as scikit-learn's "balanced": every class has the same sum, and the mean is 1."""
    return Terms(counts.sum() / (len(counts) * counts), torch.zeros_like(counts))


def _focal(counts: torch.Tensor, config: LossOptions) -> Terms:
    """Focal loss without alpha (arXiv:1708.02002, equation 4): well classified images count less."""
    return Terms(torch.ones_like(counts), torch.zeros_like(counts), gamma=config.focal_gamma)


def _logit_adjusted(counts: torch.Tensor, config: LossOptions) -> Terms:
    """Add tau * log prior to the logits in training only (arXiv:2007.07314, equation 10).

    The plain logits, which serving uses, then estimate the posterior as if all classes were equally frequent.
    """
    prior = counts / counts.sum()
    return Terms(torch.ones_like(counts), config.logit_adjustment_tau * prior.log())


IMBALANCE: dict[str, Callable[[torch.Tensor, LossOptions], Terms]] = {
    "none": _plain,
    "balanced_sampler": _plain,  # see `epoch_order`
    "class_weighted": _class_weighted,
    "focal": _focal,
    "logit_adjusted": _logit_adjusted,
}


def build_loss(config: LossOptions, class_counts: torch.Tensor, device: torch.device) -> Loss:
    """Make the loss of training.

    Args:
        config: `imbalance`, not "auto", and its parameters, `label_smoothing`. Smoothing changes the target of the
            cross-entropy but not the focal factor, which stays that of the true class.
        class_counts: (K,), training images of each class, each at least 1.
        device: of the logits.

    Returns:
        A function of logits (N, K) and classes (N,), or the share of each class (N, K), to the mean loss, a float32
        scalar. An image with shares has the mean weight of its classes, and the focal factor of their mean log
        probability.
    """
    terms = IMBALANCE[config.imbalance](class_counts.float(), config)
    weights, adjustment = terms.weights.to(device), terms.adjustment.to(device)

    def loss(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        adjusted = logits.float() + adjustment
        losses = functional.cross_entropy(adjusted, targets, reduction="none", label_smoothing=config.label_smoothing)
        if terms.gamma:
            log_probabilities = functional.log_softmax(adjusted, dim=1)
            if targets.dim() == 2:
                log_true = (log_probabilities * targets).sum(dim=1)
            else:
                log_true = log_probabilities.gather(1, targets[:, None])[:, 0]
            # 1 - p by expm1: for p close to 1, the subtraction would leave nothing to differentiate.
            losses = losses * (-torch.expm1(log_true)).clamp_min(1e-12) ** terms.gamma
        # Divided by N and not by the batch's sum of weights, which would cancel the weight of a class that is alone in
        # the batch.
        return (losses * (targets @ weights if targets.dim() == 2 else weights[targets])).mean()

    return loss


def epoch_order(config: LossOptions, targets: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Draw the training images of one epoch, whose classes are `targets` (N,), with a CPU generator.

    Returns:
        N indices: every image once in random order, or, with the balanced sampler, drawn with replacement so that
        every class is equally likely.
    """
    if config.imbalance != "balanced_sampler":
        return torch.randperm(len(targets), generator=generator)
    chance = 1.0 / torch.bincount(targets).double()[targets]
    # torch.multinomial takes 2**24 categories at most; searching the cumulative sums has no limit.
    edges = (chance / chance.sum()).cumsum(0)
    drawn = torch.rand(len(targets), generator=generator, dtype=torch.float64)
    return torch.searchsorted(edges, drawn, right=True).clamp_max(len(targets) - 1)
