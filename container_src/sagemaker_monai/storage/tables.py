"""Tables as people have them: CSV with comma, semicolon or tab, text of Excel in UTF-16, and Excel workbooks.

A table is a header line and rows below it. Bytes that are no Unicode text are refused and not guessed at: ANSI of
Windows, of a Mac and of each country are different letters, and nothing in the file says which it is.
"""

import csv
import io
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from sagemaker_monai.errors import DatasetError
from sagemaker_monai.messages.item_names import current, is_like_a_file
from sagemaker_monai.messages.shortened import some_of
from sagemaker_monai.storage.spreadsheets import OLE_MAGIC, SAVE_AGAIN, ZIP_MAGIC, Sheet, read_sheets

DELIMITERS = (",", "\t", ";")
TABLE_SUFFIXES = (".csv", ".tsv", ".xlsx", ".xlsm")
OTHER_WORKBOOKS = (".xls", ".xlsb", ".ods", ".numbers")  # which Excel and others save as .xlsx
MAX_TABLE_BYTES = 1 << 28  # 256 MiB is some million rows
HEADER_WITHIN = 20  # rows in which a header is looked for that is not the first one, to say so

FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r")
_UTF16 = (b"\xff\xfe", b"\xfe\xff")


class Row(dict[str, str]):
    """A row: cells by column. `number` is where spreadsheets show it, the header being row 1 or below."""

    number: int = 0


def is_table(path: Path) -> bool:
    """Whether a file is called as a table, one that can be read or one whose remedy can be said."""
    return path.suffix.lower() in TABLE_SUFFIXES + OTHER_WORKBOOKS


def table_content(path: Path) -> bytes:
    """The bytes of a table.

    Raises:
        DatasetError: larger than MAX_TABLE_BYTES.
        OSError: it cannot be read.
    """
    if path.stat().st_size > MAX_TABLE_BYTES:
        raise DatasetError(f"{path.name} is larger than {MAX_TABLE_BYTES >> 20} MiB; it must only list images")
    return path.read_bytes()


def read_table(
    content: bytes,
    *,
    what: str,
    required: Sequence[str] = (),
    fits: Callable[[Sequence[str]], bool] | None = None,
    sheet: str = "",
) -> list[Row]:
    """Read a table with a header line.

    Args:
        content: the file's bytes: CSV in UTF-8, or in UTF-16 with its mark, or a workbook.
        what: the file's name for messages.
        required: columns that must be there, in lower case; others are kept too.
        fits: whether the columns are those of the table that is meant; as `required` says where it is None. It chooses
            among several sheets, and finds a header below the first row.
        sheet: the sheet that is meant, "" chooses.

    Returns:
        The rows, without white space around names and cells; column names in lower case. Empty rows are left out.

    Raises:
        DatasetError: not text, a required column is missing, a column comes twice, a row has another number of cells
            than the header, the header is not the first row, or several sheets could be meant.
    """
    fits = fits or (lambda columns: set(required) <= set(columns))
    if content.startswith((ZIP_MAGIC, OLE_MAGIC)):
        rows = _chosen(read_sheets(content, what=what), fits, sheet, what).rows
    elif sheet:
        raise DatasetError(f"{what} is no workbook and has no sheet {some_of([sheet])}; leave the sheet out")
    else:
        rows = _rows_of_text(_decoded(content, what), what)
    table = _table(rows, what, required, fits)
    current().note(lambda: _naming_cells(table))
    return table


def _naming_cells(table: Sequence[Row]) -> Iterator[str]:
    """Cells that are called like a file, and those of columns of images and people."""
    from sagemaker_monai.storage.columns import SPELLINGS, is_person, plain  # which reads tables

    images = {name for rank in SPELLINGS["image"] for name in rank}
    telling = {column for column in (table[0] if table else ()) if plain(column) in images or is_person(column)}
    for row in table:
        yield from (cell for column, cell in row.items() if column in telling or is_like_a_file(cell))


def _chosen(sheets: Sequence[Sheet], fits: Callable[[Sequence[str]], bool], wanted: str, what: str) -> Sheet:
    if not sheets:
        raise DatasetError(f"{what} has no sheet with cells in it that is not hidden; fill or show one")
    names = [sheet.name for sheet in sheets]
    if wanted:
        if not (found := [sheet for sheet in sheets if sheet.name.strip().casefold() == wanted.strip().casefold()]):
            raise DatasetError(f"{what} has no sheet {some_of([wanted])}; it has {some_of(names)}")
        return found[0]
    if len(sheets) == 1:
        return sheets[0]
    fitting = [sheet for sheet in sheets if fits(_columns(sheet.rows[0]))]
    if len(fitting) == 1:
        return fitting[0]
    which = "several sheets" if fitting else "no sheet"
    raise DatasetError(
        f"{what} has {which} with the columns that are looked for in its first row (sheets: "
        f"{some_of([sheet.name for sheet in fitting or sheets])}); name the sheet, or keep one"
    )


def _decoded(content: bytes, what: str) -> str:
    if content.startswith(_UTF16):  # Excel's "Unicode text"
        try:
            return content.decode("utf-16")
        except UnicodeDecodeError as error:
            raise DatasetError(f"{what} is damaged UTF-16 text; {SAVE_AGAIN}") from error
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DatasetError(
            f"{what} is not UTF-8 text (byte {error.start}), and nothing says which letters its bytes are (ANSI of "
            f'Windows?); {SAVE_AGAIN} (in Excel "CSV UTF-8")'
        ) from error


def _rows_of_text(text: str, what: str) -> list[list[str]]:
    text, delimiter = _without_sep(text)
    delimiter = delimiter or _delimiter(text)
    try:
        return list(csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True))
    except csv.Error as error:
        raise DatasetError(f"{what} is not a CSV file: {error}; save it again as CSV in UTF-8") from error


def _without_sep(text: str) -> tuple[str, str]:
    """The text without Excel's own first line `sep=;`, and what that says."""
    line = text.split("\n", 1)[0].strip("\r ").strip('"')
    if line[:4].lower() == "sep=" and len(line) <= 5:
        return text.partition("\n")[2], line[4:] or "\t"
    return text, ""


def _delimiter(text: str) -> str:
    """The one that the first line with any has most, outside of quotes."""
    counts, is_quoted = dict.fromkeys(DELIMITERS, 0), False
    for letter in text:
        if letter == '"':
            is_quoted = not is_quoted
        elif not is_quoted and letter in counts:
            counts[letter] += 1
        elif not is_quoted and letter in "\r\n" and any(counts.values()):
            break
    return max(DELIMITERS, key=counts.__getitem__)


def _columns(header: Sequence[str]) -> list[str]:
    return [" ".join(name.split()).lower() for name in header]


def _table(
    rows: Sequence[list[str]], what: str, required: Sequence[str], fits: Callable[[Sequence[str]], bool]
) -> list[Row]:
    """Rows by the columns of the first one that is not empty."""
    filled = [(number, row) for number, row in enumerate(rows, start=1) if any(map(str.strip, row))]
    number, header = filled[0] if filled else (1, [])
    # Spreadsheets leave empty columns at the end, without name and without content.
    width = max((position for position, name in enumerate(header, start=1) if name.strip()), default=0)
    columns = _columns(header[:width])
    if not fits(columns) and (later := [n for n, row in filled[1:HEADER_WITHIN] if fits(_columns(row))]):
        raise DatasetError(
            f"{what} has the names of its columns in row {later[0]}, and something else above; remove the rows above"
        )
    if missing := [name for name in required if name not in columns]:
        raise DatasetError(
            f"{what} has no column {some_of(missing)}; its first line must name the columns {', '.join(required)}"
        )
    named = [name for name in columns if name]
    if len(set(named)) < len(named):
        twice = sorted({name for name in named if named.count(name) > 1})
        raise DatasetError(f"{what} names a column twice: {some_of(twice)}; each must be there once")
    columns = [name or f"column {position}" for position, name in enumerate(columns, start=1)]
    table = []
    for number, row in filled[1:]:
        cells = row if any(map(str.strip, row[width:])) else row[:width]
        if len(cells) != len(columns):
            raise DatasetError(
                f"{what}: row {number} has {len(cells)} cells, the header has {len(columns)}; correct it"
            )
        line = Row(zip(columns, map(str.strip, cells), strict=True))
        line.number = number
        table.append(line)
    return table


def spreadsheet_safe(cell: str) -> str:
    """Put an apostrophe before a cell that spreadsheets would take for a formula.

    Source: OWASP, CSV Injection.
    """
    return "'" + cell if cell.startswith(FORMULA_STARTS) else cell
