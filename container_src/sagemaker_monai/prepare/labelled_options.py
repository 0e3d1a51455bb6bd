"""Options that the importers of labelled files share on the command line."""

import argparse
from pathlib import Path

from sagemaker_monai.data.label_options import add_rule_options, rules_of
from sagemaker_monai.messages.option_fields import add_options, options_of
from sagemaker_monai.prepare.labels_table import LabelOptions
from sagemaker_monai.prepare.publish import Choices


def add_labelled_options(parser: argparse.ArgumentParser, *, title: str) -> None:
    """Add the options of labels, of what is left out, and of the split."""
    parser.add_argument(
        "--labels", required=True, metavar="TABLE|folders", help="a CSV file, an .xlsx workbook, or folders: CLASS/..."
    )
    parser.add_argument("--sheet", default="", metavar="NAME", help="of a workbook that has several with labels")
    parser.add_argument(
        "--image-column", default="", metavar="NAME",
        help="column with the names of files (default: image, file, image_id and the like)",
    )  # fmt: skip
    parser.add_argument(
        "--label-column", action="append", default=[], metavar="NAME",
        help="column with the label (default: label, diagnosis, dx and the like); several, repeated or with commas, "
        "are findings with 0 and 1",
    )  # fmt: skip
    parser.add_argument("--match", default="", metavar="COLUMN", help="column that says what a line is about")
    parser.add_argument(
        "--split-column", default="", metavar="NAME", help="column with a given split (default: split, if there is one)"
    )
    parser.add_argument(
        "--group-column", default="", metavar="NAME",
        help="column of what must stay on one side, or none (default: group, or one that names the patient)",
    )  # fmt: skip
    add_rule_options(parser)
    parser.add_argument(
        "--keep-columns", default="", metavar="A,B", help="columns that are written to dataset.json (default: none)"
    )
    add_options(parser, Choices, title=title)


def parts_of(text: str) -> tuple[str, ...]:
    """The parts of a text with commas between them."""
    return tuple(part.strip() for part in text.split(",") if part.strip())


def reading_of(options: argparse.Namespace) -> LabelOptions:
    """How the table is read."""
    rules = rules_of(options)
    return LabelOptions(
        columns=tuple(name for given in options.label_column for name in parts_of(given)),
        task=rules.task,
        grades=rules.grades,
        match=options.match,
        image_column=options.image_column,
        sheet=options.sheet,
        split_column=options.split_column,
        group_column=options.group_column,
        keep_columns=parts_of(options.keep_columns),
        missing_labels=rules.missing_labels,
        missing_codes=rules.missing_codes,
        uncertain_labels=rules.uncertain_labels,
        similar_labels=rules.similar_labels,
    )


def choices_of(options: argparse.Namespace) -> Choices:
    """What is left out, and how it is split."""
    return options_of(options, Choices)


def labels_of(options: argparse.Namespace) -> Path | str:
    """The table, or "folders"."""
    given: str = options.labels
    return given if given == "folders" else Path(given)
