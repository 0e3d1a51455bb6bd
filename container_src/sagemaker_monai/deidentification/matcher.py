"""Searches text or bytes for anything that identifies people, however it is spelled (`needles`, `spellings`).

There are three levels of strictness, since what is significant in a line of text occurs in megabytes of pixels by
chance. In text, a surname of two letters counts as a word, one of five also inside words, and so do four digits of a
number and a year with its month. In header bytes, where lengths and binary values separate texts, names need three
letters and numbers must be complete. In bulk data, only values count whose chance is below 1 in 1,000 (`odds_of`).

Callers do not ask about defined terms of the standard, registered UIDs and numbers that the picture needs: a patient
may be called Head.
"""

import base64
import binascii
import contextlib
import html
import quopri
import re
import unicodedata
from collections.abc import Iterable, Iterator
from dataclasses import replace
from functools import cached_property, lru_cache
from urllib.parse import unquote

from sagemaker_monai.deidentification.bulk import Needles
from sagemaker_monai.deidentification.days import Days
from sagemaker_monai.deidentification.identity import Identity
from sagemaker_monai.deidentification.needles import INSIDE, Names, Numbers, Places, neighbours
from sagemaker_monai.deidentification.spellings import (
    TOKEN,
    apart,
    forms,
    is_dense,
    is_romanised,
    readable,
    sound,
    spaced_out,
)

NAME, NUMBER, PLACE, DATE, UID = "a name", "a number", "an institution or address", "a date", "a UID"
_LONGEST_REMEMBERED = 256  # characters
_MOST_REMEMBERED = 4096  # texts of one patient; slices of a series have the same ones
_UIDISH = re.compile(r"(?<!\d)\d++(?:\.\d++){2,}")  # possessive: reads each run of digits once
_MOST_NUMBERS = 33  # in a UID: 64 characters
_MIN_PART_OF_UID = 12  # characters of the end or the middle of a UID; the beginning identifies a maker
_LONG_UID = 30  # characters; a shorter one may be a root of others, and programs' UIDs are in every header
_FEW_UIDS = 256
_HEX, _BASE64 = re.compile(r"(?:[0-9a-fA-F]{2}[ :-]?){6,}"), re.compile(r"[A-Za-z0-9+/_-]{8,}={0,2}")
_ESCAPE = re.compile(r"\\[ux]\{?([0-9a-fA-F]{2,6})\}?|=([0-9A-F]{2})")
_MOST_PACKED = 4096  # characters of a text that is searched for encoded ones
# ASCII as UTF-16 and UTF-32, in either byte order.
_WIDE = re.compile(rb"(?:[\x20-\x7e]\0{1,3}){2,}[\x20-\x7e]|(?:\0{1,3}[\x20-\x7e]){3,}")
_ENCODINGS = (
    *("utf-8", "utf-16-le", "utf-16-be", "utf-32-le", "utf-32-be", "gb18030", "big5", "shift_jis", "euc_jp"),
    *("iso2022_jp", "euc_kr", "iso2022_kr", "koi8_r", "cp1251", "cp866", "cp1252", "cp437", "cp850", "mac_roman"),
    *(f"iso8859_{part}" for part in (1, 2, 3, 4, 5, 6, 7, 8, 9, 15)),
    *("cp1250", "cp1253", "cp1254", "cp1255", "cp1256", "tis_620"),
)
_LONGEST_NAME = 64  # characters of a part, as of a group of PN
_MIN_FOREIGN_BYTES, _MOST_FOREIGN_BYTES = 4, 1 << 13
# UTF-16 and UTF-32 of letters up to Arabic. Any text can be read as kana, Han or Hangul; for those see `_foreign`.
_LOW, _HIGH_BYTES = rb"[\x20-\xff]\0", rb"(?:[\0-\xff][\x01-\x06\x1e]|[\x41-\xff]\x30|[\x61-\x9f]\xff)"
_LOW_LAST, _HIGH_FIRST = rb"\0[\x20-\xff]", rb"(?:[\x01-\x06\x1e][\0-\xff]|\x30[\x41-\xff]|\xff[\x61-\x9f])"
_WIDE_FOREIGN = {
    "utf-16-le": re.compile(rb"(?:%b|%b){2,}" % (_LOW, _HIGH_BYTES)),
    "utf-16-be": re.compile(rb"(?:%b|%b){2,}" % (_LOW_LAST, _HIGH_FIRST)),
    "utf-32-le": re.compile(rb"(?:(?:%b|%b)\0\0){2,}" % (_LOW, _HIGH_BYTES)),
    "utf-32-be": re.compile(rb"(?:\0\0(?:%b|%b)){2,}" % (_LOW_LAST, _HIGH_FIRST)),
}
_HIGH = re.compile(rb"[\x80-\xff]{2}[\x20-\x7e\x80-\xff]{1,64}|\x1b[$(][\x1b\x20-\x7e]{2,64}")
_NATIONAL = (
    *("koi8_r", "cp1251", "iso8859_5", "cp866", "iso8859_7", "cp1253", "latin-1", "iso8859_2", "gb18030"),
    *("shift_jis", "euc_jp", "iso2022_jp", "euc_kr", "cp1255", "cp1256", "iso8859_6"),
)
_UMLAUTS_BACK = (("ae", "ä"), ("oe", "ö"), ("ue", "ü"), ("ss", "ß"))
_LONG_WORD = 7  # letters a name needs to count inside words if the names of all patients are searched for
_READABLE = bytes(byte if 32 <= byte < 127 else 32 for byte in range(256))
_LETTER = rb"(?:[\xc2-\xdf][\x80-\xbf]|[\xe0-\xef][\x80-\xbf]{2}|[\xf0-\xf4][\x80-\xbf]{3})"
_UTF8_LETTER = re.compile(_LETTER)
_UTF8 = re.compile(rb"[\x20-\x7e]{0,32}%b[\x20-\x7e\x80-\xf4]{0,64}" % _LETTER)
_CHANCE = 1e-3


class Matcher:
    """Searches for an identity; each search returns what it found (NAME, NUMBER, PLACE, DATE, UID), or "".

    The compiled rules are cached for further files of the same people.
    """

    def __init__(self, identity: Identity) -> None:
        self._uids = identity.uids
        self._rules = _rules(replace(identity, uids=frozenset()))

    def in_text(self, text: str, *, parts: bool = True) -> str:
        """Search a value, a name or a line.

        Without `parts`, parts of numbers, names inside words and dates without a full year do not count, for example to
        compare the name of a file with all patients of a data set.
        """
        return self._rules.in_text(text, parts, parts) or self._in_uids(text)

    def in_name(self, name: str) -> str:
        """Search the name of a file for its own header's identity: all rules except for numbers, which count files."""
        return self._rules.in_text(name, True, False) or self._in_uids(name)

    def in_number(self, text: str) -> str:
        """Search a numeric value or a time; only complete numbers of people count."""
        return NUMBER if self._rules.numbers.are_in_number(text) else ""

    def in_bytes(self, data: bytes) -> str:
        """Search bytes that contain texts among other things, such as those of a header."""
        return self._rules.in_bytes(data) or self._in_uids("\n".join(_texts_in(data)), shortest=_LONG_UID)

    def in_bulk(self, data: bytes) -> str:
        """Search arbitrary bytes, such as pixel data."""
        uids = {uid.encode("ascii", "replace"): UID for uid in self._uids} if len(self._uids) <= _FEW_UIDS else {}
        return Needles(self._rules.bulk | uids).stand_in(data, _CHANCE)

    def _in_uids(self, text: str, *, shortest: int = 0) -> str:
        """UID if a text contains one: as a complete dotted number, or, with `shortest` characters, in a longer one."""
        if not self._uids:
            return ""
        for run in _UIDISH.findall(text):
            numbers = run.split(".")
            if run in self._uids or any(
                len(part) >= shortest and part in self._uids
                for start in range(len(numbers) - 2)
                for end in range(start + 3, min(start + _MOST_NUMBERS, len(numbers)) + 1)
                if (part := ".".join(numbers[start:end]))
            ):
                return UID
            is_long = len(self._uids) <= _FEW_UIDS and len(run) >= _MIN_PART_OF_UID
            if is_long and any(
                (run in uid and not uid.startswith(run)) or (len(uid) >= shortest and uid in run) for uid in self._uids
            ):
                return UID
        return ""


@lru_cache(maxsize=64)
def _rules(identity: Identity) -> "_Rules":
    return _Rules(identity)


class _Rules:
    """A compiled identity, without UIDs, which differ in each file."""

    def __init__(self, identity: Identity) -> None:
        self.names, self.places = Names(identity.names), Places(identity.places)
        self.numbers, self.days = Numbers(identity.numbers, identity.places), Days(identity.dates)
        self.identity = identity
        self.remembered: dict[tuple[str, bool, bool], str] = {}

    @cached_property
    def foreign(self) -> list[bytes]:
        return _foreign(self.identity.names | self.identity.places)

    @cached_property
    def bulk(self) -> dict[bytes, str]:
        """Needles for bulk data, in lower case -> their kinds."""
        found: dict[bytes, str] = {}
        words = ((NAME, self.names.words), (PLACE, self.places.words), (NUMBER, self.numbers.letters))
        for kind, each in words:
            found |= {word.encode(): kind for word in each.inside | each.whole if word.isascii()}
        found |= {run.encode(): NUMBER for run in self.numbers.digits}
        found |= {number.lower().encode(): NUMBER for number in self.identity.numbers if number.isascii()}
        found |= {spelling.encode(): DATE for spelling in self.days.spellings()}
        return found | dict.fromkeys(self.foreign, NAME)

    def in_text(self, text: str, parts: bool, digits: bool) -> str:
        """Search a text; `parts` of names and dates count, and `digits` of numbers."""
        key = text, parts, digits
        if (known := self.remembered.get(key)) is None:
            known = next(
                (found for each in (text, *_unpacked(text)) if (found := self._in_plain(each, parts, digits))), ""
            )
            if len(text) <= _LONGEST_REMEMBERED:
                if len(self.remembered) >= _MOST_REMEMBERED:
                    self.remembered.clear()
                self.remembered[key] = known
        return known

    def _in_plain(self, text: str, parts: bool, digits: bool) -> str:
        text = readable(text)
        split = apart(text)
        for form in dict.fromkeys((*forms(text), *(forms(split) if split != text else ()))):
            tokens = set(TOKEN.findall(form))
            if self._have_name(form, tokens, is_foreign=is_romanised(text), smallest=0 if parts else _LONG_WORD):
                return NAME
            if parts and self._have_name_apart(form):
                return NAME
            if self.places.words.stand_in(form, tokens, smallest=0 if parts else _LONG_WORD):
                return PLACE
            if self.days.stand_in(form, parts=parts):
                return DATE
            if self.numbers.stand_in(form, parts=digits):
                return NUMBER
        return ""

    def _have_name(self, form: str, tokens: set[str], *, is_foreign: bool, smallest: int = 0) -> bool:
        if self.names.words.stand_in(form, tokens, smallest=smallest):
            return True
        sounds = [self.names.sounds] if self.names.sounds.inside else []
        sounds += [self.names.latin_sounds] if is_foreign else []
        if not sounds or not form.isascii():
            return False
        heard = sound(form)
        return any(each.stand_in(heard, set(TOKEN.findall(heard))) for each in sounds)

    def _have_name_apart(self, form: str) -> bool:
        words = self.names.words
        return any(words.stand_in(each, {each}) for each in spaced_out(form)) or words.stand_apart(form)

    def in_bytes(self, data: bytes) -> str:
        for text in _texts_in(data):
            for form in forms(readable(text)):
                if kind := self._name_or_place(form, is_foreign=is_romanised(text)):
                    return kind
                if self.days.stand_in(form, parts=False):
                    return DATE
                if self.numbers.stand_in_header(form, set(TOKEN.findall(form))):
                    return NUMBER
        for text in _foreign_texts_in(data):
            for form in forms(readable(text)):
                if kind := self._name_or_place(form, is_foreign=is_romanised(text)):
                    return kind
        return NAME if any(needle in data for needle in self.foreign) else ""

    def _name_or_place(self, form: str, *, is_foreign: bool) -> str:
        """NAME or PLACE among other bytes, where two letters may be a VR or a length unless more of a name follows."""
        tokens = {token for token in neighbours(form) if len(token) > 3}
        tokens |= {token for token in TOKEN.findall(form) if len(token) > 2 or not token.isascii()}
        if self._have_name(form, tokens, is_foreign=is_foreign):
            return NAME
        return PLACE if self.places.words.stand_in(form, tokens) else ""


def _texts_in(data: bytes) -> Iterator[str]:
    """The texts among some bytes: ASCII, UTF-8, and ASCII letters as UTF-16 and UTF-32."""
    yield data.translate(_READABLE).decode("ascii")
    if wide := b" ".join(found.replace(b"\0", b"") for found in _WIDE.findall(data)):
        yield wide.decode("ascii")
    if _UTF8_LETTER.search(data):
        yield b" ".join(_UTF8.findall(data)).decode("utf-8", "replace")


def _foreign_texts_in(data: bytes) -> Iterator[str]:
    """Texts in other letters, in UTF-16, UTF-32 and national encodings; they are not searched for numbers."""
    for encoding, pattern in _WIDE_FOREIGN.items():
        if found := pattern.findall(data):
            yield " ".join(each.decode(encoding, "replace") for each in found)
    if high := b"\n".join(_HIGH.findall(data))[:_MOST_FOREIGN_BYTES]:
        yield from (high.decode(encoding, "replace") for encoding in _NATIONAL)


def _foreign(values: Iterable[str]) -> list[bytes]:
    """Names with non-ASCII letters as bytes, in all encodings that can represent them."""
    found: set[bytes] = set()
    for value in values:
        for part in filter(None, re.split(r"[\^=\s,;.]+", value)):
            found |= {
                needle
                for spelling in _spellings(part[:_LONGEST_NAME])
                if not spelling.isascii() and len(spelling) >= (2 if is_dense(spelling) else 3)
                for encoding in _ENCODINGS
                for needle in _encoded(spelling, encoding)
            }
    return sorted(needle for needle in found if len(needle) >= _MIN_FOREIGN_BYTES)


def _spellings(part: str) -> set[str]:
    back = part.lower()
    for plain, umlaut in _UMLAUTS_BACK:
        back = back.replace(plain, umlaut)
    cased = {spelled for each in {part, back} for spelled in (each, each.lower(), each.upper(), each.title())}
    return {unicodedata.normalize(form, each) for each in cased for form in ("NFC", "NFD")}


def _encoded(text: str, encoding: str) -> Iterator[bytes]:
    try:
        data = text.encode(encoding)
    except UnicodeError:
        return
    yield data.removesuffix(b"\x1b(B")


def _unpacked(text: str) -> Iterator[str]:
    """A text decoded from percent, HTML, backslash or quoted-printable escapes, hexadecimal and base 64."""
    if len(text) > _MOST_PACKED:
        return
    if "%" in text:
        yield unquote(text, errors="replace")
    if "&" in text:
        yield html.unescape(text)
    if "\\" in text or "=" in text:
        yield _ESCAPE.sub(lambda match: chr(int(match[1] or match[2], 16) % 0x110000), text)
        yield quopri.decodestring(text.encode("utf-8", "surrogateescape")).decode("utf-8", "replace")
    for match in _HEX.finditer(text):
        yield from _as_text(bytes.fromhex(re.sub(r"[ :-]", "", match[0])))
    for match in _BASE64.finditer(text):
        packed = match[0].rstrip("=").translate(str.maketrans("-_", "+/"))
        with contextlib.suppress(binascii.Error):
            yield from _as_text(base64.b64decode(packed + "=" * (-len(packed) % 4)))


def _as_text(data: bytes) -> Iterator[str]:
    """Bytes as text, if they are text."""
    data = data.replace(b"\0", b"")
    with contextlib.suppress(UnicodeError):
        if (text := data.decode("utf-8")).isprintable() and len(text) >= INSIDE:
            yield text
