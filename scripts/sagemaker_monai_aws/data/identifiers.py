"""Patient numbers and DICOM UIDs in file names and lists, and their replacements.

Folders are named by a SeriesInstanceUID, groups are PatientIDs, and a table copies both. When the files are
de-identified, these must follow, or the data set tells what its files no longer do; and they must follow in the same
way, so that a name still is that of its series.
"""

import csv
import io
import json
import re
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any

from pydicom import Dataset

from sagemaker_monai.data.dataset_json import DATASET_JSON
from sagemaker_monai.deidentification.identity import Identity, identity_of, union
from sagemaker_monai.deidentification.matcher import Matcher
from sagemaker_monai.deidentification.profile import is_blank
from sagemaker_monai.deidentification.pseudonyms import mapped_uid, pseudonym
from sagemaker_monai.images.dicom.elements import text_of

SHORTEST = 4  # characters of a PatientID that is looked for inside of a name; a shorter one must be the whole of it
UID = re.compile(r"(?<![0-9.])[0-2](?:\.[0-9]+)+")
NOT_TEXT = frozenset({"labels", "label"})  # of dataset.json: class names, which are the data set's own
REPLACED = "\n"  # stands for what was replaced where the rest of a text is searched


class Identifiers:
    """What of a data set's headers must stand in no name and no list.

    Attributes:
        patients: PatientIDs, which are replaced, as UIDs are.
    """

    def __init__(self) -> None:
        self.patients: set[str] = set()
        self._identities: dict[Identity, Identity] = {}
        self._uids: set[str] = set()

    def add(self, header: Dataset) -> Identity:
        """Add one file's; pseudonyms tell nothing, and must stay what they are where files with them are mixed in.

        Returns:
            What identifies people in this file, without UIDs: one object for all files that have the same.
        """
        if (patient := text_of(header, "PatientID")) and not is_blank(patient):
            self.patients.add(patient)
        identity = identity_of(header)
        self._uids |= identity.uids
        person = replace(identity, uids=frozenset())
        return self._identities.setdefault(person, person)

    @property
    def identity(self) -> Identity:
        """Of all people of the data set."""
        return replace(union(self._identities), uids=frozenset(self._uids))


class Replacer:
    """Replaces the identifiers of a data set in texts, with one salt."""

    def __init__(self, found: Identifiers, salt: bytes) -> None:
        identity = found.identity
        self._uids, self._salt = identity.uids, salt
        self._patients = {each.lower(): pseudonym(salt, each) for each in found.patients}
        long = sorted((each for each in self._patients if len(each) >= SHORTEST), key=len, reverse=True)
        self._numbers = (
            re.compile(rf"(?<![0-9A-Za-z])(?:{'|'.join(map(re.escape, long))})(?![0-9A-Za-z])", re.I) if long else None
        )
        self._matcher = Matcher(replace(identity, uids=frozenset()))

    def name(self, name: str) -> str:
        """A path, or any text, with pseudonyms in the place of PatientIDs, and new UIDs in that of old ones.

        A file that is called as a patient keeps its suffix.
        """
        return self._replaced(name, self._patients.__getitem__, self._mapped)

    def is_telling(self, name: str, own: Identity | None = None) -> bool:
        """Whether a path or a text has a name, a number or a date that `name` does not replace.

        Args:
            name: of a file, or a text.
            own: of the file that is called so. Of its patient the complete rules hold, except parts of numbers, which
                files are counted by; what all patients of a data set are called stands in other words by chance.
        """
        rest = self._replaced(
            name, lambda _: REPLACED, lambda match: REPLACED if self._known(match[0])[0] else match[0]
        )
        if own is not None and Matcher(own).in_name(rest):
            return True
        return bool(self._matcher.in_text(rest, parts=False))

    def _replaced(self, name: str, patient: Callable[[str], str], uid: Callable[[re.Match[str]], str]) -> str:
        def changed(part: str) -> str:
            stem, dot, suffix = part.partition(".")
            for whole, rest in ((stem.lower(), dot + suffix), (part.lower(), "")):
                if whole in self._patients:
                    return patient(whole) + rest
            part = UID.sub(uid, part)
            return part if self._numbers is None else self._numbers.sub(lambda match: patient(match[0].lower()), part)

        return "/".join(map(changed, name.split("/")))

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


def rewritten(name: str, content: bytes, replacer: Replacer) -> tuple[bytes, list[str]]:
    """A list of images with its identifiers replaced.

    Args:
        name: of the file: dataset.json, or a CSV file.
        content: of the file, which `train` can read.
        replacer: of the data set.

    Returns:
        The new content, the old one to the byte where nothing is to be replaced; and the keys or columns in which
        something still identifies a person.
    """
    telling: dict[str, None] = {}

    def new(key: str, text: str) -> str:
        if replacer.is_telling(text):
            telling[key] = None
        return replacer.name(text)

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
