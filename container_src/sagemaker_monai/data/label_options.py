"""Options of commands that say what labels mean; see `label_rules`."""

import argparse

from sagemaker_monai.data.label_rules import MISSING_LABELS, SIMILAR, UNCERTAIN, LabelRules, codes_of, grades_of
from sagemaker_monai.tasks.tasks import TASKS


def add_rule_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of the task, of grades, and of labels that are missing, uncertain, or look alike."""
    parser.add_argument("--task", choices=("auto", *TASKS), default="auto", help="(default: %(default)s)")
    parser.add_argument("--grades", default="", metavar="A,B,C", help="of an ordinal label, the lowest first")
    parser.add_argument(
        "--missing-labels", choices=MISSING_LABELS, default="drop",
        help="lines without a label (empty, nan, NA, #N/A, None, -, ?): left out with a count, or refused (default: "
        "%(default)s)",
    )  # fmt: skip
    parser.add_argument(
        "--missing-codes", default="", metavar="A,B", help="numbers that stand for a missing label, like -999,9999"
    )
    parser.add_argument(
        "--uncertain-labels", choices=UNCERTAIN, default="refuse",
        help="what -1, u or uncertain mean beside 0 and 1 (default: %(default)s)",
    )  # fmt: skip
    parser.add_argument(
        "--similar-labels", choices=SIMILAR, default="refuse",
        help="labels that differ in case, blanks or as 1 and 1.0 only: refused, taken as one, or kept apart (default: "
        "%(default)s)",
    )  # fmt: skip


def rules_of(options: argparse.Namespace) -> LabelRules:
    """What the options say; messages name hyperparameters of `train`.

    Raises:
        ConfigError: grades or codes that are none.
    """
    return LabelRules(
        task=options.task,
        grades=grades_of(options.grades, "--grades"),
        missing_labels=options.missing_labels,
        missing_codes=codes_of(options.missing_codes, "--missing-codes"),
        uncertain_labels=options.uncertain_labels,
        similar_labels=options.similar_labels,
    )
