"""Litter below a prefix of S3: an upload of a whole folder takes it along, and one refused object fails a paid job."""

import json

import pytest

from sagemaker_monai_aws.core.errors import CommandError
from sagemaker_monai_aws.core.listing import below, find
from sagemaker_monai_aws.data import prepare_s3
from sagemaker_monai_aws.jobs.transform_input import find_batch

IMAGES = ["a.jpg", "deep/b.jpg"]
LEFT_BEHIND = ["._a.jpg", "deep/._b.jpg", "__MACOSX/._a.jpg", "deep/.ipynb_checkpoints/b-checkpoint.jpg", "Thumbs.db"]


class Bucket:
    """An account with one bucket, of which only listings are asked."""

    is_known = True

    def __init__(self, *keys):
        self.keys = sorted(keys)

    def client(self, service):
        assert service == "s3"
        return self

    def get_paginator(self, operation):
        assert operation == "list_objects_v2"
        return self

    def list_objects_v2(self, **asked):
        return self.paginate(**asked)[0]

    def paginate(self, **asked):
        found = [key for key in self.keys if key.startswith(asked["Prefix"])]
        return [{"Contents": [{"Key": key, "Size": 1, "ETag": key} for key in found]}] if found else [{}]


def bucket(folder, *names):
    return Bucket(*(f"{folder}/{name}" for name in names), f"{folder}/", f"{folder}/deep/")


@pytest.mark.parametrize("folder", ["mac", ".hidden/mac"])
def test_a_prefix_holds_the_same_objects_with_litter_and_without(folder):
    account, address = bucket(folder, *IMAGES, *LEFT_BEHIND), f"s3://bucket/{folder}"

    assert [item.name for item in below(account, address)] == IMAGES
    assert [item.name for item in find(account, address)] == IMAGES
    assert len(list(below(account, address, with_litter=True))) == len(IMAGES + LEFT_BEHIND)


def test_an_object_that_is_named_itself_is_meant_whatever_it_is_called():
    assert [item.key for item in find(bucket("mac", ".a.jpg"), "s3://bucket/mac/.a.jpg")] == ["mac/.a.jpg"]


def test_a_batch_of_a_prefix_with_litter_is_a_manifest_without_it():
    clean = find_batch(bucket("mac", *IMAGES), "s3://bucket/mac", None)
    mixed = find_batch(bucket("mac", *IMAGES, *LEFT_BEHIND), "s3://bucket/mac", None)

    assert clean.is_prefix
    assert (clean.manifest, clean.passed_over) == (None, 0)
    assert not mixed.is_prefix
    assert json.loads(mixed.manifest) == [{"prefix": "s3://bucket/mac/"}, *IMAGES]
    assert mixed.passed_over == len(LEFT_BEHIND)
    assert mixed.digest == clean.digest


def test_a_manifest_that_was_made_of_a_listing_loses_its_litter(tmp_path):
    account = bucket("mac", *IMAGES, *LEFT_BEHIND)
    manifest = tmp_path / "m.json"
    manifest.write_text(json.dumps([{"prefix": "s3://bucket/mac/"}, *IMAGES, *LEFT_BEHIND]))

    batch = find_batch(account, str(manifest), None)

    assert json.loads(batch.manifest) == [{"prefix": "s3://bucket/mac/"}, *IMAGES]
    assert batch.passed_over == len(LEFT_BEHIND)


def test_a_prefix_of_litter_alone_holds_nothing(tmp_path):
    account = bucket("mac", *LEFT_BEHIND)

    with pytest.raises(CommandError, match="nothing below"):
        find_batch(account, "s3://bucket/mac", None)
    with pytest.raises(CommandError, match="nothing at or below"):
        find(account, "s3://bucket/mac")


def test_an_upload_takes_what_the_list_names_and_no_litter(tmp_path):
    names = [".kept/1.png", "2.png", "3.png", "series"]
    for name in [*names[:3], "series/1.dcm", *LEFT_BEHIND, "series/.originals/1.dcm", "series/Thumbs.db"]:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    items = [{"image": name, "label": "ab"[index % 2]} for index, name in enumerate(names)]
    (tmp_path / "dataset.json").write_text(json.dumps({"labels": {"0": "a", "1": "b"}, "training": items}))

    found = prepare_s3.find(tmp_path, "training")

    assert found.names == [".kept/1.png", "2.png", "3.png", "series/1.dcm", "dataset.json"]
    (tmp_path / ".kept/1.png").unlink()
    (tmp_path / ".kept/1.png").symlink_to(tmp_path / "2.png")
    with pytest.raises(CommandError, match="has a link"):
        prepare_s3.find(tmp_path, "training")
