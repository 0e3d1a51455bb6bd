"""A data set as shards, as the upload to S3 writes it."""

import shutil
from pathlib import Path

from sagemaker_monai.data.dataset_json import DATASET_JSON
from sagemaker_monai.data.shards import MANIFEST, SHARD_BYTES, Shard, manifest_text, write_shards


def write_sharded(dataset: Path, out: Path, *, shard_bytes: int = SHARD_BYTES) -> list[Shard]:
    shards = list(write_shards(dataset, out, shard_bytes=shard_bytes))
    shutil.copyfile(dataset / DATASET_JSON, out / DATASET_JSON)
    (out / MANIFEST).write_text(manifest_text(dataset, shards))
    return shards
