"""The public port: the SageMaker contract over HTTP, and nothing else.

For one model GET /ping, POST /invocations and GET /execution-parameters; in multi-model mode GET /ping and the paths
below /models. Every refusal is a small JSON body with a stable code, also those of the HTTP parser. Bodies are limited
in size, each and all together, and in time.
"""

import asyncio
import logging
import socket
import time
from collections.abc import Awaitable, Callable
from contextlib import ExitStack, closing
from http import HTTPStatus
from typing import Any
from urllib.parse import unquote

from aiohttp import hdrs, web
from aiohttp.http_writer import StreamWriter
from sagemaker_inference import content_types

from sagemaker_monai.errors import (
    INTERNAL_ERROR,
    CallerError,
    MalformedRequest,
    MethodNotAllowed,
    NotFound,
    Overloaded,
    PayloadTooLarge,
    RequestTimeout,
    Timeout,
    Unavailable,
    UnsupportedMediaType,
    error_body,
)
from sagemaker_monai.serving.back_end import BackEnd, Request, Response
from sagemaker_monai.serving.json_server import (
    JSON_TYPE,
    SERVER_NAME,
    JsonServer,
    as_http,
    header,
    json_answer,
    refusal,
)
from sagemaker_monai.serving.model_requests import LOAD_BODY_BYTES, parse_load
from sagemaker_monai.serving.models import ModelStore
from sagemaker_monai.serving.references import MAX_REFERENCES_BYTES, ObjectStore, names_objects
from sagemaker_monai.serving.settings import MAX_ANSWER, ServeConfig
from sagemaker_monai.serving.spool import Body, BodyWriter, FileBody, head, spooled

logger = logging.getLogger(__name__)

BODY_PAUSE_S = 20.0  # between two pieces of a body
BODY_TIMEOUT_S = 60.0  # for a whole body
HEAD_BYTES = 200  # of a body: enough to see whether it names objects
SHUTTING_DOWN = "the server is shutting down; send this request again"
MIN_HELD_BYTES = 512 * 1024 * 1024  # of all bodies, in memory and in files; a guess, see `_HeldBytes`

Handler = Callable[[web.BaseRequest, str], Awaitable[web.Response]]  # the request and the model's name in its path


def pattern_of(path: str) -> tuple[str, str]:
    """The key of a path in the table of routes, and the model's name in the path, percent-decoded once.

    For /models/a%20b/invoke "/models/{name}/invoke" and "a b"; other paths as they are, and "".
    """
    parts = path.split("/")
    if parts[:2] != ["", "models"] or len(parts) < 3:
        return path, ""
    name = unquote(parts[2])
    parts[2] = "{name}"
    return "/".join(parts), name


class Gateway:
    """The server of the public port.

    Args:
        config: the settings.
        back_end: answers the requests.
        objects: the store of objects that requests may name; None: they may name none.
    """

    def __init__(
        self, config: ServeConfig, back_end: BackEnd | ModelStore, *, objects: ObjectStore | None = None
    ) -> None:
        self._config = config
        self._objects = objects
        self._back_end = back_end
        self._max_held_bytes = max(MIN_HELD_BYTES, 2 * config.max_payload_bytes)
        self._held_bytes = 0
        self._in_flight = 0
        self._idle = asyncio.Event()
        self._idle.set()
        self._is_draining = False
        self._runner: web.ServerRunner | None = None
        self._routes: dict[str, dict[str, Handler]] = {"/ping": {"GET": self._ping}}
        if isinstance(back_end, ModelStore):
            self._models = back_end
            self._routes |= {
                "/models": {"GET": self._list_models, "POST": self._load_model},
                "/models/{name}": {"GET": self._describe_model, "DELETE": self._unload_model},
                "/models/{name}/invoke": {"POST": self._invoke_model},
            }
        else:
            self._answer = back_end.answer
            self._routes |= {
                "/invocations": {"POST": self._invoke},
                "/execution-parameters": {"GET": self._execution_parameters},
            }

    async def open(self, listener: socket.socket) -> None:
        """Listen on a socket that is bound to the public port."""
        self._runner = web.ServerRunner(JsonServer(self._handle), shutdown_timeout=1.0)
        await self._runner.setup()
        await web.SockSite(self._runner, listener, backlog=1024).start()

    async def drain(self, timeout_s: float) -> None:
        """Refuse new requests (/ping is 503) and wait at most `timeout_s` for those in flight."""
        self._is_draining = True
        try:
            await asyncio.wait_for(self._idle.wait(), timeout_s)
        except TimeoutError:
            logger.error("%d requests were not answered within %g s", self._in_flight, timeout_s)

    async def close(self) -> None:
        """Close the port and every connection."""
        if self._runner is not None:
            await self._runner.cleanup()

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        started = time.monotonic()
        pattern, name = pattern_of(request.rel_url.raw_path)
        try:
            response = await self._route(request, pattern, name)
        except CallerError as error:
            response = refusal(error)
        except ConnectionError:  # the client left while it was sending
            response = refusal(MalformedRequest("the connection ended inside the body"))
        except asyncio.CancelledError:  # the client left and nobody reads the answer
            path = pattern if pattern in self._routes else "other"
            logger.info("%s: the client left after %.1f ms", path, (time.monotonic() - started) * 1000)
            raise
        except Exception:
            logger.exception("fault in the gateway")
            response = json_answer(error_body(INTERNAL_ERROR, "the server failed to answer"), status=500)
        response.headers[hdrs.SERVER] = SERVER_NAME
        if self._is_draining:
            response.force_close()
        path = pattern if pattern in self._routes else "other"  # unknown paths are not logged
        level = logging.DEBUG if path == "/ping" and response.status == HTTPStatus.OK else logging.INFO
        milliseconds = (time.monotonic() - started) * 1000
        logger.log(level, "%s %d %.1f ms", path, response.status, milliseconds)
        return response

    async def _route(self, request: web.BaseRequest, pattern: str, name: str) -> web.Response:
        if pattern not in self._routes:
            raise NotFound(f"the paths are {', '.join(self._routes)}")
        methods = self._routes[pattern]
        if request.method not in methods:
            response = refusal(MethodNotAllowed(f"use {' or '.join(methods)}"))
            response.headers[hdrs.ALLOW] = ", ".join(methods)
            return response
        return await methods[request.method](request, name)

    async def _ping(self, _: web.BaseRequest, _name: str) -> web.Response:
        if self._is_draining or not self._back_end.is_alive():
            raise Unavailable("no worker is ready")
        return web.Response(content_type=JSON_TYPE)

    async def _execution_parameters(self, _: web.BaseRequest, _name: str) -> web.Response:
        # A record is an image, and images cannot be joined into one body: batch transform must send one at a time.
        parameters = {
            "MaxConcurrentTransforms": self._config.max_concurrent_transforms,
            "BatchStrategy": "SINGLE_RECORD",
            "MaxPayloadInMB": self._config.max_transform_payload_mb,
        }
        return json_answer(parameters)

    async def _invoke(self, request: web.BaseRequest, _name: str) -> web.Response:
        return await self._predict(request, self._answer)

    async def _invoke_model(self, request: web.BaseRequest, name: str) -> web.Response:
        self._models.url_of(name)  # before its body is read
        return await self._predict(request, lambda question: self._models.answer(name, question))

    async def _list_models(self, request: web.BaseRequest, _name: str) -> web.Response:
        query = request.rel_url.query
        models, next_token = self._models.list_models(
            limit=query.get("limit", ""), token=query.get("next_page_token", "")
        )
        body: dict[str, Any] = {"models": [_description(name, url) for name, url in models.items()]}
        return json_answer(body if next_token is None else body | {"nextPageToken": next_token})

    async def _describe_model(self, _: web.BaseRequest, name: str) -> web.Response:
        return json_answer(_description(name, self._models.url_of(name)))

    async def _load_model(self, request: web.BaseRequest, _name: str) -> web.Response:
        if self._is_draining:
            raise Unavailable(SHUTTING_DOWN)
        held = _HeldBytes(self)
        try:
            body = await self._read_body(request, held, limit_bytes=LOAD_BODY_BYTES)
            assert isinstance(body, bytes)  # too small to be spooled
            name, url = parse_load(body)
        finally:
            held.release()
        await self._models.load(name, url)
        return json_answer(_description(name, url))

    async def _unload_model(self, _: web.BaseRequest, name: str) -> web.Response:
        await self._models.unload(name)
        return json_answer({})

    async def _predict(
        self, request: web.BaseRequest, answer: Callable[[Request], Awaitable[Response]]
    ) -> web.Response:
        if self._is_draining:
            raise Unavailable(SHUTTING_DOWN)
        self._in_flight += 1
        self._idle.clear()
        held = _HeldBytes(self)
        stack = ExitStack()
        try:
            content_type = header(request, hdrs.CONTENT_TYPE)
            if not content_type:
                raise UnsupportedMediaType("the header Content-Type is missing; send the media type of the body")
            encoding = header(request, hdrs.CONTENT_ENCODING).lower()
            if encoding not in ("", "identity"):
                raise UnsupportedMediaType("Content-Encoding is not supported; send the body as it is")
            body = await self._read_body(request, held, limit_bytes=self._config.max_payload_bytes)
            if isinstance(body, FileBody):
                stack.enter_context(closing(body))
            if self._objects is not None and names_objects(head(body, HEAD_BYTES), content_type):
                body, content_type = await self._fetch(self._objects, head(body, MAX_REFERENCES_BYTES + 1), held)
                if isinstance(body, FileBody):
                    stack.enter_context(closing(body))
            accept = header(request, hdrs.ACCEPT)
            if accept.strip() in ("", content_types.ANY):  # as sagemaker-inference takes them
                accept = self._config.default_accept
            question = (
                Request(b"", content_type, accept, body)
                if isinstance(body, FileBody)
                else Request(body, content_type, accept)
            )
            response = await answer(question)
            self._check_size(response)
            return as_http(response)
        finally:
            stack.close()
            held.release()
            self._in_flight -= 1
            if self._in_flight == 0:
                self._idle.set()

    def _check_size(self, response: Response) -> None:
        """Refuse an answer that SageMaker would not pass on, with its size; it would only break the connection."""
        if len(response.body) > self._config.max_answer_bytes:
            raise PayloadTooLarge(
                f"the answer has {len(response.body)} bytes and may have {_size(int(self._config.max_answer_bytes))} "
                f"({MAX_ANSWER}); accept a smaller form (application/dicom; type=labelmap, application/x-nifti+gzip, "
                "application/json), send less at once, or use an asynchronous endpoint"
            )

    async def _fetch(self, objects: ObjectStore, body: bytes, held: "_HeldBytes") -> tuple[Body, str]:
        """Fetch the objects that a request names; the processes that answer have no credentials for it."""
        try:
            async with asyncio.timeout(self._config.timeout_s):
                plan = await asyncio.to_thread(objects.locate, body)
                held.add(plan.size_bytes)
                fetched, content_type = await asyncio.to_thread(objects.fetch, plan)
                return await spooled(fetched), content_type
        except TimeoutError as error:
            raise Timeout("the objects took too long to read; name fewer or smaller ones") from error

    async def _read_body(self, request: web.BaseRequest, held: "_HeldBytes", *, limit_bytes: int) -> Body:
        too_large = PayloadTooLarge(f"the body is larger than {_size(limit_bytes)}")
        if (request.content_length or 0) > limit_bytes:
            raise too_large
        if header(request, hdrs.EXPECT).lower() == "100-continue":
            await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
            assert isinstance(request.writer, StreamWriter)
            request.writer.output_size = 0  # the answer itself has not begun
        body = BodyWriter()
        try:
            async with asyncio.timeout(BODY_TIMEOUT_S):
                while True:
                    async with asyncio.timeout(BODY_PAUSE_S):
                        piece = await request.content.readany()
                    if not piece:
                        break
                    held.add(len(piece))
                    if body.size_bytes + len(piece) > limit_bytes:
                        raise too_large
                    await body.add(piece)
            if not body.size_bytes:
                raise MalformedRequest("the body is empty")
            return await body.finish()
        except TimeoutError as error:
            raise RequestTimeout("the body arrived too slowly") from error
        except web.RequestPayloadError as error:
            raise MalformedRequest("the body ended too early or its framing is broken") from error
        finally:
            body.close()


class _HeldBytes:
    """Counts the bytes of one body towards what the gateway holds, so that many large bodies cannot exhaust memory."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway
        self._size = 0

    def add(self, size: int) -> None:
        self._size += size
        self._gateway._held_bytes += size
        if self._gateway._held_bytes > self._gateway._max_held_bytes:
            raise Overloaded("the bodies of waiting requests are too large together; send this request again later")

    def release(self) -> None:
        self._gateway._held_bytes -= self._size


def _description(name: str, url: str) -> dict[str, str]:
    return {"modelName": name, "modelUrl": url}


def _size(size_bytes: int) -> str:
    return f"{size_bytes // (1024 * 1024)} MiB" if size_bytes >= 1024 * 1024 else f"{size_bytes // 1024} KiB"
