"""The back end without containers: processes of `.venv`, each in an /opt/ml of its own.

Limitations: channels are read-only by file modes only (root can still write), /dev/shm is that of the machine, there is
no isolation from network and files, no memory limit, no second host, and nothing outside /opt/ml;
words and values that begin with /opt/ml are moved along.
"""

import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from develop.served import free_port
from simulate.faults import JobError
from simulate.runners import ML, Order, Running, log_file

BIN = Path(sys.executable).parent
ENTRYPOINT = "/usr/local/bin/entrypoint"  # of the image; its commands are in `.venv`, too
COMMANDS = ("train", "serve", "prepare", "evaluate")
# Of this process's environment; a container would not see the rest.
INHERITED = ("PATH", "HOME", "LANG", "LC_ALL", "TMPDIR", "OMP_NUM_THREADS", "PYTHONPATH", "LD_LIBRARY_PATH")


class Process:
    """A command in a session of its own."""

    sees_host = True

    def __init__(self, command: Sequence[str], environment: Mapping[str, str], order: Order, port: int) -> None:
        self.log = log_file(order)
        self.address = ("127.0.0.1", port)
        self._closed = [order.base / path for path in (*order.readonly, *order.only)]
        for path in self._closed:
            _set_writable(path, is_writable=False)
        with self.log.open("wb") as stream:
            self._process = subprocess.Popen(command, env=environment, cwd=order.base, stdin=subprocess.DEVNULL,
                                             stdout=stream, stderr=stream, start_new_session=True)  # fmt: skip

    def code(self) -> int | None:
        """The exit code, 128 + n after signal n, as in a container."""
        code = self._process.poll()
        return code if code is None or code >= 0 else 128 - code

    def terminate(self) -> None:
        """SIGTERM."""
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)

    def remove(self) -> None:
        """Kill the session: a container's processes end with its first one."""
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        while self._closed:
            _set_writable(self._closed.pop(), is_writable=True)


def _set_writable(folder: Path, *, is_writable: bool) -> None:
    for path in (folder, *folder.rglob("*")):
        if not path.is_symlink():
            mode = path.stat().st_mode
            path.chmod(mode | 0o200 if is_writable else mode & ~0o222)


class ProcessRunner:
    """Commands of `.venv`, or others in their place.

    Args:
        programs: what `train`, `serve` and the like mean.
    """

    def __init__(self, programs: Mapping[str, Sequence[str]] | None = None) -> None:
        self._programs = programs or {name: [str(BIN / name)] for name in COMMANDS}
        self._python = {name: [sys.executable] for name in ("python", "python3")}
        self._started: list[Process] = []

    def start(self, orders: Sequence[Order]) -> list[Running]:
        """Start the one process; several hosts need Docker."""
        if len(orders) > 1:
            raise JobError("ClientError: several hosts are not simulated with processes: use the docker back end")
        [order] = orders
        port = free_port() if order.serves else 0
        environment = {name: os.environ[name] for name in INHERITED if name in os.environ}
        environment["PATH"] = f"{BIN}{os.pathsep}{environment.get('PATH', os.defpath)}"
        environment |= {"PYTHONUNBUFFERED": "1", "SAGEMAKER_BASE_DIR": str(order.base)}
        environment |= {name: self._moved(value, order.base) for name, value in order.environment.items()}
        if port:
            environment["SAGEMAKER_BIND_TO_PORT"] = str(port)
        if not (order.entrypoint or order.words):
            raise JobError("ClientError: the image's own entry point is not simulated with processes: give "
                           "ContainerEntrypoint, or use the docker back end")  # fmt: skip
        words = [self._moved(word, order.base) for word in (*order.entrypoint, *order.words)]
        first, *rest = words[1:] if words[0] == ENTRYPOINT and len(words) > 1 else words
        known = {**self._programs, **self._python}
        try:
            process = Process([*known.get(first, [first]), *rest], environment, order, port)
        except OSError as error:
            raise JobError(f"ClientError: {first} cannot be started ({error.strerror})") from error
        self._started.append(process)
        return [process]

    @staticmethod
    def _moved(word: str, base: Path) -> str:
        return str(base) + word.removeprefix(ML) if word == ML or word.startswith(f"{ML}/") else word

    def close(self) -> None:
        """Kill what still runs."""
        for process in self._started:
            process.remove()
