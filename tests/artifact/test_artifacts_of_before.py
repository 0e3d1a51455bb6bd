"""Artifacts that were made before modules moved into folders are read, and answer as on that day.

`tests/fixtures/before/make.py` says how they were made: each preset once, each task at least once.
"""

import hashlib
import json
import tarfile
from pathlib import Path

import pytest

from sagemaker_monai.serving import inference

BEFORE = Path(__file__).parents[1] / "fixtures" / "before"
ALL = ("ct_slice", "ct_volume", "deep", "mr_slice", "mr_volume", "pet_slice", "pet_volume", "photo", "volume", "xray")
# Of another processor: libraries choose their kernels by its instructions, and sums in another order differ so much.
TOLERANCE = {"rel": 1e-5, "abs": 1e-6}


@pytest.fixture(scope="module")
def read(tmp_path_factory):
    """Of a preset what was told, and the artifact as it is read today."""
    done = {}

    def read_once(preset):
        if preset not in done:
            folder = tmp_path_factory.mktemp(preset)
            with tarfile.open(BEFORE / preset / "model.tar.xz") as archive:
                archive.extractall(folder, filter="data")
            told = json.loads((BEFORE / preset / "answers.json").read_text())
            done[preset] = told, inference.model_fn(folder)
        return done[preset]

    return read_once


def kind_of_cpu() -> str:
    """As in `make.py`; empty where there is no such file."""
    if not (path := Path("/proc/cpuinfo")).is_file():
        return ""
    lines = path.read_text().split("\n\n")[0].splitlines()
    told = [line for line in lines if line.startswith(("vendor_id", "cpu family", "model", "stepping", "flags"))]
    return hashlib.sha256("\n".join(told).encode()).hexdigest()


def numbers(text: str) -> list[float]:
    """What of an answer can be read as a number."""
    found = []
    for word in text.translate(dict.fromkeys(map(ord, '{}[]:,"'), " ")).split():
        try:
            found.append(float(word))
        except ValueError:
            continue
    return found


def words(text: str) -> list[str]:
    """What of an answer cannot."""
    return [word for word in text.translate(dict.fromkeys(map(ord, '{}[]:,"'), " ")).split() if not numbers(word)]


@pytest.mark.parametrize("preset", ALL)
@pytest.mark.parametrize("accept", ["application/json", "text/csv"])
def test_an_artifact_of_before_answers_as_on_the_day_it_was_made(read, preset, accept):
    told, model = read(preset)
    samples = inference.input_fn((BEFORE / preset / "request").read_bytes(), told["content_type"])

    body = inference.output_fn(inference.predict_fn(samples, model), accept)[0].decode()

    before = told["bodies"][accept]
    assert model.model_version == told["model_version"]
    if told["cpu"] == kind_of_cpu():
        assert body == before
    assert words(body) == words(before)
    assert numbers(body) == pytest.approx(numbers(before), **TOLERANCE)


def test_every_task_has_an_artifact_of_before(read):
    assert {read(preset)[1].task.name for preset in ALL} == {"classification", "multilabel", "ordinal", "regression"}
