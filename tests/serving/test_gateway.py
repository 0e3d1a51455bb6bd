import asyncio
import dataclasses
import json
import logging
import os
import random
import socket
import tempfile
from pathlib import Path

import pytest

from sagemaker_monai import errors
from sagemaker_monai.errors import Overloaded, Timeout, WorkerDied
from sagemaker_monai.serving import gateway as module
from sagemaker_monai.serving import json_server
from sagemaker_monai.serving.back_end import Response
from sagemaker_monai.serving.gateway import Gateway
from sagemaker_monai.serving.settings import ServeConfig
from sagemaker_monai.serving.spool import SPOOL_BYTES, read_file

CONFIG = dataclasses.replace(ServeConfig.from_env({}), max_payload_mb=1, workers=3)
MIB = 1024 * 1024


class FakeBackEnd:
    """Answers with what it was asked, or raises what it was told to."""

    def __init__(self):
        self.requests, self.bodies = [], []
        self.alive = True
        self.error = self.body = None
        self.gate = asyncio.Event()
        self.gate.set()

    async def answer(self, request):
        self.requests.append(request)
        body = request.body
        if request.file is not None:
            assert not body
            body = read_file(os.dup(request.file.fileno()), request.file.size_bytes)
        self.bodies.append(body)
        await self.gate.wait()
        if self.error is not None:
            raise self.error
        return Response(200, "text/plain", b"%d bytes" % len(body) if self.body is None else self.body)

    def is_alive(self):
        return self.alive


class Client:
    """A client that sends exactly the bytes that it is given."""

    def __init__(self, port):
        self.port = port

    async def connect(self):
        self.reader, self.writer = await asyncio.open_connection("127.0.0.1", self.port)
        return self

    async def send(self, *pieces):
        for piece in pieces:
            self.writer.write(piece)
            await self.writer.drain()

    async def response(self):
        """Status, headers in lower case, body."""
        head = await self.reader.readuntil(b"\r\n\r\n")
        status_line, *lines = head.decode().strip().split("\r\n")
        headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
        body = await self.reader.readexactly(int(headers.get("content-length", 0)))
        return int(status_line.split()[1]), headers, body

    async def is_closed(self):
        return await asyncio.wait_for(self.reader.read(), 60) == b""

    def close(self):
        self.writer.close()


def run(scenario, config=CONFIG):
    """Run `scenario(connect, back_end, gateway)` against an open gateway; `connect` makes clients."""

    async def main():
        back_end = FakeBackEnd()
        gateway = Gateway(config, back_end)
        clients = []

        async def connect():
            clients.append(await Client(listener.getsockname()[1]).connect())
            return clients[-1]

        with socket.socket() as listener:
            listener.bind(("127.0.0.1", 0))
            await gateway.open(listener)
            try:
                return await scenario(connect, back_end, gateway)
            finally:
                for client in clients:
                    client.close()
                await gateway.close()

    return asyncio.run(main())


def head(method="POST", path="/invocations", **headers):
    headers = {"Host": "test", **{name.replace("_", "-"): value for name, value in headers.items()}}
    lines = [f"{method} {path} HTTP/1.1", *(f"{name}: {value}" for name, value in headers.items())]
    return "\r\n".join([*lines, "", ""]).encode()


def post(body, content_type="text/plain", **headers):
    return head(Content_Type=content_type, Content_Length=str(len(body)), **headers) + body


def ask(*pieces, config=CONFIG, prepare=lambda back_end: None):
    """Send bytes on a connection of their own; status, headers, body and the back end."""

    async def scenario(connect, back_end, gateway):
        prepare(back_end)
        client = await connect()
        await client.send(*pieces)
        return *await client.response(), back_end

    return run(scenario, config)


def code_of(body):
    error = json.loads(body)["error"]
    assert set(error) == {"code", "message"}
    return error["code"]


def test_body_and_headers_reach_the_back_end_unchanged():
    status, headers, body, back_end = ask(post(b"\x00abc", "image/x; a=b", Accept="text/csv"))

    assert (status, headers["content-type"], body) == (200, "text/plain", b"4 bytes")
    [request] = back_end.requests
    assert (request.body, request.content_type, request.accept) == (b"\x00abc", "image/x; a=b", "text/csv")


@pytest.mark.parametrize(
    ("headers", "accept"),
    [({}, "text/csv"), ({"Accept": "*/*"}, "text/csv"), ({"Accept": "application/json"}, "application/json")],
)
def test_who_does_not_say_what_he_accepts_gets_the_default_that_was_set(headers, accept):
    config = dataclasses.replace(CONFIG, default_accept="text/csv")

    _, _, _, back_end = ask(post(b"abc", **headers), config=config)

    assert [request.accept for request in back_end.requests] == [accept]


def descriptors():
    return {link.name for link in Path("/proc/self/fd").iterdir()}


@pytest.mark.parametrize("size", [SPOOL_BYTES, SPOOL_BYTES + 1, 2 * SPOOL_BYTES + 12_345])
@pytest.mark.parametrize("has_folder", [True, False])
def test_a_body_of_any_size_arrives_whole_and_a_large_one_in_a_file(tmp_path, monkeypatch, size, has_folder):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path if has_folder else tmp_path / "absent"))
    body = random.Random(size).randbytes(size)

    async def scenario(connect, back_end, gateway):
        before = descriptors()
        client = await connect()
        await client.send(post(body))
        response = await client.response()
        client.close()
        await asyncio.wait_for(gateway.drain(600), 60)
        return response, back_end, gateway._held_bytes, descriptors() - before

    response, back_end, held, left = run(scenario, dataclasses.replace(CONFIG, max_payload_mb=20))

    assert (response[0], response[2]) == (200, b"%d bytes" % size)
    assert back_end.bodies == [body]
    assert (back_end.requests[0].file is not None) == (size > SPOOL_BYTES)
    assert held == 0
    assert len(left) <= 2  # the ends of the connection that is being closed
    assert list(tmp_path.iterdir()) == []


def test_a_client_that_leaves_inside_a_large_body_leaves_no_file(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))

    async def scenario(connect, back_end, gateway):
        leaving = await connect()
        await leaving.send(head(Content_Type="a/b", Content_Length=str(3 * SPOOL_BYTES)) + bytes(2 * SPOOL_BYTES))
        leaving.close()
        await asyncio.sleep(0.05)
        await asyncio.wait_for(gateway.drain(600), 60)
        links = [Path(f"/proc/self/fd/{number}") for number in descriptors()]
        return [str(link.readlink()) for link in links if link.is_symlink()], gateway._held_bytes

    links, held = run(scenario, dataclasses.replace(CONFIG, max_payload_mb=20))

    assert not [link for link in links if str(tmp_path) in link]
    assert held == 0


def test_a_chunked_body_is_joined():
    chunks = [b"3\r\nabc\r\n", b"2\r\nde\r\n", b"0\r\n\r\n"]

    status, _, body, back_end = ask(head(Content_Type="a/b", Transfer_Encoding="chunked"), *chunks)

    assert (status, body, back_end.requests[0].body) == (200, b"5 bytes", b"abcde")


def test_a_client_that_expects_100_continue_gets_it_before_it_sends():
    async def scenario(connect, back_end, gateway):
        client = await connect()
        await client.send(head(Content_Type="a/b", Content_Length="3", Expect="100-continue"))
        interim = await asyncio.wait_for(client.reader.readuntil(b"\r\n\r\n"), 60)
        await client.send(b"abc")
        return interim, await client.response()

    interim, (status, _, body) = run(scenario)

    assert interim == b"HTTP/1.1 100 Continue\r\n\r\n"
    assert (status, body) == (200, b"3 bytes")


def test_a_client_that_expects_100_continue_is_refused_before_it_sends_too_much():
    status, _, body, _ = ask(head(Content_Type="a/b", Content_Length=str(2 * MIB), Expect="100-continue"))

    assert (status, code_of(body)) == (413, "PayloadTooLarge")


def test_an_answer_that_sagemaker_would_not_pass_on_is_refused_with_its_size_and_the_remedy():
    limited = dataclasses.replace(CONFIG, max_answer_mb=1)

    def answering(size):
        return lambda back_end: setattr(back_end, "body", bytes(size))

    assert ask(post(b"x"), config=limited, prepare=answering(MIB))[2] == bytes(MIB)
    status, headers, body, _ = ask(post(b"x"), config=limited, prepare=answering(MIB + 1))
    assert (status, code_of(body), headers["content-type"]) == (413, "PayloadTooLarge", "application/json")
    told = json.loads(body)["error"]["message"]
    for part in (str(MIB + 1), "1 MiB", "type=labelmap", "nifti+gzip", "asynchronous"):
        assert part in told
    assert ask(post(b"x"), prepare=answering(8 * MIB))[0] == 200


def test_ping_says_whether_a_worker_lives():
    assert ask(head("GET", "/ping"))[0] == 200

    status, headers, body, _ = ask(head("GET", "/ping"), prepare=lambda back_end: setattr(back_end, "alive", False))
    assert (status, code_of(body), headers["retry-after"]) == (503, "Unavailable", "1")


def test_ping_answers_while_every_worker_is_busy():
    async def scenario(connect, back_end, gateway):
        back_end.gate.clear()
        clients = [await connect() for _ in range(20)]
        for client in clients:
            await client.send(post(b"abc"))
        pinging = await connect()
        await pinging.send(head("GET", "/ping"))
        status, _, _ = await asyncio.wait_for(pinging.response(), 60)
        back_end.gate.set()
        statuses = [(await client.response())[0] for client in clients]
        return status, statuses

    assert run(scenario) == (200, [200] * 20)


def test_execution_parameters_are_those_of_the_configuration():
    _, _, body, _ = ask(head("GET", "/execution-parameters"))

    assert json.loads(body) == {"MaxConcurrentTransforms": 3, "BatchStrategy": "SINGLE_RECORD", "MaxPayloadInMB": 1}


@pytest.mark.parametrize(
    ("request_bytes", "status", "code"),
    [
        (head("GET", "/models"), 404, "NotFound"),
        (head("GET", "/"), 404, "NotFound"),
        (head("GET", "/ping/../invocations"), 404, "NotFound"),
        (head("POST", "/ping", Content_Length="0"), 405, "MethodNotAllowed"),
        (head("GET", "/invocations"), 405, "MethodNotAllowed"),
        (head("DELETE", "/invocations"), 405, "MethodNotAllowed"),
        (head("OPTIONS", "*"), 404, "NotFound"),
        (post(b""), 400, "MalformedRequest"),
        (head(Content_Length="3") + b"abc", 415, "UnsupportedMediaType"),
        (post(b"abc", Content_Encoding="gzip"), 415, "UnsupportedMediaType"),
        (head(Content_Type="a/b", Content_Length=str(MIB + 1)), 413, "PayloadTooLarge"),
        (b"NOT HTTP AT ALL /secret\r\n\r\n", 400, "MalformedRequest"),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", 400, "MalformedRequest"),
        (b"GET /ping HTTP/1.1\r\nHost: a\r\nBad Header: x\r\n\r\n", 400, "MalformedRequest"),
        (b"GET /ping HTTP/1.1\r\nHost: a\r\nX: " + b"x" * 20_000 + b"\r\n\r\n", 400, "MalformedRequest"),
        (head(Content_Type="a/b", Content_Length="-1"), 400, "MalformedRequest"),
        (head(Content_Type="a/b", Content_Length="3", Transfer_Encoding="chunked"), 400, "MalformedRequest"),
        (head(Content_Type="a/b", Transfer_Encoding="chunked") + b"zz\r\nabc\r\n", 400, "MalformedRequest"),
    ],
)
def test_a_refusal_is_small_json_that_tells_nothing_else(request_bytes, status, code):
    answered, headers, body, back_end = ask(request_bytes)

    assert (answered, code_of(body)) == (status, code)
    assert headers["content-type"] == "application/json"
    assert len(body) < 300
    assert b"secret" not in body
    assert b"Traceback" not in body
    assert back_end.requests == []


def test_a_wrong_method_names_the_right_one():
    assert ask(head("GET", "/invocations"))[1]["allow"] == "POST"
    assert ask(head("POST", "/ping"))[1]["allow"] == "GET"


def test_no_library_version_is_told():
    for request in (head("GET", "/ping"), head("GET", "/nope"), b"NOT HTTP\r\n\r\n", post(b"abc")):
        assert ask(request)[1]["server"] == "sagemaker-monai"


def test_a_chunked_body_over_the_limit_is_refused_and_the_client_reads_why():
    chunk = b"40000\r\n" + b"x" * 0x40000 + b"\r\n"  # a quarter of a MiB

    status, _, body, back_end = ask(head(Content_Type="a/b", Transfer_Encoding="chunked"), *[chunk] * 5, b"0\r\n\r\n")

    assert (status, code_of(body)) == (413, "PayloadTooLarge")
    assert back_end.requests == []


def test_a_body_of_exactly_the_limit_is_taken():
    assert ask(post(b"x" * MIB))[2] == b"%d bytes" % MIB


def test_a_refused_body_does_not_spoil_the_connection():
    async def scenario(connect, back_end, gateway):
        client = await connect()
        await client.send(post(b"x" * (MIB + 1)), post(b"abc"))
        answers = [await client.response(), await client.response()]
        return [(status, body[:9]) for status, _, body in answers]

    assert run(scenario) == [(413, b'{"error":'), (200, b"3 bytes")]


def test_bodies_in_memory_are_limited_all_together(monkeypatch):
    monkeypatch.setattr(module, "MIN_HELD_BYTES", 0)  # then twice the largest body

    async def scenario(connect, back_end, gateway):
        back_end.gate.clear()
        clients = [await connect() for _ in range(3)]
        for client in clients[:2]:
            await client.send(post(b"x" * MIB))
        while len(back_end.requests) < 2:
            await asyncio.sleep(0.01)
        await clients[2].send(post(b"x"))
        third = await clients[2].response()
        back_end.gate.set()
        others = [(await client.response())[0] for client in clients[:2]]
        await clients[2].send(post(b"x" * 100))
        again = await clients[2].response()
        return third, others, again[0]

    (status, headers, body), others, again = run(scenario)

    assert (status, code_of(body), headers["retry-after"]) == (503, "Overloaded", "1")
    assert (others, again) == ([200, 200], 200)


@pytest.mark.parametrize(("error", "status"), [(Overloaded("x"), 503), (Timeout("x"), 504), (WorkerDied("x"), 500)])
def test_what_the_back_end_raises_becomes_its_status_and_code(error, status):
    answered, headers, body, _ = ask(post(b"abc"), prepare=lambda back_end: setattr(back_end, "error", error))

    assert (answered, code_of(body)) == (status, type(error).__name__)
    assert vars(errors)[type(error).__name__].status == status
    assert ("retry-after" in headers) == isinstance(error, Overloaded)


def test_a_fault_of_ours_is_a_500_without_details(caplog):
    fault = ValueError("secret")

    status, _, body, _ = ask(post(b"abc"), prepare=lambda back_end: setattr(back_end, "error", fault))

    assert (status, code_of(body)) == (500, "InternalError")
    assert b"secret" not in body
    assert "secret" in caplog.text


def test_a_slow_body_is_ended_with_408(monkeypatch):
    monkeypatch.setattr(module, "BODY_PAUSE_S", 0.1)

    status, _, body, _ = ask(head(Content_Type="a/b", Content_Length="10") + b"abc")

    assert (status, code_of(body)) == (408, "RequestTimeout")


def test_a_connection_that_never_sends_a_request_is_closed(monkeypatch):
    monkeypatch.setattr(json_server, "HEADER_TIMEOUT_S", 0.2)

    async def scenario(connect, back_end, gateway):
        silent, slow = await connect(), await connect()
        await slow.send(b"GET /ping HTTP/1.1\r\nHost:")
        return await silent.is_closed(), await slow.is_closed()

    assert run(scenario) == (True, True)


def test_a_client_that_leaves_inside_its_body_harms_nobody():
    async def scenario(connect, back_end, gateway):
        leaving = await connect()
        await leaving.send(head(Content_Type="a/b", Content_Length="10") + b"abc")
        await asyncio.sleep(0.05)
        leaving.close()
        client = await connect()
        await client.send(post(b"abc"))
        response = await client.response()
        await asyncio.wait_for(gateway.drain(600), 60)  # the other is no longer in flight
        return response[0], [request.body for request in back_end.requests]

    assert run(scenario) == (200, [b"abc"])


def test_work_for_a_client_that_left_is_dropped():
    async def scenario(connect, back_end, gateway):
        leaving = await in_flight(connect, back_end)
        leaving.close()
        await asyncio.wait_for(gateway.drain(600), 60)  # the back end would not answer before its gate opens
        return back_end.gate.is_set()

    assert run(scenario) is False


async def in_flight(connect, back_end):
    """A client whose request the back end has, and answers when its gate opens."""
    back_end.gate.clear()
    client = await connect()
    await client.send(post(b"abc"))
    while not back_end.requests:
        await asyncio.sleep(0.01)
    return client


def test_draining_finishes_what_is_in_flight_and_refuses_the_rest():
    async def scenario(connect, back_end, gateway):
        first = await in_flight(connect, back_end)
        draining = asyncio.create_task(gateway.drain(10))
        await asyncio.sleep(0)
        late = await connect()
        await late.send(post(b"late"))
        refused = await late.response()
        pinging = await connect()
        await pinging.send(head("GET", "/ping"))
        ping = await pinging.response()
        assert not draining.done()
        back_end.gate.set()
        await draining
        answered = await first.response()
        return refused, ping, answered

    refused, ping, answered = run(scenario)

    assert (refused[0], code_of(refused[2]), refused[1]["connection"]) == (503, "Unavailable", "close")
    assert ping[0] == 503
    assert answered[0] == 200


def test_draining_ends_in_time_whatever_is_in_flight():
    async def scenario(connect, back_end, gateway):
        await in_flight(connect, back_end)
        await asyncio.wait_for(gateway.drain(0.1), 60)
        back_end.gate.set()

    run(scenario)


def test_the_log_has_a_line_a_request_and_nothing_of_its_content(caplog):
    caplog.set_level(logging.INFO, "sagemaker_monai")

    ask(post(b"private", X_Amzn_SageMaker_Custom_Attributes="private", Accept="private/private"))
    ask(head("GET", "/private?private=private"))

    lines = [record.getMessage() for record in caplog.records]
    assert [line.split()[:2] for line in lines] == [["/invocations", "200"], ["other", "404"]]
    assert "private" not in caplog.text


def test_a_content_type_that_is_not_ascii_is_passed_on_as_question_marks():
    _, _, _, back_end = ask(head(Content_Type="image/\N{LATIN SMALL LETTER E WITH ACUTE}", Content_Length="1") + b"x")

    assert back_end.requests[0].content_type.encode("ascii").startswith(b"image/?")
