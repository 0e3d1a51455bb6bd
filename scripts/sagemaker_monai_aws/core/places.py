"""Where this project's data is in S3 and its images in ECR, looked up before anything is paid for."""

import json
import subprocess
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sagemaker_monai.data.label_sets import ORDER
from sagemaker_monai.data.legends import read_legend
from sagemaker_monai.data.mask_layouts import is_of_masks
from sagemaker_monai.errors import DatasetError
from sagemaker_monai.tasks.tasks import DEFAULT_TASK, TASKS, task_for
from sagemaker_monai_aws.core.account import Account
from sagemaker_monai_aws.core.errors import CommandError
from sagemaker_monai_aws.core.listing import one
from sagemaker_monai_aws.core.names import default_bucket, digest, folder_uri, split_s3

LISTED = 100_000  # objects of a channel that its digest is made of; the others count by number only
PLACEHOLDER_DIGEST = "sha256:" + "0" * 64
ROOT = Path(__file__).resolve().parents[3]
MANIFEST_TYPES = [
    "application/vnd.docker.distribution.manifest.v2+json",
    "application/vnd.oci.image.manifest.v1+json",
]


@dataclass(frozen=True)
class Contents:
    """What lies below an address in S3: how many objects, how many bytes, and a digest of keys, sizes and ETags."""

    objects: int
    size_bytes: int
    digest: str


def bucket_of(account: Account, options: Any) -> str:
    """The bucket asked for, else the one of `make infra`."""
    return str(options.bucket or default_bucket(options.project, account.number, account.region))


def place(account: Account, options: Any, *parts: str) -> str:
    """s3://BUCKET/PREFIX/parts, without a slash at its end."""
    return "/".join([f"s3://{bucket_of(account, options)}", *filter(None, [options.prefix.strip("/"), *parts])])


def contents(account: Account, uri: str) -> Contents:
    """What lies below a folder in S3.

    Raises:
        CommandError: nothing.
    """
    bucket, prefix = split_s3(folder_uri(uri))
    if not account.is_known:
        return Contents(0, 0, "not-known")
    entries: list[tuple[str, int, str]] = []
    count = size = 0
    pages = account.client("s3").get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix)
    for page in pages:
        for item in page.get("Contents", []):
            count, size = count + 1, size + item["Size"]
            if count <= LISTED:
                entries.append((item["Key"].removeprefix(prefix), item["Size"], item["ETag"]))
    if not count:
        raise CommandError(
            f"there is nothing below {folder_uri(uri)}: `make prepare-s3 DATA=folder` uploads a data set"
        )
    return Contents(count, size, digest([count, size, entries], 16))


def read_object(account: Account, uri: str, *, most_bytes: int = 16 * 1024 * 1024) -> bytes | None:
    """An object's bytes; None if it does not exist.

    Raises:
        CommandError: it has more than `most_bytes`.
    """
    found = one(account, uri)
    if found is None:
        return None
    if found.size_bytes > most_bytes:
        raise CommandError(f"{uri} has {found.size_bytes} bytes, more than the {most_bytes} that are read")
    return bytes(account.client("s3").get_object(Bucket=found.bucket, Key=found.key)["Body"].read())


def image_address(account: Account, options: Any) -> str:
    """Address by digest of the image asked for.

    A whole address is taken as it is, if it is one by digest; of a tag the digest is looked up, because a job must not
    depend on what a tag means later. Without either it is the image of the commit that is checked out, else the newest.

    Raises:
        CommandError: there is no such image.
    """
    asked = options.image or ""
    repository = options.repository or options.project
    registry = f"{account.number}.dkr.ecr.{account.region}.{account.dns_suffix}"
    if "@sha256:" in asked:
        return str(asked)
    if "/" in asked and ".dkr.ecr." in asked:
        registry, _, rest = asked.partition("/")
        repository, _, tag = rest.partition(":")
    else:
        tag = asked.rpartition(":")[2] if asked else ""
    if not account.is_known:
        return f"{registry}/{repository}@{PLACEHOLDER_DIGEST}"
    return f"{registry}/{repository}@{_find_digest(account, repository, tag)}"


def _find_digest(account: Account, repository: str, tag: str) -> str:
    wanted = tag or checked_out()
    if wanted:
        found = account.read("ecr", "DescribeImages", repositoryName=repository, imageIds=[{"imageTag": wanted}])
        if found is not None and found["imageDetails"]:
            return str(found["imageDetails"][0]["imageDigest"])
        if tag:
            raise CommandError(
                f"there is no image {repository}:{tag} in {account.region}: `make build push` with that TAG"
            )
    if account.read("ecr", "DescribeRepositories", repositoryNames=[repository]) is None:
        raise CommandError(f"there is no repository {repository!r} in {account.region}: `make infra build push`")
    images = [image for image in account.pages("ecr", "DescribeImages", "imageDetails", repositoryName=repository)
              if image.get("imageManifestMediaType", MANIFEST_TYPES[0]) in MANIFEST_TYPES]  # fmt: skip
    if not images:
        raise CommandError(f"the repository {repository!r} in {account.region} is empty: `make build push`")
    newest = max(images, key=lambda image: (image["imagePushedAt"], image["imageDigest"]))
    return str(newest["imageDigest"])


def checked_out() -> str:
    """The tag that `make build` gives the working tree's image, nothing outside of a clone of this project."""
    if not (ROOT / "container_src").is_dir():  # installed: a repository around it would be another's
        return ""
    run = subprocess.run(
        ["git", "describe", "--always", "--dirty"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    return run.stdout.strip() if run.returncode == 0 else ""


def labels_of(account: Account, uris: Iterable[str]) -> tuple[tuple[str, ...], str]:
    """Class names and task of the data set's dataset.json; no names and classification without a dataset.json.

    Raises:
        CommandError: the labels are masks, and their names cannot be read.
    """
    for uri in uris:
        folder = folder_uri(uri)
        text = read_object(account, folder + "dataset.json", most_bytes=1 << 30) if account.is_known else None
        if text is not None:
            content = json.loads(text)
            if is_of_masks(content):
                try:
                    return read_legend(content.get("labels"), content.get(ORDER)).names, task_for("mask")
                except DatasetError as error:
                    raise CommandError(f"{folder}: {error}") from error
            names, task = content.get("labels", {}), content.get("task", DEFAULT_TASK)
            return tuple(names[index] for index in sorted(names, key=int)), task if task in TASKS else DEFAULT_TASK
    return (), DEFAULT_TASK
