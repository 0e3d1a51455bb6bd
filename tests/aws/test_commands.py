"""What all commands for SageMaker have in common, by the table of them."""

import importlib
import re

import pytest
from sagemaker_monai_aws.core.command import COMMANDS

from tests.support.places import ROOT

MAKEFILE = (ROOT / "Makefile").read_text(encoding="utf-8")
README = (ROOT / "README.md").read_text(encoding="utf-8")
READING = {"predict", "status", "logs", "iam"}
TARGETS = set(re.findall(r"^([a-z][a-z0-9-]*):.*## ", MAKEFILE, re.MULTILINE))


def help_of(name, capsys):
    module = importlib.import_module(f"scripts.{COMMANDS[name]}")
    with pytest.raises(SystemExit) as ended:
        module.main(["--help"])
    assert ended.value.code == 0
    return capsys.readouterr().out


@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_is_a_target_that_runs_its_module_and_passes_options_on(name):
    [recipe] = re.findall(rf"^{name}:.*\n((?:\t.*\n)+)", MAKEFILE, re.MULTILINE)

    assert f"-m scripts.{COMMANDS[name]} " in recipe
    assert "$(OPTIONS)" in recipe or "$(AWS_FLAGS)" in recipe


@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_has_the_settings_that_all_have(name, capsys):
    text = help_of(name, capsys)

    assert text.startswith(f"usage: {name} ")
    for flag in ("--project", "--region", "--profile", "--bucket", "--prefix", "--kms-key", "--config"):
        assert flag in text


@pytest.mark.parametrize("name", sorted(set(COMMANDS) - READING))
def test_what_creates_or_changes_something_has_a_dry_run(name, capsys):
    assert "--dry-run" in help_of(name, capsys)


@pytest.mark.parametrize("name", COMMANDS)
def test_without_a_region_a_command_says_what_to_give(name, cloud, capsys, monkeypatch, tmp_path):
    monkeypatch.delenv("AWS_DEFAULT_REGION")
    arguments = {
        "prepare-s3": [str(tmp_path)],
        "tune": ["--ranges", "learning_rate=1e-4:1e-2"],
        "process": ["evaluate"],
        "predict": [str(tmp_path / "a" / "1.jpg")],
        "transform": ["--input", "s3://bucket-of-mine/x/"],
        "push": ["--image", "thing:1", "--dry-run"],
        "delete": ["--all", "--yes"],
    }.get(name, [])
    for label in ("a", "b"):
        (tmp_path / label).mkdir()
        (tmp_path / label / "1.jpg").write_bytes(b"x")
    module = importlib.import_module(f"scripts.{COMMANDS[name]}")

    code = module.main(arguments)

    if name == "push":  # a dry run asks nobody
        assert code == 0
        return
    assert code == 2
    assert "no AWS region is known" in capsys.readouterr().err.splitlines()[-1]


def test_every_target_that_the_readme_names_is_there():
    blocks = re.findall(r"```\w*\n(.*?)```", README, re.DOTALL)
    shown = "\n".join(blocks) + "\n" + "\n".join(re.findall(r"`([^`\n]+)`", README))
    words = re.findall(r"(?:^|\s)make ([a-z][a-z0-9 -]*)", shown)
    named = {target for line in words for target in line.split() if not target.startswith("-")}

    assert len(named) > 25
    assert named <= TARGETS
