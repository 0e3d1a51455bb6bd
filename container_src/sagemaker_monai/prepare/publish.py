"""The last step of an import of labelled files: groups, split, dataset.json and report of images that are written.

The same for DICOM, NIfTI and whatever has labels in a table: what may not be separated is joined into one group before
anything is split. That is what the header or the name tells, the table's column of groups, and equal pixels.
"""

import hashlib
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from sagemaker_monai.data.dataset_json import write_dataset_json
from sagemaker_monai.data.splitting import SPLITS
from sagemaker_monai.errors import DatasetError
from sagemaker_monai.messages.item_names import current
from sagemaker_monai.messages.option_fields import option
from sagemaker_monai.messages.shortened import some_of
from sagemaker_monai.prepare import output
from sagemaker_monai.prepare.fractions import fractions_option, seed_option
from sagemaker_monai.prepare.import_report import Report
from sagemaker_monai.prepare.labels_table import LabelTable, Line
from sagemaker_monai.prepare.leaks import join_groups
from sagemaker_monai.prepare.matching import ON_MISMATCH
from sagemaker_monai.prepare.public_names import public_names
from sagemaker_monai.prepare.sides import count_images, draw_split, missing_sides, refuse_torn

ON_UNUSABLE = ("refuse", "leave-out")
ON_DUPLICATES = ("join", "refuse")
MAX_REASONS = 20  # in the report


@dataclass(frozen=True)
class Choices:
    """What the importers of labelled files have in common.

    Attributes:
        mismatch: "refuse" labels without images and images without labels, or "drop" them.
        unusable: "refuse" labelled images that cannot be used, or "leave-out".
        duplicates: "join" the groups of images with the same pixels, or "refuse" them.
        fractions, seed: of a drawn split.
        title: of the data set.
    """

    mismatch: str = option(
        "refuse", "labels without images and images without labels (default: %(default)s)", choices=ON_MISMATCH
    )
    unusable: str = option("refuse", "labelled images that cannot be used (default: %(default)s)", choices=ON_UNUSABLE)
    duplicates: str = option(
        "join",
        "images of different groups with the same pixels: keep them on one side, or refuse (default: %(default)s)",
        choices=ON_DUPLICATES,
    )
    fractions: tuple[float, float, float] = fractions_option()
    seed: int = seed_option()
    title: str = option("", "what the data set is called (default: %(default)s)")


@dataclass(frozen=True)
class Written:
    """One image whose files are in the output folder.

    Attributes:
        image: as dataset.json has it: a name, or one a channel.
        source: its name in the source, for messages.
        line: its label, and what else the table says.
        group: what tells the patient. May be personal data.
        shown_group: what the data set may call the group; "" numbers it.
        files: name and size in bytes.
        pictures: digests of its pictures, None for blank ones.
        modality: Modality of DICOM, "" where unknown.
    """

    image: str | list[str]
    source: str
    line: Line
    group: str
    shown_group: str
    files: Mapping[str, int]
    pictures: tuple[bytes | None, ...]
    modality: str


@dataclass(frozen=True)
class Notices:
    """What the importer noticed: names of what was left out by the reason, warnings, what it did, and of each study
    what of it was taken and left."""

    left_out: dict[str, list[str]] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    studies: list[dict[str, object]] = field(default_factory=list)

    def leave_out(self, why: str, names: Sequence[str]) -> None:
        """Say what was left out; nothing if there are no names."""
        if names:
            self.left_out[why] = list(names)
            self.counts[why] = len(names)

    def leave_out_unusable(self, faults: Mapping[str, str]) -> None:
        """Say what could not be used: names, and each reason with its count."""
        self.leave_out("cannot be used", list(faults))
        reasons = Counter(faults.values())
        self.notes.extend(f"cannot be used, {count} of them: {why}" for why, count in reasons.most_common(MAX_REASONS))


def refuse_unusable(faults: Mapping[str, str], unusable: str) -> None:
    """Refuse images with a fault, unless they are to be left out.

    Raises:
        DatasetError: with some of the names, and the fault of the first.
    """
    if faults and unusable == "refuse":
        first = next(iter(faults.values()))
        raise DatasetError(
            f"images that cannot be used: {len(faults)} ({some_of(list(faults))}); the first: {first[:400]}. Correct "
            "them, or leave them out with --unusable leave-out"
        )


def digest_of(values: np.ndarray) -> bytes | None:
    """SHA-256 of an array, its shape and type; None where all values are the same, which is equal for many."""
    if values.min() == values.max():
        return None
    digest = hashlib.sha256(repr((values.shape, values.dtype.str)).encode())
    digest.update(np.ascontiguousarray(values).data)
    return digest.digest()


def same_pictures(pictures: Sequence[Sequence[bytes | None]]) -> list[tuple[int, int]]:
    """Pairs of images that share a picture, each with the first image that had it."""
    first: dict[bytes, int] = {}
    pairs: dict[tuple[int, int], None] = {}
    for place, digests in enumerate(pictures):
        for digest in digests:
            if digest is not None and (other := first.setdefault(digest, place)) != place:
                pairs[other, place] = None
    return list(pairs)


def publish(
    out: Path,
    images: Sequence[Written],
    table: LabelTable,
    choices: Choices,
    notices: Notices,
    *,
    importer: str,
    key: str,
    spatial_dims: int,
    description: str,
    group_name: str,
    order: Callable[[str], str],
    is_private: bool,
    options: Mapping[str, Any],
) -> Report:
    """Split the images, and write the list of them and the report.

    Args:
        out: has the images' files, after `output.begin`.
        images: at least one.
        table: what the labels are.
        choices: how to split.
        notices: for the report.
        importer: its name.
        key: of `output.finish`.
        spatial_dims: 2 or 3.
        description: of the data set.
        group_name: begins the names of groups that are numbered.
        order: sorts groups to be numbered.
        is_private: names in the source are not written.
        options: for the report.

    Raises:
        DatasetError: one patient on two sides of the table's split, one group only, or duplicates that are refused.
    """
    current().keep(table.classes)
    groups = join_groups([image.group for image in images], list(_told_pairs(images)))
    same = same_pictures([image.pictures for image in images])
    identical = [(one, other) for one, other in same if groups[one] != groups[other]]
    if identical and choices.duplicates == "refuse":
        names = [f"{images[one].source} = {images[other].source}" for one, other in identical]
        raise DatasetError(
            f"images of different groups with the same pixels: {len(names)} ({some_of(names)}); remove one of each, or "
            "keep them on one side with --duplicates join"
        )
    groups = join_groups(groups, identical)
    labels = [image.line.label for image in images]
    if table.has_split:
        splits = [str(image.line.split) for image in images]
        refuse_torn(groups, splits)
    else:
        splits = draw_split(
            labels, groups, task=table.task, classes=table.classes, fractions=choices.fractions, seed=choices.seed
        )
    counts = count_images(labels, splits, task=table.task, classes=table.classes)
    modalities = Counter(image.modality for image in images)
    if different := sum(labels[one] != labels[other] for one, other in same):
        notices.warnings.append(f"{different} pairs of images share a picture and have different labels")
    if len(modalities) > 1:
        notices.warnings.append(f"{len(modalities)} modalities are mixed; dataset.json names the most frequent")
    files = {name: size for image in images for name, size in image.files.items()}
    report = Report(
        is_repeated=False,
        task=table.task,
        spatial_dims=spatial_dims,
        images=len(images),
        files=len(files),
        groups=len(set(groups)),
        counts=counts,
        modalities=dict(modalities.most_common()) if any(modalities) else {},
        left_out=notices.counts,
        examples=notices.left_out,
        identical=[[_text(images[one].image), _text(images[other].image)] for one, other in identical],
        notes=[*notices.notes, *(each.message for each in table.remarks if each.severity != "warning")],
        studies=notices.studies,
        warnings=[
            *notices.warnings,
            *(each.message for each in table.remarks if each.severity == "warning"),
            *missing_sides(counts, None if table.has_split else choices.fractions),
        ],
    )
    shown = {image.group: image.shown_group for image in images}
    numbered = public_names(groups, group_name, order=order)
    records: dict[str, list[dict[str, Any]]] = {split: [] for split in SPLITS}
    for image, split, group, number in zip(images, splits, groups, numbered, strict=True):
        records[split].append(_record(image, shown[group] or number))
    output.remove_stale(out, files)
    write_dataset_json(
        out,
        name=choices.title,
        description=description,
        labels=table.classes,
        records=records,
        task=table.task,
        spatial_dims=spatial_dims,
        modality=modalities.most_common(1)[0][0] or "OT",
    )
    written = report.written(with_names=not is_private)
    output.finish(out, {"importer": importer, "options": dict(options), **written}, key=key, files=files)
    return report


def _record(image: Written, group: str) -> dict[str, Any]:
    line = image.line
    names = [f"./{name}" for name in image.image] if isinstance(image.image, list) else f"./{image.image}"
    kept = {name: value for name, value in line.kept.items() if name not in ("image", "label", "group", "rois")}
    return {
        "image": names,
        "label": list(line.label) if isinstance(line.label, tuple) else line.label,
        "group": group,
        **kept,
    }


def _text(image: str | list[str]) -> str:
    return image if isinstance(image, str) else image[0]


def _told_pairs(images: Sequence[Written]) -> Iterable[tuple[int, int]]:
    """Images that the table's column of groups has together, each with the first of its group."""
    first: dict[str, int] = {}
    for place, image in enumerate(images):
        if image.line.group is not None:
            yield first.setdefault(image.line.group, place), place
