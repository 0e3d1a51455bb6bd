"""What an import of a Ground Truth job did, for people and for import_report.json."""

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from sagemaker_monai.data.mask_agreement import PairsDice, agreement_by_structure
from sagemaker_monai.messages.shortened import some_of
from sagemaker_monai.prepare.ground_truth.consolidation import Decision, agreement_of
from sagemaker_monai.prepare.import_report import NOTHING_TO_DO, count_lines

MAX_PAIRS = 1000  # of annotators; a crowd has hundreds of thousands
DECIMALS = 4


@dataclass(frozen=True)
class Report:
    """What an import did.

    Attributes:
        is_repeated: the folder held this import already, and nothing was written.
        task: "classification" or "multilabel".
        images: in the data set.
        counts: class -> split -> images; an image counts in each of its classes, a soft label in its strongest.
        groups: patients, or whatever else has to stay on one side of the split.
        own_groups: images whose patient is unknown.
        annotators: number -> how many images, and the share of answers that agree with the majority.
        agreement: "all", or class by class -> the figures of `agreement.Agreement`.
        disputed: each image's name, reason, agreement, votes, every annotator's answer, and its label (None: dropped).
        failed: images that the job could not label, with its reason; left out.
        unlabelled, few_annotators, missing: left out: they have no class, too few answers, or no file.
        identical: pairs of byte-identical images; they stay on one side.
        unused_classes: on offer, but not the label of any image; not among the data set's classes.
        modalities: DICOM's Modality, "RGB" for photographs -> images.
        tied_pixels: of masks, those that annotators saw differently and no majority decided; nobody annotated them.
        superseded_answers: earlier, other answers of an annotator to an image, which do not count.
        remarks: which key identified the patients, and what was odd about it.
        regions, unsound_regions: boxes and polygons in the records, and those without area or with impossible points.
    """

    is_repeated: bool
    task: str
    images: int
    counts: Mapping[str, Mapping[str, int]]
    groups: int
    own_groups: int
    annotators: Mapping[str, Mapping[str, float]]
    agreement: Mapping[str, Mapping[str, Any]]
    disputed: Sequence[Mapping[str, Any]]
    failed: Mapping[str, str | None]
    unlabelled: Sequence[str]
    few_annotators: Sequence[str]
    missing: Sequence[str]
    identical: Sequence[Sequence[str]]
    unused_classes: Sequence[str]
    modalities: Mapping[str, int]
    superseded_answers: int
    regions: int
    unsound_regions: int
    tied_pixels: int = 0
    remarks: Sequence[str] = ()

    def summary(self) -> str:
        """Lines for people: a table of counts, then agreement, then what was noticed."""
        lines = count_lines(self.counts, max(8, *(len(label) + 1 for label in self.counts)))
        lines.append(f"{self.images} images of {self.groups} groups, {self.task}")
        lines += self._annotator_lines()
        dropped = sum(case["label"] is None for case in self.disputed)
        if self.disputed:
            cases = [f"{case['image']}: {_votes_line(case['votes'])}" for case in self.disputed]
            lines.append(f"disputed images: {len(self.disputed)}, dropped: {dropped} ({some_of(cases)})")
        left_out = {
            "labeling failed": list(self.failed),
            "no class": self.unlabelled,
            "too few annotators": self.few_annotators,
            "no file": self.missing,
        }
        lines += [f"left out, {why}: {len(names)} ({some_of(names)})" for why, names in left_out.items() if names]
        if self.unused_classes:
            lines.append(f"classes without an image: {len(self.unused_classes)} ({some_of(self.unused_classes)})")
        if self.identical:
            pairs = [" = ".join(pair) for pair in self.identical]
            lines.append(f"identical images, kept on one side: {len(pairs)} ({some_of(pairs)})")
        if self.tied_pixels:
            lines.append(f"pixels that no majority decided, which count as not annotated: {self.tied_pixels}")
        if self.unsound_regions:
            lines.append(f"regions without area or with impossible points, left out: {self.unsound_regions}")
        lines += self.remarks
        if self.own_groups:
            lines.append(
                f"WARNING: the patient of {self.own_groups} images is unknown: images of one patient may be on two "
                "sides of the split; use --group-by"
            )
        if self.is_repeated:
            lines.append(NOTHING_TO_DO)
        return "\n".join(lines)

    def _annotator_lines(self) -> list[str]:
        if not self.annotators:
            return ["annotators: unknown, the labels are the job's own; the job's output folder has all answers"]
        lines = [f"annotators: {len(self.annotators)}"]
        for name, figures in self.agreement.items():
            if told := figures.get("dice"):
                lines.append(_dice_line(name, told))
                continue
            kappa, alpha = figures["fleiss_kappa"], figures["krippendorff_alpha"]
            lines.append(
                f"agreement{'' if name == 'all' else f' on {name}'}: Fleiss' kappa {_number(kappa)}, mean Cohen's "
                f"kappa {_number(figures['mean_cohen_kappa'])}, Krippendorff's alpha {_number(alpha)} "
                f"({figures['images']} images with several answers)"
            )
        return lines


def _number(value: float | None) -> str:
    return "not defined" if value is None else f"{value:.3f}"


def _dice_line(name: str, told: Mapping[str, Any]) -> str:
    least = told["pairs"][0]
    pair = f", least of {least['first']} and {least['second']}: {least['dice']:.3f}" if len(told["pairs"]) > 1 else ""
    return f"agreement on {name}: mean Dice {told['mean']:.3f} ({told['images']} images with several masks){pair}"


def _votes_line(votes: Mapping[str, int]) -> str:
    return " ".join(f"{label} {count}" for label, count in votes.items())


def _rounded(value: Any) -> Any:
    return round(value, DECIMALS) if isinstance(value, float) else value


def describe_agreement(
    votes: Sequence[Mapping[int, Collection[str]]], dice: Sequence[Mapping[str, PairsDice]] = (), *, task: str
) -> dict[str, dict[str, Any]]:
    """The figures of `consolidation.agreement_of`, rounded, with the pairs that share most images.

    Args:
        votes: of annotators, image by image; of masks, the structures that they drew.
        dice: of masks, by structure, image by image.
        task: of the answers.
    """
    described = {}
    of_masks = agreement_by_structure(dice)
    for name, agreement in agreement_of(votes, task=task).items():
        figures = {key: _rounded(value) for key, value in vars(agreement).items() if key != "pairs"}
        pairs = [{key: _rounded(value) for key, value in asdict(pair).items()} for pair in agreement.pairs[:MAX_PAIRS]]
        described[name] = {**figures, "pairs": pairs, "pairs_not_shown": max(0, len(agreement.pairs) - MAX_PAIRS)}
        if name in of_masks:
            told = of_masks[name]
            described[name]["dice"] = {
                "images": told.images,
                "mean": _rounded(told.dice),
                "pairs": [
                    {key: _rounded(value) for key, value in asdict(pair).items()} for pair in told.pairs[:MAX_PAIRS]
                ],
            }
    return described


def describe_annotators(
    votes: Sequence[Mapping[int, Collection[str]]], decisions: Iterable[Decision]
) -> dict[str, dict[str, float]]:
    """How many images each annotator answered, and how often like the majority; votes and decisions image by image."""
    images: Counter[int] = Counter()
    alike: Counter[int] = Counter()
    for image, decision in zip(votes, decisions, strict=True):
        majority = {label for label, count in decision.votes.items() if 2 * count > decision.annotators}
        for who, chosen in image.items():
            images[who] += 1
            alike[who] += set(chosen) == majority
    return {
        str(who): {"images": count, "with_majority": round(alike[who] / count, DECIMALS)}
        for who, count in sorted(images.items())
    }
