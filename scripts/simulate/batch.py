"""CreateTransformJob: every object of a prefix or a manifest through `serve`, its answer as OBJECT.out."""

import json
import shutil
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

from simulate.control import ControlPlane, Life
from simulate.exchange import Answer, NoAnswerError, TooLargeError, TooLateError
from simulate.faults import JobError, invalid, not_simulated
from simulate.filters import FORMATS, batches, filtered, joined, records, steps
from simulate.kinds import Resource
from simulate.limits import MIB
from simulate.logs import may_be_there
from simulate.objects import Item, listed, send, under
from simulate.serving import Server, definition

LOG_GROUP = "/aws/sagemaker/TransformJobs"
CLIENT, ALGORITHM = (f"{each}: See job logs for more information" for each in ("ClientError", "AlgorithmError"))


def life(plane: ControlPlane) -> Life:
    """The life of transform jobs."""
    return Life(check, lambda _: {"TransformJobStatus": "InProgress"}, run=lambda job: Transform(plane, job).run())


def check(plane: ControlPlane, request: Mapping[str, Any], region: str) -> None:
    """Refuse invalid requests, and those that are not simulated."""
    model = plane.find("Model", request["ModelName"], region)
    if definition(model).get("Mode") == "MultiModel":
        raise invalid("Batch transform is not supported for multi-model containers")
    source = request["TransformInput"]
    if source["DataSource"]["S3DataSource"]["S3DataType"] not in ("S3Prefix", "ManifestFile"):
        raise not_simulated("S3DataType AugmentedManifestFile")
    if source.get("SplitType", "None") not in ("None", "Line") or source.get("CompressionType", "None") != "None":
        raise not_simulated("SplitType RecordIO, TFRecord and CompressionType Gzip")
    limits = plane.world.limits
    payload, at_once = request.get("MaxPayloadInMB", limits.batch_payload_mb), request.get("MaxConcurrentTransforms", 1)
    if max(1, payload) * max(1, at_once) > limits.batch_product_mb:
        raise invalid(f"MaxConcurrentTransforms * MaxPayloadInMB must not exceed {limits.batch_product_mb} MB, got "
                      f"{at_once} * {payload}")  # fmt: skip
    _check_data_processing(request, source.get("ContentType", ""))


def _check_data_processing(request: Mapping[str, Any], content_type: str) -> None:
    wanted = request.get("DataProcessing", {})
    if wanted.get("JoinSource", "None") == "None" and {"InputFilter", "OutputFilter"}.isdisjoint(wanted):
        return
    if content_type not in FORMATS:
        raise invalid(f"DataProcessing needs ContentType {', '.join(FORMATS)}, got {content_type or 'none'}")
    accept = request["TransformOutput"].get("Accept", content_type)
    if ("csv" in accept) != ("csv" in content_type):
        raise invalid(f"DataProcessing needs input and output of one format, got {content_type} and {accept}")
    ends = (request["TransformInput"].get("SplitType"), request["TransformOutput"].get("AssembleWith"))
    if content_type != "application/json" and ends != ("Line", "Line"):
        raise invalid("DataProcessing of records needs SplitType Line and AssembleWith Line")
    for name in ("InputFilter", "OutputFilter"):
        try:
            steps(wanted.get(name, "$"))
        except ValueError as error:
            raise invalid(f"{name}: {error}") from error


class _OverError(Exception):
    """The job was stopped."""


class Transform:
    """One job."""

    def __init__(self, plane: ControlPlane, job: Resource) -> None:
        self._world, self._job, self._request = plane.world, job, job.request
        self._s3 = self._world.client("s3", job.region)
        self._model = plane.find("Model", self._request["ModelName"], job.region)
        self._source, self._target = self._request["TransformInput"], self._request["TransformOutput"]
        self._limits = self._world.limits
        self._payload_mb = self._request.get("MaxPayloadInMB", 0) or None
        self._at_once = self._request.get("MaxConcurrentTransforms", 0) or None

    def run(self) -> None:
        """From the first object to the last."""
        strategy = self._request.get("BatchStrategy")
        given = {
            "SAGEMAKER_BATCH": "true",
            "SAGEMAKER_MAX_PAYLOAD_IN_MB": str(self._payload_mb or self._limits.batch_payload_mb),
            "SAGEMAKER_BATCH_STRATEGY": {"SingleRecord": "SINGLE_RECORD"}.get(strategy or "", "MULTI_RECORD"),
            "SAGEMAKER_MAX_CONCURRENT_TRANSFORMS": str(self._at_once or 1),
        }
        server = Server(self._world, self._model, (LOG_GROUP, self._job.name),
                        environment={**self._request.get("Environment", {}), **given})  # fmt: skip
        work = self._world.place(self._job.name)
        place = self._source["DataSource"]["S3DataSource"]
        try:
            items = listed(self._s3, place["S3Uri"], place["S3DataType"])
            self._job.set(TransformStartTime=time.time())
            server.start("transform", self._limits.startup_s)
            self._ask_for_parameters(server)
            at_once = min(self._at_once or 1, self._limits.concurrent_invocations)
            with suppress(_OverError), ThreadPoolExecutor(at_once) as pool:
                for item in items:
                    self._transform(server, item, work, pool)
            if self._world.closing.is_set():
                raise JobError("InternalServerError: the simulation ended")
            status = "Stopped" if self._job.stop.is_set() else "Completed"
            self._job.set(TransformJobStatus=status, TransformEndTime=time.time())
        except JobError:
            self._job.set(TransformEndTime=time.time())
            raise
        finally:
            server.stop()
            shutil.rmtree(work, ignore_errors=True)

    def _is_over(self) -> bool:
        return self._job.stop.is_set() or self._world.closing.is_set()

    def _ask_for_parameters(self, server: Server) -> None:
        """Take from /execution-parameters what the request leaves open; a container need not have them."""
        try:
            answer = server.ask("GET", "/execution-parameters", timeout_s=self._limits.ping_timeout_s,
                                limit_bytes=1 << 16)  # fmt: skip
            found = json.loads(answer.body) if answer.status == 200 else {}
            self._at_once = self._at_once or int(found.get("MaxConcurrentTransforms", 1))
            self._payload_mb = self._payload_mb or int(found.get("MaxPayloadInMB", self._limits.batch_payload_mb))
        except (NoAnswerError, TooLateError, TooLargeError, ValueError):
            self._at_once, self._payload_mb = self._at_once or 1, self._payload_mb or self._limits.batch_payload_mb
        if max(1, self._at_once) * max(1, self._payload_mb) > self._limits.batch_product_mb:
            raise JobError(f"ClientError: MaxConcurrentTransforms {self._at_once} * MaxPayloadInMB {self._payload_mb} "
                           f"must not exceed {self._limits.batch_product_mb} MB")  # fmt: skip

    def _transform(self, server: Server, item: Item, work: Path, pool: ThreadPoolExecutor) -> None:
        split_type = self._source.get("SplitType", "None")
        payload = (self._payload_mb or self._limits.batch_payload_mb) * MIB
        if split_type == "None" and item.size_bytes > payload:
            self._log(f"{item.key}: {item.size_bytes} bytes are more than MaxPayloadInMB allows")
            raise JobError(CLIENT)
        body = self._s3.get_object(Bucket=item.bucket, Key=item.key)["Body"].read()
        wanted = self._request.get("DataProcessing", {})
        kind = self._source.get("ContentType", "")
        before = records(body, split_type)
        seen = [filtered(record, wanted.get("InputFilter", "$"), kind) for record in before]
        is_single = self._request.get("BatchStrategy") == "SingleRecord"
        groups = batches(seen, is_single=is_single, split_type=split_type, payload_bytes=payload)
        end = b"\n" if self._target.get("AssembleWith") == "Line" else b""
        path, is_joined = wanted.get("OutputFilter", "$"), wanted.get("JoinSource") == "Input"
        with (work / "out").open("wb") as out:
            position = 0
            for group, answer in pool.map(lambda group: (group, self._ask(server, item, group, split_type)), groups):
                if is_joined or path != "$":
                    parts = records(answer.body, split_type)
                    if len(parts) != len(group):
                        self._log(f"{item.key}: {len(group)} records, {len(parts)} answers: they cannot be joined")
                        raise JobError(CLIENT)
                    whole = before[position : position + len(group)]
                    parts = [joined(record, part, kind, is_joined=is_joined, path=path)
                             for record, part in zip(whole, parts, strict=True)]  # fmt: skip
                else:
                    parts = [answer.body.rstrip(b"\n") if end else answer.body]
                position += len(group)
                out.writelines(part + end for part in parts)
        send(self._s3, work / "out", under(self._target["S3OutputPath"], f"{item.name}.out"),
             self._target.get("KmsKeyId"))  # fmt: skip

    def _ask(self, server: Server, item: Item, group: list[bytes], split_type: str) -> Answer:
        config = self._request.get("ModelClientConfig", {})
        timeout_s = config.get("InvocationsTimeoutInSeconds", self._limits.batch_invoke_s)
        headers = {"Content-Type": self._source["ContentType"]} if "ContentType" in self._source else {}
        headers |= {"Accept": self._target["Accept"]} if "Accept" in self._target else {}
        body = b"\n".join(group) + (b"\n" if split_type == "Line" else b"")
        reason, text = ALGORITHM, ""
        for _ in range(1 + config.get("InvocationsMaxRetries", self._limits.batch_retries)):
            if self._is_over():
                raise _OverError
            try:
                answer = server.ask("POST", "/invocations", body, headers, timeout_s=timeout_s,
                                    limit_bytes=self._limits.async_bytes)  # fmt: skip
            except (NoAnswerError, TooLateError, TooLargeError) as error:
                text = f"{type(error).__name__} {error}"
                continue
            if answer.status < 400:
                return answer
            text = f"{answer.status} {answer.body[:1000].decode(errors='replace')}"
            if answer.status < 500:  # the same record would be refused again
                reason = CLIENT
                break
        self._log(f"{item.key}: {text}")
        raise JobError(reason)

    def _log(self, line: str) -> None:
        logs = self._world.client("logs", self._job.region)
        stream = f"{self._job.name}/data-log"
        with may_be_there():
            logs.create_log_stream(logGroupName=LOG_GROUP, logStreamName=stream)
        event = {"timestamp": int(time.time() * 1000), "message": line}
        logs.put_log_events(logGroupName=LOG_GROUP, logStreamName=stream, logEvents=[event])
