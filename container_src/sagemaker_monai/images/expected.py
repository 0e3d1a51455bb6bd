"""Images by their headers, told before their pixels are decoded.

Readers know the size of an image long before they have its values. The caller may know that it does not fit,
such as a predictor that counts what comes after decoding; it refuses here, whatever the format.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field

import numpy as np


@dataclass(frozen=True)
class Expected:
    """An image that is about to be decoded.

    Attributes:
        shape: (C, W, H) or (C, W, H, D), as it will be stored.
        affine: (4, 4) of a volume, RAS mm; None without geometry and for all else.
        count: how many such images, one after the other: the frames of a file.
        decoding_bytes: held while it is decoded beside its values of 4 bytes each.
        has_padding: the header names a value that means "no pixel".
    """

    shape: tuple[int, ...]
    affine: np.ndarray | None = field(default=None, repr=False, compare=False)
    count: int = 1
    decoding_bytes: int = 0
    has_padding: bool = False


# Given all images of one sample, refuses them or returns the most bytes that they will take at once.
Watcher = Callable[[Sequence[Expected]], int]
_watcher: ContextVar[Watcher | None] = ContextVar("watcher", default=None)


@contextmanager
def watching(watcher: Watcher) -> Iterator[None]:
    """Have images checked that are read within the block."""
    token = _watcher.set(watcher)
    try:
        yield
    finally:
        _watcher.reset(token)


def expect(*images: Expected) -> int:
    """Tell of all images of a sample before the first is decoded.

    Returns:
        The most bytes that they will take at once, decoded values included; 0 if nobody counts.

    Raises:
        PayloadTooLarge: they do not fit.
    """
    watcher = _watcher.get()
    return 0 if watcher is None else watcher(images)
