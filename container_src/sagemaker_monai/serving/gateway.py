"""The public port: the SageMaker contract over HTTP, and nothing that is not of it.

GET /ping, POST /invocations, GET /execution-parameters; every refusal is a small JSON body with a stable code, also
those of the HTTP parser. Bodies are limited in bytes, each and all together, and in time. aiohttp's low-level server is
used instead of its applications, because they answer errors in their own words before any code of ours runs.
"""

import asyncio
import json
import logging
import socket
import time
from collections.abc import Awaitable, Callable
from http import HTTPStatus
from typing import Any

from aiohttp import hdrs, web
from aiohttp.http_writer import StreamWriter
from aiohttp.web_protocol import RequestHandler

from sagemaker_monai.errors import (
    INTERNAL_ERROR,
    CallerError,
    MalformedRequest,
    MethodNotAllowed,
    NotFound,
    Overloaded,
    PayloadTooLarge,
    RequestTimeout,
    Unavailable,
    UnsupportedMediaType,
    error_body,
)
from sagemaker_monai.serving.back_end import BackEnd, Request, Response
from sagemaker_monai.serving.config import ServeConfig

logger = logging.getLogger(__name__)

HEADER_TIMEOUT_S = 20.0  # for a new connection to send its first request line and headers
BODY_PAUSE_S = 20.0  # between two pieces of a body
BODY_TIMEOUT_S = 60.0  # for a whole body
LINGER_S = 5.0  # a refused body is read this long, so that the client gets to read the refusal
MIN_HELD_BYTES = 512 * 1024 * 1024  # of bodies in memory at once; a guess, see `_HeldBytes`
RETRY_AFTER_S = 1
SERVER_NAME = "sagemaker-monai"
JSON_TYPE = "application/json"


class Gateway:
    """The server of the public port."""

    def __init__(self, config: ServeConfig, back_end: BackEnd) -> None:
        self._config = config
        self._back_end = back_end
        self._max_held_bytes = max(MIN_HELD_BYTES, 2 * config.max_payload_bytes)
        self._held_bytes = 0
        self._in_flight = 0
        self._idle = asyncio.Event()
        self._idle.set()
        self._is_draining = False
        self._runner: web.ServerRunner | None = None
        self._routes: dict[str, tuple[str, Callable[[web.BaseRequest], Awaitable[web.Response]]]] = {
            "/ping": ("GET", self._ping),
            "/invocations": ("POST", self._invoke),
            "/execution-parameters": ("GET", self._execution_parameters),
        }

    async def open(self, listener: socket.socket) -> None:
        """Listen.

        Args:
            listener: bound to the public port.
        """
        server = _JsonServer(
            self._handle, access_log=None, auto_decompress=False, lingering_time=LINGER_S, keepalive_timeout=75.0
        )
        self._runner = web.ServerRunner(server, shutdown_timeout=1.0)
        await self._runner.setup()
        await web.SockSite(self._runner, listener, backlog=1024).start()

    async def drain(self, timeout_s: float) -> None:
        """Refuse new requests (/ping is 503) and wait for those in flight, at most `timeout_s`."""
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
        try:
            response = await self._route(request)
        except CallerError as error:
            response = refusal(error)
        except ConnectionError:  # the client went away while it sent
            response = refusal(MalformedRequest("the connection ended inside the body"))
        except Exception:
            logger.exception("fault in the gateway")
            response = _json(error_body(INTERNAL_ERROR, "the server failed to answer"), status=500)
        response.headers[hdrs.SERVER] = SERVER_NAME
        if self._is_draining:
            response.force_close()
        path = request.path if request.path in self._routes else "other"  # a stranger's path does not belong in a log
        level = logging.DEBUG if path == "/ping" and response.status == HTTPStatus.OK else logging.INFO
        milliseconds = (time.monotonic() - started) * 1000
        logger.log(level, "%s %d %.1f ms", path, response.status, milliseconds)
        return response

    async def _route(self, request: web.BaseRequest) -> web.Response:
        if request.path not in self._routes:
            raise NotFound(f"the paths are {', '.join(self._routes)}")
        method, route = self._routes[request.path]
        if request.method != method:
            response = refusal(MethodNotAllowed(f"use {method}"))
            response.headers[hdrs.ALLOW] = method
            return response
        return await route(request)

    async def _ping(self, _: web.BaseRequest) -> web.Response:
        if self._is_draining or not self._back_end.is_alive():
            raise Unavailable("no worker is ready")
        return web.Response(content_type=JSON_TYPE)

    async def _execution_parameters(self, _: web.BaseRequest) -> web.Response:
        # A record is an image, and images cannot be joined to one body: batch transform must send one at a time.
        parameters = {
            "MaxConcurrentTransforms": self._config.max_concurrent_transforms,
            "BatchStrategy": "SINGLE_RECORD",
            "MaxPayloadInMB": self._config.max_transform_payload_mb,
        }
        return _json(parameters)

    async def _invoke(self, request: web.BaseRequest) -> web.Response:
        if self._is_draining:
            raise Unavailable("the server is shutting down; send this request again")
        self._in_flight += 1
        self._idle.clear()
        held = _HeldBytes(self)
        try:
            content_type = _header(request, hdrs.CONTENT_TYPE)
            if not content_type:
                raise UnsupportedMediaType("the header Content-Type is missing; it says what the body is")
            encoding = _header(request, hdrs.CONTENT_ENCODING).lower()
            if encoding not in ("", "identity"):
                raise UnsupportedMediaType("Content-Encoding is not supported; send the body as it is")
            body = await self._read_body(request, held)
            answer = await self._back_end.answer(Request(body, content_type, _header(request, hdrs.ACCEPT)))
            return as_http(answer)
        finally:
            held.release()
            self._in_flight -= 1
            if self._in_flight == 0:
                self._idle.set()

    async def _read_body(self, request: web.BaseRequest, held: "_HeldBytes") -> bytes:
        limit = self._config.max_payload_bytes
        too_large = PayloadTooLarge(f"the body is larger than {self._config.max_payload_mb} MiB")
        if (request.content_length or 0) > limit:
            raise too_large
        if _header(request, hdrs.EXPECT).lower() == "100-continue":
            await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
            assert isinstance(request.writer, StreamWriter)
            request.writer.output_size = 0  # the answer itself has not begun
        body = bytearray()
        try:
            async with asyncio.timeout(BODY_TIMEOUT_S):
                while True:
                    async with asyncio.timeout(BODY_PAUSE_S):
                        piece = await request.content.readany()
                    if not piece:
                        break
                    held.add(len(piece))
                    body += piece
                    if len(body) > limit:
                        raise too_large
        except TimeoutError as error:
            raise RequestTimeout("the body came too slowly") from error
        except web.RequestPayloadError as error:
            raise MalformedRequest("the body ended too early or its framing is broken") from error
        if not body:
            raise MalformedRequest("the body is empty")
        return bytes(body)


class _HeldBytes:
    """Counts the bytes of one body towards what the gateway holds in memory: many large bodies must not end it."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway
        self._size = 0

    def add(self, size: int) -> None:
        self._size += size
        self._gateway._held_bytes += size
        if self._gateway._held_bytes > self._gateway._max_held_bytes:
            raise Overloaded("too many bytes wait to be answered; send this request again later")

    def release(self) -> None:
        self._gateway._held_bytes -= self._size


def refusal(error: CallerError) -> web.Response:
    """The HTTP form of an error."""
    response = _json(error_body(error.code, str(error)), status=error.status)
    if isinstance(error, (Overloaded, Unavailable)):
        response.headers[hdrs.RETRY_AFTER] = str(RETRY_AFTER_S)
    return response


def as_http(answer: Response) -> web.Response:
    """The HTTP form of a back end's answer."""
    return web.Response(status=answer.status, body=answer.body, headers={hdrs.CONTENT_TYPE: answer.content_type})


def _json(value: Any, *, status: int = 200) -> web.Response:
    return web.Response(body=json.dumps(value).encode(), status=status, headers={hdrs.CONTENT_TYPE: JSON_TYPE})


def _header(request: web.BaseRequest, name: str) -> str:
    """A header as plain text without control characters; what is not ASCII cannot be a media type and becomes "?"."""
    return request.headers.get(name, "").encode("ascii", "replace").decode().strip()


class _JsonRequestHandler(RequestHandler):
    """aiohttp's connection with our error bodies, and an end to connections that never send a request."""

    __slots__ = ("_first_request_timer",)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        loop = asyncio.get_running_loop()
        self._first_request_timer = loop.call_later(HEADER_TIMEOUT_S, self._close_if_silent)

    def connection_lost(self, exc: BaseException | None) -> None:
        self._first_request_timer.cancel()
        super().connection_lost(exc)

    def _close_if_silent(self) -> None:
        if self._request_count == 0:
            self.force_close()

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,  # noqa: ARG002 - it quotes the client's bytes
    ) -> web.StreamResponse:
        """Answer what the parser refused, in our words."""
        if request.writer.output_size > 0:
            raise ConnectionError("the answer has already begun")
        if exc is not None and status >= HTTPStatus.INTERNAL_SERVER_ERROR:
            logger.error("fault in the gateway", exc_info=exc)
        is_client = status < HTTPStatus.INTERNAL_SERVER_ERROR
        code, text = ("MalformedRequest", "not valid HTTP") if is_client else (INTERNAL_ERROR, "the server failed")
        logger.info("other %d", status)
        response = _json(error_body(code, text), status=status)
        response.headers[hdrs.SERVER] = SERVER_NAME
        response.force_close()
        return response


class _JsonServer(web.Server):
    """Makes `_JsonRequestHandler`s."""

    def __call__(self) -> RequestHandler:
        return _JsonRequestHandler(self, loop=self._loop, **self._kwargs)

    def __init__(self, handler: Callable[[web.BaseRequest], Awaitable[web.StreamResponse]], **kwargs: Any) -> None:
        super().__init__(handler, **kwargs)
