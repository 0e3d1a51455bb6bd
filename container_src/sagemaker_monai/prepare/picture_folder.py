"""A folder of pictures (JPEG, PNG, BMP, TIFF, WebP) and a table of labels become a data set.

Pictures do not name their patient: a column of the table or a part of the file's name does. Otherwise each picture is
a group of its own, with a warning. De-identification copies only the picture itself (`picture_metadata`) and numbers
files and groups.
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
from sagemaker_monai.errors import DatasetError, UnsuitableImage
from sagemaker_monai.images.read import read_frames_of
from sagemaker_monai.images.sample import Sample
from sagemaker_monai.images.suffixes import IMAGE_SUFFIXES
from sagemaker_monai.messages.option_fields import option
from sagemaker_monai.prepare import output
from sagemaker_monai.prepare.import_report import Notices, Report
from sagemaker_monai.prepare.labelled_names import group_of, label_names, refuse_untold, warn_of_own_groups
from sagemaker_monai.prepare.labels_table import LabelOptions, LabelTable, Line, labels_of_layout, read_labels
from sagemaker_monai.prepare.leaks import digest_of
from sagemaker_monai.prepare.matching import NAMED_KINDS, group_pattern
from sagemaker_monai.prepare.public_names import name_files
from sagemaker_monai.prepare.publish import Choices, Written, begin_import, copy_all, publish
from sagemaker_monai.prepare.sides import refuse_torn
from sagemaker_monai.storage.files import plain_files

TITLE = "pictures"
KINDS = ("file", "case", "PatientID")
MODALITY = "RGB"  # what dataset.json calls photographs


@dataclass(frozen=True)
class Pictures:
    """How names identify patients, and what is kept of the files.

    Attributes:
        group_by: a regular expression with one group, searched in the name; "" for none.
        is_private: cut out the texts beside the picture, and number files and groups.
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
        out: folder to write `images/`, `dataset.json` and `import_report.json` to: empty, new, or with an earlier
            import, which is replaced. The same call again writes nothing.
        labels: a table that names the pictures, or "folders".
        reading, pictures, choices: options, see there.

    Raises:
        DatasetError: files, labels or the output folder cannot be used.
        ConfigError: an option is out of range.
    """
    reading, pictures, choices = reading or LabelOptions(), pictures or Pictures(), choices or Choices(title=TITLE)
    pattern = group_pattern(pictures.group_by) if pictures.group_by else None
    if not source.is_dir():
        raise DatasetError(f"there is no folder {source.name}; name one with pictures")
    job = begin_import("pictures", source, out, labels, choices, reading, pictures)
    if job.earlier is not None:
        return job.earlier

    notices = Notices()
    table, chosen = _choose(source, job.table, reading, pattern, choices, notices)
    refuse_untold(list(chosen), pattern)
    if table.has_split:
        refuse_torn([group_of(name, pattern) for name in chosen], [line.split for line in chosen.values()])
    names = _names(list(chosen), is_private=pictures.is_private)
    output.begin(out, names)

    def copy(image: tuple[str, Line, str]) -> Written:
        name, line, target = image
        content, digest = content_of_picture(source / name, is_private=pictures.is_private)
        (out / target).write_bytes(content)
        return Written(target, name, line, group_of(name, pattern), {target: len(content)}, (digest,), MODALITY)

    images = [(name, (name, line, target)) for (name, line), target in zip(chosen.items(), names, strict=True)]
    written = copy_all(job, images, copy, {}, notices, what="pictures")
    notice_pictures(written, pictures, notices)
    return publish(
        job,
        written,
        table,
        notices,
        spatial_dims=2,
        description="pictures with their labels",
        is_private=pictures.is_private,
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
            table = replace(table, kind="case")  # without --group-by a patient is a picture
        files = list(plain_files(source))
        pictures = [path for path in files if path.suffix.lower() in IMAGE_SUFFIXES]
        aside = set_masks_aside(pictures, source)
        names = [path.relative_to(source).as_posix() for path in aside.images]
        taken = {*pictures, table_file.absolute(), table_file}
        others = [path.relative_to(source).as_posix() for path in files if path not in taken]
    if not names:
        raise DatasetError(
            f"{source.name} has no pictures ({', '.join(sorted(IMAGE_SUFFIXES))}); use prepare dicom_folder for DICOM, "
            "prepare nifti_folder for volumes"
        )
    lines = label_names(names, table, pattern, choices, notices, what="picture", suffixes=SUFFIXES)
    notices.leave_out("no picture", others)
    notices.leave_out("masks of images", [path.name for path in aside.masks])
    notices.warnings.extend(each.message for each in mask_remarks(aside) if each.severity == "warning")
    return table, {name: lines[name] for name in names if name in lines}


def notice_pictures(written: Sequence[Written], pictures: Pictures, notices: Notices) -> None:
    """Say what was copied and how."""
    if pictures.is_private:
        notices.notes.append(f"{len(written)} pictures were copied without the texts beside them, and numbered")
        notices.notes.append("text that is visible in the pictures themselves is not removed")
    else:
        notices.notes.append(f"{len(written)} pictures were copied with everything in their files")
    warn_of_own_groups(written, notices)


def _names(names: Sequence[str], *, is_private: bool) -> list[str]:
    """The names of the pictures in the data set."""
    suffixes = [PurePosixPath(name).suffix.lower() for name in names]
    if is_private:
        return [f"{output.IMAGES}/{number:06d}{suffix}" for number, suffix in enumerate(suffixes, start=1)]
    return [f"{output.IMAGES}/{name}" for name in name_files([name.split("/") for name in names], suffixes)]


def content_of_picture(path: Path, *, is_private: bool) -> tuple[bytes, bytes | None]:
    """The bytes to copy of a picture that can be read, and the digest of its values; raises as `cleaned`."""
    if path.suffix.lower() not in IMAGE_SUFFIXES:
        raise UnsuitableImage("not a picture; use prepare dicom_folder for DICOM, prepare nifti_folder for volumes")
    [frame] = read_frames_of(Sample(path))
    content = path.read_bytes()
    return cleaned(content) if is_private else content, digest_of(frame.values)
