"""An export of DICOM series with SEG and RTSTRUCT objects becomes a data set of images with masks.

`mask_objects` finds the image of each mask by its UIDs, `structures` the labels. An image is a series, or a single
picture where no image with a mask has several slices. Images without a mask are left out and counted, as every export
has them; masks whose image is not there are refused unless --mismatch drop leaves them out.
"""

import fnmatch
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

from sagemaker_monai.data.legends import Legend
from sagemaker_monai.deidentification.deidentify import Deidentifier
from sagemaker_monai.deidentification.pseudonyms import pseudonym
from sagemaker_monai.errors import CallerError, ConfigError, DatasetError
from sagemaker_monai.images.dicom.headers import read_header
from sagemaker_monai.images.dicom.media import Media
from sagemaker_monai.images.dicom.objects import IMAGES, KINDS, subject_of
from sagemaker_monai.images.dicom.series import read_series
from sagemaker_monai.images.dicom.wanted import ALL, Choice
from sagemaker_monai.images.volumes import Identity, Traits
from sagemaker_monai.masks.dicom_masks import is_mask
from sagemaker_monai.masks.mask import Grid
from sagemaker_monai.messages.shortened import some_of
from sagemaker_monai.prepare import output
from sagemaker_monai.prepare.dicom_choice import AUTO, choice_of
from sagemaker_monai.prepare.dicom_images import (
    Deidentification,
    Units,
    begin_dicom,
    copy_image,
    deidentifier_of,
    find_dicom,
    name_images,
    notice_copies,
)
from sagemaker_monai.prepare.dicom_units import GROUP_BY, UNITS, Kind, Unit, instance_units, series_units
from sagemaker_monai.prepare.import_report import Notices, Report
from sagemaker_monai.prepare.labels_table import LabelTable, Line
from sagemaker_monai.prepare.mask_copies import VOLUME, read_objects, store_label_map
from sagemaker_monai.prepare.mask_objects import MaskObject, Owners, described_as, look_at_masks, settle_versions
from sagemaker_monai.prepare.publish import FOLDERS, Choices, Written, copy_all, publish, refuse_unusable
from sagemaker_monai.prepare.structures import MaskOptions, Structures, choose_structures, notice_structures
from sagemaker_monai.tasks.tasks import task_for

_DESCRIPTIONS = {"instance": "DICOM images with their masks", "series": "DICOM series with their masks"}


@dataclass
class _Pairs:
    """Images and their masks.

    Attributes:
        kind: what an image is.
        units: all images.
        masks: of the images that have some, by place.
        orphans: masks whose image is not there.
        others: masks of images that were not asked for.
    """

    kind: Kind
    units: Sequence[Unit]
    masks: dict[int, list[MaskObject]] = field(default_factory=dict)
    orphans: list[str] = field(default_factory=list)
    others: list[str] = field(default_factory=list)


def import_dicom_masks(
    source: Path,
    out: Path,
    *,
    masks: MaskOptions | None = None,
    units: Units | None = None,
    choices: Choices | None = None,
    deidentification: Deidentification | None = None,
) -> Report:
    """Import DICOM images with their masks.

    Args:
        source, out: as of `import_dicom_folder`; masks go to `masks/`.
        masks, units, choices: options, see there.
        deidentification: None copies images byte for byte; of masks only voxels are written either way.

    Raises:
        DatasetError: files or the output folder cannot be used, or it is not clear which mask is of which image.
        ConfigError: an option is out of range, or asks for what is not there.
    """
    masks, units, choices = masks or MaskOptions(), units or Units(), choices or Choices()
    deidentification = deidentification.settled() if deidentification else None
    choice = _choice_of(units)
    job = begin_dicom(source, out, FOLDERS, choices, units, deidentification, masks)
    if job.earlier is not None:
        return job.earlier

    media = find_dicom(source)
    notices = Notices()
    faults = {each.name: each.reason for each in media.others if each.code != "NotDicom"}
    objects = look_at_masks(media.instances, faults)
    if not objects:
        raise DatasetError(
            f"{source.name} has no DICOM masks (SEG or RTSTRUCT) that can be used{_first(faults)}; export them with "
            "their images, or give --labels for another task"
        )
    pairs = _pair(media, described_as(objects, masks.description), units.unit, choice, faults)
    _refuse_orphans(pairs, choices, notices)
    structures = _structures(pairs, masks, faults)
    chosen = _settle(pairs, structures.legend, masks, faults, notices)
    refuse_unusable(faults, choices.unusable)
    if not chosen:
        raise DatasetError("no image has a mask that can be used; check that images and masks belong together")

    named = name_images([unit for unit, _ in chosen], pairs.kind, is_private=deidentification is not None)
    stores = [_mask_of(name) for name, _ in named]
    output.begin(out, [*stores, *(file for _, files in named for file in files)])
    copy = partial(
        _copy,
        out=out,
        legend=structures.legend,
        deidentifier=deidentifier_of(deidentification),
        group_by=units.group_by,
    )
    items = [
        (unit.name, (unit, of_unit, *names, store))
        for (unit, of_unit), names, store in zip(chosen, named, stores, strict=True)
    ]
    copied = copy_all(job, items, copy, faults, notices, what="images")
    images = [image for image, _ in copied]
    notice_copies(images, [unit for unit, _ in chosen], deidentification, units, notices)
    held = [[name for mask in of_unit for name in mask.structures] for _, of_unit in chosen]
    notice_structures(structures, held, Counter(code for _, codes in copied for code in codes), notices)
    return publish(
        job,
        images,
        LabelTable("file", task_for("mask"), structures.names, ()),
        notices,
        structures=structures,
        spatial_dims=3 if pairs.kind == "series" else 2,
        description=_DESCRIPTIONS[pairs.kind],
        group_name="patient" if units.group_by == GROUP_BY[0] else "group",
        order=(lambda group: pseudonym(deidentification.salt, group)) if deidentification else str,
        is_private=deidentification is not None,
    )


def _first(faults: dict[str, str]) -> str:
    return f"; the first fault: {next(iter(faults.values()))[:200]}" if faults else ""


# --- images and masks ------------------------------------------------------------------------------------------------


def _choice_of(units: Units) -> Choice:
    if units.unit not in UNITS:
        raise ConfigError(f"unit must be one of {', '.join(UNITS)}, got {units.unit!r}")
    choice = choice_of(
        units.modality, units.description, ALL if units.series == AUTO else units.series, is_folders=True
    )
    if not choice.uids and choice.series != ALL:
        raise ConfigError("masks name their series: leave --series out, or give the SeriesInstanceUIDs that are wanted")
    return choice


def _pair(media: Media, masks: Sequence[MaskObject], asked: str, choice: Choice, faults: dict[str, str]) -> _Pairs:
    """Find the images of masks; those that may be of several images become faults."""
    images = [each for each in media.instances if each.has_pixels and not is_mask(each)]
    stacks = series_units(images)
    kind: Kind = "instance" if asked == "instance" else "series"
    if asked == AUTO:
        owners = Owners(stacks, is_of_slices=True)
        places = {place for mask in masks for place in _places_of(owners, mask, {})}
        lengths = [0 if (stack := stacks[place].series) is None else len(stack.slices) for place in places]
        kind = "series" if not lengths or max(lengths) > 1 else "instance"
    pairs = _Pairs(kind, stacks if kind == "series" else instance_units(images))
    wanted = [place for place, unit in enumerate(pairs.units) if _is_wanted(unit, choice)]
    owners = Owners([pairs.units[place] for place in wanted], is_of_slices=kind == "instance")
    all_owners = Owners(pairs.units, is_of_slices=True)
    for mask in masks:
        found = _places_of(owners, mask, faults)
        for place in found:
            pairs.masks.setdefault(wanted[place], []).append(mask)
        if not found and mask.name not in faults:
            (pairs.others if _places_of(all_owners, mask, faults) else pairs.orphans).append(mask.name)
    return pairs


def _places_of(owners: Owners, mask: MaskObject, faults: dict[str, str]) -> list[int]:
    try:
        return owners.of(mask)
    except CallerError as error:
        faults[mask.name] = str(error)
        return []


def _is_wanted(unit: Unit, choice: Choice) -> bool:
    """Whether an image may have a mask: an image, or what the options ask for."""
    first = unit.instances[0]
    subject = subject_of(first)
    modalities = {modality.strip().upper() for modality in choice.modality}
    pattern = (choice.description or "*").strip().upper()
    return (
        (subject.modality in modalities if modalities else subject.kind in IMAGES)
        and fnmatch.fnmatchcase(first.series_description.strip(" \0").upper(), pattern)
        and (not choice.uids or first.series_instance_uid in choice.uids)
    )


def _refuse_orphans(pairs: _Pairs, choices: Choices, notices: Notices) -> None:
    """Refuse masks whose images are not there, or leave them out.

    Raises:
        DatasetError: with counts.
    """
    if pairs.orphans and choices.mismatch == "refuse":
        raise DatasetError(
            f"masks of images that are not there: {len(pairs.orphans)} ({some_of(pairs.orphans)}); export their series "
            "too, or leave them out with --mismatch drop"
        )
    notices.leave_out("masks of images that are not there", pairs.orphans)
    notices.leave_out("masks of other series", pairs.others)
    bare = [unit for place, unit in enumerate(pairs.units) if place not in pairs.masks]
    kinds = [subject_of(unit.instances[0]).kind for unit in bare]
    told = list(zip(bare, kinds, strict=True))
    notices.leave_out("images without a mask", [unit.name for unit, kind in told if kind in IMAGES])
    notices.leave_out("no images", [unit.name for unit, kind in told if kind not in IMAGES])
    reasons = Counter(KINDS[kind][1] for kind in kinds if kind not in IMAGES)
    notices.notes.extend(f"left out, {count} of them: {why}" for why, count in reasons.most_common())


def _structures(pairs: _Pairs, options: MaskOptions, faults: dict[str, str]) -> Structures:
    masks = {id(mask): mask for of_unit in pairs.masks.values() for mask in of_unit}.values()
    if not masks:
        raise DatasetError(f"no mask is of an image that is there{_first(faults)}; export images and masks together")
    identifying = set().union(*(mask.identifying for mask in masks))
    return choose_structures([mask.structures for mask in masks], options.structures, identifying)


def _settle(
    pairs: _Pairs, legend: Legend, options: MaskOptions, faults: dict[str, str], notices: Notices
) -> list[tuple[Unit, list[MaskObject]]]:
    """The images that are taken, each with the masks that are joined for it."""
    chosen, without, older = [], [], 0
    for place, masks in sorted(pairs.masks.items()):
        unit = pairs.units[place]
        able = [mask for mask in masks if any(map(legend.is_named, mask.structures))]
        if not able:
            without.append(unit.name)
            continue
        try:
            settled = settle_versions(able, legend.is_named, options)
        except CallerError as error:
            faults[unit.name] = str(error)
            continue
        older += len(able) - len(settled)
        if unit.fault:
            faults[unit.name] = unit.fault
        else:
            chosen.append((unit, settled))
    notices.leave_out("images with masks of other structures", without)
    if older:
        notices.notes.append(f"{older} older masks of the same structures were left out (--mask-versions newest)")
    return chosen


# --- copies ----------------------------------------------------------------------------------------------------------


def _mask_of(image: str) -> str:
    """The name of an image's mask in the data set."""
    return f"{output.MASKS}/{image.rstrip('/').rpartition('/')[2].removesuffix('.dcm')}{VOLUME}"


def _grid_of(unit: Unit) -> Grid:
    """The grid of an image, as `train` reads it."""
    if unit.series is not None:
        return Grid.of(read_series(unit.series))
    [instance] = unit.instances
    identity = Identity(
        instance.series_instance_uid, (instance.sop_instance_uid,), headers=(read_header(instance.source),)
    )
    return Grid.of_traits(Traits(identity, size=(instance.columns, instance.rows)))


def _copy(
    image: tuple[Unit, list[MaskObject], str, list[str], str],
    *,
    out: Path,
    legend: Legend,
    deidentifier: Deidentifier | None,
    group_by: str,
) -> tuple[Written, tuple[str, ...]]:
    """Write an image and its mask; also findings of the mask."""
    unit, masks, name, files, store = image
    grid = _grid_of(unit)
    labels = read_objects([mask.instance for mask in masks], grid, legend)
    line = Line(unit.name, labels.present(legend))
    written = copy_image((unit, line, name, files), out=out, deidentifier=deidentifier, group_by=group_by)
    size = store_label_map(labels, out / store, grid, legend)
    return replace(written, mask=store, files={**written.files, store: size}), labels.findings
