"""Parametrised tests with all cases, of which `make test` runs only a few."""

import itertools

import pytest


def exhaustive(cases, *, short=1):
    """The cases of a test, all but the first `short` of them marked `long`."""
    cases = list(cases)
    return cases[:short] + [
        pytest.param(*(case if isinstance(case, tuple) else (case,)), marks=pytest.mark.long) for case in cases[short:]
    ]


def crossed(*axes):
    """All combinations of some values; those with more than one value that is not the first of its axis are `long`."""
    firsts = [next(iter(axis)) for axis in axes]

    def others(case):
        return sum(value != first for value, first in zip(case, firsts, strict=True))

    return [
        pytest.param(*case, marks=[pytest.mark.long] if others(case) > 1 else []) for case in itertools.product(*axes)
    ]
