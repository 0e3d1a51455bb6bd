import json
import subprocess
import sys

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sagemaker_monai.errors import BundleError, ConfigError
from sagemaker_monai.hyperparameters import TrainConfig
from sagemaker_monai.networks.networks import NETWORKS, NetworkEntry, build_network, network_def, network_name
from sagemaker_monai.networks.pretrained import load_pretrained
from tests.support.exhaustive import exhaustive

NETWORKS_2D = [name for name, entry in NETWORKS.items() if entry.arguments(2)]
NETWORKS_3D = [name for name, entry in NETWORKS.items() if entry.arguments(3)]


def dims_of(name):
    return 2 if name in NETWORKS_2D else 3


def definition(name="resnet18", **changes):
    return network_def(name, spatial_dims=dims_of(name), in_channels=3, num_classes=4, image_size=64) | changes


@pytest.mark.parametrize("name", exhaustive(NETWORKS_2D))
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


@pytest.mark.parametrize("name", exhaustive(NETWORKS_3D))
def test_every_network_for_volumes_runs_forward_and_backward_on_the_smallest_that_it_takes(name):
    side = NETWORKS[name].smallest_3d
    data = network_def(name, spatial_dims=3, in_channels=2, num_classes=1, image_size=(side + 1, side, side))
    network = build_network(json.loads(json.dumps(data)))

    outputs = network(torch.rand(2, 2, side + 1, side, side))
    outputs.square().mean().backward()

    assert network_name(data) == name
    assert outputs.shape == (2, 1)
    assert next(network.parameters()).grad.abs().sum() > 0


def last_features(definition, size):
    """Sides of what the last pooling of a residual network averages."""
    network = build_network(definition).eval()
    seen = []
    network.layer4.register_forward_hook(lambda _module, _inputs, output: seen.append(tuple(output.shape[2:])))
    with torch.no_grad():
        network(torch.rand(1, definition["n_input_channels"], *size))
    return seen[0]


@pytest.mark.parametrize(
    ("size", "stages"),
    [
        ((28, 28, 28), (2, 2, 2)),  # 28 | 14: 14 7 4 2
        ((40, 40, 40), (3, 3, 3)),  # 40 | 20: 20 10 5 3
        ((64, 64, 64), (2, 2, 2)),  # 32 | 16: 16 8 4 2
        ((96, 96, 16), (3, 3, 1)),  # as many voxels as a cube of 53
    ],
)
def test_a_small_volume_keeps_its_resolution_and_a_large_one_does_not(size, stages):
    data = network_def("resnet10", spatial_dims=3, in_channels=1, num_classes=2, image_size=size)

    assert last_features(data, size) == stages
    assert (data["bias_downsample"], data["shortcut_type"]) == (False, "B")


def test_definitions_for_images_are_what_artifacts_out_there_hold():
    assert json.dumps(network_def("resnet18", in_channels=3, num_classes=4, image_size=64)) == (
        '{"_target_": "monai.networks.nets.resnet18", "spatial_dims": 2, "conv1_t_stride": 2, '
        '"bias_downsample": false, "n_input_channels": 3, "num_classes": 4}'
    )
    assert json.dumps(network_def("densenet121", in_channels=1, num_classes=2, image_size=64, dropout=0.5)) == (
        '{"_target_": "monai.networks.nets.DenseNet121", "spatial_dims": 2, "in_channels": 1, "out_channels": 2, '
        '"dropout_prob": 0.5}'
    )
    assert json.dumps(network_def("efficientnet-b0", in_channels=3, num_classes=2, image_size=64)) == (
        '{"_target_": "monai.networks.nets.EfficientNetBN", "spatial_dims": 2, "model_name": "efficientnet-b0", '
        '"pretrained": false, "in_channels": 3, "num_classes": 2}'
    )


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"name": "segresnet", "spatial_dims": 2}, "segresnet does not take images: set network to one of densenet121"),
        (
            {"name": "densenet121", "image_size": (64, 64, 28)},
            "image_depth must be at least 32 for densenet121, got 28",
        ),
        ({"name": "resnet18", "image_size": 7}, "at least 8 for resnet18, got 7"),
    ],
)
def test_an_impossible_network_for_volumes_is_refused(changes, message):
    arguments = {"spatial_dims": 3, "in_channels": 1, "num_classes": 2, "image_size": 64} | changes
    with pytest.raises(ConfigError, match=message):
        network_def(arguments.pop("name"), **arguments)


def test_every_row_is_found_again_from_its_data():
    assert [network_name(definition(name)) for name in NETWORKS] == list(NETWORKS)


@pytest.mark.parametrize("name", exhaustive(NETWORKS))
def test_the_head_prefix_names_exactly_the_layer_whose_shape_is_the_number_of_classes(name):
    def shapes(classes):
        network = build_network(
            network_def(name, spatial_dims=dims_of(name), in_channels=3, num_classes=classes, image_size=32)
        )
        return {key: tuple(value.shape) for key, value in network.state_dict().items()}

    few, many = shapes(3), shapes(7)

    changed = {key for key in few if few[key] != many[key]}
    assert changed == {key for key in few if key.startswith(NETWORKS[name].head)}
    assert changed


@pytest.mark.parametrize("name", exhaustive(name for name, entry in NETWORKS.items() if entry.dropout))
def test_dropout_changes_training_and_not_evaluation(name):
    arguments = {"spatial_dims": dims_of(name), "in_channels": 3, "num_classes": 3, "image_size": 32}
    plain = build_network(network_def(name, **arguments))
    dropping = build_network(network_def(name, **arguments, dropout=0.5))
    dropping.load_state_dict(plain.state_dict())
    images = torch.rand(4, 3, *[32] * dims_of(name))

    assert torch.equal(plain.eval()(images), dropping.eval()(images))
    dropping.train()
    assert not torch.equal(dropping(images), dropping(images))


NO_ROW_WRITES = [  # a definition, and what is changed in it
    *(
        (definition(), {name: value})
        for name, values in {
            "_target_": ["os.system", "monai.networks.nets.resnet34", "monai.networks.nets.ResNet18", None],
            "extra": [1],
            "pretrained": [True],
            "conv1_t_stride": [1, 2.0],
            "bias_downsample": [0],
            "spatial_dims": [3],
            "num_classes": [4.0, "4", 0, 10**9, "$__import__('os').getpid()"],
            "n_input_channels": [True, 0, 17, [3]],
        }.items()
        for value in values
    ),
    *((definition("densenet121"), {"dropout_prob": rate}) for rate in [0, -0.1, 1.0, float("nan"), "0.1", None]),
    *((definition("efficientnet-b0"), {"model_name": name}) for name in ["efficientnet-b8", "../../x", 4]),
    (definition("efficientnet-b0"), {"pretrained": True}),
    *(
        (network_def("resnet18", spatial_dims=3, in_channels=1, num_classes=2, image_size=28), {name: value})
        for name, value in [
            ("no_max_pool", 0), ("conv1_t_size", 9), ("conv1_t_size", 7), ("shortcut_type", "A"), ("spatial_dims", 2),
        ]
    ),
]  # fmt: skip


@pytest.mark.parametrize(("data", "changed"), NO_ROW_WRITES, ids=lambda value: str(value)[:60])
def test_a_definition_that_no_row_writes_is_refused(data, changed):
    with pytest.raises(BundleError, match="network_def"):
        build_network(data | changed)


def test_a_definition_without_one_of_its_arguments_is_refused():
    for key in definition():
        with pytest.raises(BundleError):
            build_network({name: value for name, value in definition().items() if name != key})


@settings(max_examples=30)
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
        ({"num_classes": 0}, "1 to 10000 outputs, got 0"),
        ({"dropout": 1.0}, "dropout must be .* below 1, got 1.0"),
        ({"dropout": 0.1}, "resnet18 has no dropout.*densenet121"),
    ],
)
def test_an_impossible_network_is_refused_with_value_and_remedy(changes, message):
    arguments = {"name": "resnet18", "in_channels": 3, "num_classes": 2, "image_size": 64} | changes
    with pytest.raises(ConfigError, match=message):
        network_def(arguments.pop("name"), **arguments)


def test_reading_the_table_does_not_import_monai_nor_torch():
    code = "import sys, sagemaker_monai.networks.networks; sys.exit(bool({'monai', 'torch'} & sys.modules.keys()))"

    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


class Toy(torch.nn.Module):
    def __init__(self, in_channels, num_classes):
        super().__init__()
        self.last = torch.nn.Linear(in_channels, num_classes)

    def forward(self, images):
        return self.last(images.mean(dim=(2, 3)))


def test_a_network_is_one_row(tmp_path, monkeypatch):
    row = NetworkEntry(f"{__name__}.Toy", head="-", fixed={}, other_names=(((r"^last\.", "fc."),),))
    monkeypatch.setitem(NETWORKS, "toy", row)
    torch.save({"fc.weight": torch.full((2, 3), 7.0), "fc.bias": torch.zeros(2)}, tmp_path / "published.pt")

    data = network_def(TrainConfig.parse({"network": "toy"}).network, in_channels=3, num_classes=2, image_size=32)
    network = build_network(json.loads(json.dumps(data)))
    load_pretrained(network, tmp_path / "published.pt", row)

    assert network_name(data) == "toy"
    assert network(torch.ones(1, 3, 32, 32)).tolist() == [[21, 21]]
