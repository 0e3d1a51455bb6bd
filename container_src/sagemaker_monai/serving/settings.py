"""ServeConfig: the settings of `serve`, parsed once from environment variables.

The names are sagemaker-inference's where it has one. Two of its defaults are not used: a timeout of 60 minutes
(real-time endpoints wait 60 seconds), and one worker per CPU of the host rather than of the container.

In a batch transform job SageMaker sets SAGEMAKER_BATCH, SAGEMAKER_MAX_CONCURRENT_TRANSFORMS and
SAGEMAKER_MAX_PAYLOAD_IN_MB; zero means that the job sets no number. Nobody waits for a single answer there, and one
request that is refused or too late can fail the whole job, so batch transform has its own `DEFAULTS`.
"""

import logging
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from sagemaker_inference import parameters

from sagemaker_monai import budget
from sagemaker_monai.errors import ConfigError
from sagemaker_monai.serving.privileges import Account, find_account
from sagemaker_monai.serving.references import Prefix, parse_prefixes

BACK_ENDS = ("workers", "mms")
LOG_LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL")
MAX_PAYLOAD_MB = 1_024
MAX_ANSWER = "MAX_ANSWER_IN_MB"
MAX_ACCEPT_CHARS = 1_000
TRANSFORM_TOTAL_MB = 100  # CreateTransformJob: MaxConcurrentTransforms x MaxPayloadInMB may not be more


@dataclass(frozen=True)
class Defaults:
    """Settings that differ between endpoints and batch transform.

    Attributes:
        timeout_s: how long a request may take.
        queue_per_worker: requests that may wait per worker before more are refused.
        request_cpu_s: the estimated computing time above which a request is refused.
    """

    timeout_s: int
    queue_per_worker: int
    request_cpu_s: int


# Key: SAGEMAKER_BATCH.
DEFAULTS = {
    # SageMaker fails a request to an endpoint after 60 s. The queue is a guess: at 0.1 to 1 s each, so many requests
    # are answered before that.
    False: Defaults(timeout_s=60, queue_per_worker=64, request_cpu_s=budget.DEFAULT_CPU_S),
    # A job sets its own limit, of at most an hour (InvocationsTimeoutInSeconds). It opens no more than
    # MaxConcurrentTransforms requests, so this queue is never full.
    True: Defaults(timeout_s=3_600, queue_per_worker=1_000, request_cpu_s=60),
}


@dataclass(frozen=True)
class ServeConfig:
    """Settings of one server.

    Attributes:
        model_dir: the artifact.
        is_multi_model: whether models are loaded and unloaded on request; `model_dir` is not used then.
        models_dir: the folder of these models.
        port: the public port.
        inner_ports: ports that a model server behind the gateway may use on loopback; empty: any free one.
        workers: worker processes, in multi-model mode per model.
        threads: CPU threads per worker.
        timeout_s: how long a request may take from its arrival.
        startup_timeout_s: how long loading and the first answer may take.
        max_payload_mb: the largest body, in MiB.
        max_answer_mb: the largest answer, in MiB; 0: any.
        max_waiting: requests that may wait before more are refused.
        request_memory_mb, request_cpu_s: what one request may cost its worker, see `budget.Limits`.
        max_batch_size: requests that a worker may take at once.
        default_accept: the Accept of requests that have none or accept anything; "" for the built-in default.
        back_end: one of BACK_ENDS.
        allow_bundle_code: whether the artifact's code/inference.py may run.
        allowed_prefixes: objects in S3 that requests may name instead of holding images.
        worker_account: whose group the processes that decode uploads have; None: they run as this process does.
        worker_env: additional variables that they see.
        worker_network: whether they may open connections.
        log_level: one of LOG_LEVELS.
    """

    model_dir: Path
    is_multi_model: bool
    models_dir: Path
    port: int
    inner_ports: range
    workers: int
    threads: int
    timeout_s: float
    startup_timeout_s: float
    max_payload_mb: int
    max_answer_mb: int
    request_memory_mb: int
    request_cpu_s: int
    max_waiting: int
    max_batch_size: int
    default_accept: str
    back_end: str
    allow_bundle_code: bool
    allowed_prefixes: tuple[Prefix, ...]
    worker_account: Account | None
    worker_env: tuple[str, ...]
    worker_network: bool
    log_level: str

    @property
    def max_payload_bytes(self) -> int:
        """The largest body in bytes."""
        return self.max_payload_mb * 1024 * 1024

    @property
    def max_answer_bytes(self) -> float:
        """The largest answer in bytes."""
        return self.max_answer_mb * 1024 * 1024 or math.inf

    def limits(self, share_bytes: int) -> budget.Limits:
        """What one request may cost its worker, given its share of the container's memory."""
        return budget.Limits(self.request_memory_mb * budget.MIB, self.request_cpu_s * budget.NS, share_bytes)

    @property
    def max_concurrent_transforms(self) -> int:
        """How many requests of a batch transform job keep every worker busy."""
        return min(self.workers, TRANSFORM_TOTAL_MB)

    @property
    def max_transform_payload_mb(self) -> int:
        """The largest body of a job with so many requests at once that SageMaker allows."""
        return min(self.max_payload_mb, TRANSFORM_TOTAL_MB // self.max_concurrent_transforms)

    @classmethod
    def from_env(cls, env: Mapping[str, str]) -> "ServeConfig":
        """Parse the environment; an empty variable counts as unset.

        Raises:
            ConfigError: a value is wrong; the message names the variable, the value and what is allowed.
        """
        values = {name: value.strip() for name, value in env.items() if value.strip()}
        is_multi_model = _flag(values, parameters.MULTI_MODEL_ENV, default=False)
        is_batch = _flag(values, "SAGEMAKER_BATCH", default=False)
        defaults = DEFAULTS[is_batch]
        cpus = usable_cpus()
        gpus = visible_gpus(values)
        at_once = _number(values, "SAGEMAKER_MAX_CONCURRENT_TRANSFORMS", 0, low=0, high=100_000) if is_batch else 0
        # On a GPU one process keeps the device busy, and a batch costs little more than one image. On a CPU batches of
        # 4 to 32 brought 1.0 to 1.1x per image, so a batch only makes its first request wait for the others. Of many
        # models few are busy at once, and each process takes memory that another model could use.
        most = 1 if gpus or is_multi_model else min(cpus, at_once or cpus)
        workers = _number(values, parameters.MODEL_SERVER_WORKERS_ENV, most, low=1, high=512)
        if parameters.MODEL_SERVER_TIMEOUT_SECONDS_ENV in values or parameters.MODEL_SERVER_TIMEOUT_ENV not in values:
            timeout_s = _number(
                values, parameters.MODEL_SERVER_TIMEOUT_SECONDS_ENV, defaults.timeout_s, low=1, high=86_400
            )
        else:  # The older name is in minutes. JumpStart and many examples set 3600 and mean seconds: at most a day.
            minutes = _number(values, parameters.MODEL_SERVER_TIMEOUT_ENV, 1, low=1, high=86_400)
            timeout_s = min(60 * minutes, 86_400)
        base_dir = Path(values.get(parameters.BASE_PATH_ENV, "/opt/ml"))
        return cls(
            model_dir=Path(values.get("SM_MODEL_DIR", base_dir / "model")),
            is_multi_model=is_multi_model,
            models_dir=base_dir / "models",
            port=_number(values, parameters.BIND_TO_PORT_ENV, 8080, low=1, high=65_535),
            inner_ports=_port_range(values, parameters.SAFE_PORT_RANGE_ENV),
            workers=workers,
            threads=_number(values, "OMP_NUM_THREADS", max(1, cpus // workers), low=1, high=1_024),
            timeout_s=float(timeout_s),
            startup_timeout_s=float(_number(values, parameters.STARTUP_TIMEOUT_ENV, 600, low=1, high=86_400)),
            # Real-time endpoints refuse bodies above 6 MB, later 25 MB, before they reach us; batch transform sends at
            # most 100 MB. So the default refuses nothing that SageMaker lets through.
            max_payload_mb=_number(values, parameters.MAX_REQUEST_SIZE, 100, low=0, high=MAX_PAYLOAD_MB)
            or MAX_PAYLOAD_MB,
            # A container is not told whether its endpoint is real-time or asynchronous, so `deploy` says how much
            # SageMaker passes on. Elsewhere and in batch transform nothing limits an answer.
            max_answer_mb=0 if is_batch else _number(values, MAX_ANSWER, 0, low=0, high=MAX_PAYLOAD_MB),
            request_memory_mb=_number(
                values,
                "MAX_REQUEST_MEMORY_IN_MB",
                budget.DEFAULT_MEMORY_MB,
                low=budget.LEAST_MEMORY_MB,
                high=budget.MOST_MEMORY_MB,
            ),
            request_cpu_s=_number(
                values, "MAX_REQUEST_CPU_SECONDS", defaults.request_cpu_s, low=1, high=budget.MOST_CPU_S
            ),
            max_waiting=defaults.queue_per_worker * workers,
            max_batch_size=_number(values, "MAX_BATCH_SIZE", 16 if gpus else 1, low=1, high=256),
            default_accept=_media_type(values, parameters.DEFAULT_INVOCATIONS_ACCEPT_ENV),
            back_end=_choice(values, "MODEL_SERVER", "mms" if is_multi_model else "workers", BACK_ENDS),
            allow_bundle_code=_flag(values, "ALLOW_BUNDLE_CODE", default=False),
            allowed_prefixes=parse_prefixes(values.get("ALLOWED_S3_PREFIXES", "")),
            worker_account=find_account(values.get("WORKER_USER", "")),
            worker_env=tuple(values.get("WORKER_ENV", "").replace(",", " ").split()),
            worker_network=_flag(values, "WORKER_NETWORK", default=False),
            log_level=log_level(values.get(parameters.LOG_LEVEL_ENV, "")),
        )


# What `serve --help` and the README print.
VARIABLES: dict[str, str] = {
    "SM_MODEL_DIR": "folder of the artifact; default: SAGEMAKER_BASE_DIR/model, that is /opt/ml/model",
    parameters.BIND_TO_PORT_ENV: "the public port; default 8080",
    parameters.SAFE_PORT_RANGE_ENV: "ports for listeners on loopback, as 20000-20100; default: any free one",
    parameters.MULTI_MODEL_ENV: "true: models below SAGEMAKER_BASE_DIR/models are loaded and unloaded on request",
    "MODEL_SERVER": "workers or mms, the multi-model-server; default: workers, in multi-model mode mms",
    "SAGEMAKER_BATCH": "true in a batch transform job: longer time limit, no request refused for waiting",
    "SAGEMAKER_MAX_CONCURRENT_TRANSFORMS": "concurrent requests of such a job; starts no more workers",
    parameters.MODEL_SERVER_WORKERS_ENV: "worker processes; default: usable CPUs, 1 with a GPU, "
    "1 for each of many models",
    "OMP_NUM_THREADS": "CPU threads of one worker; default: CPUs / workers",
    "MAX_BATCH_SIZE": "requests a free worker takes at once; default 1, 16 with a GPU; mms: always 1",
    parameters.MODEL_SERVER_TIMEOUT_SECONDS_ENV: "seconds a request may take; default 60, in batch transform 3600",
    parameters.MODEL_SERVER_TIMEOUT_ENV: "the same in minutes, at most a day; read if the one in seconds is not set",
    parameters.DEFAULT_INVOCATIONS_ACCEPT_ENV: "the Accept of requests that have none, or */*; "
    "default application/json",
    parameters.STARTUP_TIMEOUT_ENV: "seconds until the first answer; default 600",
    parameters.MAX_REQUEST_SIZE: "largest body in MiB; default 100; 0: 1024",
    MAX_ANSWER: "largest answer in MiB, not in batch transform; default 0: any; `deploy` sets what SageMaker passes on",
    "MAX_REQUEST_MEMORY_IN_MB": "memory a request may take in its worker; default 512; more above 64 MiB of body",
    "MAX_REQUEST_CPU_SECONDS": "seconds of computing that a request may take; default 4, in batch 60",
    "ALLOW_BUNDLE_CODE": "true: trust the artifact as code and run its code/inference.py; default false",
    "ALLOWED_S3_PREFIXES": "objects that requests may name, as s3://bucket/prefix/ s3://other/; default: none",
    "WORKER_USER": "account whose group the decoding processes get if serve is root; in the image: model",
    "WORKER_ENV": "variables that code/inference.py needs, as A B; it sees only these and a list of usual ones",
    "WORKER_NETWORK": "true: code/inference.py may open connections; default false",
    parameters.LOG_LEVEL_ENV: "DEBUG, INFO (default), WARNING, ERROR, CRITICAL or Python's number",
}


def usable_cpus(*, cgroup: Path = Path("/sys/fs/cgroup")) -> int:
    """How many CPUs this process may use: its affinity, or the container's quota if that is smaller; at least 1.

    Args:
        cgroup: where control groups are mounted (version 2: cpu.max, version 1: cpu/cpu.cfs_*_us).
    """
    cpus = len(os.sched_getaffinity(0))
    for quota, period in (
        (_words(cgroup / "cpu.max")[:1], _words(cgroup / "cpu.max")[1:]),
        (_words(cgroup / "cpu/cpu.cfs_quota_us"), _words(cgroup / "cpu/cpu.cfs_period_us")),
    ):
        if quota and period and quota[0].isdigit() and period[0].isdigit():  # "max" and -1 are no limit
            cpus = min(cpus, -(-int(quota[0]) // int(period[0])))
    return max(1, cpus)


def visible_gpus(env: Mapping[str, str], *, devices: Path = Path("/dev")) -> int:
    """How many NVIDIA GPUs there are, by their device files: asking torch takes seconds and memory.

    Args:
        env: CUDA_VISIBLE_DEVICES=-1 hides them all.
        devices: the folder of device files.
    """
    if env.get("CUDA_VISIBLE_DEVICES") == "-1":
        return 0
    return sum(path.name[len("nvidia") :].isdigit() for path in devices.glob("nvidia[0-9]*"))


def _words(path: Path) -> list[str]:
    try:
        return path.read_text().split()
    except OSError:
        return []


def _number(values: Mapping[str, str], name: str, default: int, *, low: int, high: int) -> int:
    text = values.get(name, str(default))
    if not text.isdecimal() or not low <= int(text) <= high:
        raise ConfigError(f"{name} must be a whole number from {low} to {high}, got {text[:40]!r}")
    return int(text)


def _choice(values: Mapping[str, str], name: str, default: str, allowed: tuple[str, ...]) -> str:
    text = values.get(name, default)
    if text not in allowed:
        raise ConfigError(f"{name} must be one of {', '.join(allowed)}, got {text[:40]!r}")
    return text


def _media_type(values: Mapping[str, str], name: str) -> str:
    """Media types in the form of an Accept header; whether they are supported is checked with each request."""
    text = values.get(name, "")
    if text and not (text.isascii() and text.isprintable() and "/" in text and len(text) <= MAX_ACCEPT_CHARS):
        raise ConfigError(f"{name} must be a media type such as text/csv, got {text[:40]!a}")
    return text


def _flag(values: Mapping[str, str], name: str, *, default: bool) -> bool:
    return _choice({name: values.get(name, str(default)).lower()}, name, "", ("true", "false")) == "true"


def _port_range(values: Mapping[str, str], name: str) -> range:
    if name not in values:
        return range(0)
    first, _, last = values[name].partition("-")
    if not (first.isdecimal() and last.isdecimal() and 1 <= int(first) <= int(last) <= 65_535):
        raise ConfigError(f"{name} must be two ports such as 20000-20100, got {values[name][:40]!r}")
    return range(int(first), int(last) + 1)


def log_level(text: str) -> str:
    """The level in SAGEMAKER_CONTAINER_LOG_LEVEL, one of LOG_LEVELS; ConfigError for any other."""
    text = (text.strip() or "INFO").upper()
    if text.isdecimal():  # the SageMaker SDK passes Python's number, such as 20 for INFO
        text = logging.getLevelName(int(text))
    return _choice({parameters.LOG_LEVEL_ENV: text}, parameters.LOG_LEVEL_ENV, "", LOG_LEVELS)
