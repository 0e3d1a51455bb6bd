import json
import subprocess
import sys

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from sagemaker_monai.errors import BundleError, ConfigError
from sagemaker_monai.networks import NETWORKS, build_network, network_def, network_name


def definition(name="resnet18", **changes):
    return network_def(name, in_channels=3, num_classes=4, image_size=64) | changes


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("channels", [1, 3])
def test_every_network_runs_forward_and_backward_from_its_data_after_json(name, channels):
    data = json.loads(json.dumps(network_def(name, in_channels=channels, num_classes=5, image_size=32)))
    network = build_network(data)

    logits = network(torch.rand(2, channels, 32, 32))
    logits.square().mean().backward()

    assert logits.shape == (2, 5)
    first = next(network.parameters())
    assert first.grad is not None
    assert first.grad.abs().sum() > 0


@pytest.mark.parametrize("name", NETWORKS)
def test_every_row_is_found_again_from_its_data(name):
    assert network_name(definition(name)) == name


@pytest.mark.parametrize("name", NETWORKS)
def test_the_head_prefix_names_exactly_the_layer_whose_shape_is_the_number_of_classes(name):
    def shapes(classes):
        network = build_network(network_def(name, in_channels=3, num_classes=classes, image_size=32))
        return {key: tuple(value.shape) for key, value in network.state_dict().items()}

    few, many = shapes(3), shapes(7)

    changed = {key for key in few if few[key] != many[key]}
    assert changed == {key for key in few if key.startswith(NETWORKS[name].head)}
    assert changed


@pytest.mark.parametrize("name", [name for name, entry in NETWORKS.items() if entry.dropout])
def test_dropout_changes_training_and_not_evaluation(name):
    plain = build_network(network_def(name, in_channels=3, num_classes=3, image_size=32))
    dropping = build_network(network_def(name, in_channels=3, num_classes=3, image_size=32, dropout=0.5))
    dropping.load_state_dict(plain.state_dict())
    images = torch.rand(4, 3, 32, 32)

    assert torch.equal(plain.eval()(images), dropping.eval()(images))
    dropping.train()
    assert not torch.equal(dropping(images), dropping(images))


@pytest.mark.parametrize(
    "changed",
    [
        {"_target_": "os.system"},
        {"_target_": "monai.networks.nets.resnet34"},
        {"_target_": "monai.networks.nets.ResNet18"},
        {"_target_": None},
        {"extra": 1},
        {"pretrained": True},
        {"conv1_t_stride": 1},
        {"conv1_t_stride": 2.0},
        {"bias_downsample": 0},
        {"spatial_dims": 3},
        {"num_classes": 4.0},
        {"n_input_channels": True},
        {"num_classes": "4"},
        {"num_classes": 1},
        {"num_classes": 10**9},
        {"n_input_channels": 0},
        {"n_input_channels": 17},
        {"n_input_channels": [3]},
        {"num_classes": "$__import__('os').getpid()"},
    ],
    ids=str,
)
def test_a_definition_that_no_row_writes_is_refused(changed):
    with pytest.raises(BundleError, match="network_def"):
        build_network(definition() | changed)


@pytest.mark.parametrize("key", sorted(definition()))
def test_a_definition_without_one_of_its_arguments_is_refused(key):
    data = definition()
    del data[key]

    with pytest.raises(BundleError):
        build_network(data)


@pytest.mark.parametrize("dropout", [0, -0.1, 1.0, float("nan"), "0.1", None])
def test_a_dropout_of_another_type_or_range_is_refused(dropout):
    with pytest.raises(BundleError):
        build_network(definition("densenet121", dropout_prob=dropout))


@pytest.mark.parametrize("name", ["efficientnet-b8", "../../x", 4])
def test_an_efficientnet_outside_the_table_is_refused_and_so_is_downloading(name):
    with pytest.raises(BundleError):
        build_network(definition("efficientnet-b0", model_name=name))
    with pytest.raises(BundleError):
        build_network(definition("efficientnet-b0", pretrained=True))


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(), lambda x: st.lists(x) | st.dictionaries(st.text(), x)
    )
)
def test_any_other_data_is_refused(data):
    with pytest.raises(BundleError):
        build_network(data)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"name": "alexnet"}, "network must be one of densenet121, .*'alexnet'"),
        ({"image_size": 31}, "image_size must be at least 32 .* 31"),
        ({"in_channels": 0}, "1 to 16 channels, got 0"),
        ({"num_classes": 1}, "2 to 10000 classes, got 1"),
        ({"dropout": 1.0}, "dropout must be .* below 1, got 1.0"),
        ({"dropout": 0.1}, "resnet18 has no dropout.*densenet121"),
    ],
)
def test_an_impossible_network_is_refused_with_value_and_remedy(changes, message):
    arguments = {"name": "resnet18", "in_channels": 3, "num_classes": 2, "image_size": 64} | changes
    with pytest.raises(ConfigError, match=message):
        network_def(arguments.pop("name"), **arguments)


def test_reading_the_table_does_not_import_monai():
    code = "import sys, sagemaker_monai.networks; sys.exit('monai' in sys.modules)"

    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
