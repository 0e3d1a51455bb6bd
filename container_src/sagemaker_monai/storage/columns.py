"""What columns of a table, and keys of an item, are for: one table of known spellings; and which cells say nothing.

Names are compared without case, Unicode form, blanks and punctuation: `Image Name`, `image_name` and `IMAGENAME` are
one. What a cell with a label means is decided in `label_values`, who is a patient in `groups`; nothing here opens a
file.
"""

import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from sagemaker_monai.errors import DatasetError
from sagemaker_monai.messages.shortened import some_of

# What columns may be called, as `plain` writes it, in ranks: of the first rank that is there must be one.
_IMAGES = (
    "file", "files", "filename", "filenames", "filepath", "path", "imagename", "imagefile", "imagefilename",
    "imagepath", "imagefilepath", "imageid", "imageindex", "images", "img", "imgid", "imgname", "imgfile",
    "imgfilename", "imgpath", "imgs", "isicid", "isicimageid", "idcode", "fname", "picture", "picturename", "photo",
    "photoname", "pic", "dicom", "dicomfile", "dicompath", "bild", "bildname", "datei", "dateiname", "fichier",
    "archivo", "imagen", "immagine",
)  # fmt: skip
_LABELS = (
    "labels", "labelname", "class", "classname", "classlabel", "category", "target", "targetlabel", "diagnosis",
    "diagnoses", "diagnose", "diagnostic", "dx", "finding", "findings", "findinglabels", "grade", "level", "severity",
    "outcome", "groundtruth", "gt", "pathology", "y", "klasse", "befund", "etiqueta", "classe", "diagnostico",
)  # fmt: skip
SPELLINGS: dict[str, tuple[tuple[str, ...], ...]] = {
    "image": (("image",), _IMAGES, ("id", "name", "key")),
    "label": (("label",), _LABELS),
    "split": (("split",),),
    "group": (("group", "groups", "groupid"),),
}
# Other columns that are a split where every cell is the name of one.
SPLIT_COLUMNS = ("splits", "set", "subset", "partition", "phase", "usage", "dataset", "fold")
# What a split may be called, as `plain` writes it: folders, channels, lists and cells.
SPLIT_NAMES = {
    "training": "training",
    "train": "training",
    "trainset": "training",
    "trainingset": "training",
    "validation": "validation",
    "valid": "validation",
    "val": "validation",
    "validationset": "validation",
    "valset": "validation",
    "test": "test",
    "testing": "test",
    "testset": "test",
    "testingset": "test",
}
NO_GROUP = "none"  # as the name of the column of groups: every image is a group of its own

# Cells that spreadsheets, pandas, R and databases write where there is no value, without case and blanks.
MISSING = frozenset({
    "", "nan", "-nan", "+nan", "na", "n/a", "n.a.", "n.a", "<na>", "#na", "#n/a", "#n/an/a", "#nv", "#value!", "#wert!",
    "#ref!", "#bezug!", "#div/0!", "#name?", "#null!", "#num!", "1.#ind", "-1.#ind", "1.#qnan", "-1.#qnan", "null",
    "<null>", "(null)", "none", "<none>", "(none)", "nil", "nat", "na_character_", "na_integer_", "na_real_", "\\n",
    "-", "--", "---", "\u2010", "\u2011", "\u2012", "\u2013", "\u2014", "\u2212", ".", "?", "??", "???", "missing",
    "(missing)", "(blank)", "(leer)", "(empty)", "notavailable", "notapplicable", "k.a.", "k.a", "keineangabe",
})  # fmt: skip
# What stands for anybody where a patient's number should be, besides MISSING: what anonymisers write for everybody.
NOBODY = frozenset({"anonymous", "anonymized", "anonymised", "anon", "unknown", "removed", "patient", "patientid", "id",
                    "xxx"})  # fmt: skip
# Words of columns that tell who is a patient, the coarsest first.
# Words with a * mean that only with `id`, `number` or the like behind or before them.
_ENDINGS = ("", "id", "ids", "no", "nr", "num", "number", "nummer", "code", "uid", "identifier", "pseudonym", "hash")
_LEVELS: tuple[tuple[str, ...], ...] = (
    ("patient", "patients", "patientname", "anonpatient", "pat*", "pt*", "pid", "00100020", "patienten", "paciente",
     "paziente", "pasient", "potilas", "pacjent", "pacient",
     "\u043f\u0430\u0446\u0438\u0435\u043d\u0442", "\u60a3\u8005", "\u75c5\u4eba", "\ud658\uc790"),
    ("subject", "subj", "participant", "proband", "volunteer", "person*", "individual*", "mrn", "medicalrecord*",
     "empi", "hospital*", "client*", "animal*", "mouse*", "donor*", "subjekt", "sujet", "sujeto", "soggetto",
     "deelnemer",
     "\u88ab\u9a13\u8005", "\u53d7\u8bd5\u8005"),
    ("case", "fall*", "caso*", "cas*", "\u75c5\u4f8b", "\u75c7\u4f8b"),
    ("study*", "studyinstance*", "exam*", "examination*", "accession", "untersuchung*", "examen*"),
    ("series*", "seriesinstance*", "scan*", "acquisition*"),
    ("lesion", "nodule", "tumor*", "tumour*", "specimen*", "slide*"),
)  # fmt: skip
_PATIENT_LEVELS = 2  # the first ones are people, whatever else a column says


def plain(name: str) -> str:
    """A name of a column as it is compared: NFKC, without case, blanks and punctuation."""
    text = unicodedata.normalize("NFKC", name).casefold()
    return "".join(letter for letter in text if letter.isalnum() or unicodedata.combining(letter))


def _spellings(word: str) -> set[str]:
    """A word of _LEVELS with all its endings, before and behind."""
    bare = word.removesuffix("*")
    endings = _ENDINGS[1:] if word.endswith("*") else _ENDINGS
    return {plain(bare + ending) for ending in endings} | {plain(ending + bare) for ending in endings}


_RANKS = {name: rank for rank, words in enumerate(_LEVELS) for word in words for name in _spellings(word)}


def group_rank(name: str) -> int | None:
    """How coarse the groups of a column are by its name, 0 for patients; None where it names none."""
    return _RANKS.get(plain(name))


def is_person(name: str) -> bool:
    """Whether a column names people, and not their cases, studies or lesions."""
    rank = group_rank(name)
    return rank is not None and rank < _PATIENT_LEVELS


def is_missing(text: str) -> bool:
    """Whether a cell says that there is no value: see MISSING."""
    return "".join(unicodedata.normalize("NFKC", text).casefold().split()) in MISSING


def split_of(text: str) -> str | None:
    """The split that a name stands for: of a folder, a channel, a list or in a cell; None where it is none."""
    return SPLIT_NAMES.get(plain(text))


@dataclass(frozen=True)
class Columns:
    """The columns of a table that somebody named; empty where nobody did.

    Attributes:
        image: with the name of the file.
        label: with the label; several for findings of 0 and 1.
        group: of what stays together, or NO_GROUP.
        split: with the name of a split.
        sheet: of a workbook that has several.
    """

    image: str = ""
    label: tuple[str, ...] = ()
    group: str = ""
    split: str = ""
    sheet: str = ""


def find_column(names: Sequence[str], wanted: str, what: str) -> str:
    """The column that somebody asked for.

    Args:
        names: of the table.
        wanted: in any case, with any punctuation; one that is written so is preferred.
        what: the table's name for messages.

    Raises:
        DatasetError: there is none, or several.
    """
    found = [name for name in names if plain(name) == plain(wanted)]
    exact = [name for name in found if name.lower() == wanted.strip().lower()]
    if not found:
        raise DatasetError(f"{what} has no column {some_of([wanted])}; it has {some_of(names)}")
    if len(exact or found) > 1:
        raise DatasetError(f"{what} has several columns {some_of(exact or found)}; rename all but one")
    return (exact or found)[0]


def usual_columns(names: Sequence[str], role: str) -> list[str]:
    """The columns that are called as one of the first rank of SPELLINGS[role] that is there."""
    for rank in SPELLINGS[role]:
        if found := [name for name in names if plain(name) in rank]:
            return found
    return []


def usual_column(names: Sequence[str], role: str, what: str) -> str:
    """The column for a role by its name, or "".

    Raises:
        DatasetError: several could be meant.
    """
    found = usual_columns(names, role)
    if len(found) > 1:
        raise DatasetError(
            f"{what} has several columns that could be the {role} ({some_of(found)}); name one with {role}_column "
            f"(--{role}-column)"
        )
    return found[0] if found else ""


def split_column(rows: Sequence[Mapping[str, str]], names: Sequence[str]) -> str:
    """The column with the split: one called so, or one of SPLIT_COLUMNS whose cells are all names of splits; or ""."""
    if usual := usual_columns(names, "split"):
        return usual[0]
    for name in names:
        if plain(name) in SPLIT_COLUMNS and rows and all(split_of(row[name]) for row in rows):
            return name
    return ""
