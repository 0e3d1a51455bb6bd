"""Writes the instances of `prepare dicomweb` to S3, encrypted and with a checksum that S3 verifies.

S3 encrypts with AES-256 (SSE-S3) by default, so only a KMS key has to be named.
"""

import base64
import re
import tempfile
import threading
from pathlib import Path
from typing import Any

from sagemaker_monai.dicomweb.stores import Stored
from sagemaker_monai.errors import ConfigError, DatasetError
from sagemaker_monai.storage.file_names import is_fit

_URI = re.compile(r"s3://([a-z0-9][a-z0-9.-]{1,61}[a-z0-9])(?:/([^?#]*))?")
_REFUSED = {
    "NoSuchBucket": "there is no such bucket; make it, or name another",
    "AccessDenied": "the AWS credentials may not do this; they need s3:ListBucket and s3:PutObject on the bucket "
    "(and kms:GenerateDataKey on its key)",
    "KMS.NotFoundException": "there is no such KMS key in the bucket's region",
}


class S3Store:
    """A bucket and prefix; see `dicomweb.stores.Store`.

    Args:
        client: boto3's, for S3.
        bucket: name.
        prefix: of the keys, without slashes at its ends; may be empty.
        kms_key: for encryption; None leaves it to the bucket.
    """

    def __init__(self, client: Any, bucket: str, prefix: str, kms_key: str | None) -> None:
        self._client, self._bucket, self._kms_key = client, bucket, kms_key
        self._prefix = f"{prefix}/" if prefix else ""
        self.incoming = Path(tempfile.mkdtemp())
        self._lock = threading.Lock()
        self._sizes: dict[str, int] | None = None

    def has(self, stored: Stored) -> bool:
        """Whether the object exists with this size; S3 lists only complete objects. The list is fetched once."""
        with self._lock:
            if self._sizes is None:
                self._sizes = _told(self._list)
        return self._sizes.get(self._prefix + stored.name) == stored.size_bytes

    def _list(self) -> dict[str, int]:
        pages = self._client.get_paginator("list_objects_v2").paginate(
            Bucket=self._bucket, Prefix=f"{self._prefix}series/"
        )
        return {each["Key"]: each["Size"] for page in pages for each in page.get("Contents", [])}

    def put(self, file: Path, stored: Stored) -> None:
        """Upload a file and remove it."""
        words: dict[str, Any] = {"Metadata": {"sha256": stored.sha256}, "ContentType": "application/dicom"}
        if self._kms_key:
            words |= {"ServerSideEncryption": "aws:kms", "SSEKMSKeyId": self._kms_key, "BucketKeyEnabled": True}

        def upload() -> None:
            with file.open("rb") as body:
                self._client.put_object(
                    Bucket=self._bucket,
                    Key=self._prefix + stored.name,
                    Body=body,
                    ChecksumSHA256=base64.b64encode(bytes.fromhex(stored.sha256)).decode(),
                    **words,
                )

        _told(upload)
        file.unlink()


def open_s3(uri: str, kms_key: str | None) -> S3Store:
    """A store at s3://bucket/prefix, with the AWS credentials that boto3 finds.

    Raises:
        ConfigError: not such a URI, or the bucket cannot be used.
    """
    import boto3  # imported late: it takes 0.2 s
    from botocore.config import Config

    found = _URI.fullmatch(uri)
    prefix = (found.group(2) or "").strip("/") if found else ""
    if not found or "//" in prefix or not is_fit(prefix):
        raise ConfigError("OUT must be a folder or s3://bucket/prefix")
    client = _told(lambda: boto3.client("s3", config=Config(max_pool_connections=32, retries={"mode": "standard"})))
    _told(lambda: client.head_bucket(Bucket=found.group(1)))
    return S3Store(client, found.group(1), prefix, kms_key)


def _told(ask: Any) -> Any:
    """Call S3 and explain a refusal; its own texts name the account."""
    from botocore.exceptions import BotoCoreError, ClientError

    try:
        return ask()
    except ClientError as error:
        code = str(error.response.get("Error", {}).get("Code", ""))
        meaning = _REFUSED.get({"404": "NoSuchBucket", "403": "AccessDenied"}.get(code, code))
        if meaning is None:
            raise DatasetError(
                f"S3 refuses ({code}); run the same command again, it goes on where it stopped"
            ) from error
        raise ConfigError(f"S3 refuses: {meaning}") from error
    except BotoCoreError as error:
        raise ConfigError(
            f"S3 cannot be reached ({type(error).__name__}): check the AWS credentials, the region and the network"
        ) from error
