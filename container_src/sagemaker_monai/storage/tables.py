"""Tables: CSV with comma, semicolon or tab, Excel's UTF-16 text, and Excel workbooks.

A table has a header line and rows below it. Text that is not Unicode is refused rather than guessed: the legacy
encodings differ by system and country, and nothing in the file says which one it uses.
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
OTHER_WORKBOOKS = (".xls", ".xlsb", ".ods", ".numbers")  # which can be saved as .xlsx
MAX_TABLE_BYTES = 1 << 28  # 256 MiB is some million rows
HEADER_WITHIN = 20  # rows that are searched for a misplaced header, for the message

FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r")
_UTF16 = (b"\xff\xfe", b"\xfe\xff")


class Row(dict[str, str]):
    """A row: cells by column. `number` is its number in a spreadsheet, where the header is row 1 or below."""

    number: int = 0


def is_table(path: Path) -> bool:
    """Whether a file is named like a table, even one that is refused with a remedy."""
    return path.suffix.lower() in TABLE_SUFFIXES + OTHER_WORKBOOKS


def table_content(path: Path) -> bytes:
    """Read the bytes of a table.

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
        content: CSV in UTF-8, or in UTF-16 with a byte order mark, or a workbook.
        what: the file's name for messages.
        required: columns that must exist, in lower case; others are kept too.
        fits: whether columns are those of the wanted table; None checks `required`. Used to choose among several
            sheets and to find a header below the first row.
        sheet: the sheet to read, "" chooses one.

    Returns:
        The non-empty rows, without white space around names and cells; column names in lower case.

    Raises:
        DatasetError: not text, a required column is missing, a column occurs twice, a row has more or fewer cells than
            the header, the header is not the first row, or the sheet is ambiguous.
    """
    fits = fits or (lambda columns: set(required) <= set(columns))
    if content.startswith((ZIP_MAGIC, OLE_MAGIC)):
        rows = _chosen(read_sheets(content, what=what), fits, sheet, what).rows
    elif sheet:
        raise DatasetError(f"{what} is not a workbook and has no sheet {some_of([sheet])}; leave the sheet out")
    else:
        rows = _rows_of_text(_decoded(content, what), what)
    table = _table(rows, what, required, fits)
    current().note(lambda: _naming_cells(table))
    return table


def _naming_cells(table: Sequence[Row]) -> Iterator[str]:
    """Cells that look like file names, and those of columns of images and people."""
    from sagemaker_monai.storage.columns import SPELLINGS, is_person, plain

    images = {name for rank in SPELLINGS["image"] for name in rank}
    telling = {column for column in (table[0] if table else ()) if plain(column) in images or is_person(column)}
    for row in table:
        yield from (cell for column, cell in row.items() if column in telling or is_like_a_file(cell))


def _chosen(sheets: Sequence[Sheet], fits: Callable[[Sequence[str]], bool], wanted: str, what: str) -> Sheet:
    if not sheets:
        raise DatasetError(f"{what} has no visible sheet with cells; fill or show one")
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
        f"{what} has {which} with the required columns in its first row (sheets: "
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
            f"{what} is not UTF-8 text (byte {error.start}), and its encoding is unknown (ANSI of Windows?); "
            f'{SAVE_AGAIN} (in Excel "CSV UTF-8")'
        ) from error


def _rows_of_text(text: str, what: str) -> list[list[str]]:
    text, delimiter = _without_sep(text)
    delimiter = delimiter or _delimiter(text)
    try:
        return list(csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True))
    except csv.Error as error:
        raise DatasetError(f"{what} is not a CSV file: {error}; save it again as CSV in UTF-8") from error


def _without_sep(text: str) -> tuple[str, str]:
    """The text without Excel's first line `sep=;`, and that line's separator."""
    line = text.split("\n", 1)[0].strip("\r ").strip('"')
    if line[:4].lower() == "sep=" and len(line) <= 5:
        return text.partition("\n")[2], line[4:] or "\t"
    return text, ""


def _delimiter(text: str) -> str:
    """The most frequent delimiter, outside quotes, in the first line that has any."""
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
    """The rows below the header, which is the first non-empty one."""
    filled = [(number, row) for number, row in enumerate(rows, start=1) if any(map(str.strip, row))]
    number, header = filled[0] if filled else (1, [])
    # Spreadsheets leave empty columns at the end, without name and without content.
    width = max((position for position, name in enumerate(header, start=1) if name.strip()), default=0)
    columns = _columns(header[:width])
    if not fits(columns) and (later := [n for n, row in filled[1:HEADER_WITHIN] if fits(_columns(row))]):
        raise DatasetError(f"{what} has its column names in row {later[0]}, below other rows; remove the rows above")
    if missing := [name for name in required if name not in columns]:
        raise DatasetError(
            f"{what} has no column {some_of(missing)}; its first line must name the columns {', '.join(required)}"
        )
    named = [name for name in columns if name]
    if len(set(named)) < len(named):
        twice = sorted({name for name in named if named.count(name) > 1})
        raise DatasetError(f"{what} names a column twice: {some_of(twice)}; rename or remove one")
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
    """Prefix an apostrophe to a cell that spreadsheets would read as a formula.

    Source: OWASP, CSV Injection.
    """
    return "'" + cell if cell.startswith(FORMULA_STARTS) else cell
