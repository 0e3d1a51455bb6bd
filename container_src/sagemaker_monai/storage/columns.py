"""The roles of a table's columns and an item's keys, by their known spellings; and which cells count as empty.

Names are compared ignoring case, Unicode form, blanks and punctuation: `Image Name`, `image_name` and `IMAGENAME` are
the same. `label_values` interprets labels and `groups` finds the patients; nothing here opens a file.
"""

import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from sagemaker_monai.errors import DatasetError
from sagemaker_monai.messages.shortened import some_of

# Column names, as `plain` writes them, in ranks: the first rank that occurs must occur only once.
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
_MASKS = (
    "masks", "maskfile", "maskfilename", "maskname", "maskpath", "maskfilepath", "maskimage", "imagemask", "maskid",
    "masque", "mascara", "maschera", "maske", "maskendatei", "segmentation", "segmentations", "segmentationfile",
    "segmentationpath", "segmentationmask", "segmentationmaskpath", "seg", "segfile", "segpath", "labelmap",
    "labelmappath", "labelfile", "labelpath", "groundtruthmask", "groundtruthpath", "gtpath", "gtmask",
    "annotationpath", "annotationfile", "roimaskfile", "roimaskfilepath",
)  # fmt: skip
SPELLINGS: dict[str, tuple[tuple[str, ...], ...]] = {
    "image": (("image",), _IMAGES, ("id", "name", "key")),
    "label": (("label",), _LABELS),
    "mask": (("mask",), _MASKS, ("label", "labels", "groundtruth", "gt", "target", "annotation", "annotations")),
    "split": (("split",),),
    "group": (("group", "groups", "groupid"),),
}
# Columns that hold the split if every cell is the name of one.
SPLIT_COLUMNS = ("splits", "set", "subset", "partition", "phase", "usage", "dataset", "fold")
# Names of splits, as `plain` writes them: of folders, channels, lists and cells.
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
NO_GROUP = "none"  # as the name of the group column: every image is its own group

# Cells that spreadsheets, pandas, R and databases write for a missing value, in lower case and without blanks.
MISSING = frozenset({
    "", "nan", "-nan", "+nan", "na", "n/a", "n.a.", "n.a", "<na>", "#na", "#n/a", "#n/an/a", "#nv", "#value!", "#wert!",
    "#ref!", "#bezug!", "#div/0!", "#name?", "#null!", "#num!", "1.#ind", "-1.#ind", "1.#qnan", "-1.#qnan", "null",
    "<null>", "(null)", "none", "<none>", "(none)", "nil", "nat", "na_character_", "na_integer_", "na_real_", "\\n",
    "-", "--", "---", "\u2010", "\u2011", "\u2012", "\u2013", "\u2014", "\u2212", ".", "?", "??", "???", "missing",
    "(missing)", "(blank)", "(leer)", "(empty)", "notavailable", "notapplicable", "k.a.", "k.a", "keineangabe",
})  # fmt: skip
# Placeholders for a patient's number, besides MISSING: what anonymisers write for everybody.
NOBODY = frozenset({"anonymous", "anonymized", "anonymised", "anon", "unknown", "removed", "patient", "patientid", "id",
                    "xxx"})  # fmt: skip
# Words in the names of columns that identify patients, the coarsest first.
# Words with a * do so only with `id`, `number` or the like before or after them.
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
_PATIENT_LEVELS = 2  # the first levels, which are people


def plain(name: str) -> str:
    """A column name in the form in which names are compared: NFKC, without case, blanks and punctuation."""
    text = unicodedata.normalize("NFKC", name).casefold()
    return "".join(letter for letter in text if letter.isalnum() or unicodedata.combining(letter))


def _spellings(word: str) -> set[str]:
    """A word of _LEVELS with each of its endings before or after it."""
    bare = word.removesuffix("*")
    endings = _ENDINGS[1:] if word.endswith("*") else _ENDINGS
    return {plain(bare + ending) for ending in endings} | {plain(ending + bare) for ending in endings}


_RANKS = {name: rank for rank, words in enumerate(_LEVELS) for word in words for name in _spellings(word)}


def group_rank(name: str) -> int | None:
    """How coarse a column's groups are by its name, 0 for patients; None if it names no groups."""
    return _RANKS.get(plain(name))


def is_person(name: str) -> bool:
    """Whether a column names people rather than their cases, studies or lesions."""
    rank = group_rank(name)
    return rank is not None and rank < _PATIENT_LEVELS


def is_missing(text: str) -> bool:
    """Whether a cell means that there is no value: see MISSING."""
    return "".join(unicodedata.normalize("NFKC", text).casefold().split()) in MISSING


def split_of(text: str) -> str | None:
    """The split that the name of a folder, channel or list, or a cell, stands for; None if it stands for none."""
    return SPLIT_NAMES.get(plain(text))


@dataclass(frozen=True)
class Columns:
    """The columns of a table that the user named; empty for the others.

    Attributes:
        image: with the file names.
        label: with the label; several for findings of 0 and 1.
        group: of what stays together, or NO_GROUP.
        split: with the names of splits.
        sheet: of a workbook with several sheets.
    """

    image: str = ""
    label: tuple[str, ...] = ()
    group: str = ""
    split: str = ""
    sheet: str = ""


def find_column(names: Sequence[str], wanted: str, what: str) -> str:
    """Find the column that the user named.

    Args:
        names: of the table's columns.
        wanted: in any case and with any punctuation; an exact match is preferred.
        what: the table's name for messages.

    Raises:
        DatasetError: no column, or several, have this name.
    """
    found = [name for name in names if plain(name) == plain(wanted)]
    exact = [name for name in found if name.lower() == wanted.strip().lower()]
    if not found:
        raise DatasetError(f"{what} has no column {some_of([wanted])}; it has {some_of(names)}")
    if len(exact or found) > 1:
        raise DatasetError(f"{what} has several columns {some_of(exact or found)}; rename all but one")
    return (exact or found)[0]


def usual_columns(names: Sequence[str], role: str) -> list[str]:
    """The columns that match the first rank of SPELLINGS[role] with any match."""
    for rank in SPELLINGS[role]:
        if found := [name for name in names if plain(name) in rank]:
            return found
    return []


def usual_column(names: Sequence[str], role: str, what: str) -> str:
    """The column whose name fits a role, or "".

    Raises:
        DatasetError: several columns fit.
    """
    found = usual_columns(names, role)
    if len(found) > 1:
        raise DatasetError(
            f"{what} has several columns that could be the {role} ({some_of(found)}); name one with {role}_column "
            f"(--{role}-column)"
        )
    return found[0] if found else ""


def split_column(rows: Sequence[Mapping[str, str]], names: Sequence[str]) -> str:
    """The column named split, or one of SPLIT_COLUMNS whose cells are all names of splits; or ""."""
    if usual := usual_columns(names, "split"):
        return usual[0]
    for name in names:
        if plain(name) in SPLIT_COLUMNS and rows and all(split_of(row[name]) for row in rows):
            return name
    return ""
