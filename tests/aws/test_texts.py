"""Texts and variables as editors, shells and compose files leave them: byte order marks, blank settings."""

import base64
import json

import pytest

from sagemaker_monai.data.dataset_json import DATASET_JSON
from sagemaker_monai.data.layouts import read_channels as read_layouts
from sagemaker_monai.data.shards import MANIFEST, read_manifest
from sagemaker_monai.errors import UndecodableImage, UnsuitableImage
from sagemaker_monai.images.formats.pairs import data_files
from sagemaker_monai.outputs.evidence import is_sound
from sagemaker_monai.requests.bodies import read_json
from sagemaker_monai.sagemaker.cluster import read_cluster, read_limits
from sagemaker_monai.sagemaker.inputs import Places, read_channels, read_hyperparameters, without_blanks
from sagemaker_monai.sagemaker.own_script import program
from sagemaker_monai.serving.references import Prefix, parse_references
from sagemaker_monai_aws.core.settings import read_config_env
from sagemaker_monai_aws.data.keys import unusable
from sagemaker_monai_aws.jobs.transform_input import _of_manifest
from tests.support.sharded import write_sharded

BOM = b"\xef\xbb\xbf"
MARK = "\ufeff"
BLANKS = ["", " ", "\t", MARK]
REFERENCES = (Prefix("bucket", "a/"),)


@pytest.fixture
def data_set(tmp_path):
    folder = tmp_path / "set"
    folder.mkdir()
    items = [{"image": f"{index}.png", "label": "ab"[index % 2]} for index in range(4)]
    for item in items:
        (folder / item["image"]).write_bytes(b"x")
    (folder / DATASET_JSON).write_text(json.dumps({"labels": {"0": "a", "1": "b"}, "training": items}))
    return folder


def mark(path):
    path.write_bytes(BOM + path.read_bytes())


def test_a_mark_before_config_env_is_passed_over(tmp_path):
    (tmp_path / "config.env").write_bytes(BOM + b"REGION=eu-central-1\r\n")

    assert read_config_env(tmp_path / "config.env") == {"REGION": "eu-central-1"}


def test_a_mark_before_dataset_json_and_before_a_manifest_of_shards_is_passed_over(data_set, tmp_path):
    mark(data_set / DATASET_JSON)
    write_sharded(data_set, tmp_path / "shards")
    mark(tmp_path / "shards" / MANIFEST)

    assert len(read_layouts({"training": data_set}).entries) == 4
    assert sum(shard.files for shard in read_manifest(tmp_path / "shards")) == 4


def test_a_mark_before_a_request_is_passed_over():
    image = {"image": base64.b64encode(b"x").decode()}
    objects = {"objects": [{"bucket": "bucket", "key": "a/b.png"}]}

    assert len(read_json(BOM + json.dumps({"instances": [image]}).encode(), {})) == 1
    assert [each.key for each in parse_references(BOM + json.dumps(objects).encode(), REFERENCES)] == ["a/b.png"]


def test_a_mark_before_a_manifest_of_a_batch_is_passed_over_and_not_uploaded():
    class Nobody:
        is_known = False

    text = json.dumps([{"prefix": "s3://bucket/a/"}, "b.png"])

    assert _of_manifest(Nobody(), BOM + text.encode(), None, "m", None).manifest == text


@pytest.mark.parametrize("blank", BLANKS)
def test_a_blank_variable_counts_as_unset(tmp_path, blank):
    (tmp_path / "input/config").mkdir(parents=True)
    (tmp_path / "input/data/training").mkdir(parents=True)
    (tmp_path / "input/data/lost+found").mkdir()
    (tmp_path / "input/config/hyperparameters.json").write_bytes(BOM + b'{"epochs": "7"}')
    names = ("SM_HPS", "SM_MODEL_DIR", "SM_OUTPUT_DIR", "SM_OUTPUT_DATA_DIR", "SM_CHECKPOINT_DIR", "SM_HOSTS",
             "SM_CHANNEL_TRAINING", "SM_CURRENT_HOST", "SM_NETWORK_INTERFACE_NAME", "HOSTS_TIMEOUT_SECONDS",
             "MASTER_PORT", "SAGEMAKER_PROGRAM")  # fmt: skip
    base = {"SAGEMAKER_BASE_DIR": str(tmp_path)}
    environment = base | dict.fromkeys(names, blank)
    places = Places.from_environment(environment)

    assert places == Places.from_environment(base)
    assert read_hyperparameters([], places, environment) == {"epochs": "7"}
    assert read_channels(places, environment) == {"training": tmp_path / "input/data/training"}
    assert read_cluster(tmp_path, environment) == read_cluster(tmp_path, base)
    assert read_limits(environment) == read_limits(base)
    assert program({}, environment) == ""


def test_a_mark_before_a_variable_is_no_part_of_it():
    assert without_blanks({"SM_HPS": MARK + '{"a": 1}', "A": " b "}) == {"SM_HPS": '{"a": 1}', "A": " b "}


@pytest.mark.parametrize("name", ["患者\u3000A.png", "Bild\u00a01.png", "نمی\u200cدانم.png"])
def test_keys_of_any_script_may_be_named(name):
    objects = {"objects": [{"bucket": "bucket", "key": f"a/{name}"}]}

    assert [each.key for each in parse_references(json.dumps(objects).encode(), REFERENCES)] == [f"a/{name}"]
    assert unusable(f"a/{name}") is None
    assert unusable(f"a/{name}\u202e") is not None


def test_a_patients_name_with_an_ideographic_space_is_sound():
    assert is_sound("PN", "山田\u3000太郎")
    assert not is_sound("PN", "山田\u202e太郎")


@pytest.mark.parametrize("name", ["..", ".", "", "a/b.raw", "a\\b.raw", "/b.raw", "C:", "b\n.raw"])
def test_a_header_names_bare_files_of_any_script_only(tmp_path, name):
    (tmp_path / "値\u30001.raw").write_bytes(b"x")

    assert data_files(tmp_path / "a.mhd", ["値\u30001.raw"]) == [tmp_path / "値\u30001.raw"]
    with pytest.raises((UnsuitableImage, UndecodableImage), match="outside its folder"):
        data_files(tmp_path / "a.mhd", [name])
