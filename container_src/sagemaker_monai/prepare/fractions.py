"""The options of a drawn split, the same for every importer."""

import argparse

from sagemaker_monai.errors import ConfigError

FRACTIONS = {"train": 0.7, "validation": 0.1, "test": 0.2}  # options in the order of SPLITS, with their defaults


def add_fraction_options(parser: argparse.ArgumentParser) -> None:
    """Add `--train`, `--validation`, `--test` and `--seed`."""
    for name, share in FRACTIONS.items():
        parser.add_argument(f"--{name}", type=float, metavar="SHARE", help=f"of the images (default: {share})")
    parser.add_argument("--seed", type=int, default=0, help="of the split (default: %(default)s)")


def asked_fractions(options: argparse.Namespace) -> list[str]:
    """The options among them that were given."""
    return [f"--{name}" for name in FRACTIONS if getattr(options, name) is not None]


def fractions_of(options: argparse.Namespace, *, given_by: str = "") -> tuple[float, float, float]:
    """Training, validation and test.

    Args:
        options: of the command.
        given_by: the option that gives a split already, "" where the split is drawn.

    Raises:
        ConfigError: fractions and a given split.
    """
    if given_by and (asked := asked_fractions(options)):
        raise ConfigError(f"{given_by} gives the split already; leave out {', '.join(asked)}")
    training, validation, test = (
        share if getattr(options, name) is None else getattr(options, name) for name, share in FRACTIONS.items()
    )
    return training, validation, test
