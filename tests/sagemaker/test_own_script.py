import json
import subprocess
import sys

import pytest

from sagemaker_monai.entrypoints.train import main
from sagemaker_monai.sagemaker import own_script

# Stands for the toolkit: says what it was given, waits for SIGTERM if the script does, and ends with the code 7.
TOOLKIT = """
import os, pathlib, signal, subprocess, sys
pathlib.Path("module").write_text(os.environ.get("SAGEMAKER_TRAINING_MODULE", "none"))
sys.exit(subprocess.call([sys.executable, "script.py"]))
"""


@pytest.fixture
def base(tmp_path, monkeypatch):
    """An /opt/ml with a toolkit that can be imported, as the current folder."""
    package = tmp_path / "sagemaker_training" / "cli"
    package.mkdir(parents=True)
    for folder in (package, package.parent):
        (folder / "__init__.py").touch()
    (package / "train.py").write_text(TOOLKIT)
    (tmp_path / "input" / "config").mkdir(parents=True)
    (tmp_path / "script.py").write_text("import sys; sys.exit(7)")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setenv("SAGEMAKER_BASE_DIR", str(tmp_path))
    monkeypatch.setenv("SAGEMAKER_TRAINING_MODULE", "sagemaker_monai.entrypoints.train:run_in_toolkit")
    yield tmp_path
    for name in [name for name in sys.modules if name.startswith("sagemaker_training")]:
        del sys.modules[name]


def write(base, **hyperparameters):
    (base / "input" / "config" / "hyperparameters.json").write_text(json.dumps(hyperparameters))


@pytest.mark.parametrize(
    ("hyperparameters", "environment", "expected"),
    [
        ({"sagemaker_program": '"train.py"'}, {}, "train.py"),
        ({"sagemaker_program": "train.py"}, {}, "train.py"),
        ({"sagemaker_program": '""'}, {}, ""),
        ({"sagemaker_program": "null"}, {}, ""),
        ({"sagemaker_program": None}, {}, ""),
        ({"sagemaker_region": '"eu-west-1"'}, {}, ""),
        ({}, {"SAGEMAKER_PROGRAM": "run.sh"}, "run.sh"),
        ({}, {"SAGEMAKER_PROGRAM": ""}, ""),
    ],
)
def test_a_job_brings_its_own_script_when_it_names_one(hyperparameters, environment, expected):
    assert own_script.program(hyperparameters, environment) == expected


@pytest.mark.parametrize(("of_base", "expected"), [("base.training:main", "base.training:main"), ("", "none")])
def test_the_toolkit_runs_with_the_module_of_the_base_and_its_exit_code_is_ours(of_base, expected, base, monkeypatch):
    monkeypatch.setenv("BASE_TRAINING_MODULE", of_base)
    write(base, sagemaker_program='"script.py"', anything="else", epochs="no number")

    assert main([]) == 7
    assert (base / "module").read_text() == expected


def test_without_the_toolkit_the_job_is_refused(base, monkeypatch):
    monkeypatch.setattr(own_script, "TOOLKIT", "not_installed_anywhere")
    write(base, sagemaker_program='"script.py"')

    assert main([]) == 1
    assert (base / "output" / "failure").read_text().startswith("ConfigError: sagemaker_program names a script")


def test_hosts_that_do_not_resolve_are_named_before_the_toolkit_waits_for_them_without_end(base, monkeypatch):
    monkeypatch.setenv("HOSTS_TIMEOUT_SECONDS", "1")
    write(base, sagemaker_program='"script.py"')
    (base / "input" / "config" / "resourceconfig.json").write_text(
        '{"current_host": "algo-1.invalid", "hosts": ["algo-1.invalid"]}'
    )

    assert main([]) == 1
    assert "do not resolve after 1 s: 1 (algo-1.invalid)" in (base / "output" / "failure").read_text()
    assert not (base / "module").exists()


def test_sigterm_reaches_a_script_that_handles_it(base):
    write(base, sagemaker_program='"script.py"')
    (base / "script.py").write_text(
        "import signal, sys, time\n"
        "signal.signal(signal.SIGTERM, lambda *_: sys.exit(5))\n"
        "print('ready', flush=True)\n"
        "time.sleep(60)\n"
    )
    command = [sys.executable, "-m", "sagemaker_monai.entrypoints.train"]
    job = subprocess.Popen(command, cwd=base, stdout=subprocess.PIPE, text=True)
    try:
        assert job.stdout.readline() == "ready\n"
        job.terminate()
        assert job.wait(60) == 5
    finally:
        job.kill()
        job.communicate()
