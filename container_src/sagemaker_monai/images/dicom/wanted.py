"""What somebody asks for of the series of a study; `dicom.choice` applies it. Nothing is imported that takes time."""

import re
from dataclasses import dataclass

from sagemaker_monai.errors import ConfigError

MOST, THINNEST, NEWEST, ALL, ONLY = "most-slices", "thinnest", "newest", "all", "only"
RULES = (MOST, THINNEST, NEWEST, ALL, ONLY)
MODALITY = re.compile(r"[A-Za-z0-9_ ]{1,16}")
MAX_PATTERN_CHARS = 200


@dataclass(frozen=True)
class Choice:
    """What is asked for.

    Attributes:
        modality: values of Modality; with one that is no image's, such as SEG, those objects are meant. Empty: any.
        description: a pattern for SeriesDescription with * and ?, in any case; empty: any.
        series: one of RULES, "only" refusing several; or a SeriesInstanceUID, or several with commas.
    """

    modality: tuple[str, ...] = ()
    description: str = ""
    series: str = MOST

    @classmethod
    def of(cls, modality: str, description: str, series: str) -> "Choice":
        """The choice of three texts, modalities with commas between them.

        Raises:
            ConfigError: as `check`.
        """
        choice = cls(tuple(part.strip() for part in modality.split(",") if part.strip()), description, series)
        choice.check()
        return choice

    @property
    def uids(self) -> frozenset[str]:
        """The series that are named by their UIDs."""
        named = () if self.series in RULES else self.series.split(",")
        return frozenset(part.strip() for part in named)

    def check(self) -> None:
        """Refuse values that are none.

        Raises:
            ConfigError: with the values that are.
        """
        if not all(MODALITY.fullmatch(each) for each in self.modality):
            raise ConfigError("modality must be values of Modality with commas between them, such as CT or MR,PT")
        if len(self.description) > MAX_PATTERN_CHARS:
            raise ConfigError(f"series-description has more than {MAX_PATTERN_CHARS} characters; shorten the pattern")
        if not all(set(uid) <= set("0123456789.") and uid for uid in self.uids):
            raise ConfigError(f"series must be one of {', '.join(RULES)}, or SeriesInstanceUIDs with commas")


OF_ONE = Choice(series=ONLY)
