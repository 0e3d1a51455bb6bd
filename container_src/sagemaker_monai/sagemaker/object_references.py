"""Fetches the objects that a request names, as if the client had sent them in an archive.

All objects are looked up before the first is read, so that a request that is too large costs no transfer; an object
that has changed since (its ETag) is not read. `serving.references` decides which objects may be named.

An error gives the number of the object in the request and nothing else: neither whether a forbidden object exists, nor
whose bucket it is.
"""

import os
import re
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

from sagemaker_monai.errors import ObjectUnavailable, PayloadTooLarge, Timeout, Unavailable
from sagemaker_monai.images.signatures import GZIP_MAGIC, ZIP_MAGICS, is_tar
from sagemaker_monai.requests.bodies import MAX_INSTANCES
from sagemaker_monai.serving.references import Prefix, Reference, parse_references
from sagemaker_monai.storage.file_names import is_litter_path
from sagemaker_monai.storage.tars import archive_end, member_header, padding

THREADS = 8  # objects that are fetched at once; each takes at least 30 ms (a guess)
CONNECT_TIMEOUT_S = 3.0
READ_TIMEOUT_S = 10.0  # between two chunks
ATTEMPTS = 3
CHUNK_BYTES = 1 << 20
PAGE_OBJECTS = 1_000  # S3's maximum
MAX_PAGES = 20  # of a folder, including objects that are skipped
TAR_TYPE = "application/x-tar"
_MEMBER_BYTES = 1_024  # header and padding of one member
_ODD = re.compile(r"[^0-9A-Za-z._-]")

_UNAVAILABLE = "does not exist, or this endpoint may not read it (s3:GetObject, and s3:ListBucket for folders)"
_ELSEWHERE = "is in a bucket of another region, or the endpoint's credentials are not valid"
_CHANGED = "changed while it was read; send this request again"
# S3's codes, and the statuses that replace them in answers without a body (HEAD).
_CAUSES = {
    **dict.fromkeys(("NoSuchKey", "NoSuchBucket", "404", "AccessDenied", "AllAccessDisabled", "403"), _UNAVAILABLE),
    "InvalidObjectState": "is archived; restore it first",
    **dict.fromkeys(("PreconditionFailed", "412"), _CHANGED),
    **dict.fromkeys(("PermanentRedirect", "TemporaryRedirect", "301", "307", "400", "BadRequest"), _ELSEWHERE),
    **dict.fromkeys(("AuthorizationHeaderMalformed", "IllegalLocationConstraintException"), _ELSEWHERE),
    **dict.fromkeys(("ExpiredToken", "InvalidAccessKeyId", "InvalidToken", "SignatureDoesNotMatch"), _ELSEWHERE),
}

Piece = TypeVar("Piece")
Result = TypeVar("Result")


@dataclass(frozen=True)
class Found:
    """One object: its bucket and key, its place in the request, and the state in which it was found."""

    bucket: str
    key: str
    index: int
    size_bytes: int
    etag: str


@dataclass(frozen=True)
class FoundObjects:
    """The objects that a request names; the plan between `locate` and `fetch`.

    Attributes:
        objects: in the request's order, those of a folder by their keys.
        size_bytes: of the body that they become.
        deadline_s: by the monotonic clock.
        is_alone: whether the request names a single object and not a folder.
    """

    objects: tuple[Found, ...]
    size_bytes: int
    deadline_s: float
    is_alone: bool


class S3Objects:
    """S3 as a `serving.references.ObjectStore`.

    Args:
        allowed: the prefixes of objects that may be named.
        max_bytes: of the body that all objects of a request become.
        timeout_s: for all objects of a request.
    """

    def __init__(self, allowed: tuple[Prefix, ...], *, max_bytes: int, timeout_s: float) -> None:
        self._allowed = allowed
        self._max_bytes = max_bytes
        self._timeout_s = timeout_s
        self._client = make_client()

    def locate(self, body: bytes) -> FoundObjects:
        """Find the objects that a request names; see `serving.references.ObjectStore`."""
        deadline_s = time.monotonic() + self._timeout_s
        references = parse_references(body, self._allowed)

        def look_up(numbered: tuple[int, Reference]) -> list[Found]:
            index, reference = numbered
            _check_time(deadline_s)
            with _faults_named(index):
                return self._list(index, reference) if reference.is_folder else [self._head(index, reference)]

        found = [item for items in _in_threads(look_up, list(enumerate(references))) for item in items]
        if len(found) > MAX_INSTANCES:
            raise PayloadTooLarge(f"{len(found)} objects are more than {MAX_INSTANCES}; send several requests")
        size_bytes = sum(item.size_bytes + _MEMBER_BYTES for item in found)
        if size_bytes > self._max_bytes:
            raise PayloadTooLarge(f"the objects have more than {self._max_bytes} bytes together; send several requests")
        return FoundObjects(tuple(found), size_bytes, deadline_s, len(references) == 1 and not references[0].is_folder)

    def fetch(self, plan: FoundObjects) -> tuple[bytes, str]:
        """A tar archive of the objects, or a single archive as it is; see `ObjectStore`."""

        def read(item: Found) -> bytes:
            with _faults_named(item.index):
                return self._read(item, plan.deadline_s)

        contents = _in_threads(read, plan.objects)
        if plan.is_alone and (content_type := _archive_type(contents[0])) is not None:
            return contents[0], content_type
        parts: list[bytes] = []
        for number, (item, content) in enumerate(zip(plan.objects, contents, strict=True)):
            name = _ODD.sub("_", item.key.rpartition("/")[2])[-80:]
            parts += [member_header(f"{number}/{name}", len(content)), content, padding(len(content))]
        parts.append(archive_end(sum(map(len, parts))))
        return b"".join(parts), TAR_TYPE

    def _head(self, index: int, reference: Reference) -> Found:
        answer = self._client.head_object(Bucket=reference.bucket, Key=reference.key)
        return Found(reference.bucket, reference.key, index, int(answer["ContentLength"]), answer["ETag"])

    def _list(self, index: int, folder: Reference) -> list[Found]:
        found: list[Found] = []
        pages = self._client.get_paginator("list_objects_v2").paginate(
            Bucket=folder.bucket, Prefix=folder.key, PaginationConfig={"PageSize": PAGE_OBJECTS}
        )
        for number, page in enumerate(pages, start=1):
            for item in page.get("Contents", ()):
                key = item["Key"]
                if not key.endswith("/") and not is_litter_path(key.removeprefix(folder.key)):
                    found.append(Found(folder.bucket, key, index, int(item["Size"]), item["ETag"]))
            if len(found) > MAX_INSTANCES or number == MAX_PAGES:
                raise PayloadTooLarge(
                    f"object {index}: the folder has more than {MAX_INSTANCES} objects; name a smaller"
                )
        if not found:
            raise ObjectUnavailable(f"object {index} {_UNAVAILABLE}")
        return found

    def _read(self, item: Found, deadline_s: float) -> bytes:
        _check_time(deadline_s)
        answer = self._client.get_object(Bucket=item.bucket, Key=item.key, IfMatch=item.etag)
        body, content = answer["Body"], bytearray()
        try:
            # Never more than was announced, because only so much memory was reserved.
            while chunk := body.read(min(CHUNK_BYTES, item.size_bytes + 1 - len(content))):
                content += chunk
                _check_time(deadline_s)
                if len(content) > item.size_bytes:
                    break
        finally:
            body.close()
        if len(content) != item.size_bytes:
            raise Unavailable(f"object {item.index} {_CHANGED}")
        return bytes(content)


def make_client() -> Any:
    """An S3 client with short time limits that stays in the endpoint's own region.

    botocore would follow a bucket into any region, where nobody expects the endpoint's requests or pays for them.
    """
    import boto3
    from botocore.config import Config

    config = Config(
        connect_timeout=CONNECT_TIMEOUT_S,
        read_timeout=READ_TIMEOUT_S,
        retries={"total_max_attempts": ATTEMPTS, "mode": "standard"},
        max_pool_connections=THREADS,
    )
    client = boto3.client("s3", region_name=os.environ.get("AWS_REGION") or None, config=config)

    def stay_here(context: dict[str, Any], **_: Any) -> None:
        context.setdefault("s3_redirect", {})["redirected"] = True  # botocore.utils.S3RegionRedirectorv2 follows once

    client.meta.events.register("before-call.s3", stay_here)
    return client


def _in_threads(work: Callable[[Piece], Result], pieces: Sequence[Piece]) -> list[Result]:
    """The results for all pieces, in their order; after an error no further piece is begun."""
    with ThreadPoolExecutor(min(THREADS, len(pieces))) as pool:
        try:
            return list(pool.map(work, pieces))
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


def _check_time(deadline_s: float) -> None:
    if time.monotonic() > deadline_s:
        raise Timeout("the objects took too long to read; name fewer or smaller ones")


def _archive_type(content: bytes) -> str | None:
    """The content type of an object that is an archive itself, else None."""
    if content.startswith(ZIP_MAGICS):
        return "application/zip"
    if content.startswith(GZIP_MAGIC):
        return "application/gzip"
    return TAR_TYPE if is_tar(content) else None


@contextmanager
def _faults_named(index: int) -> Iterator[None]:
    """Raise S3's errors in our words; its own could quote names, keys and accounts."""
    from botocore.exceptions import (
        BotoCoreError,
        ClientError,
        CredentialRetrievalError,
        NoCredentialsError,
        PartialCredentialsError,
    )

    try:
        yield
    except (NoCredentialsError, PartialCredentialsError, CredentialRetrievalError) as error:
        raise ObjectUnavailable("the endpoint has no credentials for S3; give its role s3:GetObject") from error
    except ClientError as error:
        cause = _CAUSES.get(str(error.response.get("Error", {}).get("Code", "")))
        if cause is None or cause == _CHANGED:
            raise Unavailable(f"object {index} {cause or 'cannot be read now; send this request again'}") from error
        raise ObjectUnavailable(f"object {index} {cause}") from error
    except (BotoCoreError, OSError) as error:  # OSError: a connection that ends while a body is read
        raise Unavailable(f"object {index} cannot be read now; send this request again") from error
