"""Progress of long work: a bar on a terminal, an occasional plain line in a log."""

import sys
import time
from collections.abc import Iterable, Iterator
from typing import TypeVar

from tqdm import tqdm

Item = TypeVar("Item")
LOG_INTERVAL_S = 10.0


def track(items: Iterable[Item], *, total: int, what: str) -> Iterator[Item]:
    """Yield `items` and show on standard error how many of `total` are done; `what` names the work."""
    if sys.stderr.isatty():
        yield from tqdm(items, total=total, desc=what, file=sys.stderr, dynamic_ncols=True)
        return
    started = last = time.monotonic()
    for done, item in enumerate(items, start=1):
        yield item
        now = time.monotonic()
        if now - last >= LOG_INTERVAL_S or (done == total and now - started >= LOG_INTERVAL_S):
            last = now
            print(f"{what}: {done} of {total}, {now - started:.0f} s", file=sys.stderr, flush=True)
