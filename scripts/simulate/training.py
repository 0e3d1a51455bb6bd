"""CreateTrainingJob: /opt/ml laid out from the request alone, `train` run under SageMaker's rules, results in S3.

Every attempt has new containers and a new /opt/ml. Only S3 outlives one: the data, and the checkpoints that were
uploaded while it ran.
"""

import shutil
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from develop.local import pack
from simulate.control import Life
from simulate.faults import InternalError, JobError
from simulate.kinds import Resource
from simulate.logs import LogStream
from simulate.objects import Mirror, fetch, listed, send, under, upload
from simulate.runners import Order
from simulate.training_request import check, checkpoint_folder, lay_out
from simulate.watching import Ending, read_text, transitions, watch
from simulate.world import World

LOG_GROUP = "/aws/sagemaker/TrainingJobs"
# What a job was stopped for -> SecondaryStatus of the stopped job.
STOPS = {"Stopped": "Stopped", "MaxRuntimeExceeded": "MaxRuntimeExceeded", "MaxWaitTimeExceeded": "MaxWaitTimeExceeded"}
MESSAGES = {
    "Starting": "Preparing the instances for training",
    "Downloading": "Downloading input data",
    "Training": "Training image download completed. Training in progress.",
    "Interrupted": "Training job interrupted: the Spot instance was taken away",
    "Uploading": "Uploading generated training model",
    "Stopping": "Stopping the training job",
    "Stopped": "Training job stopped",
    "MaxRuntimeExceeded": "Training job runtime exceeded MaxRuntimeInSeconds provided",
    "MaxWaitTimeExceeded": "Training job runtime exceeded MaxWaitTimeInSeconds provided",
    "Completed": "Training job completed",
    "Failed": "Training job failed",
}


def life(world: World) -> Life:
    """The life of training jobs."""
    return Life(check, first_fields, run=lambda job: TrainingJob(world, job).run())


def first_fields(_: Mapping[str, Any]) -> dict[str, Any]:
    """Fields of a new job."""
    fields: dict[str, Any] = {"TrainingJobStatus": "InProgress", "SecondaryStatus": "Starting"}
    return fields | {"SecondaryStatusTransitions": transitions({}, "Starting", MESSAGES["Starting"])}


class TrainingJob:
    """One job, from Starting to its end."""

    def __init__(self, world: World, job: Resource) -> None:
        self._world, self._job, self._request = world, job, job.request
        self._s3 = world.client("s3", job.region)
        count = self._request["ResourceConfig"]["InstanceCount"]
        self._hosts = tuple(f"algo-{index}" for index in range(1, count + 1))
        self._out = under(self._request["OutputDataConfig"]["S3OutputPath"], job.name, "output")
        self._kms_key = self._request["OutputDataConfig"].get("KmsKeyId")
        self._took_s = 0.0
        self._is_spot = self._request.get("EnableManagedSpotTraining", False)
        self._interruptions = 0

    def run(self) -> None:
        """Run attempts until one is the last."""
        retries = self._request.get("RetryStrategy", {}).get("MaximumRetryAttempts", 0)
        condition = self._request["StoppingCondition"]
        deadline = time.monotonic() + condition.get("MaxWaitTimeInSeconds", float("inf"))
        try:
            while True:
                work = self._world.place(self._job.name)
                try:
                    ending = self._attempt(work, deadline)
                    if ending.cause == "Interrupted":
                        ending = self._wait_for_capacity(deadline)
                    if ending.cause != "Interrupted":
                        self._finish(work, ending)
                        return
                except InternalError as fault:
                    if retries == 0:
                        raise JobError(f"InternalServerError: {fault}") from fault
                    retries -= 1
                    self._world.note(f"training job {self._job.name}: {fault}; trying again")
                finally:
                    shutil.rmtree(work, ignore_errors=True)
                self._step("Starting")
        except JobError as fault:
            self._end("Failed", "Failed", FailureReason=str(fault))

    def _step(self, status: str, **fields: Any) -> None:
        self._move(status, **fields)
        self._world.note(f"training job {self._job.name}: {status}")

    def _move(self, status: str, **fields: Any) -> None:
        with self._job.lock:
            moved = transitions(self._job.fields, status, MESSAGES[status])
            self._job.set(SecondaryStatus=status, SecondaryStatusTransitions=moved, **fields)

    def _end(self, status: str, secondary: str, **fields: Any) -> None:
        # Seconds are whole and at least 1, as AWS bills them; a job that never trained is not billed.
        seconds = max(1, round(self._took_s)) if "TrainingStartTime" in self._job.fields else 0
        share = self._world.limits.spot_price_share if self._is_spot else 1
        self._move(secondary, TrainingJobStatus=status, TrainingEndTime=time.time(), TrainingTimeInSeconds=seconds,
                   BillableTimeInSeconds=max(min(seconds, 1), round(seconds * share)), **fields)  # fmt: skip

    # One attempt

    def _attempt(self, work: Path, deadline: float) -> Ending:
        bases = [work / host for host in self._hosts]
        mirrors = self._mirrors(bases)
        if self._job.stop.is_set():
            return Ending("Stopped", 0, 0)
        self._step("Downloading")
        for index, base in enumerate(bases):
            lay_out(base, self._request, self._hosts, index)
            self._download(base, index)
        for mirror in mirrors:
            self._restore(mirror)
        self._step(
            "Training", **({} if "TrainingStartTime" in self._job.fields else {"TrainingStartTime": time.time()})
        )
        containers = self._world.runner.start([self._order(base, host) for base, host in zip(bases, self._hosts,
                                                                                             strict=True)])  # fmt: skip
        now, name, region = int(time.time()), self._job.name, self._job.region
        metrics = self._request["AlgorithmSpecification"].get("MetricDefinitions", [])
        streams = [LogStream(self._world, region, LOG_GROUP, f"{name}/{host}-{now}", container.log, metrics)
                   for host, container in zip(self._hosts, containers, strict=True)]  # fmt: skip
        ending = watch(self._world, containers, streams, reasons=self._reasons(deadline),
                       regularly=lambda: upload(mirrors))  # fmt: skip
        self._took_s += ending.took_s
        upload(mirrors)
        for stream in reversed(streams):  # the first host's values win
            found = {each["MetricName"]: each for each in self._job.fields.get("FinalMetricDataList", [])}
            if found | stream.found:
                self._job.set(FinalMetricDataList=list((found | stream.found).values()))
        return ending

    def _reasons(self, deadline: float) -> list[Any]:
        limit = self._request["StoppingCondition"].get("MaxRuntimeInSeconds", self._world.limits.max_runtime_s)
        before = self._took_s
        return [
            ("Stopped", lambda _: self._job.stop.is_set()),
            ("MaxRuntimeExceeded", lambda seconds: before + seconds >= limit),
            ("MaxWaitTimeExceeded", lambda _: time.monotonic() >= deadline),
            ("Interrupted", self._is_interrupted),
        ]

    def _is_interrupted(self, seconds: float) -> bool:
        after = self._world.interrupt_after_s
        return self._is_spot and self._interruptions == 0 and after is not None and seconds >= after

    def _wait_for_capacity(self, deadline: float) -> Ending:
        """After an interruption; the cause is "Interrupted" if there is a new instance."""
        self._interruptions += 1
        self._step("Interrupted")
        until = time.monotonic() + self._world.limits.spot_wait_s
        while time.monotonic() < until:
            if self._world.closing.wait(self._world.limits.poll_s):
                return Ending("Closed", 0, 0)
            if self._job.stop.is_set():
                return Ending("Stopped", 0, 0)
            if time.monotonic() >= deadline:
                return Ending("MaxWaitTimeExceeded", 0, 0)
        return Ending("Interrupted", 0, 0)

    def _download(self, base: Path, host: int) -> None:
        for channel in self._request.get("InputDataConfig", []):
            source = channel["DataSource"]["S3DataSource"]
            items = listed(self._s3, source["S3Uri"], source["S3DataType"])
            if source.get("S3DataDistributionType") == "ShardedByS3Key":
                items = items[host :: len(self._hosts)]
            for item in items:
                fetch(self._s3, item, base / "input" / "data" / channel["ChannelName"] / item.name)

    def _mirrors(self, bases: list[Path]) -> list[Mirror]:
        config = self._request.get("CheckpointConfig")
        if config is None:
            return []
        folder = checkpoint_folder(config)
        return [Mirror(self._s3, base / folder, config["S3Uri"], self._kms_key) for base in bases]

    def _restore(self, mirror: Mirror) -> None:
        mirror.folder.mkdir(parents=True, exist_ok=True)
        with suppress(JobError):  # nothing there yet
            for item in listed(self._s3, under(mirror.uri, "")):
                fetch(self._s3, item, mirror.folder / item.name)
        mirror.note_present()

    def _order(self, base: Path, host: str) -> Order:
        algorithm = self._request["AlgorithmSpecification"]
        given = {"TRAINING_JOB_NAME": self._job.name, "TRAINING_JOB_ARN": self._job.arn, "AWS_REGION": self._job.region}
        channels = [channel["ChannelName"] for channel in self._request.get("InputDataConfig", [])]
        entrypoint = tuple(algorithm.get("ContainerEntrypoint", ()))
        return Order(
            image=algorithm["TrainingImage"],
            words=tuple(algorithm.get("ContainerArguments", ())) or (() if entrypoint else ("train",)),
            entrypoint=entrypoint,
            base=base,
            readonly=("input/config", *(f"input/data/{name}" for name in channels)),
            environment=given | self._request.get("Environment", {}),
            host=host,
            hosts=self._hosts,
            is_isolated=self._request.get("EnableNetworkIsolation", False),
            shm_bytes=self._world.limits.shm_bytes,
        )

    # Results

    def _finish(self, work: Path, ending: Ending) -> None:
        if ending.cause == "Closed":
            raise JobError("InternalServerError: the simulation ended")
        bases = [work / host for host in self._hosts if (work / host).exists()]
        if ending.code == 0 or ending.cause:
            self._step("Uploading")
        outputs = _merged([base / "output" / "data" for base in bases], work / "output-data")
        if outputs:
            pack(work / "output-data", work / "output.tar.gz")
            send(self._s3, work / "output.tar.gz", under(self._out, "output.tar.gz"), self._kms_key)
        if ending.code != 0 and not ending.cause:
            texts = [read_text(base / "output" / "failure", self._world.limits.failure_length) for base in bases]
            raise JobError(f"AlgorithmError: {next(filter(None, texts), '')}, exit code: {ending.code}")
        models = _merged([base / "model" for base in bases], work / "model")
        # A job that was stopped before it had a model has none; one that completed without has an empty one.
        fields = {"ModelArtifacts": {"S3ModelArtifacts": self._send_model(work)}} if models or not ending.cause else {}
        status = "Stopped" if ending.cause else "Completed"
        self._end(status, STOPS.get(ending.cause, "Completed"), **fields)

    def _send_model(self, work: Path) -> str:
        if self._request["OutputDataConfig"].get("CompressionType", "GZIP") == "NONE":
            place = under(self._out, "model", "")
            Mirror(self._s3, work / "model", place, self._kms_key).upload()
            return place
        pack(work / "model", work / "model.tar.gz")
        place = under(self._out, "model.tar.gz")
        send(self._s3, work / "model.tar.gz", place, self._kms_key)
        return place


def _merged(folders: list[Path], target: Path) -> bool:
    """Join the hosts' folders, the first host's files over the others'; whether there is any file."""
    target.mkdir(parents=True)
    for folder in reversed(folders):
        if folder.is_dir():
            shutil.copytree(folder, target, symlinks=True, dirs_exist_ok=True)
    return any(path.is_file() for path in target.rglob("*"))
