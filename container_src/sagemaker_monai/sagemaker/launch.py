"""Starts and stops the processes of this host, if a job has more than one process.

`train` stays process 1 and starts `agent`, which is torchrun and starts one `rank` for each process. `train` handles
signals itself, because torchrun would kill the processes 30 s after a SIGTERM, in the middle of saving: it writes a
stop file, which the processes check before each step. The file lies in the room, a folder of this host for this run,
with the cache of decoded images and, after a failure, the failure line.
"""

import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from sagemaker_monai.errors import INTERNAL_ERROR, TrainingStopped
from sagemaker_monai.sagemaker.cluster import Cluster

POLL_S = 0.1
STOP, STARTED, FAILURE, CACHE, LOGS = "stop", "started", "failure", "cache", "logs"
AGENT_ENDS_S = 40.0  # torchrun gives its processes 30 s
LOCAL = "127.0.0.1"


class ProcessesError(Exception):
    """The processes of the job failed; the message is the failure line."""


def run_processes(
    cluster: Cluster,
    argv: Sequence[str],
    *,
    per_host: int,
    port: int,
    timeout_s: float,
    environment: Mapping[str, str],
    is_stopping: Callable[[], bool],
) -> None:
    """Run this host's processes of a job and wait for their end.

    Args:
        cluster: all hosts; their names resolve.
        argv: of `train`.
        per_host: processes on each host.
        port: where all meet on the first host; with one host, any free port is used.
        timeout_s: how long the hosts wait for each other.
        environment: for the processes.
        is_stopping: whether the processes shall save and end.

    Raises:
        ProcessesError: with the failure line of the process, on any host, that failed first.
        TrainingStopped: before the hosts had met.
    """
    is_one = len(cluster.hosts) == 1
    address, port = (LOCAL, _free_port()) if is_one else (cluster.hosts[0], port)
    with tempfile.TemporaryDirectory(prefix="sagemaker-monai-", ignore_cleanup_errors=True) as name:
        room = Path(name)
        command = [sys.executable, "-m", "sagemaker_monai.sagemaker.agent", name]
        command += [f"--nnodes={len(cluster.hosts)}", f"--node-rank={cluster.index}", f"--nproc-per-node={per_host}"]
        command += [f"--master-addr={address}", f"--master-port={port}", "--max-restarts=0"]
        command += [f"--rdzv-conf=timeout={int(timeout_s)}", f"--log-dir={room / LOGS}"]
        command += ["-m", "sagemaker_monai.entrypoints.rank", name, *argv]
        # In its own session, so that Ctrl-C in a terminal reaches only this process.
        agent = subprocess.Popen(  # noqa: S603
            command, env={**environment, **_settings(cluster, per_host, environment)}, start_new_session=True
        )
        try:
            while agent.poll() is None:
                if is_stopping():
                    (room / STOP).touch()
                    if not (room / STARTED).exists():
                        raise TrainingStopped("training was stopped before all hosts had met: nothing to save")
                time.sleep(POLL_S)
        finally:
            _end(agent)
        if agent.returncode != 0:
            failure = room / FAILURE
            default = f"{INTERNAL_ERROR}: the processes of the job ended with status {agent.returncode}"
            raise ProcessesError(failure.read_text(encoding="utf-8") if failure.is_file() else default)


def leave_failure(room: Path, line: str) -> None:
    """Write the failure line of this host's processes, unless there is one already."""
    try:
        with (room / FAILURE).open("x", encoding="utf-8") as file:
            file.write(line)
    except FileExistsError:
        pass


def _settings(cluster: Cluster, per_host: int, environment: Mapping[str, str]) -> dict[str, str]:
    """Variables for the libraries in the processes, except those that are set already."""
    settings = {"OMP_NUM_THREADS": str(max(1, len(os.sched_getaffinity(0)) // per_host))}
    if sys.flags.safe_path:
        settings["PYTHONSAFEPATH"] = "1"
    interface = "lo" if len(cluster.hosts) == 1 else cluster.interface
    if interface in {name for _, name in socket.if_nameindex()}:
        settings |= {f"{library}_SOCKET_IFNAME": str(interface) for library in ("GLOO", "NCCL", "TP")}
    return {name: value for name, value in settings.items() if not environment.get(name)}


def _free_port() -> int:
    with socket.socket() as free:
        free.bind((LOCAL, 0))
        return int(free.getsockname()[1])


def _end(agent: "subprocess.Popen[bytes]") -> None:
    if agent.poll() is not None:
        return
    agent.terminate()
    try:
        agent.wait(AGENT_ENDS_S)
    except subprocess.TimeoutExpired:
        agent.kill()
        agent.wait()
