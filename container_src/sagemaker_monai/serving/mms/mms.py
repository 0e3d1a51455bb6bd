"""The other back end, and the default in multi-model mode: multi-model-server 1.1.11, which is not trusted.

Its weaknesses, and what this module does about them:

- Its management API has no authentication: it listens on a socket in a folder that only its own account and root can
  enter, and the processes that decode uploads can open no sockets (`lockdown`). If TMPDIR is mounted noexec, it listens
  on loopback instead, which every other process of the container can reach.
- Its /ping is always 200, and it only logs that a model fails to load: a model counts as loaded when it has answered a
  real request, and `handle` of the handler module leaves the cause of a failure in a file that is read here.
- It builds paths, process arguments and thread names from a model's name, and fetches what looks like an address: it
  gets a new name of our own each time a model is registered.
- It puts the model's folder at the front of the workers' module path, so that a file of the artifact could replace a
  library: its folder has only a text file with the path of the artifact.
- It parses forms and JSON: the body is sent as application/octet-stream, with the caller's Content-Type and Accept in
  two headers that the handler reads.
- Models named at its start have other settings than those registered later: all are registered.
- A process per model, between Java and the workers, forks them; when it dies, no worker is ever forked again: it is
  watched, and the model is registered again. When Java dies, the whole server is replaced, and each model registers
  itself again; SageMaker does not notice.
- A model that is unregistered may leave a busy worker behind, which is killed here.
- It cannot listen on ports above 32767.
- Its sockets and pipes have fixed names in the temporary folder: each start has its own folder.
- When it is killed, its forking processes live on: a watchdog kills the group when our end of a pipe closes.

It is started by its Java class and not by the toolkit or `multi-model-server`, which write to /etc and to one pid file
for the whole machine.
"""

import asyncio
import contextlib
import io
import logging
import os
import time
from collections.abc import Callable
from http import HTTPStatus
from pathlib import Path
from typing import BinaryIO

import aiohttp
from sagemaker_inference import content_types

from sagemaker_monai.errors import Overloaded, Timeout, Unavailable, WorkerDied
from sagemaker_monai.serving.back_end import Request, Response, StartError, WarmUp
from sagemaker_monai.serving.mms.mms_process import ModelServerProcess
from sagemaker_monai.serving.mms.protocol import ACCEPT_HEADER, ANSWER_HEADER, CONTENT_TYPE_HEADER, TIME_HEADER
from sagemaker_monai.serving.privileges import Lodgings
from sagemaker_monai.serving.settings import ServeConfig, usable_cpus

logger = logging.getLogger(__name__)

POLL_S = 0.2
WATCH_S = 1.0
MAX_RESTARTS = 5  # within RESTART_WINDOW_S
RESTART_WINDOW_S = 600.0
RESTARTING = "the model server is being restarted; send this request again later"


class ModelServer:
    """`ModelHost` over multi-model-server."""

    def __init__(
        self, config: ServeConfig, *, handler: str, warm_up: Callable[[Path], WarmUp], lodgings: Lodgings
    ) -> None:
        self.config = config
        self._handler = f"{handler.partition(':')[0]}:handle"
        self._warm_up = warm_up
        self._lodgings = lodgings
        self.process: ModelServerProcess | None = None  # None while it is being replaced
        # Each load imports torch, which keeps one CPU busy for seconds: more loads at once would not be faster.
        self.loads = asyncio.Semaphore(usable_cpus())
        self._watch: asyncio.Task[None] | None = None
        self._failure: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    async def start(self) -> None:
        """See `Service`: return when models can be registered."""
        await self._start_process()
        self._watch = asyncio.create_task(self._keep_process())

    def back_end(self, model_dir: Path) -> "HostedModel":
        """See `ModelHost`."""
        return HostedModel(self, model_dir, self._warm_up(model_dir))

    def is_alive(self) -> bool:
        """See `Service`."""
        return self.process is not None and self.process.is_running()

    async def failed(self) -> str:
        """See `Service`."""
        return await asyncio.shield(self._failure)

    async def stop(self) -> None:
        """See `Service`."""
        if self._watch is not None:
            self._watch.cancel()
            await asyncio.gather(self._watch, return_exceptions=True)
        process, self.process = self.process, None
        if process is not None:
            await process.end()

    async def _start_process(self) -> None:
        """Start it and wait until it listens; StartError if it does not."""
        try:
            process = await ModelServerProcess.launch(self.config, handler=self._handler, lodgings=self._lodgings)
        except OSError as error:
            reason = os.strerror(error.errno or 0)
            raise StartError(f"the model server cannot be started ({reason}): it needs TMPDIR and its Java") from error
        deadline = time.monotonic() + self.config.startup_timeout_s
        try:
            while not await self._listens(process):
                if not process.is_running():
                    raise StartError(f"the model server ended with code {process.java.returncode} while it started")
                if time.monotonic() > deadline:
                    raise StartError(f"the model server does not listen after {self.config.startup_timeout_s:g} s")
                await asyncio.sleep(POLL_S)
        except BaseException:
            await process.end()
            raise
        self.process = process
        logger.info("the model server is ready, process %d", process.java.pid)

    async def _listens(self, process: ModelServerProcess) -> bool:
        with contextlib.suppress(aiohttp.ClientError, TimeoutError):
            async with process.management.session.get(process.management.url("/models")) as answer:
                return answer.status == HTTPStatus.OK
        return False

    async def _keep_process(self) -> None:
        """Start it again whenever it ends, up to a limit."""
        limit = _RestartLimit("the model server")
        while True:
            await asyncio.sleep(WATCH_S)
            assert self.process is not None
            if self.process.is_running():
                continue
            logger.error("the model server has ended: restart")
            ended, self.process = self.process, None  # `stop` must not end it twice
            await ended.end()
            try:
                limit.count()
                await self._start_process()
            except StartError as error:
                self._failure.set_result(str(error))
                return


class HostedModel:
    """`BackEnd`: one model on the model server, registered again whenever the server or its processes are lost."""

    def __init__(self, server: ModelServer, model_dir: Path, warm_up: WarmUp) -> None:
        self._server = server
        self._config = server.config
        self._model_dir = model_dir
        self._warm_up = warm_up
        self._process: ModelServerProcess | None = None  # where it is registered
        self._name = ""
        self._alive = False
        self._waiting = 0
        self._watch: asyncio.Task[None] | None = None
        self._failure: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    async def start(self) -> None:
        """See `Service`."""
        if self._server.process is None:
            raise StartError(RESTARTING)
        await self._register(self._server.process)
        self._watch = asyncio.create_task(self._keep_registered())

    async def answer(self, request: Request) -> Response:
        """See `BackEnd`."""
        if self._waiting >= self._config.max_waiting:
            raise Overloaded(f"{self._waiting} requests are waiting; send this one again later")
        if self._process is None or self._process is not self._server.process:
            raise Unavailable(RESTARTING)
        if not self._alive and not self._process.has_workers(self._name):  # `_alive` is a second old at most
            raise Unavailable("no worker is ready; send this request again later")
        self._waiting += 1
        try:
            response = await self._ask(self._process, self._name, request)
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
        """See `Service`."""
        return self._alive and self._process is self._server.process and self._server.is_alive()

    async def failed(self) -> str:
        """See `Service`."""
        return await asyncio.shield(self._failure)

    async def stop(self) -> None:
        """See `Service`: unregister the model, and return when its processes have ended."""
        if self._watch is not None:
            self._watch.cancel()
            await asyncio.gather(self._watch, return_exceptions=True)
        await self._unregister()

    async def _ask(self, process: ModelServerProcess, name: str, request: Request) -> Response | None:
        """Forward a request; None if the model server answered and not our handler.

        Raises:
            Unavailable: no worker is ready.
            TimeoutError, aiohttp.ClientError: as aiohttp does.
        """
        headers = {
            "Content-Type": content_types.OCTET_STREAM,
            CONTENT_TYPE_HEADER: request.content_type,
            ACCEPT_HEADER: request.accept,
            TIME_HEADER: f"{self._config.timeout_s:g}",
        }
        # Sent in pieces, so that a large body does not delay /ping.
        body: BinaryIO = io.BytesIO(request.body) if request.file is None else request.file.reader()
        url = process.inference.url(f"/predictions/{name}")
        async with process.inference.session.post(url, data=body, headers=headers) as answer:
            if ANSWER_HEADER not in answer.headers and answer.status == HTTPStatus.SERVICE_UNAVAILABLE:
                raise Unavailable("no worker is ready; send this request again later")
            if ANSWER_HEADER not in answer.headers:
                logger.debug("the model server answered %d by itself", answer.status)
                return None
            return Response(answer.status, answer.headers.get("Content-Type", ""), await answer.read())

    async def _register(self, process: ModelServerProcess) -> None:
        """Register the model and wait for a valid answer; StartError if there is none, and nothing is left behind."""
        async with self._server.loads:
            self._process, self._name = process, process.add_model(self._model_dir)
            try:
                # A worker may hang while it loads, so the cause of a failure is looked for at the same time.
                question = asyncio.create_task(self._load_and_ask(process, self._name))
                try:
                    await self._wait_for_answer(process, question)
                finally:
                    question.cancel()
                    await asyncio.gather(question, return_exceptions=True)
            except BaseException:
                await self._unregister()
                raise
            self._alive = True

    async def _load_and_ask(self, process: ModelServerProcess, name: str) -> Response:
        """Have the model loaded and answer the warm-up; StartError, without the cause, if the model server gives up."""
        parameters = {
            "url": name,
            "model_name": name,
            "initial_workers": str(self._config.workers),
            "synchronous": "true",
            "batch_size": "1",  # a batched answer breaks its front end
        }
        no_limit = aiohttp.ClientTimeout()
        async with process.management.session.post(
            process.management.url("/models"), params=parameters, timeout=no_limit
        ) as answer:
            if answer.status != HTTPStatus.OK:
                raise StartError("the process of the model ended while it loaded it")
        while True:
            with contextlib.suppress(TimeoutError, Unavailable):
                if (response := await self._ask(process, name, self._warm_up.request)) is not None:
                    return response
            await asyncio.sleep(POLL_S)

    async def _wait_for_answer(self, process: ModelServerProcess, question: asyncio.Task[Response]) -> None:
        deadline = time.monotonic() + self._config.startup_timeout_s
        while not question.done():
            await asyncio.wait([question], timeout=POLL_S)
            if not process.is_running():
                raise StartError("the model server ended while it loaded the model")
            if (cause := process.cause_of_failure(self._name)) is not None:
                raise StartError(cause)
            if time.monotonic() > deadline:
                raise StartError(f"no answer {self._config.startup_timeout_s:g} s after the start")
        try:
            self._warm_up.check(question.result())
        except aiohttp.ClientError as error:
            raise StartError("the model server ended while it loaded the model") from error

    async def _unregister(self) -> None:
        process, name, self._process, self._alive = self._process, self._name, None, False
        if process is None:
            return
        pids = process.pids(name)
        if process.is_running():
            with contextlib.suppress(aiohttp.ClientError, TimeoutError):
                url = process.management.url(f"/models/{name}")
                async with process.management.session.delete(url) as answer:
                    logger.debug("the model server took %s away: %d", name, answer.status)
        await process.remove_model(name, pids)

    async def _keep_registered(self) -> None:
        """Register the model again when its processes cannot come back by themselves."""
        limit = _RestartLimit("the process that forks this model's workers")
        while True:
            await asyncio.sleep(WATCH_S)
            process = self._server.process
            if process is None or not process.is_running():  # the server is being replaced
                continue
            if self._process is process and not process.has_lost(self._name):
                self._alive = process.has_workers(self._name)
                continue
            is_lost = self._process is process  # else the whole server was replaced
            await self._unregister()
            try:
                if is_lost:
                    logger.error("the process that forks a model's workers has ended: the model is loaded again")
                    limit.count()
                await self._register(process)
            except (StartError, OSError, RuntimeError) as error:  # the last two if the server ends meanwhile
                if process.is_running():
                    self._failure.set_result(str(error))
                    return


class SingleModel:
    """`BackEnd` of single-model mode: a model server of its own."""

    def __init__(self, config: ServeConfig, *, handler: str, warm_up: WarmUp, lodgings: Lodgings) -> None:
        self._server = ModelServer(config, handler=handler, warm_up=lambda _: warm_up, lodgings=lodgings)
        self._model = self._server.back_end(config.model_dir)

    async def start(self) -> None:
        """See `Service`."""
        await self._server.start()
        await self._model.start()

    async def answer(self, request: Request) -> Response:
        """See `BackEnd`."""
        return await self._model.answer(request)

    def is_alive(self) -> bool:
        """See `Service`."""
        return self._model.is_alive()

    async def failed(self) -> str:
        """See `Service`."""
        causes = [asyncio.ensure_future(part.failed()) for part in (self._server, self._model)]
        try:
            done, _ = await asyncio.wait(causes, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for cause in causes:
                cause.cancel()
        return done.pop().result()

    async def stop(self) -> None:
        """See `Service`."""
        await self._server.stop()
        await self._model.stop()


class _RestartLimit:
    """Counts restarts and raises when they do not help."""

    def __init__(self, what: str) -> None:
        self._what = what
        self._times: list[float] = []

    def count(self) -> None:
        """Count a restart; StartError if there were too many lately."""
        now = time.monotonic()
        self._times = [at for at in self._times if at > now - RESTART_WINDOW_S] + [now]
        if len(self._times) > MAX_RESTARTS:
            raise StartError(f"{self._what} ended {len(self._times)} times in {RESTART_WINDOW_S:g} s")
