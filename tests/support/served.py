"""The real `serve` command as a process, a client for it, and facts about its processes."""

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from tests.support import loopback
from tests.support.places import ROOT

SERVE = Path(sys.executable).parent / "serve"
START_S = 60


class Served:
    """A running server; its log is the file `log`."""

    def __init__(self, folder, log, **variables):
        self.port = loopback.free_port()
        self.back_end = variables.get("MODEL_SERVER")
        environment = {name: value for name, value in os.environ.items() if not name.startswith(("SM_", "SAGEMAKER_"))}
        environment |= {"SM_MODEL_DIR": str(folder), "SAGEMAKER_BIND_TO_PORT": str(self.port), "OMP_NUM_THREADS": "1"}
        self.log = log
        with log.open("wb") as stream:
            self.process = subprocess.Popen([SERVE], env=environment | variables, stdout=stream, stderr=stream)

    def request(self, method, path, body=None, headers=None, timeout_s=30):
        return loopback.request("127.0.0.1", self.port, method, path, body, headers, timeout_s)

    def invoke(self, body, content_type, accept=None):
        headers = {"Content-Type": content_type} | ({} if accept is None else {"Accept": accept})
        return self.request("POST", "/invocations", body, headers)

    def ping(self):
        """The status of /ping; None while the port is closed."""
        try:
            return self.request("GET", "/ping", timeout_s=5)[0]
        except OSError:
            return None

    def wait_until_healthy(self):
        deadline = time.monotonic() + START_S
        while self.ping() != 200:
            assert self.process.poll() is None, self.log.read_text()
            assert time.monotonic() < deadline, self.log.read_text()
            time.sleep(0.05)
        return self

    def stop(self):
        """Stop it; returns its exit code."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(40)
        finally:
            self.process.kill()

    def processes(self):
        """Its process and all descendants: pid -> command line."""
        parents, commands = {}, {}
        for stat in Path("/proc").glob("[0-9]*/stat"):
            try:
                state, parent = stat.read_text().rpartition(")")[2].split()[:2]
                command = (stat.parent / "cmdline").read_text()
            except OSError:
                continue
            if state != "Z":
                parents[int(stat.parent.name)] = int(parent)
                commands[int(stat.parent.name)] = command
        tree = {self.process.pid}
        while more := {pid for pid, parent in parents.items() if parent in tree} - tree:
            tree |= more
        return {pid: commands[pid] for pid in tree if pid in commands}

    def workers(self):
        """Pids of the processes that hold a model."""
        processes = self.processes()
        forked = [pid for pid, command in processes.items() if "model_service_worker" in command]
        parents = {pid: int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1]) for pid in forked}
        return [pid for pid, command in processes.items() if "sagemaker_monai.serving.worker" in command] + [
            pid for pid in forked if parents[pid] in forked
        ]

    def listening(self):
        """(address, port) of every listening TCP socket of its processes."""
        inodes = set()
        for pid in self.processes():
            for descriptor in Path(f"/proc/{pid}/fd").iterdir():
                try:
                    inodes.add(str(descriptor.readlink()).removeprefix("socket:[").rstrip("]"))
                except OSError:
                    continue
        found = set()
        for table in ("tcp", "tcp6"):
            for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
                fields = line.split()
                if fields[3] == "0A" and fields[9] in inodes:
                    found.add(tuple(fields[1].split(":")))
        return {(address, int(port, 16)) for address, port in found}


def code_of(body):
    """The code in a refusal, whose format is checked."""
    [(key, error)] = json.loads(body).items()
    assert key == "error"
    assert set(error) == {"code", "message"}
    return error["code"]


def said_before_it_is_killed(program):
    """The words that a supervisor prints when all is running, which is then killed."""
    with subprocess.Popen([sys.executable, "-c", program], cwd=ROOT, stdout=subprocess.PIPE, text=True) as supervisor:
        words = supervisor.stdout.readline().split()
        supervisor.kill()
    return words


async def until(claim, seconds=90):
    """Wait until a claim is true."""
    deadline = time.monotonic() + seconds
    while not claim():
        assert time.monotonic() < deadline, "timed out"
        await asyncio.sleep(0.02)


def is_running(pid):
    """Whether the process exists and has not ended."""
    try:
        return ") Z " not in Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False
