"""Parametrised tests with all cases, of which `make test` runs only the first."""

import pytest


def exhaustive(cases, *, short=1):
    """The cases of a test, all but the first `short` of them marked `long`."""
    cases = list(cases)
    return cases[:short] + [
        pytest.param(*(case if isinstance(case, tuple) else (case,)), marks=pytest.mark.long) for case in cases[short:]
    ]
