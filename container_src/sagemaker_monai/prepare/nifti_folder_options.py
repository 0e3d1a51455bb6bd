"""The options of `prepare nifti_folder` on the command line."""

import argparse
from pathlib import Path

from sagemaker_monai.prepare.labelled_options import add_labelled_options, choices_of, labels_of, parts_of, reading_of
from sagemaker_monai.prepare.nifti_folder import MODALITIES, TITLE, Cases, import_nifti_folder


def add_nifti_folder_options(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of an import."""
    parser.add_argument("source", type=Path, help="a folder of any depth, of the Decathlon or any other")
    parser.add_argument("out", type=Path, help="folder for images/ and dataset.json")
    add_labelled_options(parser, title=TITLE)
    parser.add_argument(
        "--sequences", default="", metavar="T1,T2,...",
        help="that a case has, in the order of the channels: CASE_T1.nii.gz or CASE/T1.nii.gz (default: nnU-Net's "
        "_0000, _0001, ... if all files have them)",
    )  # fmt: skip
    parser.add_argument(
        "--group-by", default="", metavar="PATTERN",
        help="what tells the patient: a regular expression with one group, searched in the case's name",
    )  # fmt: skip
    parser.add_argument("--modality", choices=MODALITIES, default="", help="(default: that of the Decathlon, or OT)")
    parser.add_argument(
        "--deidentify", action=argparse.BooleanOptionalAction, default=True,
        help="blank the texts of headers, and number files and groups (default: yes)",
    )  # fmt: skip


def run_nifti_folder(options: argparse.Namespace) -> str:
    """Import, and return what to print."""
    report = import_nifti_folder(
        options.source,
        options.out,
        labels=labels_of(options),
        reading=reading_of(options),
        cases=Cases(
            sequences=parts_of(options.sequences),
            group_by=options.group_by,
            modality=options.modality,
            is_private=options.deidentify,
        ),
        choices=choices_of(options),
    )
    return report.summary()
