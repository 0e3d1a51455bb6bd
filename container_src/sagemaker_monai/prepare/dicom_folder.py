"""A folder or archive of DICOM files and a table of labels become a data set, grouped by patient.

Files are copied and, by default, de-identified: then nothing that is written identifies a patient, not even names of
files and folders. The side of the split depends on the PatientID and the seed, not on the salt: a run with another salt
gives the same split.
"""

import hmac
from argparse import BooleanOptionalAction
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

from sagemaker_monai.deidentification.deidentify import BURNED_IN, BurnedIn, Deidentifier
from sagemaker_monai.deidentification.pseudonyms import make_salt, pseudonym
from sagemaker_monai.errors import CallerError, ConfigError, DatasetError
from sagemaker_monai.images.dicom.media import Media, find_media
from sagemaker_monai.images.dicom.wanted import Choice
from sagemaker_monai.messages.option_fields import option, parts_of
from sagemaker_monai.messages.shortened import some_of
from sagemaker_monai.prepare import output
from sagemaker_monai.prepare.dicom_choice import AUTO, choice_of, choose_units, images_without_label
from sagemaker_monai.prepare.dicom_copy import Copied, copy_instance
from sagemaker_monai.prepare.dicom_units import (
    GROUP_BY,
    SUFFIXES,
    UNITS,
    Kind,
    Unit,
    choose_kind,
    group_key,
    instance_units,
    label_units,
    name_of,
    names_of,
    series_units,
    values_of,
)
from sagemaker_monai.prepare.import_report import Report
from sagemaker_monai.prepare.labels_table import LabelOptions, LabelTable, Line, labels_of_folders, read_labels
from sagemaker_monai.prepare.matching import NAMED_KINDS, find_lines, refuse_mismatch, shown_lines
from sagemaker_monai.prepare.public_names import name_files
from sagemaker_monai.prepare.publish import Choices, Notices, Written, begin_import, copy_all, publish, refuse_unusable
from sagemaker_monai.prepare.salts import add_salt_file, salt_of
from sagemaker_monai.prepare.sides import refuse_torn

TITLE = "DICOM"
KINDS = ("file", "SOPInstanceUID", "SeriesInstanceUID", "StudyInstanceUID", "PatientID")
DESCRIPTIONS = {"instance": "DICOM images with their labels", "series": "DICOM series with their labels"}


@dataclass(frozen=True)
class Units:
    """Which files are an image.

    Attributes:
        unit: one of `dicom_units.UNITS`.
        series: which series of a study: "auto", or as in `dicom.choice.Choice`, like `modality` and `description`.
        group_by: one of `dicom_units.GROUP_BY`; the table's group column joins groups further.
    """

    unit: str = option(
        "auto", "what is an image: a file, or a series (default: what the labels are about)", choices=UNITS
    )
    series: str = option(
        AUTO,
        "which series of a labelled study: most-slices, thinnest, newest, all, or a SeriesInstanceUID "
        "(default: most-slices, and all where classes are folders)",
        metavar="RULE|UID",
    )
    modality: tuple[str, ...] = option(
        (),
        "such as CT; may be repeated; SEG, RTDOSE and other non-images must be named",
        read=parts_of,
        action="append",
        metavar="CODE",
    )
    description: str = option(
        "", "of SeriesDescription, such as *lung*, in any case", flag="--series-description", metavar="PATTERN"
    )
    group_by: str = option(GROUP_BY[0], "what stays on one side (default: %(default)s)", choices=GROUP_BY)


@dataclass(frozen=True)
class Deidentification:
    """How files are de-identified; `is_random`: the salt was made for this run only."""

    is_wanted: bool = option(
        True,
        "by the profile of DICOM PS3.15, with DEIDENTIFY_SALT (default: yes)",
        flag="--deidentify",
        action=BooleanOptionalAction,
    )
    salt: bytes = field(default=b"", metadata={"add": add_salt_file, "make": salt_of})
    burned_in: BurnedIn = option(
        "refuse",
        "when de-identified, pictures that may have text about the patient in them (default: %(default)s)",
        choices=BURNED_IN,
    )
    keeps_characteristics: bool = option(
        False,
        "when de-identified, keep sex, age, size and weight",
        flag="--keep-patient-characteristics",
        action="store_true",
    )
    is_random: bool = False

    def settled(self) -> "Deidentification | None":
        """The same with a salt, which is made if none was given; None if files are copied as they are."""
        if not self.is_wanted:
            return None
        return self if self.salt else replace(self, salt=make_salt(), is_random=True)

    def told(self) -> str:
        """A text that differs between two of them, without the salt."""
        salt = "random" if self.is_random else hmac.digest(self.salt, b"import", "sha256").hex()
        return f"{salt} {self.burned_in} {self.keeps_characteristics}"


def import_dicom_folder(
    source: Path,
    out: Path,
    *,
    labels: Path | str,
    reading: LabelOptions | None = None,
    units: Units | None = None,
    choices: Choices | None = None,
    deidentification: Deidentification | None = None,
) -> Report:
    """Import DICOM files with their labels.

    Args:
        source: a folder of any depth, a zip or tar file, a DICOMDIR; see `dicom.media`.
        out: folder to write `images/` or `series/`, `dataset.json` and `import_report.json` to: empty, new, or with an
            earlier import, which is replaced. The same call again writes nothing.
        labels: a table, or "folders".
        reading, units, choices: options, see there.
        deidentification: None copies files byte for byte.

    Raises:
        DatasetError: files, labels or the output folder cannot be used.
        ConfigError: an option is out of range.
    """
    reading, units, choices = reading or LabelOptions(), units or Units(), choices or Choices(title=TITLE)
    deidentification = deidentification.settled() if deidentification else None
    if units.group_by not in GROUP_BY:
        raise ConfigError(f"group-by must be one of {', '.join(GROUP_BY)}, got {units.group_by!r}")
    if not source.exists():
        raise DatasetError(f"there is no {source.name}; name a folder, a zip or tar file, or a DICOMDIR")
    whole = source.parent if source.name.lower() == "dicomdir" else source
    salt = deidentification.told() if deidentification else ""
    job = begin_import("dicom_folder", whole, out, labels, choices, reading, units, more={"salt": salt})
    if job.earlier is not None:
        return job.earlier

    table = read_labels(job.table, reading, kinds=KINDS) if job.table is not None else None  # before the long search
    media = _find(source)
    below = _archive_prefix(source, media)
    is_folders = table is None
    if table is None:
        pictures = [name_of(each) for each in media.instances if each.has_pixels]
        table = labels_of_folders(pictures, reading, below=below)
    kind = choose_kind(units.unit, table, media.instances, is_folders=is_folders, below=below)
    if kind == "instance" and (units.series not in (AUTO, "most") or units.description):
        raise ConfigError(
            "--series and --series-description choose among series, and an image is a file here; choose --unit series"
        )
    notices = Notices()
    choice = choice_of(units.modality, units.description, units.series, is_folders=is_folders)
    chosen, faults = _choose(media, table, kind, choice, choices, notices, is_folders=is_folders)
    if table.has_split:
        refuse_torn([group_key(unit, units.group_by) for unit, _ in chosen], [line.split for _, line in chosen])
    names = _names(chosen, kind, is_private=deidentification is not None)
    output.begin(out, [file for _, files in names for file in files])
    pairs = [(unit.name, (unit, line, *named)) for (unit, line), named in zip(chosen, names, strict=True)]
    copy = partial(_copy, out=out, deidentifier=_deidentifier(deidentification), group_by=units.group_by)
    images = copy_all(job, pairs, copy, faults, notices, what="images")
    _notice(images, chosen, deidentification, units, notices)
    return publish(
        job,
        images,
        table,
        notices,
        spatial_dims=3 if kind == "series" else 2,
        description=DESCRIPTIONS[kind],
        group_name="patient" if units.group_by == GROUP_BY[0] else "group",
        order=(lambda group: pseudonym(deidentification.salt, group)) if deidentification else str,
        is_private=deidentification is not None,
    )


def _find(source: Path) -> Media:
    try:
        media = find_media(source, keep_headers=False)  # with them 10,000 files are 1 GB
    except CallerError as error:
        raise DatasetError(f"{source.name} cannot be used: {error}") from error
    if not any(each.has_pixels for each in media.instances):
        others = f", but other files: {len(media.others)} ({some_of([each.name for each in media.others])})"
        raise DatasetError(f"{source.name} has no DICOM files with pictures{others if media.others else ''}")
    return media


def _archive_prefix(source: Path, media: Media) -> str:
    """The first part of names in an archive: its own name, and that of the packed folder."""
    packed = f"{source.name}/{source.name.partition('.')[0]}/"
    is_packed = all(each.name.startswith(packed) for each in media.instances)
    return packed if is_packed else f"{source.name}/" if source.is_file() else ""


def _choose(
    media: Media, table: LabelTable, kind: Kind, choice: Choice, choices: Choices, notices: Notices, *, is_folders: bool
) -> tuple[list[tuple[Unit, Line]], dict[str, str]]:
    """The units that become images with their lines, and why others cannot."""
    units = series_units(media.instances) if kind == "series" else instance_units(media.instances)
    names = names_of(media.instances, kind) if table.kind in NAMED_KINDS else values_of(units, table.kind)
    lines, remarks = find_lines(table, names, suffixes=SUFFIXES if table.kind in NAMED_KINDS else ())
    notices.notes.extend(each.message for each in remarks)
    labelled = label_units(units, table, lines)
    forgotten, no_images = images_without_label(units, labelled)
    bare = [units[place].name for place in forgotten]
    # Each picture found is in a unit, or is a copy of a slice that is.
    used = {line.key for line in (lines if table.kind in NAMED_KINDS else labelled).values()}
    unmatched = [line for line in table.lines if line.key not in used]
    refuse_mismatch(table, unmatched, bare, mismatch=choices.mismatch)
    selection = choose_units(units, labelled, table, choice, is_folders=is_folders)
    pictureless = [each.name for each in media.instances if not each.has_pixels]
    notices.leave_out("no DICOM file", [each.name for each in media.others if each.code == "NotDicom"])
    notices.leave_out("no picture", pictureless)
    notices.leave_out("labels without images", shown_lines(table, unmatched))
    notices.leave_out("images without labels", bare)
    notices.leave_out("no images", [units[place].name for place in no_images])
    left = "other series of a labelled study" if kind == "series" else "no images like the others"
    notices.leave_out(left, [units[place].name for place in selection.left])
    reasons = Counter([*selection.left.values(), *no_images.values()])
    notices.notes.extend(f"left out, {count} of them: {why}" for why, count in reasons.most_common())
    notices.warnings.extend(selection.warnings)
    notices.studies.extend(selection.studies)
    notices.count_unlabelled(table)
    faults = {each.name: each.reason for each in media.others if each.code != "NotDicom"}
    faults |= {units[place].name: why for place, why in selection.faults.items()}
    faults |= {units[place].name: units[place].fault for place in selection.taken if units[place].fault}
    refuse_unusable(faults, choices.unusable)
    chosen = [(units[place], labelled[place]) for place in selection.taken if not units[place].fault]
    if not chosen:
        raise DatasetError("no image has a label and a sound file; check that files and labels belong together")
    return chosen, faults


def _names(chosen: Sequence[tuple[Unit, Line]], kind: Kind, *, is_private: bool) -> list[tuple[str, list[str]]]:
    """The name of each image in the data set, and its files."""
    if kind == "series":
        folders = [f"{output.SERIES}/{number:05d}/" for number in range(1, len(chosen) + 1)]
        return [
            (folder, [f"{folder}{place:05d}.dcm" for place in range(1, len(unit.instances) + 1)])
            for folder, (unit, _) in zip(folders, chosen, strict=True)
        ]
    if is_private:
        names = [f"{number:06d}.dcm" for number in range(1, len(chosen) + 1)]
    else:
        names = name_files([unit.name.split("/") for unit, _ in chosen], [".dcm"] * len(chosen))
    return [(f"{output.IMAGES}/{name}", [f"{output.IMAGES}/{name}"]) for name in names]


def _deidentifier(rules: Deidentification | None) -> Deidentifier | None:
    if rules is None:
        return None
    return Deidentifier(rules.salt, burned_in=rules.burned_in, keep_patient_characteristics=rules.keeps_characteristics)


def _copy(
    image: tuple[Unit, Line, str, list[str]], *, out: Path, deidentifier: Deidentifier | None, group_by: str
) -> Written:
    unit, line, name, files = image
    copies: list[Copied] = [
        copy_instance(instance, out / file, deidentifier) for instance, file in zip(unit.instances, files, strict=True)
    ]
    is_patient = group_by == GROUP_BY[0]
    return Written(
        image=name,
        source=unit.name,
        line=line,
        group=copies[0].patient if is_patient else group_key(unit, group_by),
        shown_group=copies[0].pseudonym if is_patient else "",
        files={file: copied.size_bytes for file, copied in zip(files, copies, strict=True)},
        pictures=tuple(digest for copied in copies for digest in copied.pictures),
        modality=unit.instances[0].modality,
    )


def _notice(
    images: Sequence[Written],
    chosen: Sequence[tuple[Unit, Line]],
    deidentification: Deidentification | None,
    units: Units,
    notices: Notices,
) -> None:
    files = sum(len(image.files) for image in images)
    if deidentification is None:
        notices.notes.append(f"{files} files were copied as they are, with everything that identifies patients")
    else:
        notices.notes.append(
            f"{files} files were de-identified (DICOM PS3.15, basic profile); each was read back, and no value that "
            "identified the patient is left outside the pixels; the pixels were not checked"
        )
        if deidentification.is_random:
            notices.warnings.append(
                "the salt was made for this run: the next run gives other pseudonyms, UIDs and dates; set "
                "DEIDENTIFY_SALT or --salt-file to keep them"
            )
    if unsure := sum(not image.group.startswith(f"{units.group_by}:") for image in images):
        notices.warnings.append(
            f"{unsure} images have no {units.group_by}: they are grouped by the patient's name, the study or the file, "
            "and one patient may be on two sides of the split"
        )
    stacks = [unit.series for unit, _ in chosen if unit.series is not None]
    odd = Counter(found.code for stack in stacks for found in stack.findings if found.severity == "warning")
    notices.warnings.extend(f"{count} series have the finding {code}" for code, count in sorted(odd.items()))
