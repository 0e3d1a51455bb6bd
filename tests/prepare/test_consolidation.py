import pytest

from sagemaker_monai.errors import ConfigError, DatasetError
from sagemaker_monai.prepare.ground_truth.consolidation import (
    agreement_of,
    check_classes,
    choose_task,
    decide,
    hard_classes,
)


def single(*classes):
    return {who: {label} for who, label in enumerate(classes, start=1)}


def several(*answers):
    return {who: set(answer.split()) for who, answer in enumerate(answers, start=1)}


def test_the_majority_and_not_the_first_annotator_decides():
    decision = decide(single("normal", "pneumonia", "pneumonia"), task="classification")

    assert (decision.label, decision.dispute, decision.annotators) == ("pneumonia", None, 3)
    assert decision.votes == {"normal": 1, "pneumonia": 2}
    assert decision.agreement == pytest.approx(2 / 3)


def test_soft_labels_are_the_annotators_shares_with_sum_one():
    label = decide(single("a", "b", "a", "c"), task="classification", labels="soft").label

    assert label == {"a": 0.5, "b": 0.25, "c": 0.25}


def test_a_tie_is_disputed_and_no_class_is_made_up_for_it():
    decision = decide(single("b", "a"), task="classification")

    assert (decision.dispute, decision.label) == ("tie", {"a": 0.5, "b": 0.5})
    # Also if another class has fewer votes.
    assert decide(single("a", "a", "b", "b", "c"), task="classification").dispute == "tie"


@pytest.mark.parametrize(
    ("min_agreement", "expected"), [(0.5, "low agreement"), (0.4, None), (1.0, "low agreement"), (0.0, None)]
)
def test_a_plurality_below_the_asked_agreement_is_disputed(min_agreement, expected):
    decision = decide(single("a", "a", "b", "c", "d"), task="classification", min_agreement=min_agreement)

    assert (decision.label, decision.dispute) == ("a", expected)


def test_two_of_three_are_two_thirds_to_the_last_digit_of_the_option():
    assert decide(single("a", "a", "b"), task="classification", min_agreement=2 / 3).dispute is None


def test_the_order_of_the_annotators_does_not_matter():
    votes = single("a", "b", "b", "a", "c")

    assert decide(votes, task="classification") == decide(dict(reversed(votes.items())), task="classification")


def test_findings_are_decided_class_by_class():
    decision = decide(several("edema", "edema effusion", "effusion edema", "nodule"), task="multilabel")

    # edema 3 of 4; effusion 2 of 4 is a tie and kept; nodule 1 of 4 is not there.
    assert decision.label == ["edema", "effusion"]
    assert (decision.dispute, decision.agreement) == ("tie", 0.5)


def test_findings_without_a_majority_are_none_at_all():
    decision = decide(several("edema", "", ""), task="multilabel")

    assert (decision.label, decision.dispute) == ([], None)
    assert decision.agreement == pytest.approx(2 / 3)


def test_an_annotator_who_sees_nothing_counts():
    label = decide(several("edema", "edema effusion", ""), task="multilabel", labels="soft").label
    assert label == {"edema": pytest.approx(2 / 3), "effusion": pytest.approx(1 / 3)}

    decision = decide(several("", ""), task="multilabel")
    assert (decision.label, decision.agreement, decision.dispute) == ([], 1.0, None)


@pytest.mark.parametrize(
    ("votes", "is_multilabel", "expected"),
    [
        ([single("a", "b")], False, "classification"),
        ([single("a", "b")], True, "multilabel"),
        ([single("a"), several("a b")], False, "multilabel"),
        ([several("", "a")], False, "classification"),
    ],
)
def test_the_task_is_told_by_the_answers(votes, is_multilabel, expected):
    assert choose_task(votes, asked="auto", is_multilabel=is_multilabel) == expected


def test_classification_of_several_findings_is_refused():
    with pytest.raises(DatasetError, match=r"name several classes: 1; use --task multilabel"):
        choose_task([several("a b", "a")], asked="classification", is_multilabel=False)


def test_a_task_that_does_not_exist_is_named():
    with pytest.raises(ConfigError, match="'segmentation'"):
        choose_task([], asked="segmentation", is_multilabel=False)


@pytest.mark.parametrize(
    ("label", "task", "expected"),
    [
        ("a", "classification", ["a"]),
        ({"b": 0.5, "a": 0.5}, "classification", ["a"]),
        ({"a": 0.2, "b": 0.8}, "classification", ["b"]),
        (["a", "b"], "multilabel", ["a", "b"]),
        ({"a": 0.5, "b": 0.4}, "multilabel", ["a"]),
    ],
)
def test_a_label_stands_for_its_strongest_classes(label, task, expected):
    assert hard_classes(label, task=task) == expected


def test_agreement_on_findings_is_told_class_by_class():
    votes = [several("a", "a"), several("a b", "a"), several("", "b")]

    agreement = agreement_of(votes, task="multilabel")

    assert agreement["a"].fleiss_kappa == 1.0
    # b: no no | yes no | no yes. Agreement 1/3; chance (1/3)^2 + (2/3)^2 = 5/9; kappa (1/3 - 5/9) / (4/9) = -1/2.
    assert agreement["b"].fleiss_kappa == pytest.approx(-0.5)


def test_two_spellings_of_one_class_are_refused():
    with pytest.raises(DatasetError, match="Edema, edema"):
        check_classes(["edema", "Edema", "nodule"])
