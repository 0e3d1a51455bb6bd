"""Scores of a classifier, and a report with confidence intervals.

Everything is computed from (N, K) probabilities and (N,) classes, with one weight per image: 1 for the scores
themselves, and how often its group was drawn for the bootstrap. A class without images has no sensitivity, and a class
without positives or negatives no AUC: those are None and left out of macro averages, and the report names the classes.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sagemaker_monai.errors import DatasetError

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

RESAMPLES = 1000
CHUNK_VALUES = 20_000_000  # float64 values of a bootstrap's weights in memory at once: 160 MB
SMALLEST_PROBABILITY = 1e-15  # in the log loss, as scikit-learn did; one confident mistake must not make it infinite


def score(
    probabilities: Floats, targets: Integers, labels: Sequence[str], predicted: Integers | None = None
) -> dict[str, Any]:
    """Score answers.

    Args:
        probabilities: (N, K), rows sum to 1.
        targets: (N,), true classes from 0.
        labels: K class names.
        predicted: (N,), predicted classes; None means the first with the largest probability.

    Returns:
        `loss` (log loss, natural), `accuracy`, `balanced_accuracy` (mean sensitivity), `auc` (mean one-versus-rest),
        `sensitivity` by class name, and `confusion_matrix` (K x K counts, rows true, columns predicted).

    Raises:
        DatasetError: there are no images.
    """
    refuse_nothing(targets)
    predicted = probabilities.argmax(axis=1) if predicted is None else predicted
    matrix = confusion_matrices(predicted, targets, len(labels), once(targets))
    rates = _rates(matrix)
    aucs = _aucs(probabilities, targets, once(targets))
    true = np.clip(probabilities[np.arange(len(targets)), targets], SMALLEST_PROBABILITY, 1.0)
    return {
        "loss": float(-np.log(true).mean()),
        "accuracy": float(rates["accuracy"][0]),
        "balanced_accuracy": number(mean(rates["sensitivity"])[0]),
        "auc": number(mean(aucs)[0]),
        "sensitivity": {label: number(value) for label, value in zip(labels, rates["sensitivity"][0], strict=True)},
        "confusion_matrix": matrix[0].astype(int).tolist(),
    }


def report(
    probabilities: Floats,
    targets: Integers,
    groups: Sequence[str],
    labels: Sequence[str],
    *,
    seed: int,
    predicted: Integers | None = None,
) -> dict[str, Any]:
    """Score answers for metrics.json: `score`, the scores of each class, and 95 % intervals; None where undefined.

    The intervals are percentiles of a bootstrap that draws whole groups (lesions, patients) with replacement, because
    images of one group are not independent. A resample in which a score is undefined is left out of its interval.

    Args:
        probabilities, targets, labels, predicted: as for `score`.
        groups: N names.
        seed: of the resampling.

    Raises:
        DatasetError: there are no images.

    Source: Davison and Hinkley, Bootstrap Methods and their Application (1997), 3.8; Field and Welsh, Bootstrapping
    clustered data, J. R. Statist. Soc. B 69 (2007), 369-390.
    """
    predicted = probabilities.argmax(axis=1) if predicted is None else predicted
    scores = score(probabilities, targets, labels, predicted)

    def compute(weights: Floats) -> dict[str, Floats]:
        rates = _rates(confusion_matrices(predicted, targets, len(labels), weights))
        return {**rates, "auc": _aucs(probabilities, targets, weights)}

    rates = compute(once(targets))
    drawn = bootstrap(compute, groups, seed=seed)
    per_class = {
        label: {
            "images": int((targets == index).sum()),
            **{name: number(rates[name][0, index]) for name in PER_CLASS},
            "intervals_95": {name: interval(drawn[name][:, index]) for name in PER_CLASS},
        }
        for index, label in enumerate(labels)
    }
    return {
        "images": len(targets),
        "groups": len(set(groups)),
        **{name: scores[name] for name in ("loss", "accuracy", "balanced_accuracy", "auc")},
        "intervals_95": {
            "accuracy": interval(drawn["accuracy"]),
            "balanced_accuracy": interval(mean(drawn["sensitivity"])),
            "auc": interval(mean(drawn["auc"])),
        },
        "labels": list(labels),
        "confusion_matrix": scores["confusion_matrix"],
        "per_class": per_class,
        "classes_without_auc": [label for label, row in per_class.items() if row["auc"] is None],
        "bootstrap": _described(seed),
    }


def report_by_label(
    each: Callable[[Floats], dict[str, Floats]],
    scores: Mapping[str, Any],
    labels: Sequence[str],
    groups: Sequence[str],
    *,
    facts: Sequence[Mapping[str, Any]],
    seed: int,
) -> dict[str, Any]:
    """Scores of each label and their means, with intervals as in `report`.

    Args:
        each: from weights (R, N) to scores of every label, each (R, K).
        scores: of all labels together; those that `each` has too are its means.
        labels, groups, seed: as for `report`.
        facts: what else to report of each label, K.
    """
    whole = each(np.ones((1, len(groups))))
    drawn = bootstrap(each, groups, seed=seed)
    return {
        "images": len(groups),
        "groups": len(set(groups)),
        **scores,
        "intervals_95": {name: interval(mean(drawn[name])) for name in scores if name in drawn},
        "labels": list(labels),
        "per_class": {
            label: {
                **facts[index],
                **{name: number(values[0, index]) for name, values in whole.items()},
                "intervals_95": {name: interval(values[:, index]) for name, values in drawn.items()},
            }
            for index, label in enumerate(labels)
        },
        "bootstrap": _described(seed),
    }


def once(targets: np.ndarray) -> Floats:
    """Weights (1, N) that count every image once, for the scores themselves."""
    return np.ones((1, len(targets)))


PER_CLASS = ("sensitivity", "specificity", "precision", "f1", "auc")


def refuse_nothing(targets: np.ndarray) -> None:
    """Raise a DatasetError if a split is empty."""
    if len(targets) == 0:
        raise DatasetError("there is no image to score: add at least one to the split")


def _described(seed: int) -> dict[str, Any]:
    """How the intervals were made."""
    return {"resamples": RESAMPLES, "unit": "group", "interval": "percentile", "seed": seed}


def confusion_matrices(predicted: Integers, targets: Integers, classes: int, weights: Floats) -> Floats:
    """(R, K, K) sums of the weights (R, N); rows true, columns predicted."""
    cells = np.zeros((len(targets), classes * classes))
    cells[np.arange(len(targets)), targets * classes + predicted] = 1.0
    return (weights @ cells).reshape(-1, classes, classes)


def _rates(matrices: Floats) -> dict[str, Floats]:
    """Rates from confusion matrices (R, K, K): accuracy (R,), the others (R, K), NaN for 0 / 0."""
    hits = np.diagonal(matrices, axis1=1, axis2=2)
    true, predicted = matrices.sum(axis=2), matrices.sum(axis=1)
    total = matrices.sum(axis=(1, 2))
    negatives = total[:, None] - true
    return {
        "accuracy": hits.sum(axis=1) / total,
        "sensitivity": divide(hits, true),
        "specificity": divide(negatives - (predicted - hits), negatives),
        "precision": divide(hits, predicted),
        "f1": np.where(true > 0, divide(2 * hits, true + predicted), np.nan),
    }


def _aucs(probabilities: Floats, targets: Integers, weights: Floats) -> Floats:
    """One-versus-rest areas under the ROC curve, (R, K), NaN for a class without images or without other images.

    The area is the Mann-Whitney statistic: the probability that an image of the class scores higher than one of the
    others, where a tie counts half.
    """
    columns = range(probabilities.shape[1])
    return np.stack([area(probabilities[:, index], targets == index, weights) for index in columns], axis=1)


def area(scores: Floats, is_positive: NDArray[np.bool_], weights: Floats) -> Floats:
    """Areas under the ROC curve of scores (N,) for each row of weights (R, N): (R,), NaN if one side is empty."""
    order = np.argsort(scores, kind="stable")
    ranked = scores[order]
    is_class = is_positive[order]
    negatives = np.where(is_class, 0.0, weights[:, order])  # (R, N), by rising score
    up_to = np.concatenate([np.zeros((len(weights), 1)), np.cumsum(negatives, axis=1)], axis=1)
    positions = np.flatnonzero(is_class)
    below = up_to[:, np.searchsorted(ranked, ranked[positions], side="left")]
    below_or_equal = up_to[:, np.searchsorted(ranked, ranked[positions], side="right")]
    positives = weights[:, order[positions]]
    wins = (positives * (below + below_or_equal) / 2).sum(axis=1)
    return divide(wins, positives.sum(axis=1) * up_to[:, -1])


def bootstrap(compute: Callable[[Floats], dict[str, Floats]], groups: Sequence[str], *, seed: int) -> dict[str, Floats]:
    """What `compute` makes of the weights (R, N) of RESAMPLES resamples, with these along the first axis."""
    parts: dict[str, list[Floats]] = {}
    for weights in _group_draws(groups, seed=seed):
        for name, values in compute(weights).items():
            parts.setdefault(name, []).append(values)
    return {name: np.concatenate(values) for name, values in parts.items()}


def _group_draws(groups: Sequence[str], *, seed: int) -> Iterator[Floats]:
    """How often each image is in each resample, (R, N), as many resamples at a time as fit in memory."""
    names, group_of_image = np.unique(np.asarray(groups, dtype=str), return_inverse=True)
    generator = np.random.default_rng(seed)
    size = max(1, CHUNK_VALUES // len(groups))
    for start in range(0, RESAMPLES, size):
        rows = min(size, RESAMPLES - start)
        draws = generator.multinomial(len(names), np.full(len(names), 1 / len(names)), size=rows)
        yield draws[:, group_of_image].astype(np.float64)


def divide(above: Floats, below: Floats) -> Floats:
    """Divide, with NaN where the divisor is not above 0."""
    return np.divide(above, below, out=np.full_like(above, np.nan, dtype=np.float64), where=below > 0)


def mean(values: Floats) -> Floats:
    """Mean of the numbers over the last axis, ignoring NaN; NaN if there are none."""
    exists = ~np.isnan(values)
    return divide(np.where(exists, values, 0.0).sum(axis=-1), exists.sum(axis=-1).astype(np.float64))


def number(value: float) -> float | None:
    """None for NaN, which JSON does not have."""
    return None if np.isnan(value) else float(value)


def interval(values: Floats) -> list[float] | None:
    """2.5 and 97.5 percentile, ignoring NaN."""
    values = values[~np.isnan(values)]
    return [float(limit) for limit in np.percentile(values, [2.5, 97.5])] if len(values) else None
