"""Attributes that can distinguish volumes at the same position, and when two of their values are the same.

They are tried in the order of the table: first those that say what a volume is (echo, energy, b-value, kernel, kind of
image), then counters, then cardiac and respiratory phase, and clocks last, because they also change within a volume.
"""

import math
import re
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

SAME_NUMBER = 1e-4  # of a number: what rounding of a header does to an echo time
SAME_PART = 1e-3  # of a part of a vector, such as a direction's cosine
MAX_KINDS = 1024  # of vectors that others are compared with; a radial scan has some hundreds

Kind = Literal["setting", "label", "beat", "clock"]


@dataclass(frozen=True)
class Discriminator:
    """What an attribute says about a slice.

    Attributes:
        kind: "setting": how slices were measured or made; a volume has one value, even where no slices share a place.
            "label": a word or counter that may also change within a volume. "beat": a time since the start of the heart
            beat or breath, nearly the same for all slices of one phase. "clock": when a slice was taken; slices of
            one volume follow each other, and those of the next come after them.
        date: the keyword of the date that a time belongs to.
    """

    kind: Kind
    date: str = ""


# In the order in which they are tried; a frame's own value is looked up as `elements.GROUPS` says.
_TABLE: tuple[tuple[Kind, str], ...] = (
    ("label", "StackID ReferencedSegmentNumber TemporalPositionIndex TemporalPositionIdentifier "
     "TemporalPositionTimeOffset"),
    ("setting", "KVP EffectiveEchoTime EchoNumbers EchoTime DiffusionBValue DiffusionGradientOrientation"),
    ("label", "InversionTime InversionTimes FlipAngle RepetitionTime SequenceName"),
    ("setting", "ConvolutionKernel"),
    ("label", "FilterType ReconstructionDiameter ReconstructionTargetCenterPatient ReconstructionAlgorithm "
     "SliceThickness FrameType ComplexImageComponent ImageType DerivationDescription ContrastBolusAgent SeriesNumber "
     "SeriesDescription ProtocolName FrameAcquisitionNumber AcquisitionNumber NominalPercentageOfCardiacPhase "
     "NominalPercentageOfRespiratoryPhase"),
    ("beat", "NominalCardiacTriggerDelayTime NominalRespiratoryTriggerDelayTime TriggerTime"),
    ("clock", "FrameReferenceTime FrameAcquisitionDateTime FrameReferenceDateTime AcquisitionDateTime AcquisitionTime "
     "ContentTime"),
)  # fmt: skip
_DATES = {"AcquisitionTime": "AcquisitionDate", "ContentTime": "ContentDate"}
DISCRIMINATORS = {name: Discriminator(kind, _DATES.get(name, "")) for kind, names in _TABLE for name in names.split()}
SETTINGS = tuple(name for name, row in DISCRIMINATORS.items() if row.kind == "setting")
NO_DATE = "00000000"
_MOMENT = re.compile(r"(\d{4})(\d\d)(\d\d)(\d\d)(\d\d)?(\d\d)?(\.\d*)?([+-]\d{4})?")


def number_kinds(texts: Sequence[str]) -> list[int]:
    """Number texts from 0 in the order of their values; texts that mean the same get the same number.

    Args:
        texts: values of one attribute, multiple ones joined with a backslash. Numbers that differ by rounding are the
            same, whole numbers only if equal; words are compared without case and surrounding spaces.
    """
    words: dict[str, Hashable] = {}
    numbers: dict[str, tuple[float, ...]] = {}
    for text in set(texts):
        if (parsed := _numbers(text)) is None:
            words[text] = "\\".join(part.strip().casefold() for part in text.split("\\"))
        else:
            numbers[text] = parsed
    keys: dict[str, tuple[int, Hashable]] = {text: (2, word) for text, word in words.items()}
    last, kind = math.nan, -1
    for text in sorted((text for text, parsed in numbers.items() if len(parsed) == 1), key=lambda text: numbers[text]):
        value = numbers[text][0]
        both_whole = value.is_integer() and last.is_integer()
        if not (value == last or (not both_whole and math.isclose(value, last, rel_tol=SAME_NUMBER, abs_tol=1e-9))):
            kind += 1
        last = value
        keys[text] = (0, kind)
    for count in sorted({len(parsed) for parsed in numbers.values()} - {1}):
        vectors = sorted((numbers[text], text) for text in numbers if len(numbers[text]) == count)
        for (_, text), found in zip(vectors, alike([vector for vector, _ in vectors], SAME_PART), strict=True):
            keys[text] = (1, (count, found))
    order = {key: number for number, key in enumerate(sorted(set(keys.values()), key=_rank_of))}
    return [order[keys[text]] for text in texts]


def _rank_of(key: tuple[int, Hashable]) -> tuple[int, int, str]:
    """Sorts numbers by value, then vectors, then words."""
    rank, value = key
    return (rank, value, "") if isinstance(value, int) else (rank, 0, repr(value))


def _numbers(text: str) -> tuple[float, ...] | None:
    try:
        parsed = tuple(float(part) for part in text.split("\\"))
    except ValueError:
        return None
    return parsed if all(map(math.isfinite, parsed)) else None


def alike(vectors: Sequence[Sequence[float]], tolerance: float) -> list[int]:
    """Number vectors of one length by kind, in order of appearance; near ones are of one kind."""
    if not vectors:
        return []
    kinds = np.empty((MAX_KINDS, len(vectors[0])))
    count = 0
    numbers: dict[tuple[float, ...], int] = {}
    for vector in map(tuple, vectors):
        if vector in numbers:
            continue
        near = np.flatnonzero(np.abs(kinds[:count] - vector).max(axis=1, initial=0) < tolerance)
        numbers[vector] = int(near[0]) if len(near) else len(numbers) + MAX_KINDS
        if not len(near) and count < MAX_KINDS:
            kinds[count] = vector
            numbers[vector] = count
            count += 1
    return [numbers[tuple(vector)] for vector in vectors]


def seconds_of(text: str) -> float | None:
    """A moment (YYYYMMDDHHMMSS.F, `NO_DATE` for an unknown day) or a number, as a number that grows with time."""
    match = _MOMENT.fullmatch(text.replace(":", "").strip())
    if match is None:
        parsed = _numbers(text)
        return parsed[0] if parsed and len(parsed) == 1 else None
    year, month, day, hour, minute, second = (int(part or 0) for part in match.groups()[:6])
    days = (year * 12 + month) * 31 + day  # it only has to grow with the date
    return ((days * 24 + hour) * 60 + minute) * 60.0 + second + float(match[7] if len(match[7] or "") > 1 else 0)
