"""Unpack a channel of shards into the folder that they were made from, when a job starts.

So a job with shards is the same job: the same fingerprint, checkpoints and weights. The sizes of all shards are checked
first; then each is read once, from front to back, while its pictures are written and its SHA-256 is computed. Only
pictures that dataset.json lists are accepted. The folder gets its name once everything is correct.
"""

import hashlib
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from sagemaker_monai.data.dataset_json import DATASET_JSON, listed_images
from sagemaker_monai.data.layouts import PRETRAINED
from sagemaker_monai.data.shards import MANIFEST, REMEDY, Shard, read_manifest
from sagemaker_monai.errors import DatasetError, TrainingStopped
from sagemaker_monai.messages.progress import track
from sagemaker_monai.messages.shortened import some_of
from sagemaker_monai.storage.tars import CHUNK_BYTES, read_tar
from sagemaker_monai.storage.zips import UnsafeArchiveError


def unpack_channels(
    channels: Mapping[str, Path], folder: Path, *, is_stopping: Callable[[], bool] = lambda: False
) -> dict[str, Path]:
    """Unpack the channels that consist of shards.

    Args:
        channels: name and folder of each.
        folder: parent of the unpacked folders, which have the channels' names; an existing one is used as it is, so
            that only the first of several processes unpacks.
        is_stopping: asked after every picture.

    Returns:
        The channels, with unpacked folders in place of shards.

    Raises:
        DatasetError: a shard is missing, altered or not valid, or there is too little disk space.
        TrainingStopped: `is_stopping` was true.
    """
    places = dict(channels)
    for name, channel in channels.items():
        if name != PRETRAINED and (channel / MANIFEST).is_file():
            places[name] = folder / name
            if not places[name].is_dir():
                _unpack(name, channel, places[name], is_stopping)
    return places


def _unpack(name: str, channel: Path, target: Path, is_stopping: Callable[[], bool]) -> None:
    shards = read_manifest(channel)
    _check_sizes(name, channel, shards)
    listed = listed_images(channel)
    left = set(listed)
    target.parent.mkdir(parents=True, exist_ok=True)
    needed, free = sum(shard.size_bytes for shard in shards), shutil.disk_usage(target.parent).free
    if needed > free:
        raise DatasetError(
            f"the shards of channel {name} unpack to {needed >> 20} MiB and only {free >> 20} MiB are free: give the "
            "job a larger volume (VolumeSizeInGB), or point TMPDIR to a larger disk"
        )
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=".unpacking-") as temporary:
        building = Path(temporary) / target.name
        building.mkdir()
        files = (file for shard in shards for file in _unpack_shard(channel, shard, building, listed))
        total = sum(shard.files for shard in shards)
        for file in track(files, total=total, what=f"unpacking {len(shards)} shards of channel {name}"):
            left.discard(_listed_as(file, listed) or file)
            if is_stopping():
                raise TrainingStopped("the job was stopped while shards were unpacked, so there is nothing to save")
        if left:
            raise DatasetError(
                f"pictures of {DATASET_JSON} that no shard of channel {name} has: {len(left)} "
                f"({some_of(sorted(left))}); {REMEDY}"
            )
        shutil.copyfile(channel / DATASET_JSON, building / DATASET_JSON)
        building.rename(target)


def _check_sizes(name: str, channel: Path, shards: Sequence[Shard]) -> None:
    """Check all shards before the first is read, so that an interrupted upload is noticed immediately."""
    if missing := [shard.name for shard in shards if not (channel / shard.name).is_file()]:
        raise DatasetError(
            f"channel {name} lacks {len(missing)} of {len(shards)} shards ({some_of(missing)}); upload them, and set "
            "S3DataDistributionType to FullyReplicated, as every host needs all of them"
        )
    for shard in shards:
        size = (channel / shard.name).stat().st_size
        if size != shard.size_bytes:
            raise DatasetError(f"{shard.name} has {size} bytes and not {shard.size_bytes}; upload it again")


class _Counted:
    """A file that computes the digest of what is read from it."""

    def __init__(self, file: BinaryIO, shard: Shard) -> None:
        self._file = file
        self._shard = shard
        self.digest = hashlib.sha256()

    def read(self, size: int) -> bytes:
        """Read as the file does."""
        try:
            content = self._file.read(size)
        except OSError as error:  # of the channel; a full disk is an error of the target
            raise DatasetError(f"{self._shard.name} cannot be read ({error.strerror}); start the job again") from error
        self.digest.update(content)
        return content


def _listed_as(name: str, listed: Set[str]) -> str | None:
    """What dataset.json lists for a file: its own name or a series folder that contains it; None for neither."""
    return next((each for each in (name, *map(str, PurePosixPath(name).parents)) if each in listed), None)


def _unpack_shard(channel: Path, shard: Shard, target: Path, listed: Set[str]) -> Iterator[str]:
    """Write the files of a shard, which must all be listed, and yield their names; reads it once, to its last byte."""
    count = 0
    with (channel / shard.name).open("rb", buffering=0) as file:
        stream = _Counted(file, shard)
        try:
            for name, content in read_tar(stream, max_files=shard.files, max_bytes=shard.size_bytes):
                path = target / name
                if _listed_as(name, listed) is None or path.exists():
                    raise DatasetError(
                        f"{shard.name} has a file that {DATASET_JSON} does not list, or that another shard has "
                        f"({some_of([name])}); {REMEDY}"
                    )
                path.parent.mkdir(parents=True, exist_ok=True)
                with path.open("xb") as picture:
                    for chunk in content:
                        picture.write(chunk)
                count += 1
                yield name
        except UnsafeArchiveError as error:
            raise DatasetError(f"{shard.name} cannot be used: {error.reason}") from error
        while stream.read(CHUNK_BYTES):
            pass
    if stream.digest.hexdigest() != shard.sha256:
        raise DatasetError(f"{shard.name} was altered (its SHA-256 differs from {MANIFEST}); upload it again")
    if count != shard.files:
        raise DatasetError(f"{shard.name} has {count} pictures and not {shard.files}; {REMEDY}")
