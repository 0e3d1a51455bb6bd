import pytest

from sagemaker_monai.errors import DatasetError
from sagemaker_monai.storage import spreadsheet_parts
from sagemaker_monai.storage.spreadsheets import read_sheets
from sagemaker_monai.storage.tables import read_table
from tests.support.refusals import wrongly_refused
from tests.support.workbooks import DATE, SIX_DIGITS, TIME, cell, workbook

WANTED = ("image", "label")
ROWS = [["Image", "Label"], ["1.png", "nv"]]
READ = [{"image": "1.png", "label": "nv"}]


def table(content, **named):
    return [dict(row) for row in read_table(content, what="labels.xlsx", required=WANTED, **named)]


# --- text


@pytest.mark.parametrize(
    "content",
    [
        b"sep=;\r\nimage;label\r\n1.png;nv\r\n",
        b"\xef\xbb\xbfsep=;\nimage;label\n1.png;nv\n",
        b'"sep=;"\nimage;label\n1.png;nv\n',
        b"sep=\t\nimage\tlabel\n1.png\tnv\n",
        "image\tlabel\r\n1.png\tnv\r\n".encode("utf-16"),  # Excel's "Unicode text"
        "\ufeffimage;label\n1.png;nv\n".encode("utf-16-be"),
        b"\n\nimage,label\n\n1.png,nv\n , \n,,\n",
        b'image,"label"\n"1.png",nv',
        b"image,label,,,\n1.png,nv,,,\n",
        b"image;label\r1.png;nv\r",
    ],
)  # fmt: skip
def test_what_programs_write_as_a_table_is_one(content):
    assert table(content) == READ


def test_commas_in_quotes_are_no_delimiters():
    [row] = table(b'image;label;"notes, dates, names, and what else"\n1.png;nv;"one\nand, two"\n')

    assert row["notes, dates, names, and what else"] == "one\nand, two"


def test_rows_have_the_numbers_that_a_spreadsheet_shows():
    rows = read_table(b"image,label\n\n1.png,nv\n2.png,nv\n", what="x.csv", required=WANTED)

    assert [row.number for row in rows] == [3, 4]


def test_an_index_without_a_name_is_a_column():
    assert table(b",image,label\n0,1.png,nv\n") == [{"column 1": "0", "image": "1.png", "label": "nv"}]


# --- workbooks


def test_cells_are_read_as_a_person_sees_them():
    seen = {
        cell("a b"): "a b",
        cell(3): "3",
        cell("<c><v>3.0</v></c>"): "3",
        cell(0.30000000000000004): "0.3",
        cell(-2.5): "-2.5",
        cell(1234567890123): "1234567890123",
        cell(True): "TRUE",
        cell(44000, DATE): "2020-06-18",  # 1900-01-01 is day 1, and 1900 has a 29 February there
        cell(44000.75, TIME): "2020-06-18 18:00:00",
        cell(100, SIX_DIGITS): "000100",
        '<c t="e"><v>#N/A</v></c>': "#N/A",
        '<c t="s"><v>0</v></c>': "shared",
        '<c t="str"><f>A1</f><v>as saved</v></c>': "as saved",
        "<c/>": "",
        cell("end"): "end",
    }

    [sheet] = read_sheets(workbook({"S": [list(seen)]}, shared=["shared"]), what="x.xlsx")

    assert sheet.rows == [list(seen.values())]


def test_a_merged_area_has_its_value_in_every_cell():
    rows = [["image", "label", "group"], ["1.png", "nv", "p1"], ["2.png", "nv", None], ["3.png", "mel", "p2"]]

    assert [row["group"] for row in table(workbook({"S": rows}, merged=["C2:C3"]))] == ["p1", "p1", "p2"]


def test_formats_without_cells_and_empty_rows_do_not_count():
    xml = '<row><c t="inlineStr"><is><t>image</t></is></c><c t="inlineStr"><is><t>label</t></is></c></row>'
    xml += '<row r="4"><c t="inlineStr"><is><t>1.png</t></is></c><c t="inlineStr"><is><t>nv</t></is></c></row>'
    xml += '<row r="1048576"><c r="XFD1048576" s="3"/></row>'

    assert table(workbook({"S": xml})) == READ


def test_of_several_sheets_the_one_with_the_columns_is_read():
    notes = [["Who", "When"], ["somebody", "today"]]

    assert table(workbook({"Notes": notes, "Labels": ROWS})) == READ
    assert table(workbook({"Old": ROWS, "Labels": ROWS}, hidden=["Old"])) == READ
    assert table(workbook({"Old": [*ROWS, ["2.png", "nv"]], "New": ROWS}), sheet="new") == READ


def test_what_cannot_be_read_is_refused_with_the_remedy():
    rows = [
        (b"Study of moles\n\nimage,label\n1.png,nv\n", "has its column names in row 3, below other rows"),
        (b"Study of moles;;\nimage;label\n1.png;nv\n", "has its column names in row 2"),
        ("image,label\nL\xe4sion.png,nv\n".encode("cp1252"), r"not UTF-8 text \(byte 13\).*ANSI.*CSV UTF-8"),
        ("image,label\n1.png,nv\n".encode("utf-16")[:-1], "damaged UTF-16"),
        (b"image,label,label\n1.png,nv,nv\n", r"names a column twice: label;"),
        (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "before 2007, or has a password; save it as .xlsx or as CSV"),
        (
            workbook({"2020": ROWS, "2021": ROWS}),
            r"several sheets with the required columns .*: 2020, 2021\); name the",
        ),
        (workbook({"A": [["x"]], "B": [["y"]]}), r"no sheet with the required columns .*\(sheets: A, B\)"),
        (workbook({"A": ROWS}, hidden=["A"]), "has no visible sheet with cells"),
        (workbook({"A": []}), "has no visible sheet with cells"),
        (workbook({"A": "<row><c><v>1"}), "cannot be read as a workbook: a part of the workbook is damaged"),
        (workbook({"A": ROWS}, more={"xl/e.xml": b'<!DOCTYPE a [<!ENTITY b "c">]><a>&b;</a>'}), "has a DOCTYPE"),
        (workbook({"A": ROWS})[:-30], "cannot be read as a workbook: the archive is damaged"),
        (b"PK\3\4", "cannot be read as a workbook"),
    ]
    assert wrongly_refused(rows, table, DatasetError) == []


@pytest.mark.parametrize("kind", ["<v>1</v>", "<f>1</f>", "<is><t>x</t></is>", "<v></v>"])
def test_a_cell_at_the_end_of_a_sheet_does_not_take_the_memory(kind):
    xml = f'<row><c><v>1</v></c></row><row r="1048576"><c r="XFD1048576" t="inlineStr">{kind}</c></row>'

    with pytest.raises(DatasetError, match=r"1048576 rows and 16384 columns.*remove the cells far from the table"):
        read_sheets(workbook({"S": xml}), what="x.xlsx")


def test_a_text_that_many_cells_share_is_counted_as_often(monkeypatch):
    monkeypatch.setattr(spreadsheet_parts, "MAX_CHARACTERS", 1000)
    rows = [['<c t="s"><v>0</v></c>'] * 11]

    with pytest.raises(DatasetError, match="more than 1000 characters"):
        read_sheets(workbook({"S": rows}, shared=["x" * 100]), what="x.xlsx")
    assert read_sheets(workbook({"S": [rows[0][:9]]}, shared=["x" * 100]), what="x.xlsx")


def test_a_workbook_inflates_to_its_limit_only(monkeypatch):
    limits = spreadsheet_parts.ArchiveLimits(members=20, member_bytes=1 << 20, total_bytes=1 << 20, ratio=1_032)
    monkeypatch.setattr(spreadsheet_parts, "LIMITS", limits)

    with pytest.raises(DatasetError, match="inflates to more than"):
        read_sheets(workbook({"S": "<row/>" * (1 << 22)}), what="x.xlsx")
