"""Run the attacks at length and print what held, as a table for docs/security.md (`make bench-attacks`).

A kind of attack is a test file of the suite. Its generated inputs go through one function, whose calls are counted; for
a file without such a function, its tests are counted. `held`: the attack was accepted but had no effect, or was
answered within its limits; `refused`: rejected with one of our errors, which is as good; `failed`: it succeeded.
"""

import argparse
import os
import sys
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

os.environ["RANDOM_EXAMPLES"] = "yes"  # others in each run

import pytest

TESTS = Path(__file__).resolve().parent.parent


@dataclass(frozen=True)
class Kind:
    """A row of KINDS.

    Attributes:
        name: what is attacked, in a few words.
        file: of tests/.
        trials: functions in it, each call of which is one attack; it raises where the attack gets through.
        refused: what such a function returns where the attack was refused.
    """

    name: str
    file: str
    trials: tuple[str, ...] = ()
    refused: tuple[Any, ...] = ()


KINDS = {
    "elements": Kind("texts in elements of a DICOM header", "test_header_values.py", ("written",), (None,)),
    "people": Kind(
        "a person in any spelling, alphabet and encoding", "test_people_in_texts.py",
        ("look_in_text", "look_in_bytes", "look_in_bulk"),
    ),
    "pixels": Kind("texts beside the pixels of DICOM", "test_pixel_data.py", ("held",), ("refused",)),
    "jpeg": Kind("texts in a JPEG codestream", "test_jpeg_markers.py", ("held",)),
    "files": Kind("texts beside the image in pictures and volumes", "test_clean_files.py", ("check",), (False,)),
    "uploads": Kind("what `make prepare-s3` sends", "test_upload_privacy.py"),
    "names": Kind("names of files in messages and reports", "test_item_names.py"),
    "budgets": Kind("requests that want memory or computing", "test_bombs.py"),
    "memory": Kind("workers that want more than their share", "test_memory.py"),
    "processes": Kind("processes against each other", "test_lockdown.py"),
    "policies": Kind("projects whose names meet", "test_policies_apart.py", ("let_through",)),
}  # fmt: skip


class Counting:
    """Counts a kind's tests, and the calls of its trial functions."""

    def __init__(self, kind: Kind) -> None:
        self.kind = kind
        self.trials: Counter[str] = Counter()
        self.tests: Counter[str] = Counter()

    def pytest_collection_modifyitems(self, items: list[Any]) -> None:
        """Replace each trial function in its module with a counting version."""
        for module in {item.module for item in items}:
            for name in self.kind.trials:
                setattr(module, name, self._counted(getattr(module, name)))

    def _counted(self, function: Callable[..., Any]) -> Callable[..., Any]:
        def trial(*arguments: Any, **options: Any) -> Any:
            try:
                outcome = function(*arguments, **options)
            except BaseException:
                self.trials["failed"] += 1
                raise
            is_refused = any(outcome is each or outcome == each for each in self.kind.refused)
            self.trials["refused" if is_refused else "held"] += 1
            return outcome

        return trial

    def pytest_runtest_logreport(self, report: Any) -> None:
        """Count each test once, by its outcome."""
        if report.failed:
            self.tests["failed"] += 1
        elif report.when == "call" and report.passed:
            self.tests["held"] += 1

    @property
    def row(self) -> tuple[int, int, int, int]:
        """Tried, held, refused, failed; a failed test counts as a failure even if no trial failed."""
        counted = self.trials or self.tests
        failed = max(counted["failed"], self.tests["failed"])
        return counted["held"] + counted["refused"] + failed, counted["held"], counted["refused"], failed


def main() -> int:
    """Run the requested kinds; 1 if any attack succeeded."""
    parser = argparse.ArgumentParser(prog="make bench-attacks")
    parser.add_argument("kinds", nargs="*", choices=[[], *KINDS], help="(default: all)")
    parser.add_argument("--short", action="store_true", help="as in `make test`")
    options = parser.parse_args()
    rows = []
    for name in options.kinds or KINDS:
        kind = KINDS[name]
        [path], counting, before = TESTS.glob(f"*/{kind.file}"), Counting(kind), time.monotonic()
        which = ["-m", "not long and not attacks"] if options.short else []
        print(f"{name}: {kind.file}", file=sys.stderr, flush=True)
        code = pytest.main([str(path), *which, "-q", "--no-header", "-p", "no:cacheprovider"], plugins=[counting])
        if code not in (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED):
            raise SystemExit(f"{kind.file} did not run: {code!r}")
        rows.append((kind.name, counting.row, time.monotonic() - before))
    print("| attack | tried | held | refused | failed | time |")
    print("|---|---:|---:|---:|---:|---:|")
    for what, counts, seconds in rows:
        print(f"| {what} | {' | '.join(f'{count:,}' for count in counts)} | {seconds:.0f} s |")
    return int(any(counts[3] for _, counts, _ in rows))


if __name__ == "__main__":
    sys.exit(main())
