"""The options of `prepare dicom_folder` on the command line."""

import argparse
from pathlib import Path

from sagemaker_monai.deidentification.deidentify import BURNED_IN
from sagemaker_monai.deidentification.pseudonyms import check_salt, make_salt
from sagemaker_monai.errors import ConfigError
from sagemaker_monai.prepare.dicom_choice import AUTO
from sagemaker_monai.prepare.dicom_folder import TITLE, Deidentification, Units, import_dicom_folder
from sagemaker_monai.prepare.dicom_units import GROUP_BY, UNITS
from sagemaker_monai.prepare.labelled_options import add_labelled_options, choices_of, labels_of, parts_of, reading_of

MAX_SALT_BYTES = 4096


def add_dicom_folder_options(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of an import."""
    parser.add_argument("source", type=Path, help="a folder of any depth, a zip or tar file, or a DICOMDIR")
    parser.add_argument("out", type=Path, help="folder for images/ or series/ and dataset.json")
    add_labelled_options(parser, title=TITLE)
    parser.add_argument(
        "--unit", choices=UNITS, default="auto",
        help="what is an image: a file, or a series (default: what the labels are about)",
    )  # fmt: skip
    parser.add_argument(
        "--series", default=AUTO, metavar="RULE|UID",
        help="which series of a labelled study: most-slices, thinnest, newest, all, or a SeriesInstanceUID "
        "(default: most-slices, and all where classes are folders)",
    )  # fmt: skip
    parser.add_argument(
        "--modality", action="append", default=[], metavar="CODE",
        help="such as CT; may be repeated; SEG, RTDOSE and others that are no images only where they are named",
    )  # fmt: skip
    parser.add_argument(
        "--series-description", default="", metavar="PATTERN", help="of SeriesDescription, such as *lung*, in any case"
    )
    parser.add_argument(
        "--group-by", choices=GROUP_BY, default=GROUP_BY[0], help="what stays on one side (default: %(default)s)"
    )
    parser.add_argument(
        "--deidentify", action=argparse.BooleanOptionalAction, default=True,
        help="by the profile of DICOM PS3.15, with DEIDENTIFY_SALT (default: yes)",
    )  # fmt: skip
    parser.add_argument("--salt-file", type=Path, metavar="FILE", help="with the salt, instead of DEIDENTIFY_SALT")
    parser.add_argument(
        "--burned-in", choices=BURNED_IN, default="refuse",
        help="when de-identified, pictures that may have text about the patient in them (default: %(default)s)",
    )  # fmt: skip
    parser.add_argument(
        "--keep-patient-characteristics", action="store_true", help="when de-identified, keep sex, age, size and weight"
    )


def run_dicom_folder(options: argparse.Namespace) -> str:
    """Import, and return what to print."""
    report = import_dicom_folder(
        options.source,
        options.out,
        labels=labels_of(options),
        reading=reading_of(options),
        units=Units(
            unit=options.unit,
            series=options.series,
            modality=tuple(part for given in options.modality for part in parts_of(given)),
            description=options.series_description,
            group_by=options.group_by,
        ),
        choices=choices_of(options),
        deidentification=_deidentification(options) if options.deidentify else None,
    )
    return report.summary()


def _deidentification(options: argparse.Namespace) -> Deidentification:
    salt = salt_of(options)
    return Deidentification(
        make_salt() if salt is None else salt,
        burned_in=options.burned_in,
        keeps_characteristics=options.keep_patient_characteristics,
        is_random=salt is None,
    )


def salt_of(options: argparse.Namespace) -> bytes | None:
    """The caller's secret, from a file or from what `entrypoints` knows; None where there is none.

    Raises:
        ConfigError: the file cannot be read, or the salt is too short.
    """
    if options.salt_file is not None:
        try:
            with options.salt_file.open("rb") as file:
                salt = file.read(MAX_SALT_BYTES).strip()
        except OSError as error:
            raise ConfigError(f"the file of --salt-file cannot be read ({error.strerror})") from error
    else:
        outside = getattr(options, "outside", None)
        try:
            salt = outside.salt() if outside is not None else b""
        except ConfigError:  # it is not set
            salt = b""
        if not salt:
            return None
    check_salt(salt)
    return bytes(salt)
