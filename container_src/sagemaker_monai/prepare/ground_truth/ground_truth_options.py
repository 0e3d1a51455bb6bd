"""The options of `prepare ground_truth` on the command line."""

import argparse
from pathlib import Path

from sagemaker_monai.prepare.fractions import add_fraction_options, fractions_of
from sagemaker_monai.prepare.ground_truth.consolidation import LABELS, VOTED_TASKS
from sagemaker_monai.prepare.ground_truth.ground_truth import ON_DISPUTE, ON_MISSING, TITLE, import_ground_truth


def add_ground_truth_options(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of an import."""
    parser.add_argument(
        "source", type=Path, help="the job's output folder as in S3, an output manifest, or a consolidation request"
    )
    parser.add_argument("out", type=Path, help="folder for images/ and dataset.json")
    parser.add_argument("--images", type=Path, required=True, help="folder with the images, mirroring their keys in S3")
    parser.add_argument("--label-attribute", metavar="NAME", help="which label of the manifest, if there are several")
    parser.add_argument(
        "--answer-path", default="", metavar="A.B.C", help="where the classes stand in an answer of a custom task"
    )
    parser.add_argument("--task", choices=("auto", *VOTED_TASKS), default="auto", help="(default: %(default)s)")
    parser.add_argument(
        "--labels", choices=LABELS, default="majority",
        help="the majority's class, or the annotators' shares (default: %(default)s)",
    )  # fmt: skip
    parser.add_argument(
        "--disputed", choices=ON_DISPUTE, default="keep",
        help="images with a tie or too little agreement (default: %(default)s)",
    )  # fmt: skip
    parser.add_argument(
        "--min-agreement", type=float, default=0.5, metavar="SHARE",
        help="below this share an image is disputed (default: %(default)s)",
    )  # fmt: skip
    parser.add_argument(
        "--min-annotators", type=int, default=1, metavar="N",
        help="leave out images with fewer answers (default: %(default)s)",
    )  # fmt: skip
    parser.add_argument(
        "--missing", choices=ON_MISSING, default="refuse",
        help="images of the job that are not in the folder (default: %(default)s)",
    )  # fmt: skip
    parser.add_argument(
        "--group-by", metavar="PATTERN|KEY",
        help="what tells the patient: a regular expression with one group on the image's key, or a key of the "
        "manifest's lines (default: the DICOM header)",
    )  # fmt: skip
    add_fraction_options(parser)
    parser.add_argument("--title", default=TITLE, help="what the data set is called (default: %(default)s)")


def run_ground_truth(options: argparse.Namespace) -> str:
    """Import, and return what to print."""
    report = import_ground_truth(
        options.source,
        options.out,
        images=options.images,
        label_attribute=options.label_attribute,
        answer_path=options.answer_path,
        task=options.task,
        labels=options.labels,
        disputed=options.disputed,
        min_agreement=options.min_agreement,
        min_annotators=options.min_annotators,
        missing=options.missing,
        group_by=options.group_by,
        fractions=fractions_of(options),
        seed=options.seed,
        title=options.title,
    )
    return report.summary()
