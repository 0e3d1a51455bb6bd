"""Numbers as people write them, and outliers among them: codes for "not measured", typing errors.

The decimal mark is a point or a comma. `1,234` is a little above one or above a thousand: the rest of its column
decides, and if it does not, the number is unclear and not read.
"""

import math
import re
import unicodedata
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

_SIGNS = str.maketrans({"\u2212": "-", "\u2013": "-", "\u2010": "-", "\u2011": "-"})
_POINT = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?")
_COMMA = re.compile(r"[+-]?(\d+,\d*|,\d+)(e[+-]?\d+)?")
_THREE_DIGITS = re.compile(r"[+-]?[1-9]\d{0,2}[.,]\d{3}")  # after the mark, which may separate thousands
_COMMA_THOUSANDS = re.compile(r"[+-]?\d{1,3}(,\d{3})+\.\d+|[+-]?\d{1,3}(,\d{3}){2,}")
_POINT_THOUSANDS = re.compile(r"[+-]?\d{1,3}(\.\d{3})+,\d+|[+-]?\d{1,3}(\.\d{3}){2,}")
_BLANK_THOUSANDS = re.compile(r"(?<=\d)[ '\u2019](?=\d{3}(\D|$))")

FEWEST_TO_COMPARE = 8  # numbers, below which only codes can be called far off
FENCE = 10.0  # interquartile ranges from the quartiles (of logarithms LOG_FENCE): a normal distribution has none there
LOG_FENCE = 3.0
_CODE = re.compile(r"-1|-9|-?(7{2,}|8{2,}|9{2,})")


@dataclass(frozen=True)
class Numbers:
    """Cells as numbers, None for those that are not finite numbers; `unclear` has the positions of ambiguous ones."""

    values: tuple[float | None, ...]
    unclear: tuple[int, ...] = ()


def numbers_of(texts: Sequence[str]) -> Numbers:
    """Read a column of numbers with decimal point or comma, and with thousands separators if they are unambiguous."""
    cells = [_BLANK_THOUSANDS.sub("", unicodedata.normalize("NFKC", text).strip().translate(_SIGNS).lower())
             for text in texts]  # fmt: skip
    clear = [cell for cell in cells if not _THREE_DIGITS.fullmatch(cell)]
    groups = {",": any(map(_COMMA_THOUSANDS.fullmatch, clear)), ".": any(map(_POINT_THOUSANDS.fullmatch, clear))}
    decimals = {
        ",": any(_COMMA.fullmatch(cell) or ("," in cell and _POINT_THOUSANDS.fullmatch(cell)) for cell in clear),
        ".": any("." in cell and (_POINT.fullmatch(cell) or _COMMA_THOUSANDS.fullmatch(cell)) for cell in clear),
    }
    values: list[float | None] = []
    unclear = []
    for position, written in enumerate(cells):
        cell = written
        if _THREE_DIGITS.fullmatch(cell):
            mark, other = (",", ".") if "," in cell else (".", ",")
            is_decimal = not groups[mark] and not decimals[other] and (decimals[mark] or mark == ".")
            if not is_decimal and not (groups[mark] and not decimals[mark]):
                unclear.append(position)
            cell = cell.replace(mark, "." if is_decimal else "")
        elif _COMMA_THOUSANDS.fullmatch(cell):
            cell = cell.replace(",", "")
        elif _POINT_THOUSANDS.fullmatch(cell):
            cell = cell.replace(".", "").replace(",", ".")
        elif _COMMA.fullmatch(cell):
            cell = cell.replace(",", ".")
        values.append(_float(cell) if _POINT.fullmatch(cell) else None)
    return Numbers(tuple(values), tuple(unclear))


def _float(text: str) -> float | None:
    value = float(text)
    return value if math.isfinite(value) else None


def far_off(values: Sequence[float]) -> dict[float, int]:
    """Numbers far from the others, and how often each occurs.

    A code (-1, -9, or two or more of the digits 7, 8 or 9, with or without minus) is far off if it is negative and the
    others are not, or further outside of the others' range than the range is wide. Any other number is far off if it is
    more than FENCE interquartile ranges outside of the quartiles and, if all are positive, more than LOG_FENCE on a
    logarithmic scale.

    Source: Tukey, Exploratory Data Analysis (1977), with fences far wider than his 3, because a warning must be rare.
    """
    counts = Counter(values)
    codes = {value for value in counts if value == int(value) and _CODE.fullmatch(str(int(value)))}
    rest = [value for value in values if value not in codes]
    if not rest:
        return {}
    low, high = min(rest), max(rest)
    width = high - low
    far = {
        code for code in codes
        if (code < 0 <= low) or (code < low - width) or (code > high + width and width > 0)
    }  # fmt: skip
    if len(rest) >= FEWEST_TO_COMPARE:
        far |= {value for value in set(rest) if _is_beyond(value, np.array(rest))}
    return {value: counts[value] for value in sorted(far)}


def _is_beyond(value: float, rest: np.ndarray) -> bool:
    first, third = np.quantile(rest, [0.25, 0.75])
    spread = third - first
    if spread <= 0 or first - FENCE * spread <= value <= third + FENCE * spread:
        return False
    if rest.min() <= 0:
        return True
    first, third, value = np.log(first), np.log(third), math.log(value)
    return not first - LOG_FENCE * (third - first) <= value <= third + LOG_FENCE * (third - first)
