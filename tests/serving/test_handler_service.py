import io
import json
import logging
import os
import re
import sys

import pytest
from mms.context import Context, RequestProcessor
from PIL import Image

from sagemaker_monai.entrypoints import handler_service
from sagemaker_monai.entrypoints.handler_service import Handler, handle
from sagemaker_monai.errors import BundleError
from sagemaker_monai.serving import inference
from sagemaker_monai.serving.back_end import Request
from sagemaker_monai.serving.mms.protocol import (
    ACCEPT_HEADER,
    ANSWER_HEADER,
    ARTIFACT_FILE,
    CONTENT_TYPE_HEADER,
    FAILURE_FILE,
    TIME_HEADER,
)
from tests.support.bundles import write_small_bundle


def picture(color):
    stream = io.BytesIO()
    Image.new("RGB", (40, 40), color).save(stream, "PNG")
    return stream.getvalue()


@pytest.fixture(scope="module")
def handler(small_bundle):
    return Handler(small_bundle, allow_bundle_code=False)


@pytest.fixture(autouse=True)
def clean_imports():
    """A user's inference.py is imported under that name and its folder is put on the path."""
    path = list(sys.path)
    yield
    sys.path[:] = path
    sys.modules.pop("inference", None)


@pytest.fixture
def with_code(tmp_path):
    def make(text, *, allow=True):
        (tmp_path / "code").mkdir(exist_ok=True)
        (tmp_path / "code" / "inference.py").write_text(text)
        return Handler(tmp_path, allow_bundle_code=allow)

    return make


def png(color, accept=""):
    return Request(picture(color), "image/png", accept)


def error_of(response):
    return response.status, json.loads(response.body)["error"]["code"]


def test_requests_answered_together_get_the_answers_they_get_alone(handler):
    requests = [png("red"), png("green", "application/jsonlines"), png("blue", "text/csv")]

    together = handler.respond(requests)
    alone = [handler.respond([request])[0] for request in requests]

    assert [response.content_type for response in together] == ["application/json", "application/jsonlines", "text/csv"]
    assert [response.status for response in together] == [200, 200, 200]
    for got, expected in zip(together, alone, strict=True):
        assert numbers(got) == pytest.approx(numbers(expected), abs=1e-6)  # sums of another order in a larger batch
    assert numbers(together[0]) != pytest.approx(numbers(together[1]), abs=1e-4)


def numbers(response):
    return [float(number) for number in re.findall(rb"[0-9.]+e?-?[0-9]*", response.body) if b"0." in number]


def test_requests_answered_together_go_through_the_network_once(handler, monkeypatch):
    sizes = []
    predict_fn = inference.predict_fn
    monkeypatch.setattr(
        inference, "predict_fn", lambda samples, model: sizes.append(len(samples)) or predict_fn(samples, model)
    )

    handler.respond([png("red"), Request(b"junk", "application/x-unknown"), png("green")])

    assert sizes == [2]


def test_one_broken_request_leaves_the_rest_of_the_batch_alone(handler):
    requests = [png("red"), Request(b"not an image", "image/png"), Request(b"{", "application/json"), png("green")]

    responses = handler.respond(requests)

    assert [response.status for response in responses] == [200, 400, 400, 200]
    assert responses[0] == handler.respond([png("red")])[0]
    assert responses[3] == handler.respond([png("green")])[0]


@pytest.mark.parametrize(
    ("request_", "error"),
    [
        (Request(b"x", "image/png"), (400, "UndecodableImage")),
        (Request(b"x", "application/json"), (400, "MalformedRequest")),
        (Request(b"x", "application/pdf"), (415, "UnsupportedMediaType")),
        (png("red", "image/png"), (406, "NotAcceptable")),
    ],
)
def test_a_callers_error_has_its_status_and_code(handler, request_, error):
    [response] = handler.respond([request_])

    assert error_of(response) == error
    assert response.content_type == "application/json"


def test_a_fault_is_a_500_without_details_and_has_a_trace_in_the_log(handler, monkeypatch, caplog):
    def fault(samples, model):
        raise RuntimeError("secret detail")

    monkeypatch.setattr(inference, "predict_fn", fault)

    first, second = handler.respond([png("red"), png("green")])

    assert error_of(first) == error_of(second) == (500, "InternalError")
    assert b"secret" not in first.body
    assert "secret detail" in caplog.text
    assert "Traceback" in caplog.text


def test_a_broken_artifact_is_refused(tmp_path):
    with pytest.raises(BundleError):
        Handler(tmp_path, allow_bundle_code=False)


ECHO = """
def model_fn(model_dir): return "model"
def input_fn(data, content_type): return (data, content_type)
def predict_fn(data, model): return [data, model]
def output_fn(prediction, accept): return repr(prediction) + accept
"""


def test_code_in_the_artifact_is_not_run_unless_allowed(with_code, tmp_path):
    flag = tmp_path / "it-ran"

    with pytest.raises(BundleError, match="ALLOW_BUNDLE_CODE=true"):
        with_code(f"open({str(flag)!r}, 'w')", allow=False)

    assert not flag.exists()


def test_allowed_code_replaces_our_functions(with_code):
    [response] = with_code(ECHO).respond([Request(b"abc", "image/png", "text/plain")])

    assert response.body == b"[(b'abc', 'image/png'), 'model']text/plain"
    assert (response.status, response.content_type) == (200, "text/plain")


@pytest.mark.parametrize(("content_type", "is_text"), [("application/json; charset=utf-8", True), ("image/png", False)])
def test_a_users_input_fn_gets_text_where_the_toolkit_gave_text(with_code, content_type, is_text):
    [response] = with_code(ECHO).respond([Request(b"abc", content_type, "")])

    assert response.body.startswith(b"[('abc'" if is_text else b"[(b'abc'")


def test_without_an_accept_a_users_output_fn_is_asked_for_json(with_code):
    for accept in ("", "*/*"):
        [response] = with_code(ECHO).respond([Request(b"abc", "image/png", accept)])

        assert response.body.endswith(b"application/json")
        assert response.content_type == "application/json"


def test_functions_that_take_the_servers_context_get_none(with_code):
    code = """
def model_fn(model_dir, context): return context
def input_fn(data, content_type, context): return context
def predict_fn(data, model, context): return [data, model, context]
def output_fn(prediction, accept, context): return repr([prediction, context]).encode(), "text/x"
"""
    [response] = with_code(code).respond([Request(b"abc", "image/png")])

    assert (response.body, response.content_type) == (b"[[None, None, None], None]", "text/x")


def test_what_the_users_code_does_not_define_is_ours(with_code, tmp_path):
    write_small_bundle(tmp_path)
    code = "def output_fn(answer, accept): return answer.predictions[0].predicted_class"

    changed, broken = with_code(code).respond([png("red"), Request(b"junk", "image/png")])

    [ours] = inference.model_fn(str(tmp_path)).predict(inference.input_fn(picture("red"), "image/png"))
    assert changed.body.decode() == ours.predicted_class
    assert error_of(broken) == (400, "UndecodableImage")


def test_the_users_code_can_import_its_neighbours(with_code, tmp_path):
    (tmp_path / "code").mkdir()
    (tmp_path / "code" / "a_neighbour.py").write_text("WORD = 'found'")

    [response] = with_code(ECHO + "import a_neighbour\ndef predict_fn(data, model): return a_neighbour.WORD").respond(
        [Request(b"abc", "image/png")]
    )

    assert b"found" in response.body


@pytest.mark.parametrize(
    ("code", "cause"),
    [
        ("x = 1", "must define some of"),
        ("def transform_fn(model, data, content_type, accept): pass", "no transform_fn"),
        ("def input_fn(data): pass", "input_fn of code/inference.py takes 1 arguments"),
    ],
)
def test_code_that_does_not_fit_is_refused(with_code, code, cause):
    with pytest.raises(BundleError, match=cause):
        with_code(code)


@pytest.mark.parametrize(
    "fault",
    [
        "raise ValueError('secret')",
        "return object()",
        "return b'', b'a/b'",
        r"return b'', 'a/b\r\nX: y'",
        r"return b'', 'a/\u20ac'",
    ],
)
def test_a_fault_in_the_users_code_is_a_500_without_details(with_code, fault):
    [response] = with_code(ECHO + f"def output_fn(prediction, accept): {fault}").respond([Request(b"abc", "image/png")])

    assert error_of(response) == (500, "InternalError")
    assert b"secret" not in response.body


@pytest.mark.parametrize(
    ("raised", "answer"),
    [
        ("BaseInferenceToolkitError(418, 'no tea', 'a phrase')", (418, "BaseInferenceToolkitError")),
        ("GenericInferenceToolkitError(422)", (422, "GenericInferenceToolkitError")),
        ("BaseInferenceToolkitError(200, 'secret', 'no failure')", (500, "InternalError")),
        ("BaseInferenceToolkitError('422', 'secret', 'no number')", (500, "InternalError")),
        ("BaseInferenceToolkitError(499, 'secret', 'no status of HTTP')", (500, "InternalError")),
    ],
)
def test_the_users_code_refuses_a_request_by_the_toolkits_errors(with_code, raised, answer):
    code = f"from sagemaker_inference.errors import *\n\ndef input_fn(data, content_type):\n    raise {raised}\n"
    response, _ = with_code(ECHO + code).respond([Request(b"abc", "image/png"), Request(b"abc", "image/png")])

    assert error_of(response) == answer
    assert b"secret" not in response.body


# multi-model-server


@pytest.fixture
def context_for(tmp_path, monkeypatch):
    """The model server's context for an artifact that lies elsewhere than in the folder it knows."""
    monkeypatch.setattr(logging, "raiseExceptions", True)  # loading changes it in a process of its own
    monkeypatch.setattr(handler_service, "lock_down", lambda **_: ())  # it gives up rights that pytest needs
    monkeypatch.setattr(handler_service, "_settle", lambda _working_bytes: None)

    def make(artifact):
        (tmp_path / "m1").mkdir()
        (tmp_path / "m1" / ARTIFACT_FILE).write_text(str(artifact))
        return Context("m1", str(tmp_path / "m1"), None, 1, None, "1.1.11")

    return make


@pytest.fixture
def model_server(small_bundle, monkeypatch, context_for):
    """What the model server does with our module: load, then pass a batch."""
    monkeypatch.setattr(handler_service, "_loaded", {})
    monkeypatch.delenv("ALLOW_BUNDLE_CODE", raising=False)
    context = context_for(small_bundle)
    assert handle(None, context) is None

    def serve(*requests):
        context.request_processor = [
            RequestProcessor(
                {CONTENT_TYPE_HEADER: request.content_type, ACCEPT_HEADER: request.accept, TIME_HEADER: "60"}
            )
            for request in requests
        ]
        bodies = handle([{"body": bytearray(request.body)} for request in requests], context)
        return bodies, context

    yield serve
    logging.captureWarnings(False)


def test_the_model_server_gets_body_type_status_and_our_mark_for_each_request(model_server, handler):
    requests = [png("red", "text/csv"), Request(b"junk", "image/png")]

    bodies, context = model_server(*requests)

    expected = handler.respond(requests)
    assert bodies == [response.body for response in expected]
    assert context.get_response_status(0) == (200, "OK")
    assert context.get_response_status(1) == (400, "Bad Request")
    assert context.get_response_content_type(0) == "text/csv"
    assert context.get_response_content_type(1) == "application/json"
    assert context.get_response_headers(0)[ANSWER_HEADER] == "1"


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        RuntimeError("[enforce fail at alloc_cpu.cpp:127] err == 0. DefaultCPUAllocator: can't allocate memory"),
        RuntimeError("[enforce fail at alloc_cpu.cpp:75] data. DefaultCPUAllocator: not enough memory: you tried to"),
        RuntimeError("std::bad_alloc"),
        OSError(12, os.strerror(12)),
    ],
)
def test_a_request_that_memory_does_not_suffice_for_is_413_and_the_next_is_answered(handler, monkeypatch, error):
    def fail(*arguments):
        try:
            raise error
        except Exception as cause:
            raise BundleError("a reader may call it anything") from cause

    with monkeypatch.context() as patch:
        patch.setattr(handler_service.inference, "predict_fn", fail)
        [refused] = handler.respond([png("red")])

    assert refused.status == 413
    assert json.loads(refused.body)["error"]["code"] == "PayloadTooLarge"
    assert handler.respond([png("red")])[0].status == 200


def test_a_broken_artifact_raises_in_the_model_server_and_leaves_its_cause(tmp_path, context_for):
    (tmp_path / "model").mkdir()

    with pytest.raises(BundleError) as refusal:
        handle(None, context_for(tmp_path / "model"))

    assert (tmp_path / "m1" / FAILURE_FILE).read_text() == f"BundleError: {refusal.value}"


def test_code_that_exits_while_it_loads_leaves_its_cause_too(tmp_path, monkeypatch, context_for):
    (tmp_path / "code").mkdir()
    (tmp_path / "code" / "inference.py").write_text("raise SystemExit(3)")
    monkeypatch.setenv("ALLOW_BUNDLE_CODE", "true")

    with pytest.raises(SystemExit):
        handle(None, context_for(tmp_path))

    assert "SystemExit" in (tmp_path / "m1" / FAILURE_FILE).read_text()


def test_a_model_that_is_unloaded_is_no_error_in_the_log(model_server, caplog):
    for text in ("Frontend disconnected", "another"):
        try:
            raise ValueError(text)
        except ValueError:
            logging.error("the process ended", exc_info=True)

    assert "another" in caplog.text
    assert "Frontend disconnected" not in caplog.text
