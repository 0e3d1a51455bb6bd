"""`train`: hyperparameters and channels in, model artifact and report out, or one line in the failure file.

Places are SageMaker's: `SM_*` where the environment sets them, else the /opt/ml tree, which `SAGEMAKER_BASE_DIR` moves.
In the image the training toolkit calls `run_in_toolkit`; everywhere else `main` is the command itself.
"""

import errno
import json
import logging
import os
import shutil
import signal
import sys
import tempfile
import textwrap
import threading
import traceback
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sagemaker_monai.config import TrainConfig, hyperparameter_rows
from sagemaker_monai.entrypoints.environment import library_defaults
from sagemaker_monai.errors import CallerError, ConfigError, failure_line

PLACES = {
    "SAGEMAKER_BASE_DIR": "the tree of all other places, default /opt/ml",
    "SM_HPS": "hyperparameters as a JSON object, default <base>/input/config/hyperparameters.json",
    "SM_CHANNEL_<NAME>": "folder of an input channel, default every folder in <base>/input/data",
    "SM_MODEL_DIR": "where the artifact goes, default <base>/model",
    "SM_OUTPUT_DIR": "where the failure file goes, default <base>/output",
    "SM_OUTPUT_DATA_DIR": "where metrics, history and predictions go, default <base>/output/data",
    "TMPDIR": "where decoded images are kept while training",
}
CHANNEL_PREFIX = "SM_CHANNEL_"
# What is wrong with a place and not with the program.
FAULTS_OF_PLACES = frozenset({errno.EACCES, errno.EDQUOT, errno.EIO, errno.ENOSPC, errno.EPERM, errno.EROFS})

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Places:
    """Where a job reads and writes."""

    base: Path
    model: Path
    output: Path
    output_data: Path

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> "Places":
        """Read the places; nothing is created."""
        base = Path(environment.get("SAGEMAKER_BASE_DIR") or "/opt/ml")
        output = Path(environment.get("SM_OUTPUT_DIR") or base / "output")
        return cls(
            base=base,
            model=Path(environment.get("SM_MODEL_DIR") or base / "model"),
            output=output,
            output_data=Path(environment.get("SM_OUTPUT_DATA_DIR") or output / "data"),
        )


def main(argv: Sequence[str] | None = None) -> int:
    """Run one training job.

    Args:
        argv: arguments of the command; None takes those of this process.

    Returns:
        The exit code: 0 when the artifact is complete, 1 when the failure file says why not.
    """
    return 0 if _run(list(sys.argv[1:] if argv is None else argv)) is None else 1


def run_in_toolkit() -> None:
    """What SAGEMAKER_TRAINING_MODULE names in the image.

    The toolkit ignores what the function returns and calls SystemExit a success; it leaves the process with the code 1
    and our line in the failure file only for its own ClientError.
    """
    from sagemaker_training.errors import ClientError

    failure = _run([])
    sys.stdout.flush()
    if failure is not None:
        raise ClientError(failure)


def _run(argv: list[str]) -> str | None:
    """One job; the failure line, or None when it succeeded."""
    if "--help" in argv or "-h" in argv:
        print(help_text(shutil.get_terminal_size().columns))
        return None
    logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(message)s")
    places = Places.from_environment(os.environ)
    try:
        (places.output / "failure").unlink(missing_ok=True)
        _train(argv, places, os.environ)
    except CallerError as error:
        return _report_failure(error, places)
    except Exception as error:
        traceback.print_exc()
        return _report_failure(_explained(error), places)
    return None


def _report_failure(error: Exception, places: Places) -> str:
    line = failure_line(error)
    print(line, file=sys.stderr, flush=True)
    try:
        places.output.mkdir(parents=True, exist_ok=True)
        (places.output / "failure").write_text(line, encoding="utf-8")
    except OSError as fault:
        print(f"the failure file cannot be written ({fault.strerror}); see SM_OUTPUT_DIR", file=sys.stderr, flush=True)
    return line


def _explained(error: Exception) -> Exception:
    """Too little GPU memory and a place that is full or closed are what the caller can change; the rest stays a bug."""
    if type(error).__name__ == "OutOfMemoryError":
        return ConfigError("the GPU has too little memory: lower batch_size or image_size, or take a larger GPU")
    if isinstance(error, OSError) and error.errno in FAULTS_OF_PLACES:
        return ConfigError(
            f"a file cannot be read or written ({error.strerror}): make room or give access, or set SM_MODEL_DIR, "
            "SM_OUTPUT_DIR, SM_OUTPUT_DATA_DIR or TMPDIR to another place"
        )
    return error


def help_text(width: int) -> str:
    """Usage, every hyperparameter with its default, and every environment variable, wrapped to a terminal."""
    lines = ["usage: train [--name value | --name=value] ...", "", "hyperparameters:"]
    for name, values, default, text in hyperparameter_rows():
        lines.append(f"  --{name.replace('_', '-')} (default {default})")
        lines += textwrap.wrap(
            f"{text}: {values}", max(40, width - 6), initial_indent=" " * 6, subsequent_indent=" " * 6
        )
    lines += ["", "environment:"]
    for name, text in PLACES.items():
        lines.append(f"  {name}")
        lines += textwrap.wrap(text, max(40, width - 6), initial_indent=" " * 6, subsequent_indent=" " * 6)
    return "\n".join(lines)


def read_hyperparameters(argv: Sequence[str], places: Places, environment: Mapping[str, str]) -> dict[str, Any]:
    """Hyperparameters as they are given: SM_HPS or else the file, and over them the command line.

    Raises:
        ConfigError: no JSON object, or an argument that is not `--name value`.
    """
    file = places.base / "input" / "config" / "hyperparameters.json"
    source, text = "SM_HPS", environment.get("SM_HPS")
    if text is None and file.is_file():
        source, text = file.name, file.read_text(encoding="utf-8-sig", errors="replace")
    try:
        given = json.loads(text or "{}")
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{source} is not JSON: give an object of names and values") from error
    if not isinstance(given, dict):
        raise ConfigError(f"{source} must be a JSON object of names and values, got {type(given).__name__}")
    by_name = {str(name).replace("-", "_"): name for name in given}
    for name, value in _parse_arguments(argv):
        given.pop(by_name.get(name, name), None)
        given[name] = value
        by_name[name] = name
    return given


def _parse_arguments(argv: Sequence[str]) -> Iterator[tuple[str, str]]:
    remaining = list(argv)
    while remaining:
        argument = remaining.pop(0)
        if not argument.startswith("--") or argument == "--":
            raise ConfigError(f"unexpected argument {argument[:40]!r}: write --name value, see train --help")
        name, equals, value = argument.removeprefix("--").partition("=")
        if not equals:
            if not remaining or remaining[0].startswith("--"):
                raise ConfigError(f"--{name[:40]} has no value: write --{name[:40]} value, see train --help")
            value = remaining.pop(0)
        yield name.replace("-", "_"), value


def read_channels(places: Places, environment: Mapping[str, str]) -> dict[str, Path]:
    """Name and folder of every channel."""
    named = {
        name.removeprefix(CHANNEL_PREFIX).lower(): Path(value)
        for name, value in environment.items()
        if name.startswith(CHANNEL_PREFIX) and value
    }
    folder = places.base / "input" / "data"
    if named or not folder.is_dir():
        return named
    return {path.name: path for path in sorted(folder.iterdir()) if path.is_dir() and not path.name.startswith(".")}


def _make_folders(places: Places) -> None:
    for folder, variable in ((places.model, "SM_MODEL_DIR"), (places.output_data, "SM_OUTPUT_DATA_DIR")):
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=folder):
                pass
        except OSError as error:
            raise ConfigError(
                f"a folder cannot be written ({error.strerror}): set {variable} or SAGEMAKER_BASE_DIR to one that can"
            ) from error


@contextmanager
def _stop_on_signal() -> Iterator[threading.Event]:
    """An event that SIGTERM sets, 120 s before SageMaker kills, and Ctrl-C; a second Ctrl-C ends at once.

    A second SIGTERM changes nothing: a launcher may pass on the one that the whole group of processes got already.
    """
    event = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield event  # signals reach the main thread only
        return
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}

    def stop(number: int, _: object) -> None:
        event.set()
        if number == signal.SIGINT:
            signal.signal(number, before[signal.SIGINT])

    try:
        for number in before:
            signal.signal(number, stop)
        yield event
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _train(argv: Sequence[str], places: Places, environment: Mapping[str, str]) -> None:
    config = TrainConfig.parse(read_hyperparameters(argv, places, environment))
    _make_folders(places)
    if config.deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # cuBLAS reads it when it starts and asks for it
    os.environ.update(library_defaults(os.environ))
    # Only now: these imports take seconds, and a wrong hyperparameter should not.
    from sagemaker_monai.entrypoints.job import run_job

    with _stop_on_signal() as stopping, tempfile.TemporaryDirectory(prefix="sagemaker-monai-") as cache:
        run_job(
            config,
            read_channels(places, environment),
            model_dir=places.model,
            output_data_dir=places.output_data,
            cache_dir=Path(cache),
            is_stopping=stopping.is_set,
        )


if __name__ == "__main__":
    sys.exit(main())
