"""Tables of inputs that must be refused, checked by one test each: a test per input would take ten times as long."""

import re
import tracemalloc
from collections.abc import Mapping
from contextlib import contextmanager


def not_refused(cases, call, error, match=""):
    """The cases, by their names in a mapping, for which `call` does not raise `error` with a matching message."""
    named = cases.items() if isinstance(cases, Mapping) else ((repr(case)[:80], case) for case in cases)
    accepted = []
    for name, case in named:
        try:
            call(case)
        except error as refusal:
            if not re.search(match, str(refusal)):
                accepted.append(f"{name}: {refusal}")
        except Exception as other:  # so that one test names all of them
            accepted.append(f"{name}: {other!r}")
        else:
            accepted.append(name)
    return accepted


def wrongly_refused(rows, call, error):
    """`not_refused` for rows of an input and the pattern of its own message."""
    return [wrong for case, match in rows for wrong in not_refused([case], call, error, match)]


@contextmanager
def allocating_less_than(size_bytes):
    """Fail where the code inside holds more memory than that at any time."""
    tracemalloc.start()
    try:
        yield
        peak_bytes = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak_bytes < size_bytes
