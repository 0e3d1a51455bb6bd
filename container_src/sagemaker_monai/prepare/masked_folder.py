"""Folders of volumes or pictures with their masks, in any layout that `train` reads, become a data set.

`data.layouts` finds images, masks and what their values mean. Images are copied as with labels of other kinds, masks
become label maps. A split that the source gives is kept, unless all of it is for training: then it is drawn.
"""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import numpy as np

from sagemaker_monai.data.entries import BETWEEN_SEQUENCES, SUFFIXES, Entry, Layout
from sagemaker_monai.data.label_names import alike_key
from sagemaker_monai.data.layouts import read_channels
from sagemaker_monai.data.legends import Legend
from sagemaker_monai.data.name_matching import stem_of
from sagemaker_monai.errors import CallerError, ConfigError, DatasetError, UnsuitableImage
from sagemaker_monai.images.pictures import upright_size
from sagemaker_monai.images.read import DICOM_FORMAT, kind_of
from sagemaker_monai.images.sample import Sequences
from sagemaker_monai.masks.mask import Grid
from sagemaker_monai.masks.read_mask import read_mask
from sagemaker_monai.messages.remarks import Remark, merged
from sagemaker_monai.prepare import output
from sagemaker_monai.prepare.import_report import Notices, Report
from sagemaker_monai.prepare.labelled_names import OWN, group_of, refuse_untold
from sagemaker_monai.prepare.labels_table import LabelTable, Line
from sagemaker_monai.prepare.leaks import digest_of
from sagemaker_monai.prepare.mask_copies import PICTURE, VOLUME, LabelMap, store_label_map
from sagemaker_monai.prepare.matching import group_pattern
from sagemaker_monai.prepare.nifti_cases import SUFFIXES as VOLUME_SUFFIXES
from sagemaker_monai.prepare.nifti_cases import modality_of
from sagemaker_monai.prepare.nifti_copy import copy_volume, plan_copy, read_case
from sagemaker_monai.prepare.nifti_folder import Cases, check_modality, notice_volumes, spatial_dims_of
from sagemaker_monai.prepare.picture_folder import MODALITY, Pictures, content_of_picture, notice_pictures
from sagemaker_monai.prepare.public_names import name_files
from sagemaker_monai.prepare.publish import (
    FOLDERS,
    Choices,
    Written,
    begin_import,
    copy_all,
    publish,
    refuse_unusable,
)
from sagemaker_monai.prepare.sides import refuse_torn
from sagemaker_monai.prepare.structures import StructureOptions, Structures, notice_structures, structures_of
from sagemaker_monai.tasks.label_codes import write_codes
from sagemaker_monai.tasks.tasks import TASKS, task_for

_GIVEN = "given:"  # first part of a group that the source names
_OTHER_SOURCE = {
    DICOM_FORMAT: "is DICOM; import it with prepare dicom_folder",
    "picture": "is a picture; import it with prepare pictures",
    "volume": "is a volume; import it with prepare nifti_folder",
}


@dataclass(frozen=True)
class _Way:
    """How a folder is imported.

    Attributes:
        kind: "volume" or "picture", as the images have to be.
        suffix: of the masks that are written.
        group_by, is_private: see `Cases` and `Pictures`.
        modality: of all images; "" takes what the source says, or OT.
    """

    kind: str
    suffix: str
    group_by: str
    is_private: bool
    modality: str


@dataclass(frozen=True)
class _Image:
    """An image with its mask, its group, and what its files in the data set begin with."""

    entry: Entry
    group: str
    stem: str

    @property
    def files(self) -> tuple[Path, ...]:
        """One for each channel."""
        return _files(self.entry)

    def names(self, way: _Way) -> list[list[str]]:
        """Of the copies of each channel's files; raises as `plan_copy`."""
        if way.kind == "picture":
            return [[f"{output.IMAGES}/{self.stem}{self.files[0].suffix.lower()}"]]
        ends = [f"_{channel:04d}" for channel in range(len(self.files))] if len(self.files) > 1 else [""]
        found = [plan_copy(file).names(self.stem + end) for file, end in zip(self.files, ends, strict=True)]
        return [[f"{output.IMAGES}/{name}" for name in names] for names in found]

    def mask(self, way: _Way) -> str:
        """The name of the mask in the data set."""
        return f"{output.MASKS}/{self.stem}{way.suffix}"


@dataclass(frozen=True)
class _Made:
    """A copied image: what is published, whether it has several slices and how many channels, and what is odd."""

    written: Written
    shape: tuple[bool, int] = (False, 1)
    remarks: Sequence[Remark] = field(default_factory=tuple)
    findings: Sequence[str] = ()


def import_volume_masks(
    source: Path,
    out: Path,
    *,
    masks: StructureOptions | None = None,
    cases: Cases | None = None,
    choices: Choices | None = None,
) -> Report:
    """Import volumes with their masks, of the Decathlon, nnU-Net, TotalSegmentator or beside the images.

    Args:
        source, out: as of `import_nifti_folder`; masks go to `masks/`.
        masks, cases, choices: options, see there.

    Raises:
        DatasetError: files or the output folder cannot be used, or it is not clear which mask is of which image.
        ConfigError: an option is out of range, or asks for what is not there.
    """
    cases = cases or Cases()
    check_modality(cases.modality)
    if cases.sequences:
        raise ConfigError(
            "with masks, channels are files that end with _0000, _0001, ... or a list in dataset.json: leave out "
            "--sequences"
        )
    way = _Way("volume", VOLUME, cases.group_by, cases.is_private, cases.modality)
    return _import("nifti_folder", way, source, out, masks or StructureOptions(), choices or Choices(), cases)


def import_picture_masks(
    source: Path,
    out: Path,
    *,
    masks: StructureOptions | None = None,
    pictures: Pictures | None = None,
    choices: Choices | None = None,
) -> Report:
    """Import pictures with their masks.

    Args:
        source, out: as of `import_pictures`; masks go to `masks/`.
        masks, pictures, choices: options, see there.

    Raises:
        DatasetError, ConfigError: as of `import_volume_masks`.
    """
    pictures = pictures or Pictures()
    way = _Way("picture", PICTURE, pictures.group_by, pictures.is_private, MODALITY)
    return _import("pictures", way, source, out, masks or StructureOptions(), choices or Choices(), pictures)


def _import(
    importer: str,
    way: _Way,
    source: Path,
    out: Path,
    masks: StructureOptions,
    choices: Choices,
    options: Cases | Pictures,
) -> Report:
    if not source.is_dir():
        raise DatasetError(f"there is no folder {source.name}; name one with images and their masks")
    pattern = group_pattern(way.group_by) if way.group_by else None
    job = begin_import(importer, source, out, FOLDERS, choices, options, masks)
    if job.earlier is not None:
        return job.earlier

    layout = _layout_of(source)
    legend = layout.legend
    assert legend is not None
    structures = structures_of(legend, masks.structures)
    way = replace(way, modality=way.modality or modality_of(layout.modality) or "OT")
    notices = Notices()
    for each in layout.remarks:
        (notices.warnings if each.severity == "warning" else notices.notes).append(f"{each.code}: {each.message}")
    notices.leave_out("masks of single annotators", [entry.name for entry in layout.entries if entry.annotator_masks])
    faults: dict[str, str] = {}
    images = _planned(layout.entries, way, pattern, faults)
    refuse_unusable(faults, choices.unusable)
    has_split = any(entry.split not in (None, "training") for entry in layout.entries)
    if has_split:
        refuse_torn([image.group for image in images], [image.entry.split or "training" for image in images])
    output.begin(out, [name for image in images for names in [*image.names(way), [image.mask(way)]] for name in names])
    copy = partial(_copy, out=out, way=way, legend=legend, structures=structures)
    copied = copy_all(job, [(image.entry.name, image) for image in images], copy, faults, notices, what=f"{way.kind}s")
    odd = merged(told for made in copied for told in made.remarks)
    notices.warnings.extend(f"{each.code}: {each.message}" for each in odd)
    written = [made.written for made in copied]
    if isinstance(options, Cases):
        notice_volumes(written, options, way.modality, notices)
    else:
        notice_pictures(written, options, notices)
    codes = Counter(code for made in copied for code in made.findings)
    notice_structures(structures, [structures.names] * len(written), codes, notices)
    return publish(
        job,
        written,
        LabelTable("file", task_for("mask"), structures.names, (), has_split=has_split),
        notices,
        structures=structures,
        codes=_codes(layout, structures),
        spatial_dims=spatial_dims_of(Counter(made.shape for made in copied)) if way.kind == "volume" else 2,
        description=f"{way.kind}s with their masks",
        is_private=way.is_private,
    )


def _layout_of(source: Path) -> Layout:
    layout = read_channels({"training": source}, has_masks=True)
    if layout.task not in TASKS or not TASKS[layout.task].has_masks:
        raise DatasetError("the labels in the source are not masks; import it with --labels, or name masks as labels")
    return layout


def _codes(layout: Layout, structures: Structures) -> Mapping[str, object]:
    """The codes of the structures, by the names that they have now."""
    known = {alike_key(name): write_codes(codes) for name, codes in layout.codes.items()}
    return {name: known[key] for name in structures.names if (key := alike_key(name)) in known}


def _name_of(entry: Entry) -> str:
    """The name of an image without suffix, of several channels without the number of the first."""
    first, *others = entry.name.split(BETWEEN_SEQUENCES)
    name = stem_of(first, (*VOLUME_SUFFIXES, *SUFFIXES))
    return re.sub(r"_\d{4}$", "", name) if others else name


def _files(entry: Entry) -> tuple[Path, ...]:
    return entry.image.channels if isinstance(entry.image, Sequences) else (entry.image,)


def _planned(
    entries: Sequence[Entry], way: _Way, pattern: re.Pattern[str] | None, faults: dict[str, str]
) -> list[_Image]:
    """The images that can be copied; adds to `faults`."""
    able = []
    for entry in entries:
        try:
            _check_kind(entry, way)
            able.append(entry)
        except CallerError as error:
            faults[entry.name] = str(error)
    names = [_name_of(entry) for entry in able]
    refuse_untold(names, pattern)
    if way.is_private:
        stems = [f"{number:05d}" for number in range(1, len(able) + 1)]
    else:
        keys = [[*folders, f"{last}.nii"] for *folders, last in (name.split("/") for name in names)]
        stems = [name.removesuffix(".nii") for name in name_files(keys, [".nii"] * len(keys))]
    groups = [
        group_of(name, pattern) if pattern else OWN + name if entry.group == entry.name else _GIVEN + entry.group
        for entry, name in zip(able, names, strict=True)
    ]
    return [_Image(*each) for each in zip(able, groups, stems, strict=True)]


def _check_kind(entry: Entry, way: _Way) -> None:
    """Refuse files of another kind; raises as `plan_copy`, too."""
    for file in _files(entry):
        kind = kind_of(file)
        kind = kind if kind in (DICOM_FORMAT, "picture") else "volume"
        if kind != way.kind:
            raise UnsuitableImage(_OTHER_SOURCE[kind])
        if kind == "volume":
            plan_copy(file)
    if way.kind == "picture" and isinstance(entry.image, Sequences):
        raise UnsuitableImage("has several files as channels, which pictures cannot be imported with; join them")


# --- copies ----------------------------------------------------------------------------------------------------------


def _copy(image: _Image, *, out: Path, way: _Way, legend: Legend, structures: Structures) -> _Made:
    copied = (_copy_volume if way.kind == "volume" else _copy_picture)(image, out, way)
    labels = _labels_of(image.entry, copied.grid, legend, structures)
    name = image.mask(way)
    size = store_label_map(labels, out / name, copied.grid, structures.legend)
    heads = [names[0] for names in image.names(way)]
    entry = image.entry
    line = Line(
        entry.name,
        labels.present(structures.legend),
        split=entry.split or "training",
        kept={} if way.is_private else entry.metadata,
    )
    written = Written(
        image=heads if len(heads) > 1 else heads[0],
        source=entry.name,
        line=line,
        group=image.group,
        files={**copied.files, name: size},
        pictures=copied.pictures,
        modality=way.modality,
        mask=name,
    )
    return _Made(written, copied.shape, copied.remarks, labels.findings)


@dataclass(frozen=True)
class _Copied:
    """The copies of an image's files with their sizes, its grid, digests, shape and remarks."""

    files: Mapping[str, int]
    grid: Grid
    pictures: tuple[bytes | None, ...]
    shape: tuple[bool, int] = (False, 1)
    remarks: Sequence[Remark] = ()


def _copy_volume(image: _Image, out: Path, way: _Way) -> _Copied:
    volumes = read_case(image.files)
    files: dict[str, int] = {}
    for file, volume, names in zip(image.files, volumes, image.names(way), strict=True):
        files |= copy_volume(plan_copy(file), volume, out, names, is_private=way.is_private)
    return _Copied(
        files,
        Grid.of(volumes[0]),
        tuple(digest_of(volume.values) for volume in volumes),
        (volumes[0].values.shape[3] > 1, sum(len(volume.values) for volume in volumes)),
        [each for volume in volumes for each in volume.remarks],
    )


def _copy_picture(image: _Image, out: Path, way: _Way) -> _Copied:
    [[name]] = image.names(way)
    content, digest = content_of_picture(image.files[0], is_private=way.is_private)
    (out / name).write_bytes(content)
    return _Copied({name: len(content)}, Grid(upright_size(image.files[0])), (digest,))


def _labels_of(entry: Entry, grid: Grid, legend: Legend, structures: Structures) -> LabelMap:
    """The label map of an image, with the structures that are taken."""
    assert entry.mask is not None
    own = structures.legend
    read = read_mask(entry.mask, grid, wanted=own.is_named, named=legend.numbers)
    if read.names or read.left_out:
        labels, odd = own.labels_of(read)
        return LabelMap(labels, (*read.findings, *odd))
    labels, odd = legend.labels_of(read)
    place = {alike_key(name): label for label, name in enumerate(own.names, start=1)}
    table = np.arange(256, dtype=np.uint8)
    table[1 : len(legend.names) + 1] = [place.get(alike_key(name), 0) for name in legend.names]
    return LabelMap(table[labels], (*read.findings, *odd))
