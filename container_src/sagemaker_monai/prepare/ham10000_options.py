"""The options of `prepare ham10000` on the command line."""

import argparse
from pathlib import Path

from sagemaker_monai.prepare.fractions import add_fraction_options, fractions_of
from sagemaker_monai.prepare.ham10000 import ON_CONFLICT, ON_MISMATCH, TITLE, import_ham10000


def add_ham10000_options(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of an import."""
    parser.add_argument("source", type=Path, help="the outer zip, or the folder with the part zips or unpacked folders")
    parser.add_argument("out", type=Path, help="folder for images/ and dataset.json")
    add_fraction_options(parser)
    parser.add_argument("--split-csv", type=Path, help="a given split, image_id,split, instead of a drawn one")
    parser.add_argument("--max-side", type=int, help="shrink images whose longer side has more pixels")
    parser.add_argument(
        "--duplicates", choices=ON_CONFLICT, default="move",
        help="near-identical images, or in a given split images of one lesion, on two sides (default: %(default)s)",
    )  # fmt: skip
    parser.add_argument(
        "--title", default=TITLE, help="what the data set is called in dataset.json (default: %(default)s)",
    )  # fmt: skip
    parser.add_argument(
        "--mismatch", choices=ON_MISMATCH, default="refuse",
        help="ids that are not in images, metadata and given split alike (default: %(default)s)",
    )  # fmt: skip


def run_ham10000(options: argparse.Namespace) -> str:
    """Import, and return what to print."""
    report = import_ham10000(
        options.source,
        options.out,
        fractions=fractions_of(options, given_by="--split-csv" if options.split_csv is not None else ""),
        seed=options.seed,
        split_csv=options.split_csv,
        max_side=options.max_side,
        duplicates=options.duplicates,
        mismatch=options.mismatch,
        title=options.title,
    )
    return report.summary()
