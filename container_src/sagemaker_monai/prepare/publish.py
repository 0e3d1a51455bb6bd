"""What the importers of labelled files share: how an import begins, copies its images, and publishes the data set.

Images that must not be separated become one group before anything is split: by the header or the name, by the table's
group column, and by equal pixels.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, TypeVar

from sagemaker_monai.data.dataset_json import write_dataset_json
from sagemaker_monai.data.splitting import SPLITS
from sagemaker_monai.errors import CallerError, DatasetError
from sagemaker_monai.messages.item_names import current
from sagemaker_monai.messages.option_fields import option
from sagemaker_monai.messages.progress import track
from sagemaker_monai.messages.shortened import some_of
from sagemaker_monai.prepare import output
from sagemaker_monai.prepare.fractions import check_options, fractions_option, seed_option
from sagemaker_monai.prepare.import_report import Notices, Report, earlier_import
from sagemaker_monai.prepare.labels_table import LabelTable, Line
from sagemaker_monai.prepare.leaks import join_groups, same_pictures
from sagemaker_monai.prepare.matching import ON_MISMATCH, key_of
from sagemaker_monai.prepare.public_names import public_names
from sagemaker_monai.prepare.sides import count_images, draw_split, missing_sides, refuse_torn
from sagemaker_monai.prepare.structures import Structures

ON_UNUSABLE = ("refuse", "leave-out")
ON_DUPLICATES = ("join", "refuse")
FOLDERS = "folders"  # as the table of labels: the classes are folders
Item = TypeVar("Item")
Made = TypeVar("Made")


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
        group: identifies the patient. May be personal data.
        shown_group: the group's name in the data set; "" numbers it.
        files: name -> size in bytes.
        pictures: digests of its pictures, None for blank ones.
        modality: Modality of DICOM, "" if unknown.
        mask: the file with the label, where labels are masks; `line` then has the structures that it shows.
    """

    image: str | list[str]
    source: str
    line: Line
    group: str
    files: Mapping[str, int]
    pictures: tuple[bytes | None, ...]
    modality: str
    shown_group: str = ""
    mask: str = ""

    @property
    def first_image(self) -> str:
        """The name, of several channels that of the first."""
        return self.image if isinstance(self.image, str) else self.image[0]


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


@dataclass(frozen=True)
class Import:
    """An import that was asked for.

    Attributes:
        table: the file with the labels; None if the classes are folders.
        options: for the report.
        key: of `output.finish`.
        earlier: the report of the same import, if the folder holds it already.
    """

    importer: str
    out: Path
    table: Path | None
    choices: Choices
    options: Mapping[str, Any]
    key: str
    earlier: Report | None


def begin_import(
    importer: str,
    source: Path,
    out: Path,
    labels: Path | str,
    choices: Choices,
    *others: object,
    more: Mapping[str, str] = MappingProxyType({}),
) -> Import:
    """Check options and places, and look whether the import is done already.

    Args:
        importer, source, out, labels, choices: of the call; labels are a table or FOLDERS.
        others: dataclasses with the importer's other options.
        more: what else changes the result, and is not for the report.

    Raises:
        DatasetError: the output folder cannot be used.
        ConfigError: an option is out of range.
    """
    check_options(choices)
    output.check_places(source, out)
    output.check_output(out)
    table = None if labels == FOLDERS else Path(labels)
    options = {name: value for each in (*others, choices) for name, value in vars(each).items()}
    key = key_of(source, table, {**options, **more})
    return Import(importer, out, table, choices, options, key, earlier_import(Report, out, key))


def copy_all(
    job: Import,
    images: Sequence[tuple[str, Item]],
    copy: Callable[[Item], Made],
    faults: dict[str, str],
    notices: Notices,
    *,
    what: str,
) -> list[Made]:
    """Copy images one by one; those that cannot be copied are refused or left out.

    Args:
        job, notices: of the import.
        images: name and argument of `copy`.
        copy: writes the files of one image.
        faults: why other images cannot be used; gets those that cannot be copied.
        what: what messages call the images.

    Raises:
        DatasetError: an image cannot be copied, or none is left.
    """
    copied = []
    for name, image in track(images, total=len(images), what=f"copying {what}"):
        try:
            copied.append(copy(image))
        except CallerError as error:
            faults[name] = str(error)
            refuse_unusable({name: str(error)}, job.choices.unusable)
    notices.leave_out_unusable(faults)
    if not copied:
        raise DatasetError(f"none of the labelled {what} can be used; the first: {next(iter(faults.values()), 'none')}")
    return copied


def publish(
    job: Import,
    images: Sequence[Written],
    table: LabelTable,
    notices: Notices,
    *,
    spatial_dims: int,
    description: str,
    is_private: bool,
    structures: Structures | None = None,
    codes: Mapping[str, Any] = MappingProxyType({}),
    group_name: str = "group",
    order: Callable[[str], str] = str,
) -> Report:
    """Split the images, and write dataset.json and the report.

    Args:
        job, images, table, notices: of the import, with the files of at least one image written.
        spatial_dims, description: of the data set.
        is_private: the report has no names from the source.
        structures: of label maps, where labels are masks.
        codes: of dataset.json.
        group_name: first part of the names of numbered groups.
        order: sort key of the groups that are numbered.

    Raises:
        DatasetError: one patient on two sides of the table's split, one group only, or duplicates that are refused.
    """
    choices = job.choices
    current().keep(table.classes)
    groups = join_groups([image.group for image in images], list(_pairs_by_column(images)))
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
        identical=[[images[place].first_image for place in pair] for pair in identical],
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
    output.remove_stale(job.out, files)
    write_dataset_json(
        job.out,
        name=choices.title,
        description=description,
        labels=table.classes if structures is None else structures.labels,
        codes=codes,
        records=records,
        task=table.task,
        spatial_dims=spatial_dims,
        modality=modalities.most_common(1)[0][0] or "OT",
    )
    written = report.written(with_names=not is_private)
    output.finish(
        job.out, {"importer": job.importer, "options": dict(job.options), **written}, key=job.key, files=files
    )
    return report


def _record(image: Written, group: str) -> dict[str, Any]:
    line = image.line
    names = [f"./{name}" for name in image.image] if isinstance(image.image, list) else f"./{image.image}"
    kept = {name: value for name, value in line.kept.items() if name not in ("image", "label", "group", "rois")}
    return {
        "image": names,
        "label": f"./{image.mask}" if image.mask else list(line.label) if isinstance(line.label, tuple) else line.label,
        "group": group,
        **kept,
    }


def _pairs_by_column(images: Sequence[Written]) -> Iterable[tuple[int, int]]:
    """Images of one group by the table's group column, each with the first of its group."""
    first: dict[str, int] = {}
    for place, image in enumerate(images):
        if image.line.group is not None:
            yield first.setdefault(image.line.group, place), place
