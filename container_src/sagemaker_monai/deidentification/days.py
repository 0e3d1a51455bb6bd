"""Finds given dates in texts, in every common spelling."""

import re
from collections.abc import Iterable, Iterator
from datetime import date

from sagemaker_monai.deidentification.spellings import TOKEN, bare

# English, German, French, Spanish, Italian, Portuguese, Dutch, Scandinavian, Polish, Russian, Turkish, Roman numerals.
_MONTHS = {
    word: number
    for number, words in enumerate(
        (
            "jan january januar januari jaenner janv janvier enero ene gennaio gen janeiro stycznia января ocak i",
            "feb february februar februari feber fev fevr fevrier febrero febbraio fevereiro lutego февраля subat ii",
            "mar march marz maerz mrz mars marzo marco maart mrt marts marca марта mart iii",
            "apr april avr avril abril abr aprile kwietnia апреля nisan iv",
            "may mai mayo maggio mag maio mei maj maja мая mayis v",
            "jun june juni juin junio giugno giu junho czerwca июня haziran vi",
            "jul july juli juil juillet julio luglio lug julho lipca июля temmuz vii",
            "aug august aout agosto ago augustus augusti sierpnia августа agustos viii",
            "sep sept september septembre septiembre setiembre settembre set setembro wrzesnia сентября eylul ix",
            "oct october okt oktober octobre octubre ottobre ott outubro out pazdziernika октября ekim x",
            "nov november novembre noviembre novembro listopada ноября kasim xi",
            "dec december dez dezember decembre diciembre dic dicembre dezembro grudnia декабря aralik xii",
        ),
        start=1,
    )
    for word in map(bare, words.split())
}
# Abbreviations of three or more letters: sept, 28-mars. An ambiguous one is the earlier month.
for _month, _number in list(_MONTHS.items()):
    for _size in range(3, len(_month)):
        _MONTHS.setdefault(_month[:_size], _number)
_WORDS = "st nd rd th of the de del den le du di t a o er e г 年 月 日 년 월 일"  # between the parts of a date
_BETWEEN = frozenset(_WORDS.split())
_MOST_BETWEEN = 3  # characters other than letters and digits between the parts of a date
_YEAR = re.compile(r"(?=((?:1[89]|20)\d\d))")
_NUMBER, _MONTH = 0, 1
_AROUND = 40  # characters beside a year in which the rest of a date may stand
_FORMATS = (
    *("%Y%m%d", "%d%m%Y", "%m%d%Y", "%Y-%m-%d", "%Y.%m.%d", "%Y/%m/%d", "%d.%m.%Y", "%d/%m/%Y", "%d-%m-%Y"),
    *("%m/%d/%Y", "%m-%d-%Y", "%d %b %Y", "%d-%b-%Y", "%d%b%Y", "%b %d, %Y", "%d %B %Y", "%B %d, %Y"),
)


class Days:
    """Dates to find in texts."""

    def __init__(self, dates: Iterable[str]) -> None:
        """Take dates, YYYYMMDD; invalid ones are ignored."""
        days = [day for text in dates if (day := _day(text))]
        self._days = {(day.year, day.month, day.day) for day in days}
        self._short = {(day.year % 100, day.month, day.day) for day in days}
        self._years = {day.year for day in days}
        self._months = {(day.year, day.month) for day in days}
        self._eight = {f"{day:{form}}" for day in days for form in ("%Y%m%d", "%d%m%Y", "%m%d%Y", "%Y%d%m")}
        self._rest = {
            f"{day:{form}}" for day in days for form in ("%y%m%d", "%d%m%y", "%m%d%y", "%Y%m", "%m%Y", "%Y%j")
        }

    def stand_in(self, form: str, *, parts: bool = True) -> bool:
        """Whether a text contains one of the dates.

        Args:
            form: lower case, without accents.
            parts: also match two-digit years, and year and month alone.
        """
        if parts:
            return bool(self._days) and self._stand_in(form, parts=True)
        return any(
            self._stand_in(form[max(0, found.start() - _AROUND) : found.start() + _AROUND], parts=False)
            for found in _YEAR.finditer(form)
            if int(found[1]) in self._years
        )

    def spellings(self) -> set[str]:
        """The most common spellings of each date, in lower case."""
        return {f"{date(*day):{form}}".lower() for day in self._days for form in _FORMATS}

    def _stand_in(self, form: str, *, parts: bool) -> bool:
        tokens: list[tuple[int, int, int, int, int]] = []  # kind, number, digits, start, end
        for match in TOKEN.finditer(form):
            word = match[0]
            if not word.isdecimal():
                if (month := _MONTHS.get(word)) is not None:
                    tokens.append((_MONTH, month, 0, *match.span()))
                elif word not in _BETWEEN:
                    tokens.append((-1, 0, 0, *match.span()))
                continue
            if len(word) >= 6 and self._stands_in_run(word, parts=parts):
                return True
            tokens.append((_NUMBER if len(word) <= 4 else -1, int(word[:4]), len(word), *match.span()))
        return any(self._is_day(form, tokens, start, parts=parts) for start in range(len(tokens) - 1))

    def _stands_in_run(self, run: str, *, parts: bool) -> bool:
        if len(run) <= 17:  # a date with its time in milliseconds; longer runs are UIDs
            windows = (run[start : start + 8] for start in range(len(run) - 7))
            if any(window in self._eight for window in windows):
                return True
        return parts and run in self._rest

    def _is_day(self, form: str, tokens: list[tuple[int, int, int, int, int]], start: int, *, parts: bool) -> bool:
        first, second, *rest = tokens[start : start + 3]
        if first[0] < 0 or second[0] < 0 or not _are_near(form, first, second):
            return False
        if parts and self._is_month(first, second):
            return True
        if not rest or rest[0][0] < 0 or not _are_near(form, second, rest[0]):
            return False
        third = rest[0]
        is_chain = form[first[3] - 1 : first[3]] == "." or bool(re.match(r"\.\d", form[third[4] :]))
        for year, month, day in _orders(first, second, third):
            if year[2] == 4 and (year[1], month[1], day[1]) in self._days:
                return True
            # Versions have three numbers too, but more than three are not a date.
            if parts and year[2] == 2 and not is_chain and (year[1], month[1], day[1]) in self._short:
                return True
        return False

    def _is_month(self, first: tuple[int, ...], second: tuple[int, ...]) -> bool:
        return any(
            year[2] == 4 and month[2] <= 2 and (year[1], month[1]) in self._months
            for year, month in ((first, second), (second, first))
        )


def _orders(*three: tuple[int, ...]) -> Iterator[tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]]:
    """The three parts as year, month and day, in all common orders."""
    first, second, third = three
    for year, month, day in (
        (first, second, third),
        (third, second, first),
        (third, first, second),
        (first, third, second),
    ):
        if year[0] == day[0] == _NUMBER:
            yield year, month, day


def _are_near(form: str, before: tuple[int, ...], after: tuple[int, ...]) -> bool:
    between = form[before[4] : after[3]]
    return len(between) <= 2 * _MOST_BETWEEN and sum(not c.isalnum() for c in between) <= _MOST_BETWEEN


def _day(text: str) -> date | None:
    try:
        return date(int(text[:4]), int(text[4:6]), int(text[6:8]))
    except ValueError:
        return None
