"""The users of `serve`'s processes in the container, what they see and where they write, on both back ends."""

import json
import shutil
import time

import pytest

from tests.image.bodies import PNG
from tests.image.containers import bind, container, docker, served, started_server, variables

BACK_ENDS = ("workers", "mms")
MODEL = "10001"  # uid and gid of WORKER_USER
LENT = range(61_184, 65_520)  # uids of single processes
SECRETS = {"AWS_SECRET_ACCESS_KEY": "secret-1", "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI": "/secret-2"}

# One line of JSON: pid, status and command of every process, except those that look.
PROCESSES = """
import json, os, pathlib
found = {}
for path in pathlib.Path("/proc").glob("[0-9]*"):
    try:
        status = dict(line.split(":", 1) for line in (path / "status").read_text().splitlines())
        command = (path / "cmdline").read_text().replace("\\0", " ")
    except OSError:
        continue
    if command and int(path.name) != os.getpid():
        found[path.name] = {name: value.split() for name, value in status.items()} | {"command": command}
print(json.dumps(found))
"""
ENVIRONMENTS = """
import json, pathlib
found = {}
for path in pathlib.Path("/proc").glob("[0-9]*"):
    try:
        found[path.name] = (path / "environ").read_text().split("\\0")
    except OSError:
        continue
print(json.dumps(found))
"""


def processes(started):
    """Status and command line of every process: pid -> name -> words."""
    return json.loads(started.exec("python", "-c", PROCESSES))


def decoders(started):
    """The processes that hold a model, and Java."""
    names = ("serving.worker", "model_service_worker", "ModelServer")
    return {pid: process for pid, process in processes(started).items() if any(x in process["command"] for x in names)}


@pytest.mark.parametrize("back_end", BACK_ENDS)
def test_the_processes_that_decode_have_no_rights_and_see_no_credentials(model, back_end):
    settings = {"MODEL_SERVER": back_end, "SAGEMAKER_MODEL_SERVER_WORKERS": "2", "AWS_REGION": "eu-central-1"}
    with served(model, **settings, **SECRETS) as server:
        found = decoders(server.container)
        environments = json.loads(server.container.exec("python", "-c", ENVIRONMENTS, user=MODEL))
        everybody = processes(server.container)

        assert len(found) == {"workers": 2, "mms": 4}[back_end]  # Java, what forks for it, and two that it forked
        for process in found.values():
            assert int(process["Uid"][0]) in LENT
            assert process["Uid"] == process["Uid"][:1] * 4
            assert process["Gid"] == [MODEL] * 4
            assert process["Groups"] == []
            assert int(process["CapEff"][0], 16) == int(process["CapPrm"][0], 16) == 0
            assert process["NoNewPrivs"] == ["1"]
        # Each worker has its own uid; the processes of the model server share one.
        assert len({process["Uid"][0] for process in found.values()}) == {"workers": 2, "mms": 1}[back_end]
        decoding = [process for process in found.values() if "serving.worker" in process["command"]]
        assert {process["Seccomp"][0] for process in decoding} <= {"2"}
        assert everybody["1"]["Uid"] == ["0"] * 4
        assert not {"1", *found} & set(environments)  # the supervisor's has secrets, and the others are private too
        assert server.invoke(PNG, "image/png")[0] == 200
        assert server.container.stop(120)[0] == 0
        assert docker("diff", server.container.id).stdout == ""  # nothing is left


@pytest.mark.parametrize("back_end", BACK_ENDS)
def test_a_replaced_worker_has_no_rights_either(model, back_end):
    with served(model, MODEL_SERVER=back_end, SAGEMAKER_MODEL_SERVER_WORKERS="1") as server:
        before = set(decoders(server.container))
        server.container.exec("sh", "-c", f"kill -s KILL {max(before, key=int)}")
        deadline = time.monotonic() + 180
        while server.invoke(PNG, "image/png")[0] != 200:
            assert time.monotonic() < deadline
        found = decoders(server.container)

        assert set(found) != before
        assert {tuple(process["Gid"]) for process in found.values()} == {(MODEL,) * 4}
        assert all(int(process["Uid"][0]) in LENT for process in found.values())


@pytest.mark.parametrize("back_end", BACK_ENDS)
def test_they_end_with_a_supervisor_that_is_killed(model, back_end):
    flags = [*bind(model, "/opt/ml/model"), *variables(MODEL_SERVER=back_end)]
    with container("sh", "-c", "serve; sleep 600", flags=flags) as started:
        started.wait_for("serving on port")
        [supervisor] = [pid for pid, process in processes(started).items() if process["command"].endswith("/serve ")]
        assert decoders(started)
        started.exec("sh", "-c", f"kill -s KILL {supervisor}")
        deadline = time.monotonic() + 90
        while decoders(started):
            assert time.monotonic() < deadline


@pytest.mark.parametrize("back_end", BACK_ENDS)
def test_an_artifact_that_only_root_can_read_is_served_and_not_changed(model, tmp_path, back_end):
    artifact = tmp_path / "model"
    shutil.copytree(model, artifact)
    (artifact / "private").symlink_to("/etc/shadow")
    for path in artifact.rglob("*"):
        if not path.is_symlink():
            path.chmod(0o700 if path.is_dir() else 0o600)
    before = {path: path.lstat() for path in artifact.rglob("*")}

    with served(artifact, MODEL_SERVER=back_end) as server:
        assert server.invoke(PNG, "image/png")[0] == 200
        assert "cannot read every file of the artifact" in server.container.log()
        names = ("-name", "private", "-o", "-name", "model.pt")
        copies = server.container.exec("find", "/tmp", "(", *names, ")", "-printf", "%f is %y of %u, %m\n")
        assert sorted(copies.splitlines()) == ["model.pt is f of root, 640", "private is l of root, 777"]
        assert server.container.stop(120)[0] == 0

    after = {path: path.lstat() for path in artifact.rglob("*")}
    assert {path: (x.st_mode, x.st_mtime_ns) for path, x in before.items()} == {
        path: (x.st_mode, x.st_mtime_ns) for path, x in after.items()
    }


CLOSED = ("--read-only", "--tmpfs", "/tmp:noexec")
STARTS = {
    "root, read-only": CLOSED,
    "an account of no name, read-only": ("--user", "1000", *CLOSED),
    "an account without any right, read-only": ("--user", "1000:1000", "--cap-drop", "ALL", *CLOSED),
}


@pytest.mark.parametrize("back_end", BACK_ENDS)
@pytest.mark.parametrize("start", STARTS)
def test_serve_writes_to_the_temporary_folder_only_and_needs_no_account(model, start, back_end):
    with served(model, flags=STARTS[start], MODEL_SERVER=back_end, SAGEMAKER_MODEL_SERVER_WORKERS="1") as server:
        assert server.invoke(PNG, "image/png")[0] == 200
        owners = {process["Uid"][0] for process in decoders(server.container).values()}
        changed = docker("diff", server.container.id).stdout.splitlines()
        code, seconds = server.container.stop(120)

    assert owners == {"1000"} if "--user" in STARTS[start] else all(int(owner) in LENT for owner in owners)
    assert [line for line in changed if not line[2:].startswith("/tmp")] == []
    assert (code, seconds < 100) == (0, True)


def test_an_account_of_the_same_number_cannot_look_into_the_supervisor(model):
    flags = ("--user", "1000", *CLOSED)
    with served(model, flags=flags, **SECRETS) as server:
        environments = json.loads(server.container.exec("python", "-c", ENVIRONMENTS, user="1000"))
        found = decoders(server.container)

        assert not {"1", *found} & set(environments)


@pytest.mark.parametrize(
    ("flags", "cause"),
    [
        (("--cap-drop", "ALL"), "ConfigError: WORKER_USER needs the capabilities CHOWN, "),
        (("--cap-drop", "KILL"), "ConfigError: WORKER_USER needs the capabilities KILL: "),
        (("--read-only",), "ConfigError: WORKER_USER has no temporary folder "),
        (("--read-only", *variables(MODEL_SERVER="mms"), "--user", "1000"), "the model server cannot be started "),
        (variables(WORKER_USER="somebody"), "ConfigError: WORKER_USER must be an account of this system"),
    ],
)
def test_a_container_that_is_closed_too_far_ends_with_the_cause(model, flags, cause):
    with started_server(model, flags=flags) as server:
        assert server.container.wait(60) == 1
        last = server.container.log().strip().splitlines()[-1]

    assert last.startswith(f"serve: {cause}")


@pytest.mark.parametrize("back_end", BACK_ENDS)
def test_docker_stop_is_heard_before_the_model_is_loaded(model, back_end):
    with started_server(model, MODEL_SERVER=back_end) as server:
        time.sleep(0.5)  # less than it takes to load a model
        code, seconds = server.container.stop(120)

    assert code == 0
    assert seconds < 60
