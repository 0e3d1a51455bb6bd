"""`prepare` as a command of the image and as a processing job, and the image's own list of commands."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from sagemaker_monai.entrypoints import prepare
from sagemaker_monai.prepare import ham10000
from tests.test_ham10000 import outer_zip

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture
def base(tmp_path, monkeypatch):
    """The tree of a processing job, its input not to be written to."""
    base = tmp_path / "opt-ml"
    source = base / "processing" / "input" / "source"
    source.mkdir(parents=True)
    (base / "processing" / "output").mkdir()
    outer_zip(source)
    monkeypatch.setenv("SAGEMAKER_BASE_DIR", str(base))
    return base


def arguments(base):
    return ["ham10000", str(base / "processing" / "input" / "source"), str(base / "processing" / "output")]


def message(base):
    return (base / "output" / "message").read_text()


def test_a_processing_job_turns_the_download_in_its_input_into_a_data_set_in_its_output(base, capsys):
    assert prepare.main(arguments(base)) == 0

    content = json.loads((base / "processing" / "output" / "dataset.json").read_text())
    assert content["numTraining"] > 0
    assert "class" in capsys.readouterr().out
    assert not (base / "output").exists()


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda given: [given[0], f"{given[1]}/nothing", given[2]], "DatasetError: nothing is neither a folder nor"),
        (
            lambda given: [*given, "--seed=x"],
            "ConfigError: argument --seed: invalid int value: 'x'; see prepare ham10000",
        ),
        (lambda given: ["isic", *given[1:]], "ConfigError: argument SOURCE_KIND: invalid choice: 'isic'"),
    ],
)
def test_a_failure_is_one_line_and_the_message_of_the_job(base, capsys, change, expected):
    assert prepare.main(change(arguments(base))) == 1

    assert message(base).startswith(expected)
    assert capsys.readouterr().err == message(base) + "\n"


def test_a_job_that_is_stopped_says_so_and_can_be_run_again(base, monkeypatch, capsys):
    real = ham10000.output.begin

    def stop_the_job(*given, **named):
        os.kill(os.getpid(), signal.SIGTERM)
        return real(*given, **named)

    before = signal.getsignal(signal.SIGTERM)
    with monkeypatch.context() as patch:
        patch.setattr(ham10000.output, "begin", stop_the_job)
        assert prepare.main(arguments(base)) == 1
    assert signal.getsignal(signal.SIGTERM) is before
    assert message(base) == "the command was interrupted: run it again"
    assert not (base / "processing" / "output" / "dataset.json").exists()

    assert prepare.main(arguments(base)) == 0
    assert not (base / "output" / "message").exists()


def in_image(*command):
    """The image's entry point, with the Python of the tests for that of the image."""
    environment = os.environ | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    return subprocess.run(
        ["sh", ROOT / "docker" / "entrypoint", *command], capture_output=True, text=True, env=environment, timeout=60
    )


@pytest.mark.parametrize("command", ["prepare", "evaluate", "train", "version"])
def test_the_image_has_the_command_and_lists_it(command):
    result = in_image(command, *([] if command == "version" else ["--help"]))

    assert result.returncode == 0, result.stderr
    assert command == "version" or result.stdout.startswith(f"usage: {command} ")
    assert f"\n  {command} " in in_image("help").stdout
