"""One input to an endpoint, and its answer: directly, or through S3 for asynchronous endpoints.

A series of DICOM files is one input, and goes as a zip that is made in memory.
"""

import hashlib
import io
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from botocore.exceptions import ClientError, ReadTimeoutError

from sagemaker_monai.storage.files import sha256_of
from sagemaker_monai_aws.client.content_types import MOST_SERIES_BYTES, as_zip, content_of
from sagemaker_monai_aws.client.endpoints import LIMITS, Answer, Endpoint, in_own_words, refused
from sagemaker_monai_aws.core.account import Account
from sagemaker_monai_aws.core.calls import Call
from sagemaker_monai_aws.core.listing import Item, encryption, fetch
from sagemaker_monai_aws.core.names import split_s3

REMEDY = {
    "realtime": "`make deploy MODE=async` takes 1 GB",
    "multi-model": "`make deploy MODE=async` takes 1 GB",
    "serverless": "`make deploy MODE=async` takes 1 GB",
    "async": "`make transform` reads from S3",
}
# SageMaker itself times out after 60 s ("Custom Inference Code with Hosting Services").
READ_TIMEOUT_S = 70


@dataclass(frozen=True)
class Source:
    """An input: a file, an object in S3, or a series of DICOM files here or there.

    Attributes:
        shown: how it is called in the output.
        name: path below the folder that was asked for, for what is saved.
        content_type: of the request.
        size_bytes: of the body; of a series, of its files.
        place: where it is: a file, a folder with a series, an object, the objects of a series, or the body itself.
    """

    shown: str
    name: str
    content_type: str
    size_bytes: int
    place: Path | Item | tuple[Item, ...] | bytes

    @property
    def is_series(self) -> bool:
        """Whether the body is yet to be made of several files."""
        return isinstance(self.place, tuple) or (isinstance(self.place, Path) and self.place.is_dir())


@dataclass(frozen=True)
class Asking:
    """What all inputs of a run have in common.

    Attributes:
        account: whose endpoint it is.
        endpoint: that is asked.
        accept: type of the answer.
        target: model of a multi-model endpoint.
        inputs: s3:// folder for asynchronous inputs.
        timeout_s: of one asynchronous invocation, 1 to 3600.
        wait_s: how long an asynchronous answer is waited for, its place in the queue included.
        poll_s: between two looks for it.
        keep: leave asynchronous inputs in S3.
        kms_key: that encrypts them.
        parallel: requests at once.
    """

    account: Account
    endpoint: Endpoint
    accept: str
    target: str | None
    inputs: str
    timeout_s: int
    wait_s: float
    poll_s: float
    keep: bool
    kms_key: str | None
    parallel: int

    @property
    def client_settings(self) -> dict[str, Any]:
        """For the client of the run time: a connection for each request at once."""
        return {"read_timeout": READ_TIMEOUT_S, "max_pool_connections": self.parallel}

    def ask(self, source: Source) -> Answer:
        """Send one input; a refusal is an Answer too.

        Raises:
            ClientError: AWS refuses not this input but all.
        """
        limit = LIMITS[self.endpoint.mode]
        try:
            source = self._packed(source)
            if source.size_bytes > limit:
                text = f"{source.size_bytes} bytes, and {self.endpoint.mode} endpoints take {limit}"
                return Answer(code="too-large", message=f"{text}: {REMEDY[self.endpoint.mode]}")
            return self._later(source) if self.endpoint.mode == "async" else self._at_once(source)
        except ClientError as error:
            return refused(error)
        except ReadTimeoutError:
            return Answer(code="timeout", message="no answer within 60 s: `make deploy MODE=async` waits for up to 1 h")
        except OSError as error:
            return Answer(code="unreadable", message=error.strerror or type(error).__name__)

    def call(self, source: Source, body: bytes) -> Call:
        """The request, with any body."""
        request: dict[str, Any] = {"EndpointName": self.endpoint.name, "ContentType": source.content_type,
                                   "Accept": self.accept}  # fmt: skip
        if self.endpoint.mode == "async":
            request |= {"InputLocation": self.input_uri(source), "InvocationTimeoutSeconds": self.timeout_s}
            return Call("sagemaker-runtime", "InvokeEndpointAsync", request)
        target = {"TargetModel": self.target} if self.target else {}
        return Call("sagemaker-runtime", "InvokeEndpoint", {**request, "Body": body, **target})

    def _at_once(self, source: Source) -> Answer:
        answer = self.account.send(self.call(source, self._read(source)), **self.client_settings)
        return Answer(answer.get("ContentType", ""), answer["Body"].read())

    def _packed(self, source: Source) -> Source:
        """A series as a zip; any other input unchanged."""
        if not source.is_series or source.size_bytes > MOST_SERIES_BYTES:
            return source
        body = content_of(source.place) if isinstance(source.place, Path) else as_zip(self._members(source))
        return replace(source, place=body, size_bytes=len(body))

    def _members(self, source: Source) -> Iterator[tuple[str, bytes]]:
        assert isinstance(source.place, tuple)
        for item in source.place:
            yield item.key.rpartition("/")[2], self._fetch(item)

    def _read(self, source: Source) -> bytes:
        if isinstance(source.place, bytes):
            return source.place
        assert not isinstance(source.place, tuple)
        return source.place.read_bytes() if isinstance(source.place, Path) else self._fetch(source.place)

    def _fetch(self, item: Item) -> bytes:
        return bytes(self.account.client("s3").get_object(Bucket=item.bucket, Key=item.key)["Body"].read())

    # By way of S3

    def input_uri(self, source: Source) -> str:
        """Where an asynchronous input lies.

        The name is a digest of content and place, so that a run which was killed leaves nothing that the next one does
        not find and remove, and does not reveal whose picture it is.
        """
        match source.place:
            case Item():
                facts = [source.place.uri, source.place.etag]
            case Path() if source.place.is_file():
                facts = [str(source.place.resolve()), sha256_of(source.place)]
            case bytes():
                facts = [source.shown, hashlib.sha256(source.place).hexdigest()]
            case _:  # a series that is not packed, in a dry run
                facts = [source.shown]
        return f"{self.inputs}/{hashlib.sha256(' '.join([*facts, source.content_type]).encode()).hexdigest()[:40]}"

    def _later(self, source: Source) -> Answer:
        call = self.call(source, b"")
        bucket, key = split_s3(call.request["InputLocation"])
        self._upload(source, bucket, key)
        try:
            asked = self.account.send(call, **self.client_settings)
        except ClientError:
            self._remove(bucket, key)
            raise
        answer = self._wait(asked)
        if answer is None:  # the endpoint may still come to it
            where = f"the answer comes to {asked['OutputLocation']}, the input stays at {call.request['InputLocation']}"
            return Answer(code="timeout", message=f"no answer within {self.wait_s:g} s (--wait-s): {where}")
        self._remove(bucket, key)
        return answer

    def _upload(self, source: Source, bucket: str, key: str) -> None:
        s3 = self.account.client("s3")
        extra = {"ContentType": source.content_type, **encryption(self.kms_key)}
        if isinstance(source.place, Path | bytes):
            with io.BytesIO(source.place) if isinstance(source.place, bytes) else source.place.open("rb") as file:
                s3.upload_fileobj(file, bucket, key, ExtraArgs=extra)
        else:
            assert isinstance(source.place, Item)
            origin = {"Bucket": source.place.bucket, "Key": source.place.key}
            s3.copy(origin, bucket, key, ExtraArgs={**extra, "MetadataDirective": "REPLACE"})

    def _remove(self, bucket: str, key: str) -> None:
        if not self.keep:
            self.account.client("s3").delete_object(Bucket=bucket, Key=key)

    def _wait(self, asked: Mapping[str, Any]) -> Answer | None:
        deadline = time.monotonic() + self.wait_s
        while True:
            if (found := fetch(self.account, asked["OutputLocation"])) is not None:
                return Answer(found[1], found[0])
            if asked.get("FailureLocation") and (found := fetch(self.account, asked["FailureLocation"])) is not None:
                with suppress(UnicodeDecodeError):
                    return in_own_words(found[0].decode())
                return Answer(code="failed", message="the endpoint gives no reason: see `make logs`")
            if time.monotonic() > deadline:
                return None
            time.sleep(self.poll_s)
