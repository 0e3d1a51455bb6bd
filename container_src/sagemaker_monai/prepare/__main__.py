"""`python -m sagemaker_monai.prepare SOURCE_KIND ...`: make a data set out of a download."""

import argparse
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from sagemaker_monai.errors import CallerError, ConfigError, failure_line
from sagemaker_monai.prepare.ham10000 import ON_CONFLICT, ON_MISMATCH, TITLE, import_ham10000

FRACTIONS = {"train": 0.7, "validation": 0.1, "test": 0.2}  # options in the order of SPLITS, with their defaults


@dataclass(frozen=True)
class Importer:
    """A row of SOURCES: one line of help, the options, and what is done with them; returns what to print."""

    help: str
    add_options: Callable[[argparse.ArgumentParser], None]
    run: Callable[[argparse.Namespace], str]


def _add_ham10000_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("source", type=Path, help="the outer zip, or the folder with the part zips or unpacked folders")
    parser.add_argument("out", type=Path, help="folder for images/ and dataset.json")
    for name, share in FRACTIONS.items():
        parser.add_argument(f"--{name}", type=float, metavar="SHARE", help=f"of the images (default: {share})")
    parser.add_argument("--seed", type=int, default=0, help="of the split (default: %(default)s)")
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


def _run_ham10000(options: argparse.Namespace) -> str:
    asked = {name: getattr(options, name) for name in FRACTIONS if getattr(options, name) is not None}
    if options.split_csv is not None and asked:
        raise ConfigError(f"--split-csv gives the split already; leave out {', '.join(f'--{name}' for name in asked)}")
    training, validation, test = (FRACTIONS | asked).values()
    report = import_ham10000(
        options.source,
        options.out,
        fractions=(training, validation, test),
        seed=options.seed,
        split_csv=options.split_csv,
        max_side=options.max_side,
        duplicates=options.duplicates,
        mismatch=options.mismatch,
        title=options.title,
    )
    return report.summary()


SOURCES = {
    "ham10000": Importer("HAM10000 skin-lesion photographs (Dataverse, Kaggle)", _add_ham10000_options, _run_ham10000),
}


def run(argv: list[str] | None, parser: argparse.ArgumentParser) -> None:
    """Run one importer and print its summary.

    Args:
        argv: arguments of the command; None takes those of this process.
        parser: without arguments yet; has the name of the command, and decides what wrong arguments lead to.

    Raises:
        CallerError: with cause and remedy.
    """
    parser.description = "Make a data set to train on."
    kinds = parser.add_subparsers(dest="kind", required=True, metavar="SOURCE_KIND")
    for name, importer in SOURCES.items():
        importer.add_options(kinds.add_parser(name, help=importer.help, description=importer.help))
    options = parser.parse_args(argv)
    try:
        print(SOURCES[options.kind].run(options))
    except OSError as error:  # a full disk, a folder that may not be written
        raise ConfigError(
            f"a file cannot be read or written ({error.strerror}): make room or choose another folder"
        ) from error


def main(argv: list[str] | None = None) -> int:
    """Run one importer; 0 when the data set is ready, 1 with one line on standard error when not."""
    try:
        run(argv, argparse.ArgumentParser(prog="python -m sagemaker_monai.prepare"))
    except CallerError as error:
        print(failure_line(error), file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
