"""The options of a drawn split, the same for every importer."""

import argparse
from dataclasses import field
from typing import Any

from sagemaker_monai.data.splitting import check_fractions
from sagemaker_monai.errors import ConfigError
from sagemaker_monai.messages.option_fields import choices_of, option

FRACTIONS = {"train": 0.7, "validation": 0.1, "test": 0.2}  # options in the order of SPLITS, with their defaults
GIVEN_BY = {"split_csv": "--split-csv", "split_column": "--split-column"}  # options that give a split


def fractions_option() -> Any:
    """A field with training, validation and test: the flags `--train`, `--validation` and `--test`."""
    return field(default=tuple(FRACTIONS.values()), metadata={"add": _add, "make": _fractions_of})


def seed_option() -> Any:
    """A field with the seed of the split."""
    return option(0, "of the split (default: %(default)s)")


def check_options(options: Any) -> None:
    """Refuse bad fractions and values outside the choices of their field, which argparse checks only for commands."""
    check_fractions(options.fractions)
    for name, allowed in choices_of(type(options)).items():
        if (value := getattr(options, name)) not in allowed:
            raise ConfigError(f"{name} must be {' or '.join(allowed)}, got {value!r}")


def _add(parser: argparse.ArgumentParser) -> None:
    for name, share in FRACTIONS.items():
        parser.add_argument(f"--{name}", type=float, metavar="SHARE", help=f"of the images (default: {share})")


def _fractions_of(given: argparse.Namespace) -> tuple[float, ...]:
    asked = [f"--{name}" for name in FRACTIONS if getattr(given, name) is not None]
    giver = [flag for name, flag in GIVEN_BY.items() if getattr(given, name, None)]
    if giver and asked:
        raise ConfigError(f"{giver[0]} gives the split already; leave out {', '.join(asked)}")
    return tuple(share if getattr(given, name) is None else getattr(given, name) for name, share in FRACTIONS.items())
