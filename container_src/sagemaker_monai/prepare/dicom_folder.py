"""A folder or archive of DICOM files and a table of labels become a data set, grouped by patient.

Files are copied and, by default, de-identified: then nothing that is written identifies a patient, not even names of
files and folders. The side of the split depends on the PatientID and the seed, not on the salt: a run with another salt
gives the same split.
"""

from collections import Counter
from functools import partial
from pathlib import Path

from sagemaker_monai.deidentification.pseudonyms import pseudonym
from sagemaker_monai.errors import ConfigError, DatasetError
from sagemaker_monai.images.dicom.media import Media
from sagemaker_monai.images.dicom.wanted import Choice
from sagemaker_monai.prepare import output
from sagemaker_monai.prepare.dicom_choice import AUTO, choice_of, choose_units, images_without_label
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
from sagemaker_monai.prepare.dicom_units import (
    GROUP_BY,
    SUFFIXES,
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
from sagemaker_monai.prepare.import_report import Notices, Report
from sagemaker_monai.prepare.labels_table import LabelOptions, LabelTable, Line, labels_of_folders, read_labels
from sagemaker_monai.prepare.matching import NAMED_KINDS, find_lines, refuse_mismatch, shown_lines
from sagemaker_monai.prepare.publish import Choices, copy_all, publish, refuse_unusable
from sagemaker_monai.prepare.sides import refuse_torn

TITLE = "DICOM"
KINDS = ("file", "SOPInstanceUID", "SeriesInstanceUID", "StudyInstanceUID", "PatientID")
DESCRIPTIONS = {"instance": "DICOM images with their labels", "series": "DICOM series with their labels"}


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
    job = begin_dicom(source, out, labels, choices, units, deidentification, reading)
    if job.earlier is not None:
        return job.earlier

    table = read_labels(job.table, reading, kinds=KINDS) if job.table is not None else None  # before the long search
    media = find_dicom(source)
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
    names = name_images([unit for unit, _ in chosen], kind, is_private=deidentification is not None)
    output.begin(out, [file for _, files in names for file in files])
    pairs = [(unit.name, (unit, line, *named)) for (unit, line), named in zip(chosen, names, strict=True)]
    copy = partial(copy_image, out=out, deidentifier=deidentifier_of(deidentification), group_by=units.group_by)
    images = copy_all(job, pairs, copy, faults, notices, what="images")
    notice_copies(images, [unit for unit, _ in chosen], deidentification, units, notices)
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
    notices.count_unlabelled(table.unlabelled)
    faults = {each.name: each.reason for each in media.others if each.code != "NotDicom"}
    faults |= {units[place].name: why for place, why in selection.faults.items()}
    faults |= {units[place].name: units[place].fault for place in selection.taken if units[place].fault}
    refuse_unusable(faults, choices.unusable)
    chosen = [(units[place], labelled[place]) for place in selection.taken if not units[place].fault]
    if not chosen:
        raise DatasetError("no image has a label and a sound file; check that files and labels belong together")
    return chosen, faults
