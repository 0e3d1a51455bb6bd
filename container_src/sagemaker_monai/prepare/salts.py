"""The salt of an import: from a file, or from the environment, which only the entry points know."""

import argparse
from contextlib import suppress
from pathlib import Path

from sagemaker_monai.deidentification.pseudonyms import check_salt
from sagemaker_monai.errors import ConfigError

MAX_SALT_BYTES = 4096


def add_salt_file(parser: argparse.ArgumentParser) -> None:
    """Add `--salt-file`."""
    parser.add_argument("--salt-file", type=Path, metavar="FILE", help="with the salt, instead of DEIDENTIFY_SALT")


def salt_of(given: argparse.Namespace) -> bytes:
    """The caller's secret, from a file or from `entrypoints`; empty if there is none or none is needed.

    Raises:
        ConfigError: the file cannot be read, or the salt is too short.
    """
    salt = b""
    if not given.is_wanted:
        return salt
    if given.salt_file is not None:
        try:
            with given.salt_file.open("rb") as file:
                salt = file.read(MAX_SALT_BYTES).strip()
        except OSError as error:
            raise ConfigError(f"the file of --salt-file cannot be read ({error.strerror})") from error
    else:
        outside = getattr(given, "outside", None)
        with suppress(ConfigError):  # it is not set
            salt = outside.salt() if outside is not None else b""
        if not salt:
            return salt
    check_salt(salt)
    return salt
