"""sagemaker-runtime: InvokeEndpoint and InvokeEndpointAsync."""

import queue
import threading
import time
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from typing import IO, Any

from botocore.exceptions import ClientError

from sagemaker_monai_aws.core.listing import encryption
from simulate.control import ControlPlane
from simulate.exchange import Answer, NoAnswerError, TooLargeError, TooLateError
from simulate.faults import ApiError
from simulate.hosting import Fleet, Hosting
from simulate.objects import fetch, listed, split, under
from simulate.serving import Server, definition, model_error
from simulate.world import ACCOUNT, World

PREFIX = "x-amzn-sagemaker-"
# Headers of the request that reach the container; AWS strips the others.
PASSED = ("content-type", "content-length", "accept",
          *(f"{PREFIX}{name}" for name in ("custom-attributes", "target-model", "inference-id")))  # fmt: skip
TIMED_OUT = b"Your invocation timed out while waiting for a response from container primary. Review the latency " \
            b"metrics for each container in Amazon CloudWatch, resolve the issue, and try again."  # fmt: skip


def refused(message: str, status: int = 400) -> ApiError:
    """A ValidationError of the run time."""
    return ApiError("ValidationError", message, status)


@dataclass(frozen=True)
class Waiting:
    """An asynchronous request in its queue."""

    endpoint: str
    fleet: Fleet
    identifier: str
    source: str | bytes
    headers: Mapping[str, str]
    output: str
    failure: str | None
    timeout_s: float
    expires: float
    region: str


class Runtime:
    """Answers for endpoints."""

    def __init__(self, world: World, plane: ControlPlane, hosting: Hosting) -> None:
        self._world, self._plane, self._hosting = world, plane, hosting
        self._queues: dict[str, queue.Queue[Waiting]] = {}
        self._lock = threading.Lock()

    def limit(self, endpoint: str, *, is_async: bool) -> int:
        """Largest body of a request, bytes."""
        fleet = self._hosting.settled(endpoint)
        if is_async:
            return self._world.limits.async_body_bytes
        is_serverless = fleet is not None and fleet.is_serverless
        return self._world.limits.serverless_bytes if is_serverless else self._world.limits.invoke_bytes

    def _fleet(self, endpoint: str, region: str, *, is_async: bool) -> Fleet:
        try:
            self._plane.find("Endpoint", endpoint, region)
        except ApiError as fault:
            raise refused(f"Endpoint {endpoint} of account {ACCOUNT} not found.") from fault
        fleet = self._hosting.fleet(endpoint)
        if fleet is None:
            raise refused(f"Endpoint {endpoint} of account {ACCOUNT} is not in service.")
        if is_async != (fleet.async_config is not None):
            raise refused(f"Endpoint {endpoint} is {'not ' if is_async else ''}asynchronous: use "
                          f"{'InvokeEndpoint' if is_async else 'InvokeEndpointAsync'}.")  # fmt: skip
        return fleet

    # At once

    def invoke(self, endpoint: str, headers: Mapping[str, str], body: bytes, region: str) -> Answer:
        """Answer a request.

        Args:
            endpoint: name.
            headers: with names in lower case.
            body: not larger than `limit`.
            region: of the request.

        Raises:
            ApiError: as the API names it.
        """
        fleet = self._fleet(endpoint, region, is_async=False)
        if not fleet.free.acquire(blocking=False):
            raise ApiError("ThrottlingException", "Rate exceeded")
        try:
            variant, server = fleet.choose(headers.get(f"{PREFIX}target-variant"))
            answer = self._ask(server, headers, body, self._world.limits.invoke_s,
                               self.limit(endpoint, is_async=False))  # fmt: skip
        finally:
            fleet.free.release()
        return Answer(200, {**answer.headers, "x-amzn-invoked-production-variant": variant}, answer.body)

    def _ask(self, server: Server, headers: Mapping[str, str], body: bytes | IO[bytes], timeout_s: float,
             limit_bytes: int) -> Answer:  # fmt: skip
        target = headers.get(f"{PREFIX}target-model")
        if server.is_multi_model != (target is not None):
            raise refused("Target model is required for multi-model endpoints" if server.is_multi_model else
                          "This endpoint is not a multi-model endpoint: TargetModel cannot be used")  # fmt: skip
        passed = {name: headers[name] for name in PASSED if name in headers}
        try:
            path = server.path_of(target, timeout_s) if target is not None else "/invocations"
            answer = server.ask("POST", path, body, passed, timeout_s=timeout_s, limit_bytes=limit_bytes)
            cache = definition(server.model).get("MultiModelConfig", {}).get("ModelCacheSetting")
            if target is not None and cache == "Disabled":
                server.unload(target)
        except TooLateError as error:
            raise model_error(0, TIMED_OUT, server.log_arn) from error
        except TooLargeError as error:
            raise model_error(500, b"The answer is larger than it may be.", server.log_arn) from error
        except NoAnswerError as error:
            raise ApiError("ServiceUnavailable", f"The container does not answer: {error}", 503) from error
        if answer.status >= 400:
            raise model_error(answer.status, answer.body, server.log_arn)
        return answer

    # Later

    def invoke_async(self, endpoint: str, headers: Mapping[str, str], body: bytes, region: str) -> dict[str, str]:
        """Queue a request.

        Returns:
            InferenceId, OutputLocation and, where the endpoint has a place for them, FailureLocation.

        Raises:
            ApiError: it cannot be queued.
        """
        fleet = self._fleet(endpoint, region, is_async=True)
        location = headers.get(f"{PREFIX}inputlocation")
        if (location is None) == (not body):
            raise refused("Exactly one of InputLocation and Body is needed")
        assert fleet.async_config is not None
        config = fleet.async_config["OutputConfig"]
        given = {name: headers.get(f"{PREFIX}{name}") for name in ("inference-id", "filename", "s3outputpathextension")}
        number = uuid.uuid5(uuid.NAMESPACE_URL, f"{endpoint}/{self._world.number(f'async {endpoint}')}")
        identifier = given["inference-id"] or str(number)
        place = under(config["S3OutputPath"], *filter(None, [given["s3outputpathextension"]]))
        output = under(place, given["filename"] or f"{number}.out")
        failure = under(config["S3FailurePath"], f"{number}-error.out") if "S3FailurePath" in config else None
        seconds = float(headers.get(f"{PREFIX}invocationtimeoutseconds", self._world.limits.async_invoke_s))
        lives_s = float(headers.get(f"{PREFIX}requestttlseconds", 21_600))
        passed = {name.removeprefix(PREFIX) if name.endswith(("content-type", "accept")) else name: value
                  for name, value in headers.items() if name.startswith(PREFIX)}  # fmt: skip
        waiting = Waiting(endpoint, fleet, identifier, body if location is None else location, passed, output, failure,
                          seconds, time.monotonic() + lives_s, region)  # fmt: skip
        try:
            self._queue(endpoint, fleet).put_nowait(waiting)
        except queue.Full as error:
            raise ApiError("ServiceUnavailable", "The queue of the endpoint is full.", 503) from error
        return {"InferenceId": identifier, "OutputLocation": output} | ({"FailureLocation": failure} if failure else {})

    def _queue(self, endpoint: str, fleet: Fleet) -> "queue.Queue[Waiting]":
        assert fleet.async_config is not None
        workers = fleet.async_config.get("ClientConfig", {}).get("MaxConcurrentInvocationsPerInstance", 1)
        with self._lock:
            if endpoint not in self._queues:
                self._queues[endpoint] = queue.Queue(self._world.limits.async_queue)
                for _ in range(min(workers, self._world.limits.concurrent_invocations)):
                    self._world.background(self._work, self._queues[endpoint])
            return self._queues[endpoint]

    def _work(self, waiting: "queue.Queue[Waiting]") -> None:
        while not self._world.closing.is_set():
            try:
                item = waiting.get(timeout=self._world.limits.poll_s)
            except queue.Empty:
                continue
            self._answer(item)

    def _answer(self, item: Waiting) -> None:
        s3 = self._world.client("s3", item.region)
        work = self._world.place("async")
        assert item.fleet.async_config is not None
        kms_key = item.fleet.async_config["OutputConfig"].get("KmsKeyId")
        try:
            try:
                answer = self._work_on(item, s3, work / "input")
                body, kind, place = answer.body, answer.headers.get("content-type", ""), item.output
            except ApiError as fault:
                self._world.note(f"endpoint {item.endpoint}: {item.identifier} failed: {fault.message[:200]}")
                body, kind, place = fault.message.encode(), "text/plain", item.failure or ""
            if place:
                bucket, key = split(place)
                s3.put_object(Bucket=bucket, Key=key, Body=body, ContentType=kind, **encryption(kms_key))
        except ClientError as error:
            self._world.note(f"endpoint {item.endpoint}: {item.identifier}: S3 takes no answer: {error}")
        finally:
            (work / "input").unlink(missing_ok=True)
            work.rmdir()

    def _work_on(self, item: Waiting, s3: Any, file: Any) -> Answer:
        if time.monotonic() > item.expires:
            raise refused("The request waited longer than RequestTTLSeconds")
        fleet = self._hosting.fleet(item.endpoint)
        if fleet is None:
            raise refused("The endpoint was deleted before it came to the request")
        _, server = fleet.choose(None)
        limit = self._world.limits.async_bytes
        if isinstance(item.source, bytes):
            return self._ask(server, item.headers, item.source, item.timeout_s, limit)
        try:
            bucket, key = split(item.source)
            size = s3.head_object(Bucket=bucket, Key=key)["ContentLength"]
            if size > limit:
                raise refused(f"The input has {size} bytes, and {limit} are allowed")
            [found] = [each for each in listed(s3, item.source) if each.key == key]
            fetch(s3, found, file)
        except ClientError as error:
            raise refused(f"Failed to download input data from {item.source}: "
                          f"{error.response['Error']['Message']}") from error  # fmt: skip
        with file.open("rb") as stream:
            headers = {**item.headers, "content-length": str(size)}
            return self._ask(server, headers, stream, item.timeout_s, limit)
