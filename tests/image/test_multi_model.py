"""Multi-model mode under the contract: load, list, describe, invoke and unload, and when memory is short."""

import json
import shutil
from contextlib import contextmanager

import pytest

from tests.image.bodies import PNG
from tests.image.containers import Server, bind, code_of, container, variables

BACK_ENDS = ("mms", "workers")
ONE, TWO, GREEDY = "1f" * 32, "2e" * 32, "3d" * 32  # SageMaker's names are hashes
ROOM_FOR_ONE = {"mms": "800m", "workers": "650m"}  # for one model beside the servers, not for two
TAKES_ALL_MEMORY = "def model_fn(model_dir): return bytearray(b'x') * (8 << 30)\n"


@pytest.fixture(scope="module")
def models(model, tmp_path_factory):
    """A folder like SageMaker's /opt/ml/models, readable only by root."""
    folder = tmp_path_factory.mktemp("models")
    for name in (ONE, TWO):
        shutil.copytree(model, folder / name / "model")
    (folder / GREEDY / "model" / "code").mkdir(parents=True)
    (folder / GREEDY / "model" / "code" / "inference.py").write_text(TAKES_ALL_MEMORY)
    for path in (folder, *folder.rglob("*")):
        path.chmod(0o700 if path.is_dir() else 0o600)
    return folder


@contextmanager
def many_models(models, *, flags=(), **environment):
    """A healthy server in multi-model mode that has loaded nothing."""
    settings = variables(SAGEMAKER_MULTI_MODEL="true", **environment)
    mounts = bind(models, "/opt/ml/models")
    with container("serve", flags=["--publish", "127.0.0.1::8080", *mounts, *settings, *flags]) as started:
        yield Server(started, "8080").wait_until_healthy()


def load(server, name):
    body = json.dumps({"model_name": name, "url": f"/opt/ml/models/{name}/model"})
    return server.request("POST", "/models", body, {"Content-Type": "application/json"}, timeout_s=120)


def ask(server, name):
    headers = {"Content-Type": "image/png", "X-Amzn-SageMaker-Target-Model": "PATIENT.tar.gz"}
    return server.request("POST", f"/models/{name}/invoke", PNG, headers)


def workers(container):
    """Command lines and users of the processes that hold a model or fork those that do."""
    script = 'for p in /proc/[0-9]*; do echo "$(stat -c %u $p) $(tr "\\0" " " < $p/cmdline)"; done 2>/dev/null'
    lines = container.exec("sh", "-c", script).splitlines()
    return [line for line in lines if "model_service_worker" in line or "sagemaker_monai.serving.worker" in line]


@pytest.mark.parametrize("back_end", BACK_ENDS)
def test_the_life_of_a_model(models, back_end):
    with many_models(models, MODEL_SERVER=back_end) as server:
        assert json.loads(server.request("GET", "/models")[2]) == {"models": []}
        assert (ask(server, ONE)[0], server.invoke(PNG, "image/png")[0]) == (404, 404)

        assert load(server, ONE)[0] == 200
        status, _, body = load(server, ONE)
        assert (status, code_of(body)) == (409, "ModelAlreadyLoaded")
        assert load(server, TWO)[0] == 200

        described = {"modelName": ONE, "modelUrl": f"/opt/ml/models/{ONE}/model"}
        assert json.loads(server.request("GET", f"/models/{ONE}")[2]) == described
        assert {entry["modelName"] for entry in json.loads(server.request("GET", "/models")[2])["models"]} == {ONE, TWO}
        for name in (ONE, TWO):
            status, _, body = ask(server, name)
            assert (status, len(json.loads(body)["predictions"])) == (200, 1)
        # Separate uids, none of them root's or that of WORKER_USER.
        assert all(61184 <= int(line.split()[0]) < 65520 for line in workers(server.container))

        for name in (ONE, TWO):
            assert server.request("DELETE", f"/models/{name}")[0] == 200
            for method in ("GET", "DELETE"):
                assert server.request(method, f"/models/{name}")[0] == 404
        assert ask(server, ONE)[0] == 404
        assert workers(server.container) == []
        assert server.ping() == 200

        status, _, body = server.request("POST", "/models", json.dumps({"model_name": "x", "url": "/etc"}))
        assert (status, code_of(body)) == (400, "MalformedRequest")
        code, _ = server.container.stop(30)
        log = server.container.log()
    assert code == 0
    for word in ("PATIENT", "Traceback", "Warning", "ERROR", "Logging error"):
        assert word not in log


def zombies(container):
    script = 'grep -l "^State:.Z" /proc/[0-9]*/status 2>/dev/null || true'
    return container.exec("sh", "-c", script).split()


@pytest.mark.parametrize("back_end", BACK_ENDS)
def test_a_model_for_which_there_is_no_room_is_507_until_another_is_unloaded(models, back_end):
    limit = ROOM_FOR_ONE[back_end]
    with many_models(models, flags=("--memory", limit, "--memory-swap", limit), MODEL_SERVER=back_end) as server:
        assert load(server, ONE)[0] == 200
        status, _, body = load(server, TWO)
        assert (status, code_of(body)) == (507, "NotEnoughMemory")
        assert ask(server, ONE)[0] == 200

        for loaded, wanted in ((ONE, TWO), (TWO, ONE), (ONE, TWO)):  # unloading really frees memory
            assert server.request("DELETE", f"/models/{loaded}")[0] == 200
            assert load(server, wanted)[0] == 200
            assert ask(server, wanted)[0] == 200
        assert zombies(server.container) == []


@pytest.mark.parametrize("back_end", BACK_ENDS)
def test_a_model_that_takes_all_memory_while_it_is_loaded_is_507_and_the_others_go_on(models, back_end):
    flags = ("--memory", "1500m", "--memory-swap", "1500m")
    with many_models(models, flags=flags, MODEL_SERVER=back_end, ALLOW_BUNDLE_CODE="true") as server:
        assert load(server, ONE)[0] == 200
        before = workers(server.container)

        status, _, body = load(server, GREEDY)

        assert (status, code_of(body)) == (507, "NotEnoughMemory")
        assert ask(server, ONE)[0] == 200
        assert sorted(workers(server.container)) == sorted(before)


@pytest.mark.parametrize("back_end", BACK_ENDS)
def test_many_models_need_no_rights(models, back_end, tmp_path):
    shutil.copytree(models, tmp_path / "models")
    for path in (tmp_path / "models", *(tmp_path / "models").rglob("*")):
        path.chmod(0o755 if path.is_dir() else 0o644)
    flags = ("--user", "1000", "--read-only", "--tmpfs", "/tmp", "--cap-drop", "ALL")
    with many_models(tmp_path / "models", flags=flags, MODEL_SERVER=back_end) as server:
        assert load(server, ONE)[0] == 200
        assert ask(server, ONE)[0] == 200
        assert server.request("DELETE", f"/models/{ONE}")[0] == 200
        assert server.container.stop(30)[0] == 0
