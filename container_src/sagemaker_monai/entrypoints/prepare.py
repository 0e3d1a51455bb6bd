"""`prepare` as a command of the image: the importers of `sagemaker_monai.prepare`, as a processing job too."""

import os
import signal
import sys
from collections.abc import Sequence

from sagemaker_monai.entrypoints.processing import Parser, run_command
from sagemaker_monai.prepare.__main__ import run
from sagemaker_monai.sagemaker.dicomweb_access import outside


def main(argv: Sequence[str] | None = None) -> int:
    """Run one importer.

    Args:
        argv: arguments of the command; None takes those of this process.

    Returns:
        The exit code: 0 when the data set is ready, 1 when one line says why not.
    """
    # As process 1 a program is not ended by SIGTERM unless it asks for it. An import that was interrupted can be
    # repeated at any point.
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        arguments = list(sys.argv[1:] if argv is None else argv)
        parser = Parser(prog="prepare")
        parser.set_defaults(outside=outside(os.environ))  # importers do not know the environment
        return run_command(lambda: run(arguments, parser), os.environ)
    finally:
        signal.signal(signal.SIGTERM, before)


if __name__ == "__main__":
    sys.exit(main())
