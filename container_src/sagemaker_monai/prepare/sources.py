"""The sources that `prepare` imports from, one row each: options, and what is done with them."""

import argparse
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sagemaker_monai.dicomweb import transfer as dicomweb
from sagemaker_monai.errors import ConfigError
from sagemaker_monai.messages.item_names import NAMES_FILE, ItemNames, current
from sagemaker_monai.messages.option_fields import add_options, options_of
from sagemaker_monai.prepare.dicom_folder_options import add_dicom_folder_options, run_dicom_folder
from sagemaker_monai.prepare.ground_truth.ground_truth import run_ground_truth
from sagemaker_monai.prepare.ground_truth.ground_truth_options import add_ground_truth_options
from sagemaker_monai.prepare.ham10000 import Ham10000Options, import_ham10000
from sagemaker_monai.prepare.medmnist_options import add_medmnist_options, run_medmnist
from sagemaker_monai.prepare.nifti_folder_options import add_nifti_folder_options, run_nifti_folder
from sagemaker_monai.prepare.picture_folder_options import add_pictures_options, run_pictures

OUT = "folder for images/ and dataset.json"


@dataclass(frozen=True)
class Importer:
    """A row of SOURCES: one line of help, the options, and what is done with them; returns what to print."""

    help: str
    add_options: Callable[[argparse.ArgumentParser], None]
    run: Callable[[argparse.Namespace], str]


def _importer(title: str, run: Callable[..., Any], source: str, out: str = OUT, **options: type) -> Importer:
    """A row for a function that takes source, out, and by their names these dataclasses of options."""

    def add(parser: argparse.ArgumentParser) -> None:
        parser.add_argument("source", type=Path, help=source)
        parser.add_argument("out", type=Path, help=out)
        for each in options.values():
            add_options(parser, each)

    def summary(given: argparse.Namespace) -> str:
        made: dict[str, Any] = {name: options_of(given, each) for name, each in options.items()}
        return str(run(given.source, given.out, **made).summary())

    return Importer(title, add, summary)


SOURCES = {
    "ham10000": _importer(
        "HAM10000 skin-lesion photographs (Dataverse, Kaggle)",
        import_ham10000,
        "the outer zip, or the folder with the part zips or unpacked folders",
        options=Ham10000Options,
    ),
    "dicom_folder": Importer(
        "DICOM files or series with labels in a CSV file or by folders", add_dicom_folder_options, run_dicom_folder
    ),
    "ground_truth": Importer(
        "labels of a SageMaker Ground Truth job, by all annotators", add_ground_truth_options, run_ground_truth
    ),
    "nifti_folder": Importer(
        "volumes (NIfTI and others) with labels in a CSV file or by folders", add_nifti_folder_options, run_nifti_folder
    ),
    "pictures": Importer(
        "pictures (JPEG, PNG, TIFF, ...) with labels in a table or by folders", add_pictures_options, run_pictures
    ),
    "medmnist": Importer("an .npz file of MedMNIST, in the published split", add_medmnist_options, run_medmnist),
    "dicomweb": Importer("series of a DICOMweb server, to a folder or S3", dicomweb.add_options, dicomweb.run),
}


def add_sources(parser: argparse.ArgumentParser) -> None:
    """Give a parser without arguments one subcommand a source."""
    parser.description = "Make a data set to train on."
    kinds = parser.add_subparsers(dest="kind", required=True, metavar="SOURCE_KIND")
    for name, importer in SOURCES.items():
        importer.add_options(kinds.add_parser(name, help=importer.help, description=importer.help))


def run(options: argparse.Namespace) -> None:
    """Run one importer and print its summary.

    Raises:
        CallerError: with cause and remedy.
    """
    _know_names(current(), options)
    try:
        print(SOURCES[options.kind].run(options))
    except OSError as error:  # a full disk, a folder that may not be written
        raise ConfigError(
            f"a file cannot be read or written ({error.strerror}): make room or choose another folder"
        ) from error


def _know_names(names: ItemNames, options: argparse.Namespace) -> None:
    """Tell what the inputs are: every option that names a path; the list of names lies beside the output."""
    given = dict(vars(options))
    out = Path(given.pop("out")) if "out" in given else None
    names.add(*(value for value in given.values() if isinstance(value, Path) and value.exists()))
    # `--labels` is a file or a word.
    names.add(*(Path(value) for value in given.values() if isinstance(value, str) and value and Path(value).is_file()))
    if out is not None:
        names.file = out.with_name(f"{out.name}.{NAMES_FILE}")
        names.hide(out)
