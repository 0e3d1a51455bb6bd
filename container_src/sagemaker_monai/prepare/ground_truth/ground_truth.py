"""A labeling job of SageMaker Ground Truth becomes images and a dataset.json, by all annotators' answers.

`labeling_jobs` reads the job, `consolidation` turns answers into labels. Annotators are numbered in the order in which
they appear; their workerIds are personal data and are never written. Files are copied and not linked, because an
importer that later writes to the same folder would change the originals.
"""

import os
import shutil
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from sagemaker_monai.data.dataset_json import ANNOTATOR_MASKS, write_dataset_json
from sagemaker_monai.data.legends import IGNORE
from sagemaker_monai.data.splitting import SPLITS
from sagemaker_monai.deidentification.clean_files import PICTURE, VOLUME, clean_file, sort_of
from sagemaker_monai.errors import CallerError, ConfigError, DatasetError
from sagemaker_monai.messages.progress import track
from sagemaker_monai.messages.shortened import some_of
from sagemaker_monai.prepare import output
from sagemaker_monai.prepare.ground_truth.agreement_report import Report, describe_agreement, describe_annotators
from sagemaker_monai.prepare.ground_truth.consolidation import Decision, check_classes, decide, hard_classes
from sagemaker_monai.prepare.ground_truth.ground_truth_options import DEFAULTS, GroundTruthOptions
from sagemaker_monai.prepare.ground_truth.image_groups import ImageGroups, group_images
from sagemaker_monai.prepare.ground_truth.job_sets import find_jobs, read_jobs
from sagemaker_monai.prepare.ground_truth.labeling_jobs import Job, JobFiles
from sagemaker_monai.prepare.ground_truth.manifest import Item
from sagemaker_monai.prepare.ground_truth.mask_jobs import (
    LookedAt,
    MaskJob,
    WrittenMask,
    files_of,
    look_at_masks,
    mask_job,
    mask_names,
    write_masks,
)
from sagemaker_monai.prepare.ground_truth.source_images import Image, list_files, match_files, open_images, short_name
from sagemaker_monai.prepare.ground_truth.votes import (
    Votes,
    check_options,
    choose_votes,
    number_annotators,
    settle_disputes,
    votes_of,
)
from sagemaker_monai.prepare.import_report import NO_CLASS, digest_of_all, earlier_import
from sagemaker_monai.prepare.leaks import count_by_class, join_groups
from sagemaker_monai.prepare.sides import split_images
from sagemaker_monai.storage.files import sha256_of, state_of
from sagemaker_monai.tasks.tasks import TASKS


def _key(jobs: Mapping[str, JobFiles], images: Mapping[str, Path], options: Mapping[str, Any]) -> str:
    """Changes with the files of jobs, the folder of images, the options and this program."""
    files = [path for job in jobs.values() for path in job.all()]
    listed = [(str(path), path.stat()) for path in files] + [(name, path.stat()) for name, path in images.items()]
    stats = [[name, *state_of(stat)] for name, stat in listed]
    return digest_of_all(stats, options)


def _by_reference(job: Job) -> dict[str, Item]:
    counts = Counter(item.reference for item in job.items)
    if twice := [reference for reference, count in counts.items() if count > 1]:
        raise DatasetError(
            f"images that are named more than once: {len(twice)} ({some_of(list(map(short_name, twice)))}); "
            "keep one line for each"
        )
    return {item.reference: item for item in job.items}


def _copy(images: Sequence[Image], out: Path) -> tuple[dict[str, int], list[str]]:
    """Copy the files, pictures and volumes without the texts beside the image, DICOM as it is; returns name -> bytes,
    and the SHA-256 of each original."""
    sizes, digests = {}, []
    for number, image in enumerate(track(images, total=len(images), what="copying images"), start=1):
        target = out / output.IMAGES / image.name
        target.unlink(missing_ok=True)
        try:
            if sort_of(image.path) in (PICTURE, VOLUME):
                clean_file(image.path, target)
            else:
                shutil.copyfile(image.path, target)
        except CallerError as error:
            raise DatasetError(f"image {number} of {len(images)} cannot be copied: {error}") from error
        sizes[image.name] = target.stat().st_size
        digests.append(sha256_of(image.path))
    return sizes, digests


def _regions(item: Item, numbers: Mapping[str, int]) -> list[dict[str, Any]]:
    return [
        {"type": region.kind, "class": region.label, "points": [list(point) for point in region.points]}
        | ({"annotator": numbers[answer.annotator]} if answer.annotator is not None else {})
        for answer in item.answers
        for region in answer.content.regions
    ]


def _record(
    item: Item, image: Image, decision: Decision, group: str, numbers: Mapping[str, int], mask: WrittenMask | None
) -> dict[str, Any]:
    label = decision.label if mask is None else f"./{mask.mask}"
    record: dict[str, Any] = {"image": f"./{output.IMAGES}/{image.name}", "label": label, "group": group}
    record |= {key: value for key, value in item.columns.items() if key not in record}
    if any(answer.annotator is not None for answer in item.answers):
        record |= {"annotators": decision.annotators, "agreement": round(decision.agreement, 4)}
    elif item.confidence is not None:
        record["confidence"] = item.confidence
    if regions := _regions(item, numbers):
        record["rois"] = regions
    if mask is not None and mask.annotators:
        record[ANNOTATOR_MASKS] = dict(mask.annotators)
    return record


def _order(classes: set[str], job: Job) -> list[str]:
    """Model order: by class number if the job numbers all of them, else alphabetical."""
    numbers = {name: index for index, name in job.names.by_index.items()}
    return sorted(classes, key=lambda name: (numbers[name] if classes <= set(numbers) else 0, name))


def import_ground_truth(source: Path, out: Path, *, images: Path, options: GroundTruthOptions = DEFAULTS) -> Report:
    """Import the labels of a Ground Truth job and their images.

    Args:
        source: the job's output folder as in S3, with manifests/ and annotations/; or an output manifest; or a
            consolidation request. A manifest alone has the annotators' answers only if a Lambda passed them on. Of
            masks, also a folder with the manifests or output folders of several jobs.
        out: folder to write `images/`, `dataset.json` and `import_report.json` to: empty, new, or with an earlier
            import, which is replaced. The same call again writes nothing.
        images: folder that mirrors the keys of the images, from any level on.
        options: see `GroundTruthOptions`.

    Raises:
        DatasetError: the job's files, its labels, the images or the output folder cannot be used.
        ConfigError: the folders of images and output are in one another, or an option does not fit the job.
    """
    output.check_places(images, out, what="folder of images", kind=ConfigError)
    output.check_output(out)
    jobs, available = find_jobs(source), list_files(images)
    others = _beside(source, available)
    key = _key(jobs, {**available, **others}, asdict(options))
    if done := earlier_import(Report, out, key):
        return done
    answers = _read(jobs, options)
    return _write(answers, _decide(answers, available, others, options), out, key, options)


def _beside(source: Path, available: Mapping[str, Path]) -> dict[str, Path]:
    """The other files of the job's folder, among which the pictures of masks are, by their names."""
    if source.is_file() and source.parts[-3:-1] == ("manifests", "output"):
        source = source.parents[2]
    if not source.is_dir():
        return {}
    known = {os.path.realpath(path) for path in available.values()}
    return {
        f"{source.name}/{name}": path
        for name, path in list_files(source).items()
        if os.path.realpath(path) not in known
    }


@dataclass(frozen=True)
class _Answers:
    """What was read: the images by reference, annotators' numbers, the task, the votes that count, and the references
    of images that were left out."""

    job: Job
    items: Mapping[str, Item]
    numbers: Mapping[str, int]
    task: str
    votes: Mapping[str, Votes]
    failed: Mapping[str, str | None]
    unlabelled: Sequence[str]
    few: Sequence[str]


def _read(jobs: Mapping[str, JobFiles], options: GroundTruthOptions) -> _Answers:
    path = tuple(filter(None, options.answer_path.split(".")))
    job = read_jobs(jobs, attribute=options.label_attribute, path=path)
    check_options(job, options)
    items = _by_reference(job)
    numbers = number_annotators(items, job.annotators)
    if options.labels == "soft" and not numbers:
        raise DatasetError(
            "soft labels need the annotators' answers, but there is only the job's own label; give the folder with the "
            "job's whole output, or choose --labels majority"
        )
    failed = {reference: item.failure for reference, item in items.items() if item.failure and not item.answers}
    unlabelled = [reference for reference, item in items.items() if not item.answers and reference not in failed]
    answered = {reference: votes_of(item, numbers) for reference, item in items.items() if item.answers}
    check_classes({label for image in answered.values() for chosen in image.values() for label in chosen})
    task, votes, empty, few = choose_votes(answered, job, asked=options.task, min_annotators=options.min_annotators)
    return _Answers(job, items, numbers, task, votes, failed, [*unlabelled, *empty], few)


@dataclass(frozen=True)
class _Decided:
    """What was decided: images, decisions and votes by reference, the references that are kept, classes in model order,
    groups, disputes for the report, the references without a file, and the masks."""

    images: Mapping[str, Image]
    decisions: Mapping[str, Decision]
    votes: Mapping[str, Votes]
    kept: Sequence[str]
    classes: Sequence[str]
    groups: ImageGroups
    disputed: Sequence[Mapping[str, Any]]
    absent: Sequence[str]
    masks: MaskJob | None = None
    looked: Mapping[str, LookedAt] = field(default_factory=dict)


def _decide(
    answers: _Answers, available: Mapping[str, Path], others: Mapping[str, Path], options: GroundTruthOptions
) -> _Decided:
    votes = answers.votes
    found, absent = match_files(list(votes), available)
    if absent and options.missing == "refuse":
        raise DatasetError(
            f"images of the job that are not in the folder: {len(absent)} of {len(votes)} "
            f"({some_of(list(map(short_name, absent)))}); complete the folder, or use --missing leave-out"
        )
    if not found:
        raise DatasetError("no image has both a label and a file; check that the job and --images belong together")
    opened = open_images(found)
    masks, looked = None, {}
    if answers.job.has_masks:
        rest = {name: path for name, path in {**available, **others}.items() if path not in set(found.values())}
        items = {reference: answers.items[reference] for reference in votes if reference in opened}
        masks, lost = mask_job(items, answers.numbers, rest, options.missing, options.labels)
        absent = [*absent, *lost]
        looked = look_at_masks(masks, opened, options.min_agreement)
        decisions = {reference: each.decision for reference, each in looked.items()}
        votes = {reference: dict(each.drawn) for reference, each in looked.items()}
    else:
        decisions = {
            reference: decide(
                votes[reference], task=answers.task, labels=options.labels, min_agreement=options.min_agreement
            )
            for reference in votes
            if reference in opened
        }
    names = {reference: image.name for reference, image in opened.items()}
    cases, kept = settle_disputes(decisions, votes, names, options.disputed)
    classes = _order({name for reference in kept for name in _named(decisions[reference])}, answers.job)
    if len(classes) < TASKS[answers.task].fewest_labels:
        raise DatasetError(
            f"the labels name too few classes ({some_of(classes) or 'none'}); there must be at least "
            f"{TASKS[answers.task].fewest_labels}"
        )
    groups = group_images(answers.items, {reference: opened[reference] for reference in kept}, options.group_by)
    return _Decided(opened, decisions, votes, kept, classes, groups, cases, absent, masks, looked)


def _write(answers: _Answers, decided: _Decided, out: Path, key: str, options: GroundTruthOptions) -> Report:
    """Copy the images, draw the split, and write data set and report."""
    job, kept, classes, groups = answers.job, decided.kept, decided.classes, decided.groups.names
    pictures = [decided.images[reference] for reference in kept]
    images = dict(zip(kept, pictures, strict=True))
    names = mask_names(images) if decided.masks is not None else {}
    output.begin(out, [*(picture.name for picture in pictures), *files_of(names, answers.numbers.values())])
    sizes, digests = _copy(pictures, out)
    masks = write_masks(decided.masks, out, images, names, classes) if decided.masks is not None else {}
    sizes |= {name: size for mask in masks.values() for name, size in mask.sizes.items()}
    first = {digest: position for position, digest in reversed(list(enumerate(digests)))}
    pairs = [(first[digest], position) for position, digest in enumerate(digests) if first[digest] != position]
    joined = join_groups([groups[reference] for reference in kept], pairs)
    hard = [hard_classes(decided.decisions[reference].label, task=answers.task) for reference in kept]
    places = [[classes.index(name) for name in names] for names in hard]
    splits = split_images(places, joined, fractions=options.fractions, seed=options.seed)
    records: dict[str, list[dict[str, Any]]] = {split: [] for split in SPLITS}
    for reference, image, split, group in zip(kept, pictures, splits, joined, strict=True):
        item = answers.items[reference]
        item.columns.pop(decided.groups.key, None)
        decision = decided.decisions[reference]
        records[split].append(_record(item, image, decision, group, answers.numbers, masks.get(reference)))
    told = [(name, split) for names, split in zip(hard, splits, strict=True) for name in (names or [NO_CLASS])]
    offered = job.names.offered | set(job.names.by_index.values()) | set(decided.masks.values if decided.masks else ())
    human = [
        {who: chosen for who, chosen in image.items() if who}
        for name, image in decided.votes.items()
        if name in decided.decisions
    ]
    report = Report(
        is_repeated=False,
        task=answers.task,
        images=len(kept),
        counts=count_by_class([name for name, _ in told], [split for _, split in told]),
        groups=len(set(joined)),
        own_groups=sum(group == decided.images[reference].name for reference, group in groups.items()),
        annotators=describe_annotators(human, decided.decisions.values()),
        agreement=describe_agreement(human, [each.dice for each in decided.looked.values()], task=answers.task)
        if answers.numbers
        else {},
        disputed=decided.disputed,
        failed={short_name(reference): reason for reference, reason in answers.failed.items()},
        unlabelled=list(map(short_name, answers.unlabelled)),
        few_annotators=list(map(short_name, answers.few)),
        missing=list(map(short_name, decided.absent)),
        identical=[[pictures[one].name, pictures[other].name] for one, other in pairs],
        unused_classes=sorted(offered - set(classes)),
        modalities=dict(Counter(picture.modality for picture in pictures)),
        superseded_answers=job.superseded,
        regions=sum(len(record.get("rois", ())) for split in SPLITS for record in records[split]),
        unsound_regions=job.names.unsound_regions,
        tied_pixels=sum(mask.tied for mask in masks.values()),
        remarks=[each.message for each in decided.groups.remarks],
    )
    output.remove_stale(out, sizes)
    write_dataset_json(
        out,
        name=options.title,
        description=f"Labels of a SageMaker Ground Truth job ({options.labels} of the annotators)",
        labels=_labels(classes, masks.values()) if masks else classes,
        records=records,
        task=answers.task,
        modality=Counter(picture.modality for picture in pictures).most_common(1)[0][0] or "OT",
    )
    shown = {name: value for name, value in asdict(report).items() if name != "is_repeated"}
    output.finish(out, {"importer": "ground_truth", "options": asdict(options), **shown}, key=key, files=sizes)
    return report


def _labels(structures: Sequence[str], masks: Iterable[WrittenMask]) -> list[str]:
    """The names of the values in masks."""
    return ["background", *structures, *([IGNORE] if any(mask.has_ignored for mask in masks) else [])]


def _named(decision: Decision) -> list[str]:
    return [decision.label] if isinstance(decision.label, str) else list(decision.label)
