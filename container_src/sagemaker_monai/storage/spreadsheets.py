"""Excel workbooks (.xlsx, .xlsm) as rows of text, as a person sees the cells; calamine reads them.

Numbers have 15 digits, no point if they are whole, and the leading zeros of their format; dates are in ISO 8601; every
cell of a merged area has its value. Formulas have the values that were saved with the workbook. Old workbooks (.xls),
.xlsb and .ods are refused: fewer formats to secure, and Excel can save each as .xlsx.
"""

import io
from dataclasses import dataclass
from datetime import date, datetime, time
from typing import Any

from sagemaker_monai.errors import DatasetError
from sagemaker_monai.storage.spreadsheet_parts import Part, Parts, read_parts
from sagemaker_monai.storage.zips import UnsafeArchiveError

ZIP_MAGIC = b"PK\3\4"
OLE_MAGIC = b"\xd0\xcf\x11\xe0"
SAVE_AGAIN = "save it as .xlsx or as CSV in UTF-8"


@dataclass(frozen=True)
class Sheet:
    """A sheet's name and its rows, equally long, without empty rows at the end."""

    name: str
    rows: list[list[str]]


def read_sheets(content: bytes, *, what: str) -> list[Sheet]:
    """Read the sheets of a workbook that are neither hidden nor empty; `what` is the file's name for messages.

    Raises:
        DatasetError: not .xlsx, protected by a password, damaged, or too large.
    """
    from python_calamine import CalamineWorkbook, SheetTypeEnum, SheetVisibleEnum

    if content.startswith(OLE_MAGIC):
        raise DatasetError(f"{what} is an .xls from before 2007, or has a password; {SAVE_AGAIN}, without a password")
    try:
        parts = read_parts(content)
    except UnsafeArchiveError as error:
        raise DatasetError(f"{what} cannot be read as a workbook: {error.reason}; or {SAVE_AGAIN}") from error
    if not any(part.root == "workbook" for part in parts.parts.values()):
        raise DatasetError(f"{what} is not an Excel workbook (.xlsx); {SAVE_AGAIN}")
    sheets = []
    try:
        with CalamineWorkbook.from_filelike(io.BytesIO(parts.archive)) as workbook:
            for sheet in workbook.sheets_metadata:
                if sheet.typ == SheetTypeEnum.WorkSheet and sheet.visible == SheetVisibleEnum.Visible:
                    rows = _rows(workbook.get_sheet_by_name(sheet.name), parts, parts.of_sheet(sheet.name))
                    if rows:
                        sheets.append(Sheet(sheet.name, rows))
    except Exception as error:  # calamine raises errors of many kinds for damaged workbooks
        raise DatasetError(f"{what} is damaged, or not an Excel workbook (.xlsx); {SAVE_AGAIN}") from error
    return sheets


def _rows(sheet: Any, parts: Parts, part: Part) -> list[list[str]]:
    cells = sheet.to_python(skip_empty_area=False)
    rows = [[_shown(cell) for cell in row] for row in cells]
    for (row, column), text in part.errors.items():
        if row < len(rows) and column < len(rows[row]):
            rows[row][column] = text
    for (row, column), style in part.styles.items():
        if (zeros := parts.zeros(style)) and row < len(rows) and column < len(rows[row]):
            rows[row][column] = _filled(rows[row][column], zeros)
    for (top, left), (bottom, right) in sheet.merged_cell_ranges or ():
        for row in range(top, min(bottom + 1, len(rows))):
            for column in range(left, min(right + 1, len(rows[row]))):
                rows[row][column] = rows[top][left]
    while rows and not any(map(str.strip, rows[-1])):
        rows.pop()
    return rows


def _shown(cell: object) -> str:
    if isinstance(cell, str):
        return cell
    if isinstance(cell, bool):
        return str(cell).upper()
    if isinstance(cell, float):
        return format(cell, ".0f") if cell.is_integer() and abs(cell) < 1e15 else format(cell, ".15g")
    if isinstance(cell, datetime):
        return cell.date().isoformat() if cell.time() == time() else cell.isoformat(sep=" ", timespec="seconds")
    return cell.isoformat() if isinstance(cell, date | time) else str(cell)


def _filled(text: str, zeros: int) -> str:
    return text.zfill(zeros + text.startswith("-")) if text.lstrip("-").isdigit() else text
