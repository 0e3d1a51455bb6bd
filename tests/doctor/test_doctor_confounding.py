"""Association of header attributes with labels, against figures from elsewhere."""

import numpy as np
import pytest
from scipy.stats.contingency import association as scipy_association

from sagemaker_monai.doctor.confounding import association, find_associations, remarks_of


def pairs_of(table):
    """Value and label of each image of a table, rows are values."""
    return [(f"v{row}", f"c{column}") for row, line in enumerate(table)
            for column, count in enumerate(line) for _ in range(count)]  # fmt: skip


def rows_of(pairs, attribute="Manufacturer"):
    return [({attribute: value}, (label,)) for value, label in pairs]


@pytest.mark.parametrize("table", [[[30, 10], [5, 25]], [[12, 3, 9], [4, 22, 7], [8, 8, 8], [1, 2, 30]]])
def test_cramers_v_is_that_of_scipy_with_bergsmas_correction(table):
    counts = np.array(table)
    n, (r, c) = counts.sum(), counts.shape

    v, _, _, _ = association(pairs_of(table))

    # Bergsma (2013), equations 5 to 8, from scipy's uncorrected V.
    phi = scipy_association(counts, method="cramer") ** 2 * min(r - 1, c - 1)
    corrected = max(0.0, phi - (r - 1) * (c - 1) / (n - 1))
    free = min(r - (r - 1) ** 2 / (n - 1), c - (c - 1) ** 2 / (n - 1)) - 1
    assert v == pytest.approx((corrected / free) ** 0.5, abs=1e-12)


def test_an_attribute_that_tells_the_label_is_right_for_all_and_one_that_does_not_for_few():
    told = association(pairs_of([[20, 0], [0, 20]]))
    untold = association(pairs_of([[10, 10], [10, 10]]))

    assert told[:3] == pytest.approx((1.0, 1.0, 0.5))
    assert told[3] < 1e-9
    assert untold[0] == 0
    # Of the others with its value 9 have an image's own label and 10 the other one.
    assert untold[1] == 0
    assert untold[3] == 1


def test_the_majority_is_that_of_the_others():
    # 3 of v0 have c0 and 1 has c1: c0 is the majority of the others for all 4, so 3 of 4 are right; v1 likewise.
    assert association(pairs_of([[3, 1], [1, 3]]))[1] == pytest.approx(6 / 8)
    # A unique value predicts nothing: each of two classes is equally likely.
    assert association([("a", "x"), ("b", "y"), ("c", "x"), ("d", "y")])[1] == pytest.approx(0.5)


def test_values_of_few_images_do_not_count_as_telling():
    # Each image has a serial number of its own, which tells the label perfectly and means nothing.
    rows = rows_of([(f"serial {n}", "ab"[n % 2]) for n in range(60)])

    assert find_associations(rows, ["Manufacturer"], is_multilabel=False) == []


def test_chance_is_hardly_ever_told():
    random = np.random.default_rng(0)
    told = 0
    for _ in range(40):
        labels = random.integers(0, 2, 80)
        headers = [{f"A{k}": f"v{random.integers(0, 4)}" for k in range(10)} for _ in labels]
        rows = [(header, (f"c{label}",)) for header, label in zip(headers, labels, strict=True)]
        told += bool(find_associations(rows, [f"A{k}" for k in range(10)], is_multilabel=False))

    assert told <= 6  # 2 of 40 by the procedure; 7 or more have a chance of 0.3 %


def test_few_images_say_nothing_and_a_missing_attribute_is_a_value():
    few = find_associations(rows_of(pairs_of([[9, 0], [0, 9]])), ["Manufacturer"], is_multilabel=False)
    missing = [({"Modality": "CT"} | ({"KVP": "120"} if n % 2 else {}), ("ab"[n % 2],)) for n in range(40)]

    assert few == []
    [found] = find_associations(missing, ["Modality", "KVP"], is_multilabel=False)
    assert (found.attribute, found.values) == ("KVP", 2)
    assert found.cramers_v == pytest.approx(1)


def test_of_several_findings_the_one_is_named_that_goes_with_the_attribute():
    rows = [({"Rows": "512" if n % 2 else "256"}, (("nodule",) if n % 2 else ()) + (("fluid",) if n % 3 else ()))
            for n in range(60)]  # fmt: skip

    [found] = find_associations(rows, ["Rows"], is_multilabel=True)

    assert (found.finding, found.accuracy, found.base) == ("nodule", 1.0, 0.5)


def test_strong_ones_are_warnings_and_weak_ones_notes():
    strong = find_associations(rows_of(pairs_of([[45, 5], [5, 45]])), ["Manufacturer"], is_multilabel=False)
    weak = find_associations(rows_of(pairs_of([[130, 70], [70, 130]])), ["Manufacturer"], is_multilabel=False)

    assert [each.severity for each in remarks_of([*strong, *weak])] == ["warning", "note"]
    assert "right for 90% of the images, the largest class alone for 50%" in remarks_of(strong)[0].message
