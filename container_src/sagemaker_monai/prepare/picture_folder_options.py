"""The options of `prepare pictures` on the command line."""

import argparse
from pathlib import Path

from sagemaker_monai.prepare.labelled_options import add_labelled_options, choices_of, labels_of, reading_of
from sagemaker_monai.prepare.picture_folder import TITLE, Pictures, import_pictures


def add_pictures_options(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of an import."""
    parser.add_argument("source", type=Path, help="a folder of any depth with JPEG, PNG, BMP, TIFF or WebP files")
    parser.add_argument("out", type=Path, help="folder for images/ and dataset.json")
    add_labelled_options(parser, title=TITLE)
    parser.add_argument(
        "--group-by", default="", metavar="PATTERN",
        help="what tells the patient: a regular expression with one group, searched in the file's name",
    )  # fmt: skip
    parser.add_argument(
        "--deidentify", action=argparse.BooleanOptionalAction, default=True,
        help="cut texts, dates and places out of JPEG and PNG, and number files and groups (default: yes)",
    )  # fmt: skip


def run_pictures(options: argparse.Namespace) -> str:
    """Import, and return what to print."""
    report = import_pictures(
        options.source,
        options.out,
        labels=labels_of(options),
        reading=reading_of(options),
        pictures=Pictures(group_by=options.group_by, is_private=options.deidentify),
        choices=choices_of(options),
    )
    return report.summary()
