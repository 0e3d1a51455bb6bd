"""One container that serves: started, asked for /ping until it is healthy, restarted when it ends, stopped in time."""

import hashlib
import json
import shutil
import threading
import time
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

from simulate.exchange import Answer, NoAnswerError, TooLargeError, TooLateError, exchange
from simulate.faults import ApiError, JobError
from simulate.kinds import Resource
from simulate.logs import LogStream
from simulate.objects import fetch_archive, fetch_model, split, under
from simulate.runners import ML, Order, Running, stop
from simulate.world import ACCOUNT, World

MULTI_MODEL = "MultiModel"


def definition(model: Resource) -> dict[str, Any]:
    """The one container of a model."""
    container: dict[str, Any] = model.request.get("PrimaryContainer") or model.request["Containers"][0]
    return container


class Server:
    """A container for one model, or for many.

    Args:
        world: the simulation.
        model: what it serves.
        log_place: group and beginning of the stream of its log.
        environment: variables besides the model's own.
        memory_mb: limit; None: none.
    """

    def __init__(self, world: World, model: Resource, log_place: tuple[str, str], *,
                 environment: Mapping[str, str] | None = None, memory_mb: int | None = None) -> None:  # fmt: skip
        self._world, self.model, self._log_place = world, model, log_place
        self._container = definition(model)
        self._environment = {"AWS_REGION": model.region, **(environment or {})}
        self._memory_mb = memory_mb
        self._s3 = world.client("s3", model.region)
        self._base = world.place(model.name) / "serve"
        self.running: Running | None = None
        self._stream: LogStream | None = None
        self.loaded: OrderedDict[str, str] = OrderedDict()  # target -> name, the least recently used first
        self._load_lock = threading.RLock()
        self._life_lock = threading.Lock()  # what was stopped is not started again
        self._is_stopped = False
        self.is_multi_model = self._container.get("Mode") == MULTI_MODEL
        if self.is_multi_model:
            self._environment["SAGEMAKER_MULTI_MODEL"] = "true"

    @property
    def log_arn(self) -> str:
        """Of its log group in CloudWatch."""
        return f"arn:aws:logs:{self.model.region}:{ACCOUNT}:log-group:{self._log_place[0]}"

    def start(self, name: str, startup_s: float) -> None:
        """Download, start and wait until /ping is 200.

        Args:
            name: of the variant, for the reason of a failure.
            startup_s: how long it may take after the download.

        Raises:
            JobError: it is not healthy in time.
        """
        folder = self._base / ("models" if self.is_multi_model else "model")
        folder.mkdir(parents=True)
        if not self.is_multi_model:
            fetch_model(self._s3, self._container, folder, self._base)
        self._run()
        deadline = time.monotonic() + startup_s
        while not self.is_healthy():
            if time.monotonic() > deadline or self._world.closing.wait(self._world.limits.ping_interval_s):
                raise JobError(f"The primary container for production variant {name} did not pass the ping health "
                               "check. Please check CloudWatch logs for this endpoint.")  # fmt: skip

    def _run(self) -> None:
        order = Order(
            image=self._container["Image"],
            words=("serve",),
            base=self._base,
            only=("models",) if self.is_multi_model else ("model",),
            environment={**self._container.get("Environment", {}), **self._environment},
            host="model",
            hosts=("model",),
            is_isolated=self.model.request.get("EnableNetworkIsolation", False),
            serves=True,
            memory_mb=self._memory_mb,
            shm_bytes=self._world.limits.shm_bytes,
        )
        [self.running] = self._world.runner.start([order])
        group, stream = self._log_place
        stream = f"{stream}/i-{self._world.number('instance'):017x}"
        self._stream = LogStream(self._world, self.model.region, group, stream, self.running.log)
        self.loaded.clear()

    def is_healthy(self) -> bool:
        """Whether /ping answers 200 in time; a container that ended is started again, as SageMaker replaces it."""
        with self._life_lock:
            if self._is_stopped or self.running is None or self._stream is None:
                return False
            has_ended = self.running.code() is not None
            self._stream.ship(is_last=has_ended)
            if has_ended:
                self.running.remove()
                self._run()
                return False
            address = self.running.address
        try:
            answer = exchange(address, "GET", "/ping", timeout_s=self._world.limits.ping_timeout_s,
                              limit_bytes=1 << 16)  # fmt: skip
        except (NoAnswerError, TooLateError, TooLargeError):
            return False
        return answer.status == 200

    def ask(self, method: str, path: str, body: bytes | IO[bytes] | None = None,
            headers: Mapping[str, str] | None = None, *, timeout_s: float, limit_bytes: int) -> Answer:  # fmt: skip
        """One request; raises as `exchange`."""
        assert self.running is not None
        return exchange(self.running.address, method, path, body, headers, timeout_s=timeout_s, limit_bytes=limit_bytes)

    def stop(self) -> None:
        """SIGTERM, `serve_stop_s`, SIGKILL."""
        with self._life_lock:
            if self._is_stopped:
                return
            self._is_stopped = True
        if self.running is not None:
            stop([self.running], 0 if self._world.closing.is_set() else self._world.limits.serve_stop_s)
            if self._stream is not None and not self._world.closing.is_set():
                self._stream.ship(is_last=True)
        shutil.rmtree(self._base.parent, ignore_errors=True)

    # Many models

    def path_of(self, target: str, timeout_s: float) -> str:
        """Where one of many models is invoked; it is downloaded and loaded first where it is not.

        Raises:
            ApiError: there is no such model, or it cannot be loaded.
        """
        with self._load_lock:
            if target not in self.loaded:
                self._load(target, timeout_s)
            self.loaded.move_to_end(target)
            return f"/models/{self.loaded[target]}/invoke"

    def unload(self, target: str) -> None:
        """Unload a model and remove its files."""
        with self._load_lock:
            name = self.loaded.pop(target, None)
            if name is not None:
                self.ask("DELETE", f"/models/{name}", timeout_s=60, limit_bytes=1 << 20)
                shutil.rmtree(self._base / "models" / name, ignore_errors=True)

    def _load(self, target: str, timeout_s: float) -> None:
        uri = under(self._container["ModelDataUrl"], target.lstrip("/"))
        name = hashlib.sha256(uri.encode()).hexdigest()
        folder = self._base / "models" / name
        self._fetch(uri, folder)
        body = json.dumps({"model_name": name, "url": f"{self._inside()}/models/{name}/model"}).encode()
        while True:
            answer = self.ask("POST", "/models", body, {"Content-Type": "application/json"}, timeout_s=timeout_s,
                              limit_bytes=1 << 20)  # fmt: skip
            if answer.status != 507 or not self.loaded:
                break
            self.unload(next(iter(self.loaded)))  # no room: the one that was not asked for the longest
        if answer.status not in (200, 409):
            shutil.rmtree(folder, ignore_errors=True)
            raise model_error(answer.status, answer.body, self.log_arn)
        self.loaded[target] = name

    def _inside(self) -> str:
        """What /opt/ml is for the container."""
        return str(self._base) if self.running and self.running.sees_host else ML

    def _fetch(self, uri: str, folder: Path) -> None:
        bucket, key = split(uri)
        (self._base / "models").chmod(0o755)  # closed to processes, and this is not one of the container's
        try:
            fetch_archive(self._s3, uri, folder / "model", self._base)
        except JobError as error:
            shutil.rmtree(folder, ignore_errors=True)
            raise ApiError("ValidationError", f"Failed to download model data(bucket: {bucket}, key: {key}). Please "
                           "ensure that there is an object located at the URL and that the role passed to CreateModel "
                           "has permissions to download the model.") from error  # fmt: skip


def model_error(status: int, body: bytes, log_arn: str) -> ApiError:
    """ModelError, as the run time tells what a container answered."""
    text = body.decode(errors="replace")
    party = "client" if 400 <= status < 500 else "server"
    message = (f'Received {party} error ({status}) from primary with message "{text[:1024]}". See the log group '
               f"{log_arn.rpartition(':')[2]} for more information.")  # fmt: skip
    return ApiError("ModelError", message, 424, OriginalStatusCode=status, OriginalMessage=text, LogStreamArn=log_arn)
