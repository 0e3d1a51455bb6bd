"""Serving under the contract: health, every type of request, every refusal, settings, ports, signals, logs."""

import json
import re
import shutil
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.image.bodies import (
    ANIMATION,
    DARK,
    DICOM_FILE,
    DICOM_PICTURES,
    LIGHT,
    ONE_VOLUME,
    PNG,
    SERIES,
    SOUND,
    SYNTAXES,
    as_zip,
    encode,
    series,
)
from tests.image.containers import IMAGE, bind, code_of, docker, served, started_server
from tests.support.bundles import write_small_bundle
from tests.support.flaws import change_a_weight, empty

BACK_ENDS = ("workers", "mms")
LOOPBACK = {"0100007F", "0000000000000000FFFF00000100007F", "00000000000000000000000001000000"}
SETTINGS = {
    "SAGEMAKER_BIND_TO_PORT": "9090",
    "SAGEMAKER_SAFE_PORT_RANGE": "21000-21020",
    "SAGEMAKER_MODEL_SERVER_WORKERS": "2",
    "SAGEMAKER_MODEL_SERVER_TIMEOUT_SECONDS": "20",
    "SAGEMAKER_MAX_PAYLOAD_IN_MB": "1",
}


@pytest.fixture(scope="module", params=BACK_ENDS)
def server(request, model):
    """The model that the image trained, with every setting that can be checked while it runs."""
    with served(model, MODEL_SERVER=request.param, **SETTINGS) as server:
        server.back_end = request.param
        yield server
        code, _ = server.container.stop(120)
        log = server.container.log()
    assert code == 0
    assert "PATIENT" not in log
    assert "Warning" not in log
    assert "Traceback" not in log


# An artifact's code: the first letter of a body decides what to do with the rest.
CODE = """
import os, pathlib, time
def model_fn(model_dir):
    return None
def input_fn(data, content_type):
    return data
def predict_fn(data, model):
    gate = pathlib.Path("/gate")
    while gate.is_dir() and not (gate / "open").exists():
        time.sleep(0.05)
    time.sleep(float(data) if data[:1].isdigit() else 0)
    return os.getpid()
def output_fn(prediction, accept):
    return str(prediction)
"""


@pytest.fixture(scope="module")
def slow_model(tmp_path_factory):
    """An artifact whose answers take as many seconds as the body says."""
    folder = tmp_path_factory.mktemp("slow") / "model"
    (folder / "code").mkdir(parents=True)
    (folder / "code" / "inference.py").write_text(CODE)
    return folder


def listening(container):
    """(address, port) of every listening TCP socket in a container."""
    tables = container.exec("cat", "/proc/net/tcp", "/proc/net/tcp6").splitlines()
    fields = [line.split() for line in tables if not line.lstrip().startswith("sl")]
    pairs = [row[1].split(":") for row in fields if row[3] == "0A"]
    return {(address, int(port, 16)) for address, port in pairs}


def commands(container):
    """The command line of every process of a container."""
    script = 'for f in /proc/[0-9]*/cmdline; do tr "\\0" " " < $f; echo; done 2>/dev/null'
    return [line for line in container.exec("sh", "-c", script).splitlines() if line]


@pytest.mark.parametrize("content_type", SOUND)
def test_every_content_type_is_answered(server, content_type):
    body, pictures = SOUND[content_type]

    status, headers, answer = server.invoke(body, content_type)

    assert (status, headers["Content-Type"]) == (200, "application/json")
    predictions = json.loads(answer)["predictions"]
    assert len(predictions) == pictures
    assert set(predictions[0]["probabilities"]) == {"dark", "light", "mid"}
    assert sum(predictions[0]["probabilities"].values()) == pytest.approx(1, abs=1e-3)
    reference = json.loads(server.invoke(PNG, "image/png")[2])["predictions"][0]  # first in all of them
    assert predictions[0]["probabilities"] == pytest.approx(reference["probabilities"], abs=1e-5)


def test_jpeg_is_answered(server):
    assert server.invoke(encode(DARK, "JPEG"), "image/jpeg")[0] == 200


@pytest.mark.parametrize("accept", ["application/json", "text/csv", "application/jsonlines", "*/*"])
def test_every_accept_is_answered(server, accept):
    status, headers, _ = server.invoke(PNG, "image/png", accept)

    assert (status, headers["Content-Type"]) == (200, "application/json" if accept == "*/*" else accept)


REFUSALS = {
    "bytes that are not a picture": ({"Content-Type": "image/png"}, b"junk", 400, "UndecodableImage"),
    "a picture of another type": ({"Content-Type": "image/jpeg"}, PNG, 400, "UndecodableImage"),
    "broken JSON": ({"Content-Type": "application/json"}, b"{", 400, "MalformedRequest"),
    "an empty body": ({"Content-Type": "image/png"}, b"", 400, "MalformedRequest"),
    "an answer that cannot be made": ({"Content-Type": "image/png", "Accept": "image/png"}, PNG, 406, "NotAcceptable"),
    "more bytes than allowed": ({"Content-Type": "image/png"}, bytes(1_100_000), 413, "PayloadTooLarge"),
    "a type without a reader": ({"Content-Type": "application/pdf"}, PNG, 415, "UnsupportedMediaType"),
    "no type": ({}, PNG, 415, "UnsupportedMediaType"),
    "several frames": ({"Content-Type": "image/tiff"}, ANIMATION, 422, "UnsuitableImage"),
}


@pytest.mark.parametrize("name", REFUSALS)
def test_every_refusal_is_json_with_its_status(server, name):
    request_headers, body, status, code = REFUSALS[name]

    answered, headers, answer = server.request("POST", "/invocations", body, request_headers)

    assert (answered, code_of(answer)) == (status, code)
    assert headers["Content-Type"] == "application/json"


@pytest.mark.parametrize(
    "path",
    [
        *("/", "/models", "/models/model", "/models/model/invoke", "/predictions/model", "/invocations/", "/ping/x"),
        *("/api-description", "/metrics", "/model/invoke", "/../etc/passwd", "//ping", "/%2e%2e/etc/passwd"),
    ],
)
@pytest.mark.parametrize("method", ["GET", "POST", "OPTIONS"])
def test_no_path_answers_but_those_documented(server, method, path):
    status, _, body = server.request(method, path, b"" if method == "POST" else None)

    assert (status, code_of(body)) == (404, "NotFound")


@pytest.mark.parametrize(("method", "path"), [("GET", "/invocations"), ("POST", "/ping"), ("DELETE", "/ping")])
def test_a_documented_path_has_one_method(server, method, path):
    assert server.request(method, path)[0] == 405


def test_only_the_port_that_was_asked_for_listens_to_the_outside(server):
    sockets = listening(server.container)

    assert {port for address, port in sockets if address not in LOOPBACK} == {9090}


def test_ports_inside_are_of_the_range_that_is_safe(server):
    inside = {port for address, port in listening(server.container) if address in LOOPBACK}

    assert inside <= set(range(21000, 21021))  # usually none: the model server listens on Unix sockets


def test_as_many_workers_run_as_were_asked_for(server):
    parameters = json.loads(server.request("GET", "/execution-parameters")[2])
    name = {"workers": "sagemaker_monai.serving.worker", "mms": "model_service_worker"}[server.back_end]
    processes = [line for line in commands(server.container) if name in line]

    assert parameters == {"MaxConcurrentTransforms": 2, "BatchStrategy": "SINGLE_RECORD", "MaxPayloadInMB": 1}
    assert len(processes) == {"workers": 2, "mms": 3}[server.back_end]  # with mms also the one that forks them


def test_serve_is_process_1(server):
    command = server.container.exec("cat", "/proc/1/cmdline").split("\0")

    assert "python" in command[0]
    assert "sagemaker_monai.entrypoints.serve" in command


@pytest.mark.parametrize("back_end", BACK_ENDS)
def test_ping_waits_for_the_model_and_then_answers_while_all_workers_are_busy(slow_model, tmp_path, back_end):
    tmp_path.chmod(0o755)
    settings = {"MODEL_SERVER": back_end, "SAGEMAKER_MODEL_SERVER_WORKERS": "1", "ALLOW_BUNDLE_CODE": "true"}
    with started_server(slow_model, flags=bind(tmp_path, "/gate"), **settings) as server:
        time.sleep(8)  # longer than a start; the model does not answer yet
        before = [server.ping() for _ in range(5)]
        assert server.container.is_running()
        (tmp_path / "open").touch()
        server.wait_until_healthy()
        with ThreadPoolExecutor(3) as clients:
            answers = [clients.submit(server.invoke, b"2", "x/y") for _ in range(3)]
            pings = []
            while not all(answer.done() for answer in answers):
                pings.append(server.ping())  # None if it takes more than 2 s

    assert set(before) <= {None, 503}
    assert set(pings) == {200}
    assert [answer.result()[0] for answer in answers] == [200, 200, 200]


FLAWS = {
    "a changed weight": (change_a_weight, "BundleError"),
    "a truncated weight file": (lambda folder: (folder / "models" / "model.pt").write_bytes(b"PK"), "BundleError"),
    "no weights": (lambda folder: (folder / "models" / "model.pt").unlink(), "BundleError"),
    "no description": (lambda folder: (folder / "configs" / "inference.json").unlink(), "BundleError"),
    "an empty folder": (empty, "is empty"),
}


@pytest.mark.parametrize(
    ("back_end", "flaw"), [*(("workers", flaw) for flaw in FLAWS), ("mms", "a changed weight"), ("mms", "no weights")]
)
def test_a_broken_artifact_is_never_healthy_and_ends_the_container_with_the_cause(model, tmp_path, back_end, flaw):
    shutil.copytree(model, tmp_path / "model")
    spoil, cause = FLAWS[flaw]
    spoil(tmp_path / "model")
    pings = set()
    with started_server(tmp_path / "model", MODEL_SERVER=back_end) as server:
        deadline = time.monotonic() + 180
        while server.container.is_running():
            pings.add(server.ping())
            assert time.monotonic() < deadline
            time.sleep(0.2)
        code, log = server.container.state()["ExitCode"], server.container.log()

    assert 200 not in pings
    assert code not in (0, 137)
    assert cause in log.strip().splitlines()[-1]
    assert "/opt/ml" not in log.strip().splitlines()[-1] or flaw == "an empty folder"


def test_a_missing_artifact_ends_the_container_with_the_cause(tmp_path):
    with started_server(tmp_path, SM_MODEL_DIR="/opt/ml/nowhere") as server:
        assert server.container.wait(60) == 1
        assert "No such file or directory" in server.container.log().strip().splitlines()[-1]


@pytest.mark.parametrize("back_end", BACK_ENDS)
def test_docker_stop_answers_every_request_in_flight_and_ends_with_0(slow_model, back_end):
    settings = {"MODEL_SERVER": back_end, "SAGEMAKER_MODEL_SERVER_WORKERS": "2", "ALLOW_BUNDLE_CODE": "true"}
    with served(slow_model, **settings) as server, ThreadPoolExecutor(8) as clients:
        answers = [clients.submit(server.invoke, b"1.5", "x/y") for _ in range(8)]
        time.sleep(1)  # all are at the server, which works on two
        code, seconds = server.container.stop(120)
        statuses = [answer.result()[0] for answer in answers]

    assert statuses == [200] * 8
    assert code == 0
    assert seconds < 100


@pytest.mark.parametrize("back_end", BACK_ENDS)
def test_a_request_has_the_seconds_that_were_set(slow_model, back_end):
    settings = {"MODEL_SERVER": back_end, "SAGEMAKER_MODEL_SERVER_WORKERS": "1", "ALLOW_BUNDLE_CODE": "true"}
    with served(slow_model, SAGEMAKER_MODEL_SERVER_TIMEOUT_SECONDS="2", **settings) as server:
        status, _, body = server.invoke(b"8", "x/y")

    assert (status, code_of(body)) == (504, "Timeout")


def test_batch_transform_has_more_time_and_refuses_no_request(slow_model):
    settings = {"SAGEMAKER_MODEL_SERVER_WORKERS": "1", "ALLOW_BUNDLE_CODE": "true"}
    with served(slow_model, SAGEMAKER_BATCH="true", **settings) as server, ThreadPoolExecutor(100) as clients:
        statuses = list(clients.map(lambda _: server.invoke(b"0.02", "x/y")[0], range(100)))

    assert statuses == [200] * 100


@pytest.mark.parametrize(("level", "levels"), [("ERROR", set()), ("20", {"INFO"}), ("DEBUG", {"INFO", "DEBUG"})])
def test_the_log_has_the_level_that_was_set(model, level, levels):
    with served(model, SAGEMAKER_CONTAINER_LOG_LEVEL=level) as server:
        assert server.invoke(encode(LIGHT, "PNG"), "image/png")[0] == 200
        server.container.stop(120)
        log = server.container.log()

    assert set(re.findall(r"\b(DEBUG|INFO|WARNING|ERROR)\b", log)) == levels


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("SAGEMAKER_BIND_TO_PORT", "http"),
        ("SAGEMAKER_SAFE_PORT_RANGE", "9-1"),
        ("SAGEMAKER_MODEL_SERVER_WORKERS", "0"),
        ("SAGEMAKER_MODEL_SERVER_TIMEOUT_SECONDS", "-1"),
        ("SAGEMAKER_MAX_PAYLOAD_IN_MB", "x"),
        ("SAGEMAKER_BATCH", "maybe"),
        ("SAGEMAKER_CONTAINER_LOG_LEVEL", "LOUD"),
    ],
)
def test_a_wrong_setting_ends_the_container_with_its_name(model, name, value):
    flags = ("--env", f"{name}={value}")
    result = docker("run", "--rm", *flags, *bind(model, "/opt/ml/model"), IMAGE, "serve", check=False)

    assert result.returncode == 1
    assert result.stderr.strip().splitlines()[-1].startswith(f"serve: ConfigError: {name} ")


def test_many_clients_at_once_are_all_answered(server):
    lock, statuses = threading.Lock(), []

    def client(_):
        for _ in range(5):
            status = server.invoke(PNG, "image/png")[0]
            with lock:
                statuses.append(status)

    with ThreadPoolExecutor(8) as clients:
        list(clients.map(client, range(8)))

    assert statuses == [200] * 40


@pytest.mark.parametrize("content_type", DICOM_PICTURES)
def test_dicom_is_answered_by_a_model_of_photographs(server, content_type):
    body, images = DICOM_PICTURES[content_type]

    status, _, answer = server.invoke(body, content_type)

    assert status == 200
    assert len(json.loads(answer)["predictions"]) == images


@pytest.fixture(scope="module", params=BACK_ENDS)
def volumes(request, tmp_path_factory):
    """A model of CT volumes in the image, with unprivileged processes."""
    folder = tmp_path_factory.mktemp("volumes") / "model"
    write_small_bundle(folder, preset="ct_volume", channels=1, fit="pad", labels=("healthy", "ill"))
    with served(folder, MODEL_SERVER=request.param, SAGEMAKER_MODEL_SERVER_WORKERS="1") as server:
        yield server
        code, _ = server.container.stop(120)
        log = server.container.log()
    assert code == 0
    for word in ("PATIENT", "1.2.3.", "Warning", "Traceback"):
        assert word not in log


@pytest.mark.parametrize("content_type", ONE_VOLUME)
def test_a_series_or_a_volume_is_one_answer(volumes, content_type):
    status, _, answer = volumes.invoke(ONE_VOLUME[content_type], content_type)

    assert status == 200, answer
    assert len(json.loads(answer)["predictions"]) == 1


def test_every_decoder_works_without_rights_and_gives_the_same_answer(volumes):
    reference = json.loads(volumes.invoke(as_zip(*SERIES), "application/zip")[2])

    for syntax in SYNTAXES:
        status, _, answer = volumes.invoke(as_zip(*series(100, syntax)), "application/zip")

        assert (status, json.loads(answer)) == (200, reference), syntax


def test_a_report_is_dicom_and_two_series_are_two(volumes):
    _, headers, report = volumes.invoke(as_zip(*SERIES), "application/zip", "application/dicom")
    _, several_headers, several = volumes.invoke(as_zip(*SERIES, *series(50)), "application/zip", "application/dicom")

    assert headers["Content-Type"] == "application/dicom"
    assert report[128:132] == b"DICM"
    assert several_headers["Content-Type"].startswith('multipart/related; type="application/dicom"; boundary=')
    assert several.count(b"DICM") == 2


@pytest.mark.parametrize(
    ("body", "content_type", "status"),
    [
        (DICOM_FILE[:-100], "application/dicom", 400),
        (as_zip(*SERIES[1:], SERIES[0][:300]), "application/zip", 400),
        (as_zip(*SERIES[:2], *SERIES[4:]), "application/zip", 422),
        (PNG, "image/png", 422),
    ],
)
def test_broken_medical_images_are_refused_without_a_name(volumes, body, content_type, status):
    answered, _, answer = volumes.invoke(body, content_type)

    assert (answered, code_of(answer)) in {(400, "UndecodableImage"), (422, "UnsuitableImage")}
    assert answered == status
    assert b"PATIENT" not in answer
