"""Masks names of files and folders: messages show numbers instead, and one local file maps numbers to names.

File names can identify patients (`SMITH_ZEBULON_1949.dcm`), and failures go to SageMaker's API, logs to CloudWatch,
reports to S3. Messages are made in a hundred places, so masking happens once, on output: `masked_output` wraps the
standard streams of a command. Each input name becomes `file 17` or `folder 3`; names-of-items.csv maps back the ones
that were mentioned. `prepare` writes it beside the output folder, so that it is not uploaded; `train` and `evaluate`
write it beside predictions.csv, which has to name images anyway.

Masked are the names below the inputs and inside archives there, their path components and stems, and what tables,
lists and dataset.json call files or patients, even if no such file exists. Not masked are the program's own words,
those of LAYOUT, names of one or two characters, and whatever `keep` was given: class names.
"""

import contextlib
import csv
import functools
import io
import itertools
import json
import os
import re
import sys
import tarfile
import unicodedata
import zipfile
from collections.abc import Callable, Iterable, Iterator
from contextvars import ContextVar
from pathlib import Path
from typing import Any

NAMES_FILE = "names-of-items.csv"
# Usual names of a data set's files and folders, and of the places where it is stored.
LAYOUT = frozenset(
    """
    training train validation valid val test testing images image labels label masks mask series data dataset folders
    classes class meta metadata metrics manifest manifests output input source model models processing opt tmp home ml
    file files root user users srv var mnt work scratch lesion skin scan picture pictures photo photos volume volumes
    folder table tables row line column split group patient patients case cases study studies dicom nifti monai entry
    png jpg jpeg tif tiff bmp webp dcm nii gz csv tsv txt json jsonl xlsx zip tar mha mhd nrrd nhdr hdr img raw zraw
    dataset.json labels.csv metadata.csv train.csv test.csv validation.csv dicomdir pretrained checkpoints none unknown
    shards.json import_report.json
    """.split()  # noqa: SIM905
)
OWN_FILE = re.compile(r"shard-\d{5}(?:\.tar)?")  # named by the program itself
SUFFIXED = re.compile(r"[^/\\]*\.[A-Za-z][A-Za-z0-9]{1,7}")
TABLE_ENDS = (".csv", ".tsv", ".txt", ".json", ".jsonl", ".lst", ".manifest")
MAX_TABLE_BYTES = 64 << 20
FEWEST_CHARACTERS = 3
FEWEST_DIGITS = 5  # shorter ones are also counts and sizes
BEFORE_DIGITS, BEHIND_DIGITS = r"(?<!\d[.,])", r"(?![.,]\d)"  # 0.12345 does not mean the file `12345.png`
CUTS = (60, 200)  # where messages cut names
UNSAFE = r"[^A-Za-z0-9._-]"  # what importers replace in the names of a data set's files
JSON_TEXT = re.compile(r'"((?:[^"\\]|\\.)*)"')
CELL = re.compile(r"[^,;\t\r\n\"|]+")


class ItemNames:
    """The names of one command's inputs, and which of them were mentioned."""

    def __init__(self) -> None:
        self._roots: list[Path] = []
        self._hidden: list[Path] = []
        self._cells: list[Callable[[], Iterable[str]]] = []
        self._below: dict[Path, tuple[list[tuple[str, bool]], list[str]]] = {}
        self._kept: set[str] = set()
        self._numbers: dict[str, str] | None = None  # spelling of a name -> its replacement
        self._mentioned: dict[str, str] = {}
        self._is_open = False
        self.written_count = 0  # rows in `file`
        self.file: Path | None = None

    def add(self, *paths: Path) -> None:
        """Add inputs: folders, files or archives."""
        self._roots += paths
        self._numbers = None

    def hide(self, place: Path) -> None:
        """Mask the name of a place too, such as the output folder."""
        self._hidden.append(place)
        self._numbers = None

    def note(self, cells: Callable[[], Iterable[str]]) -> None:
        """Add names of files or people that a table mentions; `cells` is called when they are first needed."""
        self._cells.append(cells)
        self._numbers = None

    def keep(self, words: Iterable[str]) -> None:
        """Never mask these words: names of classes."""
        self._kept |= {spelling for word in words for spelling in spellings_of(word)}

    def show_all(self) -> None:
        """Mask nothing from now on: the user asked for names."""
        self._is_open = True

    def mask(self, text: str) -> str:
        """Replace names by numbers."""
        if self._is_open:
            return text
        if self._numbers is None:
            self._numbers = self._collect()
        plain = text.casefold()
        for name in self._numbers:  # the longest first: a path before its parts
            if name not in plain or name in self._kept:
                continue
            item = self._numbers[name]
            before, behind = (BEFORE_DIGITS, BEHIND_DIGITS) if name.isdigit() else ("", "")
            pattern = rf"(?<![^\W_]){before}{re.escape(name)}{behind}(?![^\W_])"
            masked = re.sub(pattern, item, text, flags=re.IGNORECASE)
            if masked != text:
                self._mentioned.setdefault(item, name)
                text, plain = masked, masked.casefold()
        self._save()
        return text

    def mask_all(self, value: Any) -> Any:
        """Mask every text of a JSON value, except for the names of fields."""
        if isinstance(value, str):
            return self.mask(value)
        if isinstance(value, dict):
            return {name: self.mask_all(part) for name, part in value.items()}
        return [self.mask_all(part) for part in value] if isinstance(value, list | tuple) else value

    def _collect(self) -> dict[str, str]:
        """Every spelling of every name with its replacement, the longest spellings first."""
        numbers: dict[str, str] = {}
        files, folders, entries = itertools.count(1), itertools.count(1), itertools.count(1)

        def learn(name: str, item: str) -> None:
            if name in own_words():
                return
            for spelling in spellings_of(name):
                if _is_secret(spelling):
                    numbers.setdefault(spelling, item)

        def learn_cell(cell: str) -> None:
            if cell.casefold() in numbers:
                return
            item = f"entry {next(entries)} of a table"
            learn(cell, item)
            for part in cell.replace("\\", "/").split("/"):
                learn(part, item)
                learn(stem_of(part), item)

        for root in self._roots:
            if root not in self._below:
                self._below[root] = list(names_below(root)), list(cells_below(root))
            names, cells = self._below[root]
            for name, is_folder in names:
                item = f"folder {next(folders)}" if is_folder else f"file {next(files)}"
                learn(name, item)
                last = name.rpartition("/")[2]
                learn(last, item)
                learn(stem_of(last), item)
                for part in name.split("/")[:-1]:  # archives may not list their folders
                    if part.casefold() not in numbers:
                        learn(part, f"folder {next(folders)}")
            for cell in cells:
                learn_cell(cell)
        for cell in itertools.chain.from_iterable(cells() for cells in self._cells):
            learn_cell(cell)
        for root in [*self._roots, *self._hidden]:
            item = "the input" if root in self._roots else "the output"
            for name in (str(root), str(root.absolute()), *root.absolute().parts, stem_of(root.name)):
                learn(name, item)
        return dict(sorted(numbers.items(), key=lambda row: len(row[0]), reverse=True))

    def _save(self) -> None:
        if self.file is None or len(self._mentioned) == self.written_count:
            return
        self.written_count = len(self._mentioned)
        lines = io.StringIO()
        writer = csv.writer(lines, lineterminator="\n")
        writer.writerow(["item", "name (may identify a patient: keep this file where the data are)"])
        writer.writerows(self._mentioned.items())
        with contextlib.suppress(OSError):  # the message matters more than the file
            self.file.parent.mkdir(parents=True, exist_ok=True)
            self.file.write_text(lines.getvalue(), encoding="utf-8", errors="backslashreplace")


def _is_secret(spelling: str) -> bool:
    if spelling.isascii():
        is_short = len(spelling) < (FEWEST_DIGITS if spelling.isdigit() else FEWEST_CHARACTERS)
    else:
        is_short = not spelling.strip(" .-_")
    return bool(spelling) and not is_short and spelling not in LAYOUT and OWN_FILE.fullmatch(spelling) is None


@functools.cache
def own_words() -> frozenset[str]:
    """Lower-case words of this program's own sources: a folder named `out` must not garble messages."""
    sources = Path(__file__).parent.rglob("*.py")
    return LAYOUT.union(*(re.findall(r"\b[a-z]{3,}\b", path.read_text(encoding="utf-8")) for path in sources))


def spellings_of(name: str) -> set[str]:
    """How a message may spell a name: in any Unicode form, escaped, with other spaces, shortened."""
    if len(name) <= CUTS[0] and not re.search(r"[^A-Za-z0-9._/-]", name):  # most names: a short cut
        plain = name.strip("/").casefold()
        return {plain, plain.replace("/", "_")}
    forms = {name, unicodedata.normalize("NFC", name), unicodedata.normalize("NFD", name)}
    forms |= {" ".join(form.split()) for form in forms}
    forms |= {repr(form)[1:-1] for form in forms} | {json.dumps(form)[1:-1] for form in forms}
    forms |= {form.encode("utf-8", "backslashreplace").decode() for form in forms}
    forms |= {re.sub(kind, "_", form) for form in forms for kind in (UNSAFE, f"{UNSAFE}+")}
    forms |= {form[:cut] for form in forms for cut in CUTS if len(form) > cut}
    forms |= {form[1 - CUTS[0] :] for form in forms if len(form) > CUTS[0]}
    return {form.strip().strip("/").casefold() for form in forms}


def is_like_a_file(cell: str) -> bool:
    """Whether a text has a suffix or a slash."""
    return "/" in cell or SUFFIXED.fullmatch(cell) is not None


def stem_of(name: str) -> str:
    """A file's name without suffixes: `a.nii.gz` -> `a`."""
    while SUFFIXED.fullmatch(name) and name.rpartition(".")[0]:
        name = name.rpartition(".")[0]
    return name


def names_below(root: Path) -> Iterator[tuple[str, bool]]:
    """Names relative to an input, also inside archives, in a fixed order, and whether each is a folder."""
    if not root.is_dir():
        yield from names_of_file(root, root.name)
        return
    for place, folders, files in os.walk(root):  # pathlib would make two million objects of a million files
        folders.sort()
        below = place[len(str(root)) :].strip("/")
        start = f"{below}/" if below else ""
        yield from ((start + name, True) for name in folders)
        for name in sorted(files):
            yield from names_of_file(Path(place, name), start + name) if is_packed(name) else [(start + name, False)]


def is_packed(name: str) -> bool:
    """Whether a file is named like an archive."""
    return name.lower().endswith((".zip", ".tar", ".tgz", ".gz", ".bz2", ".xz"))


def names_of_file(path: Path, name: str) -> Iterator[tuple[str, bool]]:
    """A file's name and, for an archive, those of its members: alone and after the archive's name."""
    yield name, False
    if path.is_file() and is_packed(name):
        for inner in names_in(path):
            yield inner, False
            yield f"{path.name}/{inner}", False


def names_in(archive: Path) -> list[str]:
    """Member names of a zip or tar file; none if it is something else."""
    with contextlib.suppress(Exception):  # the reader of the archive reports its faults
        if zipfile.is_zipfile(archive):
            with zipfile.ZipFile(archive) as found:
                return found.namelist()
        with tarfile.open(archive) as packed:
            return packed.getnames()
    return []


def cells_below(root: Path) -> Iterator[str]:
    """Cells of tables and lists below an input that look like file names."""
    places = [(str(root.parent), [root.name])] if not root.is_dir() else ((at, files) for at, _, files in os.walk(root))
    for place, files in places:
        for path in (Path(place, name) for name in sorted(files) if name.lower().endswith(TABLE_ENDS)):
            if path.is_file() and path.stat().st_size <= MAX_TABLE_BYTES:
                with contextlib.suppress(OSError):
                    yield from cells_of(path.name.lower(), path.read_bytes())


def cells_of(name: str, content: bytes) -> Iterator[str]:
    """Cells of one table or list that look like file names."""
    coding = "utf-16" if content[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8"
    text = content.decode(coding, "surrogateescape" if coding == "utf-8" else "replace")
    texts = JSON_TEXT if ".json" in name or name.endswith(".manifest") else CELL
    for found in texts.finditer(text):
        cell = found[found.lastindex or 0].strip()
        if is_like_a_file(cell):
            yield cell


class _MaskedStream(io.TextIOBase):
    """A stream to which names are written as numbers."""

    def __init__(self, stream: Any, names: ItemNames) -> None:
        self.stream, self._names = stream, names

    def write(self, text: str) -> int:
        self.stream.write(self._names.mask(text) if text.strip() else text)
        return len(text)

    def flush(self) -> None:
        self.stream.flush()

    def isatty(self) -> bool:
        return bool(self.stream.isatty())

    def fileno(self) -> int:
        return int(self.stream.fileno())


def print_numbers(line: str) -> None:
    """Print a line from which SageMaker parses metrics, unmasked: a file `12345.png` must not change a number.

    The line must hold only numbers and names of classes and scores.
    """
    stream = sys.stdout
    while isinstance(stream, _MaskedStream):
        stream = stream.stream
    print(line, file=stream, flush=True)


_current: ContextVar[ItemNames | None] = ContextVar("names", default=None)


def current() -> ItemNames:
    """The names of the running command; outside a command an empty list, which masks nothing."""
    return _current.get() or ItemNames()


@contextlib.contextmanager
def masked_output() -> Iterator[ItemNames]:
    """Mask input names on the standard streams; a command within another shares its names."""
    if (outer := _current.get()) is not None:
        yield outer
        return
    names = ItemNames()
    token = _current.set(names)
    try:
        with (
            contextlib.redirect_stdout(_MaskedStream(sys.stdout, names)),
            contextlib.redirect_stderr(_MaskedStream(sys.stderr, names)),
        ):
            yield names
            if names.written_count:
                print(f"{NAMES_FILE}, beside the output, lists the names of these items", file=sys.stderr, flush=True)
    finally:
        _current.reset(token)
