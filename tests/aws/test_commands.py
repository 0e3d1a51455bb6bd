"""What all commands for SageMaker have in common, by the table of them."""

import re
import subprocess
import sys

import pytest

from sagemaker_monai_aws.__main__ import main
from sagemaker_monai_aws.commands import COMMANDS
from tests.support.places import ROOT

MAKEFILE = (ROOT / "Makefile").read_text(encoding="utf-8")
DOCUMENTS = "\n".join(path.read_text(encoding="utf-8") for path in (ROOT / "README.md", *(ROOT / "docs").glob("*.md")))
# Of the recipes' variables, what several commands have, and what is made of other variables.
PASSED_ON = {"AWS_FLAGS", "OPTIONS", "REGION", "REPOSITORY", "TAG", "HYPERPARAMETER_FLAGS"}
READING = {"predict", "status", "logs", "iam"}
TARGETS = set(re.findall(r"^([a-z][a-z0-9-]*):.*## ", MAKEFILE, re.MULTILINE))


def help_of(name, capsys):
    with pytest.raises(SystemExit) as ended:
        main([name, "--help"])
    assert ended.value.code == 0
    return capsys.readouterr().out


@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_is_a_target_with_its_words_and_variables(name):
    [(words, recipe)] = re.findall(rf"^{name}:.*## (.*)\n((?:\t.*\n)+)", MAKEFILE, re.MULTILINE)
    variables = set(re.findall(r"\$\((?:if \$\(|call NEED,|call flag,--[a-z]+,)?([A-Z_]+)", recipe)) - PASSED_ON

    assert words.startswith(COMMANDS[name].help)
    assert f".venv/bin/sagemaker-monai {name} " in recipe
    assert "$(OPTIONS)" in recipe or "$(AWS_FLAGS)" in recipe
    assert variables == {variable.strip("!") for variable in COMMANDS[name].variables.split()}
    assert re.findall(r"NEED,([A-Z]+)", recipe) == re.findall(r"([A-Z]+)!", COMMANDS[name].variables)


def test_the_command_lists_its_commands_without_what_they_need(capsys):
    program = "import sys; from sagemaker_monai_aws.__main__ import main; main(['--help']); print(*sys.modules)"
    printed = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True,
                             env={"PYTHONPATH": str(ROOT / "scripts")}).stdout  # fmt: skip

    assert all(
        re.search(rf"^  {name} +{re.escape(row.help)}$", printed, re.MULTILINE) for name, row in COMMANDS.items()
    )
    assert not {"boto3", "numpy", "torch", "sagemaker_monai"} & set(printed.splitlines()[-1].split())
    assert main([]) == main(["trian"]) == 2
    assert "there is no command 'trian'" in capsys.readouterr().err


def test_no_command_waits_for_torch():
    modules = [row.module for row in COMMANDS.values()]
    program = (
        "import importlib, sys\n"
        "for name in sys.argv[1:]: importlib.import_module(f'sagemaker_monai_aws.{name}')\n"
        "print(*sys.modules)"
    )
    loaded = subprocess.run([sys.executable, "-c", program, *modules], capture_output=True, text=True, check=True,
                            env={"PYTHONPATH": str(ROOT / "scripts")})  # fmt: skip

    assert not {"torch", "monai", "scipy"} & set(loaded.stdout.split())


@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_has_the_settings_that_all_have(name, capsys):
    text = help_of(name, capsys)

    assert text.startswith(f"usage: sagemaker-monai {name} ")
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

    code = main([name, *arguments])

    if name == "push":  # a dry run asks nobody
        assert code == 0
        return
    assert code == 2
    assert "no AWS region is known" in capsys.readouterr().err.splitlines()[-1]


def test_every_target_that_the_documents_name_is_there():
    blocks = re.findall(r"```\w*\n(.*?)```", DOCUMENTS, re.DOTALL)
    shown = "\n".join(blocks) + "\n" + "\n".join(re.findall(r"`([^`\n]+)`", DOCUMENTS))
    words = re.findall(r"(?:^|\s)make ([a-z][a-z0-9 -]*)", shown)
    named = {target for line in words for target in line.split() if not target.startswith("-")}

    assert len(named) > 25
    assert named <= TARGETS
