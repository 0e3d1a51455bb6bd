"""Whether a text or bytes hold anything of what identifies people."""

import re
from collections.abc import Iterable

from sagemaker_monai.deidentification.identity import Identity
from sagemaker_monai.deidentification.profile import is_blank

_CHUNK_BYTES = 1 << 24
_MIN_NAME, _MIN_WORD, _MIN_IN_BULK = 3, 4, 6  # characters; shorter ones stand everywhere by chance
_NAME_SEPARATORS = re.compile(r"[\^=\s,;]+")


class Matcher:
    """Looks for an identity; a search says what it found ("a name, number or address", "a UID", "a date"), or ""."""

    def __init__(self, identity: Identity) -> None:
        words = {part.lower() for name in identity.names for part in _NAME_SEPARATORS.split(name)}
        words = {word for word in words if len(word) >= _MIN_NAME}
        words |= {value.lower() for value in identity.numbers | identity.places if len(value) >= _MIN_WORD}
        words = {word for word in words if not is_blank(word.upper()) and len(set(word)) > 1}
        uids = {uid for uid in identity.uids if len(uid) >= _MIN_IN_BULK}
        encodings = identity.encodings | {"utf-8", "latin-1"}
        kinds = {"a name, number or address": words, "a UID": uids, "a date": identity.dates}
        self._needles = {kind: _needles(values, encodings) for kind, values in kinds.items()}
        # One UID may be the beginning of another.
        self._patterns = {
            kind: _compile(found, b"0-9." if kind == "a UID" else b"a-z0-9")
            for kind, found in self._needles.items()
            if found
        }

    def in_text(self, text: str) -> str:
        """What a text holds, by the complete rules."""
        return self.in_bytes(text.lower().encode("utf-8", "surrogateescape"))

    def in_bytes(self, data: bytes) -> str:
        """What some bytes hold that are texts among other things, as those of a header."""
        return next((kind for kind, pattern in self._patterns.items() if pattern.search(data)), "")

    def in_bulk(self, data: bytes) -> str:
        """What many bytes hold that are anything, as pixel data: long values only, for short ones stand by chance."""
        for kind, found in self._needles.items():
            long = [needle for needle in found if len(needle) >= _MIN_IN_BULK]
            overlap = max(map(len, long), default=1) - 1
            for start in range(0, len(data) if long else 0, _CHUNK_BYTES):
                chunk = data[start : start + _CHUNK_BYTES + overlap].lower()
                if any(needle in chunk for needle in long):
                    return kind
        return ""


def _needles(values: Iterable[str], encodings: Iterable[str]) -> list[bytes]:
    """The values as bytes, in lower case, in each of the encodings that can write them."""
    found: set[bytes] = set()
    for value in values:
        for encoding in encodings:
            try:
                found.add(value.encode(encoding).lower())
            except (UnicodeError, LookupError):
                continue
    return sorted(found)


def _compile(found: list[bytes], boundary: bytes) -> re.Pattern[bytes]:
    """A pattern that finds any of them where no character of `boundary` is beside it."""
    alternatives = b"|".join(re.escape(needle) for needle in sorted(found, key=len, reverse=True))
    return re.compile(b"(?<![%b])(?:%b)(?![%b])" % (boundary, alternatives, boundary), re.IGNORECASE)
