"""The XML parts of an Excel workbook: unpacked and parsed under limits, before any library reads the workbook.

A value in the last cell of a sheet makes a reader that allocates the full rectangle ask for half a terabyte, and a text
shared by many cells is copied for each of them. The same pass keeps what calamine drops: texts of errors (#N/A) and
formats that show leading zeros. Macros, links and pictures are ignored.

Source: ECMA-376, part 1, 18.2 (workbook), 18.3 (worksheets), 18.4 (shared strings), 18.8.30 (number formats).
"""

import io
import posixpath
import re
import zipfile
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from xml.parsers import expat

from sagemaker_monai.storage.zips import ArchiveLimits, UnsafeArchiveError, read_members

MAX_CELLS = 1 << 23  # of a sheet, as a rectangle: 800,000 rows of ten columns
MAX_CHARACTERS = 1 << 28  # of the texts of a sheet
LIMITS = ArchiveLimits(members=4_096, member_bytes=1 << 28, total_bytes=1 << 29, ratio=1_032)
_PLACE = re.compile(r"([A-Za-z]{1,3})([0-9]{1,7})")
_NUMBER = re.compile(r"[0-9]{1,9}")
_RELATIONS = ".rels"


@dataclass
class Part:
    """The content of one XML part.

    Attributes:
        root: the name of its outermost element.
        rows, columns: of the rectangle around all filled cells.
        shared: index of a shared text -> number of cells with it.
        errors: row and column, from 0, of cells with an error -> its text.
        styles: row and column of number cells with their own style -> the style.
        lengths: characters of each shared text.
        formats: number of a format -> the format.
        style_formats: number of the format of each style.
        sheets: names of sheets and the ids of their parts.
        targets: id -> part.
    """

    root: str = ""
    rows: int = 0
    columns: int = 0
    shared: Counter[int] = field(default_factory=Counter)
    errors: dict[tuple[int, int], str] = field(default_factory=dict)
    styles: dict[tuple[int, int], int] = field(default_factory=dict)
    lengths: list[int] = field(default_factory=list)
    formats: dict[str, str] = field(default_factory=dict)
    style_formats: list[str] = field(default_factory=list)
    sheets: list[tuple[str, str]] = field(default_factory=list)
    targets: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Parts:
    """The parts of a workbook, and an archive of only these."""

    parts: dict[str, Part]
    archive: bytes

    def of_sheet(self, name: str) -> Part:
        """The part of a sheet; an empty one if it is not found."""
        for path, workbook in self.parts.items():
            folder, file = posixpath.split(path)
            relations = self.parts.get(f"{folder}/_rels/{file}{_RELATIONS}")
            for sheet, relation in workbook.sheets if relations else ():
                if sheet == name and relations is not None and relation in relations.targets:
                    target = posixpath.join("/", folder, relations.targets[relation])
                    return self.parts.get(posixpath.normpath(target).lstrip("/"), Part())
        return Part()

    def zeros(self, style: int) -> int:
        """The number of digits to which a style pads numbers with zeros; 0 if it does not."""
        for part in self.parts.values():
            if 0 <= style < len(part.style_formats):
                shown = part.formats.get(part.style_formats[style], "")
                return len(shown) if shown and not shown.strip("0") else 0
        return 0


def read_parts(content: bytes) -> Parts:
    """Unpack and parse a workbook.

    Raises:
        UnsafeArchiveError: damaged, not a workbook, or larger than the limits; gives the reason, without names.
    """
    parts: dict[str, Part] = {}
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_STORED) as archive:
        wanted = (".xml", _RELATIONS)
        for name, xml in read_members(
            io.BytesIO(content), limits=LIMITS, wanted=lambda name: name.lower().endswith(wanted), takes_litter=True
        ):
            parts[name] = _parsed(xml)
            archive.writestr(name, xml)
    lengths = [part.lengths for part in parts.values() if part.lengths]
    for part in parts.values():
        if part.rows * part.columns > MAX_CELLS:
            raise UnsafeArchiveError(
                f"a sheet has cells in {part.rows} rows and {part.columns} columns, more than {MAX_CELLS} cells; "
                "remove the cells far from the table"
            )
        longest = max((_characters(part.shared, each) for each in lengths), default=0)
        if longest > MAX_CHARACTERS:
            raise UnsafeArchiveError(f"a sheet has more than {MAX_CHARACTERS} characters; keep the table alone")
    return Parts(parts, packed.getvalue())


def _characters(shared: Counter[int], lengths: list[int]) -> int:
    return sum(lengths[index] * count for index, count in shared.items() if index < len(lengths))


def _parsed(xml: bytes) -> Part:
    parser = expat.ParserCreate()
    reader = _Reader(Part())
    parser.StartElementHandler = reader.start
    parser.EndElementHandler = reader.end
    parser.StartDoctypeDeclHandler = _refuse_doctype
    parser.buffer_text = True
    reader.listen = lambda is_wanted: setattr(parser, "CharacterDataHandler", reader.text.append if is_wanted else None)
    try:
        parser.Parse(xml, True)
    except (expat.ExpatError, LookupError, ValueError) as error:
        raise UnsafeArchiveError("a part of the workbook is damaged") from error
    return reader.part


def _refuse_doctype(*_: object) -> None:
    raise UnsafeArchiveError("a part of the workbook has a DOCTYPE, which Excel never writes")


class _Reader:
    """Handles expat's events for one part."""

    def __init__(self, part: Part) -> None:
        self.part = part
        self.text: list[str] = []
        self.listen: Callable[[bool], None] = lambda _is_wanted: None
        self._row, self._column = -1, -1
        self._kind, self._style, self._is_filled = "", "", False

    def start(self, tag: str, attributes: dict[str, str]) -> None:
        name = tag.rpartition(":")[2] if ":" in tag else tag
        if not self.part.root:
            self.part.root = name
        if (handle := _STARTS.get((self.part.root, name))) is not None:
            handle(self, attributes)
        elif self._kind or self._style:
            self._is_filled = True

    def end(self, tag: str) -> None:
        name = tag.rpartition(":")[2] if ":" in tag else tag
        if (handle := _ENDS.get((self.part.root, name))) is not None:
            handle(self)

    def row(self, attributes: dict[str, str]) -> None:
        number = attributes.get("r", "")
        self._row = int(number) - 1 if _NUMBER.fullmatch(number) else self._row + 1
        self._column = -1

    def cell(self, attributes: dict[str, str]) -> None:
        self._column += 1
        if place := _PLACE.fullmatch(attributes.get("r", "")):
            column = 0
            for letter in place[1].upper():
                column = 26 * column + ord(letter) - ord("A") + 1
            self._column, self._row = column - 1, int(place[2]) - 1
        self._kind, self._style, self._is_filled = attributes.get("t", "n"), attributes.get("s", "0"), False

    def value(self, _: dict[str, str]) -> None:
        self._is_filled = True
        self.text.clear()
        self.listen(True)

    def value_end(self) -> None:
        self.listen(False)
        text = "".join(self.text)
        if self._kind == "s" and _NUMBER.fullmatch(text.strip()):
            self.part.shared[int(text)] += 1
        elif self._kind == "e":
            self.part.errors[self._row, self._column] = text.strip()
        elif self._kind == "n" and self._style != "0" and _NUMBER.fullmatch(self._style):
            self.part.styles[self._row, self._column] = int(self._style)

    def cell_end(self) -> None:
        if self._is_filled:
            self.part.rows = max(self.part.rows, self._row + 1)
            self.part.columns = max(self.part.columns, self._column + 1)
        self._kind = self._style = ""

    def shared_text(self, _: dict[str, str]) -> None:
        self.text.clear()
        self.listen(True)

    def shared_text_end(self) -> None:
        self.listen(False)
        self.part.lengths.append(sum(map(len, self.text)))

    def format(self, attributes: dict[str, str]) -> None:
        self.part.formats[attributes.get("numFmtId", "")] = attributes.get("formatCode", "")

    def styles(self, _: dict[str, str]) -> None:
        self.part.style_formats = []
        self._kind = "styles"

    def styles_end(self) -> None:
        self._kind = ""

    def style(self, attributes: dict[str, str]) -> None:
        if self._kind == "styles":
            self.part.style_formats.append(attributes.get("numFmtId", ""))

    def sheet(self, attributes: dict[str, str]) -> None:
        relation = next((value for key, value in attributes.items() if key.endswith(":id")), "")
        self.part.sheets.append((attributes.get("name", ""), relation))

    def relation(self, attributes: dict[str, str]) -> None:
        self.part.targets[attributes.get("Id", "")] = attributes.get("Target", "")


_STARTS: dict[tuple[str, str], Callable[[_Reader, dict[str, str]], None]] = {
    ("worksheet", "row"): _Reader.row,
    ("worksheet", "c"): _Reader.cell,
    ("worksheet", "v"): _Reader.value,
    ("sst", "si"): _Reader.shared_text,
    ("styleSheet", "numFmt"): _Reader.format,
    ("styleSheet", "cellXfs"): _Reader.styles,
    ("styleSheet", "xf"): _Reader.style,
    ("workbook", "sheet"): _Reader.sheet,
    ("Relationships", "Relationship"): _Reader.relation,
}
_ENDS: dict[tuple[str, str], Callable[[_Reader], None]] = {
    ("worksheet", "v"): _Reader.value_end,
    ("worksheet", "c"): _Reader.cell_end,
    ("sst", "si"): _Reader.shared_text_end,
    ("styleSheet", "cellXfs"): _Reader.styles_end,
}
