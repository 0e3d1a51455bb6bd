"""aiohttp's low-level server with our error bodies, and the HTTP form of the gateway's answers.

aiohttp's applications are not used, because they answer errors in their own words before our code runs.
"""

import asyncio
import json
import logging
from collections.abc import Awaitable, Callable
from http import HTTPStatus
from typing import Any

from aiohttp import hdrs, web
from aiohttp.web_protocol import RequestHandler
from sagemaker_inference import content_types

from sagemaker_monai.errors import INTERNAL_ERROR, CallerError, Overloaded, Unavailable, error_body
from sagemaker_monai.serving.back_end import Response

logger = logging.getLogger(__name__)

HEADER_TIMEOUT_S = 20.0  # for a new connection to send its first request line and headers
LINGER_S = 5.0  # a refused body is read this long, so that the client can read the refusal
KEEP_ALIVE_S = 75.0
RETRY_AFTER_S = 1
SERVER_NAME = "sagemaker-monai"
JSON_TYPE = content_types.JSON


def refusal(error: CallerError) -> web.Response:
    """The HTTP form of an error."""
    response = json_answer(error_body(error.code, str(error)), status=error.status)
    if isinstance(error, (Overloaded, Unavailable)):
        response.headers[hdrs.RETRY_AFTER] = str(RETRY_AFTER_S)
    return response


def as_http(answer: Response) -> web.Response:
    """The HTTP form of a back end's answer."""
    return web.Response(status=answer.status, body=answer.body, headers={hdrs.CONTENT_TYPE: answer.content_type})


def json_answer(value: Any, *, status: int = 200) -> web.Response:
    """A JSON body."""
    return web.Response(body=json.dumps(value).encode(), status=status, headers={hdrs.CONTENT_TYPE: JSON_TYPE})


def header(request: web.BaseRequest, name: str) -> str:
    """A header as plain text; characters beyond ASCII, which no media type has, become "?"."""
    return request.headers.get(name, "").encode("ascii", "replace").decode().strip()


class _JsonRequestHandler(RequestHandler):
    """aiohttp's connection with our error bodies and a time limit for the first request."""

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
        """Answer what the HTTP parser refused."""
        if request.writer.output_size > 0:
            raise ConnectionError("the answer has already begun")
        if exc is not None and status >= HTTPStatus.INTERNAL_SERVER_ERROR:
            logger.error("fault in the gateway", exc_info=exc)
        is_client = status < HTTPStatus.INTERNAL_SERVER_ERROR
        code, text = ("MalformedRequest", "not valid HTTP") if is_client else (INTERNAL_ERROR, "the server failed")
        logger.info("other %d", status)
        response = json_answer(error_body(code, text), status=status)
        response.headers[hdrs.SERVER] = SERVER_NAME
        response.force_close()
        return response


class JsonServer(web.Server):
    """Makes `_JsonRequestHandler`s."""

    def __init__(self, handler: Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]) -> None:
        super().__init__(
            handler,
            handler_cancellation=True,  # nobody reads the answer of a client that left
            access_log=None,
            auto_decompress=False,
            lingering_time=LINGER_S,
            keepalive_timeout=KEEP_ALIVE_S,
        )

    def __call__(self) -> RequestHandler:
        """A connection, for asyncio."""
        return _JsonRequestHandler(self, loop=self._loop, **self._kwargs)
