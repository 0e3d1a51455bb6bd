"""A folder of volumes (NIfTI, Analyze, NRRD, MetaImage, NPY, NPZ) and a table of labels become a data set.

Several sequences of a case become the channels of one image. Files of volumes do not name their patient: a part of the
name or a column of the table does. Otherwise each case is a group of its own, with a warning. De-identification also
numbers files and groups.
"""

import re
from argparse import BooleanOptionalAction
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from sagemaker_monai.errors import CallerError, ConfigError, DatasetError
from sagemaker_monai.messages.option_fields import option, parts_of
from sagemaker_monai.messages.remarks import Remark, merged, remark
from sagemaker_monai.prepare import output
from sagemaker_monai.prepare.import_report import Notices, Report
from sagemaker_monai.prepare.labelled_names import group_of, label_names, refuse_untold, warn_of_own_groups
from sagemaker_monai.prepare.labels_table import LabelOptions, LabelTable, Line, labels_of_folders, read_labels
from sagemaker_monai.prepare.leaks import digest_of
from sagemaker_monai.prepare.matching import NAMED_KINDS, group_pattern
from sagemaker_monai.prepare.nifti_cases import SUFFIXES, Case, Found, find_cases
from sagemaker_monai.prepare.nifti_copy import Plan, copy_volume, plan_copy, read_case
from sagemaker_monai.prepare.public_names import name_files
from sagemaker_monai.prepare.publish import Choices, Written, begin_import, copy_all, publish, refuse_unusable
from sagemaker_monai.prepare.sides import refuse_torn

TITLE = "volumes"
KINDS = ("file", "case", "PatientID")
MODALITIES = ("CT", "MR", "PT", "US", "OT")


@dataclass(frozen=True)
class Cases:
    """Which files are an image, and what is kept of them.

    Attributes:
        sequences: names of the sequences of a case, in the order of the channels; empty: see `nifti_cases`.
        group_by: a regular expression with one group, searched in the case's name; "" for none.
        modality: one of MODALITIES; "" takes the Decathlon's, or OT: values without a known unit.
        is_private: keep only the image of each file, and number files and groups.
    """

    sequences: tuple[str, ...] = option(
        (),
        "that a case has, in the order of the channels: CASE_T1.nii.gz or CASE/T1.nii.gz (default: nnU-Net's "
        "_0000, _0001, ... if all files have them)",
        read=parts_of,
        metavar="T1,T2,...",
    )
    group_by: str = option(
        "",
        "what tells the patient: a regular expression with one group, searched in the case's name",
        metavar="PATTERN",
    )
    modality: str = option("", "(default: that of the Decathlon, or OT)", choices=MODALITIES)
    is_private: bool = option(
        True,
        "blank the texts of headers, and number files and groups (default: yes)",
        flag="--deidentify",
        action=BooleanOptionalAction,
    )


@dataclass(frozen=True)
class _Image:
    """A case with its line and group, how its files are copied, and their names in the data set."""

    case: Case
    line: Line
    group: str
    plans: tuple[Plan, ...]
    names: tuple[tuple[str, ...], ...]


def import_nifti_folder(
    source: Path,
    out: Path,
    *,
    labels: Path | str,
    reading: LabelOptions | None = None,
    cases: Cases | None = None,
    choices: Choices | None = None,
) -> Report:
    """Import volumes with their labels.

    Args:
        source: a folder of any depth, also one of the Medical Segmentation Decathlon.
        out: folder to write `images/`, `dataset.json` and `import_report.json` to: empty, new, or with an earlier
            import, which is replaced. The same call again writes nothing.
        labels: a table that names files or cases, or "folders".
        reading, cases, choices: options, see there.

    Raises:
        DatasetError: files, labels or the output folder cannot be used.
        ConfigError: an option is out of range.
    """
    reading, cases, choices = reading or LabelOptions(), cases or Cases(), choices or Choices(title=TITLE)
    pattern = group_pattern(cases.group_by) if cases.group_by else None
    check_modality(cases.modality)
    if not source.exists():
        raise DatasetError(f"there is no folder {source.name}; name one with volumes")
    job = begin_import("nifti_folder", source, out, labels, choices, reading, cases)
    if job.earlier is not None:
        return job.earlier

    table = read_labels(job.table, reading, kinds=KINDS) if job.table is not None else None
    found = find_cases(source, cases.sequences, [line.key for line in table.lines] if table is not None else [])
    if table is None:
        table = labels_of_folders([case.name for case in found.cases], reading)
    elif table.kind not in NAMED_KINDS and pattern is None:
        table = replace(table, kind="case")  # without --group-by a patient is a case
    notices = Notices()
    modality = cases.modality or found.modality or "OT"
    chosen, faults = _choose(found, table, pattern, choices, notices)
    refuse_untold([case.name for case, _ in chosen], pattern)
    images = _planned(chosen, found, faults, pattern, is_private=cases.is_private)
    refuse_unusable(faults, choices.unusable)
    if table.has_split:
        refuse_torn([image.group for image in images], [image.line.split for image in images])
    output.begin(out, [name for image in images for names in image.names for name in names])
    copied = copy_all(
        job,
        [(image.case.name, image) for image in images],
        partial(_copy, out=out, modality=modality, is_private=cases.is_private),
        faults,
        notices,
        what="volumes",
    )
    odd = merged(told for _, _, remarks in copied for told in remarks)
    notices.warnings.extend(f"{each.code}: {each.message}" for each in odd)
    written = [image for image, _, _ in copied]
    notice_volumes(written, cases, modality, notices)
    return publish(
        job,
        written,
        table,
        notices,
        spatial_dims=spatial_dims_of(Counter(shape for _, shape, _ in copied)),
        description="volumes with their labels",
        is_private=cases.is_private,
    )


def _choose(
    found: Found, table: LabelTable, pattern: re.Pattern[str] | None, choices: Choices, notices: Notices
) -> tuple[list[tuple[Case, Line]], dict[str, str]]:
    """The cases that become images with their lines, and why others cannot."""
    lines = label_names(
        [case.name for case in found.cases], table, pattern, choices, notices, what="volume", dropped=SUFFIXES
    )
    notices.leave_out("no volume of a case", found.others)
    notices.leave_out("masks of images", [path.name for path in found.aside.masks])
    if found.aside.doubtful:
        notices.warnings.append(remark("masks_among_images", len(found.aside.doubtful)).message)
    pairs = [(case, lines[case.name]) for case in found.cases if case.name in lines]
    return [(case, line) for case, line in pairs if not case.fault], {
        case.name: case.fault for case, _ in pairs if case.fault
    }


def _planned(
    chosen: Sequence[tuple[Case, Line]],
    found: Found,
    faults: dict[str, str],
    pattern: re.Pattern[str] | None,
    *,
    is_private: bool,
) -> list[_Image]:
    """Decide how to copy and name each case; adds to `faults`."""
    planned = []
    for case, line in chosen:
        try:
            planned.append((case, line, tuple(plan_copy(file) for file in case.files)))
        except CallerError as error:
            faults[case.name] = str(error)
    if is_private:
        stems = [f"{number:05d}" for number in range(1, len(planned) + 1)]
    else:
        keys = [[*folders, f"{last}.nii"] for *folders, last in (case.name.split("/") for case, _, _ in planned)]
        stems = [name.removesuffix(".nii") for name in name_files(keys, [".nii"] * len(keys))]
    images = []
    for (case, line, plans), stem in zip(planned, stems, strict=True):
        ends = [f"_{name}" for name in found.sequences] or [""]
        names = tuple(
            tuple(f"{output.IMAGES}/{name}" for name in plan.names(stem + end))
            for plan, end in zip(plans, ends, strict=True)
        )
        images.append(_Image(case, line, group_of(case.name, pattern), plans, names))
    return images


# A copy, whether it has several slices and how many channels, and what is odd about it.
_Copied = tuple[Written, tuple[bool, int], list[Remark]]


def _copy(image: _Image, *, out: Path, modality: str, is_private: bool) -> _Copied:
    volumes = read_case(image.case.files)
    files: dict[str, int] = {}
    for plan, volume, names in zip(image.plans, volumes, image.names, strict=True):
        files |= copy_volume(plan, volume, out, names, is_private=is_private)
    heads = [names[0] for names in image.names]
    written = Written(
        image=heads if len(heads) > 1 else heads[0],
        source=image.case.name,
        line=image.line,
        group=image.group,
        files=files,
        pictures=tuple(digest_of(volume.values) for volume in volumes),
        modality=modality,
    )
    shape = volumes[0].values.shape[3] > 1, sum(len(volume.values) for volume in volumes)
    return written, shape, [each for volume in volumes for each in volume.remarks]


def check_modality(modality: str) -> None:
    """Raise a ConfigError if `Cases.modality` is out of range."""
    if modality and modality not in MODALITIES:
        raise ConfigError(f"modality must be one of {', '.join(MODALITIES)}, got {modality!r}")


def spatial_dims_of(shapes: Counter[tuple[bool, int]]) -> int:
    """2 or 3, by whether images have several slices, and their channels; a DatasetError if they are of several."""
    if len(shapes) > 1:
        told = [
            f"{count} {'volumes' if is_deep else 'single slices'} of {channels} channel{'s' * (channels > 1)}"
            for (is_deep, channels), count in shapes.most_common()
        ]
        raise DatasetError(f"the images are of several kinds: {', '.join(told)}; import each kind on its own")
    [(is_deep, _)] = shapes
    return 3 if is_deep else 2


def notice_volumes(images: Sequence[Written], cases: Cases, modality: str, notices: Notices) -> None:
    """Say what was copied and how."""
    files = sum(len(image.files) - bool(image.mask) for image in images)
    if cases.is_private:
        notices.notes.append(f"{files} files were copied without the texts of their headers, and numbered")
        notices.notes.append("faces that can be rendered from a head are not removed")
    else:
        notices.notes.append(f"{files} files were copied with everything in their headers")
    warn_of_own_groups(images, notices)
    if modality == "OT":
        notices.warnings.append("the modality is unknown: values are taken as they are; --modality CT means HU")
