r"""Match names in a table to files, folders or patients: one rule for `train`, `prepare`, `doctor` and `evaluate`.

Names in tables may lack the suffix, have another folder or one of another machine (`C:\data\1.png`), another case or
Unicode form; spreadsheets turn 000100 into 100 or 100.0. Such a name matches a file if it is unambiguous and no other
name matches the file:

- a name that is written exactly as in the folder matches that file, whatever else is there;
- otherwise the candidates are the files that share most of the name's last parts, compared without case, Unicode form
  (NFKC), runs of white space, and leading zeros; the one with the most similar spelling matches. If two are equally
  similar, none does, nor if one agrees in the folder and another one in the spelling;
- if images are files, not series, a name without a file matches the only file in a folder of that name, at any depth.

A different suffix always means a different file: a mask and its picture may differ only by it.
"""

import difflib
import re
import unicodedata
from bisect import bisect_left
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum

from sagemaker_monai.errors import DatasetError
from sagemaker_monai.messages.remarks import Remark, remark
from sagemaker_monai.messages.shortened import some_of

MAX_ALIKE = 1_000  # candidates for one key, above which none is chosen
NEIGHBOURS = 50  # names before and after one in the alphabet that are compared with it
SIMILAR = 0.6  # difflib's ratio for a suggestion
_DIGITS = re.compile(r"0*([0-9]+)(\.0+)?")
_SPACE = re.compile(r"\s+")
_BETWEEN = re.compile(r"[/\\]")
_ROOT = re.compile(r"^(?:[a-z]:(?=[/\\])|[a-z][a-z0-9+.-]+://)", re.IGNORECASE)  # of a drive, or of an address


class Written(IntEnum):
    """How similarly a key and a name are written, the most similar first."""

    THE_SAME = 0
    IN_ANOTHER_FORM = 1
    IN_OTHER_CASE = 2
    WITH_OTHER_ZEROS = 3


@dataclass(frozen=True)
class Matches:
    """What keys match.

    Attributes:
        found: key -> name, no name twice.
        unclear: keys that could be several names, or match the name that another key matches.
        missing: keys without a match.
        how: how keys differ from the names that they match -> how many; equal ones are not counted.
    """

    found: Mapping[str, str]
    unclear: tuple[str, ...]
    missing: tuple[str, ...]
    how: Mapping[str, int]

    def remarks(self, what: str) -> tuple[Remark, ...]:
        """A remark if some names were found that are written differently."""
        if not self.how:
            return ()
        ways = ", ".join(f"{way} {count}" for way, count in sorted(self.how.items()))
        return (remark("names_found_otherwise", self.differing, what=what, all=len(self.found), ways=ways),)

    @property
    def differing(self) -> int:
        """How many keys differ from the names that they match."""
        return sum(key != name for key, name in self.found.items())

    def refuse_unclear(self, what: str) -> None:
        """Raise a DatasetError if there are unclear keys."""
        if self.unclear:
            raise DatasetError(
                f"names in {what} that could be several files, or share one: {len(self.unclear)} "
                f"({some_of(self.unclear)}); write them as the files are called, with more of their folders"
            )


def match_names(
    keys: Sequence[str],
    names: Iterable[str],
    *,
    suffixes: Sequence[str] = (),
    is_path: bool = True,
    takes_folders: bool = False,
) -> Matches:
    """Find the name that each key matches, see the module.

    Args:
        keys: from a table, each once.
        names: of files or folders, relative, with slashes; or of patients.
        suffixes: that a key may lack, in lower case, the longest first.
        is_path: keys and names have folders; one with `..` matches nothing.
        takes_folders: a key may be the name of a folder that contains one of the names.
    """
    whole = dict.fromkeys(names)
    found = {key: key for key in keys if key in whole}
    rest = [key for key in keys if key not in found]
    if not rest:
        return Matches(found, (), (), {})
    index = _Index(whole, suffixes, is_path=is_path, takes_folders=takes_folders)
    meant = {key: index.find(key) for key in rest}
    claims: dict[str, list[str]] = defaultdict(list)
    for key, (name, ways) in meant.items():
        # Beside a row for 1.png, one for 01.png is for a missing file, and one for 1 is a duplicate.
        if name is not None and (name not in found or not _SPELLINGS & set(ways)):
            claims[name].append(key)
    unclear = {key for key, (name, ways) in meant.items() if name is None and ways}
    how: Counter[str] = Counter()
    for name, claimants in claims.items():
        if len(claimants) > 1 or name in found:
            unclear.update(claimants, {name} & set(found))
        else:
            found[claimants[0]] = name
            how.update(meant[claimants[0]][1])
    return Matches(
        found={key: found[key] for key in keys if key in found and key not in unclear},
        unclear=tuple(key for key in keys if key in unclear),
        missing=tuple(key for key in keys if key not in found and key not in unclear),
        how=how,
    )


_WITHOUT_SUFFIX, _OTHER_FOLDER, _ALONE = "without suffix", "in another folder", "as the only one in a folder"
_WAYS = {
    Written.IN_ANOTHER_FORM: "in another Unicode form",
    Written.IN_OTHER_CASE: "in other case or spacing",
    Written.WITH_OTHER_ZEROS: "with other zeros before a number",
}
_SPELLINGS = frozenset(_WAYS.values())
_SEVERAL = ["several"]


class _Index:
    """Ends of names, from the last part to the whole, both exact and normalized for comparison."""

    def __init__(self, names: Iterable[str], suffixes: Sequence[str], *, is_path: bool, takes_folders: bool) -> None:
        self._suffixes, self._is_path = suffixes, is_path
        self._exact: dict[str, set[str]] = defaultdict(set)
        self._within: dict[str, set[str]] = defaultdict(set)  # end of a folder -> names in it
        self._alike: dict[str, list[tuple[str, str, bool]]] = defaultdict(list)  # name, its end, without suffix
        for name in names:
            folders = name.split("/")[:-1] if is_path and takes_folders else []
            for stop in range(1, len(folders) + 1):
                for start in range(stop):
                    self._within[self._blurred("/".join(folders[start:stop]))].add(name)
            for form, is_stem in self._forms(name):
                parts = form.split("/") if is_path else [form]
                for depth in range(1, len(parts) + 1):
                    end = "/".join(parts[-depth:])
                    self._exact[end].add(name)
                    self._alike[self._blurred(end)].append((name, end, is_stem))

    def _forms(self, name: str) -> Iterator[tuple[str, bool]]:
        yield name, False
        if (stem := stem_of(name, self._suffixes)) != name and not stem.endswith("/") and stem:
            yield stem, True

    def _blurred(self, text: str) -> str:
        """A text in its most normalized form."""
        return "/".join(map(self._without_zeros, _folded(text).split("/")))

    def _without_zeros(self, part: str) -> str:
        stem = stem_of(part, self._suffixes)
        match = _DIGITS.fullmatch(stem)
        return match[1] + part[len(stem) :] if match else part

    def find(self, key: str) -> tuple[str | None, list[str]]:
        """The name that a key matches and how it differs; None and _SEVERAL if unclear, None and [] if missing."""
        parts = key_parts(key) if self._is_path else [" ".join(key.split())]
        for depth in range(len(parts), 0, -1):
            end = "/".join(parts[-depth:])
            hits = self._alike.get(self._blurred(end))
            if not hits:
                continue
            if len(hits) > MAX_ALIKE:
                return None, _SEVERAL
            ranked = sorted((_written(end, form), is_stem, name) for name, form, is_stem in hits)
            written, is_stem, name = ranked[0]
            shorter = ["/".join(parts[-less:]) for less in range(1, depth)] if written else []
            if any(other[:2] == (written, is_stem) and other[2] != name for other in ranked[1:]) or any(
                self._exact.get(other, set()) - {name} for other in shorter
            ):
                return None, _SEVERAL
            is_moved = depth < len(parts) or (self._is_path and name.count("/") >= depth)
            ways = [_WITHOUT_SUFFIX] * is_stem + [_OTHER_FOLDER] * is_moved
            return name, ways + ([_WAYS[written]] if written else [])
        inside = self._within.get(self._blurred("/".join(parts)), set()) if parts else set()
        return (next(iter(inside)), [_ALONE]) if len(inside) == 1 else (None, _SEVERAL if inside else [])


def key_parts(key: str) -> list[str]:
    """The folders and the file of a key, without drive, server or scheme; empty if it has `..`."""
    parts = [part.strip() for part in _BETWEEN.split(_ROOT.sub("/", key.strip()))]
    return [] if ".." in parts else [part for part in parts if part not in ("", ".")]


def _folded(text: str) -> str:
    return _SPACE.sub(" ", unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold())).strip()


def _written(key: str, name: str) -> Written:
    levels: tuple[Callable[[str], str], ...] = (str, lambda text: unicodedata.normalize("NFC", text), _folded)
    for level, form in zip(Written, levels, strict=False):
        if form(key) == form(name):
            return level
    return Written.WITH_OTHER_ZEROS


def stem_of(name: str, suffixes: Sequence[str]) -> str:
    """A name without its suffix, if it has one of these (in lower case, the longest first)."""
    lower = name.lower()
    return next((name[: -len(suffix)] for suffix in suffixes if lower.endswith(suffix)), name)


def nearest_name(key: str, names: Sequence[str]) -> str | None:
    """The most similar name to a key, to suggest in a message, or None.

    Compares only neighbours in the alphabet, forwards and backwards: 100,000 names take a tenth of a second.
    """
    last = _folded((key_parts(key) or [key])[-1])
    by_end = {_folded(name.rpartition("/")[2]): name for name in names}
    near: set[str] = set()
    for turned in (1, -1):
        ordered = sorted(end[::turned] for end in by_end)
        place = bisect_left(ordered, last[::turned])
        near.update(end[::turned] for end in ordered[max(0, place - NEIGHBOURS) : place + NEIGHBOURS])
    close = difflib.get_close_matches(last, sorted(near), n=1, cutoff=SIMILAR)
    return by_end[close[0]] if close else None
