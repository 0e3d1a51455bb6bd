"""Which series of a study the user asks for; `dicom.choice` applies it. Imports nothing slow."""

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
        modality: values of Modality, also of objects that are not images, such as SEG. Empty: any.
        description: a pattern for SeriesDescription with * and ?, ignoring case. Empty: any.
        series: one of RULES ("only" refuses several), or SeriesInstanceUIDs separated by commas.
    """

    modality: tuple[str, ...] = ()
    description: str = ""
    series: str = MOST

    @classmethod
    def of(cls, modality: str, description: str, series: str) -> "Choice":
        """The choice given as three texts, modalities separated by commas; raises like `check`."""
        choice = cls(tuple(part.strip() for part in modality.split(",") if part.strip()), description, series)
        choice.check()
        return choice

    @property
    def uids(self) -> frozenset[str]:
        """The UIDs of the series asked for."""
        named = () if self.series in RULES else self.series.split(",")
        return frozenset(part.strip() for part in named)

    def check(self) -> None:
        """Refuse invalid values with ConfigError, which names the valid ones."""
        if not all(MODALITY.fullmatch(each) for each in self.modality):
            raise ConfigError("modality must be values of Modality separated by commas, such as CT or MR,PT")
        if len(self.description) > MAX_PATTERN_CHARS:
            raise ConfigError(f"series-description has more than {MAX_PATTERN_CHARS} characters; shorten the pattern")
        if not all(set(uid) <= set("0123456789.") and uid for uid in self.uids):
            raise ConfigError(f"series must be one of {', '.join(RULES)}, or SeriesInstanceUIDs separated by commas")


OF_ONE = Choice(series=ONLY)
