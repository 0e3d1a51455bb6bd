"""Servers that are busy, broken, wrong or hostile: asked again, or refused with a cause and a remedy."""

import email.utils
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time

import pytest

from sagemaker_monai.dicomweb import retrieve as dicomweb_retrieve
from sagemaker_monai.dicomweb import transport as dicomweb_http
from sagemaker_monai.errors import DatasetError, Unavailable
from tests.support.fake_dicomweb import (
    STUDY,
    always,
    digests,
    instance,
    make_series,
    multipart,
    once,
    record,
    run,
    serving,
)

SERIES = "1.2.3.1"


ONE_SERIES = f"/studies/{STUDY}/series/{SERIES}"
ONE_INSTANCE = f"{ONE_SERIES}/instances/.*"


def refused(folder, series, answer, error, message):
    """Run against a server that has to be given up; the requests that it got, and the refusal."""
    with serving(series, answer) as server, pytest.raises(error, match=message) as caught:
        run(server.root, folder / "out")
    return server.asked, str(caught.value)


@pytest.mark.parametrize(
    ("route", "status"),
    [*(("/series", status) for status in (408, 429, 500, 502, 503, 504)), (ONE_SERIES, 503),
     (f"{ONE_SERIES}/instances", 503)],
)  # fmt: skip
def test_a_busy_server_is_asked_again(tmp_path, status, route):
    with serving(
        {SERIES: make_series(SERIES, 3)}, once(route, lambda handler: handler.answer(status, b"no"))
    ) as server:
        assert "3 fetched (" in run(server.root, tmp_path / "out")

    assert server.asked.count(route) == (3 if route == "/series" else 2)  # a search ends with an empty page


@pytest.mark.parametrize("retry_after", ["1", lambda: email.utils.formatdate(time.time() + 2, usegmt=True)])
def test_retry_after_is_honoured_as_seconds_and_as_a_date(tmp_path, retry_after):
    moments = []

    def answer(handler):
        text = retry_after if isinstance(retry_after, str) else retry_after()
        moments.append(time.monotonic())
        handler.answer(429, b"", Retry_After=text)

    with serving({SERIES: make_series(SERIES, 1)}, once("/series", answer)) as server:
        run(server.root, tmp_path / "out")

    assert time.monotonic() - moments[0] >= 1.0


def test_a_server_that_wants_to_be_left_alone_for_long_is_given_up(tmp_path):
    busy = always("/series", lambda handler: handler.answer(503, b"", Retry_After="86400"))

    asked, _ = refused(tmp_path, {}, busy, Unavailable, "in 86400 s to continue where")
    assert len(asked) == 1


def test_a_server_that_stays_broken_is_given_up_after_some_tries(tmp_path):
    broken = always("/series", lambda handler: handler.answer(500, b"secret trace"))

    asked, _ = refused(tmp_path, {}, broken, Unavailable, r"busy or failing \(500\); run the same command later")
    assert len(asked) == dicomweb_http.ATTEMPTS


def test_nobody_at_the_address_is_said(tmp_path):
    with pytest.raises(Unavailable, match="the connection to the server failed or broke; run the same command later"):
        run("http://127.0.0.1:9/dicom-web", tmp_path / "out")


def test_a_body_that_is_cut_off_within_an_instance_is_not_taken_for_a_whole_one(tmp_path):
    series = make_series(SERIES, 4)
    body = multipart(series.values())
    half = body.index(list(series.values())[2]) + 300

    with serving({SERIES: series}, once(ONE_SERIES, lambda handler: handler.cut(body[:half]))) as server:
        run(server.root, tmp_path / "out")

    assert len(digests(tmp_path / "out")) == 4
    assert sum("/instances/" in route for route in server.asked) == 2
    assert server.asked.count(ONE_SERIES) == 1


def test_a_server_that_breaks_off_always_is_given_up_and_what_came_is_kept(tmp_path):
    series = make_series(SERIES, 3)
    first, *_rest = series.values()
    body = multipart([first], is_closed=False) + b"--the-boundary\r\n\r\nhalf"

    def broken(handler):
        if "/instances/" in handler.route:
            handler.cut(b"--the-boundary\r\n\r\nhalf")
        elif handler.route == ONE_SERIES:
            handler.cut(body)
        else:
            return False
        return True

    with serving({SERIES: series}, broken) as server:
        with pytest.raises(Unavailable, match="cut off; run the same command later to continue where it stopped"):
            run(server.root, tmp_path / "out")
        assert len(digests(tmp_path / "out")) == 1
        server.first = lambda handler: False
        assert "2 fetched (" in run(server.root, tmp_path / "out")
    assert not list((tmp_path / "out").rglob("*.part"))


def test_a_content_length_that_is_not_kept_is_a_break(tmp_path):
    series = make_series(SERIES, 1)

    def short(handler):
        handler.send_response(200)
        handler.send_header("Content-Type", "application/dicom")
        handler.send_header("Content-Length", "100000")
        handler.send_header("Connection", "close")
        handler.end_headers()
        handler.wfile.write(next(iter(series.values())))
        handler.close_connection = True

    with serving({SERIES: series}, once(ONE_INSTANCE, short)) as server:
        run(server.root, tmp_path / "out")
    assert sum("/instances/" in route for route in server.asked) == 2


OTHER = instance("1.2.3.9", 1)[1]
ELSEWHERE = instance(SERIES, 1, study="1.9")[1]
RELATED = "multipart/related; boundary=b"
FAULTS = {
    "another series": (lambda handler, own: handler.parts([OTHER]), "not requested, or of another study or series"),
    "another study": (lambda handler, own: handler.parts([ELSEWHERE]), "not requested, or of another study or series"),
    "not listed": (lambda handler, own: handler.parts([instance(SERIES, 77)[1]]), "it does not list, or one twice"),
    "twice": (lambda handler, own: handler.parts([own[0], own[0], own[1]]), "it does not list, or one twice"),
    "no DICOM": (lambda handler, own: handler.parts([b"<html>" * 100]), "not a valid DICOM file"),
    "empty part": (lambda handler, own: handler.parts([b""]), "not a valid DICOM file"),
    "broken DICOM": (lambda handler, own: handler.parts([own[0][:200]]), "not a valid DICOM file|another study"),
    "a page": (lambda handler, own: handler.answer(200, b"<html>", Content_Type="text/html"), "not multipart/related"),
    "no boundary": (
        lambda handler, own: handler.answer(200, b"", Content_Type="multipart/related"), "not multipart/related",
    ),
    "bad boundary": (lambda handler, own: handler.whole(b"", "x" * 200), "boundary"),
    "long header": (lambda handler, own: handler.whole(b"--b\r\nX: " + b"x" * 99_999, "b"), "longer than 16384"),
    "wrong length": (
        lambda handler, own: handler.whole(b"--b\r\nContent-Length: 5\r\n\r\n" + own[0] + b"\r\n--b--", "b"),
        "length of an instance differs from its header",
    ),
    "compressed": (
        lambda handler, own: handler.answer(200, b"", Content_Type=RELATED, Content_Encoding="gzip"),
        "compressed answer, which was not requested",
    ),
    "nothing": (lambda handler, own: handler.answer(204, b""), "sends nothing for an instance that it lists"),
    "one without its end": (lambda handler, own: handler.cut(own[0], content_type="application/dicom"), "out a length"),
    "teapot": (lambda handler, own: handler.answer(418, b""), "HTTP status 418"),
}  # fmt: skip


@pytest.mark.parametrize("fault", FAULTS)
def test_a_wrong_answer_is_refused_and_does_not_keep_other_series_from_coming(tmp_path, fault):
    answer, message = FAULTS[fault]
    own = make_series(SERIES, 2)
    wrong = always(f"{ONE_SERIES}(/instances/.*)?", lambda handler: answer(handler, list(own.values())))
    good = make_series("1.2.3.2", 2)

    expected = f"1 of 2 series are incomplete .the state file names them.; .*({message})"
    _, text = refused(tmp_path, {SERIES: own, "1.2.3.2": good}, wrong, DatasetError, expected)

    assert set(good) <= set(digests(tmp_path / "out")) <= set(good) | set(own)
    assert not list((tmp_path / "out").rglob("*.part"))
    assert not re.search(r"1\.2\.3|/tmp|Doe|P1", text)
    failed = [json.loads(line) for line in (tmp_path / "out" / "retrieval.jsonl").read_text().splitlines()][-3:]
    assert SERIES in [line.get("failed") for line in failed]


def test_an_instance_larger_than_the_limit_is_refused_while_it_arrives(tmp_path, monkeypatch):
    monkeypatch.setattr(dicomweb_retrieve, "MAX_INSTANCE_BYTES", 5000)
    sent = []

    def endless(handler):
        handler.send_response(200)
        handler.send_header("Content-Type", "multipart/related; boundary=b")
        handler.end_headers()
        handler.close_connection = True
        try:
            handler.wfile.write(b"--b\r\n\r\n")
            for _ in range(10_000):
                handler.wfile.write(bytes(1 << 16))
                sent.append(1)
        except OSError:
            pass

    answer = always(f"{ONE_SERIES}(/instances/.*)?", endless)
    refused(tmp_path, {SERIES: make_series(SERIES, 2)}, answer, DatasetError, "an instance of more than 5000 bytes")
    assert len(sent) < 5_000


def test_a_server_that_drips_is_not_waited_for(tmp_path, monkeypatch):
    monkeypatch.setattr(dicomweb_http, "PACE_S", 0.2)
    monkeypatch.setattr(dicomweb_http, "ATTEMPTS", 1)

    def drip(handler):
        handler.send_response(200)
        handler.end_headers()
        handler.close_connection = True
        try:
            for _ in range(100):
                handler.wfile.write(b" ")
                time.sleep(0.05)
        except OSError:
            pass

    refused(tmp_path, {}, always("/series", drip), Unavailable, "sends too slowly")


def test_a_count_that_differs_from_the_list_is_an_error_after_all_was_fetched(tmp_path):
    series = make_series(SERIES, 2)
    count = always("/series", lambda handler: handler.page([record(study=STUDY, series=SERIES, count=3)]))
    expected = "counts 3 instances in a series and lists 2: if it is still receiving"
    refused(tmp_path, {SERIES: series}, count, DatasetError, expected)

    assert set(digests(tmp_path / "out")) == set(series)


def test_a_listed_instance_that_is_not_sent_is_an_error(tmp_path):
    with serving({SERIES: make_series(SERIES, 2)}) as server:
        gone = next(iter(server.series[SERIES]))

        def hide(handler):
            if handler.route == ONE_SERIES:
                handler.parts(content for uid, content in handler.server.series[SERIES].items() if uid != gone)
                return True
            if handler.route.endswith(gone):
                handler.answer(404, b"")
                return True
            return False

        server.first = hide
        with pytest.raises(DatasetError, match=r"lists an instance that it does not send \(404\)"):
            run(server.root, tmp_path / "out")
    assert len(digests(tmp_path / "out")) == 1


def test_one_series_that_is_not_found_does_not_make_others_slow(tmp_path):
    series = {f"1.2.3.{number}": make_series(f"1.2.3.{number}", 3) for number in (1, 2)}
    with serving(series, once(ONE_SERIES, lambda handler: handler.answer(404, b""))) as server:
        run(server.root, tmp_path / "out", "--parallel=1")

    assert sum("/instances/" in route for route in server.asked) == 3


@pytest.mark.long
def test_ctrl_c_leaves_whole_files_and_ends_at_once(tmp_path):
    quiet = threading.Event()

    def stall(handler):
        handler.cut(multipart(make_series(SERIES, 1).values(), is_closed=False) + b"--the-boundary\r\n\r\nhalf")
        quiet.wait(120)

    code = (
        # A shell that starts something in the background has it ignore the signal.
        "import signal\nsignal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "import argparse, sys\nfrom sagemaker_monai.dicomweb import transfer\nparser = argparse.ArgumentParser()\n"
        "transfer.add_transfer_options(parser)\ntransfer.run(parser.parse_args())"
    )
    with serving({SERIES: make_series(SERIES, 3)}, once(ONE_SERIES, stall)) as server:
        command = [sys.executable, "-c", code, server.root, str(tmp_path / "out")]
        with subprocess.Popen(command, env=os.environ, stderr=subprocess.PIPE) as process:
            end = time.monotonic() + 90
            while not list(tmp_path.rglob("series/*/*.dcm")) and time.monotonic() < end:
                time.sleep(0.02)
            process.send_signal(signal.SIGINT)
            process.wait(60)  # the server is silent for twice as long
            assert b"KeyboardInterrupt" in process.stderr.read()
        quiet.set()
        assert "2 fetched (" in run(server.root, tmp_path / "out")
