"""Normalises texts for comparison, regardless of case, accents and alphabet, in all spellings that a name may have.

Both sides are treated alike: `forms` of a name are searched for in `forms` of a text. Latin letters lose their accents,
and umlauts are spelled both ways (ü as u and as ue). Cyrillic and Greek are romanised by the common tables (BGN/PCGN,
ICAO 9303, German, scientific; ELOT 743, classical), and compared by `sound` where tables differ; letters that only look
Latin also count as Latin. Han, Hangul and kana are not transcribed: PN has a group for each script, and each group is a
name of its own.
"""

import re
import unicodedata
from collections.abc import Iterator

_ROMAN_ALIKE = re.compile(r"[\u0370-\u03ff\u1f00-\u1fff\u0400-\u052f]")  # Greek and Cyrillic
_DENSE = re.compile(r"[\u2e80-\u9fff\uac00-\ud7a3\uf900-\ufaff\U00020000-\U0003ffff]")  # Han, kana, Hangul
WORD = re.compile(r"[^\W\d_]+")
TOKEN = re.compile(r"[^\W\d_]+|\d+")
ALPHANUMERIC = re.compile(r"[^\W_]+")
_SEPARATORS, _SIGNS = re.compile(r"[\W_]+"), re.compile(r"[^\w\s]+|_+")
# Where a word starts inside another: SmithZebulon, CTSmith.
_CAMEL = re.compile(r"(?<=[a-z\u00df-\u00ff])(?=[A-Z\u00c0-\u00de])|(?<=[A-Z])(?=[A-Z][a-z])")
_SPACED = re.compile(r"(?<![^\W\d_])(?:[^\W\d_][\W_]{1,2}){2,}[^\W\d_](?![^\W\d_])")


def _table(letters: str, values: str) -> dict[int, str]:
    return {ord(letter): "" if value == "-" else value for letter, value in zip(letters, values.split(), strict=True)}


_LATIN = _table("ßøđłæœıþðŋħƒ", "ss o d l ae oe i th d n h f")
_UMLAUTS = _table("äöüåøæœ", "ae oe ue aa oe ae oe")
_RUSSIAN = "абвгдеёжзийклмнопрстуфхцчшщъыьэюяіїєґўјљњћђџ"
_GREEK = "αβγδεζηθικλμνξοπρσςτυφχψω"
_ROMANISATIONS = (
    {
        **_table(_RUSSIAN, "a b v g d e yo zh z i y k l m n o p r s t u f kh ts ch sh shch - y - e yu ya i yi ye g u j "
                 "lj nj c dj dz"),
        **_table(_GREEK, "a v g d e z i th i k l m n x o p r s s t y f ch ps o"),
    },
    {
        **_table(_RUSSIAN, "a b v g d e e zh z i i k l m n o p r s t u f kh ts ch sh shch ie y - e iu ia i i ie g u j "
                 "lj nj c dj dz"),
        **_table(_GREEK, "a b g d e z e th i k l m n x o p r s s t u ph ch ps o"),
    },
    {
        **_table(_RUSSIAN, "a b w g d e jo sch s i i k l m n o p r s t u f ch z tsch sch schtsch - y - e ju ja i ji je "
                 "g w j lj nj c dj dz"),
        **_table(_GREEK, "a b g d e z i th i k l m n x o p r s s t i f h ps o"),
    },
    {
        **_table(_RUSSIAN, "a b v g d e e z z i j k l m n o p r s t u f h c c s sc - y - e ju ja i i je g u j lj nj c "
                 "dj dz"),
        **_table(_GREEK, "a v g d e z i th i k l m n x o p r s s t u f x ps o"),
    },
)  # fmt: skip
_GREEK_LETTER = re.compile(r"[\u0370-\u03ff\u1f00-\u1fff]")
_GREEK_DIGRAPHS = (("ου", "ou"), ("αυ", "av"), ("ευ", "ev"), ("γγ", "ng"), ("γκ", "gk"), ("μπ", "b"))
_LOOK_ALIKE = _table(
    "авеікмнорстухѕјһԁԛԝɡαβεηικνορτυχ", "a b e i k m h o p c t y x s j h d q w g a b e n i k v o p t u x"
)
_KANA = {code: chr(code - 0x60) for code in range(0x30A1, 0x30F7)}  # katakana as hiragana
_INVISIBLE = dict.fromkeys(
    [0xAD, 0x34F, 0x61C, 0x640, 0x180E, 0xFEFF, *range(0x200B, 0x2010), *range(0x202A, 0x202F), *range(0x2060, 0x2070),
     *range(0xFE00, 0xFE10)]
)  # fmt: skip
# Spellings of one Russian or Greek sound in different romanisations.
_SOUNDS = tuple(
    (re.compile(pattern), value)
    for pattern, value in (
        (r"schtsch|shch|stch|chtch|szcz|sc(?=[eiy])|sch|sh|sz", "s"),
        (r"tsch|tch|kh|ch|cz|ts|tz|c", "h"),
        (r"zh|dzh|z", "s"),
        (r"ph|ff|w|f", "v"),
        (r"ou", "u"),
        (r"x", "ks"),
        (r"[jy]", "i"),
        (r"i(?=[aeiou])", ""),
        (r"(.)\1+", r"\1"),
    )
)


def readable(text: str) -> str:
    """The text with plain letters for wide, styled and ligature ones, ASCII digits, and no invisible characters."""
    if text.isascii():
        return text
    text = unicodedata.normalize("NFKC", text).translate(_INVISIBLE)
    return "".join(str(unicodedata.decimal(c)) if c.isdecimal() and c > "9" else c for c in text)


def forms(text: str) -> tuple[str, ...]:
    """The forms in which a `readable` text is compared: lower case, without accents, in each transcription."""
    small = text.casefold()
    if small.isascii():
        return (small,)
    found = [bare(small), bare(small.translate(_UMLAUTS))]
    if _ROMAN_ALIKE.search(small):
        source = found[0] if _GREEK_LETTER.search(small) else small  # Cyrillic letters need their accents
        found += [bare(_digraphs(source).translate(table)) for table in _ROMANISATIONS]
        found.append(bare(small.translate(_LOOK_ALIKE)))
    return tuple(dict.fromkeys(found))


def _digraphs(greek: str) -> str:
    for letters, value in _GREEK_DIGRAPHS:
        greek = greek.replace(letters, value)
    return greek


def bare(small: str) -> str:
    """Lower-case text without accents, katakana as hiragana."""
    apart = unicodedata.normalize("NFKD", small)
    kept = "".join(c for c in apart if unicodedata.category(c) != "Mn")
    return unicodedata.normalize("NFC", kept).translate(_LATIN).translate(_KANA)


def is_romanised(text: str) -> bool:
    """Whether some letters are Greek or Cyrillic, so that the text is also compared by `sound`."""
    return not text.isascii() and _ROMAN_ALIKE.search(text) is not None


def is_dense(text: str) -> bool:
    """Whether the script is one in which two characters can be a name and words are not separated by blanks."""
    return not text.isascii() and _DENSE.search(text) is not None


def sound(form: str) -> str:
    """A Latin form with one spelling for each sound that romanisations write in several ways; blanks stay."""
    for pattern, value in _SOUNDS:
        form = pattern.sub(value, form)
    return form


def squeezed(form: str) -> str:
    """The form's letters and digits only."""
    return _SEPARATORS.sub("", form)


def closed(form: str) -> str:
    """The form without separators, except for blanks."""
    return _SIGNS.sub("", form)


def apart(text: str) -> str:
    """The text with a blank before each capital that begins a word inside another."""
    return _CAMEL.sub(" ", text)


def spaced_out(form: str) -> Iterator[str]:
    """Words with separated letters, such as S.m.i.t.h."""
    return (squeezed(match[0]) for match in _SPACED.finditer(form))
