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
import io
import logging
import os
import time
from collections.abc import Mapping
from http import HTTPStatus

import aiohttp

from sagemaker_monai.errors import Overloaded, Timeout, Unavailable, WorkerDied
from sagemaker_monai.serving.back_end import Request, Response, StartError, WarmUp
from sagemaker_monai.serving.config import ServeConfig
from sagemaker_monai.serving.mms_process import ModelServerProcess
from sagemaker_monai.serving.privileges import read_left_file
from sagemaker_monai.serving.protocol import ACCEPT_HEADER, ANSWER_HEADER, CONTENT_TYPE_HEADER

logger = logging.getLogger(__name__)

POLL_S = 0.2
WATCH_S = 1.0
MAX_RESTARTS = 5  # within RESTART_WINDOW_S
RESTART_WINDOW_S = 600.0


class ModelServer:
    """`BackEnd` over multi-model-server."""

    def __init__(self, config: ServeConfig, *, handler: str, warm_up: WarmUp, env: Mapping[str, str]) -> None:
        self._config = config
        self._handler = f"{handler.partition(':')[0]}:handle"
        self._warm_up = warm_up
        self._env = env
        self._server: ModelServerProcess | None = None
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
        if self._waiting >= self._config.max_waiting:
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
            Unavailable: no worker is ready.
            TimeoutError, aiohttp.ClientError: as aiohttp does.
        """
        assert self._server is not None
        assert self._session is not None
        headers = {
            "Content-Type": "application/octet-stream",
            CONTENT_TYPE_HEADER: request.content_type,
            ACCEPT_HEADER: request.accept,
        }
        body = io.BytesIO(request.body)  # sent in pieces, so that a large one does not hold up /ping
        async with self._session.post(self._server.url, data=body, headers=headers) as answer:
            if ANSWER_HEADER not in answer.headers and answer.status == HTTPStatus.SERVICE_UNAVAILABLE:
                raise Unavailable("no worker is ready; send this request again later")
            if ANSWER_HEADER not in answer.headers:
                logger.debug("the model server answered %d by itself", answer.status)
                return None
            return Response(answer.status, answer.headers.get("Content-Type", ""), await answer.read())

    async def _start_server(self) -> None:
        """Start it and wait for a sound answer; StartError if there is none."""
        try:
            server = await ModelServerProcess.launch(self._config, handler=self._handler, env=self._env)
        except OSError as error:
            reason = os.strerror(error.errno or 0)
            raise StartError(f"the model server cannot be started ({reason}): it needs TMPDIR and its Java") from error
        self._server = server
        deadline = time.monotonic() + self._config.startup_timeout_s
        # The request may wait in the model server's queue while every worker fails to load, so the cause is looked for
        # at the same time.
        question = asyncio.create_task(self._ask_warm_up())
        try:
            while not question.done():
                await asyncio.wait([question], timeout=POLL_S)
                if server.failure_file.exists():
                    raise StartError(read_left_file(server.failure_file))
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
            with contextlib.suppress(aiohttp.ClientError, TimeoutError, Unavailable):
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
            ended, self._server, self._alive = self._server, None, False  # `stop` must not end it once more
            await ended.end()
            try:
                if len(restarts) > MAX_RESTARTS:
                    raise StartError(f"the model server ended {len(restarts)} times in {RESTART_WINDOW_S:g} s")
                await self._start_server()
            except StartError as error:
                self._failure.set_result(str(error))
                return
