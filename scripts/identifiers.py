"""Patients' numbers and UIDs of DICOM files that stand in names and lists, and what replaces them there.

Folders are named by a SeriesInstanceUID, groups are PatientIDs, and a table copies both. When the files are
de-identified, these must follow, or the data set tells what its files no longer do; and they must follow in the same
way, so that a name still is that of its series.
"""

import csv
import io
import json
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from pydicom import Dataset

from sagemaker_monai.dataset_json import DATASET_JSON
from sagemaker_monai.deidentification.identity import compile_needles, needles
from sagemaker_monai.deidentification.profile import is_blank
from sagemaker_monai.deidentification.pseudonyms import mapped_uid, pseudonym

UID_KEYWORDS = ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID", "FrameOfReferenceUID")
NUMBER_KEYWORDS = ("OtherPatientIDs", "AccessionNumber", "StudyID", "IssuerOfPatientID")
SHORTEST = 4  # characters of a number that is looked for inside of a name; a shorter one must be the whole of it
SHORTEST_NAME = 3
UID = re.compile(r"(?<![0-9.])[0-2](?:\.[0-9]+)+")
NAME_SEPARATORS = re.compile(r"[\^=\s,;]+")
NOT_TEXT = frozenset({"labels", "label"})  # of dataset.json: class names, which are the data set's own


@dataclass
class Identifiers:
    """What of a data set's headers must stand in no name and no list.

    Attributes:
        uids: of studies, series, objects and frames of reference.
        patients: PatientIDs.
        words: parts of patients' names, other numbers; nothing replaces them.
    """

    uids: set[str] = field(default_factory=set)
    patients: set[str] = field(default_factory=set)
    words: set[str] = field(default_factory=set)

    def add(self, header: Dataset) -> None:
        """Add one file's; pseudonyms tell nothing, and must stay what they are where files with them are mixed in."""
        self.uids |= {text for keyword in UID_KEYWORDS if (text := _text(header, keyword))}
        if (patient := _text(header, "PatientID")) and not is_blank(patient):
            self.patients.add(patient)
        self.words |= {text for keyword in NUMBER_KEYWORDS if len(text := _text(header, keyword)) >= SHORTEST}
        names = NAME_SEPARATORS.split(_text(header, "PatientName"))
        self.words |= {part for part in names if len(part) >= SHORTEST_NAME and not is_blank(part)}


def _text(header: Dataset, keyword: str) -> str:
    return str(header.get(keyword) or "").strip(" \0")


class Replacer:
    """Replaces the identifiers of a data set in texts, with one salt."""

    def __init__(self, found: Identifiers, salt: bytes) -> None:
        self._uids, self._salt = found.uids, salt
        self._patients = {each.lower(): pseudonym(salt, each) for each in found.patients}
        long = sorted((each for each in self._patients if len(each) >= SHORTEST), key=len, reverse=True)
        self._numbers = (
            re.compile(rf"(?<![0-9A-Za-z])(?:{'|'.join(map(re.escape, long))})(?![0-9A-Za-z])", re.I) if long else None
        )
        words = {each for each in found.words | found.patients if len(each) >= SHORTEST_NAME}
        self._left = compile_needles(needles({each.lower() for each in words}, ("utf-8",)))

    def __call__(self, text: str) -> str:
        """The text with pseudonyms in the place of PatientIDs, and new UIDs in that of old ones."""
        if (whole := self._patients.get(text.lower())) is not None:
            return whole
        text = UID.sub(self._mapped, text)
        if self._numbers is not None:
            text = self._numbers.sub(lambda match: self._patients[match[0].lower()], text)
        return text

    def name(self, name: str) -> str:
        """The same for each part of a path, or of any text; a file that is called as a patient keeps its suffix."""
        parts = []
        for part in name.split("/"):
            stem, dot, suffix = part.partition(".")
            whole = self._patients.get(stem.lower())
            parts.append(self(part) if whole is None else whole + dot + suffix)
        return "/".join(parts)

    def is_telling(self, text: str) -> bool:
        """Whether a text still has a name, a number or a UID."""
        has_words = self._left is not None and self._left.search(text.lower().encode("utf-8", "surrogateescape"))
        return bool(has_words) or any(self._known(match[0])[0] for match in UID.finditer(text))

    def _known(self, uid: str) -> tuple[str, str]:
        """The longest beginning that is a UID of the data set, and the rest: a file may have a number behind it."""
        parts = uid.split(".")
        for end in range(len(parts), 4, -1):
            if (start := ".".join(parts[:end])) in self._uids:
                return start, uid[len(start) :]
        return "", uid

    def _mapped(self, match: re.Match[str]) -> str:
        start, rest = self._known(match[0])
        return mapped_uid(self._salt, start) + rest if start else match[0]


def rewritten(name: str, content: bytes, replace: Replacer) -> tuple[bytes, list[str]]:
    """A list of images with its identifiers replaced.

    Args:
        name: of the file: dataset.json, or a CSV file.
        content: of the file, which `train` can read.
        replace: of the data set.

    Returns:
        The new content, the old one to the byte where nothing is to be replaced; and the keys or columns in which
        something still tells who somebody is.
    """
    telling: dict[str, None] = {}

    def new(key: str, text: str) -> str:
        result = replace.name(text)
        if replace.is_telling(result):
            telling[key] = None
        return result

    change = _json if name == DATASET_JSON else _csv
    result = change(content, new)
    return (content if result is None else result), list(telling)


Change = Callable[[str, str], str]


def _json(content: bytes, new: Change) -> bytes | None:
    def walk(key: str, value: Any) -> Any:
        if isinstance(value, dict):
            return {name: each if name in NOT_TEXT else walk(name, each) for name, each in value.items()}
        if isinstance(value, list):
            return [walk(key, each) for each in value]
        return new(key, value) if isinstance(value, str) else value

    before = json.loads(content.decode("utf-8-sig"))
    after = walk("", before)
    return None if before == after else (json.dumps(after, indent=1, ensure_ascii=False) + "\n").encode()


def _csv(content: bytes, new: Change) -> bytes | None:
    rows = list(csv.reader(io.StringIO(content.decode("utf-8-sig"), newline="")))
    head = rows[0] if rows else []
    kept = {index for index, column in enumerate(head) if column.strip().lower() in NOT_TEXT}

    def cells(row: Iterable[str]) -> list[str]:
        return [
            cell if index in kept else new(head[index] if index < len(head) else "", cell)
            for index, cell in enumerate(row)
        ]

    changed = [head, *(cells(row) for row in rows[1:])]
    if changed == rows:
        return None
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(changed)
    return text.getvalue().encode()
