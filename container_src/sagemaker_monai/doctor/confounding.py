"""Header attributes that go with the label: what a network may learn instead of the disease.

Strength is Cramer's V with Bergsma's correction for chance, which makes attributes with many values and few images
comparable. A simpler figure is given with it: how often the majority label of all other images with the same value is
right, against always saying the largest class. Values of fewer than RARE images are pooled, and only attributes that
pass Benjamini and Hochberg's procedure at a false discovery rate of 5 % are reported.

Images are counted, not patients, so many images of few patients make chance look like association; the report gives the
count of images for that reason. A strong association need not be a fault: contrast agent is given with another
protocol. But then the score says how well the protocol was recognised.

Sources: H. Cramer, Mathematical Methods of Statistics (1946), chapter 21; W. Bergsma, "A bias-correction for Cramer's V
and Tschuprow's T", Journal of the Korean Statistical Society 42 (2013), 323-328; Y. Benjamini, Y. Hochberg, Journal of
the Royal Statistical Society B 57 (1995), 289-300. On what it does to networks: J. Zech et al., PLoS Medicine 15(11),
e1002683 (2018).
"""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from scipy.stats import chi2

from sagemaker_monai.messages.remarks import Remark, remark

MIN_IMAGES = 20
RARE = 5  # the usual rule for Pearson's test
STRONG = 0.3  # Cramer's V that is a warning: Cohen's "medium" for two classes
FALSE_DISCOVERIES = 0.05
MISSING, OTHERS = "(missing)", "(rare)"


@dataclass(frozen=True)
class Association:
    """How an attribute goes with the label.

    Attributes:
        attribute: DICOM keyword.
        finding: the class that it was compared with, if images have several findings; else "".
        images, values: how many were compared, and how many values the attribute has among them.
        cramers_v: 0 (none) to 1, corrected for chance.
        accuracy: how often the majority label of the other images with the same value is right, 0 to 1.
        base: share of the largest class.
        p: of Pearson's chi-squared test.
    """

    attribute: str
    finding: str
    images: int
    values: int
    cramers_v: float
    accuracy: float
    base: float
    p: float


def association(pairs: Sequence[tuple[str, str]]) -> tuple[float, float, float, float]:
    """`cramers_v`, `accuracy`, `base` and `p` of an `Association`, by the value and label of each image."""
    count = len(pairs)
    cells, values, labels = Counter(pairs), Counter(value for value, _ in pairs), Counter(label for _, label in pairs)
    rows, columns = len(values), len(labels)
    base = max(labels.values()) / count
    accuracy = sum(n * _is_right_alone(v, c, n, cells, labels) for (v, c), n in cells.items()) / count
    if rows < 2 or columns < 2:
        return 0.0, accuracy, base, 1.0
    # Sum of observed^2 / expected over all cells, less n: cells without images add nothing to the first part.
    statistic = count * (sum(n * n / (values[v] * labels[c]) for (v, c), n in cells.items()) - 1)
    phi = max(statistic / count - (rows - 1) * (columns - 1) / (count - 1), 0.0)
    free = min(rows - (rows - 1) ** 2 / (count - 1), columns - (columns - 1) ** 2 / (count - 1)) - 1
    v = math.sqrt(phi / free) if free > 0 else 0.0
    return min(v, 1.0), accuracy, base, float(chi2.sf(statistic, (rows - 1) * (columns - 1)))


def _is_right_alone(
    value: str, label: str, number: int, cells: Mapping[tuple[str, str], int], labels: Mapping[str, int]
) -> float:
    """Whether the label is the majority of the other images with this value; ties share."""
    others = {each: cells.get((value, each), 0) - (each == label) for each in labels}
    most = max(others.values())
    largest = [each for each, count in others.items() if count == most]
    return (label in largest) / len(largest) if most or number > 1 else 1 / len(labels)


def find_associations(
    images: Sequence[tuple[Mapping[str, str], tuple[str, ...]]], attributes: Sequence[str], *, is_multilabel: bool
) -> list[Association]:
    """Compare attributes with labels.

    Args:
        images: header attributes and classes of each.
        attributes: keywords.
        is_multilabel: an image may have any number of classes, which are compared one by one.

    Returns:
        The significant ones, the strongest first; of several findings only the strongest.
    """
    images = [each for each in images if each[0] and (is_multilabel or len(each[1]) == 1)]
    if len(images) < MIN_IMAGES:
        return []
    findings = sorted({name for _, names in images for name in names}) if is_multilabel else [""]
    found = []
    for attribute in attributes:
        values = _pooled([header.get(attribute, MISSING) for header, _ in images])
        if len(set(values)) < 2:
            continue
        for finding in findings:
            labels = [str(finding in names) if is_multilabel else names[0] for _, names in images]
            v, accuracy, base, p = association(list(zip(values, labels, strict=True)))
            found.append(Association(attribute, finding, len(images), len(set(values)), v, accuracy, base, p))
    best: dict[str, Association] = {}
    for each in sorted(_kept(found), key=lambda each: -each.cramers_v):
        best.setdefault(each.attribute, each)
    return list(best.values())


def _pooled(values: Sequence[str]) -> list[str]:
    counts = Counter(values)
    return [value if counts[value] >= RARE else OTHERS for value in values]


def _kept(found: Sequence[Association]) -> list[Association]:
    """Benjamini and Hochberg: all up to the largest p that is below its rank's share of FALSE_DISCOVERIES."""
    ordered = sorted(found, key=lambda each: each.p)
    ranks = [rank for rank, each in enumerate(ordered, 1) if each.p <= FALSE_DISCOVERIES * rank / len(ordered)]
    return ordered[: max(ranks, default=0)]


def remarks_of(associations: Sequence[Association]) -> list[Remark]:
    """One remark for each."""
    return [
        remark(
            "confounded" if each.cramers_v >= STRONG else "associated",
            attribute=each.attribute,
            accuracy=each.accuracy,
            base=each.base,
            v=each.cramers_v,
            images=each.images,
        )
        for each in associations
    ]
