"""Stops a job on SIGTERM, which SageMaker sends 120 s before it kills, or on Ctrl-C."""

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

SIGNALS = (signal.SIGTERM, signal.SIGINT)


@contextmanager
def stop_on_signal(saying: str = "stopping after this step, saving what there is") -> Iterator[threading.Event]:
    """An event that SIGTERM and Ctrl-C set; prints `saying` at once. A second Ctrl-C ends the process.

    A second SIGTERM changes nothing: a launcher may pass on a signal that the whole process group has already got.
    Python runs signal handlers between two operations of the main thread, which may be seconds apart in training. So
    a separate thread reads the signal numbers that Python's C handler writes into a pipe.
    """
    event = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield event  # signals reach the main thread only
        return
    before = {number: signal.getsignal(number) for number in SIGNALS}

    def handle(number: int, _: object) -> None:
        event.set()
        if number == signal.SIGINT:
            signal.signal(number, before[signal.SIGINT])

    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    listener = threading.Thread(target=_listen, args=(reading, event, saying), name="signals", daemon=True)
    listener.start()
    wakeup = signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
    try:
        for number in SIGNALS:
            signal.signal(number, handle)
        yield event
    finally:
        signal.set_wakeup_fd(wakeup)
        for number, handler in before.items():
            signal.signal(number, handler)
        os.close(writing)
        listener.join()
        os.close(reading)


def _listen(descriptor: int, event: threading.Event, saying: str) -> None:
    """Read the numbers of signals until the other end closes."""
    is_said = False
    while numbers := os.read(descriptor, 16):
        if is_said or not set(numbers) & set(SIGNALS):
            continue
        event.set()
        is_said = True
        name = signal.Signals(numbers[0]).name
        print(f"{name}: {saying} ...", file=sys.stderr, flush=True)
