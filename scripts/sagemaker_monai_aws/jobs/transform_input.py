"""What a batch transform job reads: the objects of a prefix or of a manifest, and their one type.

SageMaker sends every object below a prefix with one Content-Type, and one refused object fails the job. So a prefix
with several types is refused, with the types in the message; --content-type selects the objects of one type through a
manifest. Starting one job per type instead would cost money that nobody agreed to.

One object is one request, so a series of DICOM files is one object, too: a zip or tar file. Its files by themselves
would be asked one by one.

Source: API reference, TransformS3DataSource (S3Prefix, ManifestFile and the manifest's format).
"""

import json
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

from sagemaker_monai.storage.file_names import is_litter_path
from sagemaker_monai_aws.client.content_types import type_of_name
from sagemaker_monai_aws.core.account import Account
from sagemaker_monai_aws.core.errors import CommandError
from sagemaker_monai_aws.core.listing import Item, below, one
from sagemaker_monai_aws.core.names import digest, folder_uri, split_s3
from sagemaker_monai_aws.core.places import read_object

MOST_MANIFEST_BYTES = 256 * 1024 * 1024
MANIFEST_SUFFIXES = (".manifest", ".json")


@dataclass(frozen=True)
class Batch:
    """The objects of a job.

    Attributes:
        items: all of them; `name` is what SageMaker's output is called, with .out behind it.
        content_type: of every one.
        uri: a prefix, or a manifest in S3.
        manifest: text of a manifest that is not in S3 yet; None where `uri` is.
        passed_over: objects of the prefix or manifest that are litter (see `storage.file_names`) and no part of it.
    """

    items: tuple[Item, ...]
    content_type: str
    uri: str = ""
    manifest: str | None = None
    is_prefix: bool = True
    passed_over: int = 0

    @property
    def digest(self) -> str:
        """Tells whether two jobs read the same."""
        return digest([[item.uri, item.size_bytes, item.etag] for item in self.items], 16)

    @property
    def largest_bytes(self) -> int:
        """Size of the largest object."""
        return max((item.size_bytes for item in self.items), default=0)


def find_batch(account: Account, asked: str, content_type: str | None) -> Batch:
    """The objects of `--input`.

    Args:
        account: where they are.
        asked: a prefix in S3, a manifest in S3, or a manifest on this machine.
        content_type: of the objects; None: by their suffixes.

    Raises:
        CommandError: there is nothing, the types differ, or the manifest is not valid.
    """
    if not asked.startswith("s3:"):
        return _of_manifest(account, _local_text(Path(asked)), None, asked, content_type)
    split_s3(asked)
    if not account.is_known:
        return Batch((), content_type or "application/octet-stream", folder_uri(asked))
    if asked.endswith(MANIFEST_SUFFIXES) and one(account, asked) is not None:
        text = read_object(account, asked, most_bytes=MOST_MANIFEST_BYTES)
        return _of_manifest(account, text or b"", asked, asked, content_type)
    every = list(below(account, asked, with_litter=True))
    items = [item for item in every if not is_litter_path(item.name)]
    if not items:
        raise CommandError(
            f"there is nothing below {folder_uri(asked)}: `make prepare-s3 DATA=folder` uploads a folder"
        )
    chosen = _of_type(items, content_type)
    kind = content_type or _one_type(items)
    if len(chosen) == len(every):
        return Batch(tuple(items), kind, folder_uri(asked))
    manifest = _manifest(folder_uri(asked), [item.name for item in chosen])
    return Batch(tuple(chosen), kind, manifest=manifest, is_prefix=False, passed_over=len(every) - len(items))


def _local_text(path: Path) -> bytes:
    if path.is_dir():
        raise CommandError(f"{path} is a local folder and a job reads from S3: `make prepare-s3 DATA={path}` "
                           "uploads it, or `make predict` asks an endpoint")  # fmt: skip
    try:
        return path.read_bytes()
    except OSError as error:
        raise CommandError(f"{path} cannot be read ({error.strerror}): --input is a prefix s3://..., or a "
                           "manifest") from error  # fmt: skip


def _of_manifest(account: Account, text: bytes, uri: str | None, shown: str, content_type: str | None) -> Batch:
    try:
        first, *names = json.loads(text)
        prefix = first["prefix"]
        bucket, before = split_s3(prefix)
        if not names or not all(isinstance(name, str) and name for name in names):
            raise TypeError
        wanted = [name for name in names if not is_litter_path(name)]
        if not wanted:
            raise ValueError("litter only")
    except (ValueError, KeyError, TypeError) as error:
        raise CommandError(
            f'{shown} is not a manifest: write [{{"prefix": "s3://bucket/folder/"}}, "name", ...]'
        ) from error
    if not account.is_known:
        kind = content_type or "application/octet-stream"
        return Batch((), kind, uri or "", text.decode("utf-8-sig"), is_prefix=False)
    # Listing the folder is one request for a thousand objects, asking for each is one for each.
    folder = f"s3://{bucket}/{before.rpartition('/')[0]}"
    listed = {item.key: item for item in below(account, folder)}
    missing = [name for name in wanted if before + name not in listed]
    if missing:
        raise CommandError(f"{shown} lists {len(missing)} objects that do not exist, the first is {prefix}{missing[0]}")
    items = [replace(listed[before + name], name=name) for name in dict.fromkeys(wanted)]
    kind = content_type or _one_type(items)
    if len(wanted) < len(names):  # a manifest made from a listing
        text, uri = _manifest(prefix, wanted).encode(), None
    passed_over = len(names) - len(wanted)
    return Batch(tuple(items), kind, uri or "", None if uri else text.decode("utf-8-sig"), False, passed_over)


def _of_type(items: list[Item], content_type: str | None) -> list[Item]:
    """The objects of a type by their suffixes; all of them if no suffix tells."""
    chosen = [item for item in items if content_type and type_of_name(item.key) == content_type]
    return chosen or items


def _one_type(items: Iterable[Item]) -> str:
    """The type of all.

    Raises:
        CommandError: the types differ or are not known.
    """
    counts = Counter(
        type_of_name(item.key) or f"unknown ({PurePosixPath(item.key).suffix or 'no suffix'})" for item in items
    )
    [(kind, _), *others] = counts.most_common()
    if others or kind.startswith("unknown"):
        named = ", ".join(f"{count} x {name}" for name, count in counts.most_common())
        raise CommandError(f"a job sends all objects as one type, and there are {named}: --content-type takes those of "
                           "one type, another job the others")  # fmt: skip
    return kind


def _manifest(prefix: str, names: Iterable[str]) -> str:
    return json.dumps([{"prefix": prefix}, *names], indent=0, ensure_ascii=False) + "\n"
