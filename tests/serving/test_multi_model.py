"""SageMaker's contract for many models in one container, on the real command, with both back ends."""

import json
import os
import shutil
import signal
import time
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import quote

import pytest
import torch

from sagemaker_monai.artifact.bundle import write_bundle
from sagemaker_monai.artifact.predictor import Predictor
from sagemaker_monai.images.sample import Sample
from tests.serving.test_serve import LOOPBACK, PNG, SLOW, as_multipart
from tests.support.bundles import bundle_parts
from tests.support.exhaustive import exhaustive
from tests.support.flaws import change_a_weight, empty
from tests.support.served import Served, code_of, is_running

BACK_ENDS = ("mms", "workers")
HASHES = {"one": "1f" * 32, "two": "2e" * 32}  # SageMaker's names are hashes
LOADED = HASHES | {"slow": "slow"}


class ManyModels(Served):
    """A server in multi-model mode; `base` is its SAGEMAKER_BASE_DIR."""

    def __init__(self, base, log, **variables):
        super().__init__(base / "model", log, SAGEMAKER_MULTI_MODEL="true", SAGEMAKER_BASE_DIR=str(base), **variables)
        self.base = base

    def url(self, name):
        return str(self.base / "models" / name / "model")

    def load(self, name, url):
        body = json.dumps({"model_name": name, "url": url})
        return self.request("POST", "/models", body, {"Content-Type": "application/json"}, timeout_s=60)

    def ask(self, name, body=PNG, content_type="image/png", **headers):
        return self.request("POST", f"/models/{name}/invoke", body, {"Content-Type": content_type} | headers)

    def unload(self, name):
        return self.request("DELETE", f"/models/{name}")

    def listed(self):
        return {entry["modelName"] for entry in json.loads(self.request("GET", "/models")[2])["models"]}


def write_models(base):
    """Two artifacts that answer differently, and one of code that is as slow as it is told."""
    for name, factor in {"one": 1.0, "two": -1.0}.items():
        parts = bundle_parts()
        parts["weights"] = {key: value * factor for key, value in parts["weights"].items()} | {
            key: value for key, value in parts["weights"].items() if not torch.is_floating_point(value) or "var" in key
        }
        write_bundle(base / "models" / name / "model", **parts)
    (base / "models" / "slow" / "model" / "code").mkdir(parents=True)
    (base / "models" / "slow" / "model" / "code" / "inference.py").write_text(SLOW)


@pytest.fixture(scope="module", params=exhaustive(BACK_ENDS))
def server(request, tmp_path_factory):
    """With all three models, loaded at the same time, two under names that look like SageMaker's."""
    folder = tmp_path_factory.mktemp("server")
    server = ManyModels(
        folder / "base", folder / "log", MODEL_SERVER=request.param, ALLOW_BUNDLE_CODE="true",
        SAGEMAKER_MAX_PAYLOAD_IN_MB="2",
    )  # fmt: skip
    try:
        server.wait_until_healthy()  # without any folder
        assert server.listed() == set()
        assert server.workers() == []
        write_models(server.base)
        with ThreadPoolExecutor(3) as loads:
            for status, _, body in loads.map(lambda name: server.load(LOADED[name], server.url(name)), LOADED):
                assert status == 200, body
        yield server
    finally:
        code = server.stop()
    assert code == 0
    assert server.processes() == {}


def test_each_model_gives_its_own_answers(server):
    answers = {}
    for name, loaded_as in HASHES.items():
        status, headers, body = server.ask(loaded_as)
        assert (status, headers["Content-Type"]) == (200, "application/json")
        [prediction] = json.loads(body)["predictions"]
        [expected] = Predictor.read(server.base / "models" / name / "model").predict([Sample(PNG)])
        assert prediction["probabilities"] == pytest.approx(expected.probabilities, abs=1e-6)
        answers[name] = prediction["probabilities"]
    assert answers["one"] != pytest.approx(answers["two"], abs=1e-2)


def test_content_types_accept_and_refusals_are_those_of_one_model(server):
    name = HASHES["one"]
    assert server.ask(name, as_multipart(PNG, PNG), "multipart/form-data; boundary=edge")[0] == 200
    assert server.ask(name, Accept="text/csv")[1]["Content-Type"] == "text/csv"
    for body, content_type, status, code in (
        (b"junk", "image/png", 400, "UndecodableImage"),
        (b"", "image/png", 400, "MalformedRequest"),
        (PNG, "application/pdf", 415, "UnsupportedMediaType"),
        (b"x" * (3 << 20), "image/png", 413, "PayloadTooLarge"),
    ):
        answered, _, refusal = server.ask(name, body, content_type)
        assert (answered, code_of(refusal)) == (status, code)


def test_models_are_listed_by_pages_and_described(server):
    urls = {LOADED[name]: server.url(name) for name in LOADED}
    first = json.loads(server.request("GET", "/models?limit=2")[2])
    second = json.loads(server.request("GET", f"/models?limit=2&next_page_token={quote(first['nextPageToken'])}")[2])

    assert {entry["modelName"]: entry["modelUrl"] for page in (first, second) for entry in page["models"]} == urls
    assert (len(first["models"]), len(second["models"])) == (2, 1)
    assert set(second) == {"models"}
    for name, url in urls.items():
        status, _, body = server.request("GET", f"/models/{name}")
        assert (status, json.loads(body)) == (200, {"modelName": name, "modelUrl": url})


def test_a_loaded_model_is_409_and_an_absent_one_404(server):
    status, _, body = server.load(HASHES["one"], server.url("two"))
    assert (status, code_of(body)) == (409, "ModelAlreadyLoaded")

    for method, path in (("GET", "/models/no"), ("DELETE", "/models/no"), ("POST", "/models/no/invoke")):
        status, _, body = server.request(method, path, PNG, {"Content-Type": "image/png"})
        assert (status, code_of(body)) == (404, "ModelNotFound")


def test_a_name_is_decoded_once_and_unloading_ends_the_processes(server):
    name = "100%25 of ü"
    before = set(server.workers())
    assert server.load(name, server.url("slow"))[0] == 200
    [pid] = set(server.workers()) - before

    assert server.ask(quote(name), b"0", "x/y")[0] == 200
    assert server.ask(name.replace(" ", "%20").replace("ü", "%C3%BC"), b"0", "x/y")[0] == 404  # it is "100% of ü"
    assert server.unload(quote(name))[0] == 200

    assert not is_running(pid)
    assert set(server.workers()) == before
    assert server.listed() == set(LOADED.values())
    assert server.ask(quote(name))[0] == 404


def test_a_model_asked_for_twice_at_once_is_loaded_once_and_the_others_answer_meanwhile(server):
    before = len(server.workers())
    with ThreadPoolExecutor(3) as clients:
        busy = clients.submit(server.ask, "slow", b"2", "x/y")
        loads = [clients.submit(server.load, "twin", server.url("one")) for _ in range(2)]
        asked = 0
        while not all(answer.done() for answer in (busy, *loads)):
            assert server.ping() == 200
            assert server.ask(HASHES["one"])[0] == 200
            asked += 1
        assert asked > 1
        assert busy.result()[0] == 200
        assert sorted(load.result()[0] for load in loads) == [200, 409]

    assert len(server.workers()) == before + 1
    assert server.unload("twin")[0] == 200


def test_unloading_lets_requests_in_flight_finish(server):
    with ThreadPoolExecutor(2) as clients:
        answer = clients.submit(server.ask, "slow", b"1.5", "x/y")
        time.sleep(0.5)
        unload = clients.submit(server.unload, "slow")
        time.sleep(0.3)
        assert server.ask("slow", b"0", "x/y")[0] == 404
        assert not answer.done()
        assert (answer.result()[0], unload.result()[0]) == (200, 200)
    assert server.load("slow", server.url("slow"))[0] == 200  # the name is free again


def exit_in_code(folder):
    (folder / "code").mkdir()
    (folder / "code" / "inference.py").write_text("raise SystemExit")


FLAWS = {
    "changed": change_a_weight,
    "empty": empty,
    "absent": shutil.rmtree,
    "exits": exit_in_code,
}


@pytest.mark.parametrize("flaw", FLAWS)
def test_a_broken_artifact_is_500_with_its_cause_and_leaves_nothing_behind(server, flaw, tmp_path):
    folder = server.base / "models" / f"broken-{flaw}" / "model"
    if not folder.parent.exists():
        shutil.copytree(server.base / "models" / "one" / "model", folder)
        FLAWS[flaw](folder)
    before = set(server.processes())

    status, _, body = server.load("broken", str(folder))

    assert (status, code_of(body)) == (500, "BundleError")
    assert str(server.base) not in body.decode()
    assert len(body) < 1200
    assert set(server.processes()) <= before
    assert server.listed() == set(LOADED.values())
    assert server.ask(HASHES["one"])[0] == 200


def test_a_model_for_which_memory_does_not_suffice_is_507(server):
    folder = server.base / "models" / "huge" / "model"
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "model.pt").open("wb") as weights:
        weights.truncate(1 << 40)  # 1 TiB, of which nothing is on the disk

    status, _, body = server.load("huge", str(folder))

    assert (status, code_of(body)) == (507, "NotEnoughMemory")
    assert "unload another model" in body.decode()
    assert server.listed() == set(LOADED.values())


@pytest.mark.parametrize(
    ("name", "url"),
    [
        ("../one", None), ("/etc/passwd", None), ("..", None), ("a/b", None), ("s3://bucket/x", None), ("x\0", None),
        ("x" * 300, None), ("", None), (7, None), (None, None), ({"a": 1}, None),
        ("x", "/etc"), ("x", "{base}/models/../model"), ("x", "{base}/models"), ("x", "{base}/x"), ("x", "models/x"),
        ("x", "http://127.0.0.1:1/x.mar"), ("x", "s3://bucket/one"), ("x", "file://{base}/models/one/model"),
        ("x", "{base}/models/link"), ("x", "{base}/models/one\0"), ("x", "/" + "x" * 9_000), ("x", ["a"]), ("x", 1e999),
    ],
)  # fmt: skip
def test_names_and_places_that_are_paths_or_addresses_are_refused(server, name, url):
    link = server.base / "models" / "link"
    if not link.is_symlink():
        link.symlink_to("/etc")
    place = (
        server.url("one") if url is None else url.replace("{base}", str(server.base)) if isinstance(url, str) else url
    )

    status, _, body = server.load(name, place)

    assert (status, code_of(body)) == (400, "MalformedRequest")
    assert len(body) < 600
    assert "/etc" not in body.decode()
    assert server.listed() == set(LOADED.values())


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "code"),
    [
        ("POST", "/models", b"{", 400, "MalformedRequest"),
        ("POST", "/models", b"", 400, "MalformedRequest"),
        ("POST", "/models", b"[" * 10_000, 400, "MalformedRequest"),
        ("POST", "/models", b"x" * 20_000, 413, "PayloadTooLarge"),
        ("POST", "/models?url=/etc&model_name=x", b"{}", 400, "MalformedRequest"),
        ("GET", "/models?limit=0", None, 400, "MalformedRequest"),
        ("GET", "/models?limit=%00", None, 400, "MalformedRequest"),
        ("PUT", "/models", b"{}", 405, "MethodNotAllowed"),
        ("PUT", "/models/x?min_worker=9", b"", 405, "MethodNotAllowed"),
        ("POST", "/models/x", b"", 405, "MethodNotAllowed"),
        ("GET", "/models/x/invoke", None, 405, "MethodNotAllowed"),
        ("POST", "/models/../invocations", b"", 404, "NotFound"),
        ("GET", "/models/", None, 404, "ModelNotFound"),
        ("GET", "/models/..%2f..%2fetc", None, 404, "ModelNotFound"),
        ("GET", "/models/%00", None, 404, "ModelNotFound"),
        ("GET", "/models/%ff%zz", None, 404, "ModelNotFound"),
        ("GET", "/models/a/b", None, 404, "NotFound"),
        ("POST", "/models/x/invoke/y", b"", 404, "NotFound"),
        ("POST", "/invocations", PNG, 404, "NotFound"),
        ("POST", "/predictions/x", PNG, 404, "NotFound"),
        ("GET", "/execution-parameters", None, 404, "NotFound"),
        ("GET", "/api-description", None, 404, "NotFound"),
    ],
)
def test_the_table_of_refusals(server, method, path, body, status, code):
    answered, headers, refusal = server.request(method, path, body, {"Content-Type": "image/png"})

    assert (answered, code_of(refusal)) == (status, code)
    assert headers["Content-Type"] == "application/json"
    if status == 405:
        assert method not in headers["Allow"].split(", ")


def test_only_the_public_port_is_reachable_from_outside(server):
    assert {port for address, port in server.listening() if address not in LOOPBACK} == {server.port}


def test_what_callers_call_their_models_is_not_in_the_log(server):
    headers = {"X-Amzn-SageMaker-Target-Model": "PATIENT-Smith.tar.gz"}

    assert server.ask(HASHES["one"], **headers)[0] == 200
    assert server.ask("PATIENT-Smith")[0] == 404

    assert "PATIENT" not in server.log.read_text()


def wait_for_answer(server, name, *request):
    deadline = time.monotonic() + 90
    while (answer := server.ask(name, *request))[0] != 200:
        assert answer[0] in (500, 503), answer
        assert time.monotonic() < deadline, server.log.read_text()
        time.sleep(0.1)


def test_a_killed_process_of_a_model_is_replaced_and_the_others_go_on(server):
    killed, *others = server.workers()

    os.kill(killed, signal.SIGKILL)
    for name in HASHES.values():
        wait_for_answer(server, name)
    wait_for_answer(server, "slow", b"0", "x/y")

    assert set(others) <= set(server.workers())
    assert server.listed() == set(LOADED.values())


def test_a_signal_loses_no_request_in_flight(server):  # the last of this server's tests
    with ThreadPoolExecutor(1) as client:
        answer = client.submit(server.ask, "slow", b"1", "x/y")
        time.sleep(0.4)
        server.process.send_signal(signal.SIGTERM)
        time.sleep(0.2)
        assert server.ping() in (503, None)
        assert answer.result()[0] == 200

    assert server.process.wait(10) == 0
    assert server.processes() == {}


@pytest.fixture(scope="module")
def model_server(tmp_path_factory):
    """multi-model-server with model one."""
    folder = tmp_path_factory.mktemp("server")
    write_models(folder / "base")
    server = ManyModels(folder / "base", folder / "log", ALLOW_BUNDLE_CODE="true")
    try:
        assert server.wait_until_healthy().load("one", server.url("one"))[0] == 200
        yield server
    finally:
        server.stop()


@pytest.mark.long
def test_when_the_model_server_itself_dies_its_models_come_back_without_being_asked_for(model_server):
    [java] = [pid for pid, command in model_server.processes().items() if "com.amazonaws.ml.mms.ModelServer" in command]
    old = model_server.workers()

    os.kill(java, signal.SIGKILL)
    wait_for_answer(model_server, "one")

    assert model_server.listed() == {"one"}
    assert not any(map(is_running, old))
    model_server.wait_until_healthy()


@pytest.mark.long
def test_when_the_process_that_forks_a_models_workers_dies_the_model_comes_back(model_server):
    assert model_server.load("two", model_server.url("two"))[0] == 200
    processes = model_server.processes()
    forking = [pid for pid, command in processes.items() if "model_service_worker" in command]
    others = set(forking) - set(model_server.workers())

    os.kill(min(others), signal.SIGKILL)
    deadline = time.monotonic() + 90
    while min(others) in model_server.processes() or len(model_server.workers()) != 2:
        assert time.monotonic() < deadline, model_server.log.read_text()
        time.sleep(0.1)

    for name in ("one", "two"):
        wait_for_answer(model_server, name)
    assert len(set(model_server.processes()) & others) == 1
    assert model_server.unload("two")[0] == 200
