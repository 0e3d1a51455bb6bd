"""Searches arbitrary bytes, such as pixel data, for many short texts, and tells how likely one occurs by chance."""

import math
from collections.abc import Mapping

import numpy as np

SHORTEST = 5  # bytes of a needle; a shorter one occurs by chance in any picture
_PLACES = 8  # bytes of a needle that one byte of flags covers
_CHUNK_BYTES = 1 << 22
_SMALL = np.frombuffer(bytes(range(256)).lower(), np.uint8)


def odds_of(needle: bytes) -> float:
    """The chance of some bytes at one position of the noise that favours them most.

    That is noise around their mean with their own standard deviation s, in which each of L independent bytes is right
    with at most 1 in s * sqrt(2 pi e). Times the number of positions, this is the chance of a false finding. It is 1
    for ascending and descending bytes, which occur in every gradient.
    """
    if list(needle) in (sorted(needle), sorted(needle, reverse=True)):
        return 1.0
    mean = sum(needle) / len(needle)
    deviation = math.sqrt(sum((byte - mean) ** 2 for byte in needle) / len(needle))
    return min(1.0, (max(deviation, 0.5) * math.sqrt(2 * math.pi * math.e)) ** -len(needle))


class Needles:
    """Texts that are searched for together, ignoring case."""

    def __init__(self, needles: Mapping[bytes, str]) -> None:
        """Take needle -> its kind."""
        self._kinds = {needle.lower(): kind for needle, kind in needles.items() if len(needle) >= SHORTEST}
        flags = np.zeros((256, _PLACES), bool)
        for place in range(_PLACES):
            flags[[needle[place] for needle in self._kinds if len(needle) > place], place] = True
            flags[:, place] |= any(len(needle) <= place for needle in self._kinds)
        # Bit k of a byte's flags: it may be byte k of a needle.
        self._flags = np.packbits(flags[_SMALL], axis=1, bitorder="little").tobytes()
        self._starts: dict[bytes, list[bytes]] = {}
        for needle in self._kinds:
            self._starts.setdefault(needle[:4], []).append(needle)
        self._heads = np.unique(np.array([int.from_bytes(start, "little") for start in self._starts], np.uint32))

    def stand_in(self, data: bytes, chance: float) -> str:
        """The kind of a needle found in the data, as ASCII, UTF-16 or UTF-32, or "".

        Needles that would occur in the data by chance with a probability above `chance` are ignored.
        """
        if not self._kinds:
            return ""
        likely, overlap = chance / max(1, len(data)), 4 * max(map(len, self._kinds))
        for start in range(0, len(data), _CHUNK_BYTES):
            chunk = data[start : start + _CHUNK_BYTES + overlap]
            values = np.frombuffer(chunk, np.uint8)
            flags = np.frombuffer(chunk.translate(self._flags), np.uint8)
            for step in (1, 2, 4):
                for offset in range(step):
                    if kind := self._in_view(values[offset::step], flags[offset::step], likely):
                        return kind
        return ""

    def _in_view(self, values: np.ndarray, flags: np.ndarray, likely: float) -> str:
        if values.size < SHORTEST:
            return ""
        found = np.concatenate((flags, np.full(_PLACES, 255, np.uint8)))
        for distance in (1, 2, 4):  # then bit 0 is that of 2, 4 and 8 places
            found = found[:-distance] & (found[distance:] >> distance)
        places = np.flatnonzero((found[: values.size - 4] & 1).view(bool))
        if not places.size:
            return ""
        heads = sum(_SMALL[values[places + shift]].astype(np.uint32) << (8 * shift) for shift in range(4))
        for start in places[np.isin(heads, self._heads)].tolist():
            for needle in self._starts[values[start : start + 4].tobytes().lower()]:
                is_there = values[start : start + len(needle)].tobytes().lower() == needle
                if is_there and odds_of(needle) < likely:
                    return self._kinds[needle]
        return ""
