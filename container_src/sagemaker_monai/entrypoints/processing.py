"""The way from the arguments of a command to its exit code and failure message.

SageMaker shows the first 1,024 bytes of /opt/ml/output/message as ExitMessage of a processing job, and counts it as
failed when its exit code is not 0. Without such a folder the line goes to standard error only.

Source: SageMaker developer guide, "Save and access metadata information about your processing job".
"""

import argparse
import logging
import os
import signal
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NoReturn

from sagemaker_monai.entrypoints.train import explained
from sagemaker_monai.errors import CallerError, ConfigError, failure_line
from sagemaker_monai.messages.item_names import masked_output
from sagemaker_monai.sagemaker.inputs import base_folder

MESSAGE_BYTES = 1024
INTERRUPTED = "the command was interrupted: run it again"
OTHER_PLACES = "make room or give access, or name other places"


class Parser(argparse.ArgumentParser):
    """An argument parser that raises our own error, so that the message of the job has it."""

    def error(self, message: str) -> NoReturn:
        """Refuse the arguments."""
        raise ConfigError(f"{message}; see {self.prog} --help")


def run_command(
    make_parser: Callable[[], Parser], work: Callable[[argparse.Namespace], None], argv: Sequence[str] | None
) -> int:
    """Run a command.

    Args:
        make_parser: called where its errors are reported too.
        work: takes the parsed options and raises what is wrong.
        argv: arguments of the command; None takes those of this process.

    Returns:
        The exit code: 0, or 1 with the cause in one line on standard error and in the message of the job.
    """
    with masked_output(), _interrupted_by_sigterm():
        logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(message)s")
        base = base_folder(os.environ)
        try:
            if base.is_dir():
                (base / "output" / "message").unlink(missing_ok=True)
            work(make_parser().parse_args(argv))
        except CallerError as error:
            return _report(failure_line(error), base)
        except KeyboardInterrupt:
            return _report(INTERRUPTED, base)
        except Exception as error:
            fault = explained(error, OTHER_PLACES)
            if not isinstance(fault, CallerError):
                traceback.print_exc()
            return _report(failure_line(fault), base)
        return 0


@contextmanager
def _interrupted_by_sigterm() -> Iterator[None]:
    """SIGTERM does not end process 1 of a container unless it has a handler. Every command can be repeated."""
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _report(line: str, base: Path) -> int:
    print(line, file=sys.stderr, flush=True)
    if base.is_dir():
        try:
            (base / "output").mkdir(exist_ok=True)
            # Cut between characters: SageMaker hides a message that is not UTF-8.
            (base / "output" / "message").write_bytes(line.encode()[:MESSAGE_BYTES].decode(errors="ignore").encode())
        except OSError as fault:
            print(f"the message file cannot be written ({fault.strerror})", file=sys.stderr, flush=True)
    return 1
