import hashlib
import json
import pickle
import resource
import shutil

import pytest
import torch

from sagemaker_monai.artifact.bundle import CHECKED_FILES, CHECKSUMS, add_document, read_bundle, write_bundle
from sagemaker_monai.errors import BundleError
from sagemaker_monai.tasks.label_codes import Code, LabelCodes
from tests.support.bundles import IMAGE_SIZE, LABELS, bundle_parts


@pytest.fixture
def artifact(small_bundle, tmp_path):
    return shutil.copytree(small_bundle, tmp_path / "model")


def edit(folder, name, change):
    """Change one JSON file and put its new checksum, as somebody would who knows the format."""
    config = json.loads((folder / name).read_text())
    change(config)
    (folder / name).write_text(json.dumps(config))
    sign(folder)


def sign(folder):
    digests = {name: hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in CHECKED_FILES}
    (folder / CHECKSUMS).write_text(json.dumps(digests))


def test_what_was_written_is_read_back(small_bundle):
    parts = bundle_parts()

    bundle = read_bundle(small_bundle)

    assert bundle.labels == LABELS
    assert bundle.preprocessing.spec == parts["preprocessing"]
    assert bundle.network_def == parts["network_def"]
    assert not bundle.network.training
    weights = bundle.network.state_dict()
    assert weights.keys() == parts["weights"].keys()
    assert all(torch.equal(weights[name], tensor) for name, tensor in parts["weights"].items())


@pytest.mark.parametrize("place", ["model", "Modell von Müller"])
def test_an_artifact_one_folder_down_is_refused_with_the_folder_that_it_lies_in(artifact, tmp_path, place):
    (tmp_path / "outer").mkdir()
    shutil.move(artifact, tmp_path / "outer" / place)

    with pytest.raises(BundleError, match=f"{place}/: pack what is in that folder"):
        read_bundle(tmp_path / "outer")


def test_an_artifact_that_is_still_packed_is_refused_as_such(tmp_path):
    (tmp_path / "model.tar.gz").write_bytes(b"")

    with pytest.raises(BundleError, match="still packed"):
        read_bundle(tmp_path)


def test_the_same_parts_give_the_same_version_and_one_other_weight_another(tmp_path):
    parts = bundle_parts()
    first, again = write_bundle(tmp_path / "a", **parts), write_bundle(tmp_path / "b", **parts)
    parts["weights"]["fc.bias"][3] += 1e-6

    assert first == again
    assert write_bundle(tmp_path / "c", **parts) != first


def test_other_monai_tools_read_the_classes_from_the_metadata(small_bundle):
    outputs = json.loads((small_bundle / "configs/metadata.json").read_text())["network_data_format"]["outputs"]["pred"]

    assert [outputs["channel_def"][str(index)] for index in range(7)] == list(LABELS)
    assert outputs["num_channels"] == 7


def test_monai_builds_the_network_that_the_artifact_describes(small_bundle):
    from monai.bundle import ConfigParser

    parser = ConfigParser(json.loads((small_bundle / "configs/inference.json").read_text()))
    network = parser.get_parsed_content("network_def")
    network.load_state_dict(torch.load(small_bundle / "models/model.pt", weights_only=True))
    picture = torch.rand(1, 3, IMAGE_SIZE, IMAGE_SIZE)

    with torch.inference_mode():
        assert torch.equal(network.eval()(picture), read_bundle(small_bundle).network(picture))


@pytest.mark.parametrize("name", [*CHECKED_FILES, CHECKSUMS])
def test_a_missing_or_changed_file_is_refused(artifact, name):
    content = bytearray((artifact / name).read_bytes())
    (artifact / name).unlink()
    with pytest.raises(BundleError, match=name):
        read_bundle(artifact)
    if name == CHECKSUMS:
        return

    content[len(content) // 2] ^= 1
    (artifact / name).write_bytes(content)

    with pytest.raises(BundleError, match="SHA-256"):
        read_bundle(artifact)


def swap_labels(config):
    channel_def = outputs_of(config)["channel_def"]
    channel_def["0"], channel_def["1"] = channel_def["1"], channel_def["0"]


def darken(config):
    config["preprocessing"]["transforms"][-1]["mean"][0] += 0.01


@pytest.mark.parametrize(
    ("name", "change"), [("configs/metadata.json", swap_labels), ("configs/inference.json", darken)]
)
def test_a_signed_change_is_noticed_because_the_metrics_name_the_model_they_measured(artifact, name, change):
    add_document(artifact, "metrics.json", json.dumps({"model_version": read_bundle(artifact).model_version}))
    read_bundle(artifact)
    edit(artifact, name, change)

    with pytest.raises(BundleError, match="measured on another model"):
        read_bundle(artifact)


def outputs_of(config):
    return config["network_data_format"]["outputs"]["pred"]


def drop_a_class(config):
    outputs_of(config)["channel_def"].pop("6")
    outputs_of(config)["num_channels"] = 6


SIGNED_FAULTS = {
    "inference": {
        "unknown key": (lambda c: c.update(handlers=[]), "keys extra"),
        "missing key": (lambda c: c.pop("inferer"), "keys missing"),
        "other inferer": (lambda c: c["inferer"].update(roi_size=[8, 8]), "inferer"),
        "inferer of other tasks": (lambda c: c["inferer"].update(mirrored_axes=[0]), "inferer"),
        "expression to run": (lambda c: c.update(run="$import os"), "run in configs"),
        "other target to run": (lambda c: c["run"].update(_target_="os.system"), "run in configs"),
        "image of its own": (lambda c: c.update(image="/etc/passwd"), "image in configs"),
        "code in a config": (lambda c: c.update(network_def="$__import__('os')"), "network_def"),
        "unknown target": (lambda c: c["network_def"].update(_target_="subprocess.Popen"), "network_def"),
        "unknown transform": (
            lambda c: c["preprocessing"]["transforms"][0].update(_target_="monai.transforms.LoadImage"),
            "no other target",
        ),
    },
    "metadata": {
        "outputs and classes": (lambda c: outputs_of(c)["channel_def"].pop("6"), "names 6 classes"),
        "two classes of one name": (lambda c: outputs_of(c)["channel_def"].update({"6": "nv"}), "different classes"),
        "a class that is no text": (lambda c: outputs_of(c)["channel_def"].update({"6": ["nv"]}), "different classes"),
        "fewer classes than outputs": (drop_a_class, "7 outputs and the artifact names 6"),
        "channels": (
            lambda c: c["network_data_format"]["inputs"]["image"].update(num_channels=1), "channels",
        ),
    },
}  # fmt: skip


@pytest.mark.parametrize("config", SIGNED_FAULTS)
def test_a_signed_but_inconsistent_configuration_is_refused(artifact, config):
    sound = (artifact / "configs" / f"{config}.json").read_text()
    for change, message in SIGNED_FAULTS[config].values():
        (artifact / "configs" / f"{config}.json").write_text(sound)
        edit(artifact, f"configs/{config}.json", change)

        with pytest.raises(BundleError, match=message):
            read_bundle(artifact)


WEIGHT_FAULTS = {
    "a key missing": (lambda w: w.pop("fc.bias"), "1 keys missing"),
    "a key extra": (lambda w: w.update(extra=torch.zeros(1)), "1 keys extra"),
    "another shape": (lambda w: w.update({"fc.bias": torch.zeros(8)}), r"fc.bias is \(8,\)"),
    "another type": (lambda w: w.update({"fc.bias": torch.zeros(7, dtype=torch.float64)}), "float64"),
    "not finite": (lambda w: w["fc.bias"].fill_(float("nan")), "not finite"),
    "without values": (lambda w: w.update({"fc.bias": torch.zeros(7, device="meta")}), "dense tensors"),
    "sparse": (lambda w: w.update({"fc.bias": torch.zeros(7).to_sparse()}), "dense tensors"),
    "not tensors": (lambda w: w.update({"fc.bias": 1.0}), "dense tensors"),
}


def test_weights_that_do_not_fill_the_network_are_refused(artifact):
    path = artifact / "models/model.pt"
    sound = path.read_bytes()
    for change, message in WEIGHT_FAULTS.values():
        path.write_bytes(sound)
        weights = torch.load(path, weights_only=True)
        change(weights)
        torch.save(weights, path)
        sign(artifact)

        with pytest.raises(BundleError, match=message):
            read_bundle(artifact)


class Exploit:
    ran = False

    def __reduce__(self):
        return (setattr, (Exploit, "ran", True))


@pytest.mark.parametrize("writer", [torch.save, lambda value, path: path.write_bytes(pickle.dumps(value))])
def test_weights_that_carry_code_are_refused_and_the_code_does_not_run(artifact, writer):
    writer({"fc.bias": Exploit()}, artifact / "models/model.pt")
    sign(artifact)

    with pytest.raises(BundleError, match="loaded safely"):
        read_bundle(artifact)
    assert not Exploit.ran


def test_a_failed_write_leaves_the_artifact_that_was_there(artifact, monkeypatch):
    before = read_bundle(artifact).model_version
    parts = bundle_parts()
    parts["weights"].pop("fc.bias")

    with pytest.raises(BundleError):
        write_bundle(artifact, **parts)

    assert read_bundle(artifact).model_version == before
    assert [path.name for path in artifact.iterdir() if path.name.startswith(".")] == []


def test_a_disk_that_takes_no_more_leaves_the_artifact_that_was_there(artifact):
    before = read_bundle(artifact).model_version
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)

    resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, limits[1]))  # the weights have 20 MB
    try:
        with pytest.raises(OSError, match="File too large"):
            write_bundle(artifact, **bundle_parts(labels=("a", "b")))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)

    assert read_bundle(artifact).model_version == before


def test_codes_of_labels_are_part_of_the_artifact_and_of_its_version(tmp_path):
    codes = {
        "b": LabelCodes(Code("SCT", "49755003", "Abnormal"), Code("FMA", "7203", "Kidney"), (Code("99X", "1", "L"),))
    }
    parts = bundle_parts(labels=("a", "b"))

    versions = {write_bundle(tmp_path / "model", **parts, codes=each) for each in (None, {}, codes)}

    assert len(versions) == 2
    assert read_bundle(tmp_path / "model").codes == codes
    with pytest.raises(BundleError, match="no label"):
        write_bundle(tmp_path / "other", **parts, codes={"c": codes["b"]})
    wrong = {"a": LabelCodes(Code("SCT", "1", "Abnormal"), codes["b"].type)}
    with pytest.raises(BundleError, match="check digit"):
        write_bundle(tmp_path / "other", **parts, codes=wrong)


def test_a_new_artifact_replaces_the_old_one_with_its_documents(artifact):
    add_document(artifact, "metrics.json", json.dumps({"model_version": read_bundle(artifact).model_version}))

    version = write_bundle(artifact, **bundle_parts(labels=("a", "b")))

    assert read_bundle(artifact).labels == ("a", "b")
    assert read_bundle(artifact).model_version == version
    assert not (artifact / "docs").exists()
