"""Public names of the files and groups of a data set, the same for every importer."""

import re
from collections import defaultdict
from collections.abc import Callable, Sequence

MAX_NAME_LENGTH = 100
_UNSAFE = re.compile(r"[^A-Za-z0-9._-]+")


def _safe(parts: Sequence[str], suffix: str) -> str:
    text = _UNSAFE.sub("_", "_".join(parts)).strip("._-") or "image"
    return text[-(MAX_NAME_LENGTH - len(suffix)) :].lstrip("._-") + suffix


def name_files(keys: Sequence[Sequence[str]], suffixes: Sequence[str]) -> list[str]:
    """File names for images: the last part of the key, with the folders before it if it is not unique.

    Args:
        keys: parts of each key; the suffix of the last part is replaced.
        suffixes: lower-case ending of each, with the dot.

    Returns:
        Names of letters, digits and ._- only, unique without regard to case.
    """
    stems = [
        (*parts[:-1], parts[-1].rpartition(".")[0] if "." in parts[-1][1:] and _is_suffixed(parts[-1]) else parts[-1])
        for parts in keys
    ]
    short = [_safe(stem[-1:], suffix) for stem, suffix in zip(stems, suffixes, strict=True)]
    counts: dict[str, int] = defaultdict(int)
    for name in short:
        counts[name.lower()] += 1
    names, taken = [], {name.lower() for name in short if counts[name.lower()] == 1}
    numbers: dict[str, int] = defaultdict(lambda: 1)
    for name, stem, suffix in zip(short, stems, suffixes, strict=True):
        if counts[name.lower()] > 1:
            first = name = _safe(stem, suffix)
            while name.lower() in taken:
                numbers[first] += 1
                name = _safe([*stem, str(numbers[first])], suffix)
            taken.add(name.lower())
        names.append(name)
    return names


def _is_suffixed(name: str) -> bool:
    """Whether the last dot begins a suffix: a file named by its UID has none."""
    return not name.rpartition(".")[2].isdigit()


def public_names(groups: Sequence[str], what: str, *, order: Callable[[str], str] = lambda group: group) -> list[str]:
    """Numbered names for groups, whose own names may be personal data: the same for the same set of groups.

    Args:
        groups: of each image.
        what: first part of every name.
        order: sort key, so that numbers do not depend on the order of files.
    """
    numbers = {group: number for number, group in enumerate(sorted(set(groups), key=order), start=1)}
    return [f"{what}-{numbers[group]}" for group in groups]
