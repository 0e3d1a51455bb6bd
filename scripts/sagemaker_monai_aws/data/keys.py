"""Names that must not go to S3: those that may identify a patient, and those that S3 or a training job cannot handle.

A key is not secret: it appears in access logs, lists, error messages and batch transform results, even if the object
is encrypted. So names are checked before anything is uploaded. The check is a heuristic in both directions: a pseudonym
may look like a name, and a name in an unusual form is missed.

Sources: 45 CFR 164.514(b)(2)(i) (the identifiers of the Safe Harbor method: names, dates except the year, numbers of
records, of accounts and of social security, addresses of e-mail); DICOM PS3.5 6.2 (PN has carets); S3 User Guide,
"Naming Amazon S3 objects" (1,024 bytes, periods).
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass

from sagemaker_monai.storage.file_names import is_fit

LONGEST_KEY = 1024  # bytes of UTF-8
# Common given names that are no words of a medical image's class or folder; next to another word they are a person.
GIVEN_NAMES = (
    "ahmed|alexander|alice|andrea|andreas|anna|antonio|carlos|carmen|charles|christian|christine|daniel|david|"
    "elena|elisabeth|elizabeth|emily|emma|fatima|francesco|giovanni|giuseppe|hans|helen|ivan|james|jane|"
    "jean|jennifer|jessica|johann|johannes|john|jose|joseph|juan|julia|karen|karl|katharina|klaus|laura|linda|lisa|"
    "luca|luis|manuel|marco|maria|marie|martin|mary|michael|mohamed|mohammed|monika|nancy|olga|patricia|paul|peter|"
    "pierre|richard|robert|sarah|sophie|stefan|susan|thomas|ursula|walter|wolfgang"
)
WORD = r"[^\W\d_]{2,}"
BEFORE, AFTER = r"(?<![0-9A-Za-z.])", r"(?![0-9A-Za-z])"
DATE = (
    r"(?:(?:19|20)\d\d([-_.]?)(?:0[1-9]|1[0-2])\1(?:0[1-9]|[12]\d|3[01])"
    r"|(?:0?[1-9]|[12]\d|3[01])([-_.])(?:0?[1-9]|1[0-2])\2(?:19|20)\d\d)"
)
# Digits and words that identify nobody are ignored: DICOM UIDs, UUIDs and digests.
MEANINGLESS = re.compile(
    r"(?<![\d.])[0-2](?:\.\d+){4,}|[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}|(?<![0-9A-Za-z])[0-9a-f]{32,64}"
    r"(?![0-9A-Za-z])",
    re.I,
)


@dataclass(frozen=True)
class Rule:
    """A row of PRIVATE: how an identifier looks in a name, and what to call it."""

    what: str
    pattern: re.Pattern[str]


PRIVATE = (
    Rule("an e-mail address", re.compile(r"[\w.+-]+@[\w-]+\.[\w.-]+")),
    Rule("a social security number", re.compile(rf"{BEFORE}\d{{3}}-\d{{2}}-\d{{4}}{AFTER}")),
    Rule(
        "a date of birth",
        re.compile(
            r"(?<![a-z])(?:dob|birth[-_ ]?da(?:te|y)|date[-_ ]?of[-_ ]?birth|born|geb(?:oren|urtsdatum)?)(?![a-z])",
            re.I,
        ),
    ),
    Rule("a date", re.compile(BEFORE + DATE + AFTER)),
    Rule(
        "a record or accession number",
        re.compile(
            r"(?<![a-z])(?:mrn|medical[-_ ]?record|accession|acc[-_ ]?(?:no|nr|num)|fallnummer|insurance|ssn)[a-z]*"
            r"[-_ #:=.]*[a-z]{0,3}[-_ ]?\d{3,}",
            re.I,
        ),
    ),
    Rule("a patient's name", re.compile(rf"{WORD}\^{WORD}|{WORD}, ?[A-Z]{WORD}|(?i:patients?[-_ ]?name)")),
    # Not Mr and Ms, which are magnetic resonance and multiple sclerosis.
    Rule("a patient's name", re.compile(rf"(?i)(?<![a-z])(?:mrs|herr|frau|mme|mlle)[-_. ]+{WORD}")),
    Rule(
        "a patient's name",
        re.compile(rf"(?i)(?<![^\W\d_])(?:(?:{GIVEN_NAMES})[-_ ]+{WORD}|{WORD}[-_ ]+(?:{GIVEN_NAMES})(?![^\W\d_]))"),
    ),
)
PRIVATE_COLUMN = re.compile(
    r"name|birth|dob|ssn|social.?security|mrn|medical.?record|accession|e-?mail|address|phone|insurance", re.I
)
# Columns of images or classes are often called a name.
HARMLESS_COLUMN = re.compile(r"(file|image|class|label|lesion|dataset|diagnosis|dx|device|model)[-_ ]?name", re.I)


def private_in(name: str) -> str | None:
    """Which part of a path may identify a person; None if nothing does."""
    for part in name.split("/"):
        text = MEANINGLESS.sub("#", part)
        for rule in PRIVATE:
            if rule.pattern.search(text):
                return rule.what
    return None


def masked(name: str) -> str:
    """A name with letters and digits masked, so that it can be found but reveals nothing; the suffix stays."""
    stem, dot, suffix = name.rpartition(".")
    if not dot or "/" in suffix or len(suffix) > 5:
        stem, dot, suffix = name, "", ""
    return re.sub(r"\d", "9", re.sub(r"[^\W\d_]", "x", stem)) + dot + suffix


def private_columns(columns: Iterable[str]) -> list[str]:
    """Columns of a table whose names suggest personal data."""
    return sorted(name for name in columns if PRIVATE_COLUMN.search(name) and not HARMLESS_COLUMN.search(name))


def unusable(key: str) -> str | None:
    """Why S3, or a job that writes it to a file, cannot use a key; None if they can."""
    parts = key.split("/")
    if len(key.encode("utf-8", "surrogatepass")) > LONGEST_KEY:
        return f"has more than {LONGEST_KEY} bytes"
    if "" in parts:
        return "has // or a slash at an end, of which no file can be made"
    if "." in parts or ".." in parts:
        return "has . or .. as a folder"
    if any(part.endswith(".") for part in parts):
        return "has a name that ends in a period, which tools drop"
    if not is_fit(key) or "\\" in key:
        return "has control characters, broken ones or a backslash"
    return None


def both_file_and_folder(keys: Iterable[str]) -> list[str]:
    """Keys that are also the folder of another key, so that a job cannot write both to disk."""
    every = set(keys)
    folders = {"/".join(parts[:depth]) for parts in (key.split("/") for key in every) for depth in range(1, len(parts))}
    return sorted(every & folders)
