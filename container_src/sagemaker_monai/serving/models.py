"""The models that a multi-model endpoint has loaded.

SageMaker decides which models are loaded; this module decides only whether there is room. Choices:

- Two requests for one name at once: the first loads, the second waits for it and gets 409, or the cause of its failure.
- Unloading first finishes the model's requests in flight. New ones get 404 at once, and so does a second request to
  unload.
- A model whose processes cannot be kept alive is dropped, so that its next request is a 404 and SageMaker loads it
  again; while processes are being replaced, the model stays in the list and answers 503.
- A model that cannot be loaded gives 500 with code BundleError and the cause, and leaves nothing behind; 507 if memory
  is short, as estimated before (`memory`) or because the kernel killed a process.
"""

import asyncio
import logging
import os
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, AsyncExitStack, nullcontext, suppress
from dataclasses import dataclass, field
from pathlib import Path

from sagemaker_monai.errors import (
    INTERNAL_ERROR,
    BundleError,
    ModelAlreadyLoaded,
    ModelNotFound,
    NotEnoughMemory,
    Unavailable,
)
from sagemaker_monai.serving.back_end import BackEnd, ModelHost, Request, Response, StartError
from sagemaker_monai.serving.memory import SIGNS_OF_NO_MEMORY, MemoryBudget, killed_processes, needed_bytes
from sagemaker_monai.serving.model_requests import model_folder, page
from sagemaker_monai.serving.settings import ServeConfig
from sagemaker_monai.storage.files import children

logger = logging.getLogger(__name__)

NOT_LOADED = "no model of this name is loaded"


@dataclass(eq=False)
class _Model:
    name: str
    url: str
    back_end: BackEnd
    resources: AsyncExitStack  # its processes, and their copy of the artifact
    in_flight: int = 0
    idle: asyncio.Event = field(default_factory=asyncio.Event)
    watch: asyncio.Task[None] | None = None


class ModelStore:
    """`Service`: models by name, on a host that runs them."""

    def __init__(
        self,
        config: ServeConfig,
        host: ModelHost,
        *,
        readable: Callable[[Path], AbstractContextManager[Path]] = nullcontext,
        budget: MemoryBudget | None = None,
    ) -> None:
        self._config = config
        self._host = host
        self._readable = readable  # makes an artifact readable for the processes
        self._budget = budget or MemoryBudget()
        self._loaded: dict[str, _Model] = {}
        self._loading: dict[str, asyncio.Task[None]] = {}
        self._unloading: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        """See `Service`; no model is needed."""
        await self._host.start()

    def is_alive(self) -> bool:
        """Whether models can be loaded."""
        return self._host.is_alive()

    async def failed(self) -> str:
        """See `Service`."""
        return await self._host.failed()

    async def stop(self) -> None:
        """See `Service`."""
        models = list(self._loaded.values())
        tasks = [*self._loading.values(), *(model.watch for model in models if model.watch is not None)]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._host.stop()  # at once, not model by model
        for model in models:
            await model.resources.aclose()
        await asyncio.gather(*self._unloading, return_exceptions=True)

    async def load(self, name: str, url: str) -> None:
        """Load a model and return when it has answered its warm-up; name and url are from `parse_load`.

        Raises:
            MalformedRequest, ModelAlreadyLoaded, NotEnoughMemory, BundleError, Unavailable: as their names say.
        """
        if name in self._loaded:
            raise ModelAlreadyLoaded("a model of this name is loaded; unload it first")
        if (earlier := self._loading.get(name)) is not None:
            await asyncio.shield(earlier)
            raise ModelAlreadyLoaded("a model of this name was loaded meanwhile")
        # A task, because the client may leave: the model is loaded all the same, and SageMaker asks again.
        task = self._loading[name] = asyncio.create_task(self._load(name, url))
        task.add_done_callback(lambda _: self._loading.pop(name))
        task.add_done_callback(lambda _: task.cancelled() or task.exception())  # nobody may be left to ask for it
        await asyncio.shield(task)

    def url_of(self, name: str) -> str:
        """The url of a loaded model.

        Raises:
            ModelNotFound: it is not loaded.
        """
        return self._get(name).url

    def list_models(self, *, limit: str, token: str) -> tuple[dict[str, str], str | None]:
        """Name -> url of loaded models, and the token of the next page; see `model_requests.page`."""
        names, next_token = page(self._loaded, limit=limit, token=token)
        return {name: self._loaded[name].url for name in names}, next_token

    async def unload(self, name: str) -> None:
        """Finish a model's requests, end its processes and forget it.

        Raises:
            ModelNotFound: it is not loaded.
        """
        if (loading := self._loading.get(name)) is not None:
            await asyncio.wait([loading])
        model = self._get(name)
        del self._loaded[name]
        # A task, because the client may leave: the processes must end all the same.
        task = asyncio.create_task(self._finish(model))
        self._unloading.add(task)
        task.add_done_callback(self._unloading.discard)
        await asyncio.shield(task)

    async def _finish(self, model: _Model) -> None:
        with suppress(TimeoutError):  # no request takes longer
            await asyncio.wait_for(model.idle.wait(), self._config.timeout_s)
        assert model.watch is not None
        model.watch.cancel()
        await asyncio.gather(model.watch, return_exceptions=True)
        await model.resources.aclose()
        logger.info("unloaded %r", model.name)

    async def answer(self, name: str, request: Request) -> Response:
        """Answer a request with a model.

        Raises:
            ModelNotFound: it is not loaded.
            Overloaded, Unavailable, Timeout, WorkerDied: see `BackEnd`.
        """
        model = self._get(name)
        model.in_flight += 1
        model.idle.clear()
        try:
            return await model.back_end.answer(request)
        finally:
            model.in_flight -= 1
            if model.in_flight == 0:
                model.idle.set()

    def _get(self, name: str) -> _Model:
        if name not in self._loaded:
            raise ModelNotFound(NOT_LOADED)
        return self._loaded[name]

    async def _load(self, name: str, url: str) -> None:
        folder = await asyncio.to_thread(model_folder, url, self._config.models_dir)
        needed = await asyncio.to_thread(_size, folder, self._config.workers)
        if not self._host.is_alive():
            raise Unavailable("the model server is being restarted; send this request again later")
        started = time.monotonic()
        async with self._budget.lend(needed), AsyncExitStack() as resources:
            folder = await asyncio.to_thread(resources.enter_context, self._readable(folder))
            back_end = self._host.back_end(folder)
            resources.push_async_callback(back_end.stop)
            killed = killed_processes()
            try:
                await back_end.start()
            except StartError as error:
                raise _load_error(str(error), kernel_killed=killed_processes() > killed) from error
            model = _Model(name, url, back_end, resources.pop_all())
        model.idle.set()
        self._loaded[name] = model
        model.watch = asyncio.create_task(self._drop_when_failed(model))
        logger.info("loaded %r in %.1f s", name, time.monotonic() - started)

    async def _drop_when_failed(self, model: _Model) -> None:
        cause = await model.back_end.failed()
        logger.error("%r is no longer loaded: %s", model.name, cause)
        if self._loaded.get(model.name) is model:
            del self._loaded[model.name]
        await model.resources.aclose()


def _size(folder: Path, processes: int) -> int:
    """`needed_bytes` of an artifact; BundleError if there is none."""
    try:
        is_empty = not children(folder)
    except OSError as error:
        reason = os.strerror(error.errno or 0)
        raise BundleError(f"the folder that url names cannot be read ({reason})") from error
    if is_empty:
        raise BundleError("the folder that url names is empty")
    return needed_bytes(folder, processes=processes)


def _load_error(cause: str, *, kernel_killed: bool) -> BundleError | NotEnoughMemory:
    """The caller's error; the cause of a fault of ours may name paths of this machine, so it goes to the log only."""
    logger.error("a model cannot be loaded: %s", cause)
    if kernel_killed or any(sign in cause for sign in SIGNS_OF_NO_MEMORY):
        return NotEnoughMemory(
            "there is too little memory to load the model: unload another, or give the container more"
        )
    if cause.startswith(INTERNAL_ERROR):
        return BundleError("the model cannot be loaded; the log has the cause")
    return BundleError(cause.removeprefix("BundleError: "))
