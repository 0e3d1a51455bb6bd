"""What people call their files and folders is said nowhere but in one local file: everywhere else items have numbers.

Names of files tell of patients (`SMITH_ZEBULON_1949.dcm`), and a failure goes to SageMaker's API, a log to CloudWatch,
a report to S3. Messages are made in a hundred places, of which each would have to remember that; so it is done once, at
the way out. `at_the_way_out` stands between a command and everything that it writes to its streams; whatever of the
inputs' names is in it becomes `file 17` or `folder 3`, and names-of-items.csv says which that is. It has only what was
spoken of. That of `prepare` lies beside the output folder, so that it is not uploaded with it; that of `train` and of
`evaluate` beside predictions.csv, which has to name images too.

Known are: names below the inputs and in archives there, parts of paths and names without suffix, and what tables, lists
and dataset.json there call files or patients, whether it is there or not. Not masked are words of the program's own and
those of LAYOUT, names of one or two characters, and what `keep` was told: classes.
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
# Parts of names that are the form of a data set, or of the places where it lies.
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
OWN_FILE = re.compile(r"shard-\d{5}(?:\.tar)?")  # made and named by the program itself, and its own message helps
SUFFIXED = re.compile(r"[^/\\]*\.[A-Za-z][A-Za-z0-9]{1,7}")
TABLE_ENDS = (".csv", ".tsv", ".txt", ".json", ".jsonl", ".lst", ".manifest")
MAX_TABLE_BYTES = 64 << 20
FEWEST_CHARACTERS = 3
FEWEST_DIGITS = 5  # shorter ones are also counts and sizes
BEFORE_DIGITS, BEHIND_DIGITS = r"(?<!\d[.,])", r"(?![.,]\d)"  # a file `12345.png` is not meant by 0.12345
CUTS = (60, 200)  # where messages cut names
UNSAFE = r"[^A-Za-z0-9._-]"  # what importers replace in the names of a data set's files
JSON_TEXT = re.compile(r'"((?:[^"\\]|\\.)*)"')
CELL = re.compile(r"[^,;\t\r\n\"|]+")


class ItemNames:
    """The names of the inputs of one command, and which of them were spoken of."""

    def __init__(self) -> None:
        self._roots: list[Path] = []
        self._hidden: list[Path] = []
        self._cells: list[Callable[[], Iterable[str]]] = []
        self._below: dict[Path, tuple[list[tuple[str, bool]], list[str]]] = {}
        self._kept: set[str] = set()
        self._numbers: dict[str, str] | None = None  # a way of writing a name -> what it is called
        self._lengths: list[str] = []
        self._spoken: dict[str, str] = {}
        self._written = 0
        self._is_open = False
        self.file: Path | None = None

    def add(self, *paths: Path) -> None:
        """Inputs: folders, files or archives."""
        self._roots += paths
        self._numbers = None

    def hide(self, place: Path) -> None:
        """Where something lies or will, whose own name is not said either."""
        self._hidden.append(place)
        self._numbers = None

    def note(self, cells: Callable[[], Iterable[str]]) -> None:
        """What a table that was read calls files, which need not be there, or people; asked for once it is needed."""
        self._cells.append(cells)
        self._numbers = None

    def keep(self, words: Iterable[str]) -> None:
        """Names that are said: of classes."""
        self._kept |= {way for word in words for way in ways_of(word)}

    def say_all(self) -> None:
        """Mask nothing from now on: for who asks for names."""
        self._is_open = True

    def mask(self, text: str) -> str:
        """The text with numbers in the place of names."""
        if self._is_open:
            return text
        if self._numbers is None:
            self._collect()
        assert self._numbers is not None
        plain = text.casefold()
        for name in self._lengths:  # the longest first: a path before its parts
            if name not in plain or name in self._kept:
                continue
            item = self._numbers[name]
            before, behind = (BEFORE_DIGITS, BEHIND_DIGITS) if name.isdigit() else ("", "")
            pattern = rf"(?<![^\W_]){before}{re.escape(name)}{behind}(?![^\W_])"
            masked = re.sub(pattern, item, text, flags=re.IGNORECASE)
            if masked != text:
                self._spoken.setdefault(item, name)
                text, plain = masked, masked.casefold()
        self._save()
        return text

    @property
    def was_needed(self) -> bool:
        """Whether the list was written."""
        return self.file is not None and self._written > 0

    def mask_all(self, value: Any) -> Any:
        """The same for every text in what becomes JSON, except for names of fields."""
        if isinstance(value, str):
            return self.mask(value)
        if isinstance(value, dict):
            return {name: self.mask_all(part) for name, part in value.items()}
        return [self.mask_all(part) for part in value] if isinstance(value, list | tuple) else value

    def _collect(self) -> None:
        numbers: dict[str, str] = {}
        files, folders, entries = itertools.count(1), itertools.count(1), itertools.count(1)

        def learn(name: str, item: str) -> None:
            if name in own_words():
                return
            for way in ways_of(name):
                if self._is_secret(way):
                    numbers.setdefault(way, item)

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
                for part in name.split("/")[:-1]:  # of archives too, which list no folders
                    if part.casefold() not in numbers:
                        learn(part, f"folder {next(folders)}")
            for cell in cells:
                self._learn_cell(cell, learn, numbers, entries)
        for cell in itertools.chain.from_iterable(cells() for cells in self._cells):
            self._learn_cell(cell, learn, numbers, entries)
        for root in [*self._roots, *self._hidden]:
            item = "the input" if root in self._roots else "the output"
            for name in (str(root), str(root.absolute()), *root.absolute().parts, stem_of(root.name)):
                learn(name, item)
        self._numbers = numbers
        self._lengths = sorted(numbers, key=len, reverse=True)

    def _learn_cell(self, cell: str, learn: Any, numbers: dict[str, str], entries: Iterator[int]) -> None:
        if cell.casefold() in numbers:
            return
        item = f"entry {next(entries)} of a table"
        learn(cell, item)
        for part in cell.replace("\\", "/").split("/"):
            learn(part, item)
            learn(stem_of(part), item)

    def _is_secret(self, way: str) -> bool:
        if way.isascii():
            is_short = len(way) < (FEWEST_DIGITS if way.isdigit() else FEWEST_CHARACTERS)
        else:
            is_short = not way.strip(" .-_")
        return bool(way) and not is_short and way not in LAYOUT and OWN_FILE.fullmatch(way) is None

    def _save(self) -> None:
        if self.file is None or len(self._spoken) == self._written:
            return
        self._written = len(self._spoken)
        lines = io.StringIO()
        writer = csv.writer(lines, lineterminator="\n")
        writer.writerow(["item", "name (may tell of a patient: keep this file where the data are)"])
        writer.writerows(self._spoken.items())
        with contextlib.suppress(OSError):  # the message is worth more than the file
            self.file.parent.mkdir(parents=True, exist_ok=True)
            self.file.write_text(lines.getvalue(), encoding="utf-8", errors="backslashreplace")


@functools.cache
def own_words() -> frozenset[str]:
    """Words of small letters that this program says itself: a folder that is called `out` must not spoil messages."""
    sources = Path(__file__).parent.rglob("*.py")
    return LAYOUT.union(*(re.findall(r"\b[a-z]{3,}\b", path.read_text(encoding="utf-8")) for path in sources))


def ways_of(name: str) -> set[str]:
    """How a name can stand in a message: in any Unicode form, escaped, with other spaces, cut."""
    if len(name) <= CUTS[0] and not re.search(r"[^A-Za-z0-9._/-]", name):  # most names, and quickly
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
    stem = name
    while SUFFIXED.fullmatch(stem) and stem.rpartition(".")[0]:
        stem = stem.rpartition(".")[0]
    return stem


def names_below(root: Path) -> Iterator[tuple[str, bool]]:
    """Names relative to an input, in one order everywhere, with those in archives, and whether each is a folder."""
    if not root.is_dir():
        yield from names_of_file(root, root.name)
        return
    for place, folders, files in os.walk(root):  # of a million files pathlib would make two million objects
        folders.sort()
        below = place[len(str(root)) :].strip("/")
        start = f"{below}/" if below else ""
        yield from ((start + name, True) for name in folders)
        for name in sorted(files):
            yield from names_of_file(Path(place, name), start + name) if is_packed(name) else [(start + name, False)]


def is_packed(name: str) -> bool:
    """Whether a file is called like an archive."""
    return name.lower().endswith((".zip", ".tar", ".tgz", ".gz", ".bz2", ".xz"))


def names_of_file(path: Path, name: str) -> Iterator[tuple[str, bool]]:
    """A file's name, and those in it if it is an archive: as they are and behind the archive's."""
    yield name, False
    if path.is_file() and is_packed(name):
        for inner in names_in(path):
            yield inner, False
            yield f"{path.name}/{inner}", False


def names_in(archive: Path) -> list[str]:
    """What is in a zip or tar file; nothing where it is none."""
    with contextlib.suppress(Exception):  # it is not read here, only spoken of
        if zipfile.is_zipfile(archive):
            with zipfile.ZipFile(archive) as found:
                return found.namelist()
        with tarfile.open(archive) as packed:
            return packed.getnames()
    return []


def cells_below(root: Path) -> Iterator[str]:
    """What tables and lists below an input call like a file."""
    places = [(str(root.parent), [root.name])] if not root.is_dir() else ((at, files) for at, _, files in os.walk(root))
    for place, files in places:
        for path in (Path(place, name) for name in sorted(files) if name.lower().endswith(TABLE_ENDS)):
            if path.is_file() and path.stat().st_size <= MAX_TABLE_BYTES:
                with contextlib.suppress(OSError):
                    yield from cells_of(path.name.lower(), path.read_bytes())


def cells_of(name: str, content: bytes) -> Iterator[str]:
    """What a table or list calls like a file."""
    coding = "utf-16" if content[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8"
    text = content.decode(coding, "surrogateescape" if coding == "utf-8" else "replace")
    texts = JSON_TEXT if ".json" in name or name.endswith(".manifest") else CELL
    for found in texts.finditer(text):
        cell = found[found.lastindex or 0].strip()
        if is_like_a_file(cell):
            yield cell


class _WayOut(io.TextIOBase):
    """A stream that knows no names."""

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
    """Print a line of the log that SageMaker reads metrics from. It has numbers and names of classes and scores alone,
    so nothing in it is masked: a file `12345.png` must not change what is read.
    """
    stream = sys.stdout
    while isinstance(stream, _WayOut):
        stream = stream.stream
    print(line, file=stream, flush=True)


_current: ContextVar[ItemNames | None] = ContextVar("names", default=None)


def current() -> ItemNames:
    """The names of the command that runs; where none does, an empty list, which masks nothing."""
    return _current.get() or ItemNames()


@contextlib.contextmanager
def at_the_way_out() -> Iterator[ItemNames]:
    """Let no name of the inputs through the standard streams; a command inside of another one shares its names."""
    if (outer := _current.get()) is not None:
        yield outer
        return
    names = ItemNames()
    token = _current.set(names)
    try:
        with (
            contextlib.redirect_stdout(_WayOut(sys.stdout, names)),
            contextlib.redirect_stderr(_WayOut(sys.stderr, names)),
        ):
            yield names
            if names.was_needed:
                print(f"what items are called is in {NAMES_FILE}, beside the output", file=sys.stderr, flush=True)
    finally:
        _current.reset(token)
