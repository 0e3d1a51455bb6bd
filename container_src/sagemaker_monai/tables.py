"""CSV files as people have them: comma, semicolon or tab, with or without byte order mark, any line end."""

import csv
import io
from collections.abc import Sequence

from sagemaker_monai.errors import DatasetError

DELIMITERS = (",", "\t", ";")
MAX_NAMED = 5
MAX_NAME_LENGTH = 60

FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r")


def some_of(names: Sequence[str]) -> str:
    """The first few names and how many more there are, short enough for one line of an error."""
    shown = [name if len(name) <= MAX_NAME_LENGTH else f"…{name[1 - MAX_NAME_LENGTH :]}" for name in names[:MAX_NAMED]]
    rest = f" and {len(names) - MAX_NAMED} more" if len(names) > MAX_NAMED else ""
    return ", ".join(" ".join(name.split()) for name in shown) + rest


def read_table(content: bytes, *, what: str, required: Sequence[str]) -> list[dict[str, str]]:
    """Read a CSV file with a header line.

    Args:
        content: the file's bytes, UTF-8 with or without byte order mark.
        what: the file's name for messages.
        required: columns that must be there; others are kept too.

    Returns:
        One dict a row, without white space around names and cells; column names in lower case. Empty lines are left
        out.

    Raises:
        DatasetError: not UTF-8 text, a required column is missing, a column comes twice, or a row has another number
            of cells than the header.
    """
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DatasetError(f"{what} is not UTF-8 text (byte {error.start}); save it as CSV in UTF-8") from error
    header_line = text.lstrip().partition("\n")[0]
    delimiter = max(DELIMITERS, key=header_line.count)
    try:
        rows = [row for row in csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True) if any(row)]
    except csv.Error as error:
        raise DatasetError(f"{what} is not a CSV file: {error}; save it again as CSV in UTF-8") from error
    # Spreadsheets leave empty columns at the end, without name and without content.
    header = rows[0] if rows else []
    width = max((position for position, name in enumerate(header, start=1) if name.strip()), default=0)
    rows = [row if any(map(str.strip, row[width:])) else row[:width] for row in rows]
    columns = [name.strip().lower() for name in rows[0]] if rows else []
    if missing := [name for name in required if name not in columns]:
        raise DatasetError(
            f"{what} has no column {some_of(missing)}; its first line must name the columns {', '.join(required)}"
        )
    if len(set(columns)) < len(columns):
        raise DatasetError(f"{what} names a column twice: {some_of(sorted(columns))}; each must be there once")
    for number, row in enumerate(rows[1:], start=2):
        if len(row) != len(columns):
            raise DatasetError(f"{what}: row {number} has {len(row)} cells, the header has {len(columns)}; correct it")
    return [dict(zip(columns, (cell.strip() for cell in row), strict=True)) for row in rows[1:]]


def spreadsheet_safe(cell: str) -> str:
    """Put an apostrophe before a cell that spreadsheets would take for a formula.

    Source: OWASP, CSV Injection.
    """
    return "'" + cell if cell.startswith(FORMULA_STARTS) else cell
