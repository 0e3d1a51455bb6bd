"""The loss of segmentation: cross-entropy and soft Dice, added up (arXiv:1904.08128).

Dice is taken over the whole batch, so that a patch without a structure does not by itself count as missed. Voxels
that nobody annotated count for neither part. Structures that overlap have a channel each: binary cross-entropy takes
the place of the cross-entropy.
"""

from collections.abc import Callable, Sequence

import torch
from torch.nn import functional

from sagemaker_monai.tasks.label_maps import IGNORED

_SMOOTH = 1e-5


def dice_and_cross_entropy(
    logits: torch.Tensor, labels: torch.Tensor, *, focal_gamma: float = 0.0, label_smoothing: float = 0.0
) -> torch.Tensor:
    """Mean cross-entropy of the annotated voxels plus one minus the mean soft Dice of the structures.

    Args:
        logits: (N, K + 1, ...), the background first.
        labels: (N, ...) whole numbers from 0 to K, or `IGNORED`.
        focal_gamma: exponent of the focal factor of the cross-entropy (arXiv:1708.02002); 0 for none.
        label_smoothing: share of the cross-entropy's target that is spread over all labels.

    Returns:
        A float32 scalar; 0, with a gradient of 0, where nothing is annotated.
    """
    logits, labels = logits.float(), labels.long()
    annotated = labels != IGNORED
    count = annotated.sum().clamp_min(1)
    plain = functional.cross_entropy(
        logits, labels, reduction="none", ignore_index=IGNORED, label_smoothing=label_smoothing
    )
    probabilities = logits.softmax(dim=1) * annotated.unsqueeze(1)
    if focal_gamma:
        safe = torch.where(annotated, labels, 0)
        true = probabilities.gather(1, safe.unsqueeze(1)).squeeze(1)
        plain = plain * (1 - true).clamp_min(1e-12) ** focal_gamma
    cross_entropy = (plain * annotated).sum() / count
    truth = functional.one_hot(torch.where(annotated, labels, 0), logits.shape[1]).movedim(-1, 1)
    truth = truth.to(probabilities.dtype) * annotated.unsqueeze(1)
    return cross_entropy + (1 - _soft_dice(probabilities, truth)[1:]).mean() * annotated.any()


def dice_and_binary_cross_entropy(
    logits: torch.Tensor,
    labels: torch.Tensor,
    *,
    members: Sequence[Sequence[int]],
    focal_gamma: float = 0.0,
    label_smoothing: float = 0.0,
) -> torch.Tensor:
    """Mean binary cross-entropy of the annotated voxels plus one minus the mean soft Dice, of structures that overlap.

    Args:
        logits: (N, K, ...), one channel a structure.
        labels: (N, ...) numbers of parts, 0 for the background, or `IGNORED`.
        members: the numbers of the parts of each structure.
        focal_gamma: exponent of the focal factor of the cross-entropy (arXiv:1708.02002); 0 for none.
        label_smoothing: share of the cross-entropy's target that is spread over both answers.

    Returns:
        A float32 scalar; 0, with a gradient of 0, where nothing is annotated.
    """
    logits, labels = logits.float(), labels.long()
    annotated = (labels != IGNORED).unsqueeze(1)
    truth = channels_of(labels, members)
    smooth = truth * (1 - label_smoothing) + label_smoothing / 2
    plain = functional.binary_cross_entropy_with_logits(logits, smooth, reduction="none")
    probabilities = logits.sigmoid()
    if focal_gamma:
        true = torch.where(truth > 0, probabilities, 1 - probabilities)
        plain = plain * (1 - true).clamp_min(1e-12) ** focal_gamma
    cross_entropy = (plain * annotated).sum() / (annotated.sum() * logits.shape[1]).clamp_min(1)
    dice = _soft_dice(probabilities * annotated, truth * annotated)
    return cross_entropy + (1 - dice).mean() * annotated.any()


def channels_of(labels: torch.Tensor, members: Sequence[Sequence[int]]) -> torch.Tensor:
    """Where each structure is, float32 (N, K, ...), of numbers of its parts (N, ...)."""
    table = torch.zeros(IGNORED + 1, len(members))
    for structure, numbers in enumerate(members):
        table[list(numbers), structure] = 1
    return table.to(labels.device)[labels.long()].movedim(-1, 1)


def _soft_dice(probabilities: torch.Tensor, truth: torch.Tensor) -> torch.Tensor:
    """Over the batch, (K,), of both (N, K, ...), which are 0 where nothing is annotated."""
    axes = (0, *range(2, truth.ndim))
    common = (probabilities * truth).sum(axes)
    total = (probabilities + truth).sum(axes)
    return (2 * common + _SMOOTH) / (total + _SMOOTH)


def with_deep_supervision(
    loss: Callable[[torch.Tensor, torch.Tensor], torch.Tensor],
) -> Callable[[torch.Tensor, torch.Tensor], torch.Tensor]:
    """The same loss for outputs (N, S, K + 1, ...) of S depths, of which each counts half as much as the one above.

    Args:
        loss: of outputs (N, K + 1, ...) and label maps (N, ...).
    """

    def of_all_depths(outputs: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        if outputs.ndim == labels.ndim + 1:
            return loss(outputs, labels)
        weights = [0.5**depth for depth in range(outputs.shape[1])]
        losses = [weight * loss(outputs[:, depth], labels) for depth, weight in enumerate(weights)]
        return torch.stack(losses).sum() / sum(weights)

    return of_all_depths


def summed_cross_entropy(
    logits: torch.Tensor, labels: torch.Tensor, members: Sequence[Sequence[int]] | None = None
) -> float:
    """The cross-entropy of one image, added up over its annotated voxels.

    Args:
        logits: (K + 1, ...), or (K, ...) with `members`.
        labels: (...), numbers or `IGNORED`.
        members: the numbers of the parts of structures that overlap, whose binary cross-entropies are averaged.
    """
    labels = labels.long()
    if members is None:
        total = functional.cross_entropy(logits[None], labels[None], ignore_index=IGNORED, reduction="sum")
        return float(total)
    truth = channels_of(labels[None], members)[0]
    each = functional.binary_cross_entropy_with_logits(logits, truth, reduction="none").mean(dim=0)
    return float((each * (labels != IGNORED)).sum())
