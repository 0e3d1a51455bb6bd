"""A folder of pictures (JPEG, PNG, BMP, TIFF, WebP) and a table of labels become a data set.

Pictures say nothing of patients: a column of the table or a part of the name does, or each picture is a group of its
own, which is said. Where they are de-identified, only the picture itself is copied (`picture_metadata`), and files and
groups get numbers for names.
"""

import re
from argparse import BooleanOptionalAction
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

from sagemaker_monai.data.class_folders import read_class_folders
from sagemaker_monai.data.entries import SUFFIXES
from sagemaker_monai.data.mask_files import mask_remarks, set_masks_aside
from sagemaker_monai.deidentification.picture_metadata import cleaned
from sagemaker_monai.errors import CallerError, DatasetError, UnsuitableImage
from sagemaker_monai.images.read import read_frames_of
from sagemaker_monai.images.sample import Sample
from sagemaker_monai.images.suffixes import IMAGE_SUFFIXES
from sagemaker_monai.messages.option_fields import option
from sagemaker_monai.messages.progress import track
from sagemaker_monai.prepare import output
from sagemaker_monai.prepare.fractions import check_options
from sagemaker_monai.prepare.import_report import Report, repeated
from sagemaker_monai.prepare.labelled_names import OWN, group_of, label_names, refuse_untold
from sagemaker_monai.prepare.labels_table import LabelOptions, LabelTable, Line, labels_of_layout, read_labels
from sagemaker_monai.prepare.matching import NAMED_KINDS, group_pattern, key_of
from sagemaker_monai.prepare.public_names import name_files
from sagemaker_monai.prepare.publish import Choices, Notices, Written, digest_of, publish, refuse_unusable
from sagemaker_monai.prepare.sides import refuse_torn
from sagemaker_monai.storage.files import plain_files

FOLDERS = "folders"
TITLE = "pictures"
KINDS = ("file", "case", "PatientID")
MODALITY = "RGB"  # what dataset.json calls photographs


@dataclass(frozen=True)
class Pictures:
    """What of the files is a patient, and what is kept of them.

    Attributes:
        group_by: a regular expression with one group, searched in the name; "" without.
        is_private: pictures lose the texts beside them, and names become numbers.
    """

    group_by: str = option(
        "",
        "what tells the patient: a regular expression with one group, searched in the file's name",
        metavar="PATTERN",
    )
    is_private: bool = option(
        True,
        "cut texts, dates and places out of JPEG and PNG, and number files and groups (default: yes)",
        flag="--deidentify",
        action=BooleanOptionalAction,
    )


def import_pictures(
    source: Path,
    out: Path,
    *,
    labels: Path | str,
    reading: LabelOptions | None = None,
    pictures: Pictures | None = None,
    choices: Choices | None = None,
) -> Report:
    """Import pictures with their labels.

    Args:
        source: a folder of any depth; the table may lie in it.
        out: folder to write `images/`, `dataset.json` and `import_report.json` to; empty, new, or an earlier import,
            which is replaced. The same call again finds everything done and writes nothing.
        labels: a table that names the pictures, or "folders".
        reading: how the table is read.
        pictures: what of the names is a patient.
        choices: what is left out, how it is split.

    Raises:
        DatasetError: files, labels or the output folder cannot be used.
        ConfigError: an option is out of range.
    """
    reading, pictures, choices = reading or LabelOptions(), pictures or Pictures(), choices or Choices(title=TITLE)
    check_options(choices)
    pattern = group_pattern(pictures.group_by) if pictures.group_by else None
    table_file = None if labels == FOLDERS else Path(labels)
    if not source.is_dir():
        raise DatasetError(f"there is no folder {source.name}; name one with pictures")
    output.check_places(source, out)
    output.check_output(out)
    options = {**vars(reading), **vars(pictures), **vars(choices)}
    key = key_of(source, table_file, options)
    if output.is_up_to_date(out, key):
        return repeated(output.read_report(out) or {})

    notices = Notices()
    table, chosen = _choose(source, table_file, reading, pattern, choices, notices)
    refuse_untold(list(chosen), pattern)
    if table.has_split:
        refuse_torn([group_of(name, pattern) for name in chosen], [line.split for line in chosen.values()])
    names = _names(list(chosen), is_private=pictures.is_private)
    output.begin(out, names)
    written: list[Written] = []
    faults: dict[str, str] = {}
    for (name, line), target in track(
        zip(chosen.items(), names, strict=True), total=len(chosen), what="copying pictures"
    ):
        try:
            written.append(
                _copy(source / name, name, line, out, target, group_of(name, pattern), is_private=pictures.is_private)
            )
        except CallerError as error:
            faults[name] = str(error)
            refuse_unusable(faults, choices.unusable)
    notices.leave_out_unusable(faults)
    if not written:
        raise DatasetError(f"none of the labelled pictures can be used; the first: {next(iter(faults.values()))}")
    _notice(written, pictures, notices)
    return publish(
        out,
        written,
        table,
        choices,
        notices,
        importer="pictures",
        key=key,
        spatial_dims=2,
        description="pictures with their labels",
        group_name="group",
        order=str,
        is_private=pictures.is_private,
        options=options,
    )


def _choose(
    source: Path,
    table_file: Path | None,
    reading: LabelOptions,
    pattern: re.Pattern[str] | None,
    choices: Choices,
    notices: Notices,
) -> tuple[LabelTable, dict[str, Line]]:
    """The labels, and the line of each picture by its name in the source."""
    if table_file is None:
        layout = read_class_folders(source)
        table, aside, others = labels_of_layout(layout, reading), layout.aside, []
        names = [entry.name for entry in layout.entries]
    else:
        table = read_labels(table_file, reading, kinds=KINDS)
        if table.kind not in NAMED_KINDS and pattern is None:
            table = replace(table, kind="case")  # without another word a patient is a picture
        files = list(plain_files(source))
        pictures = [path for path in files if path.suffix.lower() in IMAGE_SUFFIXES]
        aside = set_masks_aside(pictures, source)
        names = [path.relative_to(source).as_posix() for path in aside.images]
        taken = {*pictures, table_file.absolute(), table_file}
        others = [path.relative_to(source).as_posix() for path in files if path not in taken]
    if not names:
        raise DatasetError(
            f"{source.name} has no pictures ({', '.join(sorted(IMAGE_SUFFIXES))}); DICOM is for prepare dicom_folder, "
            "volumes for prepare nifti_folder"
        )
    lines = label_names(names, table, pattern, choices, notices, what="picture", suffixes=SUFFIXES)
    notices.leave_out("no picture", others)
    notices.leave_out("masks of images", [path.name for path in aside.masks])
    notices.warnings.extend(each.message for each in mask_remarks(aside) if each.severity == "warning")
    return table, {name: lines[name] for name in names if name in lines}


def _names(names: Sequence[str], *, is_private: bool) -> list[str]:
    """What the pictures are called in the data set."""
    suffixes = [PurePosixPath(name).suffix.lower() for name in names]
    if is_private:
        return [f"{output.IMAGES}/{number:06d}{suffix}" for number, suffix in enumerate(suffixes, start=1)]
    return [f"{output.IMAGES}/{name}" for name in name_files([name.split("/") for name in names], suffixes)]


def _copy(path: Path, name: str, line: Line, out: Path, target: str, group: str, *, is_private: bool) -> Written:
    """Read a picture to be sure of it, and copy it."""
    if path.suffix.lower() not in IMAGE_SUFFIXES:
        raise UnsuitableImage("it is no picture; DICOM is for prepare dicom_folder, volumes for prepare nifti_folder")
    [frame] = read_frames_of(Sample(path))
    content = path.read_bytes()
    if is_private:
        content = cleaned(content)
    (out / target).write_bytes(content)
    return Written(
        image=target,
        source=name,
        line=line,
        group=group,
        shown_group="",
        files={target: len(content)},
        pictures=(digest_of(frame.values),),
        modality=MODALITY,
    )


def _notice(images: Sequence[Written], pictures: Pictures, notices: Notices) -> None:
    if pictures.is_private:
        notices.notes.append(f"{len(images)} pictures were copied without the texts beside them, and numbered")
        notices.notes.append("what can be read in the pictures themselves is not removed")
    else:
        notices.notes.append(f"{len(images)} pictures were copied with all that their files say")
    if own := sum(image.group.startswith(OWN) and image.line.group is None for image in images):
        notices.warnings.append(
            f"nothing tells the patient of {own} images: those of one patient may be on two sides of the split; use "
            "--group-column or --group-by"
        )
