"""Lists of names, shortened for a message, and numbers with their noun."""

from collections.abc import Sequence

MAX_NAMED = 5
MAX_NAME_LENGTH = 60


def some_of(names: Sequence[str]) -> str:
    """The first few names and how many more there are, short enough for a one-line error."""
    shown = [name if len(name) <= MAX_NAME_LENGTH else f"…{name[1 - MAX_NAME_LENGTH :]}" for name in names[:MAX_NAMED]]
    rest = f" and {len(names) - MAX_NAMED} more" if len(names) > MAX_NAMED else ""
    return ", ".join(" ".join(name.split()) for name in shown) + rest


def counted(count: int, noun: str) -> str:
    """A number with its noun: 1 image, 2 images, 3 classes."""
    return f"{count} {noun if count == 1 else noun + ('es' if noun.endswith('s') else 's')}"
