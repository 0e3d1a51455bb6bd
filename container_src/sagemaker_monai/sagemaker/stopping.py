"""How a job hears that it shall stop: SIGTERM, 120 s before SageMaker kills, or Ctrl-C."""

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

SIGNALS = (signal.SIGTERM, signal.SIGINT)


@contextmanager
def stop_on_signal(saying: str = "stopping after this step, saving what there is") -> Iterator[threading.Event]:
    """An event that SIGTERM and Ctrl-C set; a line says at once that they were heard. A second Ctrl-C ends at once.

    A second SIGTERM changes nothing: a launcher may pass on the one that the whole group of processes got already.
    Python runs signal handlers between two operations of the main thread, which may be seconds apart while it trains.
    So a thread of its own reads the numbers that the system's side of the handler writes into a pipe.

    Args:
        saying: what the line says that is done now.
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
