"""What is odd about data and was read all the same: each kind with a stable code and one sentence.

Readers of layouts and tables put remarks beside what they read; `doctor` shows them as issues, `prepare` and `train`
print them. Like issues they name nobody: counts, columns, and numbers of rows.
"""

from dataclasses import dataclass
from typing import Literal

Severity = Literal["error", "warning", "note"]


@dataclass(frozen=True)
class Remark:
    """One kind of thing that was noticed.

    Attributes:
        code: stable, a key of REMARKS.
        severity: "warning" where somebody should look, "note" where it is only said.
        message: what was read how, and what to do if that is not meant.
        count: how many it concerns.
        unit: what is counted.
    """

    code: str
    severity: Severity
    message: str
    count: int
    unit: str


# Code -> severity, unit and sentence; {n} is the count, other braces are filled where the remark is made.
REMARKS: dict[str, tuple[Severity, str, str]] = {
    "names_found_otherwise": ("note", "images", "{n} of {all} names in {what} are not written as their files are "
                              "called, and were found where only one can be meant: {ways}"),
    "masks_passed_over": ("note", "files", "{n} files are masks of images beside them, by their names: they are passed "
                          "over, and no images of a class; name one in a table if it is an image"),
    "masks_among_images": ("warning", "files", "{n} images are called as masks, and no image stands beside them, or "
                           "they show many values, or a table names them: they are taken for images; leave them out if "
                           "they are masks"),
}  # fmt: skip


def remark(code: str, count: int = 1, **values: object) -> Remark:
    """Make a remark with its sentence."""
    severity, unit, text = REMARKS[code]
    return Remark(code, severity, text.format(n=count, **values), count, unit)
