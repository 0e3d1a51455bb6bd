r"""Which file, folder or patient a name in a table means: one rule for `train`, `prepare`, `doctor` and `evaluate`.

People's tables lack the suffix, name files by another folder or by that of somebody's machine (`C:\data\1.png`), in
other case, in the other Unicode form; spreadsheets make 000100 into 100 or 100.0. Such a name means a file where only
one can be meant, and no other name means it:

- a name that is written as it is in the folder means that file, whatever else is there;
- else the files count that have most of the last parts of the name in common with it, letters compared without case,
  Unicode form (NFKC), runs of white space, and zeros before a number; of these the one that is written most alike. Two
  that are equally alike are none. Nor is one whose folder agrees where another one's letters do.
- where images are files and not series, a name that means no file means the only one in the folder that is called so,
  at any depth.

Which of a mask and its picture has the suffix .png is no matter of spelling: another suffix is another file.
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

MAX_ALIKE = 1_000  # names that are alike for one key, above which none is chosen
NEIGHBOURS = 50  # names before and behind one in the alphabet that are compared with it
SIMILAR = 0.6  # of difflib: what may be meant
_DIGITS = re.compile(r"0*([0-9]+)(\.0+)?")
_SPACE = re.compile(r"\s+")
_BETWEEN = re.compile(r"[/\\]")
_ROOT = re.compile(r"^(?:[a-z]:(?=[/\\])|[a-z][a-z0-9+.-]+://)", re.IGNORECASE)  # of a drive, or of an address


class Written(IntEnum):
    """How alike a key and a name are written, the most alike first."""

    THE_SAME = 0
    IN_ANOTHER_FORM = 1
    IN_OTHER_CASE = 2
    WITH_OTHER_ZEROS = 3


@dataclass(frozen=True)
class Matches:
    """What keys mean.

    Attributes:
        found: key -> name, no name twice.
        unclear: keys that could be several names, or mean the name that another key means.
        missing: keys that mean nothing.
        how: in which way keys differ from what they mean -> how many; those that are written the same are not counted.
    """

    found: Mapping[str, str]
    unclear: tuple[str, ...]
    missing: tuple[str, ...]
    how: Mapping[str, int]

    def remarks(self, what: str) -> tuple[Remark, ...]:
        """That names were found otherwise than written, if some were."""
        if not self.how:
            return ()
        ways = ", ".join(f"{way} {count}" for way, count in sorted(self.how.items()))
        return (remark("names_found_otherwise", self.differing, what=what, all=len(self.found), ways=ways),)

    @property
    def differing(self) -> int:
        """How many keys are not written as what they mean."""
        return sum(key != name for key, name in self.found.items())

    def refuse_unclear(self, what: str) -> None:
        """Raise if there are unclear keys.

        Raises:
            DatasetError: with some of them.
        """
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
    """Find what each key means, see the module.

    Args:
        keys: from a table, each once.
        names: of files or folders, relative, with slashes; or of patients.
        suffixes: that a key may lack, in lower case, the longest first.
        is_path: keys and names have folders; one with `..` means nothing.
        takes_folders: a key may be the name of a folder with one of the names in it.
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
        # Beside the row about 1.png, one about 01.png is about a file that is missing, and one about 1 is its double.
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
    """Ends of names, from the last part to all of them, as they are and as they are compared."""

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
        """A text as it is compared when it is compared least."""
        return "/".join(map(self._without_zeros, _folded(text).split("/")))

    def _without_zeros(self, part: str) -> str:
        stem = stem_of(part, self._suffixes)
        match = _DIGITS.fullmatch(stem)
        return match[1] + part[len(stem) :] if match else part

    def find(self, key: str) -> tuple[str | None, list[str]]:
        """The name that a key means and the ways in which it is written otherwise; None and _SEVERAL, or nothing."""
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
    """The folders and the file of a key, without the drive, server or scheme; none if it goes up."""
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
    """A name without its suffix, when it has one of these (in lower case, the longest first)."""
    lower = name.lower()
    return next((name[: -len(suffix)] for suffix in suffixes if lower.endswith(suffix)), name)


def nearest_name(key: str, names: Sequence[str]) -> str | None:
    """The name that is written most like a key, for a message; None where none is.

    Only the neighbours in the alphabet are compared, forwards and backwards: 100,000 names take a tenth of a second.
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
