"""Who runs what the platform would run in a container: Docker, or processes of `.venv` in an /opt/ml of their own.

Both take the same order and give the same handle. What processes cannot do: channels are closed to writing by their
modes only (root writes all the same), /dev/shm is that of the machine, there is no isolation from network and files, no
memory limit, no second host, and nothing outside /opt/ml; words and values that begin with /opt/ml are moved along.
"""

import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from scripts.local import mount
from scripts.simulate.faults import InternalError, JobError

ML = "/opt/ml"
BIN = Path(sys.executable).parent
PORT = 8080
# Of this process's environment; everything else a container would not see.
INHERITED = ("PATH", "HOME", "LANG", "LC_ALL", "TMPDIR", "OMP_NUM_THREADS", "PYTHONPATH", "LD_LIBRARY_PATH")
LABEL = "sagemaker-monai.simulation"


@dataclass(frozen=True)
class Order:
    """A container to start.

    Attributes:
        image: as the request names it.
        words: `train` or `serve`, or with `entrypoint` the arguments.
        base: folder of this machine that is /opt/ml.
        readonly: paths below `base` that cannot be written; empty with `only`.
        only: paths below `base` that are all of it that the container sees, unwritable; empty: all.
        entrypoint: replaces the image's.
        environment: variables.
        host: the container's name for itself and for others.
        hosts: all of a job.
        is_isolated: no network beyond these hosts.
        serves: whether it listens on port 8080.
        memory_mb: limit; None: none.
    """

    image: str
    words: tuple[str, ...]
    base: Path
    readonly: tuple[str, ...] = ()
    only: tuple[str, ...] = ()
    entrypoint: tuple[str, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict)
    host: str = "algo-1"
    hosts: tuple[str, ...] = ("algo-1",)
    is_isolated: bool = False
    serves: bool = False
    memory_mb: int | None = None
    shm_bytes: int = 64 << 20


class Running(Protocol):
    """A container that was started."""

    log: Path  # both of its streams
    address: tuple[str, int]  # where it serves
    sees_host: bool  # whether its /opt/ml is the folder of this machine under the same name

    def code(self) -> int | None:
        """The exit code; None while it runs."""

    def terminate(self) -> None:
        """SIGTERM to its first process."""

    def remove(self) -> None:
        """Kill what is left; its files then belong to this process's user."""


class Runner(Protocol):
    """A back end."""

    def start(self, orders: Sequence[Order]) -> list[Running]:
        """Start the containers of one job or instance.

        Raises:
            JobError: the order cannot be carried out.
            InternalError: it could, and was not.
        """

    def close(self) -> None:
        """Leave nothing behind."""


def free_port() -> int:
    """A port of loopback that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def log_file(order: Order) -> Path:
    """Where a container's streams are written: beside its /opt/ml."""
    return order.base.with_name(f"{order.base.name}.log")


# Processes


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
        programs: what `train` and `serve` mean.
    """

    def __init__(self, programs: Mapping[str, Sequence[str]] | None = None) -> None:
        self._programs = programs or {name: [str(BIN / name)] for name in ("train", "serve")}
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
        first, *rest = (self._moved(word, order.base) for word in (*order.entrypoint, *order.words))
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


# Containers


class Container:
    """A container in the background and the client that writes down its log."""

    sees_host = False

    def __init__(self, name: str, image: str, order: Order, network: str | None) -> None:
        self.name, self.log = name, log_file(order)
        self.address = ("127.0.0.1", 0)
        self._image, self._base, self._network = image, order.base, network
        self._is_removed, self._code = False, 137
        with self.log.open("wb") as stream:
            self._follower = subprocess.Popen(["docker", "logs", "--follow", name], stdin=subprocess.DEVNULL,
                                              stdout=stream, stderr=stream, start_new_session=True)  # fmt: skip
        if order.serves:
            self.address = self._find_address(order)

    def _find_address(self, order: Order) -> tuple[str, int]:
        if order.is_isolated:  # a network without a way out cannot publish; from this machine its addresses are reached
            networks = json.loads(docker("inspect", "--format", "{{json .NetworkSettings.Networks}}", self.name))
            return networks[self._network]["IPAddress"], PORT
        lines = docker("port", self.name, f"{PORT}/tcp", check=False).split()
        return ("127.0.0.1", int(lines[0].rpartition(":")[2]) if lines else 0)  # none: it has ended already

    def code(self) -> int | None:
        """The exit code."""
        if self._is_removed:
            return self._code
        if self._follower.poll() is None:
            return None
        state = json.loads(docker("inspect", "--format", "{{json .State}}", self.name))
        if state["Running"]:  # the client that follows was lost
            return None
        return int(state["ExitCode"])

    def terminate(self) -> None:
        """SIGTERM to process 1."""
        docker("kill", "--signal", "TERM", self.name, check=False)

    def remove(self) -> None:
        """Remove it, and give its files to this process's user."""
        if self._is_removed:
            return
        docker("kill", self.name, check=False)
        with suppress(subprocess.TimeoutExpired):
            self._follower.wait(10)
        self._follower.kill()
        self._follower.wait()
        self._code = int(docker("inspect", "--format", "{{.State.ExitCode}}", self.name, check=False) or 137)
        self._is_removed = True
        docker("rm", "--force", "--volumes", self.name, check=False)
        user, group = os.getuid(), os.getgid()
        if user != 0:  # root finds everything readable as it is
            flags = ["--rm", "--network", "none", *mount(self._base, "/give", readonly=False), "--entrypoint", "chown"]
            docker("run", *flags, self._image, "-hR", f"{user}:{group}", "/give", check=False)


def docker(*words: str, check: bool = True) -> str:
    """What the client prints.

    Raises:
        InternalError: it failed.
    """
    result = subprocess.run(["docker", *words], capture_output=True, text=True, check=False)
    if check and result.returncode != 0:
        raise InternalError(f"docker {words[0]}: {' '.join(result.stderr.split())[:500]}")
    return result.stdout.strip()


class DockerRunner:
    """Containers of one simulation.

    Args:
        image: takes the place of images that are not on this machine, as those of a registry.
    """

    def __init__(self, image: str | None = None) -> None:
        self._fallback = image
        self._token = secrets.token_hex(4)
        self._count = 0
        self._started: list[Container] = []
        self._networks: list[str] = []

    def start(self, orders: Sequence[Order]) -> list[Running]:
        """Start the containers, several hosts on a network of their own."""
        self._count += 1
        name = f"simulated-{self._token}-{self._count}"
        needs_network = len(orders) > 1 or (orders[0].serves and orders[0].is_isolated)
        network = name if needs_network else None
        if network:
            docker("network", "create", "--label", f"{LABEL}={self._token}",
                   *(["--internal"] if orders[0].is_isolated else []), network)  # fmt: skip
            self._networks.append(network)
        started: list[Running] = []
        try:
            for order in orders:
                image = self._image(order.image)
                docker("run", "--detach", "--name", f"{name}-{order.host}",
                       *self._flags(order, network), image, *order.entrypoint[1:], *order.words)  # fmt: skip
                container = Container(f"{name}-{order.host}", image, order, network)
                self._started.append(container)
                started.append(container)
        except (InternalError, JobError):
            for each in started:
                each.remove()
            raise
        return started

    def _image(self, wanted: str) -> str:
        for image in filter(None, (wanted, self._fallback)):
            if docker("image", "inspect", "--format", "{{.Id}}", image, check=False):
                return image
        raise JobError(f"ClientError: Cannot find the image {wanted}: name one of this machine with --image")

    def _flags(self, order: Order, network: str | None) -> list[str]:
        flags = ["--label", f"{LABEL}={self._token}", "--hostname", order.host, "--shm-size", str(order.shm_bytes)]
        if network:
            flags += ["--network", network, "--network-alias", order.host]
        elif order.is_isolated:
            flags += ["--network", "none", "--add-host", f"{order.host}:127.0.0.1"]
        if order.serves and not order.is_isolated:
            flags += ["--publish", f"127.0.0.1::{PORT}"]
        if order.memory_mb:
            flags += ["--memory", f"{order.memory_mb}m"]
        if order.entrypoint:
            flags += ["--entrypoint", order.entrypoint[0]]
        if not order.only:
            flags += mount(order.base, ML, readonly=False)
        for path in (*order.only, *order.readonly):
            flags += mount(order.base / path, f"{ML}/{path}")
        return flags + [word for item in order.environment.items() for word in ("--env", "=".join(item))]

    def close(self) -> None:
        """Remove all containers and networks of this simulation."""
        for container in self._started:
            container.remove()
        # What was created and could not be started is in no list.
        left = docker("ps", "--all", "--quiet", "--filter", f"label={LABEL}={self._token}", check=False).split()
        if left:
            docker("rm", "--force", "--volumes", *left, check=False)
        for network in self._networks:
            docker("network", "rm", network, check=False)


def make_runner(back_end: str, image: str | None) -> Runner:
    """The back end of a name.

    Raises:
        JobError: there is no Docker.
    """
    if back_end == "venv":
        return ProcessRunner()
    if shutil.which("docker") is None or not docker("version", "--format", "{{.Server.Version}}", check=False):
        raise JobError("no Docker engine answers: start Docker, or use --back-end venv")
    return DockerRunner(image)


def stop(containers: Sequence[Running], grace_s: float, poll_s: float = 0.05) -> None:
    """SIGTERM, a while, SIGKILL; then they are removed."""
    for container in containers:
        container.terminate()
    deadline = time.monotonic() + grace_s
    while any(each.code() is None for each in containers) and time.monotonic() < deadline:
        time.sleep(poll_s)
    for container in containers:
        container.remove()
