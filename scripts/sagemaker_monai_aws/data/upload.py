"""Files to S3: in parallel, with checksums that S3 itself verifies, and only those that are not there yet.

An object is up to date if it has the same size and content. S3's listing tells the content if the ETag is its MD5 (one
part, no KMS key); otherwise one HeadObject does: every object carries the SHA-256 of its file as metadata, set by the
request whose bytes S3 compared with their checksum. So no local record of uploads is needed, and file times do not
matter.

A file of more than PART_BYTES goes in parts; who interrupts it removes them, and what a killed process leaves the
bucket of `make infra` removes by a rule.
"""

import base64
import hashlib
import threading
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sagemaker_monai_aws.core.account import Account
from sagemaker_monai_aws.core.calls import Call
from sagemaker_monai_aws.core.errors import CommandError

PART_BYTES = 16 << 20  # of one request, and in memory of each thread
MOST_PARTS = 10_000  # AWS's


@dataclass(frozen=True)
class Item:
    """A file and where it goes.

    Attributes:
        path: of the file.
        key: of the object.
        is_temporary: removed when it is uploaded.
    """

    path: Path
    key: str
    is_temporary: bool = False


@dataclass(frozen=True)
class Stored:
    """An object as the list has it."""

    size_bytes: int
    etag: str


@dataclass(frozen=True)
class Sent:
    """The result for an item: its size, and whether it was uploaded or already there."""

    item: Item
    size_bytes: int
    is_new: bool


class StoppedError(Exception):
    """An upload was cancelled because another failed, or by Ctrl-C."""


class Uploader:
    """Uploads to one bucket.

    Args:
        account: where.
        bucket: name.
        stored: what is there, by key.
        kms_key: that encrypts; None leaves it to the bucket.
        parallel: threads, at least 1.
    """

    def __init__(
        self, account: Account, bucket: str, stored: Mapping[str, Stored], kms_key: str | None, parallel: int
    ) -> None:
        self._client = account.client("s3", max_pool_connections=parallel)
        self._bucket, self._stored, self._kms_key, self._parallel = bucket, stored, kms_key, parallel
        self._stop = threading.Event()

    def send(self, items: Iterable[Item], *, ahead: int | None = None) -> Iterator[Sent]:
        """Upload items as they come; yields each when it is done.

        Args:
            items: taken from only as fast as they are sent.
            ahead: how many are taken before they are done; default: twice the threads.

        Raises:
            CommandError: a file changed while it was read.
            ClientError, BotoCoreError: of the first that failed; the others are given up.
        """
        most = ahead or 2 * self._parallel
        pool = ThreadPoolExecutor(self._parallel)
        waiting: set[Future[Sent]] = set()
        try:
            for item in items:
                waiting.add(pool.submit(self._send, item))
                while len(waiting) >= most:
                    done, waiting = wait(waiting, return_when=FIRST_COMPLETED)
                    yield from (future.result() for future in done)
            while waiting:
                done, waiting = wait(waiting, return_when=FIRST_COMPLETED)
                yield from (future.result() for future in done)
        except BaseException:  # Ctrl-C too: no thread begins another file or part
            self._stop.set()
            raise
        finally:
            pool.shutdown(cancel_futures=True)

    def _send(self, item: Item) -> Sent:
        if self._stop.is_set():
            raise StoppedError
        size = item.path.stat().st_size
        is_new = self._send_small(item) if size <= PART_BYTES else self._send_big(item, size)
        if item.is_temporary:
            item.path.unlink()
        return Sent(item, size, is_new)

    def _send_small(self, item: Item) -> bool:
        content = item.path.read_bytes()
        digest = hashlib.sha256(content)
        if self._is_there(item.key, len(content), digest.hexdigest(), content):
            return False
        words = self._words(item.key, digest.hexdigest())
        self._client.put_object(**words, Body=content, ChecksumSHA256=_base64(digest.digest()))
        return True

    def _send_big(self, item: Item, size: int) -> bool:
        digest = hashlib.sha256()
        for part in self._parts(item, PART_BYTES):
            digest.update(part)
        if self._is_there(item.key, size, digest.hexdigest(), None):
            return False
        upload = self._client.create_multipart_upload(**self._words(item.key, digest.hexdigest()))
        words = {"Bucket": self._bucket, "Key": item.key, "UploadId": upload["UploadId"]}
        try:
            again, sent = hashlib.sha256(), []
            for number, part in enumerate(self._parts(item, part_bytes(size)), start=1):
                again.update(part)
                checksum = _base64(hashlib.sha256(part).digest())
                answer = self._client.upload_part(
                    **words, PartNumber=number, Body=part, ChecksumAlgorithm="SHA256", ChecksumSHA256=checksum
                )
                sent.append({"PartNumber": number, "ETag": answer["ETag"], "ChecksumSHA256": checksum})
            if again.digest() != digest.digest():
                raise CommandError("a file changed while it was uploaded: do not change the data set during the upload")
            self._client.complete_multipart_upload(**words, MultipartUpload={"Parts": sent})
        except BaseException:
            self._client.abort_multipart_upload(**words)
            raise
        return True

    def _parts(self, item: Item, size: int) -> Iterator[bytes]:
        with item.path.open("rb") as file:
            while part := file.read(size):
                if self._stop.is_set():
                    raise StoppedError
                yield part

    def _words(self, key: str, sha256: str) -> dict[str, Any]:
        return {
            "Bucket": self._bucket,
            "Key": key,
            "ChecksumAlgorithm": "SHA256",
            "Metadata": {"sha256": sha256},
            **encryption(self._kms_key),
        }

    def _is_there(self, key: str, size: int, sha256: str, content: bytes | None) -> bool:
        stored = self._stored.get(key)
        if stored is None or stored.size_bytes != size:
            return False
        if content is not None and self._kms_key is None:
            md5 = hashlib.md5(content, usedforsecurity=False).hexdigest()
            if stored.etag.strip('"') == md5:
                return True
        found = self._client.head_object(Bucket=self._bucket, Key=key)
        is_same = found["Metadata"].get("sha256") == sha256 and found["ContentLength"] == size
        return is_same and (self._kms_key is None or _is_of_key(found, self._kms_key))


def encryption(kms_key: str | None) -> dict[str, Any]:
    """Members of a request that encrypt with your own key; a bucket key saves most calls to KMS."""
    if not kms_key:
        return {}
    return {"ServerSideEncryption": "aws:kms", "SSEKMSKeyId": kms_key, "BucketKeyEnabled": True}


def part_bytes(size: int) -> int:
    """Size of a part of a file, so that there are no more than MOST_PARTS."""
    return max(PART_BYTES, -(-size // MOST_PARTS))


def plan(bucket: str, items: Iterable[tuple[str, int]], kms_key: str | None) -> Iterator[Call]:
    """The requests of uploads, for a dry run, without what depends on the content.

    Args:
        bucket: name.
        items: key and size in bytes of each file.
        kms_key: see Uploader.
    """
    for key, size in items:
        words = {"Bucket": bucket, "Key": key, "ChecksumAlgorithm": "SHA256", **encryption(kms_key)}
        yield Call("s3", "PutObject" if size <= PART_BYTES else "CreateMultipartUpload", words)


def stored_below(account: Account, bucket: str, prefix: str) -> dict[str, Stored]:
    """All objects below a prefix, by key."""
    found = account.pages("s3", "ListObjectsV2", "Contents", Bucket=bucket, Prefix=prefix)
    return {each["Key"]: Stored(each["Size"], each["ETag"]) for each in found}


def _is_of_key(found: Mapping[str, Any], kms_key: str) -> bool:
    # S3 answers with the key's ARN; a key that was named by its id is the ARN's end, and an alias cannot be compared.
    arn = str(found.get("SSEKMSKeyId", ""))
    is_encrypted = found.get("ServerSideEncryption") == "aws:kms"
    return is_encrypted and ("alias/" in kms_key or arn == kms_key or arn.endswith(f"/{kms_key}"))


def _base64(digest: bytes) -> str:
    return base64.b64encode(digest).decode()
