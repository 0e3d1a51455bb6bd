"""Functions for worker processes in tests; a separate module, because it imports fast."""

import os
import time


def double(item):
    if item == "crash":
        os._exit(11)
    if item == "hang":
        time.sleep(300)
    return item * 2


def given_up(item):
    return f"gave up {item}"
