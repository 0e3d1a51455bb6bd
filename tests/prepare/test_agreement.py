"""Agreement of annotators, against published examples and scikit-learn."""

import warnings
from collections import Counter

import numpy as np
import pytest
from sklearn.metrics import cohen_kappa_score

from sagemaker_monai.prepare.ground_truth.agreement import (
    cohen_by_pair,
    cohen_kappa,
    fleiss_kappa,
    krippendorff_alpha,
    measure_agreement,
    observed_agreement,
)

# Fleiss 1971, table 1: 30 patients, 6 psychiatrists each; depression, personality disorder, schizophrenia, neurosis,
# other.
FLEISS_1971 = """
00060 03003 01401 00006 03030 20400 00402 20310 20040 00006 10050 11040 03300 10050 02031
00501 30012 51000 02040 10203 00006 01050 02013 20040 10041 05010 40002 02040 10500 00006
"""

# Krippendorff 2011, section C: 4 observers, 12 units, some of them without an answer.
KRIPPENDORFF_2011 = ["1233214 12...", "123322412 5.3", ".33323422 51.", "123324412 51."]


def counts_of(lines):
    return [{category: int(digit) for category, digit in enumerate(line) if digit != "0"} for line in lines]


def krippendorff_ratings():
    rows = [line.replace(" ", "") for line in KRIPPENDORFF_2011]
    assert {len(row) for row in rows} == {12}
    return [{who: row[unit] for who, row in enumerate(rows) if row[unit] != "."} for unit in range(12)]


def random_ratings(*, images, annotators, categories, seed, share_missing=0.3):
    random = np.random.default_rng(seed)
    truth = random.integers(0, categories, images)
    return [
        {
            who: int(truth[image]) if random.random() < 0.7 else int(random.integers(0, categories))
            for who in range(annotators)
            if random.random() > share_missing
        }
        for image in range(images)
    ]


def test_fleiss_kappa_is_that_of_the_table_fleiss_published_it_with():
    counts = counts_of(FLEISS_1971.split())

    totals = Counter()
    for image in counts:
        totals.update(image)
    assert [totals[category] for category in range(5)] == [26, 26, 30, 55, 43]  # his column sums
    assert observed_agreement(counts) == pytest.approx(0.556, abs=5e-4)
    assert fleiss_kappa(counts) == pytest.approx(0.430, abs=5e-4)


def test_fleiss_kappa_with_missing_answers_is_that_worked_out_by_hand():
    # Answers a a a | a b | b b | a: agreement 1, 0, 1 over the images with two or more: 2/3. Shares of a: 1, 1/2, 0, 1,
    # mean 5/8; of b 3/8; by chance 34/64. Kappa (2/3 - 34/64) / (1 - 34/64) = 13/45.
    counts = [{"a": 3}, {"a": 1, "b": 1}, {"b": 2}, {"a": 1}]

    assert fleiss_kappa(counts) == pytest.approx(13 / 45, abs=1e-12)


def test_krippendorff_alpha_is_that_of_the_example_he_published():
    ratings = krippendorff_ratings()

    assert krippendorff_alpha([Counter(image.values()) for image in ratings]) == pytest.approx(0.743, abs=5e-4)


@pytest.mark.parametrize("seed", range(5))
def test_cohen_kappa_is_scikit_learns(seed):
    random = np.random.default_rng(seed)
    first = random.integers(0, 4, 50)
    second = np.where(random.random(50) < 0.6, first, random.integers(0, 4, 50))

    assert cohen_kappa(first.tolist(), second.tolist()) == pytest.approx(cohen_kappa_score(first, second), abs=1e-12)


def test_cohen_kappa_of_a_pair_is_over_the_images_that_both_have_seen():
    ratings = random_ratings(images=80, annotators=4, categories=3, seed=3)

    pairs = cohen_by_pair(ratings)

    assert len(pairs) == 6
    for pair in pairs:
        both = [image for image in ratings if pair.first in image and pair.second in image]
        expected = cohen_kappa_score([i[pair.first] for i in both], [i[pair.second] for i in both])
        assert (pair.images, pair.cohen_kappa) == (len(both), pytest.approx(expected, abs=1e-12))
    assert [pair.images for pair in pairs] == sorted((pair.images for pair in pairs), reverse=True)


def test_annotators_without_a_common_image_make_no_pair():
    assert cohen_by_pair([{1: "a"}, {2: "a"}]) == []


def test_fleiss_kappa_of_two_annotators_is_scotts_pi():
    """Scott's pi takes the mean of both annotators' shares for chance."""
    ratings = random_ratings(images=60, annotators=2, categories=3, seed=9, share_missing=0)
    first, second = (np.array([image[who] for image in ratings]) for who in range(2))
    by_chance = sum(((np.mean(first == k) + np.mean(second == k)) / 2) ** 2 for k in range(3))
    expected = (np.mean(first == second) - by_chance) / (1 - by_chance)

    assert fleiss_kappa([Counter(image.values()) for image in ratings]) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("ratings", [[], [{1: "a"}], [{1: "a", 2: "a"}, {1: "a", 2: "a"}], [{}, {}]])
def test_agreement_that_is_not_defined_is_none_and_not_a_number(ratings):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        result = measure_agreement(ratings)

    assert (result.fleiss_kappa, result.krippendorff_alpha, result.mean_cohen_kappa) == (None, None, None)


def test_one_rare_category_against_unanimity_still_has_a_kappa():
    ratings = [{1: "a", 2: "a"}] * 99 + [{1: "a", 2: "b"}]

    assert cohen_by_pair(ratings)[0].cohen_kappa == 0.0


def test_full_agreement_is_one_by_every_measure():
    result = measure_agreement([{1: "a", 2: "a", 3: "a"}, {1: "b", 2: "b"}])

    assert result.observed == result.fleiss_kappa == result.krippendorff_alpha == result.mean_cohen_kappa == 1.0
    assert result.images == 2
