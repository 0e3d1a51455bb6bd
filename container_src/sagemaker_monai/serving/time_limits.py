"""What one batch of requests may cost the process that works on it: time and lines of log.

Both are nets: the readers count what a file costs before they decode it, and refuse it with the cause. Time is that of
the callers, who are told at its end that there is no answer; work that goes on then is of use to nobody. It is ended by
an exception in the main thread, so the model stays loaded. Native code that does not return in time is not ended so:
the supervisor replaces the process some seconds later.
"""

import json
import logging
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from sagemaker_inference import content_types

from sagemaker_monai.errors import Timeout, error_body
from sagemaker_monai.serving.back_end import Request, Response

logger = logging.getLogger(__name__)

TIMES_UP_AGAIN_S = 1.0  # where the exception was lost, as in a callback of native code, it is raised again
LOG_BYTES = 700  # of a request: with the gateway's line and what stands before each line, less than 1 kB
CUT = " ..."
T = TypeVar("T")


class OutOfTime(BaseException):
    """The callers have left; no subclass of Exception, which readers of files catch."""


class Alarm:
    """Raises OutOfTime in the main thread, where it must be made and used."""

    def __init__(self) -> None:
        self._is_set = False
        signal.signal(signal.SIGALRM, self._ring)

    def _ring(self, *_: object) -> None:
        if self._is_set:
            raise OutOfTime

    def call(self, function: Callable[[], T], time_s: float) -> T:
        """Call a function, and end it when it has not returned after `time_s` of wall time.

        Raises:
            OutOfTime: it was ended.
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
    """Cuts what a batch of requests writes to the log; unlimited between batches, and where the level is DEBUG."""

    def __init__(self) -> None:
        super().__init__()
        self._left: int | None = None

    @contextmanager
    def of(self, requests: int) -> Iterator[None]:
        """While these many requests are answered."""
        self._left = None if logging.getLogger().isEnabledFor(logging.DEBUG) else LOG_BYTES * requests
        try:
            yield
        finally:
            self._left = None

    def filter(self, record: logging.LogRecord) -> bool:
        """Let a record pass, as text and no longer than what is left."""
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
    """`RequestHandler.respond` within its limits; made in the main thread, once a process.

    Args:
        respond: answers a batch, and may take as long as it likes.
        after_first: called once, when the first batch, which is the warm-up, is answered.
    """

    def __init__(
        self, respond: Callable[[list[Request]], list[Response]], after_first: Callable[[], None] = lambda: None
    ) -> None:
        self._respond = respond
        self._after_first: Callable[[], None] | None = after_first
        self._alarm = Alarm()
        self._log = LogBudget()
        self._log.install()

    def __call__(self, requests: list[Request], time_s: float) -> list[Response]:
        """Answer a batch; all of it is refused when it is not done after `time_s`."""
        try:
            with self._log.of(len(requests)):
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
