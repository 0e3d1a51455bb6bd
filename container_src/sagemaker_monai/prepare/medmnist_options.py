"""The options of `prepare medmnist` on the command line."""

import argparse
from pathlib import Path

from sagemaker_monai.prepare.medmnist import import_medmnist
from sagemaker_monai.tasks.tasks import TASKS


def add_medmnist_options(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of an import."""
    parser.add_argument("source", type=Path, help="the .npz file")
    parser.add_argument("out", type=Path, help="folder for images/ and dataset.json")
    parser.add_argument("--task", choices=("auto", *TASKS), default="auto", help="(default: the published one)")
    parser.add_argument(
        "--classes", default="", metavar="A,B,...",
        help="names in the order of the numbers (default: the published ones)",
    )  # fmt: skip
    parser.add_argument("--title", default="", help="what the data set is called (default: the file's name)")


def run_medmnist(options: argparse.Namespace) -> str:
    """Import, and return what to print."""
    classes = [name.strip() for name in options.classes.split(",")] if options.classes else []
    return import_medmnist(
        options.source, options.out, task=options.task, classes=classes, title=options.title
    ).summary()
