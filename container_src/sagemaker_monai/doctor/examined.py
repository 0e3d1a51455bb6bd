"""Images with their labels and what their files say: the rows of all comparisons."""

import hashlib
import os
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from sagemaker_monai.deidentification.matcher import Matcher
from sagemaker_monai.deidentification.profile import is_blank
from sagemaker_monai.doctor.facts import FileFacts
from sagemaker_monai.doctor.label_facts import Case, Labels, names_of

# PatientIDs that anonymisers write for everybody, in lower case.
NOBODY = frozenset({"", "anonymous", "anonymized", "anonymised", "anon", "unknown", "none", "removed", "na", "n/a",
                    "patient", "patientid", "id", "xxx"})  # fmt: skip


@dataclass(frozen=True)
class Examined:
    """A labelled image with its files, or a file without a label.

    Attributes:
        files: positions of its files in the list of facts; empty if they are missing.
        names: classes of its label.
        is_labelled: a table or folder says something about it.
        group: of the table, or "".
        split: or None.
        patient: PatientID, "" if it is unknown or the same for everybody.
        series: SeriesInstanceUID, or "".
        digest: of its pixels, empty if they are unknown, blank or incomplete.
    """

    files: tuple[int, ...]
    names: tuple[str, ...] = ()
    is_labelled: bool = False
    group: str = field(default="", repr=False)
    split: str | None = None
    patient: str = field(default="", repr=False)
    series: str = field(default="", repr=False)
    digest: bytes = field(default=b"", repr=False)
    case: Case | None = field(default=None, repr=False)

    @property
    def example(self) -> int:
        """The number of its first file, from 1; it must have one."""
        return self.files[0] + 1


def known_patient(patient_id: str) -> str:
    """A PatientID without padding, "" if it is empty or one that anonymisers write for everybody."""
    text = patient_id.strip(" \0")
    is_nobody = text.lower() in NOBODY or (is_blank(text) and not text.startswith("P-"))
    return "" if is_nobody else text


def patient_of(facts: FileFacts) -> str:
    """The `known_patient` of a file."""
    return known_patient(facts.instance.patient_id) if facts.instance else ""


def images_of(labels: Labels, files: Sequence[FileFacts]) -> list[Examined]:
    """Labelled images in the order of their table, then files with pictures and without a label."""
    owned: Mapping[str, list[int]] = defaultdict(list)
    for position, facts in enumerate(files):
        if facts.is_image or facts.fault:
            owned[facts.found.owner].append(position)
    images, used = [], set[int]()
    for case in labels.cases:
        positions = tuple(dict.fromkeys(each for path in case.paths for each in owned.get(os.path.realpath(path), ())))
        used |= set(positions)
        images.append(_examined(positions, files, case))
    masks = {os.path.realpath(path) for path in (*labels.masks, *labels.aside.masks)}
    rest = [
        position
        for position, facts in enumerate(files)
        if facts.is_image and position not in used and facts.found.owner not in masks
    ]
    return images + [_examined((position,), files, None) for position in rest]


def are_classes_folders(images: Sequence[Examined], files: Sequence[FileFacts]) -> bool:
    """Whether folders that look like classes are patients (named as the patient of all their images) or series."""
    labelled = [image for image in images if image.is_labelled and image.files]
    if not labelled or not all(image.names for image in labelled):
        return False
    classes: Mapping[str, list[Examined]] = defaultdict(list)
    for image in labelled:
        classes[image.names[0]].append(image)
    are_patients = all(
        image.patient and Matcher(files[image.files[0]].identity).in_name(image.names[0]) for image in labelled
    )
    are_series = all(len(own) > 1 and own[0].series and len({image.series for image in own}) == 1
                     for own in classes.values())  # fmt: skip
    return are_patients or are_series


def is_there(case: Case) -> bool:
    """Whether all files of a case exist."""
    try:
        return bool(case.paths) and all(Path(path).exists() for path in case.paths)
    except (OSError, ValueError):
        return False


def _examined(positions: tuple[int, ...], files: Sequence[FileFacts], case: Case | None) -> Examined:
    own = [files[position] for position in positions]
    return Examined(
        files=positions,
        names=names_of(case.label) if case else (),
        is_labelled=case is not None,
        group=case.group if case else "",
        split=case.split if case else None,
        patient=next((patient for facts in own if (patient := patient_of(facts))), ""),
        series=next((facts.instance.series_instance_uid for facts in own if facts.instance), ""),
        digest=_digest(own),
        case=case,
    )


def _digest(own: Sequence[FileFacts]) -> bytes:
    digests = [facts.pixels.digest if facts.pixels else b"" for facts in own]
    if not digests or not all(digests) or all(facts.pixels and facts.pixels.is_blank for facts in own):
        return b""
    return digests[0] if len(digests) == 1 else hashlib.sha256(b"".join(sorted(digests))).digest()
