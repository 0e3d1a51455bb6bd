"""Objects in S3: what is at or below an address, and their content."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from botocore.exceptions import ClientError

from sagemaker_monai.storage.file_names import is_litter_path
from sagemaker_monai_aws.core.account import Account
from sagemaker_monai_aws.core.errors import CommandError, is_missing
from sagemaker_monai_aws.core.names import folder_uri, split_s3


@dataclass(frozen=True)
class Item:
    """An object as S3 lists it.

    Attributes:
        bucket: its bucket.
        key: its whole key.
        name: key below the folder that was asked for; of a single object its last part.
        size_bytes: its size.
        etag: changes with the content.
    """

    bucket: str
    key: str
    name: str
    size_bytes: int
    etag: str

    @property
    def uri(self) -> str:
        """Its address, s3://bucket/key."""
        return f"s3://{self.bucket}/{self.key}"


def one(account: Account, uri: str) -> Item | None:
    """The object with exactly this address; None if it does not exist."""
    bucket, key = split_s3(uri)
    # Without permission to list the whole bucket, HeadObject answers 403 for a missing object, so it is listed.
    listed = account.client("s3").list_objects_v2(Bucket=bucket, Prefix=key, MaxKeys=1).get("Contents", [])
    if not key or not listed or listed[0]["Key"] != key:
        return None
    return _item(bucket, listed[0], key.rpartition("/")[2])


def below(account: Account, uri: str, *, with_litter: bool = False) -> Iterator[Item]:
    """The objects below a folder, in the order of their keys; without the empty ones that the console calls folders.

    What systems leave beside people's files and an upload of a whole folder takes along (`.DS_Store`, `._a.jpg`) is
    passed over as it is on disk, unless it is asked for `with_litter`. What the folder itself is called does not count.
    """
    bucket, prefix = split_s3(folder_uri(uri))
    for page in account.client("s3").get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix):
        for found in page.get("Contents", []):
            name = found["Key"].removeprefix(prefix)
            if not name.endswith("/") and name and (with_litter or not is_litter_path(name)):
                yield _item(bucket, found, name)


def find(account: Account, uri: str) -> list[Item]:
    """The object of this address, else all below it.

    Raises:
        CommandError: neither.
    """
    single = None if uri.endswith("/") else one(account, uri)
    items = [single] if single else list(below(account, uri))
    if not items:
        raise CommandError(f"there is nothing at or below {uri}: `make prepare-s3 DATA=folder` uploads a data set")
    return items


def fetch(account: Account, uri: str) -> tuple[bytes, str] | None:
    """Bytes and Content-Type of an object; None if it does not exist."""
    if one(account, uri) is None:
        return None
    bucket, key = split_s3(uri)
    try:
        answer = account.client("s3").get_object(Bucket=bucket, Key=key)
    except ClientError as error:
        if is_missing(error):  # removed in between
            return None
        raise
    return bytes(answer["Body"].read()), str(answer.get("ContentType", ""))


def _item(bucket: str, found: dict[str, Any], name: str) -> Item:
    return Item(bucket, found["Key"], name, found["Size"], found["ETag"])


def encryption(kms_key: str | None) -> dict[str, str]:
    """What an upload says of its encryption; without a key the bucket's own is taken."""
    return {"ServerSideEncryption": "aws:kms", "SSEKMSKeyId": kms_key} if kms_key else {}
