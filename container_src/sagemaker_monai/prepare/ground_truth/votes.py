"""The votes of a labeling job: who chose what, which votes count, and which images are disputed."""

from collections.abc import Mapping, Sequence
from typing import Any

from sagemaker_monai.errors import ConfigError, DatasetError
from sagemaker_monai.messages.shortened import some_of
from sagemaker_monai.prepare.ground_truth.consolidation import Decision, choose_task
from sagemaker_monai.prepare.ground_truth.ground_truth_options import GroundTruthOptions
from sagemaker_monai.prepare.ground_truth.labeling_jobs import Job
from sagemaker_monai.prepare.ground_truth.manifest import Item
from sagemaker_monai.prepare.ground_truth.source_images import short_name
from sagemaker_monai.tasks.tasks import TASKS, task_for

Votes = dict[int, frozenset[str]]  # annotator, from 1, -> the chosen classes


def number_annotators(items: Mapping[str, Item], known: Sequence[str] = ()) -> dict[str, int]:
    """A number from 1 for each workerId, in the order in which they appear, after those that are known."""
    numbers = {name: number for number, name in enumerate(known, start=1)}
    for item in items.values():
        for answer in item.answers:
            if answer.annotator is not None:
                numbers.setdefault(answer.annotator, len(numbers) + 1)
    return numbers


def votes_of(item: Item, numbers: Mapping[str, int]) -> Votes:
    """What each annotator chose; the job's own label counts as the answer of number 0."""
    return {
        0 if answer.annotator is None else numbers[answer.annotator]: answer.content.classes for answer in item.answers
    }


def check_options(job: Job, options: GroundTruthOptions) -> None:
    """Refuse options that do not fit the answers.

    Raises:
        ConfigError: another task than masks for masks or the reverse, or a way to consolidate the other.
    """
    masks = task_for("mask")
    if options.task != "auto" and (options.task == masks) != job.has_masks:
        told = "masks" if job.has_masks else "classes"
        raise ConfigError(f"the answers are {told}, which task {options.task} does not take; set task to auto")
    if options.labels in (("soft",) if job.has_masks else ("staple",)):
        raise ConfigError(
            f"labels {options.labels} is for {'classes' if job.has_masks else 'masks'}; choose "
            f"{'majority or staple' if job.has_masks else 'majority or soft'}"
        )


def choose_votes(
    votes: Mapping[str, Votes], job: Job, *, asked: str, min_annotators: int
) -> tuple[str, dict[str, Votes], list[str], list[str]]:
    """The task, the votes that count, and the images without a class or with too few annotators."""
    if job.has_masks:
        task = task_for("mask")
    else:
        task = choose_task(list(votes.values()), asked=asked, is_multilabel=job.is_multilabel)
    if TASKS[task].form == "class":  # here "no class" is no answer; with findings it is one
        votes = {name: {who: chosen for who, chosen in image.items() if chosen} for name, image in votes.items()}
    empty = [name for name, image in votes.items() if not image]
    few = [name for name, image in votes.items() if 0 < len(image) < min_annotators]
    kept = {name: image for name, image in votes.items() if len(image) >= min_annotators}
    return task, kept, empty, few


def settle_disputes(
    decisions: Mapping[str, Decision], votes: Mapping[str, Votes], names: Mapping[str, str], disputed: str
) -> tuple[list[dict[str, Any]], list[str]]:
    """The disputed images for the report, and the references that stay."""
    cases = [reference for reference, decision in decisions.items() if decision.dispute is not None]
    if cases and disputed == "refuse":
        shown = [
            f"{short_name(case)}: {' '.join(f'{label} {count}' for label, count in decisions[case].votes.items())}"
            for case in cases
        ]
        raise DatasetError(
            f"disputed images: {len(cases)} ({some_of(shown)}); have them adjudicated, or choose --disputed keep or "
            "drop"
        )
    report = [
        {
            "image": names[case],
            "reason": decisions[case].dispute,
            "agreement": round(decisions[case].agreement, 4),
            "votes": decisions[case].votes,
            "answers": {str(who): sorted(chosen) for who, chosen in votes[case].items()},
            "label": decisions[case].label if disputed == "keep" else None,
        }
        for case in cases
    ]
    return report, [case for case in decisions if disputed == "keep" or decisions[case].dispute is None]
