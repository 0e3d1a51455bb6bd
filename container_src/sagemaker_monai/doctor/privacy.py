"""What may identify patients in headers, pixels and file names, and the filter that keeps it out of the report.

Nothing here returns a value: attributes are counted by keyword. Texts of headers and names of classes are shown only if
they contain no PatientID, name, long number or UID of any file.
"""

import re
from collections import Counter
from collections.abc import Iterable, Sequence

from sagemaker_monai.deidentification.identity import union
from sagemaker_monai.deidentification.matcher import Matcher
from sagemaker_monai.doctor.facts import FileFacts
from sagemaker_monai.doctor.found_files import DICOM, PICTURE
from sagemaker_monai.messages.remarks import Remark, found
from sagemaker_monai.messages.shortened import some_of
from sagemaker_monai.storage.file_names import is_fit

MAX_SHOWN = 60  # characters
WITHHELD = "(withheld)"
_NUMBERS = re.compile(r"\d{6,}|(?:\d+\.){4,}\d+|(?:19|20)\d\d[-./]\d\d?[-./]\d\d?")  # dates, record numbers, UIDs


class Scrubber:
    """Knows the identities in the examined files, and withholds them in texts."""

    def __init__(self, files: Iterable[FileFacts]) -> None:
        self._matcher = Matcher(union(facts.identity for facts in files))

    def shown(self, text: str) -> str:
        """The text on one line, cut, or WITHHELD."""
        line = " ".join("".join(c if is_fit(c) else " " for c in text).split())
        return WITHHELD if self.is_personal(line) else line if len(line) <= MAX_SHOWN else line[: MAX_SHOWN - 1] + "…"

    def sentence(self, text: str) -> str:
        """One of our sentences, with single words withheld that it quotes."""
        line = " ".join("".join(c if is_fit(c) else " " for c in text).split())
        return " ".join(WITHHELD if self.is_personal(word) else word for word in line.split())

    def is_personal(self, text: str) -> bool:
        """Whether it may contain somebody's name, number or date."""
        return bool(_NUMBERS.search(text) or self._matcher.in_text(text, parts=False))


def check_privacy(files: Sequence[FileFacts], scrubber: Scrubber) -> tuple[dict[str, object], list[Remark]]:
    """Count what may identify patients.

    Returns:
        For the report: headers examined, attributes by keyword, private attributes, the risk of text in the pixels by
        Modality, names with a patient; and the remarks.
    """
    looked = [(position, facts) for position, facts in enumerate(files, start=1) if facts.privacy is not None]
    headers = [(position, facts) for position, facts in looked if facts.found.kind == DICOM]
    attributes, kinds, private_files = Counter[str](), Counter[str](), []
    burned: dict[str, Counter[str]] = {}
    risky: dict[str, list[int]] = {"stated": [], "likely": []}
    modalities = Counter[str]()
    for position, facts in headers:
        assert facts.privacy is not None
        assert facts.instance is not None
        attributes.update({keyword for keyword, _ in facts.privacy.found})
        kinds.update({kind for _, kind in facts.privacy.found})
        private_files += [position] if facts.privacy.private else []
        modality = scrubber.shown(facts.instance.modality) or "(none)"
        risk = facts.privacy.burned_in
        burned.setdefault(modality, Counter())[risk] += 1
        if facts.privacy.has_regions:
            burned[modality]["with known regions"] += 1
        if risk in risky:
            risky[risk].append(position)
            modalities[modality] += risk == "likely"
    identified = [(position, facts.found.kind) for position, facts in looked if facts.privacy and facts.privacy.found]
    in_headers = [position for position, kind in identified if kind == DICOM]
    named = [position for position, facts in enumerate(files, start=1) if is_in_name(facts)]
    remarks = [
        *found("phi_in_headers", in_headers, kinds=_counted(kinds)),
        *found("private_attributes", private_files),
        *found("burned_in_stated", risky["stated"]),
        *found("burned_in_likely", risky["likely"], modalities=_counted(modalities)),
        *found("phi_in_names", named),
        *found("phi_in_volumes", [position for position, kind in identified if kind not in (DICOM, PICTURE)]),
        *found("phi_in_pictures", [position for position, kind in identified if kind == PICTURE]),
    ]
    section = {
        "headers_examined": len(headers),
        "headers_with_phi": len(in_headers),
        "attributes": _ordered(attributes),
        "kinds": _ordered(kinds),
        "files_with_private_attributes": len(private_files),
        "burned_in": {modality: _ordered(counts) for modality, counts in sorted(burned.items())},
        "names_with_patient": len(named),
    }
    return section, remarks


def is_in_name(facts: FileFacts) -> bool:
    """Whether the name of a file or of a folder above it holds what identifies somebody in its own header."""
    return bool(Matcher(facts.identity).in_name(facts.found.name))


def _ordered(counts: Counter[str]) -> dict[str, int]:
    """The most frequent first, ties in the order of their names: the same in every run."""
    return dict(sorted(counts.items(), key=lambda each: (-each[1], each[0])))


def _counted(counts: Counter[str]) -> str:
    return some_of([f"{name} {count}" for name, count in _ordered(counts).items()])
