"""Shards of a data set: a few large files for upload instead of one for each picture.

    shards.json        the manifest: name, bytes, SHA-256 and number of files of every shard, SHA-256 of dataset.json
    dataset.json       as in the unsharded folder, to the byte
    shard-00000.tar    pictures by their names in dataset.json, sorted; plain POSIX tar, the same bytes every time

A hundred thousand S3 objects take longer to list and fetch than to read; a shard is one object, read once from front to
back, which suits FastFile mode too. `unpacking` restores the original folder. Compression lost: pictures are compressed
already. Nothing here needs torch, as data sets are uploaded from machines without it.
"""

import hashlib
import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sagemaker_monai.data.dataset_json import DATASET_JSON
from sagemaker_monai.data.entries import image_files
from sagemaker_monai.data.layouts import read_channels
from sagemaker_monai.errors import ConfigError, DatasetError
from sagemaker_monai.messages.progress import track
from sagemaker_monai.storage.files import sha256_of
from sagemaker_monai.storage.tars import CHUNK_BYTES, archive_end, member_header, padding

MANIFEST = "shards.json"
FORMAT, VERSION = "sagemaker-monai-shards", 1
SHARD_BYTES = 256 << 20
SMALLEST_SHARD_BYTES = 1 << 14
MAX_SHARDS = 100_000  # five digits
MAX_MANIFEST_BYTES = 1 << 26
SHA256 = re.compile(r"[0-9a-f]{64}")
REMEDY = "upload the data set again"


@dataclass(frozen=True)
class PlannedShard:
    """A shard to write.

    Attributes:
        name: of its file.
        images: name in dataset.json, file and size in bytes of every picture, sorted by name.
        size_bytes: of the shard.
    """

    name: str
    images: tuple[tuple[str, Path, int], ...]
    size_bytes: int


@dataclass(frozen=True)
class Shard:
    """A finished shard.

    Attributes:
        name, size_bytes, sha256: of its file; the digest in hex.
        files: number of pictures in it.
        path: where it is; None for one from a manifest.
    """

    name: str
    size_bytes: int
    sha256: str
    files: int
    path: Path | None = None


def plan_shards(dataset: Path, *, shard_bytes: int = SHARD_BYTES) -> list[PlannedShard]:
    """Distribute the pictures of a data set over shards; the same folder gives the same plan everywhere.

    Args:
        dataset: folder with dataset.json and its pictures.
        shard_bytes: largest size of a shard with more than one picture, at least 16 KiB.

    Raises:
        DatasetError: dataset.json is missing or not valid, or a picture that it names is missing.
        ConfigError: shards of this size are too small, or would be too many.
    """
    if shard_bytes < SMALLEST_SHARD_BYTES:
        raise ConfigError(f"a shard must have at least {SMALLEST_SHARD_BYTES} bytes, got {shard_bytes}")
    if not (dataset / DATASET_JSON).is_file():
        raise DatasetError(f"shards need a {DATASET_JSON}: prepare the data set, or upload its files one by one")
    root = dataset.absolute()
    entries = read_channels({"training": root}).entries
    images = sorted((file.relative_to(root).as_posix(), file) for entry in entries for file in image_files(entry.image))
    shards: list[PlannedShard] = []
    members: list[tuple[str, Path, int]] = []
    content_bytes = 0

    def close() -> None:
        if members:
            size_bytes = content_bytes + len(archive_end(content_bytes))
            shards.append(PlannedShard(f"shard-{len(shards):05d}.tar", tuple(members), size_bytes))

    for name, path in images:
        size = path.stat().st_size
        member_bytes = len(member_header(name, size)) + size + len(padding(size))
        together = content_bytes + member_bytes
        if together + len(archive_end(together)) > shard_bytes:
            close()
            members, content_bytes = [], 0
        members.append((name, path, size))
        content_bytes += member_bytes
    close()
    if len(shards) > MAX_SHARDS:
        raise ConfigError(f"{len(shards)} shards are more than {MAX_SHARDS}: make them larger")
    return shards


def write_shard(plan: PlannedShard, folder: Path) -> Shard:
    """Write one shard atomically.

    Raises:
        DatasetError: a picture changed since the plan was made.
    """
    path = folder / plan.name
    part = path.with_name(f".{plan.name}.part")
    digest = hashlib.sha256()
    size_bytes = 0
    try:
        with part.open("wb") as file:
            for chunk in _shard_content(plan):
                file.write(chunk)
                digest.update(chunk)
                size_bytes += len(chunk)
        assert size_bytes == plan.size_bytes
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)
    return Shard(plan.name, size_bytes, digest.hexdigest(), len(plan.images), path)


def _shard_content(plan: PlannedShard) -> Iterator[bytes]:
    written = 0
    for name, path, size in plan.images:
        yield (header := member_header(name, size))
        left = size
        with path.open("rb") as file:
            while left and (chunk := file.read(min(CHUNK_BYTES, left))):
                left -= len(chunk)
                yield chunk
            if left or file.read(1):
                raise DatasetError(f"{name} changed its size while it was read: do not change the data set meanwhile")
        yield padding(size)
        written += len(header) + size + len(padding(size))
    yield archive_end(written)


def write_shards(dataset: Path, out: Path, *, shard_bytes: int = SHARD_BYTES) -> Iterator[Shard]:
    """Write a data set's shards one by one; each is complete when it is yielded, and may then be moved or removed.

    `out` is created if missing. The manifest, which makes the shards a data set, is `manifest_text`.

    Raises:
        DatasetError, ConfigError: see `plan_shards` and `write_shard`.
    """
    out.mkdir(parents=True, exist_ok=True)
    plan = plan_shards(dataset, shard_bytes=shard_bytes)
    for planned in track(plan, total=len(plan), what="writing shards"):
        yield write_shard(planned, out)


def manifest_text(dataset: Path, shards: Sequence[Shard]) -> str:
    """The content of shards.json, which is written last, beside dataset.json and the shards."""
    content = {
        "format": FORMAT,
        "version": VERSION,
        "dataset_json_sha256": sha256_of(dataset / DATASET_JSON),
        "shards": [
            {"name": shard.name, "bytes": shard.size_bytes, "sha256": shard.sha256, "files": shard.files}
            for shard in shards
        ],
    }
    return json.dumps(content, indent=1) + "\n"


def read_manifest(channel: Path) -> list[Shard]:
    """The shards in a folder's manifest, without looking at their files.

    Raises:
        DatasetError: there is no valid manifest of this version, or dataset.json is not the one that it was made for.
    """
    path = channel / MANIFEST
    if path.stat().st_size > MAX_MANIFEST_BYTES:
        raise DatasetError(f"{MANIFEST} is larger than {MAX_MANIFEST_BYTES >> 20} MiB; {REMEDY}")
    try:
        content = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise DatasetError(f"{MANIFEST} is not JSON; {REMEDY}") from error
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise DatasetError(f"{MANIFEST} is not a manifest of shards ({FORMAT}); {REMEDY}, or remove the file")
    if content.get("version") != VERSION:
        raise DatasetError(f"{MANIFEST} has version {str(content.get('version'))[:20]}, this program reads {VERSION}")
    listed = content.get("shards")
    shards = [_shard(item) for item in listed] if isinstance(listed, list) else []
    names = [shard.name for shard in shards if shard is not None]
    if not shards or names != [f"shard-{index:05d}.tar" for index in range(len(shards))]:
        raise DatasetError(f"{MANIFEST} does not list shards with name, bytes, sha256 and files in order; {REMEDY}")
    if not (channel / DATASET_JSON).is_file():
        raise DatasetError(f"there are shards but no {DATASET_JSON} beside {MANIFEST}; {REMEDY}")
    if sha256_of(channel / DATASET_JSON) != content.get("dataset_json_sha256"):
        raise DatasetError(f"{DATASET_JSON} is not the one that the shards were made from; {REMEDY}")
    return [shard for shard in shards if shard is not None]


def _shard(item: Any) -> Shard | None:
    if not isinstance(item, dict) or set(item) != {"name", "bytes", "sha256", "files"}:
        return None
    name, size, digest, files = item["name"], item["bytes"], item["sha256"], item["files"]
    are_counts = all(
        isinstance(number, int) and not isinstance(number, bool) and number > 0 for number in (size, files)
    )
    if not are_counts or not isinstance(name, str) or not isinstance(digest, str) or not SHA256.fullmatch(digest):
        return None
    return Shard(name, size, digest, files)
