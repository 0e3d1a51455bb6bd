"""The sources that `prepare` imports from, one row each: their options and their importer."""

import argparse
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

from sagemaker_monai.dicomweb import transfer as dicomweb
from sagemaker_monai.errors import ConfigError
from sagemaker_monai.messages.item_names import NAMES_FILE, ItemNames, current
from sagemaker_monai.messages.option_fields import add_options, changed_flags, options_of
from sagemaker_monai.prepare import dicom_folder, dicom_images, masked_folder, nifti_folder, picture_folder
from sagemaker_monai.prepare.dicom_masks_import import import_dicom_masks
from sagemaker_monai.prepare.ground_truth.ground_truth import import_ground_truth
from sagemaker_monai.prepare.ground_truth.ground_truth_options import GroundTruthOptions
from sagemaker_monai.prepare.ham10000 import Ham10000Options, import_ham10000
from sagemaker_monai.prepare.labels_table import LabelOptions
from sagemaker_monai.prepare.medmnist import MedmnistOptions, import_medmnist
from sagemaker_monai.prepare.publish import Choices
from sagemaker_monai.prepare.structures import MaskOptions, StructureOptions
from sagemaker_monai.tasks.tasks import TASKS, task_for


@dataclass(frozen=True)
class Importer:
    """A row of SOURCES: one line of help, the options, and the importer, which returns the text to print."""

    help: str
    add_options: Callable[[argparse.ArgumentParser], None]
    run: Callable[[argparse.Namespace], str]


def _importer(
    title: str,
    run: Callable[..., Any],
    source: str,
    *,
    out: str = "images/",
    required: Mapping[str, Mapping[str, Any]] = MappingProxyType({}),
    called: str = "",
    of_masks: Callable[..., Any] | None = None,
    **options: type,
) -> Importer:
    """A row for a function of `prepare`.

    Args:
        title: one line of help.
        run: takes source, out, and by name the required flags and the options; returns a report.
        source: help of the first argument.
        out: the folders in the second one.
        required: name of a flag -> arguments of `add_argument`.
        called: default of `--title`, if not that of the options.
        of_masks: the function for tasks whose labels are masks, with the options `masks` instead of `reading`.
        options: dataclasses, in the order of the help.
    """
    defaults = {"title": called} if called else {}

    def add(parser: argparse.ArgumentParser) -> None:
        parser.add_argument("source", type=Path, help=source)
        parser.add_argument("out", type=Path, help=f"folder for {out} and dataset.json")
        for name, argument in required.items():
            parser.add_argument(f"--{name}", **{"required": True, **argument})
        for each in options.values():
            add_options(parser, each, **defaults)

    def summary(given: argparse.Namespace) -> str:
        made: dict[str, Any] = {name: options_of(given, each) for name, each in options.items()}
        made |= {name: getattr(given, name) for name in required}
        called = run if of_masks is None else _for_task(run, of_masks, made)
        return str(called(given.source, given.out, **made).summary())

    return Importer(title, add, summary)


def _for_task(run: Callable[..., Any], of_masks: Callable[..., Any], made: dict[str, Any]) -> Callable[..., Any]:
    """The importer for the task; options of the other one are taken out of `made`.

    Raises:
        ConfigError: one of them was given, or the labels were not.
    """
    reading: LabelOptions = made["reading"]
    row = TASKS.get(reading.task)
    is_of_masks = row is not None and row.has_masks
    name = "masks" if not is_of_masks else "reading"
    idle = made.pop(name)
    unused = changed_flags(idle, replace(LabelOptions(), task=reading.task) if is_of_masks else type(idle)())
    if is_of_masks:
        unused += ["--labels"] * bool(made.pop("labels"))
        if unused:
            raise ConfigError(f"with --task {reading.task} masks are the labels; leave out {', '.join(unused)}")
        return of_masks
    if unused:
        raise ConfigError(f"{', '.join(unused)} are about masks; add --task {task_for('mask')}, or leave them out")
    if not made["labels"]:
        raise ConfigError(f"give --labels a table or folders, or --task {task_for('mask')} where masks are the labels")
    return run


LABELS = {
    "labels": {
        "required": False,
        "default": "",
        "metavar": "TABLE|folders",
        "help": "a CSV file, an .xlsx workbook, or folders: CLASS/...; required unless masks are the labels",
    }
}
SOURCES = {
    "ham10000": _importer(
        "HAM10000 skin-lesion photographs (Dataverse, Kaggle)",
        import_ham10000,
        "the outer zip, or the folder with the part zips or unpacked folders",
        options=Ham10000Options,
    ),
    "dicom_folder": _importer(
        "DICOM files or series with labels in a CSV file or by folders, or with masks (SEG, RTSTRUCT)",
        dicom_folder.import_dicom_folder,
        "a folder of any depth, a zip or tar file, or a DICOMDIR",
        out="images/ or series/",
        required=LABELS,
        called=dicom_folder.TITLE,
        of_masks=import_dicom_masks,
        reading=LabelOptions,
        masks=MaskOptions,
        choices=Choices,
        units=dicom_images.Units,
        deidentification=dicom_images.Deidentification,
    ),
    "ground_truth": _importer(
        "labels of a SageMaker Ground Truth job, by all annotators",
        import_ground_truth,
        "the job's output folder as in S3, an output manifest, or a consolidation request",
        required={"images": {"type": Path, "help": "folder with the images, mirroring their keys in S3"}},
        options=GroundTruthOptions,
    ),
    "nifti_folder": _importer(
        "volumes (NIfTI and others) with labels in a CSV file or by folders, or with masks",
        nifti_folder.import_nifti_folder,
        "a folder of any depth, of the Decathlon or any other",
        required=LABELS,
        called=nifti_folder.TITLE,
        of_masks=masked_folder.import_volume_masks,
        reading=LabelOptions,
        masks=StructureOptions,
        choices=Choices,
        cases=nifti_folder.Cases,
    ),
    "pictures": _importer(
        "pictures (JPEG, PNG, TIFF, ...) with labels in a table or by folders, or with masks",
        picture_folder.import_pictures,
        "a folder of any depth with JPEG, PNG, BMP, TIFF or WebP files",
        required=LABELS,
        called=picture_folder.TITLE,
        of_masks=masked_folder.import_picture_masks,
        reading=LabelOptions,
        masks=StructureOptions,
        choices=Choices,
        pictures=picture_folder.Pictures,
    ),
    "medmnist": _importer(
        "an .npz file of MedMNIST, in the published split", import_medmnist, "the .npz file", options=MedmnistOptions
    ),
    "dicomweb": Importer("series of a DICOMweb server, to a folder or S3", dicomweb.add_transfer_options, dicomweb.run),
}


def add_sources(parser: argparse.ArgumentParser) -> None:
    """Add a subcommand for each source to a parser without arguments."""
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
    except OSError as error:  # a full disk, a read-only folder
        raise ConfigError(
            f"a file cannot be read or written ({error.strerror}): make room or choose another folder"
        ) from error


def _know_names(names: ItemNames, options: argparse.Namespace) -> None:
    """Register the inputs (every option that names a path), whose names are masked; the list is next to the output."""
    given = dict(vars(options))
    out = Path(given.pop("out")) if "out" in given else None
    names.add(*(value for value in given.values() if isinstance(value, Path) and value.exists()))
    # `--labels` is a file or a word.
    names.add(*(Path(value) for value in given.values() if isinstance(value, str) and value and Path(value).is_file()))
    if out is not None:
        names.file = out.with_name(f"{out.name}.{NAMES_FILE}")
        names.hide(out)
