"""Excel workbooks written cell by cell, after ECMA-376."""

import io
import zipfile
from collections.abc import Mapping, Sequence
from xml.sax.saxutils import escape, quoteattr

MAIN = "http://schemas.openxmlformats.org/spreadsheetml/2006/main"
OFFICE = "http://schemas.openxmlformats.org/officeDocument/2006/relationships"
PACKAGE = "http://schemas.openxmlformats.org/package/2006"
DATE, TIME, SIX_DIGITS = 1, 2, 3  # styles


def cell(value: object, style: int = 0) -> str:
    """The XML of a cell without its reference: text, number, boolean, or XML unchanged."""
    if isinstance(value, str):
        return value if value.startswith("<c") else f'<c t="inlineStr"><is><t>{escape(value)}</t></is></c>'
    kind = ' t="b"' if isinstance(value, bool) else ""
    return f'<c s="{style}"{kind}><v>{int(value) if isinstance(value, bool) else value}</v></c>'


def rows_of(rows: Sequence[Sequence[object]]) -> str:
    """The XML of rows; None leaves a cell out."""
    return "".join(
        "<row>" + "".join("<c/>" if value is None else cell(value) for value in row) + "</row>" for row in rows
    )


def workbook(
    sheets: Mapping[str, Sequence[Sequence[object]] | str],
    *,
    hidden: Sequence[str] = (),
    merged: Sequence[str] = (),
    shared: Sequence[str] = (),
    more: Mapping[str, bytes] | None = None,
) -> bytes:
    """A workbook.

    Args:
        sheets: name -> rows of values, or their XML.
        hidden: names of sheets.
        merged: areas of every sheet, like A1:A3.
        shared: texts that cells refer to by index.
        more: other parts.
    """
    names = list(sheets)
    listed = "".join(
        f'<sheet name={quoteattr(name)} sheetId="{number}" r:id="r{number}"'
        f"{' state=' + chr(34) + 'hidden' + chr(34) if name in hidden else ''}/>"
        for number, name in enumerate(names, start=1)
    )
    relation = '<Relationship Id="{}" Type="' + OFFICE + '/{}" Target="{}"/>'
    relations = "".join(
        relation.format(f"r{number}", "worksheet", f"worksheets/sheet{number}.xml")
        for number in range(1, len(names) + 1)
    )
    relations += relation.format("s", "styles", "styles.xml") + relation.format(
        "t", "sharedStrings", "sharedStrings.xml"
    )
    areas = "".join(f'<mergeCell ref="{area}"/>' for area in merged)
    parts = {
        "[Content_Types].xml": f'<Types xmlns="{PACKAGE}/content-types">'
        '<Default Extension="xml" ContentType="a/xml"/></Types>',
        "_rels/.rels": f'<Relationships xmlns="{PACKAGE}/relationships">'
        f"{relation.format('w', 'officeDocument', 'xl/workbook.xml')}</Relationships>",
        "xl/workbook.xml": f'<workbook xmlns="{MAIN}" xmlns:r="{OFFICE}"><sheets>{listed}</sheets></workbook>',
        "xl/_rels/workbook.xml.rels": f'<Relationships xmlns="{PACKAGE}/relationships">{relations}</Relationships>',
        "xl/styles.xml": f'<styleSheet xmlns="{MAIN}"><numFmts><numFmt numFmtId="164" formatCode="000000"/></numFmts>'
        '<cellXfs><xf numFmtId="0"/><xf numFmtId="14"/><xf numFmtId="22"/><xf numFmtId="164"/></cellXfs></styleSheet>',
        "xl/sharedStrings.xml": f'<sst xmlns="{MAIN}">'
        + "".join(f"<si><t>{escape(text)}</t></si>" for text in shared)
        + "</sst>",
    }
    for number, content in enumerate(sheets.values(), start=1):
        body = content if isinstance(content, str) else rows_of(content)
        parts[f"xl/worksheets/sheet{number}.xml"] = (
            f'<worksheet xmlns="{MAIN}"><sheetData>{body}</sheetData>'
            + (f"<mergeCells>{areas}</mergeCells>" if areas else "")
            + "</worksheet>"
        )
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, xml in parts.items():
            archive.writestr(name, f'<?xml version="1.0" encoding="UTF-8"?>{xml}')
        for name, content in (more or {}).items():
            archive.writestr(name, content)
    return packed.getvalue()
