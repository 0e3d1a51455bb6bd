"""The contract of requests, on the real command, with both back ends."""

import base64
import csv
import dataclasses
import io
import json
import os
import pickle
import random
import re
import shutil
import signal
import socket
import time
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sagemaker_monai.artifact.predictor import Predictor
from sagemaker_monai.entrypoints import serve
from sagemaker_monai.errors import BundleError
from sagemaker_monai.images.sample import Sample
from sagemaker_monai.outputs.encoding import ENCODERS
from sagemaker_monai.requests.media_types import MEDIA_TYPES
from sagemaker_monai.serving.back_end import Response, StartError
from sagemaker_monai.serving.settings import ServeConfig
from sagemaker_monai.serving.warm_up import check_answer
from tests.support.bundles import LABELS
from tests.support.dicom_samples import dicom_bytes, series_values
from tests.support.exhaustive import exhaustive
from tests.support.flaws import change_a_weight
from tests.support.medical_bodies import EDGE, OF_VOLUMES, as_related, as_tar, as_tar_gz
from tests.support.served import Served, code_of

BACK_ENDS = ("workers", "mms")


LOOPBACK = ("0100007F", "0000000000000000FFFF00000100007F")  # 127.0.0.1 and ::ffff:127.0.0.1 as /proc writes them


def photograph(seed, size=(60, 44)):
    values = np.random.default_rng(seed).integers(0, 256, size=(5, 7, 3), dtype=np.uint8)
    return Image.fromarray(values).resize(size, Image.Resampling.BICUBIC)


def encode(picture, kind="PNG"):
    stream = io.BytesIO()
    picture.save(stream, kind, **({"lossless": True} if kind == "WEBP" else {}))
    return stream.getvalue()


def as_npy(*pictures):
    stream = io.BytesIO()
    np.save(stream, np.stack([np.asarray(picture).transpose(2, 1, 0) for picture in pictures]))  # (N, C, W, H)
    return stream.getvalue()


def as_json(*bodies):
    return json.dumps({"instances": [{"image": base64.b64encode(body).decode()} for body in bodies]}).encode()


def as_zip(*bodies, names=None):
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for index, body in enumerate(bodies):
            archive.writestr(names[index] if names else f"{index}.png", body)
    return stream.getvalue()


def as_multipart(*bodies):
    parts = [
        f'--edge\r\nContent-Disposition: form-data; name="image"; filename="{index}"\r\n\r\n'.encode() + body + b"\r\n"
        for index, body in enumerate(bodies)
    ]
    return b"".join([*parts, b"--edge--\r\n"])


ONE = photograph(1)
TWO = [photograph(2), photograph(3)]
PNGS = [encode(picture) for picture in TWO]
DICOM = [dicom_bytes(values, number=number, z_mm=number) for number, values in enumerate(series_values(2, 40, 50))]
# Content type -> body and the lossless pictures in it; JPEG is compared with its own decoded bytes.
REQUESTS = {
    "image/png": (encode(ONE), [encode(ONE)]),
    "image/bmp": (encode(ONE, "BMP"), [encode(ONE)]),
    "image/tiff": (encode(ONE, "TIFF"), [encode(ONE)]),
    "image/webp": (encode(ONE, "WEBP"), [encode(ONE)]),
    "image/jpeg": (encode(ONE, "JPEG"), [encode(ONE, "JPEG")]),
    "application/x-npy": (as_npy(*TWO), PNGS),
    "application/json": (as_json(*PNGS), PNGS),
    "multipart/form-data; boundary=edge": (as_multipart(*PNGS), PNGS),
    "application/zip": (as_zip(*PNGS), PNGS),
    "application/x-tar": (as_tar(*PNGS), PNGS),
    "application/gzip": (as_tar_gz(*PNGS), PNGS),
    "application/x-gzip": (as_tar_gz(*PNGS), PNGS),
    "application/x-image": (encode(ONE), [encode(ONE)]),
    "application/octet-stream": (as_zip(*PNGS), PNGS),
    "application/dicom": (DICOM[0], DICOM[:1]),
    f'multipart/related; type="application/dicom"; boundary="{EDGE}"': (as_related(*DICOM), DICOM),
}
# What a model of photographs refuses: test_serve_medical has models that take them.
VOLUMES = [name for name in OF_VOLUMES if name not in REQUESTS]


CREDENTIALS = {
    "AWS_ACCESS_KEY_ID": "secret-1",
    "AWS_SECRET_ACCESS_KEY": "secret-2",
    "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI": "/secret-3",
    "HF_TOKEN": "secret-4",
}


@pytest.fixture(scope="module")
def predictor(small_bundle):
    return Predictor.read(small_bundle)


@pytest.fixture(scope="module", params=exhaustive(BACK_ENDS))
def server(request, small_bundle, tmp_path_factory):
    log = tmp_path_factory.mktemp("log") / "serve.log"
    served = Served(
        small_bundle,
        log,
        MODEL_SERVER=request.param,
        SAGEMAKER_MAX_PAYLOAD_IN_MB="2",
        SAGEMAKER_MODEL_SERVER_WORKERS="2",
        **CREDENTIALS,
        AWS_REGION="eu-central-1",
    )
    try:
        yield served.wait_until_healthy()
    finally:
        code = served.stop()
    assert code == 0
    assert served.processes() == {}


SLOW = """
import logging, os, time
def model_fn(model_dir): return os.getpid()
def input_fn(data, content_type): return data.decode()
def predict_fn(data, model):
    logging.getLogger("theirs").info("an-information")
    time.sleep(float(data))
    return model
def output_fn(prediction, accept): return str(prediction)
"""


def slow(folder, back_end, **variables):
    """A server that sleeps as many seconds as the body says and answers with the number of its process."""
    (folder / "model" / "code").mkdir(parents=True)
    (folder / "model" / "code" / "inference.py").write_text(SLOW)
    settings = {"MODEL_SERVER": back_end, "ALLOW_BUNDLE_CODE": "true", "SAGEMAKER_MODEL_SERVER_WORKERS": "1"}
    return Served(folder / "model", folder / "log", **settings | variables)


@pytest.fixture(scope="module", params=exhaustive(BACK_ENDS))
def slow_server(request, tmp_path_factory):
    served = slow(tmp_path_factory.mktemp("slow"), request.param, SAGEMAKER_MODEL_SERVER_TIMEOUT_SECONDS="2")
    try:
        yield served.wait_until_healthy()
    finally:
        served.stop()


def probabilities(predictor, pictures):
    predictions = predictor.predict([Sample(picture) for picture in pictures])
    return [prediction.probabilities for prediction in predictions]


@pytest.mark.parametrize("content_type", REQUESTS)
def test_every_content_type_gets_the_predictors_answer(server, predictor, content_type):
    body, pictures = REQUESTS[content_type]

    status, headers, answer = server.invoke(body, content_type)

    assert (status, headers["Content-Type"]) == (200, "application/json")
    answered = [prediction["probabilities"] for prediction in json.loads(answer)["predictions"]]
    for got, expected in zip(answered, probabilities(predictor, pictures), strict=True):
        assert got == pytest.approx(expected, abs=1e-6)
    assert {prediction["model_version"] for prediction in json.loads(answer)["predictions"]} == {
        predictor.model_version
    }


def test_every_content_type_of_the_table_is_among_those_asked():
    assert {content_type.partition(";")[0] for content_type in (*REQUESTS, *VOLUMES)} == set(MEDIA_TYPES)


@pytest.mark.parametrize("content_type", VOLUMES)
def test_a_model_of_photographs_refuses_volumes_as_such(server, content_type):
    volume = OF_VOLUMES[content_type][1](np.ones((9, 8, 7), np.int16), np.eye(4))

    status, _, body = server.invoke(volume, content_type)

    assert (status, code_of(body)) == (422, "UnsuitableImage")
    assert "volume" in json.loads(body)["error"]["message"]


@pytest.mark.parametrize("accept", ENCODERS)
def test_every_accept_gets_its_form(server, accept):
    status, headers, body = server.invoke(as_json(*PNGS), "application/json", accept)

    assert (status, headers["Content-Type"]) == (200, accept)
    if accept == "text/csv":
        rows = list(csv.DictReader(io.StringIO(body.decode())))
    elif accept == "application/jsonlines":
        rows = [json.loads(line) for line in body.splitlines()]
    else:
        rows = json.loads(body)["predictions"]
    assert len(rows) == 2
    assert {row["predicted_class"] for row in rows} <= set(LABELS)


PNG = encode(ONE)
ANIMATION = io.BytesIO()
photograph(4).save(ANIMATION, "TIFF", save_all=True, append_images=[photograph(5)])


@pytest.mark.parametrize(
    ("method", "path", "headers", "body", "status", "code"),
    [
        ("POST", "/invocations", {"Content-Type": "image/png"}, b"junk", 400, "UndecodableImage"),
        ("POST", "/invocations", {"Content-Type": "image/jpeg"}, PNG, 400, "UndecodableImage"),
        ("POST", "/invocations", {"Content-Type": "application/json"}, b"{", 400, "MalformedRequest"),
        ("POST", "/invocations", {"Content-Type": "image/png"}, b"", 400, "MalformedRequest"),
        ("GET", "/models", {}, None, 404, "NotFound"),
        ("POST", "/models?url=x", {}, b"", 404, "NotFound"),
        ("GET", "/invocations", {}, None, 405, "MethodNotAllowed"),
        ("POST", "/ping", {}, b"", 405, "MethodNotAllowed"),
        ("POST", "/invocations", {"Content-Type": "image/png", "Accept": "image/png"}, PNG, 406, "NotAcceptable"),
        ("POST", "/invocations", {"Content-Type": "image/png"}, b"x" * (3 << 20), 413, "PayloadTooLarge"),
        ("POST", "/invocations", {"Content-Type": "application/pdf"}, PNG, 415, "UnsupportedMediaType"),
        ("POST", "/invocations", {"Content-Type": "text/plain"}, PNG, 415, "UnsupportedMediaType"),
        ("POST", "/invocations", {"Content-Type": ""}, PNG, 415, "UnsupportedMediaType"),
        ("POST", "/invocations", {"Content-Type": "image/tiff"}, ANIMATION.getvalue(), 422, "UnsuitableImage"),
    ],
)
def test_the_table_of_errors(server, method, path, headers, body, status, code):
    answered, answer_headers, answer = server.request(method, path, body, headers)

    assert (answered, code_of(answer)) == (status, code)
    assert answer_headers["Content-Type"] == "application/json"


class Runs:
    """A pickle that would leave a file behind."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.system, (f"touch {self.path}",)


@pytest.fixture(scope="module")
def hostile_bodies(tmp_path_factory):
    """Bodies of any type, and the file that appears if one of them is run as code."""
    flag = tmp_path_factory.mktemp("flag") / "it-ran"
    noise = random.Random(5)
    zeros = io.BytesIO()
    with zipfile.ZipFile(zeros, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("0.png", bytes(50_000_000))
    objects = io.BytesIO()
    np.save(objects, np.array([Runs(flag)], dtype=object), allow_pickle=True)
    huge = PNG[:16] + (60_000).to_bytes(4, "big") * 2 + PNG[24:]
    bodies = [noise.randbytes(2000), pickle.dumps(Runs(flag)), zeros.getvalue(), objects.getvalue(), huge, PNG[:60]]
    bodies += [
        magic + noise.randbytes(400) for magic in (b"\xff\xd8\xff\xe0", b"II*\0", b"PK\3\4", b"\x93NUMPY\1\0", b"BM")
    ]
    bodies += [as_zip(b"root:x:0:0", names=["../../etc/passwd"]), as_zip(as_zip(PNG), names=["inner.zip"])]
    bodies += [b"[" * 100_000, b'{"instances": [{"image": "/etc/passwd"}]}', b'{"instances": 1e999}', b"\0" * 1000]
    bodies += [b"RIFF\xff\xff\xff\xffWEBPVP8X", b"<svg xmlns='x'><image href='file:///etc/passwd'/></svg>"]
    return bodies, flag


@pytest.mark.parametrize("content_type", [*REQUESTS, *VOLUMES, "application/x-www-form-urlencoded"])
def test_hostile_bodies_get_a_small_refusal_and_the_next_request_is_answered(
    server, content_type, hostile_bodies, small_bundle
):
    bodies, flag = hostile_bodies
    secrets = ("Traceback", 'File \\"', ".py", "site-packages", str(small_bundle), "passwd", "/tmp", "/opt", "0x")
    for body in bodies:
        status, headers, answer = server.invoke(body, content_type)

        assert 400 <= status < 500, (body[:40], answer)
        assert code_of(answer)
        assert len(answer) < 600
        assert headers["Content-Type"] == "application/json"
        assert [secret for secret in secrets if secret in answer.decode()] == []
    assert not flag.exists()

    assert server.invoke(PNG, "image/png")[0] == 200


def test_clients_at_the_same_time_get_their_own_answers(server, predictor):
    pictures = [encode(photograph(seed)) for seed in range(40)]
    expected = probabilities(predictor, pictures)

    with ThreadPoolExecutor(8) as clients:
        answers = list(clients.map(lambda picture: server.invoke(picture, "image/png"), pictures))

    for (status, _, body), wanted in zip(answers, expected, strict=True):
        assert status == 200
        assert json.loads(body)["predictions"][0]["probabilities"] == pytest.approx(wanted, abs=1e-6)


def test_a_long_answer_arrives_whole(server, predictor):
    status, _, body = server.invoke(as_npy(*[photograph(1, (32, 32))] * 300), "application/x-npy")

    assert status == 200
    assert len(json.loads(body)["predictions"]) == 300


def test_the_parameters_for_batch_transform(server):
    parameters = json.loads(server.request("GET", "/execution-parameters")[2])

    assert parameters["BatchStrategy"] == "SINGLE_RECORD"
    assert parameters["MaxPayloadInMB"] == 2
    assert parameters["MaxConcurrentTransforms"] == len(server.workers())


def test_only_the_public_port_is_reachable_from_outside(server):
    listening = server.listening()

    assert {port for address, port in listening if address not in LOOPBACK} == {server.port}
    assert ("00000000", server.port) in listening


def test_no_process_but_the_supervisor_sees_credentials(server):
    others = set(server.processes()) - {server.process.pid}
    variables = {pid: Path(f"/proc/{pid}/environ").read_text().split("\0") for pid in others}

    assert set(server.workers()) <= others
    for environment in variables.values():
        assert "AWS_REGION=eu-central-1" in environment
        assert "secret-" not in " ".join(environment)
    assert "secret-" not in server.log.read_text()


def test_a_fault_in_the_artifacts_code_is_in_the_log_of_its_worker(slow_server):
    assert slow_server.invoke(b"no number", "x/y")[0] == 500

    log = slow_server.log.read_text()
    assert "ValueError: could not convert" in log
    assert re.search(r"ERROR worker \d+: a request could not be answered", log)
    assert "an-information" in log


def test_a_killed_worker_is_replaced_and_the_next_request_is_answered(slow_server):
    [pid] = slow_server.workers()

    os.kill(pid, signal.SIGKILL)
    deadline = time.monotonic() + 90
    while (answer := slow_server.invoke(b"0", "x/y"))[0] != 200:
        assert answer[0] in (500, 503, 504)
        assert time.monotonic() < deadline, slow_server.log.read_text()

    assert slow_server.workers() == [int(answer[2])] != [pid]
    slow_server.wait_until_healthy()


def test_a_request_that_takes_too_long_is_504_and_the_server_goes_on(slow_server):
    started = time.monotonic()
    status, _, body = slow_server.invoke(b"3", "x/y")

    assert (status, code_of(body)) == (504, "Timeout")
    assert 1.9 < time.monotonic() - started < 2.9  # seconds, not minutes
    time.sleep(1.2)
    deadline = time.monotonic() + 90
    while slow_server.invoke(b"0", "x/y")[0] != 200:  # the worker is replaced, or free again
        assert time.monotonic() < deadline, slow_server.log.read_text()


def test_a_signal_loses_no_request_in_flight(slow_server):  # the last of this server's tests
    number = signal.SIGTERM if slow_server.back_end == "workers" else signal.SIGINT  # each once
    with ThreadPoolExecutor(1) as client:
        answer = client.submit(slow_server.invoke, b"1", "x/y")
        time.sleep(0.4)
        slow_server.process.send_signal(number)
        time.sleep(0.2)
        refused = slow_server.ping()
        status, _, body = answer.result()

    assert status == 200
    assert body.isdigit()
    assert refused in (503, None)
    assert slow_server.process.wait(10) == 0
    assert slow_server.processes() == {}


@pytest.mark.long
@pytest.mark.parametrize("back_end", exhaustive(BACK_ENDS))
def test_ping_answers_within_two_seconds_while_workers_are_busy_and_large_bodies_arrive(tmp_path, back_end):
    served = slow(tmp_path, back_end)
    body = b"1".rjust(100 << 20)  # the largest that is allowed; blanks before a number mean nothing
    try:
        served.wait_until_healthy()
        with ThreadPoolExecutor(2) as clients:
            question = ("POST", "/invocations", body, {"Content-Type": "x/y"}, 60)
            answers = [clients.submit(served.request, *question) for _ in range(2)]
            pings = []
            while not all(answer.done() for answer in answers):
                pings.append(served.request("GET", "/ping", timeout_s=2)[0])
    finally:
        served.stop()

    assert [answer.result()[0] for answer in answers] == [200, 200]
    assert set(pings) == {200}


@pytest.mark.long
@pytest.mark.parametrize("back_end", BACK_ENDS)
def test_the_log_level_holds_for_every_process_and_hides_no_fault(tmp_path, back_end):
    served = slow(tmp_path, back_end, SAGEMAKER_CONTAINER_LOG_LEVEL="ERROR")
    try:
        assert served.wait_until_healthy().invoke(b"no number", "x/y")[0] == 500
    finally:
        served.stop()

    log = served.log.read_text()
    assert "ValueError: could not convert" in log
    assert re.search(r"ERROR worker \d+: a request could not be answered", log)
    assert "an-information" not in log
    assert " INFO " not in log


def test_a_signal_while_the_model_is_loaded_ends_serve_at_once(tmp_path):
    (tmp_path / "model" / "code").mkdir(parents=True)
    (tmp_path / "model" / "code" / "inference.py").write_text("import time\ntime.sleep(600)")
    served = Served(tmp_path / "model", tmp_path / "log", ALLOW_BUNDLE_CODE="true")
    deadline = time.monotonic() + 90
    while not served.workers():
        assert time.monotonic() < deadline
        time.sleep(0.05)
    started = time.monotonic()

    assert served.stop() == 0
    assert time.monotonic() - started < 10
    assert served.processes() == {}


def test_a_folder_without_an_artifact_is_refused_before_a_process_is_started(tmp_path):
    (tmp_path / "empty").mkdir()
    for name, cause in {"absent": r"cannot be read \(No such file or directory\)", "empty": "is empty"}.items():
        with pytest.raises(BundleError, match=cause) as refusal:
            serve.check_folder(dataclasses.replace(ServeConfig.from_env({}), model_dir=tmp_path / name))
        assert str(tmp_path) not in str(refusal.value)


@pytest.mark.parametrize("back_end", exhaustive(BACK_ENDS))
def test_a_broken_artifact_ends_serve_with_one_line_and_is_never_healthy(back_end, small_bundle, tmp_path):
    shutil.copytree(small_bundle, tmp_path / "model")
    change_a_weight(tmp_path / "model")
    started = time.monotonic()
    served = Served(tmp_path / "model", tmp_path / "log", MODEL_SERVER=back_end, SAGEMAKER_MODEL_SERVER_WORKERS="1")
    try:
        while served.process.poll() is None:
            assert served.ping() is None
            assert time.monotonic() - started < 40
            time.sleep(0.1)
    finally:
        served.stop()

    assert served.process.returncode == 1
    last = served.log.read_text().strip().splitlines()[-1]
    assert last.startswith("serve: BundleError")
    assert str(tmp_path) not in last
    assert len(last) <= 1100


def test_a_wrong_setting_ends_serve_with_its_name(small_bundle, tmp_path):
    served = Served(small_bundle, tmp_path / "log", MODEL_SERVER="other")

    assert served.process.wait(30) == 1
    assert "ConfigError: MODEL_SERVER must be one of workers, mms, got 'other'" in served.log.read_text()
    assert "Traceback" not in served.log.read_text()


def test_a_port_that_is_taken_ends_serve_at_once(small_bundle, tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        served = Served(small_bundle, tmp_path / "log", SAGEMAKER_BIND_TO_PORT=str(port))
        assert served.process.wait(30) == 1

    assert re.search(rf"ConfigError: port {port} cannot be used .*SAGEMAKER_BIND_TO_PORT", served.log.read_text())


def test_help_names_the_environment(capsys):
    with pytest.raises(SystemExit) as ended:
        serve.main(["--help"])

    text = capsys.readouterr().out
    assert ended.value.code == 0
    assert "SAGEMAKER_BIND_TO_PORT" in text
    assert "ALLOW_BUNDLE_CODE" in text


def answer(status=200, **probabilities):
    predictions = [{"predicted_class": "a", "probabilities": probabilities}]
    return Response(status, "application/json", json.dumps({"predictions": predictions}).encode())


def test_a_sound_answer_to_the_warm_up_is_a_distribution_over_classes():
    check_answer(answer(a=0.25, b=0.75))

    for unsound in (answer(a=0.25, b=0.5), answer(a=float("nan"), b=1.0), answer(b=1.0), answer(500, a=1.0)):
        with pytest.raises(StartError):
            check_answer(unsound)
