"""CreateProcessingJob: inputs to their paths, the command, outputs to S3."""

import json
import shutil
import time
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from simulate.control import ControlPlane, Life
from simulate.faults import InternalError, JobError, invalid, not_simulated
from simulate.kinds import Resource
from simulate.logs import LogStream
from simulate.objects import Mirror, fetch, listed, upload
from simulate.runners import ML, Order
from simulate.watching import read_text, watch
from simulate.world import World

LOG_GROUP = "/aws/sagemaker/ProcessingJobs"
HOST = "algo-1"
FOLDER = PurePosixPath(ML, "processing")


def life(world: World) -> Life:
    """The life of processing jobs."""
    return Life(check, lambda _: {"ProcessingJobStatus": "InProgress"}, run=lambda job: run(world, job))


def check(_: ControlPlane, request: Mapping[str, Any], __: str) -> None:
    """Refuse invalid requests, and those that are not simulated."""
    if request["ProcessingResources"]["ClusterConfig"]["InstanceCount"] != 1:
        raise not_simulated("a processing job on several hosts")
    for item in request.get("ProcessingInputs", []):
        if "S3Input" not in item:
            raise not_simulated("a ProcessingInput other than S3Input")
        source = item["S3Input"]
        if source.get("S3InputMode", "File") != "File" or source.get("S3CompressionType", "None") != "None":
            raise not_simulated("S3InputMode Pipe and S3CompressionType Gzip")
        if "LocalPath" not in source:
            raise invalid(f"input {item['InputName']}: LocalPath is required in File mode")
        _below(source["LocalPath"])
    for item in request.get("ProcessingOutputConfig", {}).get("Outputs", []):
        if "S3Output" not in item:
            raise not_simulated("a ProcessingOutput other than S3Output")
        _below(item["S3Output"].get("LocalPath", ""))


def _below(path: str) -> str:
    """A path of the request below /opt/ml."""
    pure = PurePosixPath(path)
    if not pure.is_relative_to(FOLDER) or ".." in pure.parts:
        raise invalid(f"LocalPath must begin with {FOLDER}/, got {path!r}")
    return pure.relative_to(ML).as_posix()


def run(world: World, job: Resource) -> None:
    """From the inputs to the outputs."""
    work = world.place(job.name)
    base = work / HOST
    request = job.request
    config = request.get("ProcessingOutputConfig", {})
    s3 = world.client("s3", job.region)
    try:
        lay_out(base, job)
        for item in request.get("ProcessingInputs", []):
            source = item["S3Input"]
            for found in listed(s3, source["S3Uri"], source["S3DataType"]):
                fetch(s3, found, base / _below(source["LocalPath"]) / found.name)
        mirrors: list[Mirror] = []
        continuous: list[Mirror] = []
        for item in config.get("Outputs", []):
            output = item["S3Output"]
            (base / _below(output["LocalPath"])).mkdir(parents=True, exist_ok=True)
            mirror = Mirror(s3, base / _below(output["LocalPath"]), output["S3Uri"], config.get("KmsKeyId"))
            (continuous if output["S3UploadMode"] == "Continuous" else mirrors).append(mirror)
        job.set(ProcessingStartTime=time.time())
        [container] = world.runner.start([order(base, job, world.limits.shm_bytes)])
        stream = f"{job.name}/{HOST}-{int(time.time())}"
        limit = request.get("StoppingCondition", {}).get("MaxRuntimeInSeconds", world.limits.max_runtime_s)
        ending = watch(
            world, [container], [LogStream(world, job.region, LOG_GROUP, stream, container.log)],
            reasons=[("Stopped", lambda _: job.stop.is_set()), ("MaxRuntimeExceeded", lambda took: took >= limit)],
            regularly=lambda: upload(continuous),
        )  # fmt: skip
        message = read_text(base / "output" / "message", world.limits.failure_length)
        fields: dict[str, Any] = {"ExitMessage": message} if message else {}
        if ending.cause == "Closed":
            raise JobError("InternalServerError: the simulation ended")
        if not ending.cause and ending.code != 0:
            job.set(**fields)
            raise JobError(f"AlgorithmError: See job logs for more information, exit code: {ending.code}")
        upload(mirrors + continuous)
        status = "Stopped" if ending.cause else "Completed"
        job.set(ProcessingJobStatus=status, ProcessingEndTime=time.time(), **fields)
    except (JobError, InternalError):
        job.set(ProcessingEndTime=time.time())
        raise
    finally:
        shutil.rmtree(work, ignore_errors=True)


def order(base: Path, job: Resource, shm_bytes: int) -> Order:
    """The container of a job."""
    app = job.request["AppSpecification"]
    given = {"PROCESSING_JOB_NAME": job.name, "PROCESSING_JOB_ARN": job.arn, "AWS_REGION": job.region}
    return Order(
        image=app["ImageUri"],
        entrypoint=tuple(app.get("ContainerEntrypoint", ())),
        words=tuple(app.get("ContainerArguments", ())),
        base=base,
        readonly=("config",),
        environment=given | job.request.get("Environment", {}),
        is_isolated=job.request.get("NetworkConfig", {}).get("EnableNetworkIsolation", False),
        shm_bytes=shm_bytes,
    )


def lay_out(base: Path, job: Resource) -> None:
    """The folders of the host and the files that SageMaker writes into config."""
    for folder in ("config", "output", "processing"):
        (base / folder).mkdir(parents=True)
    kept = ("AppSpecification", "Environment", "ProcessingInputs", "ProcessingOutputConfig", "ProcessingResources",
            "NetworkConfig", "RoleArn", "StoppingCondition")  # fmt: skip
    config = {"ProcessingJobArn": job.arn, "ProcessingJobName": job.name}
    config |= {name: job.request[name] for name in kept if name in job.request}
    (base / "config" / "processingjobconfig.json").write_text(json.dumps(config), encoding="utf-8")
    resources = {"current_host": HOST, "hosts": [HOST]}
    (base / "config" / "resourceconfig.json").write_text(json.dumps(resources), encoding="utf-8")
