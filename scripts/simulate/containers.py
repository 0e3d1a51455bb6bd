"""The back end of containers: Docker, with SageMaker's limits on each of them."""

import json
import os
import secrets
import shutil
import subprocess
from collections.abc import Sequence
from contextlib import suppress

from develop.local import mount
from simulate.faults import InternalError, JobError
from simulate.runners import ML, Order, Running, log_file

PORT = 8080
LABEL = "sagemaker-monai.simulation"


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


def require_docker() -> None:
    """Make sure that there is an engine.

    Raises:
        JobError: there is none.
    """
    if shutil.which("docker") is None or not docker("version", "--format", "{{.Server.Version}}", check=False):
        raise JobError("no Docker engine answers: start Docker, or use --back-end venv")
