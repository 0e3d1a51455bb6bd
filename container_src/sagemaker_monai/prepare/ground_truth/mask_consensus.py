"""From the masks that several annotators drew to one, pixel by pixel: by majority or by STAPLE.

Majority gives a pixel the label that most annotators gave it. Where several labels have equally many votes, any choice
would be a coin toss, so the pixel becomes one that nobody annotated (`IGNORED`): it counts neither in the loss nor in
any score. STAPLE estimates how often each annotator is right about each structure, and weights the answers by it. Of
fewer than three annotators of an image it cannot tell who is right.

An annotator who left a pixel out (`IGNORED`) has no vote on it.
"""

from collections.abc import Callable, Mapping
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from sagemaker_monai.data.mask_agreement import Combinations
from sagemaker_monai.tasks.label_maps import IGNORED

_RIGHT = 0.99999  # how often an annotator is right, to begin with: as Warfield et al. and ITK have it
_CHANGE = 1e-7  # of a probability between two rounds, below which they end
_MOST_ROUNDS = 10_000
_TIE = 1e-6  # between two probabilities


def majority(found: Combinations) -> NDArray[np.uint8]:
    """The label of each combination, (P,): the one with most votes, or IGNORED where there are several or none."""
    labels = _labels_in(found)
    votes = (found.said[:, :, np.newaxis] == labels).sum(axis=1)  # (P, L)
    return _leading(votes, labels, tie=0)


def staple(found: Combinations) -> NDArray[np.uint8]:
    """The label of each combination, (P,): the most probable one by STAPLE, or IGNORED where two are equally so."""
    labels = _labels_in(found)
    is_told = np.isin(found.said, labels).any(axis=1, keepdims=True)  # else only the prior speaks
    return _leading(staple_probabilities(found, labels) * is_told, labels, tie=_TIE)


CONSENSUS: Mapping[str, Callable[[Combinations], NDArray[np.uint8]]] = MappingProxyType(
    {"majority": majority, "staple": staple}
)


def staple_probabilities(found: Combinations, labels: NDArray[np.uint8]) -> NDArray[np.float64]:
    """The probability of each label for each combination.

    Args:
        found: of one image.
        labels: (L,), every label in it.

    Returns:
        (P, L), rows sum to 1.

    Source: S. K. Warfield, K. H. Zou, W. M. Wells, IEEE Transactions on Medical Imaging 23, 903-921 (2004), with a
    matrix of confusion for each annotator in place of sensitivity and specificity, which it equals for two labels. The
    prior is the share of a label among all answers.
    """
    if len(labels) < 2:
        return np.ones((len(found.said), len(labels)))
    is_said = found.said[:, :, np.newaxis] == labels  # (P, J, L)
    is_told = is_said.any(axis=2)  # (P, J)
    weights = found.counts[:, np.newaxis].astype(np.float64)  # (P, 1)
    prior = (is_said.sum(axis=1) * weights).sum(axis=0)
    log_prior = np.log(prior / prior.sum())
    count = len(labels)
    # (J, said, true): how often an annotator says one label where another is true.
    first = np.where(np.eye(count, dtype=bool), _RIGHT, (1 - _RIGHT) / (count - 1))
    rates = np.repeat(first[np.newaxis], found.said.shape[1], axis=0)
    probabilities = before = np.zeros((len(found.said), count))
    for _ in range(_MOST_ROUNDS):
        with np.errstate(divide="ignore"):
            logs = np.log(rates)
        scores = np.tile(log_prior, (len(found.said), 1))
        for annotator in range(found.said.shape[1]):
            told = is_told[:, annotator]
            scores[told] += logs[annotator][is_said[told, annotator].argmax(axis=1)]
        scores = np.exp(scores - scores.max(axis=1, keepdims=True))
        probabilities = np.asarray(scores / scores.sum(axis=1, keepdims=True), np.float64)
        if np.abs(probabilities - before).max() < _CHANGE:
            break
        before = probabilities
        expected = np.einsum("pjd,ps->jds", is_said, probabilities * weights)  # pixels
        whole = expected.sum(axis=1, keepdims=True)
        rates = np.where(whole > 0, expected / np.where(whole > 0, whole, 1), first)
    return probabilities


def _labels_in(found: Combinations) -> NDArray[np.uint8]:
    labels = np.unique(found.said)
    kept: NDArray[np.uint8] = labels[labels != IGNORED]
    return kept


def _leading(values: NDArray[np.generic], labels: NDArray[np.uint8], *, tie: float) -> NDArray[np.uint8]:
    """The label of the highest value in each row (P, L); IGNORED where the next is within `tie`, or all are 0."""
    if not len(labels):
        return np.full(len(values), IGNORED, np.uint8)
    ordered = np.sort(np.column_stack([np.zeros(len(values)), values]), axis=1)
    is_tied = ordered[:, -1] - ordered[:, -2] <= tie
    return np.where(is_tied, IGNORED, labels[np.argmax(values, axis=1)]).astype(np.uint8)
