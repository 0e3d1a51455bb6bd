"""The masks of a labeling job: what each annotator drew in an image, the mask that they make, and its files.

Masks are decoded twice: to see which structures there are and how far the annotators agree, before anything is written,
and to write them. In between no pixels are kept, so that memory is bounded by one image and its annotators.
"""

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np
from numpy.typing import NDArray
from PIL import Image as Pictures

from sagemaker_monai.data.legends import IGNORE
from sagemaker_monai.data.mask_agreement import Combinations, PairsDice, combinations_of, dice_by_pair
from sagemaker_monai.data.mask_reading import grid_of
from sagemaker_monai.errors import CallerError, DatasetError
from sagemaker_monai.messages.progress import track
from sagemaker_monai.messages.shortened import some_of
from sagemaker_monai.prepare import output
from sagemaker_monai.prepare.ground_truth.answers import NOTHING, MaskAnswer
from sagemaker_monai.prepare.ground_truth.consolidation import Decision, check_classes
from sagemaker_monai.prepare.ground_truth.manifest import Item
from sagemaker_monai.prepare.ground_truth.mask_answers import read_map
from sagemaker_monai.prepare.ground_truth.mask_consensus import CONSENSUS
from sagemaker_monai.prepare.ground_truth.source_images import Image, match_files, short_name
from sagemaker_monai.tasks.label_maps import IGNORED, MAX_STRUCTURES


@dataclass(frozen=True)
class MaskJob:
    """The masks of a job, not decoded.

    Attributes:
        answers: reference of the image -> annotator (0 for the job itself) -> mask.
        pictures: reference of a mask -> its file.
        values: structure -> value in the label maps that are compared.
        how: a key of `mask_consensus.CONSENSUS`.
    """

    answers: Mapping[str, Mapping[int, MaskAnswer]]
    pictures: Mapping[str, Path]
    values: Mapping[str, int]
    how: str


@dataclass(frozen=True)
class LookedAt:
    """What the masks of an image show.

    Attributes:
        decision: the structures of the consensus, and how far the annotators agree: the mean Dice of their pairs, of
            the structure where it is lowest.
        drawn: annotator -> structures.
        dice: structure -> pairs of annotators -> Dice.
    """

    decision: Decision
    drawn: Mapping[int, frozenset[str]]
    dice: Mapping[str, PairsDice]


@dataclass(frozen=True)
class WrittenMask:
    """The files of an image's masks, relative to the data set, with their bytes; pixels without a majority."""

    mask: str
    annotators: Mapping[str, str]
    sizes: Mapping[str, int]
    tied: int
    has_ignored: bool


def mask_job(
    items: Mapping[str, Item], numbers: Mapping[str, int], available: Mapping[str, Path], missing: str, how: str
) -> tuple[MaskJob, list[str]]:
    """Find the pictures of the masks.

    Args:
        items: by reference, of images that have a file.
        numbers: of annotators.
        available: files that may be pictures of masks, by their names.
        missing: one of `ground_truth_options.ON_MISSING`.
        how: a key of `mask_consensus.CONSENSUS`.

    Returns:
        The job, and references of images that are left out: none of their masks has a file.

    Raises:
        DatasetError: pictures are missing, ambiguous or of several images; there are no structures or too many, or two
            of one name.
    """
    answers = {
        reference: {
            0 if answer.annotator is None else numbers[answer.annotator]: answer.content.mask
            for answer in item.answers
            if answer.content.mask is not None
        }
        for reference, item in items.items()
    }
    named = [mask for own in answers.values() for mask in own.values()]
    references = list(dict.fromkeys(mask.source for mask in named if isinstance(mask.source, str)))
    pictures, absent = match_files(references, available)
    if absent and missing == "refuse":
        raise DatasetError(
            f"pictures of masks that are in no folder: {len(absent)} of {len(references)} "
            f"({some_of(list(map(short_name, absent)))}); give the job's whole output folder, put them below --images, "
            "or use --missing leave-out"
        )
    found = {
        reference: {who: mask for who, mask in own.items() if isinstance(mask.source, bytes) or mask.source in pictures}
        for reference, own in answers.items()
    }
    _refuse_shared(found)
    structures = sorted({name for mask in named for name in mask.names.values()} - {NOTHING, IGNORE})
    check_classes(structures)
    if not 1 <= len(structures) <= MAX_STRUCTURES:
        raise DatasetError(
            f"the masks have {len(structures)} structures beside the background; 1 to {MAX_STRUCTURES} can be read"
        )
    values = {name: value for value, name in enumerate(structures, start=1)}
    kept = {reference: own for reference, own in found.items() if own}
    return MaskJob(kept, pictures, values, how), [reference for reference in found if reference not in kept]


def _refuse_shared(answers: Mapping[str, Mapping[int, MaskAnswer]]) -> None:
    """Refuse a picture that is the mask of several images: for all of them but one it is a mistake."""
    owners: dict[str, set[str]] = {}
    for reference, own in answers.items():
        for mask in own.values():
            if isinstance(mask.source, str):
                owners.setdefault(mask.source, set()).add(reference)
    if shared := sorted(short_name(picture) for picture, images in owners.items() if len(images) > 1):
        raise DatasetError(
            f"pictures that are the mask of several images: {len(shared)} ({some_of(shared)}); correct the manifest"
        )


def look_at_masks(job: MaskJob, images: Mapping[str, Image], min_agreement: float) -> dict[str, LookedAt]:
    """What the masks of each image show.

    Raises:
        DatasetError: a mask cannot be read, is not of its image, or has colours without a name.
    """
    looked = {}
    for reference in track(job.answers, total=len(job.answers), what="comparing masks"):
        annotators, found, labels = _consensus(job, reference, images[reference])
        drawn = {
            who: frozenset(name for name, value in job.values.items() if (found.said[:, column] == value).any())
            for column, who in enumerate(annotators)
        }
        dice = {
            name: dice_by_pair(found, annotators, value)
            for name, value in job.values.items()
            if any(name in own for own in drawn.values())
        }
        agreement = min((float(np.mean(list(pairs.values()))) for pairs in dice.values() if pairs), default=1.0)
        decision = Decision(
            label=[name for name, value in job.values.items() if (labels == value).any()],
            votes=dict(Counter(name for own in drawn.values() for name in sorted(own))),
            annotators=len(annotators),
            agreement=agreement,
            dispute="low agreement" if agreement < min_agreement - 1e-9 else None,
        )
        looked[reference] = LookedAt(decision, drawn, dice)
    return looked


def write_masks(
    job: MaskJob, out: Path, images: Mapping[str, Image], names: Mapping[str, str], classes: Sequence[str]
) -> dict[str, WrittenMask]:
    """Write the mask of each image, and if it has several annotators, what each of them drew.

    Args:
        job: with the masks.
        out: the output folder.
        images: by reference, those that are kept.
        names: of `mask_names`.
        classes: the structures of the data set, in the order of their values. What else somebody drew becomes pixels
            that nobody annotated: no value stands for it.
    """
    table = np.full(IGNORED + 1, len(classes) + 1, np.uint8)
    table[0] = 0
    for value, name in enumerate(classes, start=1):
        table[job.values[name]] = value
    written = {}
    for reference in track(images, total=len(images), what="writing masks"):
        annotators, found, labels = _consensus(job, reference, images[reference])
        mask = f"{output.MASKS}/{names[reference]}"
        own = {who: f"{output.MASKS}/annotator-{who}/{names[reference]}" for who in annotators if len(annotators) > 1}
        maps = {mask: labels} | {name: found.said[:, annotators.index(who)] for who, name in own.items()}
        sizes = {}
        for name, values in maps.items():
            path = out / name
            path.parent.mkdir(parents=True, exist_ok=True)
            Pictures.fromarray(np.ascontiguousarray(table[values[found.place]].T)).save(path)
            sizes[name] = path.stat().st_size
        is_told = (found.said != IGNORED).any(axis=1)
        written[reference] = WrittenMask(
            mask,
            {str(who): f"./{name}" for who, name in own.items()},
            sizes,
            tied=int(found.counts[is_told & (labels == IGNORED)].sum()),
            has_ignored=any((table[values] > len(classes)).any() for values in maps.values()),
        )
    return written


def mask_names(images: Mapping[str, Image]) -> dict[str, str]:
    """The file name of each image's mask, by reference: the image's, as PNG; unique without regard to case."""
    stems = {reference: PurePosixPath(image.name).stem for reference, image in images.items()}
    counts = Counter(stem.lower() for stem in stems.values())
    return {
        reference: f"{stem if counts[stem.lower()] == 1 else images[reference].name}.png"
        for reference, stem in stems.items()
    }


def files_of(names: Mapping[str, str], annotators: Collection[int]) -> list[str]:
    """All files that `write_masks` may write."""
    return [
        f"{output.MASKS}/{folder}{name}"
        for name in names.values()
        for folder in ("", *(f"annotator-{who}/" for who in annotators))
    ]


def _consensus(job: MaskJob, reference: str, image: Image) -> tuple[list[int], Combinations, NDArray[np.uint8]]:
    """The annotators of an image in their order, what they said, and the label of each combination."""
    try:
        width, height = grid_of(image.path, 2).shape[:2]
    except CallerError as error:
        raise DatasetError(f"{image.name} cannot be read: {error}; replace it") from error
    maps = {}
    for who, mask in sorted(job.answers[reference].items()):
        source = mask.source if isinstance(mask.source, bytes) else job.pictures[mask.source]
        try:
            maps[who] = read_map(mask, source, job.values, (width, height))
        except DatasetError as error:
            by = f" by annotator {who}" if who else ""
            raise DatasetError(f"the mask of {image.name}{by}: {error}") from error
    found = combinations_of(list(maps.values()))
    return list(maps), found, CONSENSUS[job.how](found)
