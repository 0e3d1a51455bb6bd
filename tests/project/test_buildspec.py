"""buildspec.yml: checked against a schema, and its phases run in a shell with a make that records its calls."""

import json
import re
import subprocess
from pathlib import Path

import jsonschema
import pytest
import yaml

from tests.support.places import ROOT

SPEC = yaml.safe_load((ROOT / "buildspec.yml").read_text())
SCHEMA = json.loads(Path(__file__).with_name("buildspec.schema.json").read_text())
MAKE = """#!/bin/sh
echo "$* $REPOSITORY $PUSH_OPTIONS" >> "$NOTES"
[ "$1" != "$FAILING" ]
"""


def errors(spec):
    return [error.message for error in jsonschema.Draft202012Validator(SCHEMA).iter_errors(spec)]


def test_it_meets_the_schema():
    assert errors(SPEC) == []


@pytest.mark.parametrize(
    "change",
    [
        {"version": "0.2"},
        {"phase": {}},
        {"phases": {"builds": {"commands": ["make"]}}},
        {"phases": {"build": {"command": ["make"]}}},
        {"phases": {"build": {"commands": "make"}}},
        {"phases": {"build": {"commands": []}}},
        {"env": {"variables": {"GPU": 1}}},
    ],
)
def test_the_schema_finds_faults(change):
    assert errors(SPEC | change)


def run_phases(tmp_path, failing=""):
    """Run the phases as CodeBuild does: the first failing command ends its phase; only a failed build goes on, to
    post_build.

    Returns:
        The calls of make, and whether the build succeeded.
    """
    (tmp_path / "make").write_text(MAKE)
    (tmp_path / "make").chmod(0o755)
    (tmp_path / "notes").touch()
    environment = {"PATH": f"{tmp_path}:/usr/bin:/bin", "NOTES": str(tmp_path / "notes"), "FAILING": failing}
    environment |= SPEC["env"]["variables"]
    succeeding = True
    for phase in ("install", "pre_build", "build", "post_build"):
        if not succeeding and phase != "post_build":
            break
        script = "set -e\n" + "\n".join(SPEC["phases"].get(phase, {}).get("commands", []))
        run = subprocess.run(
            [SPEC["env"]["shell"], "-c", script],
            env=environment | {"CODEBUILD_BUILD_SUCCEEDING": str(int(succeeding))},
            cwd=tmp_path,
        )
        succeeding = succeeding and run.returncode == 0
        if phase == "install" and not succeeding:
            break
    return (tmp_path / "notes").read_text().splitlines(), succeeding


def test_the_image_is_built_tested_scanned_and_then_pushed(tmp_path):
    asked, succeeded = run_phases(tmp_path)

    assert [line.split()[0] for line in asked] == ["install", "build", "test-image", "scan", "push"]
    assert succeeded
    assert asked[-1] == "push sagemaker-monai --create"  # the variables reach Make


@pytest.mark.parametrize("target", ["install", "build", "test-image", "scan"])
def test_nothing_is_pushed_after_a_failure(tmp_path, target):
    asked, succeeded = run_phases(tmp_path, failing=target)

    assert asked[-1].split()[0] == target
    assert not succeeded


def test_a_failed_push_fails_the_build(tmp_path):
    assert run_phases(tmp_path, failing="push")[1] is False


def test_only_targets_and_variables_of_the_makefile_are_used():
    makefile = (ROOT / "Makefile").read_text()
    commands = [command for phase in SPEC["phases"].values() for command in phase["commands"]]
    targets = [re.search(r"\bmake (\S+)$", command).group(1) for command in commands]

    assert set(targets) <= set(re.findall(r"^([a-z][a-z-]*):", makefile, re.MULTILINE))
    assert set(SPEC["env"]["variables"]) <= set(re.findall(r"\$[({]([A-Z_]+)[)},]?", makefile))


@pytest.mark.parametrize(
    ("base", "is_built"), [("", False), ("pytorch:2.13", False), (f"pytorch@sha256:{'0' * 64}", True)]
)
def test_a_release_is_built_only_on_a_digest_and_other_builds_on_any_base(base, is_built):
    def build(**variables):
        words = [f"{name}={value}" for name, value in variables.items()]
        return subprocess.run(["make", "-n", "build", *words], cwd=ROOT, capture_output=True, text=True)

    given = {"BASE_IMAGE": base} if base else {}
    released = build(**given, RELEASE=SPEC["env"]["variables"]["RELEASE"])

    assert (released.returncode == 0) == is_built
    assert is_built or "give BASE_IMAGE=NAME@sha256:" in released.stderr
    assert build(**given).returncode == 0
