"""The images of a data set: DICOM files, or stacks of slices. `dicom_choice` chooses among them."""

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import PurePosixPath
from typing import Literal

from sagemaker_monai.data.name_matching import match_names
from sagemaker_monai.errors import ConfigError
from sagemaker_monai.images.dicom.belonging import split_series
from sagemaker_monai.images.dicom.grouping import Series, group_series
from sagemaker_monai.images.dicom.media import Instance
from sagemaker_monai.images.dicom.objects import IMAGES, subject_of
from sagemaker_monai.prepare.labels_table import LabelTable, Line
from sagemaker_monai.prepare.matching import NAMED_KINDS, line_of

UNITS = ("auto", "instance", "series")
SUFFIXES = (".dicom.gz", ".dcm.gz", ".ima.gz", ".dicom", ".dcm", ".ima", ".dic", ".gz")
_ONLY_FILE = ".gz/1"  # the name that `dicom.media` gives the one file in a gzip file
_GROUP_BY = {
    "PatientID": "patient_id",
    "StudyInstanceUID": "study_instance_uid",
    "SeriesInstanceUID": "series_instance_uid",
}
GROUP_BY = tuple(_GROUP_BY)
_KEYS = {"SOPInstanceUID": "sop_instance_uid", **_GROUP_BY}

Kind = Literal["instance", "series"]


@dataclass(frozen=True)
class Unit:
    """One image.

    Attributes:
        name: of its file, or of the folder of its files. Untrusted text.
        instances: its files, in the order of slices.
        fault: why it cannot be used, or "".
        series: if it is a stack.
    """

    name: str
    instances: tuple[Instance, ...] = field(repr=False)
    fault: str = ""
    series: Series | None = field(default=None, repr=False)


def folder_of(name: str) -> str:
    """The folder of a file's name, "" at the top."""
    return name.rpartition("/")[0]


def name_of(instance: Instance) -> str:
    """The name of the file; for the file in a gzip file, that of the gzip file."""
    return instance.name.removesuffix("/1") if instance.name.endswith(_ONLY_FILE) else instance.name


def choose_kind(
    asked: str, table: LabelTable, instances: Sequence[Instance], *, is_folders: bool, below: str = ""
) -> Kind:
    """What an image is, if the options do not say so.

    Labels of files and SOPInstanceUIDs mean instances. Labels of series, studies and patients mean series, unless no
    series has more than one picture (X-rays). Names of folders mean series, and so do folders by class whose files lie
    in folders of their own.

    Args:
        asked: one of UNITS.
        table: of labels.
        instances: all that were found.
        is_folders: labels are folders.
        below: first part of all names that is not a class.

    Raises:
        ConfigError: no such unit.
    """
    if asked not in UNITS:
        raise ConfigError(f"unit must be one of {', '.join(UNITS)}, got {asked!r}")
    if asked == "instance" or asked == "series":
        return "instance" if asked == "instance" else "series"
    names = [name_of(each).removeprefix(below) for each in instances]
    if is_folders:
        depth = 3 if table.has_split else 2
        return "series" if all(name.count("/") >= depth for name in names) else "instance"
    if table.kind not in NAMED_KINDS:
        return "instance" if table.kind == "SOPInstanceUID" or not _has_stacks(instances) else "series"
    keys = [line.key for line in table.lines]
    folders = sorted({folder_of(name) for name in names} - {""})
    files = match_names(keys, names, suffixes=SUFFIXES)
    files.refuse_unclear("the labels")
    return "series" if not files.found and match_names(keys, folders).found else "instance"


def _has_stacks(instances: Sequence[Instance]) -> bool:
    pictures = [each for each in instances if each.has_pixels]
    images = [each for each in pictures if subject_of(each).kind in IMAGES]
    return any(sum(each.number_of_frames for each in files.instances) > 1 for files in split_series(images or pictures))


def instance_units(instances: Sequence[Instance]) -> list[Unit]:
    """One unit a file with a picture."""
    return [
        Unit(
            name_of(each),
            (each,),
            fault=f"has {each.number_of_frames} frames and is not a single image; choose --unit series"
            if each.number_of_frames > 1
            else "",
        )
        for each in instances
        if each.has_pixels
    ]


def series_units(instances: Sequence[Instance]) -> list[Unit]:
    """One unit a stack of slices, named after its folder, or after its first file if others lie there too."""
    stacks = [stack for stack in group_series([each for each in instances if each.has_pixels]) if stack.slices]
    owners: dict[int, int] = defaultdict(int)
    for stack in stacks:
        for each in stack.instances:
            owners[id(each)] += 1
    units = []
    for stack in stacks:
        faults = [found.message for found in stack.findings if found.severity == "error"]
        if any(owners[id(each)] > 1 for each in stack.instances):
            faults.append("the file has several volumes, which cannot be told apart in a folder; split it")
        first = stack.instances[0]
        units.append(
            Unit(
                name=_common_folder([name_of(each) for each in stack.instances]) or name_of(first),
                instances=stack.instances,
                fault="; ".join(faults),
                series=stack,
            )
        )
    shared = Counter(unit.name for unit in units)
    return [replace(unit, name=name_of(unit.instances[0])) if shared[unit.name] > 1 else unit for unit in units]


def _common_folder(names: Sequence[str]) -> str:
    parts = [PurePosixPath(name).parts[:-1] for name in names]
    shared = []
    for level in zip(*parts, strict=False):
        if len(set(level)) > 1:
            break
        shared.append(level[0])
    return "/".join(shared)


def keys_of(unit: Unit, kind: str) -> list[str]:
    """The keys of a unit in a table whose lines are about `kind`."""
    if kind not in NAMED_KINDS:
        return [str(getattr(each, _KEYS[kind])).strip() for each in unit.instances]
    names = [name_of(each) for each in unit.instances]
    return [*names, *({folder_of(name) for name in names} if unit.series is not None else ())]


def values_of(units: Sequence[Unit], kind: str) -> list[str]:
    """The UIDs or patients that lines about `kind` may mean, each once."""
    return list(dict.fromkeys(key for unit in units for key in keys_of(unit, kind) if key))


def names_of(instances: Sequence[Instance], kind: Kind) -> list[str]:
    """The names that a line may mean: files with pictures, and for series their folders too."""
    files = [name_of(each) for each in instances if each.has_pixels]
    folders = {folder_of(name) for name in files} - {""} if kind == "series" else ()
    return [*files, *sorted(folders)]


def label_units(units: Sequence[Unit], table: LabelTable, lines: dict[str, Line]) -> dict[int, Line]:
    """The line of each unit that has one, by the unit's place.

    Raises:
        DatasetError: lines that contradict each other.
    """
    found = {}
    for place, unit in enumerate(units):
        if (line := line_of(keys_of(unit, table.kind), lines, unit.name)) is not None:
            found[place] = line
    return found


def group_key(unit: Unit, group_by: str) -> str:
    """The group of a unit, by its first file's header: the attribute, else the study, else the file. Personal data."""
    first = unit.instances[0]
    value = str(getattr(first, _GROUP_BY[group_by])).strip()
    if value:
        return f"{group_by}:{value}"
    study = first.study_instance_uid.strip()
    return f"StudyInstanceUID:{study}" if study else f"file:{unit.name}"
