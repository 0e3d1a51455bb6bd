"""The hosts of a job: their names, and whether the names resolve."""

import json
import socket
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from sagemaker_monai.errors import ConfigError, TrainingStopped
from sagemaker_monai.messages.shortened import some_of
from sagemaker_monai.sagemaker.inputs import without_blanks

POLL_S = 0.5
DEFAULT_TIMEOUT_S = 300.0
DEFAULT_PORT = 29500


@dataclass(frozen=True)
class Cluster:
    """Hosts of one job.

    Attributes:
        hosts: names in alphabetical order, which is the order of the processes.
        current: the name of this host.
        interface: the network interface between the hosts, or None.
    """

    hosts: tuple[str, ...]
    current: str
    interface: str | None = None

    @property
    def index(self) -> int:
        """The number of this host, from 0."""
        return self.hosts.index(self.current)


def read_cluster(base: Path, environment: Mapping[str, str]) -> Cluster:
    """Read SM_HOSTS, or else resourceconfig.json; without either, this host is alone.

    Raises:
        ConfigError: they do not have SageMaker's form.
    """
    environment = without_blanks(environment)
    file = base / "input" / "config" / "resourceconfig.json"
    try:
        given = json.loads(file.read_text(encoding="utf-8-sig")) if file.is_file() else {}
        hosts = json.loads(environment["SM_HOSTS"]) if environment.get("SM_HOSTS") else given.get("hosts")
        current = environment.get("SM_CURRENT_HOST") or given.get("current_host")
        interface = environment.get("SM_NETWORK_INTERFACE_NAME") or given.get("network_interface_name")
    except (OSError, ValueError, AttributeError, RecursionError) as error:
        raise ConfigError("SM_HOSTS or resourceconfig.json is not JSON: leave them as SageMaker writes them") from error
    if not hosts:
        return Cluster(("localhost",), "localhost")
    if not isinstance(hosts, list) or not all(isinstance(host, str) and host for host in hosts):
        raise ConfigError("hosts in SM_HOSTS or resourceconfig.json must be a list of names")
    if len(hosts) == 1 and not current:
        current = hosts[0]
    if not isinstance(current, str) or current not in hosts:
        raise ConfigError(f"the current host {str(current)[:80]!r} is not one of the hosts {some_of(hosts)}")
    return Cluster(tuple(sorted(set(hosts))), current, interface if isinstance(interface, str) else None)


def read_limits(environment: Mapping[str, str]) -> tuple[float, int]:
    """HOSTS_TIMEOUT_SECONDS and MASTER_PORT.

    Raises:
        ConfigError: one is not a number in its range.
    """
    environment = without_blanks(environment)
    text = environment.get("HOSTS_TIMEOUT_SECONDS") or str(DEFAULT_TIMEOUT_S)
    port = environment.get("MASTER_PORT") or str(DEFAULT_PORT)
    try:
        timeout_s = float(text)
    except ValueError:
        timeout_s = 0.0
    if not 1 <= timeout_s <= 86_400:
        raise ConfigError(f"HOSTS_TIMEOUT_SECONDS must be from 1 to 86400, got {text[:40]!r}")
    if not (port.isascii() and port.isdigit() and 1024 <= int(port[:6]) <= 65_535):
        raise ConfigError(f"MASTER_PORT must be from 1024 to 65535, got {port[:40]!r}")
    return timeout_s, int(port)


def wait_for_hosts(hosts: Sequence[str], *, timeout_s: float, is_stopping: Callable[[], bool]) -> None:
    """Wait until the name of every host resolves, which takes a while when a cluster starts.

    Raises:
        ConfigError: some do not resolve in time.
        TrainingStopped: `is_stopping` returned True.
    """
    end = time.monotonic() + timeout_s
    missing = list(hosts)
    while missing := [host for host in missing if not _resolves(host)]:
        if is_stopping():
            raise TrainingStopped("training was stopped while it waited for the other hosts: nothing to save")
        if time.monotonic() > end:
            raise ConfigError(
                f"host names that do not resolve after {timeout_s:g} s: {len(missing)} ({some_of(missing)}); put all "
                "containers into one network under these names (docker run --hostname), or correct resourceconfig.json"
            )
        time.sleep(POLL_S)


def _resolves(host: str) -> bool:
    try:
        socket.getaddrinfo(host, None)
    except OSError:
        return False
    return True
