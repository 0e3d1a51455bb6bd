"""What `make train-local`, `serve-local`, `shell` and `predict-local` run, with a docker that only notes it."""

import json
import os
import shlex
import signal
import subprocess
import sys
import tarfile
import time
from pathlib import Path

import pytest

from develop import local
from sagemaker_monai.requests.media_types import MEDIA_TYPES
from sagemaker_monai_aws.client import ask
from sagemaker_monai_aws.client.content_types import CONTENT_TYPES
from tests.support import loopback
from tests.support.places import ROOT

# Notes its arguments; `run` does what $ON_RUN says in shell, everything else succeeds unless $FAILING names it.
DOCKER = """#!/bin/sh
printf '%s\\n' "$@" >> "$NOTES"
echo >> "$NOTES"
case " $FAILING " in *" $1 "*) echo "no $1" >&2; exit 1 ;; esac
[ "$1" = info ] && echo '{"runc": {}, "nvidia": {}}'
if [ "$1" = run ]; then eval "${ON_RUN:-:}"; fi
"""


@pytest.fixture
def docker(tmp_path, monkeypatch):
    """A docker on PATH; calling the fixture gives the arguments of every call so far."""
    folder = tmp_path / "bin"
    folder.mkdir()
    (folder / "docker").write_text(DOCKER)
    (folder / "docker").chmod(0o755)
    notes = tmp_path / "notes"
    notes.touch()
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")
    monkeypatch.setenv("NOTES", str(notes))
    monkeypatch.delenv("IMAGE", raising=False)
    return lambda: [call.splitlines() for call in notes.read_text().split("\n\n") if call]


@pytest.fixture
def data(tmp_path):
    folder = tmp_path / "my, data: 1"
    (folder / "train" / "a").mkdir(parents=True)
    return folder


def of_run(calls):
    [call] = [call for call in calls if call[0] == "run"]
    return call


def value_of(call, option):
    return call[call.index(option) + 1]


def mounts(call):
    return [call[index + 1] for index, word in enumerate(call) if word == "--mount"]


def test_training_runs_under_sagemakers_limits(docker, data, tmp_path, capsys):
    out = tmp_path / "out"
    arguments = ["train", "--image", "some:tag", str(data), f"pretrained={data}", "--output", str(out)]

    code = local.main([*arguments, "--hyperparameters", "epochs=1", "note=a=b ü", "--env", "A=b c"])

    call = of_run(docker())
    assert code == 0
    assert call[-2:] == ["some:tag", "train"]
    assert value_of(call, "--network") == "none"
    assert value_of(call, "--hostname") == "algo-1"
    assert value_of(call, "--add-host") == "algo-1:127.0.0.1"
    assert value_of(call, "--shm-size") == "64m"
    assert value_of(call, "--env") == "A=b c"
    assert "--gpus" not in call
    assert mounts(call) == [
        f"type=bind,source={out}/input/config,target=/opt/ml/input/config,readonly",
        f'type=bind,"source={data}",target=/opt/ml/input/data/training,readonly',
        f'type=bind,"source={data}",target=/opt/ml/input/data/pretrained,readonly',
        f"type=bind,source={out}/model,target=/opt/ml/model",
        f"type=bind,source={out}/output,target=/opt/ml/output",
    ]
    config = out / "input" / "config"
    assert json.loads((config / "hyperparameters.json").read_text()) == {"epochs": "1", "note": "a=b ü"}
    assert json.loads((config / "resourceconfig.json").read_text())["hosts"] == ["algo-1"]
    assert set(json.loads((config / "inputdataconfig.json").read_text())) == {"training", "pretrained"}
    printed = capsys.readouterr().out.splitlines()
    assert shlex.split(printed[0].removeprefix("$ docker ")) == call


def test_checkpoints_are_kept_only_when_asked_for(docker, data, tmp_path):
    local.main(["train", str(data), "--output", str(tmp_path / "out"), "--checkpoints"])

    assert f"type=bind,source={tmp_path}/out/checkpoints,target=/opt/ml/checkpoints" in mounts(of_run(docker()))


def test_the_artifact_is_packed_with_its_files_on_top(docker, data, tmp_path, monkeypatch):
    model = tmp_path / "out" / "model"
    monkeypatch.setenv("ON_RUN", f"mkdir -p {model}/models && echo weights > {model}/models/model.pt")

    assert local.main(["train", str(data), "--output", str(tmp_path / "out")]) == 0

    with tarfile.open(tmp_path / "out" / "model.tar.gz") as tar:
        assert tar.getnames() == ["models", "models/model.pt"]


def test_a_failed_job_passes_on_its_code_and_its_failure_file(docker, data, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("ON_RUN", f"printf 'ConfigError: epochs' > {tmp_path}/out/output/failure; exit 7")

    assert local.main(["train", str(data), "--output", str(tmp_path / "out")]) == 7

    assert "the job failed: ConfigError: epochs" in capsys.readouterr().err
    assert not (tmp_path / "out" / "model.tar.gz").exists()


def test_what_the_container_left_is_given_to_the_caller(docker, data, tmp_path, monkeypatch):
    monkeypatch.setenv("ON_RUN", f"[ -e {tmp_path}/out/model/m ] || touch {tmp_path}/out/model/m")
    monkeypatch.setattr(os, "getuid", lambda: 12345)
    monkeypatch.setattr(os, "getgid", lambda: 678)

    local.main(["train", "--image", "some:tag", str(data), "--output", str(tmp_path / "out")])

    last = docker()[-1]
    assert last[-5:] == ["some:tag", "chown", "-hR", "12345:678", "/give"]
    assert mounts(last) == [f"type=bind,source={tmp_path}/out/model,target=/give/0"]


def test_a_dry_run_prints_the_command_and_does_nothing(docker, data, tmp_path, capsys):
    assert local.main(["train", "--dry-run", str(data), "--output", str(tmp_path / "out")]) == 0

    assert capsys.readouterr().out.startswith("$ docker run --rm --name train-")
    assert docker() == []
    assert not (tmp_path / "out").exists()


def test_a_gpu_is_passed_on(docker, data, tmp_path):
    tool = tmp_path / "bin" / "nvidia-smi"
    tool.write_text("#!/bin/sh\n")
    tool.chmod(0o755)

    local.main(["train", str(data), "--output", str(tmp_path / "out")])

    assert value_of(of_run(docker()), "--gpus") == "all"


def test_the_server_can_be_reached_from_this_machine_only_and_cannot_write_the_model(docker, data):
    assert local.main(["serve", "--image", "some:tag", str(data), "--port", "9000", "--env", "MODEL_SERVER=mms"]) == 0

    call = of_run(docker())
    assert value_of(call, "--publish") == "127.0.0.1:9000:8080"
    assert mounts(call) == [f'type=bind,"source={data}",target=/opt/ml/model,readonly']
    assert value_of(call, "--env") == "MODEL_SERVER=mms"
    assert call[-2:] == ["some:tag", "serve"]


def test_an_archive_is_served_unpacked_and_leaves_nothing(docker, tmp_path, monkeypatch):
    (tmp_path / "model.pt").write_text("weights")
    with tarfile.open(tmp_path / "model.tar.gz", "w:gz") as tar:
        tar.add(tmp_path / "model.pt", arcname="models/model.pt")
    seen = tmp_path / "seen"
    source = r"""sed -n 's/^type=bind,source=\(.*\),target=.*/\1/p' "$NOTES" """
    monkeypatch.setenv("ON_RUN", f"cp -r $({source}) {seen}; stat -c %a $({source}) > {tmp_path}/mode")

    assert local.main(["serve", str(tmp_path / "model.tar.gz")]) == 0

    assert (seen / "models" / "model.pt").read_text() == "weights"
    assert (tmp_path / "mode").read_text().strip() == "755"  # an unprivileged process in the container reads it
    [mounted] = mounts(of_run(docker()))
    assert not Path(mounted.split("source=")[1].split(",")[0]).exists()


@pytest.mark.parametrize(("words", "expected"), [([], ["bash"]), (["python", "-V"], ["python", "-V"])])
def test_the_shell_is_bash_or_the_command(docker, words, expected):
    assert local.main(["shell", "--image", "some:tag", *words]) == 0

    assert of_run(docker())[-len(expected) - 1 :] == ["some:tag", *expected]


@pytest.mark.parametrize(
    ("arguments", "failing", "message"),
    [
        (["train", "{data}"], "version", "no Docker engine answers (no version): start Docker"),
        (["train", "{data}"], "image", "there is no image sagemaker-monai on this machine: run `make build`"),
        (["train", "/nowhere"], "", "there is no folder /nowhere"),
        (["train", "x=/nowhere"], "", "there is no folder /nowhere"),
        (["train", "{empty}"], "", "is empty"),
        (["train", "{data}", "{data}"], "", "'training' is named twice"),
        (["train", "{data}", "--hyperparameters", "epochs"], "", "takes NAME=VALUE, got 'epochs'"),
        (["serve", "/nowhere"], "", "there is no /nowhere: name the folder of an artifact"),
        (["serve", "{file}"], "", "cannot be unpacked"),
        (["serve", "{data}"], "version", "no Docker engine answers"),
        (["predict", "/nowhere.jpg"], "", "/nowhere.jpg is not an image"),
        (["predict", "{empty}"], "", "is not an image and contains none"),
    ],
)
def test_what_is_wrong_is_said_with_the_remedy(
    docker, data, tmp_path, monkeypatch, capsys, arguments, failing, message
):
    (tmp_path / "empty").mkdir()
    (tmp_path / "file.tar.gz").write_text("no archive")
    places = {"data": data, "empty": tmp_path / "empty", "file": tmp_path / "file.tar.gz"}
    monkeypatch.setenv("FAILING", failing)
    monkeypatch.chdir(tmp_path)

    assert local.main([argument.format(**places) for argument in arguments]) == 2

    error = capsys.readouterr().err
    assert message in error
    assert error.startswith("local: ")


def test_a_machine_without_docker_is_told_so(data, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("PATH", str(tmp_path))

    assert local.main(["serve", str(data)]) == 2

    assert "Docker is not installed" in capsys.readouterr().err


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_stops_the_container_with_sagemakers_time(docker, data, tmp_path, number):
    done = tmp_path / "stopped"
    environment = os.environ | {"ON_RUN": f"touch {tmp_path}/up; until [ -e {done} ]; do sleep 0.05; done; exit 3"}
    (tmp_path / "bin" / "docker").write_text(DOCKER + f'[ "$1" != stop ] || touch {done}\n')
    command = [sys.executable, "-m", "develop.local", "train", data, "--output", tmp_path / "out"]

    def hear_signals():  # a shell that starts this in the background has it ignore Ctrl-C, which is inherited
        signal.signal(signal.SIGINT, signal.SIG_DFL)

    with subprocess.Popen(command, cwd=ROOT, env=environment, preexec_fn=hear_signals) as process:
        try:
            while not (tmp_path / "up").exists():
                time.sleep(0.02)
            process.send_signal(number)
            code = process.wait(20)
        finally:
            process.kill()
            done.touch()

    [stop] = [call for call in docker() if call[0] == "stop"]
    assert stop == ["stop", "--time", "120", value_of(of_run(docker()), "--name")]
    assert code == 3


class Answers(loopback.Handler):
    def post(self):
        body = self.read()
        prediction = {"predicted_class": "b", "probability": 0.75, "probabilities": {"a": 0.25, "b": 0.75}}
        answer = {"predictions": [prediction]} if body == b"good" else {"error": {"code": "Bad", "message": "no"}}
        text = json.dumps(answer | {"type": self.headers["Content-Type"]}).encode()
        self.answer(200 if body == b"good" else 400, text)


@pytest.fixture
def port():
    with loopback.listening(Answers) as server:
        yield server.server_port


def test_answers_are_a_table_of_classes_and_probabilities(tmp_path, port, capsys):
    (tmp_path / "one.jpg").write_bytes(b"good")
    (tmp_path / "two.PNG").write_bytes(b"bad")
    (tmp_path / "notes.txt").write_text("no picture")

    assert local.main(["predict", str(tmp_path), "--port", str(port)]) == 1

    assert capsys.readouterr().out.splitlines() == [
        "picture  predicted  a      b",
        "one.jpg  b          0.250  0.750",
        "two.PNG  Bad: no",
    ]


def test_answers_as_json_are_those_of_the_server(tmp_path, port, capsys):
    (tmp_path / "one.webp").write_bytes(b"good")

    assert local.main(["predict", "--json", str(tmp_path / "one.webp"), "--port", str(port)]) == 0

    [answer] = json.loads(capsys.readouterr().out)
    assert answer["type"] == "image/webp"
    assert answer["predictions"][0]["probabilities"] == {"a": 0.25, "b": 0.75}


def test_no_server_is_said_with_the_remedy(tmp_path, port, capsys):
    (tmp_path / "one.jpg").write_bytes(b"good")

    assert local.main(["predict", str(tmp_path / "one.jpg"), "--port", "1"]) == 2

    assert "nothing answers on port 1" in capsys.readouterr().err


def test_every_suffix_has_the_content_type_that_serve_reads():
    by_suffix = {suffix: name for name, row in MEDIA_TYPES.items() for suffix in row.suffixes}

    assert by_suffix == CONTENT_TYPES


TASKS = [
    ({"predicted_classes": ["a", "b"], "probabilities": {"a": 0.75, "b": 0.5}, "thresholds": {}},
     ["picture  predicted  a      b", "x.dcm    a|b        0.750  0.500"]),
    ({"predicted_classes": [], "probabilities": {"a": 0.25, "b": 0.25}, "thresholds": {}},
     ["picture  predicted  a      b", "x.dcm    -          0.250  0.250"]),
    ({"predicted_class": "b", "probability": 0.75, "grade": 1, "expected_grade": 0.75,
      "probabilities": {"a": 0.25, "b": 0.75}},
     ["picture  predicted  expected grade  a      b", "x.dcm    b          0.75            0.250  0.750"]),
    ({"values": {"mm": 12.3456, "ratio": -0.5}}, ["picture  mm     ratio", "x.dcm    12.35  -0.500"]),
    ({"sizes": {"liver": 1512.25, "tumour": 0.5}, "unit": "ml", "structures": {}},
     ["picture  unit  liver  tumour", "x.dcm    ml    1512   0.500"]),
]  # fmt: skip


@pytest.mark.parametrize(("prediction", "lines"), TASKS)
def test_answers_of_every_task_are_a_table(prediction, lines):
    table = ask.as_table([("x.dcm", {"predictions": [prediction | {"model_version": "1"}]})])

    assert table.splitlines() == lines


class Reports(loopback.Handler):
    def post(self):
        self.read()
        kind = 'multipart/related; type="application/dicom"; boundary=x'
        body = b"--x\r\nContent-Type: application/dicom\r\n\r\nfirst\r\n--x\r\nContent-Type: application/dicom\r\n\r\n"
        self.answer(200, body + b"second\r\n\r\n--x--\r\n", Content_Type=kind)


def test_a_series_is_one_request_and_its_reports_are_saved_as_dicom(tmp_path, port, capsys):
    series = tmp_path / "scans" / "one"
    series.mkdir(parents=True)
    for name in ("IM1", "IM2"):
        (series / name).write_bytes(bytes(128) + b"DICM" + name.encode())
    with loopback.listening(Reports) as server:
        words = ["--port", str(server.server_port), "--series", "--accept", "application/dicom"]
        assert local.main(["predict", str(tmp_path / "scans"), *words, "--save", str(tmp_path / "out")]) == 0

    saved = {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()}
    assert saved == {"one.dcm": b"first", "one-2.dcm": b"second\r\n"}
    [_, row] = capsys.readouterr().out.splitlines()
    assert row.startswith("one/")
