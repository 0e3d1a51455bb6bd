"""What bounds the work on one batch: its time and its lines of log."""

import contextlib
import logging
import time

import pytest

from sagemaker_monai.serving.back_end import Request, Response
from sagemaker_monai.serving.time_limits import Alarm, LogBudget, OutOfTime, Respond

ANSWER = Response(200, "text/plain", b"answer")


@pytest.fixture
def log():
    """Collects what a handler with a budget would write, without Python's own handlers."""
    lines = []
    handler = logging.Handler()
    handler.emit = lambda record: lines.append(handler.format(record))
    budget = LogBudget()
    handler.addFilter(budget)
    logger = logging.Logger("one request")
    logger.addHandler(handler)
    return logger, budget, lines


@pytest.fixture(autouse=True)
def usual_warnings():
    yield
    logging.captureWarnings(False)


def deep(level):
    if level == 0:
        raise ValueError("x" * 300)
    deep(level - 1)


def test_a_request_costs_less_than_a_kilobyte_of_log_whatever_it_does(log):
    logger, budget, lines = log

    with budget.of(1):
        for _ in range(50):
            try:
                deep(200)
            except ValueError:
                logger.exception("a request could not be answered")
        logger.error("%s", "\N{GREEK SMALL LETTER ALPHA}" * 5_000)

    assert 0 < sum(len(line.encode()) + 1 for line in lines) <= 1_000
    assert lines[0].startswith("a request could not be answered")
    assert lines[0].endswith("x" * 300)  # the cause stands at a traceback's end


def test_short_lines_and_those_of_others_are_written_whole(log):
    logger, budget, lines = log

    with budget.of(1):
        logger.info("a %s line", "short")
    logger.info("y" * 5_000)

    assert lines == ["a short line", "y" * 5_000]


def test_work_that_does_not_end_is_refused_and_what_follows_is_answered():
    def respond(requests):
        while requests[0].body == b"endless":
            pass
        return [ANSWER]

    respond_in_time = Respond(respond, after_first=lambda: None)

    [refused] = respond_in_time([Request(b"endless", "text/plain")], 0.05)

    assert refused.status == 504
    assert b'"Timeout"' in refused.body
    assert respond_in_time([Request(b"x", "text/plain")], 60) == [ANSWER]


def test_a_reader_that_catches_everything_is_ended_all_the_same(monkeypatch):
    monkeypatch.setattr("sagemaker_monai.serving.time_limits.TIMES_UP_AGAIN_S", 0.05)
    caught = []

    def swallow():
        while True:
            try:
                while True:
                    pass
            except BaseException as error:
                caught.append(error)
                if len(caught) == 3:
                    raise

    with pytest.raises(OutOfTime):
        Alarm().call(swallow, 0.05)
    assert len(caught) == 3


def test_after_the_work_nothing_rings():
    alarm = Alarm()

    for _ in range(2_000):
        with contextlib.suppress(OutOfTime):
            alarm.call(lambda: None, 0.0)
    time.sleep(0.01)
