"""Write the README's tables from the code they describe (`make docs`); a test compares the two."""

import sys
from collections.abc import Callable
from pathlib import Path

from sagemaker_monai import errors
from sagemaker_monai.config import hyperparameter_table
from sagemaker_monai.entrypoints.inference import ANSWER_TYPES
from sagemaker_monai.errors import INTERNAL_ERROR, CallerError, ConfigError, DatasetError, TrainingStopped
from sagemaker_monai.images import MEDIA_TYPES
from sagemaker_monai.networks import NETWORKS
from sagemaker_monai.serving.config import VARIABLES

TRAINING_ERRORS = (ConfigError, DatasetError, TrainingStopped)  # end a job or a start and are no answer to a request
README = Path(__file__).resolve().parent.parent / "README.md"


def table(header: list[str], rows: list[list[str]]) -> str:
    """A Markdown table."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)


def error_table() -> str:
    """Code, status and meaning of every refusal."""
    rows = [
        [f"`{kind.__name__}`", "-" if kind in TRAINING_ERRORS else str(kind.status), (kind.__doc__ or "").strip()]
        for kind in vars(errors).values()
        if isinstance(kind, type) and issubclass(kind, CallerError) and kind is not CallerError
    ]
    rows.append([f"`{INTERNAL_ERROR}`", "500", "A fault of the server; the log has the details."])
    return table(["code", "HTTP", "meaning"], rows)


def content_type_table() -> str:
    """What a request may be, and what answers it."""
    rows = [[f"`{name}`", ", ".join(f"`{suffix}`" for suffix in row.suffixes)] for name, row in MEDIA_TYPES.items()]
    return (
        table(["Content-Type", "files"], rows) + "\n\nAccept: " + ", ".join(f"`{name}`" for name in ANSWER_TYPES) + "."
    )


TABLES: dict[str, Callable[[], str]] = {
    "hyperparameters": hyperparameter_table,
    "networks": lambda: ", ".join(f"`{name}`" for name in NETWORKS) + ".",
    "content types": content_type_table,
    "errors": error_table,
    "environment of serve": lambda: table(["variable", "meaning"], [[f"`{k}`", v] for k, v in VARIABLES.items()]),
}


def with_tables(text: str) -> str:
    """The README with every table between its two marks written anew.

    Raises:
        ValueError: a mark is missing.
    """
    for name, make in TABLES.items():
        start, end = f"<!-- table: {name} -->\n", "<!-- end -->"
        if text.count(start) != 1:
            raise ValueError(f"the README must have the marks of table {name!r} once, found {text.count(start)}")
        before, _, after = text.partition(start)
        text = before + start + make().strip() + "\n" + end + after.partition(end)[2]
    return text


def main() -> int:
    """Update the README in place."""
    README.write_text(with_tables(README.read_text(encoding="utf-8")), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
