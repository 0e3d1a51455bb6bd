"""`prepare`: runs the importers of `sagemaker_monai.prepare`, also in a processing job."""

import os
import sys
from collections.abc import Sequence

from sagemaker_monai.entrypoints.processing import Parser, run_command
from sagemaker_monai.prepare.sources import add_sources, run
from sagemaker_monai.sagemaker.dicomweb_access import outside


def main(argv: Sequence[str] | None = None) -> int:
    """Run one importer.

    Args:
        argv: arguments of the command; None takes those of this process.

    Returns:
        The exit code: 0 when the data set is ready, 1 with the cause in one line.
    """
    return run_command(_parser, run, argv)


def _parser() -> Parser:
    parser = Parser(prog="prepare")
    parser.set_defaults(outside=outside(os.environ))  # importers do not read the environment
    add_sources(parser)
    return parser


if __name__ == "__main__":
    sys.exit(main())
