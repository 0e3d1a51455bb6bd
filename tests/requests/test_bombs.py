"""Small bodies that ask for much, in a process with a worker's limit of memory: answered, or refused with a cause.

Seconds are no subject here: work is counted, and what is counted is asked in test_budget.py. `tests.attacks.measure`
prints them.
"""

import json
import os
import subprocess
import sys

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.attacks.bombs import BOMBS
from tests.support.places import ROOT

MOST_MIB = 512
# Those whose making takes a second or more are in the long test only.
QUICK = {
    "frames of JPEG-LS": 1.0, "frames of RLE": 0.5, "deflated DICOM": 0.5, "items": 0.02, "elements": 0.1,
    "sequences": 1.0, "fragments": 0.2, "tiny frames": 1.0, "NIfTI": 0.3, "npy": 1.0, "PNG with alpha": 0.4,
    "chunks of PNG": 0.5, "segments of JPEG": 0.5, "junk in JPEG": 0.5, "scans of JPEG": 0.2, "run lengths of BMP": 1.0,
    "depth of JSON": 1.0, "text of JSON": 0.3, "parts of a form": 1.0, "long names of tar": 1.0,
    "pax headers of tar": 1.0, "990 pictures in JSON": 0.1,
}  # fmt: skip


def measured(shares):
    """What each bomb came to."""
    wanted = [f"{name}={share}" for name, share in shares]
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-m", "tests.attacks.measure", *wanted], cwd=ROOT, env=env, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-2_000:]
    return [json.loads(line) for line in done.stdout.splitlines()]


def check(result):
    assert result["outcome"] not in ("died", "fault"), result
    assert result["memory_mib"] <= MOST_MIB, result
    if result["outcome"] == "answered":
        assert result["shapes"] in ([[1, 16, 16, 16]], [[3, 16, 16]]), result
    else:
        assert result["outcome"] in ("PayloadTooLarge", "UndecodableImage", "MalformedRequest", "UnsuitableImage"), (
            result
        )
        assert len(result["message"]) < 500, result


def test_bombs_are_answered_or_refused_within_the_memory_of_a_request():
    results = measured(QUICK.items())

    assert [result["name"] for result in results] == list(QUICK)
    for result in results:
        check(result)
    refused = {result["name"] for result in results if result["outcome"] == "PayloadTooLarge"}
    assert refused >= {"frames of JPEG-LS", "chunks of PNG", "segments of JPEG", "junk in JPEG", "tiny frames"}


@pytest.mark.attacks
@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(name=st.sampled_from(sorted(BOMBS)), share=st.floats(0.01, 1.0))
def test_bombs_of_any_size_are_answered_or_refused(name, share):
    [result] = measured([(name, share)])

    check(result)
