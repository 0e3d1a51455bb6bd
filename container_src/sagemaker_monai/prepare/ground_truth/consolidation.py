"""From the answers of several annotators to the label of an image: by majority, or as shares of the votes.

All answers have equal weight. If they do not decide (a tie, or less agreement than asked for), the image is disputed. A
tie between classes keeps its shares as a soft label, because any choice among them would be a coin toss. Annotators are
not weighted by skill (Dawid and Skene, as Ground Truth does for its own task types): with the few images that two
experts share, that would fit noise.
"""

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from sagemaker_monai.errors import ConfigError, DatasetError
from sagemaker_monai.messages.shortened import some_of
from sagemaker_monai.prepare.ground_truth.agreement import Agreement, measure_agreement
from sagemaker_monai.tasks.tasks import TASKS, task_for

LABELS = ("majority", "soft", "staple")

Label = str | list[str] | dict[str, float]
Votes = Mapping[int, Collection[str]]  # annotator -> the classes that the annotator chose


@dataclass(frozen=True)
class Decision:
    """The label of an image and how it came about.

    Attributes:
        label: a class; the classes that apply, possibly none; or class -> share of the annotators.
        votes: class -> number of annotators who chose it.
        annotators: number of those who answered.
        agreement: classification: share of the annotators who chose the most frequent class; multilabel: the share
            that agrees with the majority, for the class where it is lowest.
        dispute: "tie", "low agreement", or None.
    """

    label: Label
    votes: Mapping[str, int]
    annotators: int
    agreement: float
    dispute: str | None


def choose_task(votes: Collection[Votes], *, asked: str, is_multilabel: bool) -> str:
    """Which of VOTED_TASKS the answers are for.

    Args:
        votes: of all images.
        asked: one of VOTED_TASKS, or "auto": multilabel if an answer has several classes.
        is_multilabel: the source allows several classes.

    Raises:
        DatasetError: classification is asked for, and an answer has several classes.
        ConfigError: another task is asked for.
    """
    if asked not in ("auto", *VOTED_TASKS):
        raise ConfigError(f"task must be auto, {' or '.join(VOTED_TASKS)}, got {asked!r}")
    several = sum(len(chosen) > 1 for image in votes for chosen in image.values())
    if asked == "auto":
        return task_for("findings" if several or is_multilabel else "class")
    if TASKS[asked].form == "class" and several:
        raise DatasetError(f"answers that name several classes: {several}; use --task {task_for('findings')}")
    return asked


def _dispute(*, is_tied: bool, agreement: float, min_agreement: float) -> str | None:
    if is_tied:
        return "tie"
    return "low agreement" if agreement < min_agreement - 1e-9 else None


def _decide_class(votes: Votes, labels: str, min_agreement: float) -> Decision:
    counts = Counter(sorted(label for chosen in votes.values() for label in chosen))
    total = counts.total()
    highest = max(counts.values())
    leading = [label for label, count in counts.items() if count == highest]
    shares = {label: count / total for label, count in counts.most_common()}
    return Decision(
        label=leading[0] if labels == "majority" and len(leading) == 1 else shares,
        votes=dict(counts),
        annotators=total,
        agreement=highest / total,
        dispute=_dispute(is_tied=len(leading) > 1, agreement=highest / total, min_agreement=min_agreement),
    )


def _decide_classes(votes: Votes, labels: str, min_agreement: float) -> Decision:
    counts = Counter(sorted(label for chosen in votes.values() for label in set(chosen)))
    total = len(votes)
    agreement = min((max(count, total - count) / total for count in counts.values()), default=1.0)
    return Decision(
        label={label: count / total for label, count in counts.most_common()}
        if labels == "soft"
        else [label for label, count in counts.items() if 2 * count >= total],
        votes=dict(counts),
        annotators=total,
        agreement=agreement,
        dispute=_dispute(
            is_tied=any(2 * count == total for count in counts.values()),
            agreement=agreement,
            min_agreement=min_agreement,
        ),
    )


_DECIDERS = {"class": _decide_class, "findings": _decide_classes}
VOTED_TASKS = tuple(row.name for row in TASKS.values() if row.form in _DECIDERS and not row.has_order)


def decide(votes: Votes, *, task: str, labels: str = "majority", min_agreement: float = 0.5) -> Decision:
    """The label of one image.

    Args:
        votes: of at least one annotator; one class each for classification, any number for multilabel.
        task: one of VOTED_TASKS.
        labels: "majority": the most frequent class, or each class that at least half of the annotators chose; "soft":
            the share of annotators for every class that was chosen. Shares of classification sum to 1, those of
            multilabel are independent, and a class that is not named has share 0.
        min_agreement: below this share, 0 to 1, the image is disputed.
    """
    assert votes
    return _DECIDERS[TASKS[task].form](votes, labels, min_agreement)


def hard_classes(label: Label, *, task: str) -> list[str]:
    """The classes of a label without shares: the first with the highest share, or all with at least one half."""
    if isinstance(label, str):
        return [label]
    if isinstance(label, dict):
        if TASKS[task].form == "findings":
            return [name for name, share in label.items() if share >= 0.5]
        return [max(sorted(label), key=lambda name: label[name])]
    return list(label)


def agreement_of(votes: Sequence[Votes], *, task: str) -> dict[str, Agreement]:
    """The annotators' agreement: one question for classification ("all"), one for every class of multilabel."""
    if TASKS[task].form == "class":
        return {"all": measure_agreement([{who: next(iter(chosen)) for who, chosen in v.items()} for v in votes])}
    classes = sorted({label for image in votes for chosen in image.values() for label in chosen})
    sets = [{who: frozenset(chosen) for who, chosen in image.items()} for image in votes]
    return {
        label: measure_agreement([{who: label in chosen for who, chosen in image.items()} for image in sets])
        for label in classes
    }


def check_classes(classes: Collection[str]) -> None:
    """Refuse classes that differ only in case: a DatasetError with the spellings."""
    folded = Counter(label.casefold() for label in classes)
    if twins := sorted(label for label in classes if folded[label.casefold()] > 1):
        raise DatasetError(
            f"classes that differ only in upper and lower case: {some_of(twins)}; "
            "correct the answers so that each class has one spelling"
        )
