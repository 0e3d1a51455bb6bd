"""Limits on the time and the log lines of one batch of requests.

Both are safety nets: readers estimate the cost of a file before they decode it, and refuse it with the cause. At the
time limit the callers are told that there is no answer, so further work is useless. An exception in the main thread
ends it, and the model stays loaded. If native code does not return in time, the supervisor replaces the process some
seconds later.
"""

import json
import logging
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from sagemaker_inference import content_types

from sagemaker_monai.budget import until
from sagemaker_monai.errors import Timeout, error_body
from sagemaker_monai.serving.back_end import Request, Response

logger = logging.getLogger(__name__)

TIMES_UP_AGAIN_S = 1.0  # the exception is raised again, because a callback of native code may lose it
LOG_BYTES = 700  # per request: less than 1 kB with the gateway's line and the prefix of each line
CUT = " ..."
T = TypeVar("T")


class OutOfTime(BaseException):
    """The time is up; not a subclass of Exception, which readers of files catch."""


class Alarm:
    """Raises OutOfTime in the main thread, in which it must be made and used."""

    def __init__(self) -> None:
        self._is_set = False
        signal.signal(signal.SIGALRM, self._ring)

    def _ring(self, *_: object) -> None:
        if self._is_set:
            raise OutOfTime

    def call(self, function: Callable[[], T], time_s: float) -> T:
        """Call a function.

        Raises:
            OutOfTime: it did not return within `time_s` of wall time.
        """
        try:
            self._is_set = True
            signal.setitimer(signal.ITIMER_REAL, max(time_s, 0.001), TIMES_UP_AGAIN_S)
            return function()
        finally:
            while self._is_set:
                try:
                    self._is_set = False
                    signal.setitimer(signal.ITIMER_REAL, 0)
                except OutOfTime:
                    self._is_set = True


class LogBudget(logging.Filter):
    """Limits what a batch of requests writes to the log; no limit between batches and at level DEBUG."""

    def __init__(self) -> None:
        super().__init__()
        self._left: int | None = None

    @contextmanager
    def of(self, requests: int) -> Iterator[None]:
        """Apply the limit while so many requests are answered."""
        self._left = None if logging.getLogger().isEnabledFor(logging.DEBUG) else LOG_BYTES * requests
        try:
            yield
        finally:
            self._left = None

    def filter(self, record: logging.LogRecord) -> bool:
        """Let a record pass as text, cut to the bytes that are left."""
        if self._left is None:
            return True
        text = _FORMATTER.format(record).encode("utf-8", "backslashreplace")
        if self._left <= len(CUT):
            return False
        if len(text) > self._left:  # the end of a traceback says more than its beginning
            first = text.split(b"\n", 1)[0][: self._left // 2]
            rest = self._left - len(first) - len(CUT)
            text = first + CUT.encode() + (text[-rest:] if b"\n" in text and rest > 0 else b"")
        self._left -= len(text)
        record.msg, record.args = text.decode(errors="replace"), ()
        record.exc_info = record.exc_text = record.stack_info = None
        return True

    def install(self) -> None:
        """Filter what the root logger's handlers write, and what Python's warnings say."""
        logging.captureWarnings(True)
        for handler in logging.getLogger().handlers:
            handler.addFilter(self)


class Respond:
    """`RequestHandler.respond` within the limits; made in the main thread, once per process.

    Args:
        respond: answers a batch.
        after_first: called once, after the first batch, which is the warm-up.
    """

    def __init__(self, respond: Callable[[list[Request]], list[Response]], after_first: Callable[[], None]) -> None:
        self._respond = respond
        self._after_first: Callable[[], None] | None = after_first
        self._alarm = Alarm()
        self._log = LogBudget()
        self._log.install()

    def __call__(self, requests: list[Request], time_s: float) -> list[Response]:
        """Answer a batch; refuse all of it if it is not done after `time_s`."""
        try:
            with self._log.of(len(requests)), until(time_s):
                responses = self._alarm.call(lambda: self._respond(requests), time_s)
        except OutOfTime:
            logger.error("ended after %.1f s: the callers have left", time_s)
            told = error_body(Timeout.__name__, "no answer within the time that a request may take")
            responses = [Response(Timeout.status, content_types.JSON, json.dumps(told).encode())] * len(requests)
        if self._after_first is not None:
            self._after_first()
            self._after_first = None
        return responses


_FORMATTER = logging.Formatter("%(message)s")
