"""Which sides the labels of a data set tell apart, so that augmentation does not exchange them.

A mirrored left kidney is a right one: where a label names a side, its image is not mirrored along that axis.
"""

import re
import unicodedata
from collections.abc import Iterable

# Axis of a volume in RAS order -> words for its ends, of which one is enough ("left ventricle").
WORDS: dict[int, frozenset[str]] = {
    0: frozenset({"left", "right", "sinister", "dexter", "links", "linke", "linker", "rechts", "rechte", "rechter",
                  "gauche", "droite", "izquierda", "izquierdo", "derecha", "derecho", "sinistra", "sinistro", "destra",
                  "destro", "esquerda", "esquerdo", "direita", "direito"}),
    1: frozenset({"anterior", "posterior", "ventral", "dorsal", "vordere", "vorderer", "hintere", "hinterer",
                  "anterieur", "posterieur", "anteriore", "posteriore"}),
    2: frozenset({"superior", "inferior", "cranial", "caudal", "superieur", "inferieur", "superiore", "inferiore"}),
}  # fmt: skip
# Words that mean a side only where another label is the same with the other one: `post` may be "after surgery".
PAIRS: dict[int, tuple[tuple[str, str], ...]] = {
    0: (("l", "r"), ("lt", "rt"), ("lh", "rh"), ("os", "od")),
    1: (("ant", "post"), ("front", "back")),
    2: (("sup", "inf"), ("upper", "lower"), ("top", "bottom")),
}
_WORD = re.compile(r"[^\W\d_]+")
_JOINED = re.compile(r"(?<=[a-z])(?=[A-Z])")  # leftLung


def axes_with_sides(labels: Iterable[str]) -> frozenset[int]:
    """The axes of a volume in RAS order whose two sides are told apart by labels."""
    words = [_words(label) for label in labels]
    axes = {axis for axis, sides in WORDS.items() if any(sides & each for each in words)}
    for axis, pairs in PAIRS.items():
        if any(one in each and each - {one} | {other} in words for one, other in pairs for each in words):
            axes.add(axis)
    return frozenset(axes)


def _words(label: str) -> frozenset[str]:
    """Of a label, in lower case and without accents."""
    parts = _WORD.findall(_JOINED.sub(" ", unicodedata.normalize("NFKC", label)))
    plain = ("".join(c for c in unicodedata.normalize("NFD", part) if not unicodedata.combining(c)) for part in parts)
    return frozenset(part.lower() for part in plain)
