"""Names of classes, grades and findings: which look alike, their order, and lists of them in one cell.

Nothing here knows rules or tasks; `label_values` decides what such names mean.
"""

import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Sequence

from sagemaker_monai.data.measurements import numbers_of
from sagemaker_monai.messages.shortened import some_of

_BETWEEN = re.compile(r"[\s_]|-(?=[^\W\d])")
_NUMBERED = re.compile(r"(\D*?)[\s_.-]*(\d{1,9})")  # Grade 2, BI-RADS_4, KL0
_BARS = re.compile(r"[|;]")
_COMMAS = re.compile(r"[,\uff0c\u3001]")
_QUOTED = re.compile(r"'([^']*)'|\"([^\"]*)\"")
# Letters of other alphabets that look like Latin ones, in lower case.
_LATIN = str.maketrans(
    "\u0430\u0432\u0435\u043a\u043c\u043d\u043e\u0440\u0441\u0442\u0443\u0445\u0456\u0458\u0455\u03bf\u03b1\u03c1",
    "abekmhopctyxijsoap",
)


# --- names that look alike -------------------------------------------------------------------------------------------


def alike_key(name: str) -> str:
    """Normalize a label: NFKC, without case, blanks, _, hyphens before letters, and look-alike letters.

    Numbers are compared by value: 1, 1.0 and 01 are the same.
    """
    text = "".join(letter for letter in unicodedata.normalize("NFKC", name) if unicodedata.category(letter) != "Cf")
    text = _BETWEEN.sub("", text.casefold()).translate(_LATIN)
    [number] = numbers_of([text]).values
    return text if number is None else f"{number:.12g}"


def alike_names(names: Iterable[str]) -> list[list[str]]:
    """Names that look alike, sorted, in lists of two or more."""
    alike: dict[str, set[str]] = defaultdict(set)
    for name in names:
        alike[alike_key(name)].add(name)
    return sorted(sorted(each) for each in alike.values() if len(each) > 1)


def shown_pairs(groups: Sequence[Sequence[str]]) -> str:
    """Names that look alike as a message shows them."""
    return some_of([" = ".join(map(_shown, names)) for names in groups])


def _shown(name: str) -> str:
    """A name in quotes, with escapes if only the Unicode form differs, so that the difference shows."""
    return repr(name) if name.isascii() or unicodedata.is_normalized("NFKC", name) else ascii(name)


# --- the order of classes --------------------------------------------------------------------------------------------


def in_order(names: Iterable[str]) -> tuple[str, ...]:
    """Class names by their numbers if that is an order, see `grades_in_order`, or alphabetically."""
    return grades_in_order(names) or tuple(sorted(names))


def grades_in_order(names: Iterable[str]) -> tuple[str, ...]:
    """Names by their numbers: 2, 9, 10; `Grade 2`, `Grade 10`. Empty if the rest of the names differs."""
    numbers: dict[str, float] = {}
    words = set()
    for name in names:
        text = unicodedata.normalize("NFKC", name).casefold().strip()
        [number] = numbers_of([text]).values
        if number is None and (told := _NUMBERED.fullmatch(text)):
            words.add(alike_key(told[1]))
            number = float(told[2])
        else:
            words.add("")
        if number is None:
            return ()
        numbers[name] = number
    is_plain = len(words) == 1 and len(set(numbers.values())) == len(numbers)
    return tuple(sorted(numbers, key=lambda name: numbers[name])) if is_plain else ()


# --- lists of findings -----------------------------------------------------------------------------------------------


def findings_of(text: str, *, has_commas: bool = False) -> tuple[str, ...]:
    """The parts of a cell with | or ; (or commas) between them, or of a list as Python writes it, each once."""
    if (listed := text.strip()).startswith("[") and listed.endswith("]"):
        quoted = [first or second for first, second in _QUOTED.findall(listed)]
        if quoted or not listed[1:-1].strip():
            return tuple(dict.fromkeys(filter(None, map(str.strip, quoted))))
    return tuple(dict.fromkeys(filter(None, map(str.strip, (_COMMAS if has_commas else _BARS).split(text)))))


def lists_among(texts: Sequence[str], *, has_commas: bool = False) -> bool:
    """Whether some labels are lists, with bars or commas: a part of one occurs in another label too."""
    holders: dict[str, set[str]] = defaultdict(set)
    for text in set(texts):
        for part in findings_of(text, has_commas=has_commas):
            holders[alike_key(part)].add(text)
    return any(
        len(parts) > 1 and any(len(holders[alike_key(part)]) > 1 for part in parts)
        for parts in (findings_of(text, has_commas=has_commas) for text in set(texts))
    ) or any(text.strip().startswith("[") and text.strip().endswith("]") and findings_of(text) for text in texts)
