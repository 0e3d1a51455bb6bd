"""S3 as the platform uses it: what a channel or a manifest names comes down, what a container leaves goes up."""

import json
import shutil
import tarfile
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from boto3.s3.transfer import TransferConfig
from botocore.exceptions import ClientError

from sagemaker_monai_aws.core.listing import encryption
from simulate.faults import JobError

IN_THIS_THREAD = TransferConfig(use_threads=False)
MANIFEST_BYTES = 64 << 20


@dataclass(frozen=True)
class Item:
    """An object.

    Attributes:
        name: its path relative to what was asked for.
    """

    bucket: str
    key: str
    name: str
    size_bytes: int


def split(uri: str) -> tuple[str, str]:
    """Bucket and key of s3://bucket/key."""
    bucket, _, key = uri.removeprefix("s3://").partition("/")
    return bucket, key


def under(uri: str, *names: str) -> str:
    """A URI with names added, with exactly one slash between them."""
    return "/".join([uri.rstrip("/"), *names])


def listed(s3: Any, uri: str, data_type: str = "S3Prefix") -> list[Item]:
    """The objects of a prefix or a manifest, in the order of their keys or of the manifest.

    Raises:
        JobError: there are none.
    """
    try:
        items = list(_of_manifest(s3, uri) if data_type == "ManifestFile" else _of_prefix(s3, uri))
    except ClientError as error:
        raise JobError(f"ClientError: Data download failed:{error.response['Error']['Message']}: {uri}") from error
    if not items:
        raise JobError(f"ClientError: Data download failed:No objects found. Please ensure that there is data at {uri}")
    for item in items:
        if ".." in PurePosixPath(item.name).parts or item.name.startswith("/"):
            raise JobError(f"ClientError: Data download failed:{item.name} is not a path below the channel")
    return items


def _of_prefix(s3: Any, uri: str) -> Iterator[Item]:
    bucket, prefix = split(uri)
    for page in s3.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix):
        for found in page.get("Contents", []):
            key = found["Key"]
            if key.endswith("/"):  # a folder of the console
                continue
            # A prefix is a prefix of keys and need not end where a name does.
            is_folder = prefix == "" or prefix.endswith("/") or key.startswith(f"{prefix}/")
            name = key.removeprefix(prefix).lstrip("/") if is_folder else key[prefix.rfind("/") + 1 :]
            yield Item(bucket, key, name, found["Size"])


def _of_manifest(s3: Any, uri: str) -> Iterator[Item]:
    bucket, key = split(uri)
    text = s3.get_object(Bucket=bucket, Key=key)["Body"].read(MANIFEST_BYTES)
    try:
        first, *names = json.loads(text)
        prefix = first["prefix"]
    except (ValueError, KeyError, TypeError) as error:
        raise JobError('ClientError: Data download failed:the manifest must be [{"prefix": "s3://..."}, "name", ...]: '
                       f"{uri}") from error  # fmt: skip
    bucket, before = split(prefix)
    for name in names:
        size = s3.head_object(Bucket=bucket, Key=before + name)["ContentLength"]
        yield Item(bucket, before + name, name, size)


def fetch(s3: Any, item: Item, path: Path) -> None:
    """Download one object."""
    path.parent.mkdir(parents=True, exist_ok=True)
    s3.download_file(item.bucket, item.key, str(path), Config=IN_THIS_THREAD)


def send(s3: Any, path: Path, uri: str, kms_key: str | None = None) -> None:
    """Upload one file.

    Raises:
        JobError: the bucket is not there.
    """
    bucket, key = split(uri)
    try:
        with path.open("rb") as file, tempfile.TemporaryFile() as copy:
            # A container may write to it meanwhile, and the length of an upload is promised at its beginning.
            shutil.copyfileobj(file, copy)
            copy.seek(0)
            s3.upload_fileobj(copy, bucket, key, ExtraArgs=encryption(kms_key), Config=IN_THIS_THREAD)
    except ClientError as error:
        raise JobError(f"ClientError: {uri} cannot be written: {error.response['Error']['Message']}") from error


@dataclass(eq=False)
class Mirror:
    """A folder whose new and changed files are uploaded, as often as it is asked; nothing is removed in S3."""

    s3: Any
    folder: Path
    uri: str
    kms_key: str | None = None
    _sent: dict[Path, tuple[int, int]] = field(default_factory=dict)

    def note_present(self) -> None:
        """What is there now came from S3."""
        self._sent = dict(self._files())

    def upload(self) -> None:
        """Upload what changed since the last time. Links are not followed."""
        for path, stamp in self._files():
            # A file may go while it is sent, and what a container's root made may be closed to this user until the end.
            with suppress(FileNotFoundError, PermissionError):
                if self._sent.get(path) != stamp:
                    send(self.s3, path, under(self.uri, path.relative_to(self.folder).as_posix()), self.kms_key)
                    self._sent[path] = stamp

    def _files(self) -> Iterator[tuple[Path, tuple[int, int]]]:
        for path in sorted(self.folder.rglob("*")):
            with suppress(FileNotFoundError):
                if path.is_file() and not path.is_symlink():
                    status = path.stat()
                    yield path, (status.st_mtime_ns, status.st_size)


def upload(mirrors: Iterable[Mirror]) -> None:
    """Upload what changed in each folder."""
    for mirror in mirrors:
        mirror.upload()


def fetch_archive(s3: Any, uri: str, folder: Path, work: Path) -> None:
    """Download a tar.gz and unpack it into a folder.

    Raises:
        JobError: it is not there or not sound.
    """
    archive = work / "archive.tar.gz"
    bucket, key = split(uri)
    folder.mkdir(parents=True, exist_ok=True)
    try:
        s3.download_file(bucket, key, str(archive), Config=IN_THIS_THREAD)
        with tarfile.open(archive) as tar:
            tar.extractall(folder, filter="data")
    except ClientError as error:
        raise JobError(f'Failed to download model data for container "primary" from URL: "{uri}". Please ensure that '
                       "there is an object located at the URL and that the role passed to CreateModel has permissions "
                       "to download the model.") from error  # fmt: skip
    except (tarfile.TarError, OSError, EOFError) as error:
        raise JobError(f'Failed to extract model data archive for container "primary" from URL "{uri}". Please ensure '
                       f"that the object at the URL is a valid tar.gz archive ({error}).") from error  # fmt: skip
    finally:
        archive.unlink(missing_ok=True)


def fetch_model(s3: Any, container: Mapping[str, Any], folder: Path, work: Path) -> None:
    """A model's data: an archive by ModelDataUrl, or by ModelDataSource an archive or the files themselves."""
    source = container.get("ModelDataSource", {}).get("S3DataSource")
    folder.mkdir(parents=True, exist_ok=True)
    if source is not None and source["CompressionType"] == "None":
        for item in listed(s3, source["S3Uri"], source["S3DataType"].replace("S3Object", "S3Prefix")):
            fetch(s3, item, folder / item.name)
    elif uri := source["S3Uri"] if source else container.get("ModelDataUrl"):
        fetch_archive(s3, uri, folder, work)
