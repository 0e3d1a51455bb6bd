"""Tables of inputs that must be refused, checked by one test each: a test per input would take ten times as long."""

import re
from collections.abc import Mapping


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
