"""The front on loopback: SageMaker's requests to these modules, everything else to moto, in one process.

moto keeps the state of its services for as long as the process lives; that of SageMaker ends with the simulation.
"""

import json
import os
import re
import shutil
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from moto.core.utils import camelcase_to_underscores
from moto.moto_server.werkzeug_app import DomainDispatcherApplication, MotoRequestHandler, create_backend_app
from moto.sagemaker.responses import SageMakerResponse
from werkzeug.serving import make_server

from simulate import batch, processing, training, tuning
from simulate.containers import DockerRunner, require_docker
from simulate.control import ControlPlane
from simulate.faults import ApiError
from simulate.hosting import Hosting
from simulate.limits import LIMITS, Limits
from simulate.processes import ProcessRunner
from simulate.runners import Runner
from simulate.runtime import PREFIX, Runtime
from simulate.world import CREDENTIALS, REGION, World, print_event

INVOCATION = re.compile(r"/endpoints/([^/]+)/(async-)?invocations")
SCOPE = re.compile(r"Credential=[^/]+/[^/]+/([^/]+)/([^/]+)/aws4_request")
JSON = "application/x-amz-json-1.1"
# Headers of an answer that AWS passes on.
ANSWERED = ("content-type", f"{PREFIX}custom-attributes", "x-amzn-invoked-production-variant")
DRAINED_BYTES = 64 << 20  # of a body that is too large, so that its sender reads the answer
Start = Callable[[str, list[tuple[str, str]]], object]


class QuietHandler(MotoRequestHandler):
    """Without a line on the terminal for each request."""

    def log(self, type: str, message: str, *args: Any) -> None:
        """Write nothing."""


class Front:
    """The WSGI application."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._moto = DomainDispatcherApplication(create_backend_app)
        self.plane: ControlPlane | None = None
        self.runtime: Runtime | None = None

    def __call__(self, environ: dict[str, Any], start: Start) -> Iterable[bytes]:
        """Answer one request."""
        scope = SCOPE.search(environ.get("HTTP_AUTHORIZATION", ""))
        region, service = scope.groups() if scope else (REGION, "")
        target = environ.get("HTTP_X_AMZ_TARGET", "")
        path = environ.get("PATH_INFO", "")
        try:
            if target.startswith("SageMaker."):
                return self._control(environ, start, target.removeprefix("SageMaker."), region)
            if service == "sagemaker" and (match := INVOCATION.fullmatch(path)):
                return self._invoke(environ, start, unquote(match[1]), region, is_async=match[2] is not None)
            if int(environ.get("CONTENT_LENGTH") or 0) > self._limits.other_bytes:
                raise ApiError("RequestEntityTooLarge", "The body is larger than the simulation takes", 413)
        except ApiError as fault:
            return _error(start, fault)
        return self._elsewhere(environ, start)

    def _elsewhere(self, environ: dict[str, Any], start: Start) -> Iterable[bytes]:
        answer: Iterable[bytes] = self._moto(environ, start)
        return answer

    def _control(self, environ: dict[str, Any], start: Start, operation: str, region: str) -> Iterable[bytes]:
        body = _body(environ, self._limits.control_bytes)
        assert self.plane is not None
        try:
            request = json.loads(body or b"{}")
        except (ValueError, RecursionError) as error:
            raise ApiError("SerializationException", "The request is not JSON") from error
        if not isinstance(request, dict):
            raise ApiError("SerializationException", "The request is not a JSON object")
        if not self.plane.knows(operation, request):
            if not hasattr(SageMakerResponse, camelcase_to_underscores(operation)):
                raise ApiError("UnknownOperationException", f"{operation} is not simulated offline: run it on AWS")
            environ["wsgi.input"] = _Replayed(body)
            return self._elsewhere(environ, start)
        answer = json.dumps(self.plane.handle(operation, request, region)).encode()
        return _answer(start, 200, answer, {"Content-Type": JSON})

    def _invoke(self, environ: dict[str, Any], start: Start, endpoint: str, region: str, *,
                is_async: bool) -> Iterable[bytes]:  # fmt: skip
        assert self.runtime is not None
        body = _body(environ, self.runtime.limit(endpoint, is_async=is_async))
        headers = {name.removeprefix("HTTP_").replace("_", "-").lower(): value for name, value in environ.items()
                   if name.startswith("HTTP_") or name in ("CONTENT_TYPE", "CONTENT_LENGTH")}  # fmt: skip
        if not is_async:
            found = self.runtime.invoke(endpoint, headers, body, region)
            return _answer(start, 200, found.body, {name: found.headers[name] for name in ANSWERED
                                                    if name in found.headers})  # fmt: skip
        queued = self.runtime.invoke_async(endpoint, headers, body, region)
        names = {f"{PREFIX}{name}": queued[name] for name in ("OutputLocation", "FailureLocation") if name in queued}
        body = json.dumps({"InferenceId": queued["InferenceId"]}).encode()
        return _answer(start, 202, body, {"Content-Type": "application/json", **names})


class _Replayed:
    """A body that was read, for another application."""

    def __init__(self, body: bytes) -> None:
        self._body = body

    def read(self, size: int = -1) -> bytes:
        """Some of what is left."""
        part = self._body if size < 0 else self._body[:size]
        self._body = self._body[len(part) :]
        return part


def _body(environ: Mapping[str, Any], limit: int) -> bytes:
    length = environ.get("CONTENT_LENGTH") or "0"
    size = int(length) if length.isdecimal() else 0
    stream = environ["wsgi.input"]
    if size > limit:
        left = min(size, DRAINED_BYTES)
        while left > 0 and (part := stream.read(min(left, 1 << 20))):
            left -= len(part)
        raise ApiError("ValidationError", f"HTTP content length exceeded {limit} bytes.", 413)
    body: bytes = stream.read(size) if size else b""
    return body


def _answer(start: Start, status: int, body: bytes, headers: Mapping[str, str]) -> Iterable[bytes]:
    start(f"{status} ", [*headers.items(), ("Content-Length", str(len(body)))])
    return [body]


def _error(start: Start, fault: ApiError) -> Iterable[bytes]:
    body = {"__type": fault.code, "message": fault.message, "Message": fault.message, **fault.fields}
    return _answer(start, fault.status, json.dumps(body).encode(), {"Content-Type": JSON,
                                                                    "x-amzn-ErrorType": fault.code})  # fmt: skip


@dataclass(frozen=True)
class Simulation:
    """A running simulation.

    Attributes:
        url: for AWS_ENDPOINT_URL.
        environment: what a process needs in its environment to speak to it.
    """

    url: str
    world: World
    plane: ControlPlane
    hosting: Hosting
    environment: Mapping[str, str] = field(default_factory=dict)


def make_runner(back_end: str, image: str | None) -> Runner:
    """The back end of a name; raises JobError where there is no Docker for it."""
    if back_end == "venv":
        return ProcessRunner()
    require_docker()
    return DockerRunner(image)


@contextmanager
def simulated_aws(
    folder: Path,
    *,
    back_end: str = "venv",
    image: str | None = None,
    interrupt_after_s: float | None = None,
    port: int = 0,
    limits: Limits = LIMITS,
    runner: Runner | None = None,
    note: Callable[[str], None] = print_event,
) -> Iterator[Simulation]:
    """AWS on loopback for as long as the block runs; then nothing of it is left but moto's state.

    Args:
        folder: a folder in it is used, and removed at the end.
        back_end: `docker` or `venv`.
        image: on this machine, in place of images that are not.
        interrupt_after_s: seconds of training after which a spot job is interrupted, once.
        port: 0: any.
        limits: SageMaker's rules.
        runner: in place of the back end.
        note: takes a line for each event.

    Raises:
        JobError: there is no Docker.
        OSError: the port is taken.
    """
    runner = runner or make_runner(back_end, image)
    front = Front(limits)
    server = make_server("127.0.0.1", port, front, threaded=True, request_handler=QuietHandler)
    url = f"http://127.0.0.1:{server.port}"
    place = folder.resolve() / f"run-{os.getpid()}-{server.port}"
    place.mkdir(parents=True)
    world = World(url, place, runner, limits, interrupt_after_s, note)
    plane = ControlPlane(world)
    hosting = Hosting(world, plane)
    plane.lives |= {
        "TrainingJob": training.life(world),
        "HyperParameterTuningJob": tuning.life(plane),
        "ProcessingJob": processing.life(world),
        "TransformJob": batch.life(plane),
    }
    front.plane, front.runtime = plane, Runtime(world, plane, hosting)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    variables = {name.upper(): value for name, value in CREDENTIALS.items()}
    variables |= {"AWS_ENDPOINT_URL": url, "AWS_REGION": REGION, "AWS_DEFAULT_REGION": REGION}
    try:
        yield Simulation(url, world, plane, hosting, variables)
    finally:
        world.close()
        hosting.close()
        runner.close()
        server.shutdown()
        thread.join()
        server.server_close()
        shutil.rmtree(place, ignore_errors=True)
