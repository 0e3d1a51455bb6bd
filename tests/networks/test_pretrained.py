import re

import pytest
import torch
from monai.networks.nets import densenet, efficientnet, senet

from sagemaker_monai.errors import ConfigError
from sagemaker_monai.networks.networks import NETWORKS, build_network, network_def
from sagemaker_monai.networks.pretrained import find_weights, load_pretrained


def network(name="resnet10", *, classes=3, channels=3, seed=0):
    torch.manual_seed(seed)
    return build_network(network_def(name, in_channels=channels, num_classes=classes, image_size=32))


def saved(content, folder):
    path = folder / "weights.pt"
    torch.save(content, path)
    return path


def load(target, path, name="resnet10"):
    return load_pretrained(target, path, NETWORKS[name])


def equal(first, second):
    return all(torch.equal(a, b) for a, b in zip(first.values(), second.values(), strict=True))


def test_a_saved_network_of_the_same_kind_loads_completely(tmp_path):
    source, target = network(seed=1), network(seed=2)

    report = load(target, saved(source.state_dict(), tmp_path))

    assert equal(source.state_dict(), target.state_dict())
    assert (report.missing, report.mismatched, report.unexpected) == ((), (), ())
    assert report.summary() == f"{len(report.matched)} tensors loaded"


@pytest.mark.parametrize("wrapper", ["", "module."])
def test_a_network_whose_own_names_begin_like_a_wrappers_loads_completely(wrapper, tmp_path):
    definition = network_def("segresnet", spatial_dims=3, in_channels=1, num_classes=2, image_size=16)
    source, target = build_network(definition), build_network(definition)

    load(
        target, saved({f"{wrapper}{name}": value for name, value in source.state_dict().items()}, tmp_path), "segresnet"
    )

    assert equal(source.state_dict(), target.state_dict())


def test_what_wrappers_put_around_a_state_dict_is_taken_off(tmp_path):
    weights = network(seed=1).state_dict()
    for wrapped in (
        {"state_dict": weights},
        {"model": {"state_dict": weights}, "epoch": 3},
        {"model_state_dict": {f"module.{key}": value for key, value in weights.items()}},
        {f"_orig_mod.module.backbone.{key}": value for key, value in weights.items()},
    ):
        target = network(seed=2)
        load(target, saved(wrapped, tmp_path))

        assert equal(weights, target.state_dict())


def test_the_last_layer_stays_random_when_it_has_other_classes(tmp_path):
    source, target = network(classes=1000, seed=1), network(seed=2)
    head = target.fc.weight.clone()

    report = load(target, saved(source.state_dict(), tmp_path))

    assert torch.equal(target.fc.weight, head)
    assert torch.equal(target.conv1.weight, source.conv1.weight)
    assert report.mismatched == ("fc.weight", "fc.bias")
    assert "2 mismatched (fc.weight, fc.bias)" in report.summary()


def test_a_first_layer_for_other_channels_is_reported_and_the_rest_loads(tmp_path):
    source, target = network(channels=3, seed=1), network(channels=1, seed=2)

    report = load(target, saved(source.state_dict(), tmp_path))

    assert report.mismatched == ("conv1.weight",)
    assert torch.equal(target.layer4[0].conv2.weight, source.layer4[0].conv2.weight)


def elsewhere(name, weights):
    """The names under which the weights that MONAI downloads are published."""
    rules = {
        "densenet121": [(r"\.layers\.(norm|conv)(\d)", r".\1.\2"), (r"class_layers\.out", "classifier")],
        "efficientnet-b0": [(r"^_blocks\.\d+\.", "_blocks.")],
        "seresnet50": [
            (r"(layer[1-4]\.\d\.conv\d)\.conv", r"\1"),
            (r"(layer[1-4]\.\d)\.conv(\d)\.adn\.N", r"\1.bn\2"),
            (r"se_layer\.fc\.0", "se_module.fc1"),
            (r"se_layer\.fc\.2", "se_module.fc2"),
            (r"project\.conv", "downsample.0"),
            (r"project\.adn\.N", "downsample.1"),
        ],
    }[name]
    published = {}
    for key, value in weights.items():
        for pattern, replacement in rules:
            key = re.sub(pattern, replacement, key)
        published[key] = value[:, :, None, None] if key.endswith(("fc1.weight", "fc2.weight")) else value
    return published


@pytest.mark.parametrize(
    ("name", "module", "loader", "arguments"),
    [
        ("densenet121", densenet, "load_state_dict_from_url", ("densenet121", False)),
        ("seresnet50", senet, "load_state_dict_from_url", ("se_resnet50", False)),
        ("efficientnet-b0", efficientnet, "model_zoo", ("efficientnet-b0", False, False)),
    ],
)
def test_published_names_load_as_monai_itself_would_load_them(name, module, loader, arguments, tmp_path, monkeypatch):
    published = elsewhere(name, network(name, seed=1).state_dict())
    if loader == "model_zoo":
        monkeypatch.setattr(module.model_zoo, "load_url", lambda *_, **__: dict(published))
    else:
        monkeypatch.setattr(module, loader, lambda *_, **__: dict(published))
    ours, theirs = network(name, seed=2), network(name, seed=2)
    if name == "efficientnet-b0":
        monkeypatch.setitem(module.url_map, "efficientnet-b0", "stub")

    report = load(ours, saved(published, tmp_path), name)
    module._load_state_dict(theirs, *arguments)

    expected = theirs.state_dict()
    differing = [key for key, value in ours.state_dict().items() if not torch.equal(value, expected[key])]
    # MONAI leaves the last layer of a DenseNet random: it does not know its published name.
    assert [key for key in differing if not key.startswith(NETWORKS[name].head)] == []
    assert (report.missing, report.mismatched, report.unexpected) == ((), (), ())


def test_names_that_torchvision_gives_today_are_known(tmp_path):
    ours = network("densenet121", seed=2)
    torchvision = {
        key.replace(".layers.", ".").replace("class_layers.out", "classifier"): value + 1
        for key, value in ours.state_dict().items()
    }
    blocks = "features.denseblock1.denselayer1.norm1.weight", "features.denseblock4.denselayer16.conv2.weight"
    assert {*blocks, "classifier.bias"} <= torchvision.keys()

    report = load(ours, saved(torchvision, tmp_path), "densenet121")

    assert (report.missing, report.mismatched, report.unexpected) == ((), (), ())


def test_weights_of_another_network_are_refused_and_change_nothing(tmp_path):
    target = network()
    before = {key: value.clone() for key, value in target.state_dict().items()}

    with pytest.raises(ConfigError, match=r"of another network: \d+ of \d+ .*set network to theirs"):
        load(target, saved(network("densenet121").state_dict(), tmp_path))
    assert equal(before, target.state_dict())


def test_weights_that_are_not_finite_are_refused(tmp_path):
    weights = network().state_dict()
    weights["layer1.0.conv1.weight"][0] = float("nan")

    with pytest.raises(ConfigError, match=r"not finite in layer1\.0\.conv1\.weight"):
        load(network(), saved(weights, tmp_path))


class Evil:
    def __reduce__(self):
        return (print, ("run",))


@pytest.mark.parametrize("content", [Evil(), {"state_dict": {"conv1.weight": Evil()}}])
def test_a_file_that_would_run_code_is_refused_and_does_not(content, tmp_path, capsys):
    with pytest.raises(ConfigError, match="cannot be loaded as plain tensors"):
        load(network(), saved(content, tmp_path))
    assert "run" not in capsys.readouterr().out


def test_a_file_that_holds_no_state_dict_or_is_broken_is_refused(tmp_path):
    contents = [{}, [1, 2], {"epoch": 3}, torch.zeros(2)]
    for content in contents:
        saved(content, tmp_path)
        with pytest.raises(ConfigError, match="holds no state dict"):
            load(network(), tmp_path / "weights.pt")
    (tmp_path / "weights.pt").write_bytes(b"not weights")
    with pytest.raises(ConfigError, match=r"weights\.pt cannot be loaded"):
        load(network(), tmp_path / "weights.pt")


def test_a_channel_needs_exactly_one_file_of_weights(tmp_path):
    for names in ([], ["readme.txt"], ["weights.PTH"], ["another.pt"]):  # each beside those before
        for name in names:
            (tmp_path / name).touch()
        if names == ["weights.PTH"]:
            assert find_weights(tmp_path).name == "weights.PTH"
            continue
        with pytest.raises(ConfigError, match=r"must hold one file ending in \.pt or \.pth"):
            find_weights(tmp_path)
