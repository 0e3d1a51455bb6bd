"""The words and numbers of an identity that are searched for, in the spellings used for comparison.

Names: each part of two or more letters, any two parts joined in either order, initials with a short surname. Parts of
five or more letters also count inside other words, shorter ones only as words. Titles and particles alone, and
placeholders, are not names. Institutions and addresses: the words that are not general ones. Numbers: see `Numbers`.
"""

import re
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator
from itertools import pairwise, permutations

from sagemaker_monai.deidentification.spellings import (
    ALPHANUMERIC,
    TOKEN,
    WORD,
    bare,
    closed,
    forms,
    is_dense,
    is_romanised,
    readable,
    sound,
    squeezed,
)
from sagemaker_monai.storage.columns import NOBODY

INSIDE = 5  # letters a name needs to count inside other words
_LONGEST = 64  # letters or digits: those of a group of PN, of LO
_MOST_PARTS = 8  # of a name whose parts are joined; longer ones are sentences
_FEW = 48  # words up to which a linear search is faster than an index


def _words(text: str) -> frozenset[str]:
    return frozenset(map(bare, text.split()))


_TITLES = _words(
    """
    mr mrs ms miss dr prof herr frau hr fr mme mlle sig sra jr sr ii iii iv md phd med dipl ing msc bsc rt
    de la le du di da do dos des del der den van von vom zu zum zur el al bin ibn ben abu und and et of the
    no na test phantom demo none null noname unnamed volunteer control subject animal
    """
)
# Words of institutions and addresses that do not identify one.
_GENERAL = _words(
    """
    hospital hospitals clinic clinics clinical klinik kliniken klinikum krankenhaus spital hôpital clinique centre
    center centro central zentrum hospitalier universitaire universitätsklinikum universitaetsklinikum university
    universität universitaet université universidad università universitario institut institute instituto istituto
    school college faculty medicine medical medizin medizinische medico medizinisches health healthcare healthineers
    care radiology radiologie radiologia radiological radiologische radiologisches imaging image images diagnostic
    diagnostics diagnostik diagnostische neuroradiology neuroradiologie nuclear nuklearmedizin oncology onkologie
    cardiology kardiologie department dept abteilung abt division section unit ward station service services praxis
    gemeinschaftspraxis group gruppe research forschung foundation stiftung national nationale regional general
    community county city state stadt public children childrens kinder women womens cancer heart brain chest head neck
    spine breast scanner scan room raum saal floor building haus house street strasse str road avenue ave lane drive
    square platz weg allee rue via calle north south east west nord sud ost northern southern eastern western saint
    sankt san santa new old for für fuer mit and the und der die das des pour les inc ltd gmbh llc corp company mri mrt
    cmr pet spect xray ray ultrasound sono usa gov org com net www http https siemens philips toshiba canon hitachi
    fuji fujifilm agfa kodak carestream hologic samsung shimadzu esaote varian elekta electric systems system
    """
)
_GENERAL_IN_NUMBERS = _words(
    """
    patient subject study series accession phantom anonymous anonymized volunteer control sample image serial number
    device scanner detector siemens philips toshiba test unknown case exam order acquisition visit session slide
    specimen container tcga
    """
)
_GENERAL_DENSE = re.compile(
    "|".join(_words("医院 病院 医科 大学 中心 放射 병원 의원 대학교 의료원 センター クリニック"))
)
_SIX = 6  # digits; shorter numbers also occur as numbers of pictures and series
_INNER = re.compile(r"(?<=\w)['\u2019`\u00b4-](?=\w)")
_GLUED = re.compile(r"(?<!\d)\d++(?:[\W_]{1,2}\d++)+")
_TIME = re.compile(r"(?:[01]\d|2[0-3])[0-5]\d[0-5]\d")
_YEAR = re.compile(r"(?:19|20)\d\d")


class Words:
    """Words that are searched for in `forms` of a text: `inside` anywhere, `whole` only as words."""

    def __init__(self) -> None:
        self.inside: set[str] = set()
        self.whole: set[str] = set()
        self._firsts: dict[int, dict[str, list[str]]] | None = None

    def add(self, word: str) -> None:
        """Add a word according to its length; single letters are ignored."""
        if is_dense(word):
            (self.inside if len(word) > 1 else self.whole).add(word)
        elif len(word) >= 2 and len(set(word)) > 1:
            (self.inside if len(word) >= INSIDE else self.whole).add(word)

    def stand_in(self, form: str, tokens: set[str], *, smallest: int = 0) -> bool:
        """Whether a form with these tokens contains one; inside another word, one of `smallest` letters or more."""
        if not self.whole.isdisjoint(tokens) or (smallest and not self.inside.isdisjoint(tokens)):
            return True
        return self._stand_inside(form, smallest)

    def stand_apart(self, form: str) -> bool:
        """Whether a form without separators contains one, also backwards.

        Words of INSIDE letters must not span blanks: the end of one word and the beginning of the next form short names
        by chance.
        """
        joined = squeezed(form)
        return (
            self._stand_inside(closed(form), 0)
            or self._stand_inside(joined, INSIDE + 1)
            or self._stand_inside(joined[::-1], INSIDE + 1)
        )

    def _stand_inside(self, form: str, smallest: int) -> bool:
        if len(self.inside) <= _FEW:
            return any(word in form for word in self.inside if len(word) >= smallest)
        if self._firsts is None:
            self._firsts = defaultdict(lambda: defaultdict(list))
            for word in self.inside:
                size = min(len(word), INSIDE)
                self._firsts[size][word[:size]].append(word)
        return any(
            len(word) >= smallest and form.startswith(word, start)
            for size, firsts in self._firsts.items()
            for start in range(len(form) - size + 1)
            for word in firsts.get(form[start : start + size], ())
        )


class Names:
    """The names of people.

    Attributes:
        words: in Latin letters and in their own script.
        sounds: of names in Greek or Cyrillic, for every text.
        latin_sounds: of names in Latin letters, for texts in Greek or Cyrillic.
    """

    def __init__(self, names: Iterable[str]) -> None:
        self.words, self.sounds, self.latin_sounds = Words(), Words(), Words()
        for name in names:
            text = readable(name)
            sounds = self.sounds if is_romanised(text) else self.latin_sounds
            closed_up = _INNER.sub("", text)  # O'Brien, Smith-Jones
            for form in (*forms(text), *(forms(closed_up) if closed_up != text else ())):
                parts = _parts(form)
                for word in _joined(parts):
                    self.words.add(word)
                for part in parts:
                    if part.isascii() and len(part) >= INSIDE and part not in _TITLES | NOBODY:
                        sounds.add(sound(part))
        for words in (self.words, self.sounds, self.latin_sounds):
            words.whole -= _TITLES | NOBODY
            words.inside -= _TITLES | NOBODY


def _parts(form: str) -> list[str]:
    """The words of a name; from tokens with digits, such as of a test patient, only long ones."""
    parts: list[str] = []
    for token in ALPHANUMERIC.findall(form):
        has_digits = any(c.isdigit() for c in token)
        parts += [word for word in WORD.findall(token) if not has_digits or len(word) >= INSIDE]
    return parts


def _joined(parts: list[str]) -> Iterator[str]:
    yield from (part for part in parts if part not in _TITLES)
    if len(parts) > _MOST_PARTS:
        return
    for first, second in permutations(parts, 2):
        if not (len(first) >= INSIDE or len(second) >= INSIDE) or first in _TITLES:
            yield first + second
        if 1 < len(second) < INSIDE and not is_dense(second) and second not in _TITLES:
            yield first[0] + second
            yield second + first[0]
    for part in parts:  # truncated, for example to 16 characters
        yield from (part[:size] for size in range(INSIDE + 3, min(len(part), _LONGEST)))


class Places:
    """Institutions and addresses."""

    def __init__(self, places: Iterable[str]) -> None:
        self.words = Words()
        for place in places:
            for form in forms(readable(place)):
                for word in WORD.findall(form):
                    if is_dense(word):
                        self.words.add(word)
                        word = _GENERAL_DENSE.sub("", word)
                    if len(word) >= 3 or is_dense(word):
                        self.words.add(word)
        self.words.inside -= _GENERAL | NOBODY
        self.words.whole -= _GENERAL | NOBODY | _TITLES


class Numbers:
    """Numbers of people, orders, devices and telephones, complete and in parts.

    Attributes:
        letters: numbers with letters, without separators, and the words in them.
        digits: runs of four or more digits, and all digits of a number joined.
    """

    def __init__(self, numbers: Collection[str], places: Iterable[str] = ()) -> None:
        self.letters, self.digits, self._exact = Words(), set[str](), set[str]()
        self._written = {number.lower() for number in numbers if len(number) >= INSIDE and not number.isdecimal()}
        for number in numbers:
            text = readable(number)
            self._add_digits(text)
            for form in forms(text):
                self._add_form(form)
        for place in places:
            self._add_digits(readable(place))
        self.letters.inside -= NOBODY | _GENERAL_IN_NUMBERS
        self.letters.whole -= NOBODY | _GENERAL_IN_NUMBERS | _TITLES
        self._parts = {
            run[start : start + size] for run in self.digits for size in (4, 5) for start in range(len(run) - size + 1)
        }
        # The year at the beginning of an accession number does not identify anybody.
        self._parts -= {run[:4] for run in self.digits if len(run) > 5 and _YEAR.match(run)} - self.digits
        self._sixes = {run[start : start + 6] for run in self.digits for start in range(len(run) - 5)}
        self._by_size: dict[int, set[str]] = defaultdict(set)
        for run in self.digits:
            self._by_size[len(run)].add(run)

    def _add_digits(self, text: str) -> None:
        runs = re.findall(r"\d+", text)
        for run in {*runs, "".join(runs)}:
            if 4 <= len(run) <= _LONGEST and len(set(run)) > 1 and len(run.lstrip("0")) >= 4:
                self.digits.add(run)

    def _add_form(self, form: str) -> None:
        whole = squeezed(form)
        if not whole or len(set(whole)) == 1:
            return
        has_letters = not whole.isdecimal()
        if len(whole) < 3 or not has_letters:
            self._exact.add(whole)
        elif len(whole) >= 3:
            self.letters.add(whole)
        for word in WORD.findall(form):
            if has_letters and len(word) >= INSIDE:
                self.letters.add(word)

    def stand_in(self, form: str, *, parts: bool = True) -> bool:
        """Whether a text (lower case, without accents) contains one: with `parts`, also four of its digits, else only
        complete numbers of six or more digits.
        """
        joined = squeezed(form)
        if joined in self._exact or self.letters.stand_in(joined, neighbours(form)):
            return True
        runs = re.findall(r"\d{4,}", form)
        glued = [squeezed(each) for each in _GLUED.findall(form)]
        if not parts:
            whole = any(len(run) >= _SIX and run in self.digits for run in (*runs, *glued))
            return whole or self._have_whole(runs, smallest=9)
        return (
            any(run in self._parts for run in runs)
            or self._have_whole(runs, smallest=4)
            or any(run[start : start + 6] in self._sixes for run in (*runs, *glued) for start in range(len(run) - 5))
            or self._have_whole(glued, smallest=5)
        )

    def are_in_number(self, text: str) -> bool:
        """Whether one is a complete run of digits of a text, or, with nine digits, part of a longer run."""
        runs = re.findall(r"\d{4,}", text)
        return any(run in self.digits for run in runs) or self._have_whole(runs, smallest=9)

    def stand_in_header(self, form: str, tokens: set[str]) -> bool:
        """Whether a header contains a complete number of six or more digits, or one with letters."""
        # A number of six digits that may be a time usually is one.
        runs = [token for token in tokens if len(token) >= _SIX and token.isdecimal() and not _TIME.fullmatch(token)]
        return (
            any(run in self.digits for run in runs)
            or self._have_whole(runs, smallest=9)
            or any(word in form for word in self._written)
        )

    def _have_whole(self, runs: Iterable[str], smallest: int) -> bool:
        return any(
            run[start : start + size] in whole
            for size, whole in self._by_size.items()
            if size >= smallest
            for run in runs
            for start in range(len(run) - size + 1)
        )


def neighbours(form: str) -> set[str]:
    """The alphanumeric tokens, and each word or number joined with the next: A12, A-12."""
    tokens = ALPHANUMERIC.findall(form)
    small = TOKEN.findall(form)
    return {*tokens, *(a + b for a, b in pairwise(small))}
