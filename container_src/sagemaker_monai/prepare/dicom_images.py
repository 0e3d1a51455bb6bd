"""What imports of DICOM files have in common, whatever the labels are: options, the search, and the copies."""

import hmac
from argparse import BooleanOptionalAction
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from sagemaker_monai.deidentification.deidentify import BURNED_IN, BurnedIn, Deidentifier
from sagemaker_monai.deidentification.pseudonyms import make_salt
from sagemaker_monai.errors import CallerError, ConfigError, DatasetError
from sagemaker_monai.images.dicom.media import Media, find_media
from sagemaker_monai.messages.option_fields import option, parts_of
from sagemaker_monai.messages.shortened import some_of
from sagemaker_monai.prepare import output
from sagemaker_monai.prepare.dicom_choice import AUTO
from sagemaker_monai.prepare.dicom_copy import Copied, copy_instance
from sagemaker_monai.prepare.dicom_units import GROUP_BY, UNITS, Kind, Unit, group_key
from sagemaker_monai.prepare.import_report import Notices
from sagemaker_monai.prepare.labels_table import Line
from sagemaker_monai.prepare.public_names import name_files
from sagemaker_monai.prepare.publish import Choices, Import, Written, begin_import
from sagemaker_monai.prepare.salts import add_salt_file, salt_of


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


def begin_dicom(
    source: Path,
    out: Path,
    labels: Path | str,
    choices: Choices,
    units: Units,
    deidentification: Deidentification | None,
    *others: object,
) -> Import:
    """Check places and options of an import of DICOM files, as `publish.begin_import`.

    Args:
        source, out, labels, choices, units: of the call.
        deidentification: settled.
        others: further options.
    """
    if units.group_by not in GROUP_BY:
        raise ConfigError(f"group-by must be one of {', '.join(GROUP_BY)}, got {units.group_by!r}")
    if not source.exists():
        raise DatasetError(f"there is no {source.name}; name a folder, a zip or tar file, or a DICOMDIR")
    whole = source.parent if source.name.lower() == "dicomdir" else source
    salt = deidentification.told() if deidentification else ""
    return begin_import("dicom_folder", whole, out, labels, choices, *others, units, more={"salt": salt})


def find_dicom(source: Path) -> Media:
    """Find the DICOM files of an import.

    Raises:
        DatasetError: it cannot be searched, or has no pictures.
    """
    try:
        media = find_media(source, keep_headers=False)  # with them 10,000 files are 1 GB
    except CallerError as error:
        raise DatasetError(f"{source.name} cannot be used: {error}") from error
    if not any(each.has_pixels for each in media.instances):
        others = f", but other files: {len(media.others)} ({some_of([each.name for each in media.others])})"
        raise DatasetError(f"{source.name} has no DICOM files with pictures{others if media.others else ''}")
    return media


def name_images(chosen: Sequence[Unit], kind: Kind, *, is_private: bool) -> list[tuple[str, list[str]]]:
    """The name of each image in the data set, and its files."""
    if kind == "series":
        folders = [f"{output.SERIES}/{number:05d}/" for number in range(1, len(chosen) + 1)]
        return [
            (folder, [f"{folder}{place:05d}.dcm" for place in range(1, len(unit.instances) + 1)])
            for folder, unit in zip(folders, chosen, strict=True)
        ]
    if is_private:
        names = [f"{number:06d}.dcm" for number in range(1, len(chosen) + 1)]
    else:
        names = name_files([unit.name.split("/") for unit in chosen], [".dcm"] * len(chosen))
    return [(f"{output.IMAGES}/{name}", [f"{output.IMAGES}/{name}"]) for name in names]


def deidentifier_of(rules: Deidentification | None) -> Deidentifier | None:
    """The deidentifier of settled options; None copies files as they are."""
    if rules is None:
        return None
    return Deidentifier(rules.salt, burned_in=rules.burned_in, keep_patient_characteristics=rules.keeps_characteristics)


def copy_image(
    image: tuple[Unit, Line, str, list[str]], *, out: Path, deidentifier: Deidentifier | None, group_by: str
) -> Written:
    """Copy the files of one image.

    Args:
        image: with its line, its name in the data set and those of its files.
        out: the output folder.
        deidentifier: None copies byte for byte.
        group_by: one of GROUP_BY.

    Raises:
        UndecodableImage, UnsuitableImage, PayloadTooLarge: as `copy_instance`.
    """
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


def notice_copies(
    images: Sequence[Written],
    chosen: Sequence[Unit],
    deidentification: Deidentification | None,
    units: Units,
    notices: Notices,
) -> None:
    """Say what was copied and how, and what is odd about the chosen images."""
    files = sum(len(image.files) - bool(image.mask) for image in images)
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
    stacks = [unit.series for unit in chosen if unit.series is not None]
    odd = Counter(found.code for stack in stacks for found in stack.findings if found.severity == "warning")
    notices.warnings.extend(f"{count} series have the finding {code}" for code, count in sorted(odd.items()))
