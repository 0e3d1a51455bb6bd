"""`prepare` as a command of the image and as a processing job, and the image's own list of commands."""

import io
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from sagemaker_monai.deidentification.pseudonyms import pseudonym
from sagemaker_monai.entrypoints import prepare
from sagemaker_monai.prepare import ham10000
from sagemaker_monai.prepare.sources import SOURCES
from tests.prepare.test_ham10000 import outer_zip
from tests.support.identified import SALT
from tests.support.imported import put, records_of, slice_file, table
from tests.support.places import ROOT


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


# --- the table of sources


@pytest.mark.parametrize("kind", SOURCES)
def test_every_source_has_help_and_names_what_it_lacks(kind, base, capsys):
    with pytest.raises(SystemExit) as ended:
        prepare.main([kind, "--help"])
    assert ended.value.code == 0
    assert capsys.readouterr().out.startswith(f"usage: prepare {kind} ")

    assert prepare.main([kind]) == 1
    assert "the following arguments are required" in message(base)


@pytest.fixture
def slices(tmp_path):
    """A folder of DICOM slices of eight patients, and a table of their labels."""
    put(tmp_path / "source", {f"{n}.dcm": slice_file(f"P{n}") for n in range(8)})
    rows = [["file", "label", "fold"], *[[n, "ab"[n % 2], "train" if n < 6 else "test"] for n in range(8)]]
    return [str(tmp_path / "source"), str(tmp_path / "out"), "--labels", str(table(tmp_path / "labels.csv", *rows))]


def groups_of(slices):
    return {item["group"] for item in records_of(Path(slices[1]))}


def test_the_salt_comes_from_the_environment_or_a_file(base, slices, monkeypatch, capsys):
    monkeypatch.setenv("DEIDENTIFY_SALT", SALT.decode())
    assert prepare.main(["dicom_folder", *slices]) == 0
    expected = {pseudonym(SALT, f"P{n}") for n in range(8)}
    assert groups_of(slices) == expected
    assert "salt" not in capsys.readouterr().out

    monkeypatch.delenv("DEIDENTIFY_SALT")
    (base / "salt").write_bytes(SALT + b"\n")
    assert prepare.main(["dicom_folder", *slices, "--seed=1", f"--salt-file={base / 'salt'}"]) == 0
    assert groups_of(slices) == expected


def test_without_a_salt_one_is_made_and_that_is_said(base, slices, monkeypatch, capsys):
    monkeypatch.delenv("DEIDENTIFY_SALT", raising=False)

    assert prepare.main(["dicom_folder", *slices]) == 0
    assert "WARNING: the salt was made for this run" in capsys.readouterr().out
    first = groups_of(slices)
    assert prepare.main(["dicom_folder", *slices]) == 0
    assert "nothing to do" in capsys.readouterr().out
    assert groups_of(slices) == first


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (["--salt-file=/nowhere/salt"], "ConfigError: the file of --salt-file cannot be read (No such file"),
        (
            ["--split-column=fold", "--train=0.5"],
            "ConfigError: --split-column gives the split already; leave out --train",
        ),
        (["--split-column=nofold"], "DatasetError: labels.csv has no column nofold; it has file, label, fold"),
        (["--label-column=nolabel"], "DatasetError: labels.csv has no column nolabel"),
        (["--labels=nothing.csv"], "ConfigError: there is no file nothing.csv"),
        (["--unit=study"], "ConfigError: argument --unit: invalid choice"),
        (["--validation=0.9"], "ConfigError: training, validation and test fractions"),
    ],
)
def test_wrong_options_are_one_line_with_the_remedy(base, slices, options, expected):
    assert prepare.main(["dicom_folder", *slices, *options]) == 1

    assert message(base).startswith(expected)
    assert not Path(slices[1]).exists()


def test_a_short_salt_is_refused_and_not_shown(base, slices, monkeypatch):
    monkeypatch.setenv("DEIDENTIFY_SALT", "hunter2")

    assert prepare.main(["dicom_folder", *slices]) == 1
    assert "at least 16 bytes" in message(base)
    assert "hunter2" not in message(base)


def test_a_given_split_is_kept(slices):
    assert prepare.main(["dicom_folder", *slices, "--split-column=Fold", "--no-deidentify"]) == 0

    sides = {item["image"]: item["split"] for item in records_of(Path(slices[1]))}
    assert sides == {f"./images/{n}.dcm": "training" if n < 6 else "test" for n in range(8)}


def test_volumes_and_medmnist_are_sources_too(tmp_path, capsys):
    put(tmp_path / "source", {f"{n}.npy": npy(np.full((3, 3, 2), n) + np.arange(2)) for n in range(8)})
    labels = table(tmp_path / "labels.csv", ["case", "grade"], *[[n, "low" if n % 2 else "high"] for n in range(8)])
    options = [f"--labels={labels}", "--label-column=grade", "--grades=low,mid,high", "--modality=CT"]
    assert prepare.main(["nifti_folder", str(tmp_path / "source"), str(tmp_path / "out"), *options]) == 0
    assert "8 images, 3-D, ordinal" in capsys.readouterr().out

    parts = {f"{name}_images": np.zeros((2, 3, 3), np.uint8) for name in ("train", "val", "test")}
    np.savez(tmp_path / "mine.npz", **parts, **{name.replace("images", "labels"): [[0], [1]] for name in parts})
    assert prepare.main(["medmnist", str(tmp_path / "mine.npz"), str(tmp_path / "med"), "--classes=no, yes"]) == 0
    assert "6 images, 2-D, classification" in capsys.readouterr().out


def npy(values):
    buffer = io.BytesIO()
    np.save(buffer, values.astype(np.int16))
    return buffer.getvalue()
