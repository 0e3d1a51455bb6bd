"""The default back end: our own worker processes with continuous micro-batching.

Each worker is a process with its own socket. A free worker takes the waiting requests, at most `max_batch_size`, and
never waits for more: a single request is answered at once, and under load batches grow by themselves. A process counts
as alive when it has answered the warm-up, also after a restart.

A waiting request is dropped when its caller has left or its time is up; a request that a process already works on is
finished, within its time. While no process is alive, new requests are refused at once; requests that were waiting when
the last process ended are answered by the next, unless it cannot start.

A request whose process died is not repeated, because it may be the cause and would kill the next process too. In a
batch only one request can be the cause, so each of them is repeated once, alone.
"""

import asyncio
import contextlib
import logging
import os
import signal
import socket
import sys
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from sagemaker_monai.errors import Overloaded, Timeout, Unavailable, WorkerDied, failure_line
from sagemaker_monai.serving.back_end import Request, Response, StartError, WarmUp
from sagemaker_monai.serving.lockdown import INCOMPLETE
from sagemaker_monai.serving.memory import free_bytes, needed_bytes, process_growth, request_share
from sagemaker_monai.serving.mms.protocol import encode_message, receive_message, send_files
from sagemaker_monai.serving.privileges import Lodgings, start_process
from sagemaker_monai.serving.settings import ServeConfig, visible_gpus

logger = logging.getLogger(__name__)

MAX_START_FAILURES = 5  # in a row, of one worker, while no other is alive
MAX_DELAY_S = 30.0
EXIT_GRACE_S = 2.0
END_GRACE_S = 5.0  # for a process to end its work by itself, so that its model stays loaded
NO_WORKER = "no worker is ready; send this request again later"


@dataclass(eq=False)
class _Job:
    request: Request
    deadline: float  # of the event loop's clock
    response: asyncio.Future[Response] = field(default_factory=lambda: asyncio.get_running_loop().create_future())

    def fail(self, error: Exception) -> None:
        if not self.response.done():  # the caller may have left
            self.response.set_exception(error)


class _Waiting(asyncio.Queue[_Job]):
    """Jobs that no process has taken yet."""

    def _init(self, maxsize: int) -> None:  # noqa: ARG002 - asyncio's signature
        self._queue: deque[_Job] = deque()

    def drop(self, job: _Job) -> None:
        """Forget a job, and with it its body, if it still waits."""
        with contextlib.suppress(ValueError):
            self._queue.remove(job)

    def fail_all(self, error: Exception) -> None:
        """Refuse every job that waits."""
        while self._queue:
            self._queue.popleft().fail(error)


class _ProcessEndedError(Exception):
    """A worker ended or was ended; the text says how."""


class _NotReadError(_ProcessEndedError):
    """It ended before it had read the whole request, which is therefore not the cause and can be repeated."""


class _Worker:
    """One process and its socket."""

    def __init__(
        self,
        process: asyncio.subprocess.Process,
        resources: contextlib.ExitStack,
        files: socket.socket,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
    ) -> None:
        self.process = process
        self._resources = resources  # its account and folders, and our sockets
        self._files = files
        self.exit = asyncio.ensure_future(process.wait())
        self._reader = reader
        self._writer = writer

    @classmethod
    async def launch(cls, command: Sequence[str], variables: Mapping[str, str], lodgings: Lodgings) -> "_Worker":
        with contextlib.ExitStack() as stack:
            account, env = stack.enter_context(lodgings.lend())
            (ours, theirs), (files, their_files) = socket.socketpair(), socket.socketpair()
            stack.enter_context(files)
            files.setblocking(False)
            with theirs, their_files:
                numbers = (theirs.fileno(), their_files.fileno())
                process = await start_process(
                    account, *command, "--socket", str(numbers[0]), "--files", str(numbers[1]),
                    "--parent", str(os.getpid()), *([] if account is None or account.is_shared else ["--own-uid"]),
                    stdin=asyncio.subprocess.DEVNULL, pass_fds=numbers, start_new_session=True,
                    env={**env, **variables},
                )  # fmt: skip
            reader, writer = await asyncio.open_connection(sock=ours)
            return cls(process, stack.pop_all(), files, reader, writer)

    async def loaded(self) -> str:
        """Wait until the model is loaded; what `lock_down` lacks, usually "".

        Raises:
            StartError: the model cannot be loaded.
            _ProcessEndedError: the process ended without a cause.
        """
        try:
            header, _ = await receive_message(self._reader)
        except (EOFError, OSError) as error:
            raise _ProcessEndedError(await self.how_it_ended()) from error
        if "failed" in header:
            raise StartError(header["failed"])
        return ", ".join(header["lacks"])

    async def respond(self, requests: Sequence[Request], timeout_s: float) -> list[Response]:
        """Have the process answer a batch, and end its work after `timeout_s`.

        Raises:
            _NotReadError: it ended before it had read the batch.
            _ProcessEndedError: it ended before it answered.
            TimeoutError: no answer in time; the process must be killed.
        """
        fields = [{"content_type": request.content_type, "accept": request.accept} for request in requests]
        files = [request.file for request in requests]
        try:
            async with asyncio.timeout(timeout_s + END_GRACE_S):
                send_files(self._files, [file.fileno() for file in files if file is not None])
                sizes = [None if file is None else file.size_bytes for file in files]
                question = {"requests": fields, "files": sizes, "time_s": timeout_s}
                self._writer.writelines(encode_message(question, [request.body for request in requests]))
                await self._writer.drain()
                header, bodies = await receive_message(self._reader)
        except ConnectionError as error:  # the kernel reports that bytes were not read
            raise _NotReadError(await self.how_it_ended()) from error
        except EOFError as error:
            raise _ProcessEndedError(await self.how_it_ended()) from error
        return [Response(body=body, **fields) for body, fields in zip(bodies, header["responses"], strict=True)]

    async def how_it_ended(self) -> str:
        try:
            code = await asyncio.wait_for(asyncio.shield(self.exit), EXIT_GRACE_S)
        except TimeoutError:
            return "it closed its socket"
        return f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"

    async def end(self, *, grace_s: float) -> None:
        """Close the socket, which ends an idle process; after `grace_s` kill it with all its children."""
        self._writer.close()
        self._files.close()
        try:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(asyncio.shield(self.exit), grace_s)
        finally:  # also when cancelled
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)  # its own session, see `launch`
            try:
                await self.exit
                with contextlib.suppress(OSError):
                    await self._writer.wait_closed()
            finally:  # a home may hold many files
                await asyncio.get_running_loop().run_in_executor(None, self._resources.close)


class WorkerPool:
    """`BackEnd` over worker processes."""

    def __init__(self, config: ServeConfig, *, handler: str, warm_up: WarmUp, lodgings: Lodgings) -> None:
        self._config = config
        self._warm_up = warm_up
        self._lodgings = lodgings
        self._lacks: str | None = None  # of the first worker; all are the same
        self._command = [
            sys.executable, "-P", "-m", "sagemaker_monai.serving.worker", "--handler", handler,
            "--model-dir", str(config.model_dir), "--log-level", config.log_level,
            *(["--allow-bundle-code"] if config.allow_bundle_code else []),
            *(["--allow-network"] if config.worker_network else []),
            *(["--has-gpu"] if visible_gpus(lodgings.env) else []),
        ]  # fmt: skip
        self._variables: dict[str, str] = {}  # of every process
        self._waiting = _Waiting()
        self._alive = 0
        self._tasks: list[asyncio.Task[None]] = []
        self._ready = asyncio.Event()
        self._failure: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    async def start(self) -> None:
        """Start every worker and return when the first has answered its warm-up; see `BackEnd`."""
        config = self._config
        needed = await asyncio.to_thread(needed_bytes, config.model_dir, processes=1)
        limits = config.limits(request_share(free_bytes(), needed, config.workers))
        growth = process_growth(
            limits.most_bytes(config.max_payload_bytes), has_gpu=visible_gpus(self._lodgings.env) > 0
        )
        self._command += ["--growth-bytes", str(growth)]
        self._variables = {**limits.to_env(), "OMP_NUM_THREADS": str(config.threads)}
        self._tasks = [asyncio.create_task(self._keep_worker(number)) for number in range(self._config.workers)]
        for task in self._tasks:
            task.add_done_callback(self._notice_crash)
        ready = asyncio.create_task(self._ready.wait())
        failed = asyncio.create_task(self.failed())
        await asyncio.wait([ready, failed], return_when=asyncio.FIRST_COMPLETED)
        ready.cancel()
        failed.cancel()
        if not self._ready.is_set():
            raise StartError(self._failure.result())

    async def answer(self, request: Request) -> Response:
        """Queue a request and wait for its answer; see `BackEnd`. When cancelled, take it out of the queue."""
        if not self.is_alive():
            raise Unavailable(NO_WORKER)
        if self._waiting.qsize() >= self._config.max_waiting:
            raise Overloaded(f"{self._waiting.qsize()} requests are waiting; send this one again later")
        job = _Job(request, asyncio.get_running_loop().time() + self._config.timeout_s)
        self._waiting.put_nowait(job)
        try:
            async with asyncio.timeout(self._config.timeout_s):
                return await job.response
        except TimeoutError as error:
            if not self.is_alive():
                raise Unavailable(NO_WORKER) from error
            raise Timeout(f"no answer within {self._config.timeout_s:g} s") from error
        finally:
            if job.response.cancelled():  # the caller has left
                self._waiting.drop(job)

    def is_alive(self) -> bool:
        """See `BackEnd`."""
        return self._alive > 0

    async def failed(self) -> str:
        """See `BackEnd`."""
        return await asyncio.shield(self._failure)

    async def stop(self) -> None:
        """See `BackEnd`."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _notice_crash(self, task: asyncio.Task[None]) -> None:
        """Report that no process can be started, or a fault of ours: otherwise the supervisor would wait for ever."""
        if not task.cancelled() and (error := task.exception()) is not None and not self._failure.done():
            self._failure.set_result(str(error) if isinstance(error, StartError) else failure_line(error))

    async def _keep_worker(self, number: int) -> None:
        """Start worker `number`, answer with it, and start it again whenever it ends, until cancelled."""
        failures = 0
        alone: list[_Job] = []
        while True:
            worker = await self._launch()
            grace_s = EXIT_GRACE_S
            is_ready = False
            try:
                await self._prepare(worker)
                is_ready = True
                failures = 0
                self._alive += 1
                self._ready.set()
                logger.info("worker %d is ready, process %d", number, worker.process.pid)
                try:
                    await self._serve(worker, alone)
                finally:
                    self._alive -= 1
            except StartError as error:
                failures += 1
                logger.error("worker %d cannot start: %s", number, error)
                if not self._alive:
                    self._waiting.fail_all(Unavailable(NO_WORKER))
                # The first failure is final until a worker was ready: it may be impossible to serve this artifact.
                if not self._ready.is_set() or (failures >= MAX_START_FAILURES and not self._alive):
                    if not self._failure.done():
                        self._failure.set_result(str(error))
                    return
            except asyncio.CancelledError:
                if not is_ready:  # a process that loads a model does not read its socket
                    grace_s = 0.0
                raise
            except (_ProcessEndedError, TimeoutError) as error:
                logger.error("worker %d is replaced: %s", number, error)
                grace_s = 0.0
            finally:
                await worker.end(grace_s=grace_s)
            await asyncio.sleep(min(MAX_DELAY_S, 2.0 ** (failures - 1)) if failures else 0.0)

    async def _launch(self) -> _Worker:
        """Start a process; when cancelled meanwhile, end it."""
        launch = asyncio.ensure_future(_Worker.launch(self._command, self._variables, self._lodgings))
        try:
            return await asyncio.shield(launch)
        except asyncio.CancelledError:
            await (await launch).end(grace_s=0.0)
            raise

    async def _prepare(self, worker: _Worker) -> None:
        """Wait for the model and for a valid answer to the warm-up; StartError if there is none."""
        try:
            async with asyncio.timeout(self._config.startup_timeout_s):
                lacks = await worker.loaded()
                [response] = await worker.respond([self._warm_up.request], self._config.startup_timeout_s)
        except _ProcessEndedError as error:
            raise StartError(f"the worker process ended while it loaded the model: {error}") from error
        except TimeoutError as error:
            raise StartError(f"no answer {self._config.startup_timeout_s:g} s after the start") from error
        self._warm_up.check(response)
        if lacks and self._lacks is None:
            logger.warning(INCOMPLETE, lacks)
        self._lacks = lacks

    async def _serve(self, worker: _Worker, alone: list[_Job]) -> None:
        """Answer batches until the process ends; `alone` has jobs of a broken batch, to be repeated one by one."""
        while True:
            jobs = [job] if (job := _pop_wanted(alone)) is not None else await self._take(worker)
            try:
                timeout_s = max(job.deadline for job in jobs) - asyncio.get_running_loop().time()
                responses = await worker.respond([job.request for job in jobs], timeout_s)
            except TimeoutError as error:  # their callers have got a refusal
                raise TimeoutError("no answer in time") from error
            except _NotReadError:
                for job in jobs:
                    if not job.response.done():
                        self._waiting.put_nowait(job)
                raise
            except _ProcessEndedError:
                if len(jobs) > 1:
                    alone.extend(jobs)
                else:
                    jobs[0].fail(WorkerDied("the process ended while it worked on this request"))
                raise
            for job, response in zip(jobs, responses, strict=True):
                if not job.response.done():
                    job.response.set_result(response)

    async def _take(self, worker: _Worker) -> list[_Job]:
        """Wait for a request and take the others that wait; _ProcessEndedError if the process ends first."""
        while True:
            arrival = asyncio.create_task(self._waiting.get())
            try:
                await asyncio.wait([arrival, worker.exit], return_when=asyncio.FIRST_COMPLETED)
            finally:
                if not arrival.done():
                    arrival.cancel()
            if not arrival.done() or worker.exit.done():
                # Not sent yet: another worker, or the next process, answers it.
                with contextlib.suppress(asyncio.CancelledError):
                    self._waiting.put_nowait(await arrival)
                raise _ProcessEndedError(await worker.how_it_ended())
            jobs = [arrival.result()]
            while len(jobs) < self._config.max_batch_size and not self._waiting.empty():
                jobs.append(self._waiting.get_nowait())
            jobs = [job for job in jobs if not job.response.done()]
            if jobs:
                return jobs


def _pop_wanted(jobs: list[_Job]) -> _Job | None:
    """Remove and return the last job whose caller still waits; drop those behind it."""
    while jobs:
        if not (job := jobs.pop()).response.done():
            return job
    return None


class WorkerPools:
    """`ModelHost`: a pool per model, with nothing in common that must be started or could fail."""

    def __init__(
        self, config: ServeConfig, *, handler: str, warm_up: Callable[[Path], WarmUp], lodgings: Lodgings
    ) -> None:
        self._config = config
        self._handler = handler
        self._warm_up = warm_up
        self._lodgings = lodgings

    async def start(self) -> None:
        """See `Service`."""

    def back_end(self, model_dir: Path) -> WorkerPool:
        """See `ModelHost`."""
        config = replace(self._config, model_dir=model_dir)
        return WorkerPool(config, handler=self._handler, warm_up=self._warm_up(model_dir), lodgings=self._lodgings)

    def is_alive(self) -> bool:
        """See `Service`."""
        return True

    async def failed(self) -> str:
        """See `Service`: wait for ever."""
        never: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        return await never

    async def stop(self) -> None:
        """See `Service`."""
